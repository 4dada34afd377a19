"""Planned memory against what real sessions allocate."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import secagg
from cohort import Cohort
from secagg.pairwise.costs import client_bytes, pairwise_traffic, server_bytes

SHAPES = {
    "wide": {"clients": 40, "dimension": 200_000, "protocol": "secagg+"},
    "complete": {"clients": 30, "dimension": 100, "protocol": "secagg"},
}


class Traced(Cohort):
    """Follows what the server holds and each side's highest point; tracing runs all the time, in one process."""

    held = server_peak = client_peak = 0

    def round(self) -> None:
        tracemalloc.start()
        try:
            while self.server.stage is not None:
                if self.server.beacon_needed:
                    self.at_server(lambda: self.server.use_beacon(self.beacon))
                requests = self.server.requests()
                for one in requests:
                    request = self.at_server(lambda one=one, requests=requests: requests[one])
                    start = self.mark()
                    payload = self.answer(one, request)
                    used = tracemalloc.get_traced_memory()[1] - start + len(request)
                    self.client_peak = max(self.client_peak, used)
                    self.at_server(lambda one=one, payload=payload: self.server.receive(one, payload), len(payload))
                    self.clients[one].delivered()
                self.at_server(self.server.advance)
        finally:
            tracemalloc.stop()

    def at_server(self, call, incoming: int = 0):
        start = self.mark()
        result = call()
        now, peak = tracemalloc.get_traced_memory()
        self.server_peak = max(self.server_peak, self.held + peak - start + incoming)
        if not isinstance(result, bytes):
            self.held += now - start
        return result

    @staticmethod
    def mark() -> int:
        tracemalloc.reset_peak()
        return tracemalloc.get_traced_memory()[0]


@pytest.mark.parametrize("threat", ["semi-honest", "malicious-server"])
@pytest.mark.parametrize("shape", SHAPES)
def test_planned_memory_is_near_what_sessions_allocate(shape, threat):
    params = secagg.RoundParams.plan(encoding=secagg.FixedPoint(clip=1.0, bits=16), threat=threat, **SHAPES[shape])
    secagg.warmup(params)
    vector = np.zeros(params.dimension, dtype=np.float32)
    cohort = Traced(params, [vector] * params.clients)
    cohort.round()
    client = client_bytes(params, pairwise_traffic(params, 0))
    # Where vectors are short, Python's own objects, which are not counted, weigh more
    near = 0.1 if shape == "wide" else 0.5
    assert client == pytest.approx(vector.nbytes + cohort.client_peak, rel=near)
    assert server_bytes(params) == pytest.approx(cohort.server_peak, rel=near)
