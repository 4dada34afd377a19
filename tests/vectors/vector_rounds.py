"""Whole rounds, played between the library's own sessions and written down step by step; used by ``generate.py``."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from secagg import (
    IN_MEMORY,
    BeaconNeeded,
    ClientSession,
    Directory,
    FixedPoint,
    Identity,
    InputNeeded,
    RoundParams,
    ServerSession,
    SigningKey,
)
from secagg.pairwise.graph import CompleteGraph, beacon_graph
from secagg.pairwise.identifiers import beacon_digest
from secagg.pairwise.messages import Kind
from secagg.session.context import context_digest
from secagg.wire import HEADER_BYTES

FULL_LIMIT = 10
"""Rounds of more clients than this give the messages to most clients by length and digest alone."""


Behind = Callable[[int, str], contextlib.AbstractContextManager[object]]
"""What a client's answer at a stage is made under: a generator may make one client a cheat."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a round is made of; ``faults`` maps an id to the stage before whose message it falls silent."""

    name: str
    what: str
    params: RoundParams
    ids: Sequence[int]
    faults: Mapping[int, str] = field(default_factory=dict)
    context: bytes = b""
    traced: Sequence[int] = ()


class Source:
    """Draw i (from 1) is SHAKE256 of the text ``name/party/i``; ``take`` returns the draws since it was called."""

    def __init__(self, seed: str) -> None:
        self._seed, self._calls = seed, 0
        self._drawn: list[bytes] = []

    def __call__(self, length: int) -> bytes:
        self._calls += 1
        self._drawn.append(hashlib.shake_256(f"{self._seed}/{self._calls}".encode()).digest(length))
        return self._drawn[-1]

    def take(self) -> list[bytes]:
        drawn, self._drawn = self._drawn, []
        return drawn


def signing_key(client_id: int) -> SigningKey:
    return SigningKey(hashlib.sha256(f"identity/{client_id}".encode()).digest())


def vectors_of(plan: Plan) -> dict[int, list[float]]:
    """Random binary64 coordinates; the first three clients have edges, zeros, and values beyond the clip."""
    clip, d = plan.params.encoding.clip, plan.params.dimension
    vectors = {}
    for index, one in enumerate(plan.ids):
        words = hashlib.shake_256(f"{plan.name}/vector/{one}".encode()).digest(8 * d)
        parts = [int.from_bytes(words[8 * i : 8 * i + 8], "little") / 2**64 for i in range(d)]
        vectors[one] = [(2 * part - 1) * clip for part in parts]
        edges = [[clip, -clip, 0.0], [-0.0, 2 * clip, 1e-300], [-3 * clip, clip / 3, -clip / 7]]
        if index < len(edges) and index < len(plan.ids) - 1:
            vectors[one] = (edges[index] + vectors[one])[:d]
    return vectors


def weights_of(plan: Plan) -> dict[int, int]:
    most = plan.params.max_weight
    drawn = {one: hashlib.sha256(f"{plan.name}/weight/{one}".encode()).digest() for one in plan.ids}
    weights = {one: 1 + int.from_bytes(digest[:8], "little") % most for one, digest in drawn.items()}
    weights[plan.ids[-1]] = most
    return weights


@dataclass
class Party:
    session: ClientSession | ServerSession
    source: Source
    states: list[str] = field(default_factory=list)


class Round:
    """A round as it is played. ``messages`` holds every message by name, ``opened`` the shares that a client opened."""

    def __init__(self, plan: Plan, behind: Behind | None = None) -> None:
        self.plan, self.params, self.ids = plan, plan.params, list(plan.ids)
        self.vectors, self.weights = vectors_of(plan), weights_of(plan)
        self.beacon = hashlib.sha256(f"{plan.name}/beacon".encode()).digest()
        malicious = plan.params.threat == "malicious-server"
        self.keys = {one: signing_key(one) for one in self.ids} if malicious else {}
        self.directory = Directory({one: key.public for one, key in self.keys.items()}) if malicious else None
        self.messages: dict[str, bytes] = {}
        self.steps: list[dict[str, object]] = []
        self.parties: dict[str, Party] = {}
        self.opened: dict[str, np.ndarray] = {}
        self._behind = behind or (lambda one, stage: contextlib.nullcontext())

    @property
    def server(self) -> ServerSession:
        return self.parties["server"].session

    def identity(self, one: int) -> Identity | None:
        return None if self.directory is None else Identity(key=self.keys[one], directory=self.directory)

    def channel_secret(self, one: int) -> bytes:
        """Return a client's first draw."""
        drawn = next(step for step in self.steps if step["party"] == str(one) and step["randomness"])
        return bytes.fromhex(drawn["randomness"][0])

    def position(self, one: int) -> int:
        return self.ids.index(one)

    def request(self, kind: Kind, one: int) -> bytes:
        """Return the message of this kind to a client."""
        return self.messages.get(kind.name) or self.messages[f"{kind.name} to {one}"]

    def reply(self, kind: Kind, one: int) -> bytes:
        """Return the message of this kind from a client."""
        return self.messages[f"{kind.name} from {one}"]

    def steps_before(self, party: int | str, state: str, replies: int = 0) -> int:
        """Return how many of a party's steps lead into ``state`` for the first time, and through more replies."""
        return self.parties[str(party)].states.index(state) + 1 + replies

    def play(self) -> None:
        plan = self.plan
        source = Source(f"{plan.name}/server")
        server = ServerSession(
            plan.params, self.ids, context=plan.context, credentials=self.directory, randomness=source, keep=IN_MEMORY
        )
        self.parties["server"] = Party(server, source)
        outgoing = self._name_requests()
        self._record("server", "create", outgoing=outgoing)
        for one in self.ids:
            source = Source(f"{plan.name}/{one}")
            session = ClientSession(
                plan.params,
                one,
                context=plan.context,
                credentials=self.identity(one),
                randomness=source,
                keep=IN_MEMORY,
            )
            self.parties[str(one)] = Party(session, source)
            self._record(one, "create")
        while server.stage is not None:
            self._stage(outgoing)
            server.advance()
            outgoing = self._name_requests()
            self._record("server", "advance", outgoing=outgoing)

    def _stage(self, requests: dict[str, str]) -> None:
        server, stage = self.server, self.server.stage
        if stage == "share_keys":
            self.session_id = server.session_id
        if server.beacon_needed:
            server.use_beacon(self.beacon)
            self._record("server", "use_beacon")
        if stage == "share_keys":
            self.graph = self._graph()
        for one in self.ids:
            if str(one) not in requests or self.plan.faults.get(one) == stage:
                continue
            with self._behind(one, stage):
                name = self._answer(one, requests[str(one)])
            server.receive(one, self.messages[name])
            self._record("server", "receive", sender=one, incoming=name)

    def _graph(self) -> list[list[int]]:
        params = self.params
        if params.graph == "complete":
            graph = CompleteGraph(params.clients)
        elif params.threat == "malicious-server":
            graph = beacon_graph(params.clients, params.neighbours, self.session_id, self.beacon)
        else:
            graph = self.server._state.graph
        return [graph.neighbours(position).tolist() for position in range(params.clients)]

    def _answer(self, one: int, request: str) -> str:
        session = self.parties[str(one)].session
        answer, call, incoming = session.receive(self.messages[request]), "receive", request
        if isinstance(answer, BeaconNeeded):
            self._record(one, "receive", incoming=request, answer="beacon_needed")
            answer, call, incoming = session.use_beacon(self.beacon), "use_beacon", None
        if isinstance(answer, InputNeeded):
            self._record(one, "receive", incoming=request, answer="input_needed")
            answer = session.submit(np.array(self.vectors[one]), self.weights[one])
            call, incoming = "submit", None
        name = f"{Kind(answer.payload[6]).name} from {one}"
        self.messages[name] = answer.payload
        self._record(one, call, incoming=incoming, answer="reply", outgoing=name)
        return name

    def _name_requests(self) -> dict[str, str]:
        requests = dict(self.server.requests())
        alike = len(set(requests.values())) == 1
        names = {}
        for one, payload in requests.items():
            kind = Kind(payload[6]).name
            names[str(one)] = kind if alike else f"{kind} to {one}"
            self.messages[names[str(one)]] = payload
        return names

    def _record(
        self,
        party: int | str,
        call: str,
        *,
        sender: int | None = None,
        incoming: str | None = None,
        answer: str | None = None,
        outgoing: object = None,
    ) -> None:
        known = self.parties[str(party)]
        state = state_name(known.session)
        known.states.append(state)
        if state == "Ready":
            self.opened[str(party)] = known.session._state.shares
        step: dict[str, object] = {"party": str(party), "call": call}
        step |= {} if sender is None else {"from": str(sender)}
        step |= {} if incoming is None else {"incoming": incoming}
        step["randomness"] = [drawn.hex() for drawn in known.source.take()]
        step |= {} if answer is None else {"answer": answer}
        step |= {} if outgoing is None else {"outgoing": outgoing}
        step["next_state"] = state
        step["next_state_digest"] = hashlib.sha256(known.session.save(seal_key=None)).hexdigest()
        self.steps.append(step)

    def document(self) -> dict[str, object]:
        params, result = self.params, self.server.result
        document: dict[str, object] = {
            "format": "secagg-round-vector/1",
            "name": self.plan.name,
            "what": self.plan.what,
            "parameters": parameters_document(params),
            "ids": [str(one) for one in self.ids],
            "context": self.plan.context.hex(),
        }
        if self.directory is not None:
            document["identities"] = {
                str(one): {"seed": key.secret_bytes().hex(), "public": key.public.hex()}
                for one, key in self.keys.items()
            }
        if params.threat == "malicious-server" and params.graph == "harary":
            document["beacon"] = self.beacon.hex()
        document["inputs"] = {
            str(one): {"vector": self.vectors[one], "weight": str(self.weights[one])} for one in self.ids
        }
        document["dropouts"] = {str(one): self.plan.faults[one] for one in self.ids if one in self.plan.faults}
        document["derived"] = self._derived()
        document["messages"] = {name: self._message(name, payload) for name, payload in self.messages.items()}
        document["steps"] = self.steps
        document["result"] = {
            "survivors": [str(one) for one in result.survivors],
            "dropped": {str(one): stage for one, stage in result.dropped.items()},
            "total": [str(value) for value in result.total.tolist()],
            "weight": str(result.weight),
        }
        return document

    def _derived(self) -> dict[str, object]:
        invitation = self.messages[Kind.INVITATION.name]
        derived: dict[str, object] = {
            "context_digest": context_digest(self.plan.context).hex(),
            "round_id": invitation[16:HEADER_BYTES].hex(),
            "session_id": self.session_id.hex(),
        }
        if self.directory is not None:
            derived["directory_digest"] = self.directory.digest().hex()
            derived["beacon_digest"] = beacon_digest(self.beacon if self.params.graph == "harary" else None).hex()
        derived["neighbours"] = self.graph
        return derived

    def _message(self, name: str, payload: bytes) -> dict[str, object]:
        _, to, recipient = name.partition(" to ")
        if not to or self.params.clients <= FULL_LIMIT or int(recipient) in self.plan.traced:
            return {"hex": payload.hex()}
        return {"length": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}


def state_name(session: ClientSession | ServerSession) -> str:
    return repr(session).rpartition(": ")[2].rstrip(">")


def parameters_document(params: RoundParams) -> dict[str, object]:
    return {
        "canonical": params.encode().hex(),
        "clients": params.clients,
        "dimension": params.dimension,
        "clip": params.encoding.clip,
        "bits": params.encoding.bits,
        "max_weight": str(params.max_weight),
        "dropout": params.dropout,
        "corrupt": params.corrupt,
        "protocol": params.protocol,
        "threat": params.threat,
        "graph": params.graph,
        "neighbours": params.neighbours,
        "threshold": params.threshold,
        "ring_bits": params.ring_bits,
        "minimum_survivors": params.minimum_survivors,
    }


def planned(clients: int, dimension: int, clip: float, bits: int, **overrides: object) -> RoundParams:
    arguments: dict[str, object] = {"dropout": 0.0, "corrupt": 0.0, "protocol": "secagg", "threat": "semi-honest"}
    return RoundParams.plan(
        clients=clients,
        dimension=dimension,
        encoding=FixedPoint(clip=clip, bits=bits),
        **(arguments | overrides),  # type: ignore[arg-type]
    )


WIDE_IDS = (0, 7, 256, 2**32, 2**40, 2**64 - 2)

PLANS = (
    Plan(
        name="semi-honest-complete-2",
        what="two clients, so a threshold of one and no coefficient to draw",
        params=planned(2, 2, 1.0, 8),
        ids=(3, 5),
    ),
    Plan(
        name="semi-honest-complete-3",
        what="weights, lanes of 16 bits, nobody drops out",
        params=planned(3, 4, 1.0, 8, max_weight=10),
        ids=(10, 20, 30),
    ),
    Plan(
        name="semi-honest-complete-4",
        what="no coordinate but the weight, in the widest ring; secagg+ with too few clients for a sparse graph",
        params=planned(4, 0, 1.0, 1, ring_bits=64, protocol="secagg+"),
        ids=(1, 2, 3, 4),
        context=b"a round of weights alone",
    ),
    Plan(
        name="semi-honest-complete-5",
        what="widest codes, lanes of 64 bits; drop-outs before their shares and before their input",
        params=planned(5, 5, 3.7, 32, max_weight=60_000, dropout=0.4),
        ids=(11, 12, 13, 14, 15),
        faults={11: "share_keys", 14: "masked_input"},
        context=b"a hash of the model",
    ),
    Plan(
        name="semi-honest-complete-6",
        what="ids of every width, lanes of 32 bits; drop-outs before keys, before the input and while unmasking",
        params=planned(6, 3, 0.1, 16, max_weight=5, dropout=0.5),
        ids=WIDE_IDS,
        faults={7: "advertise_keys", 2**40: "masked_input", 256: "unmask"},
        context=bytes(range(32)),
    ),
    Plan(
        name="semi-honest-harary-40",
        what="a sparse graph that the server draws; a drop-out at every stage",
        params=planned(40, 3, 1.0, 4, max_weight=3, dropout=0.1, corrupt=0.05, protocol="secagg+"),
        ids=range(100, 140),
        faults={102: "advertise_keys", 111: "share_keys", 120: "masked_input", 133: "unmask"},
        context=b"a sparse round",
        traced=(100, 120, 139),
    ),
    Plan(
        name="malicious-server-complete-4",
        what="signatures, commitments and the consistency stage; nobody drops out",
        params=planned(4, 3, 1.0, 8, max_weight=2, dropout=0.25, threat="malicious-server"),
        ids=(10, 20, 30, 40),
        context=b"a hash of the model",
    ),
    Plan(
        name="malicious-server-complete-6",
        what="drop-outs before the input and before the consistency check",
        params=planned(6, 3, 0.1, 16, max_weight=5, dropout=0.3, threat="malicious-server"),
        ids=WIDE_IDS,
        faults={256: "masked_input", 2**40: "check_consistency"},
        context=bytes(range(32)),
    ),
    Plan(
        name="malicious-server-complete-7",
        what="drop-outs before keys and while unmasking, in a lane of 64 bits",
        params=planned(7, 2, 2.5, 32, max_weight=9, dropout=0.25, threat="malicious-server"),
        ids=(1, 2, 3, 5, 8, 13, 21),
        faults={3: "advertise_keys", 13: "unmask"},
        context=b"seven",
    ),
    Plan(
        name="malicious-server-harary-40",
        what="a sparse graph that a beacon draws; a drop-out at every stage",
        params=planned(
            40, 3, 1.0, 4, max_weight=3, dropout=0.1, corrupt=0.05, protocol="secagg+", threat="malicious-server"
        ),
        ids=range(100, 140),
        faults={
            102: "advertise_keys",
            111: "share_keys",
            120: "masked_input",
            126: "check_consistency",
            133: "unmask",
        },
        context=b"a sparse round",
        traced=(100, 120, 139),
    ),
)
