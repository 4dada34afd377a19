"""The server's whole round beside NumPy's plain float32 sum of as many vectors of the same length, in one run.

Command: python benchmarks/server_sum.py [--clients 1000] [--dimension 1048576] [--dropout 0 0.1] [--json FILE]
Every message is a real one, of a real ClientSession to a real ServerSession, and the sum is checked. Counted are all of
the server's calls in all stages: making every request, receiving every message (a group at a time),
closing every stage, rebuilding secrets, agreeing on keys, taking masks off. The clients' own work is not counted.

Uploads are made and folded in groups of 32, more than the caches hold, and then dropped, so memory stays bounded. After
each group NumPy adds 32 float32 vectors in place, one after the other, and sums 32 stacked ones over their first axis;
the better of its two totals, scaled to all the clients invited, is what the server is compared with.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import secagg
from hardware import machine_information
from secagg import IN_MEMORY, ClientSession, FixedPoint, InputNeeded, RoundParams, ServerSession
from secagg.pairwise.stages import SEMI_HONEST_STAGES

GROUP = 32


class PlainSum:
    """NumPy's two ways to sum vectors, measured whenever ``measure`` is called."""

    def __init__(self, dimension: int) -> None:
        self.stacked = np.random.default_rng(0).standard_normal((GROUP, dimension)).astype(np.float32)
        self.total = np.zeros(dimension, np.float32)
        self.in_place: list[float] = []
        self.by_axis: list[float] = []

    def measure(self) -> None:
        """Sum the stacked vectors both ways."""
        start = time.perf_counter()
        for vector in self.stacked:
            np.add(self.total, vector, out=self.total)
        middle = time.perf_counter()
        self.stacked.sum(axis=0)
        self.in_place.append((middle - start) / GROUP)
        self.by_axis.append((time.perf_counter() - middle) / GROUP)

    def seconds(self, vectors: int) -> float:
        """Seconds for so many vectors, by the better way's mean."""
        return vectors * min(float(np.mean(times)) for times in (self.in_place, self.by_axis))


class Round:
    """One round; ``seconds`` are the server's, by stage and kind of call."""

    def __init__(self, params: RoundParams, gone: int, threads: int) -> None:
        self.params, self.threads = params, threads
        self.gone = frozenset(range(gone))
        self.server = ServerSession(params, range(params.clients), keep=IN_MEMORY)
        self.clients = [ClientSession(params, one, keep=IN_MEMORY) for one in range(params.clients)]
        self.plain = PlainSum(params.dimension)
        self.seconds: dict[str, dict[str, float]] = {}
        values = np.random.default_rng(1).integers(0, params.encoding.largest_code + 1, params.dimension)
        self.codes = values
        self.vector = values * params.encoding.step - params.encoding.clip

    def run(self) -> None:
        """Play every stage, then check the sum."""
        for stage in SEMI_HONEST_STAGES:
            spent = self.seconds[stage] = {"requests": 0.0, "receive": 0.0, "advance": 0.0}
            requests = timed(spent, "requests", self.server.requests)
            for group in groups(list(requests)):
                sent = timed(spent, "requests", lambda group=group, all=requests: {one: all[one] for one in group})
                replies = self._replies(stage, sent)
                timed(spent, "receive", lambda replies=replies: self._receive(replies))
                if stage == "masked_input":
                    del replies
                    self.plain.measure()
            timed(spent, "advance", lambda: self.server.advance(threads=self.threads))
        self._check()

    def _replies(self, stage: str, sent: Mapping[int, bytes]) -> list[tuple[int, bytes]]:
        replies = []
        for one, request in sent.items():
            if stage == "masked_input" and one in self.gone:
                continue
            answer = self.clients[one].receive(request)
            if isinstance(answer, InputNeeded):
                answer = self.clients[one].submit(self.vector)
            self.clients[one].delivered()
            replies.append((one, answer.payload))
        return replies

    def _receive(self, replies: list[tuple[int, bytes]]) -> None:
        assert not self.server.receive_all(replies, threads=self.threads)

    def _check(self) -> None:
        result = self.server.result
        survivors = self.params.clients - len(self.gone)
        assert len(result.survivors) == result.weight == survivors
        # A whole code can come out one higher or lower where the float on its way was not exact
        assert (np.abs(result.total.astype(np.int64) - survivors * self.codes) <= survivors).all()


def timed(spent: dict[str, float], name: str, call: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    made = call()
    spent[name] += time.perf_counter() - start
    return made


def groups(ids: list[int]) -> Iterator[list[int]]:
    for first in range(0, len(ids), GROUP):
        yield ids[first : first + GROUP]


def measure(clients: int, dimension: int, dropout: float, protocol: str, threads: int) -> dict[str, Any]:
    """Run a round in which the share ``dropout`` drops before its upload."""
    params = RoundParams.plan(
        clients=clients,
        dimension=dimension,
        dropout=max(dropout, 0.1),
        corrupt=0.05,
        protocol=protocol,
        encoding=FixedPoint(clip=1.0, bits=16),
    )
    secagg.warmup(params)
    played = Round(params, int(dropout * clients), threads)
    played.run()
    server = sum(sum(spent.values()) for spent in played.seconds.values())
    plain = played.plain.seconds(clients)
    return {
        "clients": clients,
        "dimension": dimension,
        "dropout": dropout,
        "graph": params.graph,
        "neighbours": params.neighbours,
        "ring_bits": params.ring_bits,
        "threads": threads,
        "server_seconds": server,
        "numpy_seconds": plain,
        "ratio": server / plain,
        "stages": played.seconds,
    }


def show(console: Console, run: dict[str, Any]) -> None:
    title = (
        f"n={run['clients']}, d={run['dimension']}, {run['dropout']:.0%} dropped, {run['graph']} graph, "
        f"k={run['neighbours']}, {run['ring_bits']}-bit, {run['threads']} threads"
    )
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(("seconds", "requests", "receive", "advance")):
        table.add_column(column, justify="right" if i else "left")
    for stage, spent in run["stages"].items():
        table.add_row(stage, *(f"{value:.3f}" for value in spent.values()))
    console.print(table)
    console.print(f"server {run['server_seconds']:.3f} s, NumPy's sum {run['numpy_seconds']:.3f} s: {run['ratio']:.2f}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--dimension", type=int, default=1 << 20)
    parser.add_argument("--dropout", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--protocol", default="secagg+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    shared = (arguments.protocol, arguments.threads)
    runs = []
    for dropout in arguments.dropout:
        runs.append(measure(arguments.clients, arguments.dimension, dropout, *shared))
        show(Console(), runs[-1])
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine_information(), "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
