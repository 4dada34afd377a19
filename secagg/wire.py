"""The byte layer: a fixed header, a reader that never runs past its end, bitmaps. It knows no message.

Every message is the 48-byte header of ``Header`` and a body whose exact length follows from the round's parameters and
from what was agreed before; nothing is allocated on a peer's word. Integers are little-endian. Source: SPEC
"Message header".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from secagg.errors import DecodeError, InputError

Members = NDArray[np.bool_]
"""Who is in a set, by position: bool[n]."""
Buffer = bytes | bytearray | memoryview | NDArray[Any]
"""Any contiguous buffer serves."""

MAGIC = b"SAgg"
VERSION = 1
SUITE = 1
"""X25519, HKDF-SHA256, AES-256-GCM for shares, AES-128 in counter mode for masks, Shamir over 2**61 - 1."""
SERVER = (1 << 64) - 1
"""The sender that stands for the server; no client may bear it."""
HEADER_BYTES = 48
ID_BYTES = 32

_HEADER = struct.Struct("<4sBBBBQ32s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What stands before every body.

    Attributes:
        kind: which message it is, a number of the wing that the session is of.
        sender: the client's id, or ``SERVER``.
        session: 32 bytes, the round's identifier until the roster is fixed, the session's from then on.
    """

    kind: int
    sender: int
    session: bytes

    def encode(self) -> bytes:
        """Return the 48 bytes."""
        return _HEADER.pack(MAGIC, VERSION, SUITE, self.kind, 0, self.sender, self.session)


def open_message(payload: Buffer) -> tuple[Header, memoryview]:
    """Split any contiguous buffer into its header and a read-only view of its body, without a copy.

    Raises:
        DecodeError: it is too short, or not of this protocol, version or suite.
        InputError: the caller's object is no contiguous buffer, or a memoryview that was released.
    """
    view = _flat_view(payload)
    if len(view) < HEADER_BYTES:
        raise DecodeError(f"a message has at least {HEADER_BYTES} bytes, got {len(view)}")
    magic, version, suite, kind, zero, sender, session = _HEADER.unpack_from(view)
    if magic != MAGIC:
        raise DecodeError("not a message of this protocol")
    if (version, suite) != (VERSION, SUITE):
        raise DecodeError(f"version {version} suite {suite}; this library speaks version {VERSION} suite {SUITE}")
    if zero:
        raise DecodeError("a reserved header byte is not zero")
    return Header(kind=kind, sender=sender, session=session), view[HEADER_BYTES:]


def _flat_view(payload: Buffer) -> memoryview:
    try:
        view = memoryview(cast(bytes, payload))  # an ndarray is a buffer too, which NumPy does not declare
        flat = view.ndim == 1 and view.format == "B" and view.c_contiguous
        return view.toreadonly() if flat else view.cast("B").toreadonly()
    except (TypeError, ValueError, BufferError):
        kind = type(payload).__name__
        raise InputError(f"a message is a contiguous buffer of bytes that is not released, got {kind}") from None


def expect_length(body: memoryview, length: int, what: str) -> None:
    """Check that a body has exactly ``length`` bytes.

    Raises:
        DecodeError: it has not; the text names both lengths.
    """
    if len(body) != length:
        raise DecodeError(f"{what} takes {length} bytes of body, got {len(body)}")


class Reader:
    """Takes fields off the front of a body; an overrun is a ``DecodeError``, and so is anything left at ``finish``."""

    __slots__ = ("_at", "_body", "_what")

    def __init__(self, body: memoryview, what: str) -> None:
        self._body, self._at, self._what = body, 0, what

    def take(self, length: int) -> memoryview:
        """Return the next ``length`` bytes as a view."""
        if length < 0 or length > len(self._body) - self._at:
            raise DecodeError(f"{self._what} ends early: {length} bytes wanted at {self._at} of {len(self._body)}")
        self._at += length
        return self._body[self._at - length : self._at]

    def integer(self, size: int) -> int:
        """Return the next ``size`` bytes as an unsigned integer."""
        return int.from_bytes(self.take(size), "little")

    def array(self, count: int, dtype: str) -> NDArray[np.generic]:
        """Return the next ``count`` items of ``dtype`` (a NumPy code with its byte order) as a read-only array."""
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize), dtype=dtype)

    def finish(self) -> None:
        """Check that nothing is left."""
        if self._at != len(self._body):
            raise DecodeError(f"{self._what} has {len(self._body) - self._at} bytes too many")


def bitmap_bytes(count: int) -> int:
    """Return how many bytes a bitmap of ``count`` bits takes."""
    return (count + 7) // 8


def encode_bitmap(members: NDArray[np.bool_]) -> bytes:
    """Return one bit for each position, the lowest bit of the first byte first, unused bits zero."""
    return np.packbits(members, bitorder="little").tobytes()


def decode_bitmap(packed: memoryview, count: int) -> NDArray[np.bool_]:
    """Read ``encode_bitmap``'s bytes back: bool[count].

    Raises:
        DecodeError: the length is wrong or an unused bit is set.
    """
    if len(packed) != bitmap_bytes(count):
        raise DecodeError(f"a bitmap of {count} bits takes {bitmap_bytes(count)} bytes, got {len(packed)}")
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), bitorder="little")
    if bits[count:].any():
        raise DecodeError("an unused bit of a bitmap is set")
    return bits[:count].astype(np.bool_)
