"""What every adapter shares: inputs, clocks, the check of the sum, and the line of JSON that it prints.

Needs NumPy alone, since each system's own environment runs it.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.systems.catalogue import SYSTEMS, Setting

WARM_UP = Setting(clients=10, neighbours=9, threshold=7, dimension=1000)
"""Run before the measured round, so that imports, compilation and first calls are in nobody's figures."""


@dataclass(slots=True, kw_only=True, eq=False)
class Outcome:
    """What an adapter's round came to, beside the meter's figures.

    Attributes:
        total: float64[d], the sum that the aggregator (or, with a shared key, a client) ends with.
        error_bound: how far a coordinate of it may lie from the true sum, by the system's own quantisation.
        version: of the system.
        parameters: its own, by name.
    """

    total: np.ndarray
    error_bound: float
    version: str
    parameters: dict[str, object] = field(default_factory=dict)


class Meter:
    """CPU seconds of this process, put down to one client or to the server; bytes by client.

    ``time.process_time`` counts all threads of the process, so a system's own worker threads are in.
    """

    def __init__(self, clients: int) -> None:
        self.client_cpu = [0.0] * clients
        self.server_cpu = self.server_wall = 0.0
        self.up, self.down = [0] * clients, [0] * clients

    @contextmanager
    def client(self, one: int) -> Iterator[None]:
        """Put the block's CPU down to a client."""
        start = time.process_time()
        yield
        self.client_cpu[one] += time.process_time() - start

    @contextmanager
    def server(self) -> Iterator[None]:
        """Put the block's CPU and wall time down to the server."""
        wall, start = time.perf_counter(), time.process_time()
        yield
        self.server_cpu += time.process_time() - start
        self.server_wall += time.perf_counter() - wall

    @contextmanager
    def not_the_server(self) -> Iterator[None]:
        """Take the block out of an enclosing ``server`` block."""
        wall, start = time.perf_counter(), time.process_time()
        yield
        self.server_cpu -= time.process_time() - start
        self.server_wall -= time.perf_counter() - wall

    @contextmanager
    def not_the_client(self, one: int) -> Iterator[None]:
        """Take the block out of an enclosing ``client`` block."""
        start = time.process_time()
        yield
        self.client_cpu[one] -= time.process_time() - start


Round = Callable[[Setting, list[np.ndarray], Meter], Outcome]


def survivors_of(setting: Setting) -> range:
    """Return the clients that upload."""
    return range(setting.dropped, setting.clients)


def inputs_of(setting: Setting) -> list[np.ndarray]:
    """Return n vectors of float32[d], uniform in [-clip, clip], a generator each."""
    return [
        np.random.default_rng([setting.seed, one])
        .uniform(-setting.clip, setting.clip, setting.dimension)
        .astype(np.float32)
        for one in range(setting.clients)
    ]


def measure(system: str, setting: Setting, run: Round) -> dict[str, object]:
    """Run a warm-up and one round; return the figures by the names that ``docs/benchmarks.md`` explains."""
    warm_up = replace(WARM_UP, dropped=min(setting.dropped, 1))
    run(warm_up, inputs_of(warm_up), Meter(warm_up.clients))
    vectors, meter = inputs_of(setting), Meter(setting.clients)
    digest = hashlib.sha256(b"".join(hashlib.sha256(vector).digest() for vector in vectors)).hexdigest()
    outcome = run(setting, vectors, meter)
    present = survivors_of(setting)
    truth = np.zeros(setting.dimension)
    for one in present:
        truth += vectors[one]
    error = float(np.abs(outcome.total - truth).max(initial=0.0))
    row = SYSTEMS[system]
    return {
        "system": system,
        "title": row.title,
        "status": "measured" if error <= outcome.error_bound else "wrong",
        "version": outcome.version,
        "client_cpu_seconds": statistics.median(meter.client_cpu[one] for one in present),
        "client_cpu_seconds_total": sum(meter.client_cpu),
        "server_cpu_seconds": meter.server_cpu,
        "server_wall_seconds": meter.server_wall,
        "bytes_up": statistics.median(meter.up[one] for one in present),
        "bytes_down": statistics.median(meter.down[one] for one in present),
        "max_error": error,
        "error_bound": outcome.error_bound,
        "survivors": len(present),
        "inputs_digest": digest,
        "parameters": outcome.parameters,
    }


def main(rounds: Mapping[str, Round]) -> None:
    """Be the adapter of these systems: read ``{"system": ..., "setting": {...}}``, print one line of JSON."""
    _keep_to_one_core()
    asked = json.load(sys.stdin)
    run = rounds[asked["system"]]
    # A framework may print what it likes: only the last line of standard output is read
    print(json.dumps(measure(asked["system"], Setting(**asked["setting"]), run)), flush=True)


def _keep_to_one_core() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
