"""The messages of a homomorphic sum, one frozen type for each; they encode and decode themselves.

``decode`` takes the body alone and whatever fixes its length, and raises DecodeError for anything but an exact
encoding. Source: SPEC "Homomorphic sums".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secagg.encoding.ring import lane_dtype, pack, packed_bytes, padding_is_zero, unpack_add
from secagg.errors import DecodeError
from secagg.he.params import HEParams
from secagg.primitives.kdf import Label, digest
from secagg.wire import ID_BYTES, SUITE, VERSION, Reader, bitmap_bytes, decode_bitmap, encode_bitmap, expect_length
from secagg.wire import Members as Members

HE_STAGES = ("encrypted_input", "release")
"""What is waited for: every client's upload, then what the key's holder releases. Clients drop out before the first."""


class HEKind(enum.IntEnum):
    """Which message it is; kinds below 32 belong to the pairwise protocols."""

    PUBLIC_KEY = 32
    OPENING = 33
    UPLOAD = 34
    RELEASE_REQUEST = 35
    RELEASE = 36
    ENCRYPTED_SUM = 37


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """To every client: a sum begins, under this key. The header's session is what the client computes itself."""

    nonce: bytes
    key_id: bytes

    def encode(self) -> bytes:
        """Return the body: 64 bytes."""
        return self.nonce + self.key_id

    @classmethod
    def decode(cls, body: memoryview) -> Opening:
        """Read a body."""
        expect_length(body, 2 * ID_BYTES, "an opening")
        return cls(nonce=bytes(body[:ID_BYTES]), key_id=bytes(body[ID_BYTES:]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReleaseRequest:
    """Aggregator to decryptor: whose uploads it added, and the digest of what it got."""

    members: Members
    digest: bytes

    def encode(self) -> bytes:
        """Return the body."""
        return encode_bitmap(self.members) + self.digest

    @classmethod
    def decode(cls, body: memoryview, *, clients: int) -> ReleaseRequest:
        """Read a body."""
        end = bitmap_bytes(clients)
        expect_length(body, end + ID_BYTES, "a request to release")
        return cls(members=decode_bitmap(body[:end], clients), digest=bytes(body[end:]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReleasedSum:
    """Decryptor to aggregator: the sum and whose it is; words of the ring with BFV, binary64 with CKKS."""

    members: Members
    values: NDArray[Any]

    @staticmethod
    def body_bytes(params: HEParams) -> int:
        """Return the body's length."""
        count = params.dimension + 1
        size = packed_bytes(count, params.ring_bits) if params.protocol == "bfv" else 8 * count
        return bitmap_bytes(params.clients) + size

    def encode(self, params: HEParams) -> bytes:
        """Return the body."""
        if params.protocol == "bfv":
            return encode_bitmap(self.members) + pack(self.values, params.ring_bits).tobytes()
        return encode_bitmap(self.members) + self.values.astype("<f8").tobytes()

    @classmethod
    def decode(cls, body: memoryview, params: HEParams) -> ReleasedSum:
        """Read a body."""
        expect_length(body, cls.body_bytes(params), "a release")
        reader = Reader(body, "a release")
        members = decode_bitmap(reader.take(bitmap_bytes(params.clients)), params.clients)
        count, width = params.dimension + 1, params.ring_bits
        values: NDArray[Any]
        if params.protocol == "ckks":
            values = reader.array(count, "<f8").astype(np.float64)
            if not np.isfinite(values).all():
                raise DecodeError("a release holds a value that is not finite")
        else:
            packed = reader.take(packed_bytes(count, width))
            values = np.zeros(count, dtype=lane_dtype(width))
            unpack_add(packed, values, width)
            if not padding_is_zero(packed, count, width):
                raise DecodeError("an unused bit of a release is set")
        return cls(members=members, values=values)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncryptedSum:
    """Aggregator to every client that holds the key: the sum as a ciphertext, and whose it is."""

    members: Members
    ciphertexts: bytes | memoryview

    def encode(self) -> bytes:
        """Return the body."""
        return encode_bitmap(self.members) + self.ciphertexts

    @classmethod
    def decode(cls, body: memoryview, params: HEParams) -> EncryptedSum:
        """Read a body; the ciphertexts are left as they are."""
        end = bitmap_bytes(params.clients)
        expect_length(body, end + params.ciphertext_bytes, "an encrypted sum")
        return cls(members=decode_bitmap(body[:end], params.clients), ciphertexts=body[end:])


def key_identifier(params: HEParams, packed: bytes | memoryview) -> bytes:
    """Identify a public key, given as its packed residues, and what it is for: the same context hash for everybody."""
    return digest(Label.HE_KEY, params.encode(), packed)


def session_identifier(params: HEParams, context: bytes, opening: Opening, directory: bytes, decryptor: bytes) -> bytes:
    """Identify a sum: parameters, context digest, key, nonce, cohort, and who releases (empty: the clients)."""
    parts = (params.encode(), context, opening.key_id, opening.nonce, directory, decryptor)
    return digest(Label.HE_SESSION, bytes([VERSION, SUITE]), *parts)


def sum_digest(session: bytes, members: Members, ciphertexts: bytes | memoryview) -> bytes:
    """Return what aggregator and decryptor compare: whose uploads were added, and every residue of their sum."""
    return digest(Label.HE_SUM, session, encode_bitmap(members), ciphertexts)
