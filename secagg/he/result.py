"""What a homomorphic sum ends with: what a pairwise round's result has, and who holds the key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secagg.cohort import Threat
from secagg.encoding.fixed_point import decode_mean
from secagg.he.messages import HE_STAGES
from secagg.he.params import HEParams, KeyHolder


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sum:
    params: HEParams
    survivors: tuple[int, ...]
    dropped: Mapping[int, str]

    @property
    def threat(self) -> Threat:
        """``malicious-server`` where a decryptor checked the aggregator's work, else ``semi-honest``."""
        return self.params.threat

    @property
    def key_holder(self) -> KeyHolder:
        """Who can decrypt. ``clients``: any one of them together with the aggregator reads everybody's vector."""
        return self.params.key_holder

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever uses this sum should know: who can read what, and how much was flooded."""
        return self.params.notes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExactSum(_Sum):
    """A BFV sum: the integers that a pairwise round gives, bit for bit.

    Attributes:
        params: what the sum ran with.
        survivors: ids of the clients whose input is in it, ascending.
        dropped: id of every other client -> ``encrypted_input``.
        words: unsigned[d + 1], the sum with the weight last.
    """

    words: NDArray[np.unsignedinteger]

    @property
    def total(self) -> NDArray[np.uint64]:
        """The exact integers: each survivor's codes times its weight, summed: uint64[d]."""
        return self.words[:-1].astype(np.uint64)

    @property
    def weight(self) -> int:
        """The sum of the survivors' weights."""
        return int(self.words[-1])

    @property
    def mean(self) -> NDArray[np.float64]:
        """The weighted mean of the survivors' quantised vectors, within ``params.encoding.step``: float64[d]."""
        return decode_mean(self.words[:-1], self.weight, self.params.encoding)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ApproximateSum(_Sum):
    """A CKKS sum, flooded and rounded. Its bounds fail with probability at most 2**-40.

    Attributes:
        params: what the sum ran with.
        survivors: ids of the clients whose input is in it, ascending.
        dropped: id of every other client -> ``encrypted_input``.
        values: float64[d + 1], the sum of weight x clipped value over W clip, then of weight over W.
    """

    values: NDArray[np.float64]

    @property
    def total(self) -> NDArray[np.float64]:
        """Each survivor's clipped values times its weight, summed, within ``error``: float64[d]."""
        return self.values[:-1] * (self.params.max_weight * self.params.encoding.clip)

    @property
    def weight(self) -> float:
        """The sum of the survivors' weights, within ``params.error`` times W."""
        return float(self.values[-1]) * self.params.max_weight

    @property
    def error(self) -> float:
        """How far each coordinate of ``total`` is from the exact sum, at most."""
        return self.params.error * self.params.max_weight * self.params.encoding.clip

    @property
    def mean(self) -> NDArray[np.float64]:
        """The weighted mean of the survivors' clipped vectors, within ``mean_error``: float64[d]."""
        clip = self.params.encoding.clip
        mean: NDArray[np.float64] = np.clip(self.values[:-1] / self.values[-1], -1.0, 1.0) * clip
        return mean

    @property
    def mean_error(self) -> NDArray[np.float64]:
        """How far each coordinate of ``mean`` is from the exact mean, at most: float64[d].

        With Y and Z the exact sums, Y' and Z' what is known of them within E: Y'/Z' - Y/Z = (e1 - (Y'/Z') e2) / Z.
        """
        clip, error, weight = self.params.encoding.clip, self.params.error, self.values[-1]
        ratio = np.abs(self.values[:-1] / weight)
        bound: NDArray[np.float64] = clip * error * (1 + ratio) / (weight - error)
        return bound


Sum = ExactSum | ApproximateSum


def sum_of(params: HEParams, ids: Sequence[int], members: NDArray[np.bool_], values: NDArray[Any]) -> Sum:
    """Return a released sum as a result; ``ids`` ascend, ``members`` are those in the sum."""
    survivors = tuple(one for one, present in zip(ids, members.tolist(), strict=True) if present)
    dropped = {one: HE_STAGES[0] for one, present in zip(ids, members.tolist(), strict=True) if not present}
    values.flags.writeable = False  # results hand the array out: a caller's slip must not change the session's own
    if params.protocol == "bfv":
        return ExactSum(params=params, survivors=survivors, dropped=dropped, words=values)
    return ApproximateSum(params=params, survivors=survivors, dropped=dropped, values=values)
