"""How long one call of a session keeps an event loop from everything else: called in the loop, and in a thread.

Command: python benchmarks/event_loop.py [--clients 20] [--dimension 1000000] [--dropout 0.1] [--json FILE]
A whole round in one process. A task that sleeps a millisecond at a time tells the longest pause of the loop while a
client's ``submit`` runs, and each ``advance`` of the server; the planned share of clients vanishes before its upload.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import secagg
from hardware import machine_information
from secagg import IN_MEMORY, ClientSession, FixedPoint, InputNeeded, RoundParams, ServerSession

TICK = 0.001


async def longest_pause(call: Callable[[], Any], *, in_thread: bool) -> tuple[Any, float, float]:
    """Make a call; return what it returned, its seconds, and the longest time that the loop did nothing else."""
    longest, last = 0.0, time.perf_counter()

    def heard() -> None:
        nonlocal longest, last
        now = time.perf_counter()
        longest, last = max(longest, now - last - TICK), now

    async def beat() -> None:
        while True:
            heard()
            await asyncio.sleep(TICK)

    beating = asyncio.create_task(beat())
    await asyncio.sleep(5 * TICK)
    longest, start = 0.0, time.perf_counter()
    result = await asyncio.to_thread(call) if in_thread else call()
    seconds = time.perf_counter() - start
    await asyncio.sleep(5 * TICK)
    beating.cancel()
    return result, seconds, longest


async def one_round(params: RoundParams, *, in_thread: bool) -> dict[str, dict[str, float]]:
    """Run a round; return the seconds and the longest pause of each call that is watched."""
    server = ServerSession(params, range(params.clients), context=b"round 1", keep=IN_MEMORY)
    clients = [ClientSession(params, one, context=b"round 1", keep=IN_MEMORY) for one in range(params.clients)]
    vector = np.random.default_rng(0).uniform(-1, 1, params.dimension).astype(np.float32)
    found: dict[str, dict[str, float]] = {}

    async def watch(name: str, call: Callable[[], Any]) -> Any:
        result, seconds, pause = await longest_pause(call, in_thread=in_thread)
        worst = found.setdefault(name, {"seconds": 0.0, "pause": 0.0})
        worst["seconds"], worst["pause"] = max(worst["seconds"], seconds), max(worst["pause"], pause)
        return result

    requests = server.requests()
    while requests:
        stage = server.stage
        for one, request in requests.items():
            reply = clients[one].receive(request)
            if isinstance(reply, InputNeeded):
                if one < params.dropout_count:
                    continue
                submit = clients[one].submit
                last = one == params.clients - 1
                reply = await watch("client: submit", lambda submit=submit: submit(vector)) if last else submit(vector)
            server.receive(one, reply.payload)
        requests = await watch(f"server: advance from {stage}", server.advance)
    assert server.result is not None
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--dimension", type=int, default=1_000_000)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    params = RoundParams.plan(
        clients=arguments.clients,
        dimension=arguments.dimension,
        dropout=arguments.dropout,
        encoding=FixedPoint(clip=1.0, bits=16),
    )
    secagg.warmup(params)
    asyncio.run(one_round(params, in_thread=False))  # fills caches
    runs = {how: asyncio.run(one_round(params, in_thread=how == "thread")) for how in ("loop", "thread")}
    table = Table(
        title=f"n={params.clients}, d={params.dimension:,}, {params.dropout_count} dropped: ms, the worst of each"
    )
    for column in ("call", "in the loop: takes", "loop pauses", "in a thread: takes", "loop pauses"):
        table.add_column(column, justify="left" if column == "call" else "right")
    for call, worst in runs["loop"].items():
        figures = (worst["seconds"], worst["pause"], runs["thread"][call]["seconds"], runs["thread"][call]["pause"])
        table.add_row(call, *(f"{1e3 * seconds:.1f}" for seconds in figures))
    Console(width=120).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine_information(), "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
