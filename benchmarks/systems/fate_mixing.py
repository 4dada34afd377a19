"""FATE's secure aggregation by its Rust kernels: key exchange, mixing and unmixing, as its Python layer calls them.

The kernels, not the framework: its contexts and transport are not run, and nobody's time for encoding is counted. A
mixed coordinate is two float64, so it takes 16 bytes.
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
from fate_utils.secure_aggregation_helper import DiffieHellman, MixAggregate, RandomMix

from benchmarks.systems.catalogue import Setting
from benchmarks.systems.measurement import Meter, Outcome, main


def run(setting: Setting, vectors: list[np.ndarray], meter: Meter) -> Outcome:
    """A fresh X25519 exchange with every other client, then one mixed vector each; nobody may drop out."""
    cohort = range(setting.clients)
    exchanges: dict[tuple[int, int], DiffieHellman] = {}
    keys: dict[tuple[int, int], bytes] = {}
    for one in cohort:
        with meter.client(one):
            for other in cohort:
                if other != one:
                    exchanges[one, other] = DiffieHellman()
                    keys[one, other] = bytes(exchanges[one, other].get_public_key())
        meter.up[one] += sum(len(keys[one, other]) for other in cohort if other != one)
        for other in cohort:
            meter.down[other] += len(keys[one, other]) if other != one else 0
    with meter.server():
        aggregate = MixAggregate()
    for one in cohort:
        with meter.client(one):
            seeds = {other: exchanges[one, other].diffie_hellman(keys[other, one]) for other in cohort if other != one}
            mixed = RandomMix(seeds, one).mix([vectors[one].astype(np.float64)], None)
        meter.up[one] += sum(part.nbytes for pair in mixed for part in pair)
        with meter.server():
            aggregate.aggregate(mixed)
    with meter.server():
        total = aggregate.finalize(None)[0]
    return Outcome(
        total=total,
        # The last bit of a float near 1e7 is worth 2^-29; the fractions of n - 1 such masks need not quite cancel
        error_bound=setting.clients**2 * 2.0**-29,
        version=version("fate_utils"),
        parameters={"neighbours": setting.clients - 1},
    )


if __name__ == "__main__":
    main({"fate": run})
