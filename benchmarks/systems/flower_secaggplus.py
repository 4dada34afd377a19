"""Flower's SecAgg+: its own client modifier and workflow, unmodified, over a grid in memory.

Left out, to Flower's advantage: its transport, its protobuf encoding (bytes are those of it, but its time is not
counted), the strategy's averaging of the replies, and training. Each message is encoded and decoded between the two
sides, since both edit the records that they are given.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

for _name in ("FLWR_DISABLE_UPDATE_CHECK", "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_HOME", os.path.join(tempfile.gettempdir(), "flwr-benchmark"))

import logging  # noqa: E402

import numpy as np  # noqa: E402
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict  # noqa: E402
from flwr.client.mod import secaggplus_mod  # noqa: E402
from flwr.common import FitIns, FitRes, Parameters, ndarrays_to_parameters, parameters_to_ndarrays  # noqa: E402
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto  # noqa: E402
from flwr.common.typing import Code, Status  # noqa: E402
from flwr.compat.common import recorddict_compat  # noqa: E402
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict  # noqa: E402
from flwr.server.client_manager import SimpleClientManager  # noqa: E402
from flwr.server.compat.legacy_context import LegacyContext  # noqa: E402
from flwr.server.strategy import FedAvg  # noqa: E402
from flwr.server.workflow import SecAggPlusWorkflow  # noqa: E402
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key  # noqa: E402
from flwr.serverapp import Grid  # noqa: E402
from flwr.supercore.task_identity import TaskIdentity  # noqa: E402

from benchmarks.systems.catalogue import Setting  # noqa: E402
from benchmarks.systems.measurement import Meter, Outcome, main, survivors_of  # noqa: E402

EMPTY = Parameters(tensors=[], tensor_type="numpy.ndarray")
MODULUS = 1 << 32
"""Flower's default modulus."""


class Proxy:
    """A client as the workflow knows it: by its node's id."""

    def __init__(self, node_id: int) -> None:
        self.node_id = node_id
        self.cid = str(node_id)


class Strategy(FedAvg):
    """Select everybody; keep the aggregate that the workflow hands over, without averaging its n copies."""

    def __init__(self, node_ids: list[int]) -> None:
        super().__init__()
        self.proxies = [Proxy(node_id) for node_id in node_ids]
        self.mean: np.ndarray | None = None

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
        """Ask every client, for nothing: training is not measured."""
        return [(proxy, FitIns(EMPTY, {})) for proxy in self.proxies]

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        """Take the mean from the first of the replies, into all of which the workflow has put it."""
        self.mean = parameters_to_ndarrays(results[0][1].parameters)[0]
        return None, {}


class MemoryGrid(Grid):
    """Deliver messages to the clients of this process; who is to drop out never answers with a vector."""

    def __init__(self, setting: Setting, vectors: list[np.ndarray], meter: Meter) -> None:
        self.setting, self.vectors, self.meter = setting, vectors, meter
        # Node ids are random 64-bit numbers at Flower's; small ones only shorten its messages
        self.contexts = [
            Context(run_id=1, node_id=one + 1, node_config={}, state=RecordDict(), run_config={})
            for one in range(setting.clients)
        ]
        self.exchanges = 0

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Hand each message to its client; return the answers of those that are still there."""
        messages = list(messages)
        with self.meter.not_the_server():
            self.exchanges += 1
            replies = [self._exchange(message, message.metadata.dst_node_id - 1) for message in messages]
            return [reply for reply in replies if reply is not None]

    def _exchange(self, message: Message, one: int) -> Message | None:
        content, size = _over_the_wire(message.content)
        self.meter.down[one] += size
        if self.exchanges == 3 and one not in survivors_of(self.setting):
            return None
        asked = Message(content, metadata=message.metadata)
        with self.meter.client(one):
            answer = secaggplus_mod(asked, self.contexts[one], lambda m, _: self._train(m, one))
        content, size = _over_the_wire(answer.content)
        self.meter.up[one] += size
        return Message(content, metadata=answer.metadata)

    def _train(self, message: Message, one: int) -> Message:
        with self.meter.not_the_client(one):
            parameters = ndarrays_to_parameters([self.vectors[one]])
            result = FitRes(Status(Code.OK, ""), parameters, num_examples=1, metrics={})
            return Message(recorddict_compat.fitres_to_recorddict(result, keep_input=False), reply_to=message)

    def get_node_ids(self) -> Iterable[int]:
        """Return all nodes."""
        return [context.node_id for context in self.contexts]

    def _unused(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("the workflow sends and receives alone")

    set_run = create_message = push_messages = pull_messages = _unused
    run = property(_unused)


def _over_the_wire(content: RecordDict) -> tuple[RecordDict, int]:
    encoded = recorddict_to_proto(content).SerializeToString()
    return recorddict_from_proto(ProtoRecordDict.FromString(encoded)), len(encoded)


def run(setting: Setting, vectors: list[np.ndarray], meter: Meter) -> Outcome:
    """Run the workflow's four stages; the aggregate is a mean, which is turned back into a sum."""
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    logging.getLogger("flwr").setLevel(logging.ERROR)
    workflow = SecAggPlusWorkflow(
        # Flower counts the share that a client keeps
        num_shares=setting.neighbours + 1,
        reconstruction_threshold=setting.threshold,
        max_weight=1.0,
        clipping_range=setting.clip,
        quantization_range=1 << setting.bits,
        modulus_range=MODULUS,
        timeout=1.0,
    )
    grid = MemoryGrid(setting, vectors, meter)
    strategy = Strategy(list(grid.get_node_ids()))
    records = RecordDict({MAIN_CONFIGS_RECORD: ConfigRecord({Key.CURRENT_ROUND: 1}), MAIN_PARAMS_RECORD: ArrayRecord()})
    context = LegacyContext(
        Context(run_id=1, node_id=1, node_config={}, state=records, run_config={}),
        strategy=strategy,
        client_manager=SimpleClientManager(),
    )
    with meter.server():
        workflow(grid, context)
    if strategy.mean is None:
        raise RuntimeError("Flower's workflow halted without a sum")
    present = len(survivors_of(setting))
    return Outcome(
        total=strategy.mean * present,
        error_bound=present * 2 * setting.clip / (1 << setting.bits),
        version=version("flwr"),
        parameters={
            "num_shares": workflow.num_shares,
            "reconstruction_threshold": workflow.reconstruction_threshold,
            "clipping_range": workflow.clipping_range,
            "quantization_range": workflow.quantization_range,
            "modulus_range": workflow.modulus_range,
        },
    )


if __name__ == "__main__":
    main({"flower": run})
