"""Saved states: a value tree as bytes, checksummed or sealed under the caller's key. Nothing is pickled.

Values are None, bool, non-negative integers, floats, bytes, text, tuples, dicts, unsigned NumPy arrays, and the frozen
dataclasses that the caller names. Reading builds only those types. Source: SPEC "Saved states".
"""

from __future__ import annotations

import dataclasses
import functools
import hmac
import struct
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from secagg.errors import DecodeError, InputError
from secagg.primitives.aead import open_state, seal_state
from secagg.primitives.kdf import Label, digest
from secagg.primitives.randomness import Randomness
from secagg.wire import Buffer, Reader

_MAGIC, _PLAIN, _SEALED = b"SAst\x01", b"\x00", b"\x01"
_CHECKSUM_BYTES = 32
_DTYPES = ("|u1", "<u2", "<u4", "<u8", "|b1")
_LENGTH = struct.Struct("<Q")

Types = Mapping[str, type]


def save(value: object, *, known: Types, purpose: bytes, seal_key: bytes | None, randomness: Randomness) -> bytes:
    """Write ``value``; with a ``seal_key`` (32 bytes) under AES-256-GCM and a fresh salt, else behind a checksum.

    Args:
        value: what to write.
        known: the dataclasses that may occur, by the names they are written under.
        purpose: what is saved; only ``load`` with the same purpose reads it.
        seal_key: the caller's key, or None to write secrets in the clear.
        randomness: source of the salt.
    """
    body = bytearray()
    _write(body, value, {kind: name for name, kind in known.items()})
    if seal_key is None:
        return _MAGIC + _PLAIN + digest(Label.STATE_CHECKSUM, purpose, bytes(body)) + body
    _check_key(seal_key)
    return _MAGIC + _SEALED + seal_state(seal_key, bytes(body), _MAGIC + purpose, randomness)


def load(saved: Buffer, *, known: Types, purpose: bytes, seal_key: bytes | None) -> Any:
    """Read what ``save`` wrote.

    Raises:
        DecodeError: the bytes are damaged, of another version or purpose, or sealed under another key (or none).
    """
    if not isinstance(saved, bytes | bytearray | memoryview):
        raise DecodeError(f"a saved state is bytes, got {type(saved).__name__}")
    saved = bytes(saved)
    start = len(_MAGIC) + 1
    if len(saved) < start or saved[: len(_MAGIC)] != _MAGIC:
        raise DecodeError("not a saved state of this version")
    kind, rest = saved[len(_MAGIC) : start], saved[start:]
    if kind != (_PLAIN if seal_key is None else _SEALED):
        raise DecodeError("the saved state is sealed" if seal_key is None else "the saved state is not sealed")
    if seal_key is not None:
        _check_key(seal_key)
        body = open_state(seal_key, rest, _MAGIC + purpose)
    else:
        checksum, body = rest[:_CHECKSUM_BYTES], rest[_CHECKSUM_BYTES:]
        if not hmac.compare_digest(checksum, digest(Label.STATE_CHECKSUM, purpose, body)):
            raise DecodeError("the saved state is damaged, or of another kind")
    reader = Reader(memoryview(body), "a saved state")
    try:
        value = _read(reader, known)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise DecodeError("a saved state holds what no session saves") from None
    reader.finish()
    return value


def _check_key(seal_key: bytes) -> None:
    if not isinstance(seal_key, bytes) or len(seal_key) != 32:
        raise InputError("seal_key must be 32 bytes")


def _write(out: bytearray, value: object, names: Mapping[type, str]) -> None:
    if value is None:
        out += b"N"
    elif isinstance(value, bool):
        out += b"T" if value else b"F"
    elif isinstance(value, int):
        out += b"I" + value.to_bytes(16, "little")
    elif isinstance(value, float):
        out += b"R" + struct.pack("<d", value)
    elif isinstance(value, bytes):
        out += b"B" + _LENGTH.pack(len(value)) + value
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


def _write_array(out: bytearray, array: np.ndarray[Any, Any]) -> None:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    out += b"A" + bytes([_DTYPES.index(little.dtype.str), little.ndim])
    for length in little.shape:
        out += _LENGTH.pack(length)
    out += little.tobytes()


def _read(reader: Reader, known: Types) -> Any:
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
        return tuple(_read(reader, known) for _ in range(reader.integer(8)))
    if tag == b"D":
        flat = _read(reader, known)
        return dict(zip(flat[::2], flat[1::2], strict=True))
    if tag == b"O":
        return _read_object(reader, known)
    raise DecodeError("a saved state holds a value that this version does not know")


def _read_array(reader: Reader) -> np.ndarray[Any, Any]:
    code, dimensions = reader.integer(1), reader.integer(1)
    if code >= len(_DTYPES) or dimensions > 3:
        raise DecodeError("a saved state holds an array that this version does not know")
    dtype = np.dtype(_DTYPES[code])
    shape = tuple(reader.integer(8) for _ in range(dimensions))
    size = dtype.itemsize
    for length in shape:
        size *= length
    # A copy: states of the server are folded into, and a view of the saved bytes is read-only
    return np.frombuffer(reader.take(size), dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=True)


def _read_object(reader: Reader, known: Types) -> Any:
    name, fields = _read(reader, known), _read(reader, known)
    kind = known.get(name) if isinstance(name, str) else None
    if kind is None:
        raise DecodeError("a saved state holds a type that does not belong in it")
    hints = _field_types(kind)
    if not isinstance(fields, dict) or any(name in hints and not _fits(fields[name], hints[name]) for name in fields):
        raise DecodeError("a saved state's field is of another type")
    try:
        return kind(**fields)
    except TypeError:
        raise DecodeError("a saved state's fields are of another version") from None


@functools.cache
def _field_types(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _fits(value: object, hint: Any) -> bool:
    """Tell whether a value is of a field's declared type: what a later step would stumble over is refused here."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is Literal:
        return value in arguments
    if origin is np.ndarray:
        (scalar,) = get_args(arguments[1])
        return isinstance(value, np.ndarray) and np.issubdtype(value.dtype, scalar)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, arguments[0]) for item in value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
