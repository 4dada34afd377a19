"""What a round ends with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secagg.cohort import Threat
from secagg.encoding.fixed_point import decode_mean
from secagg.pairwise.params import RoundParams
from secagg.pairwise.server_states import Finished, Round
from secagg.pairwise.stages import stages_of
from secagg.session.context import context_digest

EMPTY_CONTEXT = (
    "The round's context was empty, so clients that were given different models were summed all the same: pass a hash "
    "of the model, or the round's name."
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoundResult:
    """The sum over the survivors, and who they are.

    Attributes:
        params: what the round ran with.
        survivors: ids of the clients whose input is in the sum, ascending.
        dropped: id of every other client, and of survivors that fell silent while unmasking -> the first stage
            (of ``secagg.STAGES``) whose message did not count: it never came, or, for ``share_keys``, it came from a
            client that was left with fewer than t neighbours.
        words: unsigned[d + 1], the sum in its ring with the weight last, as wide as the ring's lane.
        notes: what whoever uses this sum should know: those of the parameters, and whether its context was empty.
    """

    params: RoundParams
    survivors: tuple[int, ...]
    dropped: Mapping[int, str]
    words: NDArray[np.unsignedinteger]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, current: Round, state: Finished) -> RoundResult:
        """Read a round's result from the server's last state."""
        dropped: dict[int, str] = {}
        sets = {
            "advertise_keys": state.advertised,
            "share_keys": state.shared,
            "masked_input": state.survivors,
            "check_consistency": state.asked,
            "unmask": state.answered,
        }
        for stage in reversed(stages_of(current.params.threat)):
            dropped |= dict.fromkeys(current.ids[~sets[stage]].tolist(), stage)
        return cls(
            params=current.params,
            survivors=tuple(current.ids[state.survivors].tolist()),
            dropped=dict(sorted(dropped.items())),
            words=state.words,
            notes=(*current.params.notes, *([EMPTY_CONTEXT] if current.context == context_digest(b"") else [])),
        )

    @property
    def threat(self) -> Threat:
        """The threat model that the round ran in; ``semi-honest`` means that nobody's keys were authenticated."""
        return self.params.threat

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
        """The weighted mean of the survivors' quantised vectors: float64[d].

        Each coordinate differs from the mean of the clipped vectors by less than ``params.encoding.step``.
        """
        return decode_mean(self.words[:-1], self.weight, self.params.encoding)
