"""One round on the server: the exchanges of one secure sum over a grid, whatever the nodes do.

The cohort's nodes are told apart by the message that a reply answers, never by what the reply says of its sender: an
error that Flower makes up for a node that is gone names the server as its source.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from flwr.app import Message, Metadata, RecordDict

from secagg.errors import DecodeError, Evidence, InputError, LocalProtocolError, PeerFault, SecAggError, StaleMessage
from secagg.integrations.flower import envelope as steps
from secagg.integrations.flower.envelope import Envelope
from secagg.protocol import protocol_of
from secagg.session.party import PartyRound
from secagg.session.server import ServerSession
from secagg.wire import SERVER, open_message

Send = Callable[[Sequence[Message], bool], Iterable[Message]]
"""Send messages and return the replies that came in time; the flag says whether nodes train before they answer."""
Beacon = Callable[[bytes], bytes]

Given = ParamSpec("Given")
Told = TypeVar("Told")


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A session that no node was told of yet, and the further parties' part in it, by name."""

    session: ServerSession
    parties: Mapping[str, PartyRound]

    def invitation(self, content: bytes) -> Envelope:
        """Return what goes to every node first: who is which client need not be known for it.

        Raises:
            InputError: the protocol's first requests differ by client.
        """
        first = set(self.session.requests().values())
        if len(first) != 1:
            raise InputError("nodes are invited all alike, and this protocol's first requests differ by client")
        return Envelope(step=steps.JOIN, payload=first.pop(), params=self.session.params.encode(), content=content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """A round whose keys are advertised with the last replies of the one before.

    Attributes:
        begun: the next round.
        asked: what it takes to reach each node of its roster, that of the round before.
        content: what stands for its train message's digest.
    """

    begun: Begun
    asked: Mapping[int, Metadata]
    content: bytes

    def invitation(self) -> Envelope:
        """Return what goes to every node along with its last request."""
        return self.begun.invitation(self.content)


@dataclass(slots=True, kw_only=True)
class RoundReport:
    """What one secure sum took, for whoever runs the server.

    Attributes:
        nodes: how many were sent the strategy's message.
        survivors: the nodes in the sum, ascending; none where there is no sum.
        failure: why there is no sum, or None.
        faults: node -> why it dropped out or which of its messages did not count.
        evidence: client id -> what convicts it and the transcript to check that against; in the malicious-server model,
            of forged shares and contradictory dealers. It holds shares: show it to no more people than need it.
        seconds: exchange -> wall seconds from sending to the closing of its stage, in order.
        bytes_up: exchange -> bytes of all payloads received.
        bytes_down: exchange -> bytes of all payloads sent, the strategy's own records not counted.
        party_seconds: further party, a decryptor -> wall seconds from asking it to its answer.
    """

    nodes: int
    survivors: tuple[int, ...] = ()
    failure: str | None = None
    faults: dict[int, str] = field(default_factory=dict)
    evidence: dict[int, tuple[Evidence, Any]] = field(default_factory=dict, repr=False)
    seconds: dict[str, float] = field(default_factory=dict)
    bytes_up: dict[str, int] = field(default_factory=dict)
    bytes_down: dict[str, int] = field(default_factory=dict)
    party_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def exchanges(self) -> int:
        """How often the server sent messages to nodes and waited for their replies."""
        return len(self.seconds)


class SecureRound:
    """Drive a session over messages to nodes.

    Args:
        begun: a new session, and the further parties' part in it.
        asked: the strategy's messages, one a node.
        content: digest of what they say, which the session's context was made of.
        identified: whether a client's own signature says which it is; else it is the one of its node's id.
        send: delivers messages.
        beacon: what the graph is drawn from where the session needs one.
        prepare: session_id -> the next round, where its keys shall ride on the last replies.
        joined: whether all nodes' keys are in the session already.
        threads: how many threads share the unmasking.
    """

    def __init__(
        self,
        begun: Begun,
        asked: Sequence[Message],
        *,
        content: bytes,
        identified: bool,
        send: Send,
        beacon: Beacon | None = None,
        prepare: Callable[[bytes], Ahead] | None = None,
        joined: bool = False,
        threads: int = 1,
    ) -> None:
        self._begun, self._session, self._parties = begun, begun.session, begun.parties
        self._send, self._beacon, self._threads = send, beacon, threads
        self._content, self._prepare, self._joined = content, prepare, joined
        protocol, params = protocol_of(begun.session.params), begun.session.params
        self._input_stage, self._last_stage = protocol.input_stage(params), protocol.stages(params)[-1]
        self._answered: set[int] = set()
        self.ahead: Ahead | None = None
        self._asked = {int(message.metadata.dst_node_id): message for message in asked}
        # Who is who shows in the first replies where identities are the directory's, and is known else
        self._client_of: dict[int, int] = {} if identified else {node: node for node in self._asked}
        self.report = RoundReport(nodes=len(asked))

    def run(self) -> Any:
        """Exchange all messages of the round.

        Raises:
            SecAggError: the round cannot end with a sum; nothing of any client was revealed. See the report.

        Whatever else interrupts it passes through; then too the session is over and the report tells the failure.
        """
        try:
            requests = self._session.advance() if self._joined else self._join()
            while requests:
                if self._session.beacon_needed:
                    self._fix_roster(requests)
                    requests = self._exchange(requests, steps.DRAW)
                else:
                    requests = self._exchange(requests, steps.ANSWER)
            self._ask_parties()
        except SecAggError as problem:
            self._keep_evidence(problem)
            self._session.abort()
            self.report.failure = f"{type(problem).__name__}: {problem}"
            raise
        except BaseException as problem:
            self._session.abort()
            self.report.failure = type(problem).__name__
            raise
        result, nodes = self._session.result, self.node_of
        self.report.survivors = tuple(sorted(nodes[client] for client in result.survivors))
        return result

    @property
    def unfinished(self) -> frozenset[int]:
        """The nodes whose last answer is not in, which may keep a state of this round."""
        return frozenset(self._asked) - self._answered

    @property
    def resting(self) -> frozenset[int]:
        """The nodes that answered the invitation with their last message: each keeps it, should that come again."""
        return frozenset(self._answered) if self.report.exchanges == 1 else frozenset()

    @property
    def node_of(self) -> Mapping[int, int]:
        """Client id -> node, for the clients that joined."""
        return {client: node for node, client in self._client_of.items()}

    def _join(self) -> Mapping[int, bytes]:
        """Invite every node; that needs no client's id, as the invitation is the same for all."""
        stage, asked = str(self._session.stage), self._begun.invitation(self._content)
        return self._stage({node: (asked, self._beside(node, stage)) for node in self._asked}, stage)

    def _exchange(self, requests: Mapping[int, bytes], step: str) -> Mapping[int, bytes]:
        stage, nodes = str(self._session.stage), self.node_of
        self._begin_ahead(stage)
        asked = {nodes[client_id]: Envelope(step=step, payload=payload) for client_id, payload in requests.items()}
        return self._stage({node: (one, self._beside(node, stage)) for node, one in asked.items()}, stage)

    def _beside(self, node: int, stage: str) -> RecordDict:
        """Return what goes along with a stage's request: the strategy's message, or what invites to the next round."""
        if stage == self._input_stage:
            return self._asked[node].content
        return RecordDict() if self.ahead is None else self.ahead.invitation().put_into(RecordDict(), steps.FOLLOWING)

    def _begin_ahead(self, stage: str) -> None:
        session_id = self._session.session_id
        if stage == self._last_stage and self._prepare is not None and session_id is not None:
            self.ahead = self._prepare(session_id)

    def _ask_parties(self) -> None:
        """Have further parties do their part, once the clients have done theirs."""
        for name, request in self._session.party_requests().items():
            start = time.perf_counter()
            answer = reached(name, self._parties[name].answer, request)
            self._session.receive_from(name, answer)
            self.report.party_seconds[name] = time.perf_counter() - start

    def _fix_roster(self, requests: Mapping[int, bytes]) -> None:
        """Have everybody make the roster durable, then look the beacon up."""
        if self._beacon is None:
            raise InputError("this graph is drawn from a public beacon, and SecAggGrid was given none")
        session_id = self._session.session_id
        if session_id is None:  # pragma: no cover - a beacon is needed only while there is one
            raise InputError("no session is open")
        nodes = self.node_of
        asked = {
            nodes[one]: (Envelope(step=steps.ANSWER, payload=payload), RecordDict())
            for one, payload in requests.items()
        }
        self._timed(asked, "fix_roster", lambda node, reply: None)
        self._session.use_beacon(self._beacon(session_id))

    def _stage(self, asked: Mapping[int, tuple[Envelope, RecordDict]], stage: str) -> Mapping[int, bytes]:
        start = time.perf_counter()
        self._timed(asked, stage, self._fold)
        requests = self._session.advance(threads=self._threads)
        self.report.seconds[stage] = time.perf_counter() - start
        return requests

    def _timed(
        self,
        asked: Mapping[int, tuple[Envelope, RecordDict]],
        stage: str,
        fold: Callable[[int, Envelope], None],
    ) -> None:
        """Send one message to each node and fold in what comes back; faults are the node's, not the round's."""
        start = time.perf_counter()
        messages = {node: self._message(node, *parts) for node, parts in asked.items()}
        ahead = b"" if self.ahead is None else self.ahead.invitation().payload
        self.report.bytes_down[stage] = sum(len(parts[0].payload) + len(ahead) for parts in asked.values())
        self.report.bytes_up[stage] = 0
        self._answered.clear()
        replies = self._send(list(messages.values()), stage == self._input_stage)
        node_of = {message.metadata.message_id: node for node, message in messages.items()}
        silent = set(messages)
        for reply in replies:
            node = node_of.get(reply.metadata.reply_to_message_id)
            if node is not None:
                silent.discard(node)
                self._take_in(node, reply, stage, fold)
        for node in silent:
            self.report.faults.setdefault(node, f"{stage}: silent")
        self.report.seconds[stage] = time.perf_counter() - start

    def _take_in(self, node: int, reply: Message, stage: str, fold: Callable[[int, Envelope], None]) -> None:
        if reply.has_error():
            self.report.faults.setdefault(node, f"{stage}: {reply.error.reason}")
            return
        try:
            if not reply.has_content():
                raise DecodeError("its reply is empty")
            answer = Envelope.take_from(reply.content)
            self.report.bytes_up[stage] += len(answer.payload)
            fold(node, answer)
            self._answered.add(node)
            if self.ahead is not None and steps.FOLLOWING in reply.content:
                keys = Envelope.take_from(reply.content, steps.FOLLOWING)
                self.report.bytes_up[stage] += len(keys.payload)
                self.ahead.begun.session.receive(self._client_of[node], keys.payload)
        except StaleMessage:
            return
        except (DecodeError, PeerFault) as problem:
            self._keep_evidence(problem)
            self.report.faults.setdefault(node, f"{stage}: {problem}")

    def _keep_evidence(self, problem: SecAggError) -> None:
        """Keep what convicts a client with the round's transcript, which is there only while the round is open."""
        if isinstance(problem, PeerFault) and problem.evidence is not None:
            transcript = self._session.transcript()
            self.report.evidence[problem.client_id] = (problem.evidence, transcript)

    def _fold(self, node: int, answer: Envelope) -> None:
        client_id = self._client_of.get(node)
        if client_id is None:
            # Signed, and checked by the session: no node can take another's place
            client_id = open_message(answer.payload)[0].sender
            if client_id == SERVER:
                raise DecodeError("its message names the server as its sender")
            if client_id in self._client_of.values():
                raise DecodeError("another node has joined as this client")
        self._session.receive(client_id, answer.payload)
        self._client_of[node] = client_id
        for name in self._session.parties:
            reached(name, self._parties[name].receive, client_id, answer.payload)

    def _message(self, node: int, envelope: Envelope, content: RecordDict) -> Message:
        asked = self._asked[node].metadata
        return Message(envelope.put_into(content), node, asked.message_type, ttl=asked.ttl, group_id=asked.group_id)


def reached(name: str, call: Callable[Given, Told], *given: Given.args, **named: Given.kwargs) -> Told:
    """Call a further party; a network or a disk that fails costs the round and not the training.

    Raises:
        LocalProtocolError: there was no answer.
    """
    try:
        return call(*given, **named)
    except OSError as problem:
        raise LocalProtocolError(f"the {name} gave no answer: {type(problem).__name__}") from problem
