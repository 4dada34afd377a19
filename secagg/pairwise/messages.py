"""The messages of a pairwise round, one frozen type for each arrow; they encode and decode themselves.

``decode`` takes the body alone and whatever fixes its length, and raises DecodeError for anything but an exact
encoding. Vector messages compare by identity: compare their encodings. Source: SPEC "Messages".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from secagg.cohort import Threat
from secagg.encoding.ring import packed_bytes, padding_is_zero
from secagg.errors import DecodeError
from secagg.identity import SIGNATURE_BYTES
from secagg.primitives.aead import TAG_BYTES
from secagg.primitives.kdf import DIGEST_BYTES as DIGEST_BYTES
from secagg.primitives.shamir import SHARE_BYTES, check_shares
from secagg.wire import ID_BYTES, SERVER, Reader, bitmap_bytes, decode_bitmap, encode_bitmap, expect_length
from secagg.wire import Members as Members

Bytes = NDArray[np.uint8]

PUBLIC_BYTES = 32
COMMITMENT_SALT_BYTES = 16
MASK_KEY_SHARE, SEED_SHARE = 0, 1
"""Which secret a share is of, and its place among the two that are dealt together."""
ADVERTISEMENT_BYTES = 2 * PUBLIC_BYTES + DIGEST_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """Lengths that differ between the threat models.

    Attributes:
        signature_bytes: of the signature behind every client's message.
        entry_bytes: of a roster's entry: a key advertisement and its signature.
        release_bytes: of a share as it is released: with its salt where shares are committed to.
        dealt_bytes: of what a dealer sends one neighbour: both shares sealed, their commitments and its signature.
        accepted_bytes: of what an upload says of the shares that its client accepted before it masked.
    """

    signature_bytes: int
    entry_bytes: int
    release_bytes: int
    dealt_bytes: int
    accepted_bytes: int

    @property
    def sealed_bytes(self) -> int:
        """Length of the sealed part of what is dealt."""
        return 2 * self.release_bytes + TAG_BYTES


FORMATS: dict[Threat, Format] = {
    "semi-honest": Format(
        signature_bytes=0,
        entry_bytes=ADVERTISEMENT_BYTES,
        release_bytes=SHARE_BYTES,
        dealt_bytes=2 * SHARE_BYTES + TAG_BYTES,
        accepted_bytes=0,
    ),
    "malicious-server": Format(
        signature_bytes=SIGNATURE_BYTES,
        entry_bytes=ADVERTISEMENT_BYTES + SIGNATURE_BYTES,
        release_bytes=SHARE_BYTES + COMMITMENT_SALT_BYTES,
        dealt_bytes=2 * (SHARE_BYTES + COMMITMENT_SALT_BYTES) + TAG_BYTES + 2 * DIGEST_BYTES + SIGNATURE_BYTES,
        accepted_bytes=DIGEST_BYTES,
    ),
}


class Secret:
    """A state or message that holds secrets: its repr shows none, and it is neither copied nor pickled."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: secrets withheld>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(f"{type(self).__name__} is not copied or pickled: it holds secrets")


class Kind(enum.IntEnum):
    """Which message it is: even from the server, odd from a client. 7 and 8 are the malicious-server model's."""

    INVITATION = 0
    KEY_ADVERTISEMENT = 1
    ROSTER = 2
    ENCRYPTED_SHARES = 3
    RELAYED_SHARES = 4
    MASKED_INPUT = 5
    UNMASK_REQUEST = 6
    CONSISTENCY = 7
    RELAYED_SIGNATURES = 8
    UNMASK_SHARES = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """Server to client: a round begins. The header's session is the round's identifier, which the client recomputes."""

    nonce: bytes

    @staticmethod
    def body_bytes() -> int:
        """Return the body's length."""
        return ID_BYTES

    def encode(self) -> bytes:
        """Return the body: 32 bytes."""
        return self.nonce

    @classmethod
    def decode(cls, body: memoryview) -> Invitation:
        """Read a body."""
        expect_length(body, cls.body_bytes(), "an invitation")
        return cls(nonce=bytes(body))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAdvertisement:
    """Client to server: both X25519 public keys and the commitment to the self-mask seed."""

    channel_public: bytes
    mask_public: bytes
    seed_commitment: bytes

    @staticmethod
    def body_bytes() -> int:
        """Return the body's length."""
        return ADVERTISEMENT_BYTES

    def encode(self) -> bytes:
        """Return the body: 96 bytes."""
        return self.channel_public + self.mask_public + self.seed_commitment

    @classmethod
    def decode(cls, body: memoryview) -> KeyAdvertisement:
        """Read a body."""
        expect_length(body, cls.body_bytes(), "a key advertisement")
        return cls(channel_public=bytes(body[:32]), mask_public=bytes(body[32:64]), seed_commitment=bytes(body[64:]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Roster:
    """Server to client: everybody invited, who advertised (U1) and what, and the recipient's neighbours.

    Attributes:
        ids: uint64[n], strictly ascending, so a client's position follows from the set alone.
        advertised: bool[n], U1.
        entries: uint8[|U1|, 96 or 160], key advertisements in roster order, with signatures where there are any.
        neighbours: uint32[k] ascending positions, or None in the complete graph.
    """

    ids: NDArray[np.uint64]
    advertised: Members
    entries: Bytes
    neighbours: NDArray[np.uint32] | None

    @staticmethod
    def body_bytes(*, clients: int, advertised: int, sparse_neighbours: int, entry_bytes: int) -> int:
        """Return the body's length with ``advertised`` entries; ``sparse_neighbours`` as for ``decode``."""
        return 8 * clients + bitmap_bytes(clients) + entry_bytes * advertised + 4 * sparse_neighbours

    def encode_common(self) -> bytes:
        """Return the part that is the same for every client, which the session's identifier is computed over."""
        return self.ids.astype("<u8").tobytes() + encode_bitmap(self.advertised) + self.entries.tobytes()

    def encode(self) -> bytes:
        """Return the body: 8n + ceil(n/8) + |U1| entries + 4k bytes where the server draws a sparse graph."""
        own = b"" if self.neighbours is None else self.neighbours.astype("<u4").tobytes()
        return self.encode_common() + own

    @classmethod
    def decode(cls, body: memoryview, *, clients: int, sparse_neighbours: int, entry_bytes: int) -> Roster:
        """Read a body; ``sparse_neighbours`` is k, or 0 where the server does not draw the graph."""
        reader = Reader(body, "a roster")
        ids = np.frombuffer(reader.take(8 * clients), dtype="<u8").astype(np.uint64)
        advertised = decode_bitmap(reader.take(bitmap_bytes(clients)), clients)
        entries = np.frombuffer(reader.take(entry_bytes * int(advertised.sum())), dtype=np.uint8)
        neighbours = np.frombuffer(reader.take(4 * sparse_neighbours), dtype="<u4").astype(np.uint32)
        reader.finish()
        if not (ids[1:] > ids[:-1]).all() or int(ids[-1]) == SERVER:
            raise DecodeError("a roster's ids must ascend strictly and be clients'")
        if not (neighbours[1:] > neighbours[:-1]).all() or (neighbours >= clients).any():
            raise DecodeError("a roster's neighbours must ascend strictly and stand in it")
        return cls(
            ids=ids,
            advertised=advertised,
            entries=entries.reshape(-1, entry_bytes),
            neighbours=neighbours if sparse_neighbours else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class EncryptedShares(Secret):
    """Client to server: for each neighbour in U1, ascending, its two shares under the pair's channel key.

    Attributes:
        sealed: uint8[m, 96], or uint8[m, 256] with commitments and the dealer's signature of them.
    """

    sealed: Bytes

    @staticmethod
    def body_bytes(*, count: int, dealt_bytes: int) -> int:
        """Return the body's length for ``count`` neighbours."""
        return dealt_bytes * count

    def encode(self) -> bytes:
        """Return the body: m rows."""
        return self.sealed.tobytes()

    @classmethod
    def decode(cls, body: memoryview, *, count: int, dealt_bytes: int) -> EncryptedShares:
        """Read a body of ``count`` neighbours."""
        expect_length(body, cls.body_bytes(count=count, dealt_bytes=dealt_bytes), f"the shares for {count} neighbours")
        return cls(sealed=np.frombuffer(body, dtype=np.uint8).reshape(count, dealt_bytes))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RelayedShares(Secret):
    """Server to client: who shared keys (U2), and what each neighbour among them sealed for the recipient.

    Attributes:
        shared: bool[n], U2.
        sealed: uint8[m, 96 or 256], from the neighbours in U2, ascending.
    """

    shared: Members
    sealed: Bytes

    @staticmethod
    def body_bytes(*, clients: int, count: int, dealt_bytes: int) -> int:
        """Return the body's length with the rows of ``count`` neighbours."""
        return bitmap_bytes(clients) + dealt_bytes * count

    def encode(self) -> bytes:
        """Return the body: ceil(n/8) bytes and m rows."""
        return encode_bitmap(self.shared) + self.sealed.tobytes()

    @classmethod
    def decode(
        cls, body: memoryview, *, clients: int, neighbours: NDArray[np.uint32], dealt_bytes: int
    ) -> RelayedShares:
        """Read a body; how many shares it holds follows from its bitmap and the recipient's ``neighbours``."""
        reader = Reader(body, "relayed shares")
        shared = decode_bitmap(reader.take(bitmap_bytes(clients)), clients)
        count = int(shared[neighbours].sum())
        sealed = np.frombuffer(reader.take(dealt_bytes * count), dtype=np.uint8)
        reader.finish()
        return cls(shared=shared, sealed=sealed.reshape(count, dealt_bytes))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskedInput:
    """Client to server: the masked vector and, where messages are signed, which relayed shares it was masked for.

    Attributes:
        packed: a view of ceil((d + 1) b / 8) bytes.
        accepted: 32 bytes, the digest of the body of the RELAYED_SHARES that this client accepted; empty when
            semi-honest.
    """

    packed: Bytes
    accepted: bytes

    @staticmethod
    def body_bytes(*, count: int, ring_bits: int, accepted_bytes: int) -> int:
        """Return the body's length for ``count`` values."""
        return packed_bytes(count, ring_bits) + accepted_bytes

    @classmethod
    def decode(cls, body: memoryview, *, count: int, ring_bits: int, accepted_bytes: int) -> MaskedInput:
        """Read a body of ``count`` values, without a copy; padding bits must be zero."""
        length = packed_bytes(count, ring_bits)
        whole = cls.body_bytes(count=count, ring_bits=ring_bits, accepted_bytes=accepted_bytes)
        expect_length(body, whole, f"a masked input of {count} values")
        packed = np.frombuffer(body, dtype=np.uint8, count=length)
        if not padding_is_zero(packed, count, ring_bits):
            raise DecodeError("a padding bit of a masked input is set")
        return cls(packed=packed, accepted=bytes(body[length:]))


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmaskRequest:
    """Server to client: whose inputs are in the sum (U3), and nothing else: who dropped is for the client to derive."""

    survivors: Members

    @staticmethod
    def body_bytes(*, clients: int) -> int:
        """Return the body's length."""
        return bitmap_bytes(clients)

    def encode(self) -> bytes:
        """Return the body: ceil(n/8) bytes."""
        return encode_bitmap(self.survivors)

    @classmethod
    def decode(cls, body: memoryview, *, clients: int) -> UnmaskRequest:
        """Read a body."""
        return cls(survivors=decode_bitmap(body, clients))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class UnmaskShares(Secret):
    """Client to server: a share for each neighbour in U2, ascending: of its seed if it survived, else of its mask key.

    Attributes:
        shares: uint8[m, 40], or uint8[m, 56] with the salts of their commitments.
    """

    shares: Bytes

    @staticmethod
    def body_bytes(*, count: int, release_bytes: int) -> int:
        """Return the body's length for ``count`` neighbours."""
        return release_bytes * count

    def encode(self) -> bytes:
        """Return the body: m rows."""
        return self.shares.tobytes()

    @classmethod
    def decode(cls, body: memoryview, *, count: int, release_bytes: int) -> UnmaskShares:
        """Read a body of ``count`` neighbours; every share must be canonical."""
        expect_length(
            body, cls.body_bytes(count=count, release_bytes=release_bytes), f"the shares of {count} neighbours"
        )
        shares = np.frombuffer(body, dtype=np.uint8).reshape(count, release_bytes)
        check_shares(np.ascontiguousarray(shares[:, :SHARE_BYTES]))
        return cls(shares=shares)


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistency:
    """Client to server: the digest of who shared keys and whose input is in the sum; the signature behind it counts."""

    digest: bytes

    @staticmethod
    def body_bytes() -> int:
        """Return the body's length."""
        return DIGEST_BYTES

    def encode(self) -> bytes:
        """Return the body: 32 bytes."""
        return self.digest

    @classmethod
    def decode(cls, body: memoryview) -> Consistency:
        """Read a body."""
        expect_length(body, cls.body_bytes(), "a consistency digest")
        return cls(digest=bytes(body))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RelayedSignatures:
    """Server to client: who signed the survivor set (U4), and all their signatures; the same for every client.

    Attributes:
        signed: bool[n], U4.
        signatures: uint8[|U4|, 64], in roster order.
    """

    signed: Members
    signatures: Bytes

    @staticmethod
    def body_bytes(*, clients: int, signed: int) -> int:
        """Return the body's length with ``signed`` signatures."""
        return bitmap_bytes(clients) + SIGNATURE_BYTES * signed

    def encode(self) -> bytes:
        """Return the body: ceil(n/8) + 64 |U4| bytes."""
        return encode_bitmap(self.signed) + self.signatures.tobytes()

    @classmethod
    def decode(cls, body: memoryview, *, clients: int) -> RelayedSignatures:
        """Read a body; how many signatures it holds follows from its bitmap."""
        reader = Reader(body, "relayed signatures")
        signed = decode_bitmap(reader.take(bitmap_bytes(clients)), clients)
        count = int(signed.sum())
        signatures = np.frombuffer(reader.take(SIGNATURE_BYTES * count), dtype=np.uint8)
        reader.finish()
        return cls(signed=signed, signatures=signatures.reshape(count, SIGNATURE_BYTES))
