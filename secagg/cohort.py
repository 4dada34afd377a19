"""Who takes part in a round, and what it is planned to withstand: counts behind rates, for every protocol's parameters.

The default rates err towards safety: at lower ones a round is cheaper, and stands less. The command line's help reads
this module, so that it loads nothing that plans.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from secagg.errors import ParameterError

Threat = Literal["semi-honest", "malicious-server"]
"""What the server may do: look at all that it is sent, or also lie."""

PLANNED_DROPOUT = 0.2
"""The share of clients that may vanish; if more do, the round gives no sum and reveals nothing."""
PLANNED_CORRUPT = 0.1
"""The share of clients that may collude with the server; if more do, it may read others' vectors."""

MAX_CLIENTS = 1 << 20
MIN_HONEST_SURVIVORS = 2
"""A sum in which one honest value stands alone is that value, whatever the protocol."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """Counts that a round must withstand: of ``clients``, ``corrupt`` collude and ``survivors`` stay to the end."""

    clients: int
    corrupt: int
    dropouts: int
    survivors: int


@functools.lru_cache(maxsize=64)  # every floor of every stage asks for it, and exact fractions are slow
def cohort_of(clients: int, corrupt: float, dropout: float) -> Cohort:
    """Return the counts behind a cohort's rates, rounded up."""
    # A rate means the decimal that was written: 0.1 of 30 is 3, though 0.1 * 30 exceeds 3 in binary
    corrupted, gone = (math.ceil(Fraction(repr(rate)) * clients) for rate in (corrupt, dropout))
    return Cohort(clients=clients, corrupt=corrupted, dropouts=gone, survivors=clients - gone)


class CohortCounts:
    """What all parameters have: counts behind their rates. They have ``clients``, ``corrupt`` and ``dropout``."""

    __slots__ = ()

    clients: int
    corrupt: float
    dropout: float

    @property
    def cohort(self) -> Cohort:
        """The counts behind the rates, rounded up."""
        return cohort_of(self.clients, self.corrupt, self.dropout)

    @property
    def corrupt_count(self) -> int:
        """A, how many clients may collude with the server: the rate times n, rounded up."""
        return self.cohort.corrupt

    @property
    def dropout_count(self) -> int:
        """D, how many clients may vanish: the rate times n, rounded up."""
        return self.cohort.dropouts

    @property
    def minimum_survivors(self) -> int:
        """S = n - D, the fewest inputs that a sum may hold."""
        return self.cohort.survivors


def check_honest_survivors(cohort: Cohort) -> None:
    """Raise ParameterError where fewer than ``MIN_HONEST_SURVIVORS`` honest inputs are sure to be in the sum."""
    honest = cohort.survivors - cohort.corrupt
    if honest < MIN_HONEST_SURVIVORS:
        raise ParameterError(
            f"too few clients: of {cohort.clients}, {cohort.dropouts} may vanish and {cohort.corrupt} may be corrupt, "
            f"which leaves {max(honest, 0)} honest in the sum; it takes {MIN_HONEST_SURVIVORS} for one to hide in it "
            f"({_what_would_help(cohort)})"
        )


def _what_would_help(cohort: Cohort) -> str:
    if not cohort.dropouts and not cohort.corrupt:
        return "more clients"
    return "more clients, or lower rates of drop-out or corruption: both counts are rounded up"
