"""The server's memory grows with the dimension, not with the cohort."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from cohort import plan
from secagg import IN_MEMORY, ClientSession, InputNeeded, ServerSession, warmup

DIMENSION = 200_000


def peak_while_collecting_and_unmasking(clients: int) -> int:
    """Most bytes that the server's own calls allocated beyond what it held before the first upload."""
    params = plan(clients, DIMENSION, protocol="secagg+", dropout=0.1)
    warmup(params)
    server = ServerSession(params, range(clients), keep=IN_MEMORY)
    cohort = {one: ClientSession(params, one, keep=IN_MEMORY) for one in range(clients)}
    vector = np.zeros(DIMENSION, dtype=np.float32)
    peak = 0
    while server.stage is not None:
        requests, stage = server.requests(), server.stage
        for one in requests:
            answer = cohort[one].receive(requests[one])
            if isinstance(answer, InputNeeded):
                answer = cohort[one].submit(vector)
            tracemalloc.start()
            server.receive(one, answer.payload)
            peak = max(peak, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            cohort[one].delivered()
        if stage == "unmask":
            tracemalloc.start()
        server.advance()
    peak = max(peak, tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert server.result.survivors == tuple(range(clients))
    return peak


@pytest.fixture(scope="module")
def peaks() -> dict[int, int]:
    return {clients: peak_while_collecting_and_unmasking(clients) for clients in (50, 200)}


def test_peak_memory_is_a_few_bytes_a_coordinate(peaks):
    assert peaks[50] < 12 * DIMENSION + (1 << 20)


def test_peak_memory_does_not_grow_with_the_cohort(peaks):
    # 150 more clients bring keys of masks, some hundred bytes each, and no vector (800,000 bytes)
    assert peaks[200] - peaks[50] < 400_000
