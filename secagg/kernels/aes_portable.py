"""Counter mode that adds its key stream to words, through pycryptodome: for machines without a compiled path.

The stream is the one of ``secagg.kernels.aes_x86``. pycryptodome itself uses AES instructions where the CPU has them;
its generic code reads tables indexed by secrets, so on a CPU without them the time taken may tell of the keys.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from Crypto.Cipher import AES
from numpy.typing import NDArray

# Bytes of key stream held at a time: small enough for a core's second-level cache.
_CHUNK_BYTES = 1 << 16
_ZEROS = bytes(_CHUNK_BYTES)


def accumulate(
    words: NDArray[Any], keys: NDArray[np.uint8], subtract: NDArray[np.bool_], first_block: int, first_word: int
) -> None:
    """Add to ``words``, or subtract, the streams of ``keys`` uint8[m, 24] (key, then nonce).

    They begin at word ``first_word`` (less than a block's number of words) of block ``first_block``.
    """
    word_bytes = words.itemsize
    chunk_words = _CHUNK_BYTES // word_bytes
    stream_dtype = words.dtype.newbyteorder("<")
    for row, negative in zip(keys, subtract, strict=True):
        cipher = AES.new(row[:16].tobytes(), AES.MODE_CTR, nonce=row[16:].tobytes(), initial_value=first_block)
        cipher.encrypt(bytes(first_word * word_bytes))
        combine = np.subtract if negative else np.add
        for start in range(0, words.size, chunk_words):
            part = words[start : start + chunk_words]
            stream = np.frombuffer(cipher.encrypt(_ZEROS[: part.nbytes]), stream_dtype)
            combine(part, stream, out=part)
