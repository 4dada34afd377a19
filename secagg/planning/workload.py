"""What a planner is asked: the round that somebody wants, before a protocol is chosen for it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction

from secagg.errors import ParameterError
from secagg.params import FixedPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A round as its user knows it. Ranges are checked by each protocol that is asked to carry it.

    Attributes:
        clients: n, the clients invited.
        dimension: d, coordinates of each vector.
        encoding: how a coordinate becomes an integer.
        max_weight: the largest weight that a client may give its vector.
        dropout: planned fraction of clients that vanish: what the round must withstand.
        corrupt: planned fraction of clients that collude with the server.
        actual_dropout: fraction that really vanishes, at most ``dropout``, for which traffic and cost are counted;
            ``dropout`` if None. Those clients vanish before their upload, where they cost the others most.

    Raises:
        ParameterError: ``actual_dropout`` is no rate up to ``dropout``.
    """

    clients: int
    dimension: int
    encoding: FixedPoint
    max_weight: int = 1
    dropout: float = 0.1
    corrupt: float = 0.05
    actual_dropout: float | None = None

    def __post_init__(self) -> None:
        if self.actual_dropout is not None and not 0 <= self.actual_dropout <= self.dropout:
            raise ParameterError(
                f"actual_dropout must lie in [0, {self.dropout!r}]: beyond the planned rate the round gives no sum, "
                f"got {self.actual_dropout!r}"
            )

    @property
    def dropped(self) -> int:
        """How many clients vanish before their upload: the actual rate times n, rounded up as the planned one is."""
        rate = self.dropout if self.actual_dropout is None else self.actual_dropout
        # A rate means the decimal that was written, as it does for RoundParams
        return math.ceil(Fraction(repr(float(rate))) * self.clients)

    def at(self, clients: int) -> Workload:
        """Return the same round among another number of clients."""
        return dataclasses.replace(self, clients=clients)
