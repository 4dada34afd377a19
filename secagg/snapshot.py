"""Saved states: a value tree as bytes, checksummed or sealed under the caller's key. Nothing is pickled.

Values are None, bool, non-negative integers, floats, bytes, text, tuples, dicts, unsigned NumPy arrays, and the frozen
dataclasses that the caller names. Reading builds only those types. What those bytes are at fault for is checked here,
each for itself: an exception of any other kind is this library's own and passes through. Source: SPEC "Saved states".
"""

from __future__ import annotations

import dataclasses
import hmac
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from secagg.errors import DecodeError, InputError, LocalProtocolError, ParameterError
from secagg.field_types import FieldTypes, field_types
from secagg.primitives.aead import PIECE_BYTES, SALT_BYTES, open_state, seal_state, sealed_bytes
from secagg.primitives.kdf import Label, digest, digest_in_pieces
from secagg.primitives.randomness import Randomness, draw
from secagg.wire import Buffer, Reader

_MAGIC, _PLAIN, _SEALED = b"SAst\x02", b"\x00", b"\x01"
_CHECKSUM_BYTES = 32
_LARGE_BYTES = 1 << 12
_DTYPES = ("|u1", "<u2", "<u4", "<u8", "|b1")
_LENGTH = struct.Struct("<Q")
_MAX_DEPTH = 16
"""No state nests deeper; bytes that do are refused before Python's own stack is at its end."""
_MAX_ITEMS = 1 << 48
"""Of an array, lengths of zero counted as one: more is no array's shape, even where it holds nothing."""

Types = Mapping[str, FieldTypes]
"""The dataclasses that may occur, by the names that they are written under; see ``known_types``."""


def known_types(*kinds: type) -> Types:
    """Return what ``save`` and ``load`` take as ``known``: the classes by their own names, annotations resolved.

    Raises:
        TypeError: an annotation is of a form that saved states do not hold.
    """
    return {kind.__name__: field_types(kind) for kind in kinds}


class SavedState:
    """A state, ready to be made durable: buffers to write in turn, with no second copy of a vector or an upload.

    The same object gives the same bytes each time. It looks into the session, so it is closed once that goes on to
    change what it looks into: what it would show then is another state, and under the same key and nonces.
    """

    __slots__ = ("__weakref__", "_key", "_length", "_pieces", "_purpose", "_salt")

    def __init__(self, pieces: Sequence[bytes | memoryview], purpose: bytes, key: bytes | None, salt: bytes) -> None:
        self._purpose, self._key, self._salt = purpose, key, salt
        self._pieces: Sequence[bytes | memoryview] | None = pieces
        body = sum(len(piece) for piece in pieces)
        sealed = _CHECKSUM_BYTES + body if key is None else len(salt) + sealed_bytes(body)
        self._length = len(_head(purpose, sealed=False)) + sealed

    def __repr__(self) -> str:
        return f"<SavedState of {len(self)} bytes, {'in the clear' if self._key is None else 'sealed'}>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a saved state is not copied or pickled: it holds the key that seals it; take its bytes")

    def __len__(self) -> int:
        """Return how many bytes the buffers hold together."""
        return self._length

    def __bytes__(self) -> bytes:
        """Return all of it in one piece."""
        return b"".join(self.buffers())

    def buffers(self) -> Iterator[bytes | memoryview]:
        """Yield what to write, in turn.

        Raises:
            LocalProtocolError: the session has gone on.
        """
        if self._key is None:
            yield _head(self._purpose, sealed=False)
            yield digest_in_pieces(Label.STATE_CHECKSUM, self._purpose, self._still_open())
            yield from self._open()
        else:
            yield _head(self._purpose, sealed=True) + self._salt
            yield from seal_state(self._key, self._salt, self._open(), _MAGIC + self._purpose)

    def close(self) -> None:
        """Show nothing any more."""
        self._pieces = None

    def _open(self) -> Iterator[bytes | memoryview]:
        """Yield the pieces, little by little, as long as the state is what it was."""
        for index in range(len(self._pieces or ())):
            piece = memoryview(self._still_open()[index])
            for start in range(0, len(piece), PIECE_BYTES):
                self._still_open()
                yield piece[start : start + PIECE_BYTES]
        self._still_open()

    def _still_open(self) -> Sequence[bytes | memoryview]:
        if self._pieces is None:
            raise self._closed()
        return self._pieces

    @staticmethod
    def _closed() -> LocalProtocolError:
        return LocalProtocolError("the session has gone on: write a state while keep runs, or before kept()")


def save(value: object, *, known: Types, purpose: bytes, seal_key: bytes | None, randomness: Randomness) -> SavedState:
    """Write ``value``; with a ``seal_key`` (32 bytes) under AES-256-GCM and a fresh salt, else behind a checksum.

    Args:
        value: what to write.
        known: the dataclasses that may occur.
        purpose: what is saved, such as ``pairwise/client``; only ``load`` with the same purpose reads it. It stands in
            the clear before the rest.
        seal_key: the caller's key, or None to write secrets in the clear.
        randomness: source of the salt.
    """
    if seal_key is not None:
        check_seal_key(seal_key)
    out = _Pieces()
    _write(out, value, {one.kind: name for name, one in known.items()})
    salt = b"" if seal_key is None else draw(randomness, SALT_BYTES)
    return SavedState(out.finish(), purpose, seal_key, salt)


def purpose_of(saved: Buffer | SavedState) -> bytes:
    """Return what a state says that it is of, unchecked: ``load`` checks it.

    Raises:
        DecodeError: these bytes are no saved state of this version.
        InputError: ``saved`` is no buffer of bytes.
    """
    return _split(_own_bytes(saved))[1]


def load(saved: Buffer | SavedState, *, known: Types, purpose: bytes, seal_key: bytes | None) -> Any:
    """Read what ``save`` wrote.

    Raises:
        DecodeError: the bytes are damaged, of another version or purpose, or sealed under another key (or none).
        InputError: ``saved`` is no buffer of bytes, or the key is not 32 bytes.
    """
    kind, said, rest = _split(_own_bytes(saved))
    if said != purpose:
        raise DecodeError(f"the saved state is of {said.decode(errors='replace')}, not of {purpose.decode()}")
    if kind != (_PLAIN if seal_key is None else _SEALED):
        raise DecodeError(
            "the saved state is sealed: pass its seal_key"
            if seal_key is None
            else "the saved state is not sealed: pass no seal_key"
        )
    if seal_key is not None:
        check_seal_key(seal_key)
        body = _opened(seal_key, rest, purpose)
    else:
        checksum, body = rest[:_CHECKSUM_BYTES], rest[_CHECKSUM_BYTES:]
        if not hmac.compare_digest(checksum, digest(Label.STATE_CHECKSUM, purpose, body)):
            raise DecodeError("the saved state is damaged, or of another kind")
    reader = Reader(memoryview(body), "a saved state")
    value = _read(reader, known, 0)
    reader.finish()
    return value


def check_seal_key(seal_key: object) -> None:
    """Check a key that states are sealed under.

    Raises:
        InputError: it is not 32 bytes.
    """
    if not isinstance(seal_key, bytes) or len(seal_key) != 32:
        raise InputError("seal_key must be 32 bytes")


def _head(purpose: bytes, *, sealed: bool) -> bytes:
    return _MAGIC + (_SEALED if sealed else _PLAIN) + bytes([len(purpose)]) + purpose


def _split(saved: bytes) -> tuple[bytes, bytes, bytes]:
    start = len(_MAGIC) + 2
    if len(saved) < start or saved[: len(_MAGIC)] != _MAGIC:
        raise DecodeError("not a saved state of this version")
    end = start + saved[start - 1]
    return saved[len(_MAGIC) : start - 1], saved[start:end], saved[end:]


def _own_bytes(saved: Buffer | SavedState) -> bytes:
    if not isinstance(saved, bytes | bytearray | memoryview | SavedState):
        raise InputError(f"a saved state is bytes, got {type(saved).__name__}")
    try:
        return bytes(saved)
    except ValueError:
        raise InputError("the memoryview of the saved state was released before it was read") from None


def _opened(seal_key: bytes, sealed: bytes, purpose: bytes) -> bytes:
    try:
        return open_state(seal_key, sealed[:SALT_BYTES], memoryview(sealed)[SALT_BYTES:], _MAGIC + purpose)
    except DecodeError:
        raise DecodeError(
            "the saved state does not open: another seal_key sealed it, it is of another kind, or it is damaged"
        ) from None


class _Pieces:
    """A body as it is written: small parts together, and each large one where it lies."""

    __slots__ = ("_pieces", "_small")

    def __init__(self) -> None:
        self._pieces: list[bytes | memoryview] = []
        self._small = bytearray()

    def __iadd__(self, part: bytes | memoryview) -> _Pieces:
        if len(part) < _LARGE_BYTES:
            self._small += part
        else:
            self._pieces += [bytes(self._small), part]
            self._small.clear()
        return self

    def finish(self) -> list[bytes | memoryview]:
        return [*self._pieces, bytes(self._small)]


def _write(out: _Pieces, value: object, names: Mapping[type, str]) -> None:
    if value is None:
        out += b"N"
    elif isinstance(value, bool):
        out += b"T" if value else b"F"
    elif isinstance(value, int):
        out += b"I" + value.to_bytes(16, "little")
    elif isinstance(value, float):
        out += b"R" + struct.pack("<d", value)
    elif isinstance(value, bytes):
        out += b"B" + _LENGTH.pack(len(value))
        out += value
    elif isinstance(value, str):
        text = value.encode()
        out += b"S" + _LENGTH.pack(len(text)) + text
    elif isinstance(value, np.ndarray):
        _write_array(out, value)
    elif isinstance(value, tuple):
        out += b"L" + _LENGTH.pack(len(value))
        for item in value:
            _write(out, item, names)
    elif isinstance(value, dict):
        out += b"D"
        _write(out, tuple(part for pair in value.items() for part in pair), names)
    else:
        out += b"O"
        _write(out, names[type(value)], names)
        fields = dataclasses.fields(value)  # type: ignore[arg-type]
        _write(out, {field.name: getattr(value, field.name) for field in fields}, names)


def _write_array(out: _Pieces, array: np.ndarray[Any, Any]) -> None:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    out += b"A" + bytes([_DTYPES.index(little.dtype.str), little.ndim])
    for length in little.shape:
        out += _LENGTH.pack(length)
    out += little.reshape(-1).view(np.uint8).data


def _read(reader: Reader, known: Types, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise DecodeError("a saved state nests deeper than any that a session saves")
    tag = bytes(reader.take(1))
    if tag in b"NTF":
        return {b"N": None, b"T": True, b"F": False}[tag]
    if tag == b"I":
        return reader.integer(16)
    if tag == b"R":
        return struct.unpack("<d", reader.take(8))[0]
    if tag == b"B":
        return bytes(reader.take(reader.integer(8)))
    if tag == b"S":
        return bytes(reader.take(reader.integer(8))).decode(errors="replace")
    if tag == b"A":
        return _read_array(reader)
    if tag == b"L":
        # What is claimed is not allocated: each item takes a byte at least, and the bytes end
        return tuple(_read(reader, known, depth + 1) for _ in range(reader.integer(8)))
    if tag == b"D":
        return _read_dict(reader, known, depth + 1)
    if tag == b"O":
        return _read_object(reader, known, depth + 1)
    raise DecodeError("a saved state holds a value that this version does not know")


def _read_dict(reader: Reader, known: Types, depth: int) -> dict[str, Any]:
    flat = _read(reader, known, depth)
    if not isinstance(flat, tuple) or len(flat) % 2 or not all(isinstance(key, str) for key in flat[::2]):
        raise DecodeError("a saved state holds a dictionary that is none")
    read = dict(zip(flat[::2], flat[1::2], strict=True))
    if 2 * len(read) != len(flat):
        raise DecodeError("a saved state holds a dictionary that names a key twice")
    return read


def _read_array(reader: Reader) -> np.ndarray[Any, Any]:
    code, dimensions = reader.integer(1), reader.integer(1)
    if code >= len(_DTYPES) or dimensions > 3:
        raise DecodeError("a saved state holds an array that this version does not know")
    dtype = np.dtype(_DTYPES[code])
    shape = tuple(reader.integer(8) for _ in range(dimensions))
    if math.prod(max(length, 1) for length in shape) > _MAX_ITEMS:
        raise DecodeError("a saved state holds an array of a size that no session saves")
    raw = np.frombuffer(reader.take(dtype.itemsize * math.prod(shape)), dtype=np.uint8)
    if dtype.kind == "b" and raw.max(initial=0) > 1:
        raise DecodeError("a saved state holds a truth value that is neither true nor false")
    # A copy: states of the server are folded into, and a view of the saved bytes is read-only
    return raw.view(dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=True)


def _read_object(reader: Reader, known: Types, depth: int) -> Any:
    name, fields = _read(reader, known, depth), _read(reader, known, depth)
    types = known.get(name) if isinstance(name, str) else None
    if types is None:
        raise DecodeError("a saved state holds a type that does not belong in it")
    if not isinstance(fields, dict) or fields.keys() != types.checks.keys():
        raise DecodeError("a saved state's fields are of another version")
    for field, check in types.checks.items():
        if not check(fields[field]):
            raise DecodeError("a saved state's field is of another type")
    try:
        return types.kind(**fields)
    except ParameterError as problem:
        raise DecodeError(f"a saved state holds parameters that are refused: {problem}") from None
