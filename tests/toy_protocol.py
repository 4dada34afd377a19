"""A protocol as another package would bring it, for tests. **It protects nothing**: the mask follows from public bytes.

One stage: the server opens a session, each client answers with its codes plus a mask that anybody can compute. What is
here is all that a protocol is: parameters, a client's table, two sessions, and the object that the registry takes.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from secagg import FixedPoint, InputError, ParameterError, Protocol, ServerFault, snapshot
from secagg.arguments import checked_integer, checked_rate
from secagg.cohort import CohortCounts, check_honest_survivors
from secagg.encoding.fixed_point import check_vector, check_weight, decode_mean
from secagg.errors import DecodeError
from secagg.planning.rows import FLOAT_BYTES, Row
from secagg.planning.traffic import StageTraffic, Traffic
from secagg.session.client import ClientSession, Vector
from secagg.session.keeping import IN_MEMORY
from secagg.session.one_stage import Collected, OneStageServerSession
from secagg.session.plain_client import PlainClientSession, PlainTurn
from secagg.session.server import ServerSession
from secagg.session.table import ClientRow, Local, Taken
from secagg.simulation import Parties
from secagg.wire import HEADER_BYTES, ID_BYTES, expect_length

STAGE = "toy_input"
OPENING, INPUT = 1, 2
NO_PROTECTION = "This protocol is a toy and protects nothing: the server can read every client's vector."
_LAYOUT = struct.Struct("<QQdBQdd")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyParams(CohortCounts):
    clients: int
    dimension: int
    encoding: FixedPoint
    max_weight: int = 1
    dropout: float = 0.2
    corrupt: float = 0.1
    protocol: ClassVar[str] = "toy"
    threat: ClassVar[str] = "semi-honest"
    notes: ClassVar[tuple[str, ...]] = (NO_PROTECTION,)

    def __post_init__(self) -> None:
        for name, low, high in (("clients", 2, 1 << 20), ("dimension", 0, 1 << 32), ("max_weight", 1, 1 << 32)):
            checked_integer(name, getattr(self, name), low, high)
        checked_rate("dropout", self.dropout), checked_rate("corrupt", self.corrupt)
        check_honest_survivors(self.cohort)
        if self.clients * self.max_weight * self.encoding.largest_code >= 1 << 64:
            raise ParameterError("the sum would wrap: lower bits, max_weight or clients")

    def encode(self) -> bytes:
        shape, rates = (self.clients, self.dimension), (self.max_weight, self.dropout, self.corrupt)
        return _LAYOUT.pack(*shape, self.encoding.clip, self.encoding.bits, *rates)


def session_of(params: ToyParams, context: bytes, nonce: bytes) -> bytes:
    return hashlib.sha256(b"toy/session" + params.encode() + context + nonce).digest()


def public_mask(session: bytes, params: ToyParams) -> NDArray[np.uint64]:
    return np.frombuffer(hashlib.shake_256(session).digest(8 * (params.dimension + 1)), dtype="<u8")


@dataclass(frozen=True, slots=True)
class Idle:
    """Before any message."""


@dataclass(frozen=True, slots=True)
class Opened:
    session: bytes


@dataclass(frozen=True, slots=True)
class Sent:
    session: bytes


def _open(turn: PlainTurn, nonce: bytes) -> Taken:
    session = session_of(turn.params, turn.context, nonce)
    if turn.announced != session:
        raise ServerFault("the opening is of other parameters or another context")
    return Taken(state=Opened(session))


def _mask(turn: PlainTurn, given: Vector) -> Taken:
    params, encoding, session = turn.params, turn.params.encoding, turn.state.session
    vector, weight = check_vector(given.values, params.dimension), check_weight(given.weight, params.max_weight)
    if not np.isfinite(vector).all():
        raise InputError("a vector must be finite")
    held = np.clip(vector.astype(np.float64), -encoding.clip, encoding.clip)
    words = np.append(np.rint((held + encoding.clip) / encoding.step), 1).astype(np.uint64) * np.uint64(weight)
    body = (words + public_mask(session, params)).astype("<u8").tobytes()
    clipped = float(np.mean(held != vector)) if params.dimension else 0.0
    return Taken(state=Sent(session), reply=turn.message(session, body), clipped=clipped)


SAVED_TYPES = snapshot.known_types(Collected, Idle, Opened, Sent, ToyParams, FixedPoint)


class ToyClientSession(PlainClientSession):
    family, params_type, saved_types = "toy", ToyParams, SAVED_TYPES
    table: ClassVar = {
        (Idle, OPENING): ClientRow(
            read=lambda _turn, body: bytes(body), step=_open, next=Opened, reply=None, stage=STAGE
        ),
        (Opened, Local.VECTOR): ClientRow(read=None, step=_mask, next=Sent, reply=INPUT, stage=STAGE, answers=OPENING),
    }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ToyResult:
    params: ToyParams
    survivors: tuple[int, ...]
    dropped: dict[int, str]
    words: NDArray[np.uint64]
    threat: ClassVar[str] = "semi-honest"
    notes: ClassVar[tuple[str, ...]] = (NO_PROTECTION,)

    @property
    def total(self) -> NDArray[np.uint64]:
        return self.words[:-1]

    @property
    def weight(self) -> int:
        return int(self.words[-1])

    @property
    def mean(self) -> NDArray[np.float64]:
        return decode_mean(self.total, self.weight, self.params.encoding)


class ToyServerSession(OneStageServerSession):
    family, params_type, saved_types = "toy", ToyParams, SAVED_TYPES
    stage_name, opening_kind, input_kind = STAGE, OPENING, INPUT

    def _session_of(self, context: bytes, nonce: bytes) -> bytes:
        return session_of(self.params, context, nonce)

    def _nothing(self) -> NDArray[np.uint64]:
        return np.zeros(self.params.dimension + 1, dtype=np.uint64)

    def _fold(self, total: NDArray[np.uint64], session: bytes, body: memoryview) -> NDArray[np.uint64]:
        expect_length(body, 8 * len(total), "an input")
        return total + np.frombuffer(body, dtype="<u8") - public_mask(session, self.params)

    def _result_of(self, state: Collected) -> ToyResult:
        dropped = dict.fromkeys(state.missing, STAGE)
        return ToyResult(params=self.params, survivors=state.survivors, dropped=dropped, words=state.total)


class Toy(Protocol):
    family, names, every_stage = "toy", ("toy",), (STAGE,)
    params_type, client_session, server_session = ToyParams, ToyClientSession, ToyServerSession

    def plan(self, name: str, **asked: Any) -> ToyParams:
        if asked.get("threat", "semi-honest") != "semi-honest":
            raise ParameterError("a toy knows no malicious server")
        return ToyParams(**{one.name: asked[one.name] for one in fields(ToyParams) if one.name in asked})

    def read_unproved(self, encoded: bytes) -> dict[str, Any]:
        if len(encoded) != _LAYOUT.size:
            raise DecodeError(f"parameters of a toy are {_LAYOUT.size} bytes")
        names = ("clients", "dimension", "clip", "bits", "max_weight", "dropout", "corrupt")
        return dict(zip(names, _LAYOUT.unpack(encoded), strict=True), protocol="toy", threat="semi-honest")

    def stages(self, params: ToyParams) -> tuple[str, ...]:
        return (STAGE,)

    def input_stage(self, params: ToyParams) -> str:
        return STAGE

    def simulated(self, params: ToyParams, context: bytes, key: Any) -> Parties:
        if key is not None:
            raise InputError("a toy has no key to go on with")
        alike: dict[str, Any] = {"context": context, "keep": IN_MEMORY}
        server = ServerSession(params, range(params.clients), **alike)
        return Parties(server=server, client=lambda one: ClientSession(params, one, **alike))

    def planning_row(self, name: str, workload: Any, threat: str, machine: Any) -> Row:
        asked = {one: value for one, value in asdict(workload).items() if one != "actual_dropout"}
        params = self.plan(name, **asked | {"encoding": workload.encoding, "threat": threat})
        up, codes = HEADER_BYTES + 8 * (params.dimension + 1), params.dimension * params.encoding.bits / 8
        answered = params.clients - workload.dropped
        stage = StageTraffic(stage=STAGE, down=HEADER_BYTES + ID_BYTES, up=up, asked=params.clients, answered=answered)
        return Row(
            protocol=name,
            threat=params.threat,
            minimum_survivors=params.minimum_survivors,
            traffic=Traffic(stages=(stage,)),
            expansion=up / codes if codes else None,
            client_memory=FLOAT_BYTES * params.dimension + 3 * up,
            server_memory=4 * up,
            notes=params.notes,
        )

    def warmup(self, params: ToyParams | None) -> int:
        return 0

    def promise(self, params: ToyParams) -> str:
        return "the aggregator can read every vector, as anybody can who sees the messages"

    def ring_bits(self, params: ToyParams) -> int:
        return 64


PROTOCOL = Toy()
