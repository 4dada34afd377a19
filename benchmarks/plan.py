"""What the planner predicts beside what real rounds take: CPU seconds of a client and of the server, by stage.

Command: python benchmarks/plan.py [--repeats 3] [--json FILE]
Each case calibrates, then drives a whole round over the real sessions in the same process, on one thread, the planned
share of clients vanishing before their upload. A client's seconds are the mean over those that stay to the end.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import secagg
from hardware import machine_information
from secagg import IN_MEMORY, BeaconNeeded, ClientSession, FixedPoint, Identity, InputNeeded, RoundParams, ServerSession
from secagg.pairwise.costs import pairwise_traffic
from secagg.pairwise.stages import stages_of
from secagg.pairwise.work import client_work, server_work
from secagg.planning.calibration import calibrate

CASES = (
    ("secagg", "semi-honest", 10, 1_000),
    ("secagg", "semi-honest", 50, 100_000),
    ("secagg", "semi-honest", 150, 10_000),
    ("secagg", "malicious-server", 10, 1_000),
    ("secagg", "malicious-server", 100, 100_000),
    ("secagg+", "semi-honest", 100, 1_000_000),
    ("secagg+", "semi-honest", 500, 10_000),
    ("secagg+", "malicious-server", 100, 10_000),
    ("secagg+", "malicious-server", 300, 100_000),
)
BEACON = bytes(32)
CONTEXT = b"secagg benchmark"


def measure(params: RoundParams) -> tuple[dict[str, float], dict[str, float]]:
    """Drive a round; return CPU seconds by stage of a client that stays, and of the server."""
    keys = {one: secagg.SigningKey.generate() for one in range(params.clients)}
    directory = secagg.Directory({one: key.public for one, key in keys.items()})
    signed = params.threat == "malicious-server"
    server = ServerSession(
        params, range(params.clients), context=CONTEXT, credentials=directory if signed else None, keep=IN_MEMORY
    )
    cohort = {
        one: ClientSession(
            params,
            one,
            context=CONTEXT,
            credentials=Identity(key=keys[one], directory=directory) if signed else None,
            keep=IN_MEMORY,
        )
        for one in keys
    }
    vector = np.random.default_rng(0).uniform(-1, 1, params.dimension).astype(np.float32)
    clients, servers = dict.fromkeys(stages_of(params.threat), 0.0), dict.fromkeys(stages_of(params.threat), 0.0)
    while (stage := server.stage) is not None:
        start = time.process_time()
        if server.beacon_needed:
            server.use_beacon(BEACON)
        requests = server.requests()
        servers[stage] += time.process_time() - start
        answered = 0
        for one in requests:
            begin = time.process_time()
            request = requests[one]
            servers[stage] += time.process_time() - begin
            if stage == "masked_input" and one < params.dropout_count:
                continue
            begin = time.process_time()
            payload = answer(cohort[one], request, vector)
            middle = time.process_time()
            server.receive(one, payload)
            end = time.process_time()
            cohort[one].delivered()
            clients[stage] += middle - begin
            servers[stage] += end - middle
            answered += 1
        start = time.process_time()
        server.advance()
        servers[stage] += time.process_time() - start
        clients[stage] /= answered
    return clients, servers


def answer(client: ClientSession, request: bytes, vector: np.ndarray) -> bytes:
    """Return a client's reply to one request."""
    given = client.receive(request)
    if isinstance(given, BeaconNeeded):
        given = client.use_beacon(BEACON)
    if isinstance(given, InputNeeded):
        given = client.submit(vector)
    return given.payload


def one_case(protocol: str, threat: str, clients: int, dimension: int, repeats: int) -> dict[str, object]:
    """Predict and measure; of several rounds the fastest counts, stage by stage."""
    encoding = FixedPoint(clip=1.0, bits=16)
    params = RoundParams.plan(
        clients=clients,
        dimension=dimension,
        encoding=encoding,
        protocol=protocol,
        threat=threat,
        dropout=0.1,
        corrupt=0.05,
    )
    secagg.warmup(params)
    machine = calibrate(ring_bits=params.ring_bits, encoding=encoding)
    traffic = pairwise_traffic(params, params.dropout_count)
    predicted = machine.time(client_work(params, traffic)), machine.time(server_work(params, traffic))
    runs = [measure(params) for _ in range(repeats)]
    measured = [{stage: min(run[side][stage] for run in runs) for stage in predicted[side]} for side in (0, 1)]
    return {
        "protocol": protocol,
        "threat": threat,
        "graph": params.graph,
        "clients": clients,
        "neighbours": params.neighbours,
        "dimension": dimension,
        "client": {"predicted": predicted[0], "measured": measured[0]},
        "server": {"predicted": predicted[1], "measured": measured[1]},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    runs = [one_case(*case, repeats=arguments.repeats) for case in CASES]
    console = Console(width=170)
    for side in ("client", "server"):
        table = Table(title=f"{side}: predicted / measured CPU seconds")
        for column in ("protocol", "model", "graph", "n", "k", "d"):
            table.add_column(column, justify="right")
        for column in (*stages_of("malicious-server"), "predicted ms", "measured ms", "ratio"):
            table.add_column(column, justify="right")
        for run in runs:
            guess, seen = run[side]["predicted"], run[side]["measured"]
            ratios = [f"{guess[s] / seen[s]:.2f}" if s in guess else "" for s in stages_of("malicious-server")]
            whole = sum(guess.values()), sum(seen.values())
            facts = (run["protocol"], run["threat"], run["graph"], run["clients"], run["neighbours"], run["dimension"])
            totals = (f"{1e3 * whole[0]:.2f}", f"{1e3 * whole[1]:.2f}", f"{whole[0] / whole[1]:.2f}")
            table.add_row(*map(str, facts), *ratios, *totals)
        console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine_information(), "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
