"""The client's side: a Flower modifier that answers the protocol's messages and lets the app train when it is time.

Whatever goes wrong is answered with one of Flower's errors, in words that hold no secret: Flower sends exceptions'
texts to the server, so nothing is raised, and the app's own exceptions are told by their type alone.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Unpack

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode

from secagg.cohort import Threat
from secagg.errors import DecodeError, InputError, LocalProtocolError, SecAggError, ServerFault
from secagg.identity import Identity
from secagg.integrations.flower import envelope as steps
from secagg.integrations.flower.agreement import Agreement, Terms
from secagg.integrations.flower.envelope import Envelope
from secagg.integrations.flower.node import NodeSecrets, node_from_config
from secagg.integrations.flower.state import ContextStore, Kept, SlotStore, Store
from secagg.integrations.flower.update import Model, update_vector
from secagg.pairwise.client_session import ClientSession
from secagg.session.answers import BeaconNeeded, InputNeeded, Reply
from secagg.wire import open_message

CallNext = Callable[[Message, Context], Message]
Mod = Callable[[Message, Context, CallNext], Message]
Beacon = Callable[[bytes], bytes]

_logger = logging.getLogger("flwr")


def secagg_mod(
    *,
    threat: Threat | None = None,
    node: Callable[[Context], NodeSecrets] = node_from_config,
    beacon: Beacon | None = None,
    **terms: Unpack[Terms],
) -> Mod:
    """Return a modifier for ``ClientApp(mods=[...])``: train messages are answered through the secure sum alone.

    Evaluate and query messages pass through untouched. A train message outside a secure sum is refused.

    Args:
        threat: the model that this client insists on; by default ``malicious-server`` where the node has an identity
            and ``semi-honest`` where it has none.
        node: what this node keeps to itself, from its context; by default from the node's own configuration.
        beacon: session_id -> at least 16 public bytes that nobody could know when it is called first; needed in the
            malicious-server model with a sparse graph (40 clients and more) alone.
        **terms: see ``Agreement``; the same as the server's.

    Raises:
        ParameterError: a term lies outside its range, or does not hold in the threat model.
    """
    agreement = Agreement(**terms)
    if threat is not None:
        agreement.check_threat(threat)
    member = _Member(agreement=agreement, threat=threat, node=node, beacon=beacon)

    def answer(message: Message, context: Context, call_next: CallNext) -> Message:
        if not steps.is_train(message):
            return call_next(message, context)
        try:
            return Message(member.answer(message, context, call_next), reply_to=message)
        except SecAggError as problem:
            reason = f"{type(problem).__name__}: {problem}"
        except Exception as problem:
            reason = f"{type(problem).__name__} on the node, whose own log says more"
            _logger.error("secure aggregation failed", exc_info=problem)
        return Message(Error(code=ErrorCode.MOD_FAILED_PRECONDITION, reason=f"secagg: {reason}"), reply_to=message)

    return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    agreement: Agreement
    threat: Threat | None
    node: Callable[[Context], NodeSecrets]
    beacon: Beacon | None

    def answer(self, message: Message, context: Context, call_next: CallNext) -> RecordDict:
        try:
            asked = Envelope.take_from(message.content)
        except DecodeError as problem:
            raise ServerFault(f"this client trains within secure sums alone: {problem}") from None
        own = self.node(context)
        store = _store(own, context, message.metadata.run_id)
        if asked.step == steps.DISMISS:
            store.wipe()
            return Envelope(step=steps.DISMISS).put_into(RecordDict())
        try:
            kept = store.take()
            exchange = _Exchange(self, own, message, context, call_next)
            reply, after = exchange.join(asked, kept) if asked.step == steps.JOIN else exchange.go_on(asked, kept)
            if after is None:
                store.finish()
            else:
                store.put(after)
        except BaseException:
            # Nothing was answered, be it that the disk is full: the state that was claimed may serve again
            store.put_back()
            raise
        return reply


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One message's handling. What it returns is the reply and the state to make durable first, None to wipe it."""

    member: _Member
    own: NodeSecrets
    message: Message
    context: Context
    call_next: CallNext

    def join(self, asked: Envelope, kept: Kept | None) -> tuple[RecordDict, Kept | None]:
        """Answer an invitation; the same one again gets the same bytes, any other begins a new session."""
        if kept is not None and kept.invitation == _digest_of(asked):
            return self.go_on(asked, kept)
        reply, after = self._begin(asked)
        return reply.put_into(RecordDict()), after

    def go_on(self, asked: Envelope, kept: Kept | None) -> tuple[RecordDict, Kept | None]:
        """Answer a later message of the session that is kept."""
        if kept is None:
            raise LocalProtocolError("no round is open on this node: it was finished, dismissed, or its state was lost")
        session = ClientSession.restore(
            kept.session, self._client_id(), seal_key=self.own.seal_key, identity=self._identity
        )
        if asked.step == steps.DRAW and not kept.fixed:
            raise ServerFault("the beacon comes after the roster, which this client has not fixed")
        answer = session.receive(asked.payload)
        if isinstance(answer, BeaconNeeded) and asked.step == steps.DRAW:
            # The roster came again with the request: the session compares it with what it fixed
            answer = self._use_beacon(session, answer.session_id)
        if isinstance(answer, InputNeeded):
            answer, kept = self._submit(session, kept)
        if isinstance(answer, BeaconNeeded):
            return Envelope(step=steps.FIXED).put_into(RecordDict()), self._kept(session, replace(kept, fixed=True))
        reply = Envelope(step=steps.ANSWER, payload=answer.payload).put_into(RecordDict())
        if session.stage is not None:
            return reply, self._kept(session, kept)
        return self._go_ahead(reply, kept, open_message(asked.payload)[0].session)

    def _begin(self, asked: Envelope, *, ahead: bool = False) -> tuple[Envelope, Kept]:
        cohort = None if self._identity is None else len(self._identity.directory)
        params = self.member.agreement.agreed(asked.params, threat=self._threat, cohort=cohort)
        context = self.member.agreement.context(asked.content)
        session = ClientSession(params, self._client_id(), context=context, identity=self._identity)
        try:
            answer = session.receive(asked.payload)
        except ServerFault as problem:
            raise ServerFault(f"{problem} (both sides must name the same metrics and weighted_by)") from None
        if not isinstance(answer, Reply):  # pragma: no cover - an invitation is answered with keys
            raise LocalProtocolError("an invitation was not answered with keys")
        kept = Kept(invitation=_digest_of(asked), content=asked.content, session=b"", ahead=ahead)
        return Envelope(step=steps.ANSWER, payload=answer.payload), self._kept(session, kept)

    def _go_ahead(self, reply: RecordDict, kept: Kept, session_id: bytes) -> tuple[RecordDict, Kept | None]:
        """End a round: its state is wiped, and where the next one is invited to already, its keys go along."""
        agreement = self.member.agreement
        if not agreement.pipelined or steps.FOLLOWING not in self.message.content:
            return reply, None
        asked = Envelope.take_from(self.message.content, steps.FOLLOWING)
        if asked.step != steps.JOIN or asked.content != agreement.following(kept.content, session_id):
            raise ServerFault("the next round does not follow this one: its model was another, or its session")
        ahead, after = self._begin(asked, ahead=True)
        return ahead.put_into(reply, steps.FOLLOWING), after

    @property
    def _threat(self) -> Threat:
        """The model that this client insists on, whatever the server proposes."""
        return self.member.threat or ("semi-honest" if self.own.identity is None else "malicious-server")

    @property
    def _identity(self) -> Identity | None:
        return self.own.identity if self._threat == "malicious-server" else None

    def _client_id(self) -> int:
        """Return this client's id: its node's in the semi-honest model, else where the directory has its key."""
        identity = self.own.identity
        if self._threat == "semi-honest":
            return int(self.message.metadata.dst_node_id)
        if identity is None:
            raise InputError("the malicious-server model needs an identity, and this node has none")
        for client_id, public in identity.directory.items():
            if public == identity.key.public:
                return client_id
        raise InputError("the directory does not hold this node's key")

    def _use_beacon(self, session: ClientSession, session_id: bytes) -> Reply:
        if self.member.beacon is None:
            raise InputError("this graph is drawn from a public beacon, and secagg_mod was given none")
        return session.use_beacon(self.member.beacon(session_id))

    def _submit(self, session: ClientSession, kept: Kept) -> tuple[Reply, Kept]:
        content = steps.without_envelope(self.message.content)
        metadata = self.message.metadata
        digest = steps.content_digest(metadata.run_id, metadata.message_type, content)
        if not kept.ahead and digest != kept.content:
            raise ServerFault("the train message is not the one that this round was begun for")
        model = Model.take_from(content)
        vector, weight = update_vector(model, self._train(content), self.member.agreement)
        return session.submit(vector, weight), replace(kept, content=digest, ahead=False)

    def _train(self, content: RecordDict) -> RecordDict:
        """Let the app train; what it raises stays here, for its text could hold records."""
        message = copy.copy(self.message)
        message.content = content
        try:
            reply = self.call_next(message, self.context)
            if reply.has_content():
                return reply.content
            failure = "answered with an error"
        except Exception as problem:
            failure = f"raised {type(problem).__name__}"
            _logger.error("training failed", exc_info=problem)
        raise LocalProtocolError(f"the app's train function {failure}; the node's own log says more")

    def _kept(self, session: ClientSession, kept: Kept) -> Kept:
        return replace(kept, session=session.save(seal_key=self.own.seal_key))


def _digest_of(invitation: Envelope) -> bytes:
    return hashlib.sha256(invitation.params + invitation.content + invitation.payload).digest()


def _store(own: NodeSecrets, context: Context, run_id: int) -> Store:
    if own.state is None:
        return ContextStore(context, run_id)
    return SlotStore(own.state, run_id=run_id, node_id=context.node_id)
