"""A vector masked block by block, by one thread or several, is the vector masked in one piece."""

from __future__ import annotations

import os
import threading
import tracemalloc

import numpy as np
import pytest

from cohort import plan
from secagg import FixedPoint, InputError, RoundParams
from secagg.encoding.fixed_point import quantise_into
from secagg.encoding.ring import lane_dtype, pack_into, packed_bytes
from secagg.pairwise import masking
from secagg.primitives.prg import MaskKeys, stream

EXACT = FixedPoint(clip=127.5, bits=8)
KEYS = [bytes([number]) * 24 for number in range(3)]
SUBTRACT = np.array([False, True, False])
ROUNDING, PREFIX, WEIGHT, BLOCK = bytes(range(24)), b"prefix", 3, 16


def masked(vector: np.ndarray, params: RoundParams, threads: int = 1) -> tuple[bytes, float]:
    return masking.mask_vector(
        vector,
        WEIGHT,
        params,
        keys=MaskKeys.expand(b"".join(KEYS)),
        subtract=SUBTRACT,
        rounding_key=ROUNDING,
        prefix=PREFIX,
        threads=threads,
    )


def in_one_piece(vector: np.ndarray, params: RoundParams) -> bytes:
    words = np.empty(params.dimension + 1, lane_dtype(params.ring_bits))
    noise = stream(ROUNDING, params.dimension, np.uint32)
    quantise_into(vector, params.encoding, WEIGHT, noise, words[:-1])
    words[-1] = WEIGHT
    for key, minus in zip(KEYS, SUBTRACT, strict=True):
        mask = stream(key, words.size, words.dtype)
        words = words - mask if minus else words + mask
    body = np.zeros(packed_bytes(words.size, params.ring_bits), np.uint8)
    pack_into(words, params.ring_bits, body)
    return PREFIX + body.tobytes()


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(masking, "BLOCK_WORDS", BLOCK)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@pytest.mark.parametrize("dimension", [0, 1, BLOCK - 2, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK - 1, 7 * BLOCK])
def test_blocks_and_threads_change_nothing(small_blocks, dimension, threads):
    params = plan(5, dimension, encoding=EXACT, max_weight=5)
    vector = np.random.default_rng(dimension).uniform(-200, 200, dimension)
    vector[:1] = 200
    payload, clipped = masked(vector, params, threads)
    assert payload == in_one_piece(vector, params)
    assert clipped == (np.abs(vector) > EXACT.clip).sum() / max(dimension, 1)


@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_not_finite_is_counted_once(small_blocks, threads):
    vector = np.zeros(7 * BLOCK)
    vector[:: BLOCK + 1] = np.nan
    with pytest.raises(InputError, match="but 7 of its 112 values"):
        masked(vector, plan(5, vector.size, encoding=EXACT, max_weight=5), threads)


def test_rounding_takes_the_stream_as_it_is():
    """Fractions at and beside what the stream says, where a number more or less rounds the other way."""
    params = plan(5, 32, encoding=EXACT, max_weight=5)
    drawn = stream(ROUNDING, 32, np.uint32).astype(np.int64)
    for near in (-1, 0, 1):
        for fraction in (drawn + near, (1 << 32) - drawn + near):
            vector = 7 + fraction / (1 << 32) - EXACT.clip
            assert masked(vector, params)[0] == in_one_piece(vector, params)


def test_a_machine_that_does_not_count_its_cores_masks_too(small_blocks, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    runs = observed_runs(monkeypatch, 1)
    params = plan(5, 5 * BLOCK, encoding=EXACT, max_weight=5)
    vector = np.zeros(params.dimension)
    assert masked(vector, params, threads=2)[0] == in_one_piece(vector, params)
    assert runs == [threading.get_ident()]


def observed_runs(monkeypatch, together: int) -> list[int]:
    """Let no run of blocks begin before so many have, and note each one's thread."""
    barrier, runs, run = threading.Barrier(together), [], masking._Blocks.run

    def observed(work, first, last):
        runs.append(threading.get_ident())
        barrier.wait(timeout=10)
        return run(work, first, last)

    monkeypatch.setattr(masking._Blocks, "run", observed)
    return runs


@pytest.mark.parametrize(("threads", "blocks", "together"), [(1, 6, 1), (2, 6, 2), (3, 6, 3), (9, 6, 4), (4, 2, 2)])
def test_as_many_threads_work_as_are_allowed_and_of_use(small_blocks, monkeypatch, threads, blocks, together):
    runs = observed_runs(monkeypatch, together)
    params = plan(5, blocks * BLOCK - 1, encoding=EXACT, max_weight=5)
    masked(np.zeros(params.dimension), params, threads)
    assert len(set(runs)) == len(runs) == together
    assert (threading.get_ident() in runs) == (together == 1)


def test_a_payload_is_not_copied():
    params = plan(5, 1 << 20, encoding=EXACT, max_weight=5)
    vector = np.zeros(params.dimension, np.float32)
    size = len(masked(vector, params)[0])
    tracemalloc.start()
    try:
        masked(vector, params)
        assert tracemalloc.get_traced_memory()[1] < 1.6 * size
    finally:
        tracemalloc.stop()
