"""What a client knows between two messages: one frozen type for each state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secagg.pairwise.messages import Bytes, Members, Roster, Secret
from secagg.params import RoundParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """What a client pins before the round begins."""

    params: RoundParams
    client_id: int
    context: bytes
    directory: bytes = b""
    """Digest of the directory of identities; empty in the semi-honest model."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Idle:
    """Before any message."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Advertised(Secret):
    """Keys are out; the roster is awaited."""

    round_id: bytes
    channel_secret: bytes
    mask_secret: bytes
    seed: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Fixed(Secret):
    """The roster is fixed, and with it the session; the neighbours follow from the beacon where one is awaited."""

    round_id: bytes
    session_id: bytes
    position: int
    roster: Roster
    channel_secret: bytes
    mask_secret: bytes
    seed: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Shared(Secret):
    """Shares are out; the neighbours' are awaited. Arrays run over the neighbours in U1, ascending."""

    session_id: bytes
    position: int
    advertised: Members
    neighbours: NDArray[np.uint32]
    neighbour_ids: NDArray[np.uint64]
    opening_keys: bytes
    mask_publics: bytes
    mask_secret: bytes
    seed: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Ready(Secret):
    """Everything but the vector is here. Arrays run over the neighbours in U2; shares are uint8[m, 2, 40 or 56]."""

    session_id: bytes
    position: int
    shared: Members
    neighbours: NDArray[np.uint32]
    neighbour_ids: NDArray[np.uint64]
    mask_publics: bytes
    mask_secret: bytes
    seed: bytes
    shares: Bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Masked(Secret):
    """The masked vector is out; the survivor set is awaited."""

    session_id: bytes
    position: int
    shared: Members
    neighbours: NDArray[np.uint32]
    shares: Bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Checked(Secret):
    """The survivor set is signed; a quorum's signatures of the same set are awaited (malicious-server model)."""

    session_id: bytes
    position: int
    shared: Members
    survivors: Members
    neighbours: NDArray[np.uint32]
    shares: Bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Released:
    """One kind of share of each neighbour is out, for good; no secret is left but in the replies kept for retries."""

    session_id: bytes


ClientState = Idle | Advertised | Fixed | Shared | Ready | Masked | Checked | Released
