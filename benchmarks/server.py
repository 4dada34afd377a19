"""The server's time by stage and the size of its saved state, against the number of clients.

Command: python benchmarks/server.py [--clients 50 500] [--dimension 1000000] [--dropout 0.1] [--json FILE]
Each cohort runs in a process of its own. Clients are real; only the server's calls are timed. What it takes beside
NumPy's sum is in ``server_sum.py``, its memory in ``server_memory.py``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import secagg
from hardware import machine_information
from secagg import IN_MEMORY, ClientSession, FixedPoint, InputNeeded, RoundParams, ServerSession
from secagg.pairwise.stages import SEMI_HONEST_STAGES


def run_cohort(clients: int, dimension: int, dropout: float, protocol: str, threads: int) -> dict[str, object]:
    """Play a whole round; return the server's wall seconds by stage."""
    params = RoundParams.plan(
        clients=clients,
        dimension=dimension,
        dropout=dropout,
        corrupt=0.05,
        protocol=protocol,
        encoding=FixedPoint(clip=1.0, bits=16),
    )
    secagg.warmup(params)
    gone = set(range(int(dropout * clients)))
    vector = np.random.default_rng(0).uniform(-1, 1, dimension).astype(np.float32)
    cohort = {one: ClientSession(params, one, keep=IN_MEMORY) for one in range(clients)}
    server = ServerSession(params, range(clients), keep=IN_MEMORY)
    seconds = dict.fromkeys(SEMI_HONEST_STAGES, 0.0)
    for stage in SEMI_HONEST_STAGES:
        requests = server.requests()
        for one in list(requests):
            start = time.perf_counter()
            request = requests[one]
            seconds[stage] += time.perf_counter() - start
            if stage == "masked_input" and one in gone:
                continue
            answer = cohort[one].receive(request)
            if isinstance(answer, InputNeeded):
                answer = cohort[one].submit(vector, threads=threads)
            start = time.perf_counter()
            server.receive(one, answer.payload)
            seconds[stage] += time.perf_counter() - start
            cohort[one].delivered()
        del requests
        start = time.perf_counter()
        server.advance(threads=threads)
        seconds[stage] += time.perf_counter() - start
    saved = len(server.save(seal_key=None))
    return {
        "clients": clients,
        "neighbours": params.neighbours,
        "dimension": dimension,
        "survivors": len(server.result.survivors),
        "seconds": seconds,
        "state_bytes": saved,
    }


def in_a_process(*arguments: object) -> dict[str, object]:
    """Run one cohort in a fresh interpreter."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(run_cohort, arguments)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[50, 500])
    parser.add_argument("--dimension", type=int, default=1_000_000)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--protocol", default="secagg+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    shared = (arguments.dimension, arguments.dropout, arguments.protocol, arguments.threads)
    runs = [in_a_process(clients, *shared) for clients in arguments.clients]
    table = Table(title=f"server, d={arguments.dimension}, {arguments.dropout:.0%} dropped before their upload")
    for column in ("clients", "k", *SEMI_HONEST_STAGES, "total s", "state MB"):
        table.add_column(column, justify="right")
    for run in runs:
        stages = [f"{run['seconds'][stage]:.3f}" for stage in SEMI_HONEST_STAGES]
        total = sum(run["seconds"].values())
        table.add_row(
            str(run["clients"]),
            str(run["neighbours"]),
            *stages,
            f"{total:.3f}",
            f"{run['state_bytes'] / 1e6:.1f}",
        )
    Console(width=140).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine_information(), "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
