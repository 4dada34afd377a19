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
from typing import Any, Unpack

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode

from secagg.cohort import Threat
from secagg.errors import DecodeError, InputError, LocalProtocolError, SecAggError, ServerFault
from secagg.identity import Identity
from secagg.integrations.flower import envelope as steps
from secagg.integrations.flower.agreement import Agreement, Terms
from secagg.integrations.flower.envelope import Envelope
from secagg.integrations.flower.node import NodeSecrets, node_from_config
from secagg.integrations.flower.state import ContextStore, Kept, RoundRecord, SlotStore, Store
from secagg.integrations.flower.update import Model, update_vector
from secagg.session.answers import Answer, BeaconNeeded, InputNeeded, Reply
from secagg.session.client import ClientSession
from secagg.session.keeping import Keep
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
            and ``semi-honest`` where it has none. A protocol that signs in every model takes an identity in either.
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
            exchange = _Exchange(self, own, store, message, context, call_next)
            return exchange.join(asked, kept) if asked.step == steps.JOIN else exchange.go_on(asked, kept)
        finally:
            # A state that no step has replaced may serve again: a message was repeated, or refused, or the disk is full
            store.put_back()


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One message's handling. What it returns exists once the session's state is stored: the session sees to it."""

    member: _Member
    own: NodeSecrets
    store: Store
    message: Message
    context: Context
    call_next: CallNext

    def join(self, asked: Envelope, kept: Kept | None) -> RecordDict:
        """Answer an invitation; the same one again gets the same bytes, any other begins a new session."""
        if kept is not None and kept.invitation == _digest_of(asked):
            return self.go_on(asked, kept)
        return self._begin(asked).put_into(RecordDict())

    def go_on(self, asked: Envelope, kept: Kept | None) -> RecordDict:
        """Answer a later message of the session that is kept."""
        if kept is None:
            raise LocalProtocolError("no round is open on this node: it was finished, dismissed, or its state was lost")
        if asked.step == steps.DRAW and not kept.fixed:
            raise ServerFault("the beacon comes after the roster, which this client has not fixed")
        record = RoundRecord(self.store, replace(kept, session=b"", fixed=True))
        session = ClientSession.restore(kept.session, **self._brings(self._agreed(kept.params), record.keep))
        answer = session.receive(asked.payload)
        if isinstance(answer, BeaconNeeded) and asked.step == steps.DRAW:
            # The roster came again with the request: the session compares it with what it fixed
            answer = self._use_beacon(session, answer.session_id)
        reply = self._reply(session, record, answer).put_into(RecordDict())
        if session.stage is not None or asked.step == steps.JOIN:
            # An invitation that the upload has answered gets it again, until the round is dismissed or another begun
            return reply
        return self._end(reply, record.head, open_message(asked.payload)[0].session)

    def _begin(self, asked: Envelope, *, ahead: bool = False) -> Envelope:
        """Begin the session that an invitation is to, in the place of the one that is kept."""
        params, agreement = self._agreed(asked.params), self.member.agreement
        head = Kept(invitation=_digest_of(asked), content=asked.content, params=asked.params, ahead=ahead)
        record = RoundRecord(self.store, head)
        context = agreement.context(asked.content)
        session = ClientSession(params, context=context, **self._brings(params, record.keep))
        try:
            answer = session.receive(asked.payload)
        except ServerFault as problem:
            raise ServerFault(f"{problem} (both sides must name the same metrics and weighted_by)") from None
        return self._reply(session, record, answer)

    def _reply(self, session: ClientSession, record: RoundRecord, answer: Answer) -> Envelope:
        if isinstance(answer, InputNeeded):
            answer = self._submit(session, record)
        if isinstance(answer, BeaconNeeded):
            return Envelope(step=steps.FIXED)
        if not isinstance(answer, Reply):
            raise LocalProtocolError("the message left this client with nothing to send")
        return Envelope(step=steps.ANSWER, payload=answer.payload)

    def _end(self, reply: RecordDict, head: Kept, session_id: bytes) -> RecordDict:
        """End a round: its state goes, and where the next one is invited to already, that takes its place."""
        agreement = self.member.agreement
        if not agreement.pipelined or steps.FOLLOWING not in self.message.content:
            self.store.finish()
            return reply
        asked = Envelope.take_from(self.message.content, steps.FOLLOWING)
        if asked.step != steps.JOIN or asked.content != agreement.following(head.content, session_id):
            raise ServerFault("the next round does not follow this one: its model was another, or its session")
        return self._begin(asked, ahead=True).put_into(reply, steps.FOLLOWING)

    def _agreed(self, proposed: bytes) -> Any:
        """Return this node's own plan of a round that was proposed."""
        identity = self.own.identity
        cohort = None if identity is None or self._threat == "semi-honest" else len(identity.directory)
        return self.member.agreement.agreed(proposed, threat=self._threat, cohort=cohort)

    @property
    def _threat(self) -> Threat:
        """The model that this client insists on, whatever the server proposes."""
        return self.member.threat or ("semi-honest" if self.own.identity is None else "malicious-server")

    def _brings(self, params: Any, keep: Keep) -> dict[str, Any]:
        """Return what this node brings to a session, be it a new one or one that is restored."""
        wing, own = self.member.agreement.wing, self.own
        identified = wing.identified(self._threat)
        credentials = own.credentials(wing, params, identified=identified)
        client_id = self._place_in(own.identity) if identified else int(self.message.metadata.dst_node_id)
        return {"client_id": client_id, "keep": keep, "seal_key": own.seal_key, "credentials": credentials}

    @staticmethod
    def _place_in(identity: Identity | None) -> int:
        """Return the id under which the directory holds this node's key."""
        if identity is not None:
            for client_id, public in identity.directory.items():
                if public == identity.key.public:
                    return client_id
        raise InputError("the directory does not hold this node's key")

    def _use_beacon(self, session: ClientSession, session_id: bytes) -> Reply:
        if self.member.beacon is None:
            raise InputError("this graph is drawn from a public beacon, and secagg_mod was given none")
        return session.use_beacon(self.member.beacon(session_id))

    def _submit(self, session: ClientSession, record: RoundRecord) -> Reply:
        content = steps.without_envelope(self.message.content)
        metadata, head = self.message.metadata, record.head
        digest = steps.content_digest(metadata.run_id, metadata.message_type, content)
        if not head.ahead and digest != head.content:
            raise ServerFault("the train message is not the one that this round was begun for")
        model = Model.take_from(content)
        vector, weight = update_vector(model, self._train(content), self.member.agreement)
        record.head = replace(head, content=digest, ahead=False)
        return session.submit(vector, weight)

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


def _digest_of(invitation: Envelope) -> bytes:
    return hashlib.sha256(invitation.params + invitation.content + invitation.payload).digest()


def _store(own: NodeSecrets, context: Context, run_id: int) -> Store:
    if own.state is None:
        return ContextStore(context, run_id)
    return SlotStore(own.state, run_id=run_id, node_id=context.node_id)
