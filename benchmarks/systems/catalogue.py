"""What is compared, on what: the systems with their requirements and traits, and the presets.

Imports the standard library alone, since every system's own environment reads it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from math import ceil


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a system's secure sum withstands.

    Attributes:
        drop_outs: the sum over the others comes out when a client vanishes before its upload.
        malicious_server: a server that deviates from the protocol still learns the sum alone.
        cryptographic_masks: what hides a vector comes from a cryptographic generator or cipher of 128 bits or more.
        lacks: in a sentence, what it does not do.
    """

    drop_outs: bool
    malicious_server: bool
    cryptographic_masks: bool
    lacks: str


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One row of the comparison.

    Attributes:
        title: the row's name.
        module: its adapter, a module of this package.
        traits: what it withstands.
        requirements: what pip installs into its own environment; empty where secagg's own is used.
        environment: the folder of that environment.
    """

    title: str
    module: str
    traits: Traits
    requirements: tuple[str, ...] = ()
    environment: str = ""


SYSTEMS: dict[str, System] = {
    "secagg": System(
        title="secagg, semi-honest",
        module="secagg_sessions",
        traits=Traits(
            drop_outs=True,
            malicious_server=False,
            cryptographic_masks=True,
            lacks="does not withstand a server that deviates (see the next row)",
        ),
    ),
    "secagg-malicious": System(
        title="secagg, malicious server",
        module="secagg_sessions",
        traits=Traits(
            drop_outs=True,
            malicious_server=True,
            cryptographic_masks=True,
            lacks="does not keep the server from leaving clients out or reporting a wrong sum",
        ),
    ),
    "numpy": System(
        title="numpy, in the clear",
        module="plain_numpy",
        traits=Traits(
            drop_outs=True,
            malicious_server=False,
            cryptographic_masks=False,
            lacks="hides nothing: the server reads every vector",
        ),
    ),
    "flower": System(
        title="Flower SecAgg+",
        module="flower_secaggplus",
        environment="flower",
        requirements=("flwr==1.41.0",),
        traits=Traits(
            drop_outs=True,
            malicious_server=False,
            cryptographic_masks=False,
            lacks="masks come from NumPy's Mersenne Twister on a 32-bit seed; keys are not authenticated",
        ),
    ),
    "nvflare-he": System(
        title="NVFlare's CKKS setting",
        module="nvflare_ckks",
        environment="tenseal",
        requirements=("tenseal==0.3.18", "numpy>=2"),
        traits=Traits(
            drop_outs=True,
            malicious_server=False,
            cryptographic_masks=True,
            lacks="all clients share one secret key: the server and any client together read everybody; approximate",
        ),
    ),
    "fate": System(
        title="FATE's Rust kernels",
        module="fate_mixing",
        environment="fate",
        requirements=("fate_utils==0.1.0", "numpy>=2"),
        traits=Traits(
            drop_outs=False,
            malicious_server=False,
            cryptographic_masks=True,
            lacks="no recovery from drop-outs; float masks of bounded range, so the hiding is statistical",
        ),
    ),
    "declearn": System(
        title="declearn's masking",
        module="declearn_masking",
        environment="declearn",
        requirements=("declearn==2.9.1",),
        traits=Traits(
            drop_outs=False,
            malicious_server=False,
            cryptographic_masks=False,
            lacks="no recovery from drop-outs; masks come from NumPy's PCG64",
        ),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What every system sums; an adapter reads it as JSON.

    Attributes:
        clients: n.
        neighbours: k, with how many others a client shares masks; n - 1 is the complete graph.
        threshold: t, how many shares rebuild a secret; Flower counts the share that a client keeps among them.
        dimension: d.
        dropped: how many clients, the first ones, vanish after they dealt shares and before they upload.
        clip: inputs are uniform in [-clip, clip], so nothing is cut.
        bits: bits of a quantised coordinate, where the system lets one choose.
        seed: of the inputs.
    """

    clients: int
    neighbours: int
    threshold: int
    dimension: int
    dropped: int = 0
    clip: float = 1.0
    bits: int = 16
    seed: int = 1

    def describe(self) -> str:
        """Return the setting in a line."""
        complete = self.neighbours == self.clients - 1
        graph = "complete graph" if complete else f"k={self.neighbours} neighbours"
        gone = f"{self.dropped} of {self.clients} dropped before their upload" if self.dropped else "none dropped"
        return f"n={self.clients}, {graph}, t={self.threshold}, d={self.dimension:,}, {gone}"

    def as_dict(self) -> dict[str, object]:
        """Return the fields by name."""
        return asdict(self)


PLANNED_DROPOUT, PLANNED_CORRUPT = 0.1, 0.05
"""The rates that secagg's parameters are proved at, whether or not anybody drops in the run."""


def _setting(clients: int, dimension: int, *, neighbours: int | None = None, dropout: float = 0.0) -> Setting:
    k = clients - 1 if neighbours is None else neighbours
    return Setting(
        clients=clients,
        neighbours=k,
        threshold=2 * k // 3 + 1,
        dimension=dimension,
        dropped=ceil(Fraction(repr(dropout)) * clients),
    )


PRESETS: dict[str, Setting] = {
    "quick": _setting(10, 10_000),
    "quick-dropped": _setting(10, 10_000, dropout=0.1),
    "flower-small": _setting(50, 100_000, neighbours=24),
    "flower-small-dropped": _setting(50, 100_000, neighbours=24, dropout=0.1),
    "flower-complete": _setting(20, 1_000_000),
    "flower-100": _setting(100, 100_000, dropout=0.1),
}
