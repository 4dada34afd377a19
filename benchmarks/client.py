"""One client's whole CPU, all stages, beside the time its masks take alone; one thread, one run.

Command: python benchmarks/client.py [--clients 1000] [--dimension 1048576] [--dropout 0.3] [--json FILE]
The client is a real ClientSession fed by a real server's messages; the masks alone are the same number of AES-CTR
streams added to a vector of the same length by the same kernel, block by block.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import secagg
from hardware import machine_information
from secagg import IN_MEMORY, ClientSession, FixedPoint, InputNeeded, RoundParams, ServerSession
from secagg.encoding.ring import lane_dtype
from secagg.pairwise.stages import SEMI_HONEST_STAGES
from secagg.primitives.prg import MASK_KEY_BYTES, MaskKeys, accumulate_blocks


def requests_of_a_round(params: RoundParams) -> tuple[ClientSession, list[bytes]]:
    """Play a cohort up to the upload; return client 0 before any message, and what the server sends it."""
    server = ServerSession(params, range(params.clients), keep=IN_MEMORY)
    clients = {one: ClientSession(params, one, keep=IN_MEMORY) for one in range(params.clients)}
    first = clients[0].save(seal_key=None)
    # The recording's client draws the same keys again: its randomness is replayed
    drawn: list[bytes] = []

    def record(length: int) -> bytes:
        drawn.append(np.random.default_rng(len(drawn)).bytes(length))
        return drawn[-1]

    clients[0] = ClientSession.restore(first, 0, randomness=record, keep=IN_MEMORY)
    requests = []
    for _ in range(2):
        pending = server.requests()
        requests.append(pending[0])
        for one, payload in pending.items():
            server.receive(one, clients[one].receive(payload).payload)
        server.advance()
    requests.append(server.requests()[0])
    everybody = np.ones(params.clients, dtype=bool)
    from secagg.wire import SERVER, Header, encode_bitmap

    head = Header(kind=6, sender=SERVER, session=server._state.session_id).encode()
    requests.append(head + encode_bitmap(everybody))
    return ClientSession.restore(first, 0, keep=IN_MEMORY), requests


def one_client(params: RoundParams, requests: list[bytes], vector: np.ndarray) -> dict[str, float]:
    """CPU seconds by stage of a fresh client that answers the recorded requests."""
    calls = 0

    def replay(length: int) -> bytes:
        nonlocal calls
        calls += 1
        return np.random.default_rng(calls - 1).bytes(length)

    client = ClientSession(params, 0, randomness=replay, keep=IN_MEMORY)
    seconds = {}
    for stage, request in zip(SEMI_HONEST_STAGES, requests, strict=True):
        start = time.process_time()
        answer = client.receive(request)
        if isinstance(answer, InputNeeded):
            client.submit(vector)
        seconds[stage] = time.process_time() - start
    return seconds


def masks_alone(params: RoundParams) -> float:
    """CPU seconds of the client's k + 1 masks, expanded and added to a vector."""
    count = params.neighbours + 1
    keys = np.random.default_rng(0).bytes(MASK_KEY_BYTES * count)
    words = np.zeros(params.dimension + 1, dtype=lane_dtype(params.ring_bits))
    start = time.process_time()
    accumulate_blocks(words, MaskKeys.expand(keys), np.zeros(count, dtype=bool))
    return time.process_time() - start


def measure(params: RoundParams, repeats: int) -> dict[str, float]:
    """Interleave client and masks; medians of CPU seconds."""
    secagg.warmup(params)
    vector = np.random.default_rng(0).uniform(-1, 1, params.dimension).astype(np.float32)
    _, requests = requests_of_a_round(params)
    clients, masks = [], []
    for _ in range(repeats):
        clients.append(one_client(params, requests, vector))
        masks.append(masks_alone(params))
    stages = {stage: statistics.median(run[stage] for run in clients) for stage in SEMI_HONEST_STAGES}
    total = statistics.median(sum(run.values()) for run in clients)
    alone = statistics.median(masks)
    return {**stages, "total": total, "masks_alone": alone, "ratio": total / alone}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--dimension", type=int, default=1 << 20)
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--corrupt", type=float, default=0.05)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    params = RoundParams.plan(
        clients=arguments.clients,
        dimension=arguments.dimension,
        dropout=arguments.dropout,
        corrupt=arguments.corrupt,
        encoding=FixedPoint(clip=1.0, bits=16),
    )
    seconds = measure(params, arguments.repeats)
    table = Table(
        title=f"client of n={params.clients}, k={params.neighbours}, d={params.dimension}, {params.ring_bits}-bit"
    )
    table.add_column("what")
    table.add_column("CPU ms", justify="right")
    for name, value in seconds.items():
        if name != "ratio":
            table.add_row(name, f"{1e3 * value:.2f}")
    console = Console()
    console.print(table)
    console.print(f"whole client / its {params.neighbours + 1} masks alone: {seconds['ratio']:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine_information(), "seconds": seconds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
