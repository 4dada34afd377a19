"""NVFlare's homomorphic setting on TenSEAL: CKKS with its defaults and one secret key that all clients share.

The setting, not the framework: the parameters, the order of calls and the server's scaling are those of NVFlare's
provisioning and filters (``HEBuilder``, ``HEModelEncryptor``, ``HEInTimeAccumulateWeightedAggregator``,
``HEModelDecryptor``); its messages and training loop are not run. Ciphertexts' bytes are made and read by TenSEAL and
are counted, as every system's own are.
"""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import tenseal

from benchmarks.systems.catalogue import Setting
from benchmarks.systems.measurement import Meter, Outcome, main, survivors_of

DEGREE, PRIME_BITS, SCALE_BITS = 8192, [60, 40, 40], 40
CKKS_ERROR = 1e-5
"""Allowed a coordinate of the mean: CKKS is approximate, and its noise at these parameters stays well below."""


def run(setting: Setting, vectors: list[np.ndarray], meter: Meter) -> Outcome:
    """Clients encrypt; the server adds and scales ciphertexts; every client decrypts the mean."""
    client_context, server_context = _provision()
    present, total = survivors_of(setting), None
    for one in present:
        with meter.client(one):
            upload = tenseal.ckks_vector(client_context, vectors[one] * np.float64(1.0)).serialize()
        meter.up[one] += len(upload)
        with meter.server():
            arrived = tenseal.ckks_vector_from(server_context, upload)
            total = arrived if total is None else total + arrived
    with meter.server():
        reply = (total * (1.0 / len(present))).serialize()
    mean = None
    for one in present:
        meter.down[one] += len(reply)
        with meter.client(one):
            mean = np.array(tenseal.ckks_vector_from(client_context, reply).decrypt())
    return Outcome(
        total=mean * len(present),
        error_bound=len(present) * CKKS_ERROR,
        version=f"TenSEAL {version('tenseal')}",
        parameters={"poly_modulus_degree": DEGREE, "coeff_mod_bit_sizes": PRIME_BITS, "scale_bits": SCALE_BITS},
    )


def _provision() -> tuple[tenseal.Context, tenseal.Context]:
    """Make the shared key, as NVFlare does before any round: the clients' context has it, the server's has not."""
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS,
        poly_modulus_degree=DEGREE,
        coeff_mod_bit_sizes=PRIME_BITS,
        encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
        n_threads=1,
    )
    context.generate_relin_keys()
    context.global_scale = 2**SCALE_BITS
    secret = context.serialize(save_public_key=True, save_secret_key=True, save_relin_keys=True)
    public = context.serialize(save_public_key=False, save_secret_key=False, save_relin_keys=True)
    return tuple(tenseal.context_from(one, n_threads=1) for one in (secret, public))


if __name__ == "__main__":
    main({"nvflare-he": run})
