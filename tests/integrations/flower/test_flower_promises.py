"""What strategies and modifiers of Flower's promise, and what of it holds where they see a mean alone."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import fixedclipping_mod
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
)

from cohorts import NODES, start
from memory_grid import MemoryGrid, client_app, initial_arrays
from secagg.errors import ParameterError
from secagg.integrations.flower import SecAggGrid, secagg_mod
from secagg.integrations.flower.agreement import Agreement

STEP = 6 / 65535
NORM = 1.0


def one_moves_far(*mods):
    """Return an app in which node 13 alone moves its model far, by 2 in each coordinate, and all weigh the same."""

    def make(node):
        app = ClientApp(mods=list(mods))

        @app.train()
        def _train(message, context):
            # Flower's modifier divides by the norm of the update
            moved = 2.0 if context.node_id == 13 else 1e-6
            arrays = {name: Array(np.asarray(a.numpy() + moved)) for name, a in message.content["arrays"].items()}
            metrics = MetricRecord({"num-examples": 1})
            return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)

        return app

    return make


def moved_by(wrapper, *mods):
    """Return how far the model went in one round whose noise is next to none, and the grid."""
    strategy = wrapper(
        FedAvg(fraction_evaluate=0.0), noise_multiplier=1e-9, clipping_norm=NORM, num_sampled_clients=len(NODES)
    )
    grid = SecAggGrid(MemoryGrid(one_moves_far(*mods), NODES))
    # Flower's modifier does not clip arrays without dimensions
    arrays = ArrayRecord({name: array for name, array in initial_arrays().items() if array.shape})
    before = {name: array.numpy().astype(float) for name, array in arrays.items()}
    result = strategy.start(grid, arrays, num_rounds=1, timeout=5)
    if result.arrays is None or not grid.rounds[0].survivors:
        return 0.0, grid
    moves = [result.arrays[name].numpy() - before[name] for name in before]
    return float(np.linalg.norm(np.concatenate([one.ravel() for one in moves]))), grid


def test_clients_that_clip_before_the_sum_are_clipped_in_it():
    moved, grid = moved_by(DifferentialPrivacyClientSideFixedClipping, secagg_mod(), fixedclipping_mod)
    assert grid.rounds[0].survivors == NODES
    assert moved == pytest.approx(NORM / len(NODES), abs=4 * STEP)


def test_the_modifiers_the_other_way_round_give_no_sum():
    _, grid = moved_by(DifferentialPrivacyClientSideFixedClipping, fixedclipping_mod, secagg_mod())
    assert not grid.rounds[0].survivors
    assert set(grid.rounds[0].faults) == set(NODES)


def test_clipping_on_the_server_clips_no_client():
    """A limit that the documents name; whoever lifts it rewrites them."""
    moved, _ = moved_by(DifferentialPrivacyServerSideFixedClipping, secagg_mod())
    assert moved > 1.5 * NORM / len(NODES)


def test_the_log_says_once_what_a_strategy_cannot_promise(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    grid = SecAggGrid(MemoryGrid(client_app(secagg_mod()), NODES))
    start(grid, rounds=2)
    assert sum("no differential privacy" in message for message in caplog.messages) == 1


@pytest.mark.parametrize(
    ("dropout", "corrupt", "threat", "smallest", "gaps"),
    [
        (0.2, 0.1, "semi-honest", 4, []),
        (0.2, 0.1, "malicious-server", 5, [6]),
        (0.1, 0.1, "semi-honest", 4, []),
        (0.1, 0.1, "malicious-server", 5, []),
        (0.2, 0.0, "semi-honest", 3, []),
        (0.2, 0.0, "malicious-server", 4, []),
        (0.0, 0.1, "semi-honest", 3, []),
        (0.0, 0.1, "malicious-server", 3, []),
        (0.3, 0.1, "semi-honest", 5, []),
        (0.3, 0.1, "malicious-server", 9, [11]),
    ],
)
def test_the_smallest_cohorts_are_as_the_documents_say(dropout, corrupt, threat, smallest, gaps):
    agreement = Agreement(dropout=dropout, corrupt=corrupt, min_clients=2)
    planned = []
    for clients in range(2, 61):
        try:
            agreement.plan(clients=clients, dimension=31, threat=threat)
            planned.append(clients)
        except ParameterError:
            continue
    assert planned == [one for one in range(smallest, 61) if one not in gaps]


def test_the_default_rates_are_those_of_the_first_row():
    assert (Agreement().dropout, Agreement().corrupt) == (0.2, 0.1)


def test_a_server_that_invites_no_further_is_not_refused_for_another_model():
    """Pipelined keys are bound to no model, as the documents say."""

    def script(delivery):
        content = delivery.message.content
        if grid.rounds and delivery.node == 13 and delivery.kind == "RELAYED_SHARES":
            arrays = {name: Array(np.asarray(a.numpy() + 1)) for name, a in content["arrays"].items()}
            content["arrays"] = ArrayRecord(arrays)
        if grid.rounds and delivery.kind == "UNMASK_REQUEST":
            for key in [key for key in content if key.startswith("secagg.following")]:
                del content[key]
        return [delivery.answer()]

    grid = SecAggGrid(MemoryGrid(client_app(secagg_mod(pipelined=True)), NODES, script=script), pipelined=True)
    start(grid, rounds=2)
    assert grid.rounds[1].survivors == NODES
    assert grid.rounds[1].faults == {}
