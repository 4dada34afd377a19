"""Five nodes and a server in memory, as most tests want them."""

from __future__ import annotations

from flwr.serverapp.strategy import FedAvg

from memory_grid import MemoryGrid, client_app, identities, initial_arrays
from secagg.integrations.flower import SecAggGrid, secagg_mod

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
