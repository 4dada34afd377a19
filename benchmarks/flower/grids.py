"""Grids that measure: one in memory whose nodes fail as planned, and one around an engine's own.

Bytes are those of Flower's protobuf encoding of a message's content, the model's among them.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from flwr.serverapp import Grid

Plan = Callable[[int, int], str | None]
"""(exchange of the round, node) -> ``vanish``, ``error`` or ``twice``; None: as usual."""


@dataclass
class Figures:
    """What a training took.

    Attributes:
        exchanges: seconds of each, the nodes' work in it included.
        clients: seconds of CPU that all nodes together spent, training included.
        up, down: bytes to and from the server.
    """

    exchanges: list[float] = field(default_factory=list)
    clients: float = 0.0
    up: int = 0
    down: int = 0


class Delegating(Grid):
    """Pass everything through to another grid."""

    def __init__(self, inner: Grid) -> None:
        self.inner, self.figures = inner, Figures()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Pass through, and keep the time and the bytes."""
        messages = list(messages)
        if not messages:
            return []
        self.figures.down += sum(size(message) for message in messages)
        start = time.perf_counter()
        replies = list(self.inner.send_and_receive(messages, timeout=timeout))
        self.figures.exchanges.append(time.perf_counter() - start)
        self.figures.up += sum(size(reply) for reply in replies)
        return replies

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass through."""
        return self.inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pass through."""
        return self.inner.pull_messages(message_ids)

    def set_run(self, run: Any) -> None:
        """Pass through."""
        self.inner.set_run(run)

    @property
    def run(self) -> Any:
        """The inner grid's."""
        return self.inner.run

    def create_message(self, *arguments: Any, **keywords: Any) -> Message:
        """Pass through."""
        return self.inner.create_message(*arguments, **keywords)

    def get_node_ids(self) -> Iterable[int]:
        """Pass through."""
        return self.inner.get_node_ids()


class MemoryGrid(Delegating):
    """Nodes of this process, one after the other; each message is encoded and decoded on its way."""

    def __init__(self, app: ClientApp, nodes: int, plan: Plan = lambda exchange, node: None) -> None:
        super().__init__(self)
        self.app, self.plan, self.gone = app, plan, set()
        self.contexts = {
            one + 1: Context(
                run_id=1,
                node_id=one + 1,
                node_config={"partition-id": one, "num-partitions": nodes},
                state=RecordDict(),
                run_config={},
            )
            for one in range(nodes)
        }
        self._ids = itertools.count(1)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Have the nodes answer as planned."""
        exchange, start, replies = len(self.figures.exchanges) + 1, time.perf_counter(), []
        messages = list(messages)
        if not messages:
            return []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(next(self._ids))
            self.figures.down += size(message)
            replies += self._deliver(message, exchange)
        self.figures.exchanges.append(time.perf_counter() - start)
        self.figures.up += sum(size(reply) for reply in replies)
        return replies

    def _deliver(self, message: Message, exchange: int) -> list[Message]:
        node = message.metadata.dst_node_id
        planned = self.plan(exchange, node)
        if planned == "vanish":
            self.gone.add(node)
        if node in self.gone:
            return []
        if planned == "error":
            return [Message(Error(code=2, reason="planned"), reply_to=message)]
        replies = [self._handle(message) for _ in range(2 if planned == "twice" else 1)]
        # The second delivery is the network's: its answer goes to nobody
        return replies[:1]

    def _handle(self, message: Message) -> Message:
        asked = over_the_wire(message)
        start = time.process_time()
        try:
            reply = self.app(asked, self.contexts[message.metadata.dst_node_id])
        except Exception as problem:
            reply = Message(Error(code=2, reason=f"{type(problem).__name__}: {problem}"), reply_to=asked)
        self.figures.clients += time.process_time() - start
        return over_the_wire(reply)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver to nobody: what is pushed awaits no answer here."""
        return [str(next(self._ids)) for _ in messages]

    def get_node_ids(self) -> Iterable[int]:
        """Return all nodes, those that are gone as well: a server finds out by their silence."""
        return list(self.contexts)


def over_the_wire(message: Message) -> Message:
    """Return what arrives of a message: both sides edit the records that they are given."""
    metadata = copy.copy(message.metadata)
    if message.has_error():
        return Message(error=message.error, metadata=metadata)
    encoded = recorddict_to_proto(message.content).SerializeToString()
    return Message(recorddict_from_proto(ProtoRecordDict.FromString(encoded)), metadata=metadata)


def size(message: Message) -> int:
    """Return the bytes of a message's content."""
    return recorddict_to_proto(message.content).ByteSize() if message.has_content() else 0
