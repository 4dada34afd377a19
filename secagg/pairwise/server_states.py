"""What the server knows while a stage is open: one type for each. Arrays run over roster positions.

The types are frozen, but folds write into their arrays: a masked input is added to the accumulator, not kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secagg.errors import LocalProtocolError
from secagg.identity import SIGNATURE_BYTES
from secagg.pairwise.graph import MaskingGraph
from secagg.pairwise.messages import DIGEST_BYTES, Bytes, Members, Roster, Secret
from secagg.pairwise.params import RoundParams


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Round(Secret):
    """What the server fixes before anybody answers. ``ids`` ascends strictly: uint64[n]."""

    params: RoundParams
    ids: NDArray[np.uint64]
    round_id: bytes
    nonce: bytes
    ring_seed: bytes
    """What the server's own graph is drawn from, fixed here so that a restored server draws the same one."""
    context: bytes
    """Hash of the caller's context."""
    directory: bytes = b""
    """Digest of the directory of identities; empty in the semi-honest model."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Signed:
    """What clients signed, kept for the relay and for blame; no rows in the semi-honest model.

    Attributes:
        shares: uint8[n, 64], the signatures of ENCRYPTED_SHARES.
        uploads: uint8[n, 96], of each MASKED_INPUT the hash of its vector and its signature.
        consistency: uint8[n, 64], the signatures of CONSISTENCY.
    """

    shares: Bytes
    uploads: Bytes
    consistency: Bytes

    @classmethod
    def empty(cls, params: RoundParams) -> Signed:
        """Nobody has signed."""
        rows = params.clients if params.threat == "malicious-server" else 0
        return cls(
            shares=np.zeros((rows, SIGNATURE_BYTES), dtype=np.uint8),
            uploads=np.zeros((rows, DIGEST_BYTES + SIGNATURE_BYTES), dtype=np.uint8),
            consistency=np.zeros((rows, SIGNATURE_BYTES), dtype=np.uint8),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CollectingKeys(Secret):
    """Invitations are out. ``entries`` is uint8[n, 96 or 160], filled where ``received``."""

    entries: Bytes
    received: Members


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Session(Secret):
    """What the roster fixed, and what was dealt and signed since; every later state holds it.

    Attributes:
        session_id: the session's identifier.
        roster: who advertised which keys.
        beacon: what drew the graph; None in the complete graph and in the semi-honest model.
        graph: who masks with whom; None while the beacon that draws it is awaited.
        sealed: uint8[n, k, 96 or 256], what dealers sealed and committed to: a sender's row runs over all its
            neighbours, ascending. Empty once it is relayed and no longer needed.
        signed: what clients signed.
    """

    session_id: bytes
    roster: Roster
    beacon: bytes | None
    graph: MaskingGraph | None
    sealed: Bytes
    signed: Signed

    @property
    def drawn(self) -> MaskingGraph:
        """The graph.

        Raises:
            LocalProtocolError: the beacon that draws it is awaited.
        """
        if self.graph is None:
            raise LocalProtocolError("the beacon that draws the graph is awaited: call use_beacon first")
        return self.graph


class _OfSession(Secret):
    """A state of a session, whose parts are read as its own."""

    __slots__ = ()

    session: Session

    @property
    def session_id(self) -> bytes:
        return self.session.session_id

    @property
    def roster(self) -> Roster:
        return self.session.roster

    @property
    def beacon(self) -> bytes | None:
        return self.session.beacon

    @property
    def graph(self) -> MaskingGraph:
        return self.session.drawn

    @property
    def sealed(self) -> Bytes:
        return self.session.sealed

    @property
    def signed(self) -> Signed:
        return self.session.signed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CollectingShares(_OfSession):
    """The roster is out."""

    session: Session
    received: Members


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CollectingInputs(_OfSession):
    """Shares are relayed. ``shared`` is U2; ``accumulator`` holds the sum of the masked inputs ``received``."""

    session: Session
    shared: Members
    accumulator: NDArray[np.unsignedinteger]
    received: Members


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CollectingConsistency(_OfSession):
    """Survivors (U3) are announced; their signatures of that set are collected."""

    session: Session
    shared: Members
    survivors: Members
    accumulator: NDArray[np.unsignedinteger]
    received: Members


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CollectingUnmask(_OfSession):
    """Shares are asked for.

    Attributes:
        asked: bool[n], who may answer: the survivors, or those among them that signed the set (U4).
        held: uint8[n, k, 40 or 56], what was released: a holder's row runs over all its neighbours.
    """

    session: Session
    shared: Members
    survivors: Members
    accumulator: NDArray[np.unsignedinteger]
    asked: Members
    held: Bytes
    received: Members


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Finished:
    """The round is done. Arrays of members run over the roster; ``words`` is the sum in the clear."""

    advertised: Members
    shared: Members
    survivors: Members
    asked: Members
    answered: Members
    words: NDArray[np.unsignedinteger]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Aborted:
    """The round was given up; nothing of it is left."""


Collecting = CollectingKeys | CollectingShares | CollectingInputs | CollectingConsistency | CollectingUnmask
ServerState = Collecting | Finished | Aborted
