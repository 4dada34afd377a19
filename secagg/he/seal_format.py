"""The few bytes of SEAL's and TenSEAL's own formats that encrypting and decrypting need, read and written here.

Nothing that a peer sent is ever read by these functions: they read what this process's TenSEAL has just made, and write
what it is to read back, from residues that were checked. Source: SEAL 4 ``Ciphertext::save_members``,
``Serialization``; TenSEAL ``tensors.proto`` and ``tensealcontext.proto``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secagg import extras
from secagg.errors import SelfTestError

_HEADER = struct.Struct("<2sBBBBHQ")
_MEMBERS = struct.Struct("<32sBQQQdQ")
_COUNT = struct.Struct("<Q")
_MAGIC = b"\x5e\xa1"
_UNCOMPRESSED, _ZSTD = 0, 2
_VARINT, _FIXED64, _BYTES = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What stands before a ciphertext's residues, the same for all of one level of one context.

    Attributes:
        version: SEAL's major and minor version.
        parms_id: SEAL's hash of the level's parameters.
        ntt: 1 where residues are evaluations rather than coefficients.
        scale: CKKS's scale, 1.0 for BFV.
        correction: SEAL's correction factor, 1 for both schemes.
    """

    version: tuple[int, int]
    parms_id: bytes
    ntt: int
    scale: float
    correction: int


def read_ciphertext(blob: bytes, primes: int, degree: int) -> tuple[Form, NDArray[np.uint64]]:
    """Return a ciphertext of two polynomials, as SEAL saved it: its form and uint64[2, primes, N].

    Raises:
        SelfTestError: it is not as this module knows the format, so this TenSEAL cannot be used.
    """
    words = 2 * primes * degree
    version, members = _open(blob, _MEMBERS.size + _HEADER.size + _COUNT.size + 8 * words)
    parms_id, ntt, size, n, k, scale, correction = _MEMBERS.unpack_from(members)
    inner = _MEMBERS.size
    magic, _, _, _, compression, _, _ = _HEADER.unpack_from(members, inner)
    (count,) = _COUNT.unpack_from(members, inner + _HEADER.size)
    if (size, n, k, magic, compression, count) != (2, degree, primes, _MAGIC, _UNCOMPRESSED, words):
        raise SelfTestError("this TenSEAL writes ciphertexts in a form that is not known here")
    residues = np.frombuffer(members, "<u8", words, inner + _HEADER.size + _COUNT.size)
    form = Form(version=version, parms_id=parms_id, ntt=ntt, scale=scale, correction=correction)
    return form, residues.astype(np.uint64).reshape(
        2, primes, degree
    )  # a copy: bytes are neither aligned nor writeable


def write_ciphertext(form: Form, residues: NDArray[np.uint64]) -> bytes:
    """Return the bytes that SEAL loads as the ciphertext with these residues, uint64[2, primes, N]; uncompressed."""
    _, primes, degree = residues.shape
    array = _COUNT.pack(residues.size) + np.ascontiguousarray(residues, "<u8").tobytes()
    members = _MEMBERS.pack(form.parms_id, form.ntt, 2, degree, primes, form.scale, form.correction)
    return _save(form.version, members + _save(form.version, array))


def write_vector(blob: bytes, slots: int, scale: float | None) -> bytes:
    """Return TenSEAL's vector of one ciphertext with so many slots; ``scale`` for CKKS alone."""
    sizes = _varint(slots)
    message = _field(1, _BYTES) + _varint(len(sizes)) + sizes + _field(2, _BYTES) + _varint(len(blob)) + blob
    return message if scale is None else message + _field(3, _FIXED64) + struct.pack("<d", scale)


def read_vector(message: bytes) -> bytes:
    """Return the one ciphertext of a vector that TenSEAL has just serialised."""
    return _one_of(message, 2)


def read_context(message: bytes) -> tuple[bytes, bytes]:
    """Return the encryption parameters and the public key of a context that TenSEAL has just serialised."""
    return _one_of(message, 1), _one_of(_one_of(message, 2), 1)


def write_public_context(parameters: bytes, public_key: bytes, scale: float | None) -> bytes:
    """Return TenSEAL's context with a public key and no secret one."""
    public = _field(1, _BYTES) + _varint(len(public_key)) + public_key
    public += _field(3, _FIXED64) + struct.pack("<d", -1.0 if scale is None else scale)
    head = _field(1, _BYTES) + _varint(len(parameters)) + parameters
    return head + _field(2, _BYTES) + _varint(len(public)) + public


def read_moduli(parameters: bytes) -> tuple[int, ...]:
    """Return the primes of encryption parameters that TenSEAL has just serialised, then the plain modulus."""
    _, members = _open(parameters, 1 << 16)
    (count,) = _COUNT.unpack_from(members, 9)
    stride = _HEADER.size + _COUNT.size
    at = [17 + index * stride + _HEADER.size for index in range(count + 1)]
    return tuple(_COUNT.unpack_from(members, offset)[0] for offset in at)


def _open(blob: bytes, most: int) -> tuple[tuple[int, int], bytes]:
    """Return the version and the members of what SEAL saved, at most ``most`` bytes of them."""
    magic, size, major, minor, compression, _, total = _HEADER.unpack_from(blob)
    if magic != _MAGIC or size != _HEADER.size or total != len(blob):
        raise SelfTestError("this TenSEAL writes objects in a form that is not known here")
    members = blob[_HEADER.size :]
    if compression == _ZSTD:
        zstandard = extras.load("zstandard")
        members = zstandard.ZstdDecompressor().decompress(members, max_output_size=most)
    elif compression != _UNCOMPRESSED:
        raise SelfTestError("this TenSEAL compresses in a way that is not known here")
    return (major, minor), members


def _save(version: tuple[int, int], members: bytes) -> bytes:
    return _HEADER.pack(_MAGIC, _HEADER.size, *version, _UNCOMPRESSED, 0, _HEADER.size + len(members)) + members


def _field(number: int, kind: int) -> bytes:
    return bytes([number << 3 | kind])


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def _one_of(message: bytes, number: int) -> bytes:
    found = [value for field, value in _fields(message) if field == number and isinstance(value, bytes)]
    if len(found) != 1:
        raise SelfTestError("this TenSEAL writes messages in a form that is not known here")
    return found[0]


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        if key & 7 == _VARINT:
            value: Any
            value, at = _read_varint(message, at)
        elif key & 7 == _FIXED64:
            value, at = struct.unpack_from("<d", message, at)[0], at + 8
        elif key & 7 == _BYTES:
            length, at = _read_varint(message, at)
            value, at = message[at : at + length], at + length
        else:
            raise SelfTestError("this TenSEAL writes messages in a form that is not known here")
        yield key >> 3, value


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[at]
        number, at, shift = number | (byte & 0x7F) << shift, at + 1, shift + 7
        if byte < 0x80:
            return number, at
