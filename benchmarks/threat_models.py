"""What the malicious-server model costs beside the semi-honest one: seconds and bytes, a client and the server.

Command: python benchmarks/threat_models.py [--clients 100 1000] [--dimension 100000] [--dropout 0.1] [--json FILE]
Both models run whole rounds in turn in one process, one thread, with the planned share dropping before their upload.
A client's seconds are the cohort's, divided by the clients invited.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import secagg
from hardware import machine_information
from secagg import FixedPoint, RoundParams

MODELS = ("semi-honest", "malicious-server")


def one_round(clients: int, dimension: int, dropout: float, threat: str) -> dict[str, Any]:
    """Run a round; return what it took."""
    params = RoundParams.plan(
        clients=clients,
        dimension=dimension,
        dropout=dropout,
        corrupt=0.05,
        threat=threat,
        encoding=FixedPoint(clip=1.0, bits=16),
    )
    secagg.warmup(params)
    vector = np.random.default_rng(0).uniform(-1, 1, dimension).astype(np.float32)
    gone = dict.fromkeys(range(params.dropout_count), "masked_input")
    result = secagg.simulate((vector for _ in range(clients)), params=params, faults=gone)
    server = sum(result.server_seconds.values())
    return {
        "clients": clients,
        "threat": threat,
        "graph": params.graph,
        "neighbours": params.neighbours,
        "threshold": params.threshold,
        "client_seconds": (sum(result.seconds.values()) - server) / clients,
        "server_seconds": server,
        "bytes_up": sum(result.bytes_up.values()),
        "bytes_down": sum(result.bytes_down.values()),
        "exchanges": len(result.seconds),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--dimension", type=int, default=100_000)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    runs = [
        one_round(clients, arguments.dimension, arguments.dropout, threat)
        for clients in arguments.clients
        for threat in MODELS
    ]
    table = Table(title=f"d={arguments.dimension}, {arguments.dropout:.0%} dropped before their upload")
    for column in ("clients", "model", "k", "t", "client ms", "server s", "kB up", "kB down", "exchanges"):
        table.add_column(column, justify="right")
    for run in runs:
        table.add_row(
            str(run["clients"]),
            run["threat"],
            str(run["neighbours"]),
            str(run["threshold"]),
            f"{1e3 * run['client_seconds']:.2f}",
            f"{run['server_seconds']:.2f}",
            f"{run['bytes_up'] / 1e3:.1f}",
            f"{run['bytes_down'] / 1e3:.1f}",
            str(run["exchanges"]),
        )
    Console(width=120).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine_information(), "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
