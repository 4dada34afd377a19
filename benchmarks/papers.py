"""The headline settings of the papers, measured here.

Command: python benchmarks/papers.py [--quick] [--only ccs17|bytes|large] [--threads 2] [--out build/bench]

- ``ccs17``: the server of CCS'17's table (n = 1000, d = 100,000, complete graph; 0, 10 and 30% dropped), and the same
  under SecAgg+: whole real rounds. The paper's own figures are those of its Java server.
- ``bytes``: n = 2^10, d = 2^20, 16-bit values: bytes up and down a client by stage, from the messages' own lengths.
- ``large``: n = 2^14, d = 2^24. One client is measured in full. The server is put together from slices: a whole real
  round of n clients over 2^10 coordinates; folding real uploads of d coordinates, and adding masks to d coordinates, a
  few of each. What is multiplied by what is printed.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import secagg
from hardware import machine_information
from secagg import IN_MEMORY, ClientSession, FixedPoint, InputNeeded, RoundParams, ServerSession
from secagg.encoding.ring import lane_dtype, unpack_add
from secagg.pairwise.costs import pairwise_traffic
from secagg.pairwise.stages import SEMI_HONEST_STAGES
from secagg.primitives.prg import MASK_KEY_BYTES, MaskKeys, accumulate_blocks
from secagg.wire import HEADER_BYTES
from server_sum import Round

ENCODING = FixedPoint(clip=1.0, bits=16)
PAPER_SECONDS = {0.0: 4.9, 0.1: 180.9, 0.3: 413.8}
"""CCS'17, its server at n = 1000, d = 100,000."""


def play(params: RoundParams, dropped: float, threads: int) -> Round:
    """Play a real round and return it with its seconds."""
    secagg.warmup(params)
    played = Round(params, int(dropped * params.clients), threads)
    played.run()
    return played


def spent(played: Round) -> dict[str, float]:
    """Return the server's seconds by stage."""
    return {stage: sum(calls.values()) for stage, calls in played.seconds.items()}


def ccs17(console: Console, *, quick: bool, threads: int) -> list[dict[str, Any]]:
    """Measure the server of CCS'17's table."""
    clients, dimension = (100, 10_000) if quick else (1000, 100_000)
    table = Table(title=f"server, n={clients}, d={dimension}, {threads} threads; the paper's at n=1000, d=100,000")
    for column in ("protocol", "dropped", "k", "t", *SEMI_HONEST_STAGES, "server s", "CCS'17 s"):
        table.add_column(column, justify="right")
    rows = []
    for protocol in ("secagg", "secagg+"):
        for dropped, paper in PAPER_SECONDS.items():
            params = RoundParams.plan(
                clients=clients,
                dimension=dimension,
                encoding=ENCODING,
                dropout=max(dropped, 0.1),
                corrupt=0.05,
                protocol=protocol,
            )
            stages = spent(play(params, dropped, threads))
            rows.append(
                {
                    "protocol": protocol,
                    "clients": clients,
                    "dimension": dimension,
                    "dropped": dropped,
                    "k": params.neighbours,
                    "t": params.threshold,
                    "stages": stages,
                }
            )
            cells = [f"{seconds:.3f}" for seconds in (*stages.values(), sum(stages.values()))]
            shape = [protocol, f"{dropped:.0%}", str(params.neighbours), str(params.threshold)]
            table.add_row(*shape, *cells, str(paper) if protocol == "secagg" else "")
    console.print(table)
    return rows


def upload_bytes(console: Console) -> dict[str, Any]:
    """Count bytes at n = 2^10, d = 2^20, 16 bits."""
    params = RoundParams.plan(clients=1 << 10, dimension=1 << 20, encoding=ENCODING, dropout=0.1, corrupt=0.05)
    traffic = pairwise_traffic(params, 0)
    table = Table(
        title=f"a client's bytes, n=2^10, d=2^20, 16-bit values, k={params.neighbours}, {params.ring_bits}-bit ring"
    )
    for column in ("stage", "up", "down"):
        table.add_column(column, justify="right")
    for stage in traffic.stages:
        table.add_row(stage.stage, f"{stage.up:,}", f"{stage.down:,}")
    table.add_row("total", f"{traffic.client_up:,}", f"{traffic.client_down:,}")
    console.print(table)
    up, both = (
        bytes_ / (2 * params.dimension) for bytes_ in (traffic.client_up, traffic.client_up + traffic.client_down)
    )
    console.print(f"over 2 bytes a value: {up:.3f} up, {both:.3f} both ways (CCS'17: 1.73)")
    return {"up": traffic.client_up, "down": traffic.client_down, "expansion_up": up, "expansion": both}


def large(console: Console, *, quick: bool, threads: int) -> dict[str, Any]:
    """Measure a client in full and the server by slices at n = 2^14, d = 2^24."""
    clients, dimension, narrow = (1 << 7, 1 << 16, 1 << 8) if quick else (1 << 14, 1 << 24, 1 << 10)
    params = RoundParams.plan(clients=clients, dimension=dimension, encoding=ENCODING, dropout=0.1, corrupt=0.05)
    gone = params.dropout_count
    whole = spent(play(replace(params, dimension=narrow), gone / clients, threads))
    client, upload = one_client(params)
    words = np.zeros(dimension + 1, dtype=lane_dtype(params.ring_bits))
    body = memoryview(upload)[HEADER_BYTES:]
    fold = best_of(lambda: unpack_add(body, words, params.ring_bits), 5)
    some = 64
    keys = MaskKeys.expand(np.random.default_rng(0).bytes(some * MASK_KEY_BYTES))
    mask = best_of(lambda: accumulate_blocks(words, keys, np.zeros(some, bool), threads=threads), 3) / some
    masks = clients - gone + gone * params.neighbours * (clients - gone) // clients
    folds = (clients - gone) * fold
    total = sum(whole.values()) + folds + masks * mask
    console.print(
        f"n=2^{clients.bit_length() - 1}, d=2^{dimension.bit_length() - 1}, k={params.neighbours}, "
        f"t={params.threshold}, {params.ring_bits}-bit ring, {gone} dropped, {threads} threads\n"
        f"  one client, all stages, 1 thread: {sum(client.values()):.3f} s CPU, upload {len(upload) / 1e6:.1f} MB\n"
        f"  server, a whole round over {narrow} coordinates: {sum(whole.values()):.2f} s\n"
        f"  + {clients - gone} uploads x {1e3 * fold:.2f} ms to fold one = {folds:.1f} s\n"
        f"  + {masks} masks x {1e3 * mask:.2f} ms to add one = {masks * mask:.1f} s\n"
        f"  = {total:.1f} s, extrapolated"
    )
    return {
        "clients": clients,
        "dimension": dimension,
        "k": params.neighbours,
        "dropped": gone,
        "client_seconds": client,
        "upload_bytes": len(upload),
        "narrow_round_seconds": whole,
        "fold_seconds": fold,
        "mask_seconds": mask,
        "masks": masks,
        "server_seconds_extrapolated": total,
    }


def one_client(params: RoundParams) -> tuple[dict[str, float], bytes]:
    """Play both key stages with everybody, the rest with client 0 alone; return its CPU seconds and its upload."""
    server = ServerSession(params, range(params.clients), keep=IN_MEMORY)
    cohort = [ClientSession(params, one, keep=IN_MEMORY) for one in range(params.clients)]
    seconds: dict[str, float] = {}
    for stage in ("advertise_keys", "share_keys"):
        for one, request in server.requests().items():
            start = time.process_time()
            reply = cohort[one].receive(request)
            if one == 0:
                seconds[stage] = time.process_time() - start
            server.receive(one, reply.payload)
            cohort[one].delivered()
        server.advance()
    vector = np.random.default_rng(0).uniform(-1, 1, params.dimension).astype(np.float32)
    request = server.requests()[0]
    start = time.process_time()
    if not isinstance(cohort[0].receive(request), InputNeeded):
        raise SystemExit("the client does not ask for its vector")
    upload = cohort[0].submit(vector).payload
    seconds["masked_input"] = time.process_time() - start
    return seconds, upload


def best_of(call: Any, times: int) -> float:
    """Return the least wall seconds of a few calls."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small cohorts and vectors")
    parser.add_argument("--only", choices=("ccs17", "bytes", "large"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    arguments = parser.parse_args()
    console, chosen = Console(width=150), [arguments.only] if arguments.only else ["bytes", "ccs17", "large"]
    results: dict[str, Any] = {"machine": machine_information()}
    if "bytes" in chosen:
        results["bytes"] = upload_bytes(console)
    if "ccs17" in chosen:
        results["ccs17_paper_seconds"] = PAPER_SECONDS
        results["ccs17"] = ccs17(console, quick=arguments.quick, threads=arguments.threads)
    if "large" in chosen:
        results["large"] = large(console, quick=arguments.quick, threads=arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "papers.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
