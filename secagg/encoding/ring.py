"""Vectors of the ring Z mod 2^b, b from 1 to 64: held in the narrowest lanes, sent as b bits a value.

Value i of a packed vector occupies bits [i*b, (i+1)*b) of a little-endian bit string; the last byte ends in zeros.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from secagg.errors import InputError
from secagg.kernels import fixed, jit, packing
from secagg.primitives import prg

MAX_RING_BITS = 64

_FLOAT_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


@functools.cache
def lane_dtype(ring_bits: int) -> np.dtype[Any]:
    """Return the narrowest of uint16, uint32 and uint64 that holds ``ring_bits`` bits.

    Raises:
        InputError: ``ring_bits`` is not from 1 to 64.
    """
    if not 1 <= ring_bits <= MAX_RING_BITS:
        raise InputError(f"a ring has 1 to {MAX_RING_BITS} bits, got {ring_bits}")
    return np.dtype(f"uint{packing.lane_bits(ring_bits)}")


def packed_bytes(count: int, ring_bits: int) -> int:
    """Return how many bytes ``count`` ring elements take: ceil(count * ring_bits / 8).

    Raises:
        InputError: ``count`` is negative, or ``ring_bits`` is not from 1 to 64.
    """
    lane_dtype(ring_bits)
    if count < 0:
        raise InputError(f"a vector has a non-negative count of elements, got {count}")
    return (count * ring_bits + 7) // 8


def pack(words: NDArray[Any], ring_bits: int) -> NDArray[np.uint8]:
    """Pack each word modulo 2^ring_bits; returns uint8[packed_bytes(n, ring_bits)].

    Raises:
        InputError: ``words`` is no contiguous, aligned vector of ``lane_dtype(ring_bits)``.
    """
    out = np.empty(packed_bytes(words.size, ring_bits), np.uint8)
    pack_into(words, ring_bits, out)
    return out


def pack_into(words: NDArray[Any], ring_bits: int, out: NDArray[np.uint8]) -> None:
    """Pack each word modulo 2^ring_bits into ``out``, a contiguous uint8[packed_bytes(n, ring_bits)].

    Raises:
        InputError: ``words`` is no contiguous, aligned vector of ``lane_dtype(ring_bits)``, or ``out`` is not as said.
    """
    _require_words(words, ring_bits)
    if not out.flags.writeable:
        raise InputError("out is not writeable")
    packing.pack(words, _packed(out, words.size, ring_bits), ring_bits)


def unpack_add(body: bytes | bytearray | memoryview | NDArray[np.uint8], acc: NDArray[Any], ring_bits: int) -> None:
    """Add to ``acc`` in place, modulo its lane, the ring elements packed in ``body``. Padding bits are not looked at.

    Args:
        body: packed_bytes(n, ring_bits) contiguous bytes.
        acc: n words of ``lane_dtype(ring_bits)``, contiguous, aligned and writeable.

    Raises:
        InputError: an argument is not as said here; ``acc`` is then unchanged.
    """
    _require_words(acc, ring_bits)
    if not acc.flags.writeable:
        raise InputError("the accumulator is not writeable")
    packing.unpack_add(_packed(body, acc.size, ring_bits), acc, ring_bits)


def padding_is_zero(body: bytes | bytearray | memoryview | NDArray[np.uint8], count: int, ring_bits: int) -> bool:
    """Tell whether the bits after the last of ``count`` packed elements are zero, as they are in every valid message.

    Raises:
        InputError: ``body`` is not packed_bytes(count, ring_bits) contiguous bytes.
    """
    return packing.padding_is_zero(_packed(body, count, ring_bits), count, ring_bits)


def compile_kernels(ring_bits: int, float_dtypes: Iterable[DTypeLike] = (np.float32,)) -> int:
    """Compile all that a round over this ring runs, or load it from the disk cache, so that no stage waits for it.

    Args:
        ring_bits: 1 to 64.
        float_dtypes: the dtypes, float32 or float64, of the vectors to be quantised; may be empty.

    Returns:
        How many kernels had to be compiled: 0 when all were at hand. Each takes about half a second.

    Raises:
        InputError: ``ring_bits`` or a dtype is not as said here.
        SelfTestError: the mask kernel gives a wrong answer on this machine.
    """
    before = jit.compiled_afresh()
    words = np.zeros(1, lane_dtype(ring_bits))
    prg.warmup(words.dtype, np.uint32)  # 32-bit words also feed the rounding
    unpack_add(pack(words, ring_bits), words, ring_bits)
    for dtype in float_dtypes:
        values = np.zeros(1, dtype)
        if values.dtype not in _FLOAT_DTYPES:
            raise InputError(f"vectors are float32 or float64, got {values.dtype}")
        fixed.quantise(values, 1.0, 1.0, 1, 1, np.zeros(1, np.uint32), words)
    return jit.compiled_afresh() - before


def _require_words(words: NDArray[Any], ring_bits: int) -> None:
    expected = lane_dtype(ring_bits)
    if words.dtype != expected or words.ndim != 1:
        raise InputError(f"a vector of {ring_bits}-bit elements is one-dimensional {expected}, got {words.dtype}")
    if not (words.flags.c_contiguous and words.flags.aligned):
        raise InputError("a vector is contiguous and aligned")


def _packed(body: bytes | bytearray | memoryview | NDArray[np.uint8], count: int, ring_bits: int) -> NDArray[np.uint8]:
    expected = packed_bytes(count, ring_bits)
    if isinstance(body, np.ndarray):
        if body.dtype != np.uint8 or body.ndim != 1 or not body.flags.c_contiguous:
            raise InputError("packed bytes are a contiguous uint8 vector")
        packed = body
    else:
        try:
            packed = np.frombuffer(body, np.uint8) if len(body) else np.empty(0, np.uint8)
        except (ValueError, BufferError):
            raise InputError("packed bytes are contiguous") from None
    if packed.size != expected:
        raise InputError(f"{count} elements of {ring_bits} bits are {expected} bytes, got {packed.size}")
    return packed
