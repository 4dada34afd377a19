"""secagg under Flower beside Flower's own SecAgg+: seconds, bytes, error, and which faults each survives.

make bench-flower
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "flower"
sys.path.insert(0, str(EXAMPLE))
# Workers of the simulation engine find the apps by the same paths
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(EXAMPLE), str(EXAMPLE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
)

import numpy as np  # noqa: E402
from flwr.app import Context  # noqa: E402
from flwr.serverapp import Grid, ServerApp  # noqa: E402
from flwr.supercore.task_identity import TaskIdentity  # noqa: E402

import offline  # noqa: E402, F401 - before Flower, for what it sets
from benchmarks.flower.grids import Delegating, MemoryGrid  # noqa: E402
from benchmarks.flower.trainings import HOSPITALS, SEED, apps  # noqa: E402
from comparison import plain_model  # noqa: E402
from simulate import make_identities  # noqa: E402

FAULTS = ("vanish", "error", "twice")
VICTIM = 3


def expected(rounds: int, *, without: int | None = None) -> np.ndarray:
    """Return plain averaging's model over all hospitals, or over all but one."""
    present = [one for one in range(HOSPITALS) if one != without]
    return plain_model([present] * rounds, hospitals=HOSPITALS, seed=SEED)


def largest_error(model: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest difference of a coordinate."""
    return float(np.abs(np.asarray(model, dtype=float) - wanted).max())


def in_memory(rounds: int) -> dict[str, Any]:
    """Train each way over the grid in memory; the first training of each warms up."""
    figures = {}
    for name, (app, train) in apps().items():
        for _ in range(2):
            grid = MemoryGrid(app(), HOSPITALS)
            model = train(grid, rounds)
        seen = grid.figures
        figures[name] = {
            "exchanges a round": len(seen.exchanges) / rounds,
            "client CPU ms a round": 1000 * seen.clients / HOSPITALS / rounds,
            "bytes up a client and round": seen.up / HOSPITALS / rounds,
            "bytes down a client and round": seen.down / HOSPITALS / rounds,
            "largest error": largest_error(model, expected(rounds)),
        }
    return figures


def in_simulation(rounds: int) -> dict[str, Any]:
    """Train each way in the simulation engine."""
    from flwr.simulation import run_simulation

    figures = {}
    for name, (app, train) in apps().items():
        kept: list[tuple[Delegating, np.ndarray | None]] = []

        def main(grid: Grid, context: Context, train: Callable = train, kept: list = kept) -> None:
            while len(list(grid.get_node_ids())) < HOSPITALS:
                pass
            measured = Delegating(grid)
            kept.append((measured, train(measured, rounds)))

        server = ServerApp()
        server.main()(main)
        run_simulation(server, app(), HOSPITALS, backend_config={"client_resources": {"num_cpus": 1}})
        measured, model = kept[0]
        # Pipelined, the first round has one more than the others
        later = measured.figures.exchanges[-(rounds - 1) * (len(measured.figures.exchanges) // rounds) :]
        figures[name] = {
            "exchanges a round": len(measured.figures.exchanges) / rounds,
            "s a round after the first": sum(later) / (rounds - 1),
            "s an exchange after the first round": sum(later) / len(later),
            "largest error": None if model is None else largest_error(model, expected(rounds)),
        }
    return figures


def survive(name: str, fault: str, exchange: int) -> str:
    """Play one round in which one hospital fails at an exchange; say what came of it."""
    app, train = apps()[name]
    plan = lambda number, node: fault if (number, node) == (exchange, VICTIM + 1) else None  # noqa: E731
    model = train(MemoryGrid(app(), HOSPITALS, plan), 1)
    if model is None:
        return "round lost"
    for who, wanted in (("sum of all", expected(1)), ("sum of the others", expected(1, without=VICTIM))):
        if largest_error(model, wanted) < 1e-3:
            return who
    return "wrong sum"


def faults() -> dict[str, dict[str, str]]:
    """Play every fault at every exchange of every way that has more than one."""
    found: dict[str, dict[str, str]] = {}
    for name, (app, train) in apps().items():
        if name == "in the clear" or "pipelined" in name:
            continue
        probe = MemoryGrid(app(), HOSPITALS)
        train(probe, 1)
        exchanges = range(1, len(probe.figures.exchanges) + 1)
        found[name] = {f"{fault} at {one}": survive(name, fault, one) for fault in FAULTS for one in exchanges}
    return found


def show(title: str, table: dict[str, dict[str, Any]]) -> None:
    """Print a table, a row for each way."""
    print(f"\n{title}")
    for name, row in table.items():
        print(f"  {name}")
        for what, value in row.items():
            text = f"{value:.3g}" if isinstance(value, float) and abs(value) < 100 else value
            print(f"    {what:<36}{text if isinstance(text, str) or text is None else f'{text:,.0f}'}")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="at least 2")
    parser.add_argument("--no-simulation", action="store_true", help="leave the simulation engine out")
    parser.add_argument("--json", type=Path, help="write all figures there")
    asked = parser.parse_args()
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="hospitals-") as folder:
        make_identities(Path(folder), HOSPITALS)
        os.environ["HOSPITALS_SIMULATED_KEYS"] = folder
        figures = {
            "flwr": version("flwr"),
            "rounds": asked.rounds,
            "in memory": in_memory(asked.rounds),
            "faults": faults(),
        }
        if not asked.no_simulation:
            figures["simulation engine"] = in_simulation(asked.rounds)
    for title in ("in memory", "faults", "simulation engine"):
        if title in figures:
            show(title, figures[title])
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
