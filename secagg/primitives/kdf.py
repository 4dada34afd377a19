"""Key derivation and hashing with domain separation; the library's only table of labels.

Source: RFC 5869 (HKDF-SHA256), FIPS 180-4 (SHA-256); SPEC "Labels".
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from secagg.errors import InputError

DIGEST_BYTES = 32
LENGTH_MAX = 255 * DIGEST_BYTES


class Label(enum.Enum):
    """What a derived key or a digest is for. No two purposes share a label.

    Attributes:
        prefix: how the label begins an input: one byte of its length, then the label.
    """

    prefix: bytes

    def __init__(self, text: bytes) -> None:
        self.prefix = bytes([len(text)]) + text

    CONTEXT = b"secagg/v1/context"
    ROUND = b"secagg/v1/round"
    SESSION = b"secagg/v1/session"
    SEED_COMMITMENT = b"secagg/v1/self-mask-seed-commitment"
    SHARE_CHANNEL = b"secagg/v1/share-channel"
    PAIRWISE_MASK = b"secagg/v1/pairwise-mask"
    SELF_MASK = b"secagg/v1/self-mask"
    REQUEST = b"secagg/v1/request"
    SEALED_STATE = b"secagg/v1/sealed-state"
    STATE_CHECKSUM = b"secagg/v1/state-checksum"
    GRAPH = b"secagg/v1/graph"
    BEACON = b"secagg/v1/beacon"
    LAYOUT = b"secagg/v1/layout"
    DIRECTORY = b"secagg/v1/directory"
    SIGNED_BODY = b"secagg/v1/signed-body"
    SHARE_COMMITMENT = b"secagg/v1/share-commitment"
    CONSISTENCY = b"secagg/v1/consistency"
    ACCEPTED_SHARES = b"secagg/v1/accepted-shares"
    HE_KEY = b"secagg/v1/he-key"
    HE_SESSION = b"secagg/v1/he-session"
    HE_SUM = b"secagg/v1/he-sum"
    HE_FLOODING = b"secagg/v1/he-flooding"


def derive(secret: bytes, *, salt: bytes, label: Label, info: bytes = b"", length: int) -> bytes:
    """Derive ``length`` bytes (1 to 8160) from ``secret`` for the one purpose that ``label`` and ``info`` name.

    The HKDF info is the label, one byte of the label's length before it, then ``info``.

    Args:
        secret: the input key material, any length.
        salt: any length; secret or public.
        label: the purpose.
        info: what else the result is bound to, any length.
        length: how many bytes to return.

    Raises:
        InputError: ``length`` is out of range.
    """
    return _hkdf(secret, salt, label.prefix + info, length)


def digest(label: Label, *parts: bytes | memoryview) -> bytes:
    """Hash ``parts`` under ``label`` to 32 bytes; each part is preceded by its length, so no two lists collide."""
    state = hashlib.sha256(label.prefix)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


def digest_in_pieces(label: Label, first: bytes, pieces: Sequence[bytes | memoryview]) -> bytes:
    """Hash ``first`` and the pieces put together, as ``digest`` hashes two parts, without putting them together."""
    state = hashlib.sha256(label.prefix)
    state.update(len(first).to_bytes(8, "little") + first)
    state.update(sum(len(piece) for piece in pieces).to_bytes(8, "little"))
    for piece in pieces:
        state.update(piece)
    return state.digest()


def _hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    if not 1 <= length <= LENGTH_MAX:
        raise InputError(f"1 to {LENGTH_MAX} bytes can be derived, not {length}")
    return HKDF(SHA256(), length, salt, info).derive(secret)
