"""The messages of a pairwise round, one frozen type for each arrow; they encode and decode themselves.

``decode`` takes the body alone and whatever fixes its length, and raises DecodeError for anything but an exact
encoding. Vector messages compare by identity: compare their encodings. Source: SPEC "Messages".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secagg.errors import DecodeError
from secagg.primitives.aead import TAG_BYTES
from secagg.primitives.shamir import SHARE_BYTES, check_shares
from secagg.wire import ID_BYTES, SERVER, Reader, bitmap_bytes, decode_bitmap, encode_bitmap, expect_length

Bytes = NDArray[np.uint8]
Members = NDArray[np.bool_]

PUBLIC_BYTES = 32
DIGEST_BYTES = 32
ENTRY_BYTES = 2 * PUBLIC_BYTES + DIGEST_BYTES
SHARE_PAIR_BYTES = 2 * SHARE_BYTES
SEALED_SHARES_BYTES = SHARE_PAIR_BYTES + TAG_BYTES


class Kind(enum.IntEnum):
    """Which message it is: even from the server, odd from a client. 7 and 8 are kept for the consistency check."""

    INVITATION = 0
    KEY_ADVERTISEMENT = 1
    ROSTER = 2
    ENCRYPTED_SHARES = 3
    RELAYED_SHARES = 4
    MASKED_INPUT = 5
    UNMASK_REQUEST = 6
    UNMASK_SHARES = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """Server to client: a round begins. The header's session is the round's identifier, which the client recomputes."""

    nonce: bytes

    def encode(self) -> bytes:
        """Return the body: 32 bytes."""
        return self.nonce

    @classmethod
    def decode(cls, body: memoryview) -> Invitation:
        """Read a body."""
        expect_length(body, ID_BYTES, "an invitation")
        return cls(nonce=bytes(body))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAdvertisement:
    """Client to server: both X25519 public keys and the commitment to the self-mask seed."""

    channel_public: bytes
    mask_public: bytes
    seed_commitment: bytes

    def encode(self) -> bytes:
        """Return the body: 96 bytes."""
        return self.channel_public + self.mask_public + self.seed_commitment

    @classmethod
    def decode(cls, body: memoryview) -> KeyAdvertisement:
        """Read a body."""
        expect_length(body, ENTRY_BYTES, "a key advertisement")
        return cls(channel_public=bytes(body[:32]), mask_public=bytes(body[32:64]), seed_commitment=bytes(body[64:]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Roster:
    """Server to client: everybody invited, who advertised (U1) and what, and the recipient's neighbours.

    Attributes:
        ids: uint64[n], strictly ascending, so a client's position follows from the set alone.
        advertised: bool[n], U1.
        entries: uint8[|U1|, 96], key advertisements in roster order.
        neighbours: uint32[k] ascending positions, or None in the complete graph.
    """

    ids: NDArray[np.uint64]
    advertised: Members
    entries: Bytes
    neighbours: NDArray[np.uint32] | None

    def encode_common(self) -> bytes:
        """Return the part that is the same for every client, which the session's identifier is computed over."""
        return self.ids.astype("<u8").tobytes() + encode_bitmap(self.advertised) + self.entries.tobytes()

    def encode(self) -> bytes:
        """Return the body: 8n + ceil(n/8) + 96 |U1| + 4k bytes."""
        own = b"" if self.neighbours is None else self.neighbours.astype("<u4").tobytes()
        return self.encode_common() + own

    @classmethod
    def decode(cls, body: memoryview, *, clients: int, sparse_neighbours: int) -> Roster:
        """Read a body; ``sparse_neighbours`` is k, or 0 in the complete graph."""
        reader = Reader(body, "a roster")
        ids = np.frombuffer(reader.take(8 * clients), dtype="<u8").astype(np.uint64)
        advertised = decode_bitmap(reader.take(bitmap_bytes(clients)), clients)
        entries = np.frombuffer(reader.take(ENTRY_BYTES * int(advertised.sum())), dtype=np.uint8)
        neighbours = np.frombuffer(reader.take(4 * sparse_neighbours), dtype="<u4").astype(np.uint32)
        reader.finish()
        if not (ids[1:] > ids[:-1]).all() or int(ids[-1]) == SERVER:
            raise DecodeError("a roster's ids must ascend strictly and be clients'")
        if not (neighbours[1:] > neighbours[:-1]).all() or (neighbours >= clients).any():
            raise DecodeError("a roster's neighbours must ascend strictly and stand in it")
        return cls(
            ids=ids,
            advertised=advertised,
            entries=entries.reshape(-1, ENTRY_BYTES),
            neighbours=neighbours if sparse_neighbours else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncryptedShares:
    """Client to server: for each neighbour in U1, ascending, its two shares under the pair's channel key.

    Attributes:
        sealed: uint8[m, 96].
    """

    sealed: Bytes

    def encode(self) -> bytes:
        """Return the body: 96 m bytes."""
        return self.sealed.tobytes()

    @classmethod
    def decode(cls, body: memoryview, *, count: int) -> EncryptedShares:
        """Read a body of ``count`` neighbours."""
        expect_length(body, SEALED_SHARES_BYTES * count, f"the shares for {count} neighbours")
        return cls(sealed=np.frombuffer(body, dtype=np.uint8).reshape(count, SEALED_SHARES_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RelayedShares:
    """Server to client: who shared keys (U2), and what each neighbour among them sealed for the recipient.

    Attributes:
        shared: bool[n], U2.
        sealed: uint8[m, 96], from the neighbours in U2, ascending.
    """

    shared: Members
    sealed: Bytes

    def encode(self) -> bytes:
        """Return the body: ceil(n/8) + 96 m bytes."""
        return encode_bitmap(self.shared) + self.sealed.tobytes()

    @classmethod
    def decode(cls, body: memoryview, *, clients: int, neighbours: NDArray[np.uint32]) -> RelayedShares:
        """Read a body; how many shares it holds follows from its bitmap and the recipient's ``neighbours``."""
        reader = Reader(body, "relayed shares")
        shared = decode_bitmap(reader.take(bitmap_bytes(clients)), clients)
        count = int(shared[neighbours].sum())
        sealed = np.frombuffer(reader.take(SEALED_SHARES_BYTES * count), dtype=np.uint8)
        reader.finish()
        return cls(shared=shared, sealed=sealed.reshape(count, SEALED_SHARES_BYTES))


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmaskRequest:
    """Server to client: whose inputs are in the sum (U3), and nothing else: who dropped is for the client to derive."""

    survivors: Members

    def encode(self) -> bytes:
        """Return the body: ceil(n/8) bytes."""
        return encode_bitmap(self.survivors)

    @classmethod
    def decode(cls, body: memoryview, *, clients: int) -> UnmaskRequest:
        """Read a body."""
        return cls(survivors=decode_bitmap(body, clients))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnmaskShares:
    """Client to server: a share for each neighbour in U2, ascending: of its seed if it survived, else of its mask key.

    Attributes:
        shares: uint8[m, 40].
    """

    shares: Bytes

    def encode(self) -> bytes:
        """Return the body: 40 m bytes."""
        return self.shares.tobytes()

    @classmethod
    def decode(cls, body: memoryview, *, count: int) -> UnmaskShares:
        """Read a body of ``count`` neighbours; every share must be canonical."""
        expect_length(body, SHARE_BYTES * count, f"the shares of {count} neighbours")
        shares = np.frombuffer(body, dtype=np.uint8).reshape(count, 1, SHARE_BYTES)
        check_shares(shares)
        return cls(shares=shares.reshape(count, SHARE_BYTES))
