"""A client's side of a round, for integrators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secagg import snapshot
from secagg.errors import DecodeError, InputError, LocalProtocolError, ServerFault
from secagg.pairwise import client as steps
from secagg.pairwise.identifiers import context_digest
from secagg.pairwise.messages import (
    EncryptedShares,
    Invitation,
    KeyAdvertisement,
    Kind,
    RelayedShares,
    Roster,
    UnmaskRequest,
    UnmaskShares,
)
from secagg.pairwise.transitions import CLIENT_TRANSITIONS
from secagg.params import FixedPoint, RoundParams
from secagg.primitives.kdf import Label, digest
from secagg.primitives.randomness import Randomness, system_randomness
from secagg.wire import SERVER, Buffer, Header, open_message

_SAVED_TYPES = {
    kind.__name__: kind
    for kind in (
        RoundParams,
        FixedPoint,
        steps.Party,
        steps.Idle,
        steps.Advertised,
        steps.Shared,
        steps.Ready,
        steps.Masked,
        steps.Released,
    )
}
_PURPOSE = b"client session"


@dataclass(frozen=True, slots=True)
class Reply:
    """Bytes for the server. Make ``ClientSession.save()`` durable before they leave.

    Attributes:
        payload: the message.
        stage: the stage of ``secagg.STAGES`` that it answers.
    """

    payload: bytes
    stage: str

    def __repr__(self) -> str:
        return f"Reply({len(self.payload)} bytes, stage={self.stage!r})"


@dataclass(frozen=True, slots=True)
class InputNeeded:
    """The server waits for this client's vector: train now if need be, then call ``ClientSession.submit``.

    Attributes:
        clients: how many clients are still in the round.
    """

    clients: int


class ClientSession:
    """One client in one round: ``receive`` the server's payloads, ``submit`` the vector, send the replies.

    The state rule: a reply is returned together with a state that must be durable (``save``) before the reply leaves.
    The identical request then gets the identical reply, in this process or after ``restore``; a different one for a
    stage that was answered is refused. Restoring one saved state twice is outside the guarantee.

    Args:
        params: what this client agreed to; the server's invitation must be to exactly these.
        client_id: this client's id in the server's roster, 0 to 2**64 - 2.
        context: what the round is about, the hash of the model in training, say. Parties with different contexts never
            complete a round together.
        randomness: source of keys, seeds and rounding: the operating system's outside tests.

    Raises:
        InputError: an argument is not as described.
    """

    def __init__(
        self,
        params: RoundParams,
        client_id: int,
        *,
        context: bytes = b"",
        randomness: Randomness = system_randomness,
    ) -> None:
        if not isinstance(params, RoundParams):
            raise InputError(f"params must be RoundParams, got {type(params).__name__}")
        if isinstance(client_id, bool) or not hasattr(client_id, "__index__") or not 0 <= int(client_id) < SERVER:
            raise InputError(f"client_id must be an integer in [0, 2**64 - 2], got {client_id!r}")
        if not isinstance(context, bytes):
            raise InputError(f"context must be bytes, got {type(context).__name__}")
        self._party = steps.Party(params=params, client_id=int(client_id), context=context_digest(context))
        self._state: steps.ClientState = steps.Idle()
        self._answers: dict[Kind, tuple[bytes, bytes | None]] = {}
        self._clipped: float | None = None
        self._randomness = randomness

    def __repr__(self) -> str:
        return f"<ClientSession of client {self.client_id}: {type(self._state).__name__}>"

    @property
    def params(self) -> RoundParams:
        """What this client agreed to."""
        return self._party.params

    @property
    def client_id(self) -> int:
        """This client's id."""
        return self._party.client_id

    @property
    def stage(self) -> str | None:
        """The stage whose message this client sends next; None once it has sent all."""
        transition = CLIENT_TRANSITIONS.get(type(self._state))
        return transition.stage if transition else None

    @property
    def clipped(self) -> float | None:
        """The share of this client's coordinates that ``clip`` cut off, 0 to 1; None before ``submit``; kept local."""
        return self._clipped

    def receive(self, payload: Buffer) -> Reply | InputNeeded:
        """Take in a message from the server.

        Returns:
            The reply to send, or InputNeeded when it is time for ``submit``.

        Raises:
            ServerFault: it is no message of this round and stage, or breaks a rule; also a second, different request.
            PeerFault: a neighbour's keys or shares are not valid.
            TooFewClients: too few clients are left for this client to go on; it reveals nothing.
        """
        try:
            header, body = open_message(payload)
            kind = Kind(header.kind)
        except (DecodeError, ValueError) as problem:
            raise ServerFault(f"not a message of this protocol: {problem}") from None
        if header.sender != SERVER:
            raise ServerFault("the message is not from the server")
        request = digest(Label.REQUEST, header.encode(), bytes(body))
        if kind in self._answers:
            return self._repeat(kind, request)
        transition = CLIENT_TRANSITIONS.get(type(self._state))
        if transition is None or transition.request is not kind:
            awaited = "nothing more" if transition is None else (transition.request or Kind.MASKED_INPUT).name
            raise ServerFault(f"{kind.name} came where this client awaits {awaited}")
        try:
            return self._step(kind, header, body, request)
        except DecodeError as problem:
            raise ServerFault(f"{kind.name} is malformed: {problem}") from None

    def submit(self, vector: NDArray[np.floating], weight: int = 1, *, threads: int = 1) -> Reply:
        """Mask this client's vector, once.

        Args:
            vector: float32[d] or float64[d], finite; coordinates beyond the encoding's clip are cut (see ``clipped``).
            weight: how often the vector counts, 1 to ``params.max_weight``.
            threads: how many threads share the work during this call.

        Returns:
            The upload to send.

        Raises:
            LocalProtocolError: no vector is awaited now.
            InputError: the vector or the weight is not as described; nothing has changed, submit again.
            PeerFault: a neighbour's key is not valid.
        """
        state = self._state
        if not isinstance(state, steps.Ready):
            raise LocalProtocolError("a vector is submitted once, after receive() returned InputNeeded")
        masked, payload, clipped = steps.mask_input(
            self._party,
            state,
            vector,
            weight,
            self._randomness,
            prefix=self._header(Kind.MASKED_INPUT, state.session_id),
            threads=threads,
        )
        request, _ = self._answers[Kind.RELAYED_SHARES]
        self._state, self._clipped = masked, clipped
        self._answers[Kind.RELAYED_SHARES] = (request, payload)
        return Reply(payload, "masked_input")

    def delivered(self) -> None:
        """Drop the replies kept for retries: the caller knows that the server has them. Later repeats are refused."""
        self._answers = {
            kind: (request, None if isinstance(reply, bytes) else reply)
            for kind, (request, reply) in self._answers.items()
        }

    def save(self, *, seal_key: bytes | None = None) -> bytes:
        """Return this session as bytes, which hold its secrets: in the clear, or sealed under a 32-byte key.

        Raises:
            InputError: the key is not 32 bytes.
        """
        answers = {kind.name: answer for kind, answer in self._answers.items()}
        clipped = None if self._clipped is None else float(self._clipped)
        return snapshot.save(
            (self._party, self._state, answers, clipped),
            types=_SAVED_TYPES,
            purpose=_PURPOSE,
            seal_key=seal_key,
            randomness=self._randomness,
        )

    @classmethod
    def restore(
        cls, saved: bytes, *, seal_key: bytes | None = None, randomness: Randomness = system_randomness
    ) -> ClientSession:
        """Return the session that ``save`` wrote.

        Raises:
            DecodeError: the bytes are damaged, of another version, or sealed under another key.
        """
        party, state, answers, clipped = snapshot.load(saved, types=_SAVED_TYPES, purpose=_PURPOSE, seal_key=seal_key)
        session = cls.__new__(cls)
        session._party, session._state, session._clipped = party, state, clipped
        session._answers = {Kind[name]: answer for name, answer in answers.items()}
        session._randomness = randomness
        return session

    def _repeat(self, kind: Kind, request: bytes) -> Reply | InputNeeded:
        answered, reply = self._answers[kind]
        if request != answered:
            raise ServerFault(f"a second, different {kind.name} after one was answered")
        if reply is not None:
            return Reply(reply, _STAGE_OF[kind])
        if kind is Kind.RELAYED_SHARES and isinstance(self._state, steps.Ready):
            return InputNeeded(int(self._state.shared.sum()))
        raise ServerFault(f"{kind.name} came again though its answer was delivered")

    def _step(self, kind: Kind, header: Header, body: memoryview, request: bytes) -> Reply | InputNeeded:
        party, state = self._party, self._state
        after: steps.ClientState
        message: KeyAdvertisement | EncryptedShares | UnmaskShares
        if isinstance(state, steps.Idle):
            after, message = steps.advertise_keys(party, Invitation.decode(body), header.session, self._randomness)
            session = header.session
        elif isinstance(state, steps.Advertised):
            self._check_session(header, state.round_id)
            sparse = 0 if party.params.graph == "complete" else party.params.neighbours
            roster = Roster.decode(body, clients=party.params.clients, sparse_neighbours=sparse)
            after, message = steps.share_keys(party, state, roster, self._randomness)
            session = after.session_id
        elif isinstance(state, steps.Shared):
            self._check_session(header, state.session_id)
            relay = RelayedShares.decode(body, clients=party.params.clients, neighbours=state.neighbours)
            self._state = steps.receive_shares(party, state, relay)
            self._answers[kind] = (request, None)
            return InputNeeded(int(relay.shared.sum()))
        elif isinstance(state, steps.Masked):
            self._check_session(header, state.session_id)
            after, message = steps.unmask(party, state, UnmaskRequest.decode(body, clients=party.params.clients))
            session = state.session_id
        else:
            raise ServerFault(f"{kind.name} came where nothing is awaited")
        transition = CLIENT_TRANSITIONS[type(state)]
        payload = self._header(transition.reply or kind, session) + message.encode()
        self._state = after
        self._answers[kind] = (request, payload)
        return Reply(payload, transition.stage)

    def _header(self, kind: Kind, session: bytes) -> bytes:
        return Header(kind=kind, sender=self._party.client_id, session=session).encode()

    @staticmethod
    def _check_session(header: Header, expected: bytes) -> None:
        if header.session != expected:
            raise ServerFault("the message belongs to another session, or the roster was not the same for everybody")


_STAGE_OF: Mapping[Kind, str] = {
    transition.request: transition.stage for transition in CLIENT_TRANSITIONS.values() if transition.request is not None
}
