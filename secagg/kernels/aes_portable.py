"""Counter mode that adds its key stream to words, through pycryptodome: for machines without a compiled path.

The stream is the one of ``secagg.kernels.aes_counter``. pycryptodome itself uses AES instructions where the CPU has
them; its generic code reads tables indexed by secrets, so on a CPU without them the time taken may tell of the keys.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from Crypto.Cipher import AES
from numpy.typing import NDArray

# Bytes of key stream held at a time: small enough for a core's second-level cache.
_CHUNK_BYTES = 1 << 16
_ZEROS = bytes(_CHUNK_BYTES)
_TILES = 16
_BLOCK_BYTES = 16
_taking = threading.Lock()


def accumulate(
    words: NDArray[Any],
    keys: NDArray[np.uint8],
    subtract: NDArray[np.bool_],
    first_block: int,
    first_word: int,
    tile_words: int,
    taken: NDArray[np.int64],
) -> None:
    """Add to ``words``, or subtract, the streams of ``keys`` uint8[m, 24] (key, then nonce).

    They begin at word ``first_word`` (less than a block's number of words) of block ``first_block``. Tiles and
    ``taken`` are those of ``secagg.kernels.aes_counter``; a cipher is set up anew for each tile, so one is ``_TILES``
    times as large, and this loop keeps to the cache by chunks of its own.
    """
    tile_words *= _TILES
    while (start := _take(taken) * tile_words) < words.size:
        tile = words[start : start + tile_words]
        block, late = divmod(first_word + start, _BLOCK_BYTES // words.itemsize)
        for row, negative in zip(keys, subtract, strict=True):
            combine = np.subtract if negative else np.add
            _accumulate_one(tile, row, combine, first_block + block, late)


def _accumulate_one(tile: NDArray[Any], key: NDArray[np.uint8], combine: np.ufunc, block: int, late: int) -> None:
    chunk_words = _CHUNK_BYTES // tile.itemsize
    stream_dtype = tile.dtype.newbyteorder("<")
    cipher = AES.new(key[:16].tobytes(), AES.MODE_CTR, nonce=key[16:].tobytes(), initial_value=block)
    cipher.encrypt(bytes(late * tile.itemsize))
    for start in range(0, tile.size, chunk_words):
        part = tile[start : start + chunk_words]
        stream = np.frombuffer(cipher.encrypt(_ZEROS[: part.nbytes]), stream_dtype)
        combine(part, stream, out=part)


def _take(taken: NDArray[np.int64]) -> int:
    with _taking:
        number = int(taken[0])
        taken[0] += 1
    return number
