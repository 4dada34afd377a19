"""What a client knows between two messages: one frozen type for each state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secagg.errors import DecodeError
from secagg.pairwise.messages import Bytes, Members, Roster, Secret
from secagg.pairwise.params import RoundParams

_CONTEXT_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What a client released shares for; give it to the client's later sessions as ``earlier``.

    Attributes:
        context: hash of the round's context, 32 bytes.
        survivors: ids of the clients whose sum could be unmasked with the shares, ascending.
    """

    context: bytes
    survivors: tuple[int, ...]

    def encode(self) -> bytes:
        """Return 32 + 8 |survivors| bytes."""
        return self.context + np.array(self.survivors, dtype="<u8").tobytes()

    @classmethod
    def decode(cls, encoded: bytes) -> Release:
        """Read what ``encode`` wrote.

        Raises:
            DecodeError: the length is wrong, or the ids do not ascend strictly.
        """
        if not isinstance(encoded, bytes):
            raise DecodeError(f"a release is bytes, got {type(encoded).__name__}")
        if len(encoded) < _CONTEXT_BYTES or len(encoded) % 8:
            raise DecodeError(f"a release takes 32 bytes and 8 for each survivor, got {len(encoded)}")
        ids = np.frombuffer(encoded, dtype="<u8", offset=_CONTEXT_BYTES)
        if not (ids[1:] > ids[:-1]).all():
            raise DecodeError("a release's survivors must ascend strictly")
        return cls(context=encoded[:_CONTEXT_BYTES], survivors=tuple(ids.tolist()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """What a client pins before the round begins."""

    params: RoundParams
    client_id: int
    context: bytes
    directory: bytes = b""
    """Digest of the directory of identities; empty in the semi-honest model."""
    earlier: tuple[Release, ...] = ()
    """What this client released before, so that no two sums of one context differ by a single honest client."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Idle:
    """Before any message."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Advertised(Secret):
    """Keys are out; the roster is awaited. ``advertisement`` is what was sent, which the roster must hold unaltered."""

    round_id: bytes
    advertisement: bytes
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
class Place(Secret):
    """Where a client stands in a session: every state from ``Shared`` to ``Checked`` holds it.

    Attributes:
        session_id: the session's identifier.
        position: the client's own place in the roster.
        ids: the roster's, uint64[n].
        neighbours: positions of the neighbours that are still in, ascending: those in U1, then those in U2.
    """

    session_id: bytes
    position: int
    ids: NDArray[np.uint64]
    neighbours: NDArray[np.uint32]


class _Placed(Secret):
    """A state with a place, whose parts are read as its own."""

    __slots__ = ()

    place: Place

    @property
    def session_id(self) -> bytes:
        return self.place.session_id

    @property
    def position(self) -> int:
        return self.place.position

    @property
    def ids(self) -> NDArray[np.uint64]:
        return self.place.ids

    @property
    def neighbours(self) -> NDArray[np.uint32]:
        return self.place.neighbours


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Shared(_Placed):
    """Shares are out; the neighbours' are awaited. Keys run over the ``neighbours`` in U1.

    ``beacon`` is the ``beacon_digest`` that the shares were signed with and the upload will be; empty in the
    semi-honest model.
    """

    place: Place
    beacon: bytes
    advertised: Members
    opening_keys: bytes
    mask_publics: bytes
    mask_secret: bytes
    seed: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Ready(_Placed):
    """Everything but the vector is here. Keys and shares run over the ``neighbours`` in U2.

    Attributes:
        accepted: digest of what the server relayed, for the upload to name; empty in the semi-honest model.
        shares: uint8[m, 2, 40 or 56].
    """

    place: Place
    shared: Members
    accepted: bytes
    mask_publics: bytes
    mask_secret: bytes
    seed: bytes
    shares: Bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Masked(_Placed):
    """The masked vector is out; the survivor set is awaited."""

    place: Place
    shared: Members
    shares: Bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Checked(_Placed):
    """The survivor set is signed; a quorum's signatures of the same set are awaited (malicious-server model)."""

    place: Place
    shared: Members
    survivors: Members
    shares: Bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Released:
    """One kind of share of each neighbour is out, for good; no secret is left but in the replies kept for retries."""

    session_id: bytes
    survivors: NDArray[np.uint64]
    """Ids of U3, ascending."""


ClientState = Idle | Advertised | Fixed | Shared | Ready | Masked | Checked | Released
