"""One pass over a client's vector: quantise, append the weight, add every mask, pack; block by block, in cache."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from secagg.arguments import check_threads
from secagg.encoding.fixed_point import ROUNDING_DTYPE, check_vector, check_weight, quantise_into
from secagg.encoding.ring import lane_dtype, pack_into, packed_bytes
from secagg.errors import InputError
from secagg.pairwise.params import RoundParams
from secagg.primitives.prg import MaskKeys, accumulate

BLOCK_WORDS = 1 << 16
"""Values a block: a multiple of 8, so that each starts a byte of the packed body; its buffers fit a core's cache."""


def mask_vector(
    vector: NDArray[np.floating],
    weight: SupportsIndex,
    params: RoundParams,
    *,
    keys: MaskKeys,
    subtract: NDArray[np.bool_],
    rounding_key: bytes,
    prefix: bytes,
    threads: int,
) -> tuple[bytes, float]:
    """Return ``prefix`` and the packed masked vector in one piece, and the share of coordinates that were clipped.

    Raises:
        InputError: the vector or weight is not as ``params`` say, or a value is not finite.
    """
    check_threads(threads)
    vector = check_vector(vector, params.dimension)
    factor = check_weight(weight, params.max_weight)
    # BytesIO lends the memory of the bytes that it will return: the one way to fill them without a copy
    payload = io.BytesIO(bytes(len(prefix) + packed_bytes(params.dimension + 1, params.ring_bits)))
    payload.write(prefix)
    body = np.frombuffer(payload.getbuffer(), dtype=np.uint8, offset=len(prefix))
    work = _Blocks(vector, factor, params, keys, subtract, MaskKeys.expand(rounding_key), body)
    counts = _run_blocks(work, -(-(params.dimension + 1) // BLOCK_WORDS), threads)
    del work, body  # from here on nothing can write to what is returned
    if bad := sum(not_finite for _, not_finite in counts):
        raise InputError(f"a vector must be finite, but {bad} of its {params.dimension} values are not")
    return payload.getvalue(), sum(clipped for clipped, _ in counts) / max(params.dimension, 1)


def _run_blocks(work: _Blocks, count: int, threads: int) -> list[tuple[int, int]]:
    workers = min(threads, count, os.cpu_count() or 1)
    if workers == 1:
        return [work.run(0, count)]
    bounds = [count * worker // workers for worker in range(workers + 1)]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work.run, bounds[:-1], bounds[1:]))


class _Blocks:
    """The pass, over any run of blocks; runs share nothing that they write, so threads may take one each."""

    def __init__(
        self,
        vector: NDArray[np.floating],
        weight: int,
        params: RoundParams,
        keys: MaskKeys,
        subtract: NDArray[np.bool_],
        rounding: MaskKeys,
        body: NDArray[np.uint8],
    ) -> None:
        self.vector, self.weight, self.params = vector, weight, params
        self.keys, self.subtract, self.rounding, self.body = keys, subtract, rounding, body

    def run(self, first: int, last: int) -> tuple[int, int]:
        words = np.empty(BLOCK_WORDS, dtype=lane_dtype(self.params.ring_bits))
        noise = np.empty(BLOCK_WORDS, dtype=ROUNDING_DTYPE)
        clipped = bad = 0
        for block in range(first, last):
            more_clipped, more_bad = self._block(block * BLOCK_WORDS, words, noise)
            clipped, bad = clipped + more_clipped, bad + more_bad
        return clipped, bad

    def _block(self, start: int, words: NDArray[Any], noise: NDArray[np.uint32]) -> tuple[int, int]:
        dimension, bits = self.params.dimension, self.params.ring_bits
        values = self.vector[start : start + BLOCK_WORDS]
        words = words[: min(BLOCK_WORDS, dimension + 1 - start)]
        noise = noise[: len(values)]
        noise[:] = 0
        accumulate(noise, self.rounding, _ADD, first_word=start)
        counts = quantise_into(values, self.params.encoding, self.weight, noise, words[: len(values)])
        if len(values) < len(words):
            words[-1] = self.weight
        accumulate(words, self.keys, self.subtract, first_word=start)
        at = start * bits // 8
        pack_into(words, bits, self.body[at : at + packed_bytes(len(words), bits)])
        return counts


_ADD = np.zeros(1, dtype=np.bool_)
