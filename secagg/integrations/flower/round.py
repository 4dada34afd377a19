"""One round on the server: the exchanges of one secure sum over a grid, whatever the nodes do.

The cohort's nodes are told apart by the message that a reply answers, never by what the reply says of its sender: an
error that Flower makes up for a node that is gone names the server as its source.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import Message, Metadata, RecordDict

from secagg.errors import DecodeError, Evidence, InputError, PeerFault, SecAggError, StaleMessage
from secagg.integrations.flower import envelope as steps
from secagg.integrations.flower.envelope import Envelope
from secagg.pairwise.evidence import Transcript
from secagg.pairwise.result import RoundResult
from secagg.pairwise.server_session import ServerSession
from secagg.wire import SERVER, open_message

Send = Callable[[Sequence[Message], bool], Iterable[Message]]
"""Send messages and return the replies that came in time; the flag says whether nodes train before they answer."""
Beacon = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """A round whose keys are advertised with the last replies of the one before.

    Attributes:
        session: the next round's.
        asked: what it takes to reach each node of its roster, that of the round before.
        content: what stands for its train message's digest.
    """

    session: ServerSession
    asked: Mapping[int, Metadata]
    content: bytes

    def invitation(self) -> Envelope:
        """Return what goes to every node along with its last request."""
        return _invitation(self.session, self.content)


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
    """

    nodes: int
    survivors: tuple[int, ...] = ()
    failure: str | None = None
    faults: dict[int, str] = field(default_factory=dict)
    evidence: dict[int, tuple[Evidence, Transcript]] = field(default_factory=dict, repr=False)
    seconds: dict[str, float] = field(default_factory=dict)
    bytes_up: dict[str, int] = field(default_factory=dict)
    bytes_down: dict[str, int] = field(default_factory=dict)

    @property
    def exchanges(self) -> int:
        """How often the server sent messages and waited for replies."""
        return len(self.seconds)


class SecureRound:
    """Drive a session over messages to nodes.

    Args:
        session: a new session.
        asked: the strategy's messages, one a node.
        content: digest of what they say, which the session's context was made of.
        send: delivers messages.
        beacon: what the graph is drawn from where the session needs one.
        prepare: session_id -> the next round, where its keys shall ride on the last replies.
        joined: whether all nodes' keys are in the session already.
        threads: how many threads share the unmasking.
    """

    def __init__(
        self,
        session: ServerSession,
        asked: Sequence[Message],
        *,
        content: bytes,
        send: Send,
        beacon: Beacon | None = None,
        prepare: Callable[[bytes], Ahead] | None = None,
        joined: bool = False,
        threads: int = 1,
    ) -> None:
        self._session, self._send, self._beacon, self._threads = session, send, beacon, threads
        self._content, self._prepare, self._joined = content, prepare, joined
        self._finished: set[int] = set()
        self.ahead: Ahead | None = None
        self._asked = {int(message.metadata.dst_node_id): message for message in asked}
        # Who is who shows in the first replies where identities are the directory's, and is known else
        known = session.params.threat == "semi-honest"
        self._client_of: dict[int, int] = {node: node for node in self._asked} if known else {}
        self.report = RoundReport(nodes=len(asked))

    def run(self) -> RoundResult:
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
        return frozenset(self._asked) - self._finished

    @property
    def node_of(self) -> Mapping[int, int]:
        """Client id -> node, for the clients that joined."""
        return {client: node for node, client in self._client_of.items()}

    def _join(self) -> Mapping[int, bytes]:
        """Invite every node; that needs no client's id, as the invitation is the same for all."""
        asked = _invitation(self._session, self._content)
        return self._stage({node: (asked, RecordDict()) for node in self._asked}, "advertise_keys")

    def _exchange(self, requests: Mapping[int, bytes], step: str) -> Mapping[int, bytes]:
        stage = str(self._session.stage)
        nodes = self.node_of
        beside = self._invitation_ahead(stage)
        sent = {}
        for client_id, payload in requests.items():
            node = nodes[client_id]
            content = self._asked[node].content if stage == "masked_input" else beside
            sent[node] = (Envelope(step=step, payload=payload), content)
        return self._stage(sent, stage)

    def _invitation_ahead(self, stage: str) -> RecordDict:
        session_id = self._session.session_id
        if stage != "unmask" or self._prepare is None or session_id is None:
            return RecordDict()
        self.ahead = self._prepare(session_id)
        return self.ahead.invitation().put_into(RecordDict(), steps.FOLLOWING)

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
        replies = self._send(list(messages.values()), stage == "masked_input")
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
            if stage == "unmask":
                self._finished.add(node)
            if self.ahead is not None and steps.FOLLOWING in reply.content:
                keys = Envelope.take_from(reply.content, steps.FOLLOWING)
                self.report.bytes_up[stage] += len(keys.payload)
                self.ahead.session.receive(self._client_of[node], keys.payload)
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
        else:
            self._session.receive(client_id, answer.payload)

    def _message(self, node: int, envelope: Envelope, content: RecordDict) -> Message:
        asked = self._asked[node].metadata
        return Message(envelope.put_into(content), node, asked.message_type, ttl=asked.ttl, group_id=asked.group_id)


def _invitation(session: ServerSession, content: bytes) -> Envelope:
    # The invitation is the same for everybody, so any client's serves
    payload = next(iter(session.requests().values()))
    return Envelope(step=steps.JOIN, payload=payload, params=session.params.encode(), content=content)
