"""What a planner is asked: the round that somebody wants, before a protocol is chosen for it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction

from secagg.arguments import checked_integer, checked_rate
from secagg.cohort import MAX_CLIENTS, PLANNED_CORRUPT, PLANNED_DROPOUT
from secagg.encoding.fixed_point import MAX_DIMENSION, MAX_WEIGHT, FixedPoint
from secagg.errors import ParameterError


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A round as its user knows it. Whether a protocol can carry it is for ``compare`` to say.

    Attributes:
        clients: n, the clients invited, 2 to 2**20.
        dimension: d, coordinates of each vector, 0 to 2**32.
        encoding: how a coordinate becomes an integer.
        max_weight: the largest weight that a client may give its vector, 1 to 2**64 - 1.
        dropout: planned fraction of clients that vanish, in [0, 1): what the round must withstand.
        corrupt: planned fraction of clients that collude with the server, in [0, 1).
        actual_dropout: fraction that really vanishes, at most ``dropout``, for which traffic and cost are counted;
            ``dropout`` if None. Those clients vanish before their upload, where they cost the others most.

    Raises:
        ParameterError: a field lies outside its range.
    """

    clients: int
    dimension: int
    encoding: FixedPoint
    max_weight: int = 1
    dropout: float = PLANNED_DROPOUT
    corrupt: float = PLANNED_CORRUPT
    actual_dropout: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.encoding, FixedPoint):
            raise ParameterError(f"encoding must be a FixedPoint, got {type(self.encoding).__name__}")
        bounds = {"clients": (2, MAX_CLIENTS), "dimension": (0, MAX_DIMENSION), "max_weight": (1, MAX_WEIGHT)}
        for name, (low, high) in bounds.items():
            object.__setattr__(self, name, checked_integer(name, getattr(self, name), low, high))
        for name in ("dropout", "corrupt"):
            object.__setattr__(self, name, checked_rate(name, getattr(self, name)))
        if self.actual_dropout is None:
            return
        object.__setattr__(self, "actual_dropout", checked_rate("actual_dropout", self.actual_dropout))
        if self.actual_dropout > self.dropout:
            raise ParameterError(
                f"actual_dropout {self.actual_dropout!r} exceeds the planned {self.dropout!r}: the round gives no sum"
            )

    @property
    def dropped(self) -> int:
        """How many clients vanish before their upload: the actual rate times n, rounded up as the planned one is."""
        rate = self.dropout if self.actual_dropout is None else self.actual_dropout
        # A rate means the decimal that was written, as it does for RoundParams
        return math.ceil(Fraction(repr(rate)) * self.clients)

    def at(self, clients: int) -> Workload:
        """Return the same round among another number of clients."""
        return dataclasses.replace(self, clients=clients)
