"""The server's peak memory through a whole round, against the number of clients; and one round read from mapped files.

Command: python benchmarks/server_memory.py [--clients 100 2000] [--dimension 100000] [--dropout 0.1] [--json FILE]
Each cohort runs in a process of its own. Clients are real; only what is allocated within the server's own calls, and
what it still holds of that afterwards, is counted, by tracemalloc (NumPy's buffers included): the rise over the moment
before ``ServerSession`` was built, when everything had been imported and compiled. A stage's requests are made one at a
time, as a transport that sends them would. The bound is 64 MiB and 12 bytes a coordinate, until the result is taken.

Uploads are written to a file and handed over as a memory map; ``copied`` is the most that one call of ``receive`` held
at any moment beyond what it began with.
"""

from __future__ import annotations

import argparse
import functools
import json
import mmap
import multiprocessing
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

import secagg
from hardware import machine_information
from secagg import IN_MEMORY, ClientSession, FixedPoint, InputNeeded, RoundParams, ServerSession
from secagg.pairwise.stages import SEMI_HONEST_STAGES

T = TypeVar("T")
FIXED, PER_COORDINATE = 64 << 20, 12


class Meter:
    """What the server holds and the most it ever held, in bytes; what clients allocate in between is left out."""

    def __init__(self) -> None:
        self.held = self.peak = self.last = 0

    def count(self, call: Callable[[], T]) -> T:
        """Run one of the server's calls."""
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        made = call()
        after, peak = tracemalloc.get_traced_memory()
        self.last = peak - before
        self.peak = max(self.peak, self.held + self.last)
        self.held += after - before
        return made

    def dropped(self, release: Callable[[], None]) -> None:
        """Let go of what the last call returned to the transport."""
        before = tracemalloc.get_traced_memory()[0]
        release()
        self.held -= before - tracemalloc.get_traced_memory()[0]


def run_cohort(clients: int, dimension: int, dropout: float, protocol: str, threads: int) -> dict[str, Any]:
    """Play a round."""
    params = RoundParams.plan(
        clients=clients,
        dimension=dimension,
        dropout=dropout,
        corrupt=0.05,
        protocol=protocol,
        encoding=FixedPoint(clip=1.0, bits=16),
    )
    secagg.warmup(params)
    gone = frozenset(range(int(dropout * clients)))
    vector = np.random.default_rng(0).uniform(-1, 1, dimension).astype(np.float32)
    cohort = [ClientSession(params, one, keep=IN_MEMORY) for one in range(clients)]
    stages, copied = {}, 0
    tracemalloc.start()
    meter = Meter()
    server = meter.count(lambda: ServerSession(params, range(clients), keep=IN_MEMORY))
    with tempfile.TemporaryFile() as file:
        for stage in SEMI_HONEST_STAGES:
            meter.peak = 0
            requests = [meter.count(server.requests)]
            for one in list(requests[0]):
                sent = [meter.count(functools.partial(requests[0].__getitem__, one))]
                payload = None if stage == "masked_input" and one in gone else reply_to(cohort[one], sent[0], vector)
                meter.dropped(sent.clear)
                if payload is None:
                    continue
                mapped = mapped_file(file, payload)
                meter.count(functools.partial(server.receive, one, mapped))
                copied = max(copied, meter.last)
                mapped.close()
                cohort[one].delivered()
            meter.dropped(requests.clear)
            advanced = [meter.count(lambda: server.advance(threads=threads))]
            meter.dropped(advanced.clear)
            stages[stage] = meter.peak
    tracemalloc.stop()
    assert len(server.result.survivors) == clients - len(gone)
    return {
        "clients": clients,
        "neighbours": params.neighbours,
        "dimension": dimension,
        "peak_bytes": stages,
        "bound_bytes": FIXED + PER_COORDINATE * dimension,
        "receive_bytes": copied,
    }


def reply_to(client: ClientSession, request: bytes, vector: np.ndarray) -> bytes:
    answer = client.receive(request)
    if isinstance(answer, InputNeeded):
        answer = client.submit(vector)
    return answer.payload


def mapped_file(file: Any, payload: bytes) -> mmap.mmap:
    file.seek(0)
    file.truncate()
    file.write(payload)
    file.flush()
    return mmap.mmap(file.fileno(), len(payload), access=mmap.ACCESS_READ)


def in_a_process(*arguments: object) -> dict[str, Any]:
    """Run one cohort in a fresh interpreter."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(run_cohort, arguments)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[100, 2000])
    parser.add_argument("--dimension", type=int, default=100_000)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--protocol", default="secagg+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    shared = (arguments.dimension, arguments.dropout, arguments.protocol, arguments.threads)
    runs = [in_a_process(clients, *shared) for clients in arguments.clients]
    table = Table(title=f"server's peak MiB by stage, d={arguments.dimension}, {arguments.dropout:.0%} dropped")
    for column in ("clients", "k", *SEMI_HONEST_STAGES, "bound", "copied"):
        table.add_column(column, justify="right")
    for run in runs:
        sizes = [*run["peak_bytes"].values(), run["bound_bytes"], run["receive_bytes"]]
        table.add_row(str(run["clients"]), str(run["neighbours"]), *(f"{size / (1 << 20):.2f}" for size in sizes))
    Console(width=120).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine_information(), "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
