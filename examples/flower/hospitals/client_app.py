"""A hospital: it trains on its own records, and its updates leave it in secure sums alone."""

import os
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from hospitals.task import LOCAL, TERMS, federation, to_arrays, to_model
from secagg.identity import Identity
from secagg.identity_files import read_directory, read_signing_key
from secagg.integrations.flower import NodeSecrets, node_from_config, secagg_mod
from secagg.training import linear


def node(context: Context) -> NodeSecrets:
    """Read a node's own configuration; nodes of a simulation have none, so their keys lie in a folder."""
    if not os.environ.get("HOSPITALS_SIMULATED_KEYS"):
        return node_from_config(context)
    folder = Path(os.environ["HOSPITALS_SIMULATED_KEYS"])
    key = read_signing_key(folder / f"{context.node_config['partition-id']}.key")
    # Of a homomorphic sum alone; no other protocol looks at these files
    material = {"public-key": folder / "sums.pub-message", "decryptor": folder / "decryptor.pub"}
    identity = Identity(key=key, directory=read_directory(folder / "cohort.json"))
    return NodeSecrets(identity=identity, material=material)


def make_app(mods: list) -> ClientApp:
    """Return the app under these modifiers."""
    made = ClientApp(mods=mods)

    @made.train()
    def train(message: Message, context: Context) -> Message:
        records = own_records(context)
        model = linear.train_locally(to_model(message.content["arrays"]), records, LOCAL)
        arrays: ArrayRecord = to_arrays(model)
        metrics = MetricRecord({"num-examples": len(records), "loss": linear.loss(model, records)})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    @made.query()
    def query(message: Message, context: Context) -> Message:
        who = ConfigRecord({"partition": int(context.node_config["partition-id"])})
        return Message(RecordDict({"who": who}), reply_to=message)

    return made


def own_records(context: Context) -> linear.Records:
    """Return this hospital's records: in real life, from its own disk."""
    hospitals = int(context.node_config["num-partitions"])
    return federation(hospitals, int(context.run_config.get("seed", 1))).parties[
        int(context.node_config["partition-id"])
    ]


BOUND, PIPELINED = secagg_mod(node=node, **TERMS), secagg_mod(node=node, pipelined=True, **TERMS)


def as_this_node_agreed(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Choose the terms by the node's own configuration, never by the run's."""
    modifier = PIPELINED if context.node_config.get("pipelined") else BOUND
    return modifier(message, context, call_next)


app = make_app([as_this_node_agreed])
