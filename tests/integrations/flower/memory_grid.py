"""A grid in memory: each message is encoded, handled by a fresh client app on a fresh copy of its node's context.

Who vanishes, answers twice, late or with nonsense is a script's affair.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import (
    context_from_proto,
    context_to_proto,
    recorddict_from_proto,
    recorddict_to_proto,
)
from flwr.serverapp import Grid

from secagg.identity_files import new_directory, new_signing_key
from secagg.integrations.flower.envelope import PRESENT, Envelope
from secagg.pairwise.messages import Kind
from secagg.wire import open_message

Script = Callable[["Delivery"], list[Message]]


@dataclass
class Delivery:
    """A message on its way to a node; ``answer`` lets the node's app answer it."""

    node: int
    message: Message
    kind: str
    answer: Callable[[], Message]


@dataclass
class Node:
    """A node: its context, and what it trains with."""

    context: Context
    handled: int = 0
    trained: list[Message] = field(default_factory=list)


class MemoryGrid(Grid):
    """Nodes of this process. ``app`` makes a fresh ClientApp for a node's every message."""

    def __init__(
        self,
        app: Callable[[Node], ClientApp],
        nodes: Iterable[int],
        *,
        script: Script | None = None,
        run_id: int = 1,
        node_configs: dict[int, dict[str, Any]] | None = None,
        run_config: dict[str, Any] | None = None,
        states: dict[int, RecordDict] | None = None,
    ) -> None:
        # Runs of one series share a node's state, in Flower as here
        self.states = {} if states is None else states
        self.app, self.script = app, script or (lambda delivery: [delivery.answer()])
        self.nodes = {
            one: Node(
                Context(
                    run_id=run_id,
                    node_id=one,
                    node_config=(node_configs or {}).get(one, {}),
                    state=RecordDict(),
                    run_config=run_config or {},
                )
            )
            for one in nodes
        }
        self.exchanges: list[str] = []
        self.pushed: list[Message] = []
        self._run = None
        self._ids = itertools.count(1)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        messages = list(messages)
        self.exchanges += [_kind(message) for message in messages[:1]]
        replies = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"message {next(self._ids)}"
            delivered = over_the_wire(message)
            node = message.metadata.dst_node_id
            replies += self.script(
                Delivery(node, delivered, _kind(message), lambda node=node, sent=delivered: self.handle(node, sent))
            )
        return replies

    def handle(self, node_id: int, message: Message) -> Message:
        node = self.nodes[node_id]
        # As in Flower: the process gets a copy of the context, and what it made of it comes back with the reply
        context = context_from_proto(context_to_proto(node.context))
        context.state = recorddict_from_proto(recorddict_to_proto(self.states.setdefault(node_id, RecordDict())))
        node.handled += 1
        try:
            reply = self.app(node)(copy.copy(message), context)
        except Exception as problem:
            reply = Message(Error(code=2, reason=f"{type(problem)}:<'{problem}'>"), reply_to=message)
        node.context, self.states[node_id] = context, context.state
        return over_the_wire(reply)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        self.pushed += messages
        for message in messages:
            self.handle(message.metadata.dst_node_id, over_the_wire(message))
        return ["pushed"] * len(messages)

    def get_node_ids(self) -> Iterable[int]:
        return list(self.nodes)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return list(message_ids)

    def set_run(self, run: Any) -> None:
        self._run = run

    @property
    def run(self) -> Any:
        return self._run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        return Message(*args, **kwargs)


def over_the_wire(message: Message) -> Message:
    """Encode and decode a message, so that the two sides share no object."""
    metadata = copy.copy(message.metadata)
    if message.has_error():
        return Message(error=message.error, metadata=metadata)
    return Message(recorddict_from_proto(recorddict_to_proto(message.content)), metadata=metadata)


def _kind(message: Message) -> str:
    """Name what a message asks for: the protocol's own kind, a step without one, or Flower's message type."""
    if PRESENT not in message.content:
        return str(message.metadata.message_type)
    envelope = Envelope.take_from(message.content)
    if not envelope.payload or envelope.step == "draw":
        return envelope.step
    kind = open_message(envelope.payload)[0].kind
    return Kind(kind).name if kind in set(Kind) else envelope.step


SHAPES = {"weight": (3, 2), "scalar": (), "empty": (0, 4), "bias": (2,)}


def initial_arrays(dtypes: dict[str, str] | None = None) -> ArrayRecord:
    rng = np.random.default_rng(0)
    return ArrayRecord(
        {
            name: _array(rng.normal(size=shape).astype((dtypes or {}).get(name, "float32")))
            for name, shape in SHAPES.items()
        }
    )


def _array(values: np.ndarray) -> Any:
    from flwr.app import Array

    return Array(np.asarray(values))


def train(message: Message, node_id: int) -> Message:
    """A deterministic local step of each node: some of the way to a target of its own."""
    received = message.content["arrays"]
    rate = 1.0 / (1.0 + float(message.content["config"].get("proximal-mu", 0.0)))
    trained = {}
    for at, (name, array) in enumerate(received.items()):
        values = array.numpy()
        target = np.random.default_rng([node_id, at]).normal(size=values.shape)
        trained[name] = _array((values + 0.5 * rate * (target - values)).astype(values.dtype))
    metrics = MetricRecord({"num-examples": examples(node_id), "loss": 0.25 * node_id, "private": 1.0 * node_id})
    return Message(RecordDict({"arrays": ArrayRecord(trained), "metrics": metrics}), reply_to=message)


def expected(arrays: ArrayRecord, nodes: Iterable[int]) -> dict[str, np.ndarray]:
    """Plain federated averaging's next model over these nodes."""
    nodes = list(nodes)
    message = Message(RecordDict({"arrays": arrays, "config": ConfigRecord()}), 1, "train")
    trained = [train(message, node).content["arrays"] for node in nodes]
    weights = [examples(node) for node in nodes]
    return {name: np.average([one[name].numpy() for one in trained], axis=0, weights=weights) for name in arrays}


def examples(node_id: int) -> int:
    return 10 + 7 * (node_id % 5)


def identities(folder: Path, nodes: Iterable[int]) -> tuple[dict[int, dict[str, Any]], str]:
    """Make what the identity commands make; return each node's own configuration, and the run's directory."""
    nodes = list(nodes)
    for node in nodes:
        new_signing_key(folder / f"{node}.key")
    directory = new_directory(folder / "cohort.json", {one: folder / f"{node}.pub" for one, node in enumerate(nodes)})
    configs = {
        node: {
            "secagg-key": str(folder / f"{node}.key"),
            "secagg-directory-digest": directory.digest().hex(),
            "secagg-state": str(folder / "states"),
        }
        for node in nodes
    }
    return configs, directory.to_json()


def client_app(*mods: Any) -> Callable[[Node], ClientApp]:
    """Return a factory of client apps under these modifiers."""

    def make(node: Node) -> ClientApp:
        app = ClientApp(mods=list(mods))

        @app.train()
        def _train(message: Message, context: Context) -> Message:
            node.trained.append(message)
            return train(message, context.node_id)

        @app.evaluate()
        def _evaluate(message: Message, context: Context) -> Message:
            metrics = MetricRecord({"num-examples": 1, "loss": float(context.node_id)})
            return Message(RecordDict({"metrics": metrics}), reply_to=message)

        @app.query()
        def _query(message: Message, context: Context) -> Message:
            return Message(RecordDict({"config": ConfigRecord({"node": context.node_id})}), reply_to=message)

        return app

    return make
