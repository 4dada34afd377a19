"""Five nodes and a server in memory, as most tests want them."""

from __future__ import annotations

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg

import secagg
from memory_grid import MemoryGrid, client_app, examples, identities, initial_arrays, train
from secagg.integrations.flower import SecAggGrid, secagg_mod
from secagg.integrations.flower.update import Model, update_vector

NODES = (11, 12, 13, 14, 15)


def start(grid, rounds=1):
    return FedAvg(fraction_evaluate=0.0).start(grid, initial_arrays(), num_rounds=rounds, timeout=5)


def faults_of(script=None, *, mod=None, app=None, **grid_terms):
    inner = MemoryGrid(app or client_app(mod or secagg_mod()), NODES, script=script)
    grid = SecAggGrid(inner, **grid_terms)
    start(grid)
    return grid.rounds[0].faults


def malicious(tmp_path, script=None, *, run_directory=None, mod=None, **changes):
    configs, directory = identities(tmp_path, NODES)
    for node, change in changes.items():
        configs[int(node[1:])] |= change
    run_config = {"secagg-directory": run_directory or directory}
    inner = MemoryGrid(
        client_app(mod or secagg_mod()), NODES, script=script, node_configs=configs, run_config=run_config
    )
    return inner, SecAggGrid(inner, threat="malicious-server", directory=directory)


def agree(grid, agreement, params, *, absent, stage):
    """Check that one round of a grid gives the sum that ``secagg.simulate`` gives of the same inputs, within a step.

    The agreement has the metric ``loss``, within 8; node ``absent`` is silent from ``stage`` on, its input's or before.
    """
    content = RecordDict({"arrays": initial_arrays(), "config": ConfigRecord()})
    model = Model.take_from(content)
    asked = [Message(content, node, "train") for node in NODES]
    replies = [reply for reply in grid.send_and_receive(asked, timeout=5) if not reply.has_error()]
    assert len(replies) == len(NODES) - 1
    trained = [update_vector(model, train(one, one.metadata.dst_node_id).content, agreement) for one in asked]
    vectors, weights = zip(*trained, strict=True)
    simulated = secagg.simulate(vectors, params=params, weights=weights, faults={NODES.index(absent): stage})
    arrays, told = replies[0].content["arrays"], replies[0].content["metrics"]
    seen = np.concatenate([arrays[name].numpy().ravel() for name in sorted(arrays)])
    step = params.encoding.step
    assert np.abs(seen - (model.vector + simulated.mean[: model.layout.size])).max() < step + 1e-6
    assert abs(told["loss"] - simulated.mean[-1] / agreement.clip * 8.0) < step / agreement.clip * 8.0
    assert abs(told["num-examples"] - sum(examples(node) for node in NODES if node != absent)) < 0.5
    assert [reply.content["metrics"]["num-examples"] for reply in replies[1:]] == [0, 0, 0]
