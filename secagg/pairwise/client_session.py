"""A client's side of a round, for integrators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from secagg.errors import DecodeError, InputError, LocalProtocolError, ServerFault
from secagg.identity import Identity
from secagg.pairwise import client_states as states
from secagg.pairwise import client_steps as steps
from secagg.pairwise import release
from secagg.pairwise.graph import CompleteGraph, beacon_ring, ring_neighbours
from secagg.pairwise.identifiers import check_beacon
from secagg.pairwise.messages import (
    Consistency,
    EncryptedShares,
    Invitation,
    KeyAdvertisement,
    Kind,
    RelayedShares,
    RelayedSignatures,
    Roster,
    UnmaskRequest,
    UnmaskShares,
)
from secagg.pairwise.params import RoundParams
from secagg.pairwise.pinned import checked_releases, client_directory
from secagg.pairwise.requests import Request, check_session, drawn_by_server, read_request
from secagg.pairwise.saved import Answers, load_client, save_client
from secagg.pairwise.transitions import CLIENT_TRANSITIONS, ClientTransition
from secagg.primitives.kdf import Label, digest
from secagg.primitives.randomness import Randomness, system_randomness
from secagg.session.answers import BeaconNeeded, InputNeeded, Reply
from secagg.session.context import checked_context
from secagg.session.guard import Entry, Single, exclusive
from secagg.session.roster import checked_id
from secagg.wire import HEADER_BYTES, SERVER, Buffer, Header, open_message

_Message = KeyAdvertisement | EncryptedShares | Consistency | UnmaskShares


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class _Progress:
    """How far a client is. State and answers change in one assignment: no interruption leaves one without the other.

    Attributes:
        state: what the client knows.
        answers: kind of request -> its digest, and the reply: None until there is one, and after it was delivered.
        clipped: the share of coordinates that were cut off.
    """

    state: states.ClientState
    answers: Answers
    clipped: float | None = None


class ClientSession(Single):
    """One client in one round: ``receive`` the server's payloads, ``submit`` the vector, send the replies.

    The state rule: a reply is returned together with a state that must be durable (``save``) before the reply leaves.
    The identical request then gets the identical reply, in this process or after ``restore``; a different one for a
    stage that was answered is refused. Restoring one saved state twice is outside the guarantee.

    Args:
        params: what this client agreed to; the server's invitation must be to exactly these.
        client_id: this client's id in the server's roster, 0 to 2**64 - 2.
        context: what the round is about, the hash of the model in training, say. Parties with different contexts never
            complete a round together. In the malicious-server model it must not be empty: nothing else keeps the server
            from sending each client another model.
        identity: this client's signing key and the directory that it pins; in the malicious-server model, and only
            there. The directory holds exactly the round's clients.
        earlier: what this client's sessions released before (``release``). One that was for the same context makes this
            client refuse survivors that differ from it by fewer than A + 2 clients, since the two sums would tell about
            one of them; without it nothing of the kind is refused.
        randomness: source of keys, seeds and rounding: the operating system's outside tests.

    Raises:
        InputError: an argument is not as described.
    """

    def __init__(
        self,
        params: RoundParams,
        client_id: SupportsIndex,
        *,
        context: bytes = b"",
        identity: Identity | None = None,
        earlier: Iterable[states.Release] = (),
        randomness: Randomness = system_randomness,
    ) -> None:
        if not isinstance(params, RoundParams):
            raise InputError(f"params must be RoundParams, got {type(params).__name__}")
        client_id = checked_id(client_id)
        self._party = states.Party(
            params=params,
            client_id=client_id,
            context=checked_context(context, required=params.threat == "malicious-server"),
            directory=client_directory(params, client_id, identity),
            earlier=checked_releases(earlier),
        )
        self._identity = identity
        self._progress = _Progress(state=states.Idle(), answers={})
        self._randomness = randomness
        self._entry = Entry("session")

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
        return self._transition.stage if self._transition else None

    @property
    def clipped(self) -> float | None:
        """The share of this client's coordinates that ``clip`` cut off, 0 to 1; None before ``submit``; kept local."""
        return self._progress.clipped

    @property
    def release(self) -> states.Release | None:
        """What this client released shares for, or signed that it would, for its later sessions; None before that."""
        state = self._state
        if isinstance(state, states.Checked):
            survivors = state.ids[state.survivors]
        elif isinstance(state, states.Released):
            survivors = state.survivors
        else:
            return None
        return states.Release(context=self._party.context, survivors=tuple(survivors.tolist()))

    @exclusive
    def receive(self, payload: Buffer) -> Reply | InputNeeded | BeaconNeeded:
        """Take in a message from the server.

        Returns:
            The reply to send; InputNeeded when it is time for ``submit``; BeaconNeeded when it is for ``use_beacon``,
            which happens in the malicious-server model with a sparse graph alone.

        Raises:
            ServerFault: it is no message of this round and stage, or breaks a rule; also a second, different request.
            PeerFault: a neighbour's keys or shares are not valid.
            TooFewClients: too few clients are left for this client to go on; it reveals nothing.
        """
        try:
            header, body = open_message(payload)
        except DecodeError as problem:
            raise ServerFault(f"not a message of this protocol: {problem}") from None
        if header.kind not in Kind.__members__.values():
            raise ServerFault(f"not a message of this protocol: no message is of kind {header.kind}")
        if header.sender != SERVER:
            raise ServerFault("the message is not from the server")
        kind, request = Kind(header.kind), digest(Label.REQUEST, header.encode(), body)
        if kind in self._answers:
            return self._repeat(kind, request)
        transition = self._transition
        if transition is None or transition.request is not kind:
            awaited = "nothing more" if transition is None else getattr(transition.request, "name", "its caller")
            raise ServerFault(f"{kind.name} came where this client awaits {awaited}")
        check_session(self._state, header)
        try:
            message = read_request(self._party.params, self._state, body)
        except DecodeError as problem:
            raise ServerFault(f"{kind.name} is malformed: {problem}") from None
        return self._step(kind, message, header.session, request)

    @exclusive
    def submit(self, vector: NDArray[np.floating], weight: SupportsIndex = 1, *, threads: int = 1) -> Reply:
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
        if not isinstance(state, states.Ready):
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
        if self._identity is not None:
            header = Header(kind=Kind.MASKED_INPUT, sender=self.client_id, session=state.session_id)
            body = memoryview(payload)[HEADER_BYTES:]
            payload += state.accepted + self._identity.sign(header, body, attached=state.accepted)
        request, _ = self._answers[Kind.RELAYED_SHARES]
        self._move(masked, Kind.RELAYED_SHARES, request, payload, clipped=clipped)
        return Reply(payload, "masked_input")

    @exclusive
    def use_beacon(self, beacon: bytes) -> Reply:
        """Draw the graph from a public beacon, and deal shares to the neighbours that it gives this client.

        What this client signs from here on names the beacon, so a server that was given another refuses it.

        Args:
            beacon: at least 16 bytes, unpublished when ``receive`` returned BeaconNeeded; the same for every party.

        Raises:
            LocalProtocolError: no beacon is awaited now.
            InputError: it is not as described.
            TooFewClients: fewer than t of the neighbourhood advertised.
            PeerFault: a neighbour's advertisement is not authentic, or its key is none of an honest client's.
        """
        state = self._state
        if not isinstance(state, states.Fixed):
            raise LocalProtocolError("a beacon is used once, after receive() returned BeaconNeeded")
        check_beacon(beacon)
        request, _ = self._answers[Kind.ROSTER]
        return self._share(state, request, beacon)

    @exclusive
    def delivered(self) -> None:
        """Drop the replies kept for retries: the caller knows that the server has them. Later repeats are refused."""
        kept: Answers = {kind: (request, None) for kind, (request, _) in self._answers.items()}
        self._progress = replace(self._progress, answers=kept)

    @exclusive
    def save(self, *, seal_key: bytes | None = None) -> bytes:
        """Return this session as bytes, which hold its secrets: in the clear, or sealed under a 32-byte key.

        Raises:
            InputError: the key is not 32 bytes.
        """
        progress = self._progress
        return save_client(
            (self._party, progress.state, progress.answers, progress.clipped),
            seal_key=seal_key,
            randomness=self._randomness,
        )

    @classmethod
    def restore(
        cls,
        saved: Buffer,
        client_id: SupportsIndex,
        *,
        seal_key: bytes | None = None,
        identity: Identity | None = None,
        randomness: Randomness = system_randomness,
    ) -> ClientSession:
        """Return the session that ``save`` wrote; a signing key is not saved, so the identity is given again.

        Args:
            saved: what ``save`` returned, as bytes, bytearray or memoryview.
            client_id: whose session it must be: where clients share a sealing key, nothing else tells them apart.
            seal_key: the key that it was sealed under.
            identity: what the session was built with.
            randomness: source of what is still drawn.

        Raises:
            DecodeError: the bytes are damaged, of another version, or sealed under another key.
            InputError: the state is another client's, the identity is not the one that the session was built with, or
                ``saved`` is no buffer of bytes.
        """
        client_id = checked_id(client_id)
        party, state, answers, clipped = load_client(saved, seal_key=seal_key)
        if party.client_id != client_id:
            raise InputError(f"the saved session is client {party.client_id}'s, not client {client_id}'s")
        if client_directory(party.params, party.client_id, identity) != party.directory:
            raise InputError("the saved session was built with another directory")
        session = cls.__new__(cls)
        session._party, session._identity, session._randomness = party, identity, randomness
        session._progress = _Progress(state=state, answers=answers, clipped=clipped)
        session._entry = Entry("session")
        return session

    @property
    def _state(self) -> states.ClientState:
        return self._progress.state

    @property
    def _answers(self) -> Answers:
        return self._progress.answers

    @property
    def _transition(self) -> ClientTransition | None:
        return CLIENT_TRANSITIONS[self.params.threat].get(type(self._state))

    def _repeat(self, kind: Kind, request: bytes) -> Reply | InputNeeded | BeaconNeeded:
        answered, reply = self._answers[kind]
        if request != answered:
            raise ServerFault(f"a second, different {kind.name} after one was answered")
        if reply is not None:
            return Reply(reply, self._stage_of(kind))
        if kind is Kind.RELAYED_SHARES and isinstance(self._state, states.Ready):
            return InputNeeded(int(self._state.shared.sum()))
        if kind is Kind.ROSTER and isinstance(self._state, states.Fixed):
            return BeaconNeeded(self._state.session_id)
        raise ServerFault(f"{kind.name} came again though its answer was delivered")

    def _step(self, kind: Kind, message: Request, session: bytes, request: bytes) -> Reply | InputNeeded | BeaconNeeded:
        party, state, identity = self._party, self._state, self._identity
        after: states.ClientState
        reply: _Message
        if isinstance(state, states.Idle) and isinstance(message, Invitation):
            after, reply = steps.advertise_keys(party, message, session, self._randomness)
        elif isinstance(state, states.Advertised) and isinstance(message, Roster):
            return self._fix_roster(state, message, request)
        elif isinstance(state, states.Shared) and isinstance(message, RelayedShares):
            return self._receive_shares(state, message, request)
        elif isinstance(state, states.Masked) and isinstance(message, UnmaskRequest):
            if identity is None:
                after, reply = release.unmask(party, state, message)
            else:
                after, reply = release.check_consistency(party, state, message)
        elif isinstance(state, states.Checked) and isinstance(message, RelayedSignatures) and identity is not None:
            after, reply = release.unmask_consistent(party, state, message, identity.directory)
        else:
            raise LocalProtocolError(f"{kind.name} has no step in state {type(state).__name__}")
        return self._answer(kind, request, after, reply, session)

    def _fix_roster(self, state: states.Advertised, roster: Roster, request: bytes) -> Reply | BeaconNeeded:
        if self._identity is not None and list(self._identity.directory) != roster.ids.tolist():
            raise ServerFault("the roster is not the directory's cohort")
        fixed = steps.fix_roster(self._party, state, roster)
        if self._party.params.graph == "harary" and not drawn_by_server(self._party.params):
            # Kept until the beacon comes, where all else that is kept was copied: the buffer is the caller's again
            own = replace(roster, entries=roster.entries.copy())
            self._move(replace(fixed, roster=own), Kind.ROSTER, request, None)
            return BeaconNeeded(fixed.session_id)
        return self._share(fixed, request, None)

    def _share(self, state: states.Fixed, request: bytes, beacon: bytes | None) -> Reply:
        params, roster = self._party.params, state.roster
        if beacon is not None:
            ring = beacon_ring(params.clients, state.session_id, beacon)
            neighbourhood = ring_neighbours(ring, params.neighbours, state.position)
        elif roster.neighbours is not None:
            neighbourhood = roster.neighbours
        else:
            neighbourhood = CompleteGraph(params.clients).neighbours(state.position)
        after, message = steps.share_keys(
            self._party, state, neighbourhood, self._randomness, identity=self._identity, beacon=beacon
        )
        return self._answer(Kind.ROSTER, request, after, message, state.session_id, attached=after.beacon)

    def _receive_shares(self, state: states.Shared, relay: RelayedShares, request: bytes) -> InputNeeded:
        directory = None if self._identity is None else self._identity.directory
        ready = steps.receive_shares(self._party, state, relay, directory)
        self._move(ready, Kind.RELAYED_SHARES, request, None)
        return InputNeeded(int(relay.shared.sum()))

    def _answer(
        self,
        request_kind: Kind,
        request: bytes,
        after: states.ClientState,
        message: _Message,
        session: bytes,
        *,
        attached: bytes = b"",
    ) -> Reply:
        header = Header(kind=_REPLY_TO[type(message)], sender=self._party.client_id, session=session)
        body = message.encode()
        signature = b"" if self._identity is None else self._identity.sign(header, body, attached=attached)
        payload = header.encode() + body + signature
        self._move(after, request_kind, request, payload)
        return Reply(payload, self._stage_of(request_kind))

    def _move(
        self,
        after: states.ClientState,
        kind: Kind,
        request: bytes,
        reply: bytes | None,
        *,
        clipped: float | None = None,
    ) -> None:
        """Go to the next state, and keep the answer that led there."""
        before = self._progress
        self._progress = _Progress(
            state=after,
            answers={**before.answers, kind: (request, reply)},
            clipped=before.clipped if clipped is None else clipped,
        )

    def _stage_of(self, request: Kind) -> str:
        table = CLIENT_TRANSITIONS[self.params.threat].values()
        return next(transition.stage for transition in table if transition.request is request)

    def _header(self, kind: Kind, session: bytes) -> bytes:
        return Header(kind=kind, sender=self._party.client_id, session=session).encode()


_REPLY_TO: Mapping[type[_Message], Kind] = {
    KeyAdvertisement: Kind.KEY_ADVERTISEMENT,
    EncryptedShares: Kind.ENCRYPTED_SHARES,
    Consistency: Kind.CONSISTENCY,
    UnmaskShares: Kind.UNMASK_SHARES,
}
