"""The server: Flower's own FedAvg, unmodified, over a grid that sums securely."""

import dataclasses
import json
import time
from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from hospitals.task import TERMS, federation, initial_arrays, to_model
from secagg.integrations.flower import SecAggGrid
from secagg.training import linear

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train as the run's configuration says."""
    config = context.run_config
    with SecAggGrid(
        grid,
        threat=config["threat"],
        directory=config["secagg-directory"] or None,
        stage_timeout=60.0,
        pipelined=config["pipelined"],
        **TERMS,
    ) as secure:  # at the end the nodes forget what they hold for a next round
        outcome = train(secure, rounds=config["rounds"], hospitals=config["hospitals"], seed=config["seed"])
    if config["result"]:
        Path(config["result"]).write_text(json.dumps(outcome))


def train(grid: Grid, *, rounds: int, hospitals: int, seed: int, patience: float = 60.0) -> dict:
    """Train with FedAvg over a grid, secure or not; return the model and what is known of each round."""
    while len(list(grid.get_node_ids())) < hospitals:
        time.sleep(0.5)
    partitions = ask_partitions(grid)
    held_out = federation(hospitals, seed).held_out
    start = time.perf_counter()
    accuracies = []

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        accuracies.append(linear.accuracy(to_model(arrays), held_out))
        return MetricRecord({"accuracy": accuracies[-1]})

    # A node that is gone is not waited for: FedAvg asks those that are there
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=3)
    result = strategy.start(
        grid, initial_arrays(hospitals, seed), num_rounds=rounds, timeout=patience, evaluate_fn=evaluate
    )
    reports = [dataclasses.asdict(report) for report in getattr(grid, "rounds", [])]
    for report in reports:
        del report["evidence"]  # for a court, not for a file of figures
        report["survivors"] = sorted(partitions[node] for node in report["survivors"])
        report["faults"] = {partitions[node]: fault for node, fault in report["faults"].items()}
    return {
        # Without a single sum Flower leaves no arrays at all
        "model": to_model(result.arrays if len(result.arrays) else initial_arrays(hospitals, seed)).tolist(),
        "accuracy": accuracies,
        "seconds": time.perf_counter() - start,
        "rounds": reports,
    }


def ask_partitions(grid: Grid) -> dict[int, int]:
    """Ask which node is which hospital, so that a plain run over the same hospitals can be compared."""
    asked = [Message(RecordDict(), node, "query") for node in grid.get_node_ids()]
    replies = grid.send_and_receive(asked, timeout=60.0)
    return {reply.metadata.src_node_id: int(reply.content["who"]["partition"]) for reply in replies}
