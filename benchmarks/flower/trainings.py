"""One training of the hospitals' app in three ways: in the clear, with secagg, with Flower's own SecAgg+.

Flower's is tied to its older API: a workflow, a legacy context and a NumPyClient in the place of a stock Strategy.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, RecordDict
from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import FitIns, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.compat.common import recorddict_compat
from flwr.server.client_manager import SimpleClientManager
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg as LegacyFedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from hospitals import client_app
from hospitals.task import LOCAL, TERMS, initial_arrays, to_model
from secagg.integrations.flower import SecAggGrid, secagg_mod
from secagg.training import linear

HOSPITALS, SEED = 5, 1
Train = Callable[[Grid, int], np.ndarray | None]
"""(grid, rounds) -> the model; None where a round gave no sum."""


def plain(grid: Grid, rounds: int) -> np.ndarray | None:
    """Train in the clear."""
    strategy = FedAvg(fraction_evaluate=0.0)
    result = strategy.start(grid, initial_arrays(HOSPITALS, SEED), num_rounds=rounds, timeout=60.0)
    return to_model(result.arrays) if result.arrays else None


def with_secagg(grid: Grid, rounds: int, **terms: Any) -> np.ndarray | None:
    """Train with secagg: the same strategy over a grid that sums securely."""
    secure = SecAggGrid(grid, stage_timeout=60.0, **TERMS, **terms)
    model = plain(secure, rounds)
    return None if any(report.failure for report in secure.rounds) else model


class _Node:
    """A client as the workflow knows it."""

    def __init__(self, node_id: int) -> None:
        self.node_id, self.cid = node_id, str(node_id)


class _Strategy(LegacyFedAvg):
    """Ask every node; keep the aggregate that the workflow hands over in each of its results."""

    def __init__(self, nodes: list[int]) -> None:
        super().__init__()
        self.nodes, self.model = [_Node(one) for one in nodes], None

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
        """Ask all of them."""
        return [(one, FitIns(parameters, {})) for one in self.nodes]

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        """Keep the mean."""
        if results:
            self.model = parameters_to_ndarrays(results[0][1].parameters)[0]
        return None, {}


def with_secaggplus(grid: Grid, rounds: int) -> np.ndarray | None:
    """Train with Flower's SecAgg+: complete graph and threshold as secagg plans them, Flower's own quantisation."""
    model = to_model(initial_arrays(HOSPITALS, SEED))
    nodes = list(grid.get_node_ids())
    for number in range(1, rounds + 1):
        workflow = SecAggPlusWorkflow(
            num_shares=HOSPITALS, reconstruction_threshold=3, max_weight=float(TERMS["max_weight"]), timeout=60.0
        )
        strategy = _Strategy(nodes)
        parameters = recorddict_compat.parameters_to_arrayrecord(ndarrays_to_parameters([model]), keep_input=True)
        state = RecordDict(
            {MAIN_CONFIGS_RECORD: ConfigRecord({Key.CURRENT_ROUND: number}), MAIN_PARAMS_RECORD: parameters}
        )
        context = LegacyContext(
            Context(run_id=1, node_id=1, node_config={}, state=state, run_config={}),
            strategy=strategy,
            client_manager=SimpleClientManager(),
        )
        try:
            workflow(grid, context)
        except Exception as problem:
            print(f"    Flower's workflow raised {type(problem).__name__}: {problem}")
            return None
        if strategy.model is None:
            return None
        model = strategy.model
    return model


class _Hospital(NumPyClient):
    def __init__(self, records: linear.Records) -> None:
        self.records = records

    def fit(self, parameters: list[np.ndarray], config: dict) -> tuple[list[np.ndarray], int, dict]:
        """Train as the app of the example does."""
        return [linear.train_locally(parameters[0], self.records, LOCAL)], len(self.records), {}


def legacy_app() -> ClientApp:
    """Return the hospitals' app in Flower's older API, under its own modifier."""

    def client_fn(context: Context) -> Any:
        return _Hospital(client_app.own_records(context)).to_client()

    return ClientApp(client_fn=client_fn, mods=[secaggplus_mod])


def apps() -> dict[str, tuple[Callable[[], ClientApp], Train]]:
    """Return each way's client app and server, by its name."""
    return {
        "in the clear": (lambda: client_app.make_app([]), plain),
        "secagg": (lambda: client_app.make_app([secagg_mod(**TERMS)]), with_secagg),
        "secagg, pipelined": (
            lambda: client_app.make_app([secagg_mod(pipelined=True, **TERMS)]),
            lambda grid, rounds: with_secagg(grid, rounds, pipelined=True),
        ),
        "secagg, malicious-server": (
            lambda: client_app.make_app([secagg_mod(node=client_app.node, **TERMS)]),
            lambda grid, rounds: with_secagg(grid, rounds, threat="malicious-server", directory=server_directory()),
        ),
        "Flower's SecAgg+": (legacy_app, with_secaggplus),
    }


def server_directory() -> Path:
    """Return the directory of the simulated hospitals."""
    return Path(os.environ["HOSPITALS_SIMULATED_KEYS"]) / "cohort.json"
