"""Whole trainings of stock strategies over a grid in memory, secure beside plain."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedProx

from memory_grid import MemoryGrid, client_app, examples, initial_arrays
from secagg.integrations.flower import SecAggGrid, secagg_mod

NODES = (11, 12, 13, 14, 15)
SETTLED = {"fraction_evaluate": 1.0, "min_train_nodes": 2}
STRATEGIES = {
    "FedAvg": lambda: FedAvg(**SETTLED),
    "FedAdam": lambda: FedAdam(**SETTLED, eta=0.05, tau=0.1, beta_1=0.9, beta_2=0.99),
    "FedProx": lambda: FedProx(**SETTLED, proximal_mu=0.5),
}


def run(grid, strategy, rounds=3, arrays=None):
    return strategy.start(grid, arrays or initial_arrays(), num_rounds=rounds, timeout=5)


def values(record):
    return {name: array.numpy() for name, array in record.items()}


def largest_difference(one, other):
    one, other = values(one), values(other)
    assert list(one) == list(other)
    assert [(array.shape, array.dtype) for array in one.values()] == [(a.shape, a.dtype) for a in other.values()]
    return max(float(np.abs(one[name].astype(float) - other[name]).max(initial=0.0)) for name in one)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_stock_strategy_ends_where_it_ends_in_the_clear(name):
    plain = run(MemoryGrid(client_app(), NODES), STRATEGIES[name]())
    inner = MemoryGrid(client_app(secagg_mod(bits=24)), NODES)
    secure = run(SecAggGrid(inner, bits=24), STRATEGIES[name]())
    # A round's mean errs by less than a step, and these local steps contract; FedAdam amplifies by eta / tau at most
    step = 2 * 3.0 / (2**24 - 1)
    assert 0 < largest_difference(secure.arrays, plain.arrays) < 3 * (step + 2e-7) * 2
    assert inner.exchanges.count("evaluate") == 3
    # The strategy samples its nodes in another order each time, so even plain averages differ in their last bits
    assert [m["loss"] for m in secure.evaluate_metrics_clientapp.values()] == pytest.approx(
        [m["loss"] for m in plain.evaluate_metrics_clientapp.values()]
    )


def test_four_exchanges_a_round_and_the_state_is_wiped_after_it():
    inner = MemoryGrid(client_app(secagg_mod()), NODES)
    grid = SecAggGrid(inner)
    run(grid, FedAvg(), rounds=2)
    four = ["INVITATION", "ROSTER", "RELAYED_SHARES", "UNMASK_REQUEST"]
    assert inner.exchanges == [*four, "evaluate", *four, "evaluate"]
    assert [report.exchanges for report in grid.rounds] == [4, 4]
    assert all(not node.context.state for node in inner.nodes.values())
    assert all(len(node.trained) == 2 for node in inner.nodes.values())


def test_pipelined_rounds_take_three_exchanges_after_the_first():
    inner = MemoryGrid(client_app(secagg_mod(pipelined=True, bits=24)), NODES)
    grid = SecAggGrid(inner, pipelined=True, bits=24)
    secure = run(grid, FedAvg(fraction_evaluate=0.0), rounds=3)
    three = ["ROSTER", "RELAYED_SHARES", "UNMASK_REQUEST"]
    assert inner.exchanges == ["INVITATION", *three, *three, *three]
    assert [report.exchanges for report in grid.rounds] == [4, 3, 3]
    plain = run(MemoryGrid(client_app(), NODES), FedAvg(fraction_evaluate=0.0), rounds=3)
    assert largest_difference(secure.arrays, plain.arrays) < 3 * (6 / (2**24 - 1) + 2e-7)


@pytest.mark.parametrize("kind", ["ROSTER", "RELAYED_SHARES", "UNMASK_REQUEST"])
def test_a_pipelined_round_whose_cohort_changes_begins_anew(kind):
    gone = []

    def script(delivery):
        gone.extend([delivery.kind] if delivery.node == 13 else [])
        # Silent once, in the second round
        silent = delivery.node == 13 and delivery.kind == kind and gone.count(kind) == 2
        return [] if silent else [delivery.answer()]

    inner = MemoryGrid(client_app(secagg_mod(pipelined=True)), NODES, script=script)
    grid = SecAggGrid(inner, pipelined=True)
    run(grid, FedAvg(fraction_evaluate=0.0), rounds=3)
    assert [report.exchanges for report in grid.rounds] == [4, 3, 4]
    assert [len(report.survivors) for report in grid.rounds] == [5, 5 if kind == "UNMASK_REQUEST" else 4, 5]


def test_a_pipelined_round_is_for_the_same_nodes_alone():
    inner = MemoryGrid(client_app(secagg_mod(pipelined=True)), (*NODES, 16))
    grid = SecAggGrid(inner, pipelined=True)
    content = RecordDict({"arrays": initial_arrays(), "config": ConfigRecord()})
    for nodes in (NODES, (*NODES[1:], 16), (*NODES[1:], 16)):
        grid.send_and_receive([Message(content, node, "train") for node in nodes], timeout=5)
    assert [report.exchanges for report in grid.rounds] == [4, 4, 3]
    assert [report.survivors for report in grid.rounds] == [NODES, (*NODES[1:], 16), (*NODES[1:], 16)]


def test_a_pipelined_model_that_differed_shows_in_the_round_after():
    from flwr.app import Array, ArrayRecord

    def script(delivery):
        if delivery.kind == "RELAYED_SHARES" and delivery.node == 13 and grid.rounds:
            arrays = delivery.message.content["arrays"]
            delivery.message.content["arrays"] = ArrayRecord(
                {name: Array(np.asarray(array.numpy() * 0)) for name, array in arrays.items()}
            )
        return [delivery.answer()]

    inner = MemoryGrid(client_app(secagg_mod(pipelined=True)), NODES, script=script)
    grid = SecAggGrid(inner, pipelined=True)
    run(grid, FedAvg(fraction_evaluate=0.0), rounds=2)
    assert "does not follow this one" in grid.rounds[1].faults[13]


def test_the_server_sees_the_total_weight_and_agreed_metrics_alone():
    inner = MemoryGrid(client_app(secagg_mod(metrics={"loss": 8.0})), NODES)
    strategy = FedAvg()
    result = run(SecAggGrid(inner, metrics={"loss": 8.0}), strategy, rounds=1)
    (metrics,) = result.train_metrics_clientapp.values()
    weights = [examples(node) for node in NODES]
    assert set(metrics) == {"loss", "secagg-clipped"}
    assert 0 <= metrics["secagg-clipped"] < 1e-4
    assert metrics["loss"] == pytest.approx(np.average([0.25 * node for node in NODES], weights=weights), abs=1e-3)


def test_the_first_reply_bears_the_total_weight_and_the_others_none():
    content = RecordDict({"arrays": initial_arrays(), "config": ConfigRecord()})
    grid = SecAggGrid(MemoryGrid(client_app(secagg_mod()), NODES))
    replies = grid.send_and_receive([Message(content, node, "train") for node in NODES], timeout=5)
    weights = [reply.content["metrics"]["num-examples"] for reply in replies]
    assert weights == [sum(map(examples, NODES)), 0, 0, 0, 0]


def test_the_app_trains_on_the_strategys_own_message():
    inner = MemoryGrid(client_app(secagg_mod()), NODES)
    run(SecAggGrid(inner), FedProx(proximal_mu=0.5), rounds=1)
    (message,) = inner.nodes[11].trained
    assert set(message.content) == {"arrays", "config"}
    assert dict(message.content["config"]) == {"server-round": 1, "proximal-mu": 0.5}
    assert message.metadata.message_type == "train"


@pytest.mark.parametrize(
    "dtypes", [{"weight": "float16"}, {"bias": "float64"}, {"weight": "float16", "bias": "float64"}]
)
def test_float_dtypes_are_mixed_and_restored(dtypes):
    arrays = initial_arrays(dtypes)
    plain = run(MemoryGrid(client_app(), NODES), FedAvg(), rounds=1, arrays=arrays)
    secure = run(SecAggGrid(MemoryGrid(client_app(secagg_mod()), NODES)), FedAvg(), rounds=1, arrays=arrays)
    # Plain averaging rounds float16 several times
    assert largest_difference(secure.arrays, plain.arrays) < 6 / 65535 + 4 * np.finfo(np.float16).eps * 2


def test_arrays_keep_their_order_beyond_ten():
    from flwr.app import ArrayRecord

    arrays = ArrayRecord([np.full(2, at, np.float32) for at in range(12)])
    secure = run(SecAggGrid(MemoryGrid(client_app(secagg_mod()), NODES)), FedAvg(), rounds=1, arrays=arrays)
    assert list(secure.arrays) == [str(at) for at in range(12)]


def test_queries_pass_through_untouched():
    inner = MemoryGrid(client_app(secagg_mod()), NODES)
    asked = [Message(RecordDict({"config": ConfigRecord({"a": 1})}), node, "query") for node in NODES]
    replies = list(SecAggGrid(inner).send_and_receive(asked))
    assert [reply.content["config"]["node"] for reply in replies] == list(NODES)
    assert inner.exchanges == ["query"]


def test_a_clip_that_cuts_is_told_in_the_mean():
    inner = MemoryGrid(client_app(secagg_mod(clip=0.01)), NODES)
    result = run(SecAggGrid(inner, clip=0.01), FedAvg(), rounds=1)
    assert result.train_metrics_clientapp[1]["secagg-clipped"] > 0.5
