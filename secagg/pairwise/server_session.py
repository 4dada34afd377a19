"""The server's side of a round, for integrators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from secagg.errors import DecodeError, InputError, LocalProtocolError, PeerFault, StaleMessage, TooFewClients
from secagg.identity import Directory
from secagg.pairwise import server_states as states
from secagg.pairwise import server_steps as steps
from secagg.pairwise.evidence import Transcript
from secagg.pairwise.identifiers import check_beacon, round_id
from secagg.pairwise.masking import check_threads
from secagg.pairwise.params import RoundParams
from secagg.pairwise.recovery import unmask_sum
from secagg.pairwise.result import RoundResult
from secagg.pairwise.roster import authenticated, checked_directory, recipients, request_encoder
from secagg.pairwise.saved import load_server, save_server
from secagg.pairwise.transitions import SERVER_TRANSITIONS, ServerTransition
from secagg.pairwise.uploads import Upload, add_inputs, check_input
from secagg.primitives.randomness import Randomness, draw, system_randomness
from secagg.session.context import checked_context
from secagg.session.guard import Entry, Single, exclusive, in_own_process
from secagg.session.roster import Requests, checked_id, ordered_ids, pairs
from secagg.wire import ID_BYTES, SERVER, Buffer, Header, open_message

TOGETHER_BYTES = 1 << 25
"""How much of masked inputs ``receive_all`` holds before it adds them."""


class ServerSession(Single):
    """The server in one round: send ``requests()``, ``receive`` the replies, ``advance()`` when it is time.

    When to stop waiting is the caller's to decide: ``ready`` says that the stage may close, ``waiting_for`` who has not
    answered. ``result`` is there after the last ``advance``. The server learns the sum and who survived, nothing else.

    A new stage's requests leave only when the state behind them is durable (``save`` after ``advance``): a server that
    forgot an ``advance`` would draw another graph for the same session. The same goes for the invitations.

    Args:
        params: what the round runs with; ``params.clients`` ids are expected.
        roster: ids of the clients invited, each 0 to 2**64 - 2, no two alike.
        context: what the round is about; must equal every client's, and not be empty in the malicious-server model.
        directory: the identities of exactly the roster's clients; in the malicious-server model, and only there.
        randomness: source of the nonce and of the masking graph.

    Raises:
        InputError: an argument is not as described.
    """

    def __init__(
        self,
        params: RoundParams,
        roster: Iterable[int],
        *,
        context: bytes = b"",
        directory: Directory | None = None,
        randomness: Randomness = system_randomness,
    ) -> None:
        if not isinstance(params, RoundParams):
            raise InputError(f"params must be RoundParams, got {type(params).__name__}")
        ids = ordered_ids(roster, params.clients)
        digest = checked_context(context, required=params.threat == "malicious-server")
        nonce, ring_seed = draw(randomness, ID_BYTES), draw(randomness, ID_BYTES)
        self._round = states.Round(
            params=params,
            ids=ids,
            round_id=round_id(params, digest, nonce),
            nonce=nonce,
            ring_seed=ring_seed,
            context=digest,
            directory=checked_directory(params, ids, directory),
        )
        self._directory = directory
        self._randomness = randomness
        self._state: states.Collecting | states.Finished | states.Aborted = steps.open_round(self._round)
        self._index()

    def __repr__(self) -> str:
        return f"<ServerSession of {self.params.clients} clients: {type(self._state).__name__.lstrip('_')}>"

    @property
    def params(self) -> RoundParams:
        """What the round runs with."""
        return self._round.params

    @property
    def stage(self) -> str | None:
        """The stage of ``secagg.STAGES`` that is open; None once the round is done or aborted."""
        # Here and below the state is read once: another thread may be in ``advance``
        state = self._state
        return None if isinstance(state, states.Finished | states.Aborted) else self._transition_of(state).stage

    @property
    def waiting_for(self) -> tuple[int, ...]:
        """Ids of the clients that were sent this stage's request and have not answered."""
        state = self._state
        if isinstance(state, states.Finished | states.Aborted):
            return ()
        return tuple(self._round.ids[recipients(self._round, state) & ~state.received].tolist())

    @property
    def ready(self) -> bool:
        """Whether enough clients have answered for ``advance`` to close this stage."""
        state = self._state
        if isinstance(state, states.Finished | states.Aborted):
            return False
        try:
            steps.check_enough(self._round, state)
        except TooFewClients:
            return False
        return True

    @property
    def result(self) -> RoundResult:
        """The sum, and who is in it.

        Raises:
            LocalProtocolError: the round is not done.
        """
        state = self._state
        if not isinstance(state, states.Finished):
            raise LocalProtocolError("there is no result before the last stage is closed")
        return RoundResult.of(self._round, state)

    @in_own_process
    def requests(self) -> Mapping[int, bytes]:
        """Return what the open stage sends, by client id; the same bytes each time, also after ``restore``."""
        state = self._state
        if isinstance(state, states.Finished | states.Aborted):
            return {}
        session = self._session_of_request(state)
        header = Header(kind=self._transition_of(state).request, sender=SERVER, session=session)
        encode = request_encoder(self._round, state, header.encode())
        return Requests(self._round.ids, recipients(self._round, state), encode, self._entry.check_process)

    @exclusive
    def receive(self, client_id: SupportsIndex, payload: Buffer) -> None:
        """Fold in a client's reply to the open stage; a masked input is added at once and not kept.

        Args:
            client_id: whom the transport received it from.
            payload: the message, any contiguous buffer; it is not kept.

        Raises:
            StaleMessage: this client's reply is in already, or its stage is closed; ignore it.
            PeerFault: the message is malformed, of another session, or not from whom it says. It was not counted.
            LocalProtocolError: the session was aborted.
            InputError: ``client_id`` is no client's id.
        """
        accepted: dict[int, Upload] = {}
        self._take(client_id, payload, accepted)
        self._add(accepted)

    @exclusive
    def receive_all(self, replies: Iterable[tuple[SupportsIndex, Buffer]], *, threads: int = 1) -> list[PeerFault]:
        """Fold in replies as ``receive`` does, each pair a client's id and its message; several threads add the inputs.

        Inputs are taken up to 32 MiB at a time, then added and dropped: where ``replies`` makes them one by one, memory
        stays bounded. What is not ``bytes`` is added at once, so a buffer may be used again for the next reply.

        Args:
            replies: what the transport received, in any order.
            threads: how many threads share the adding of masked inputs.

        Returns:
            Why each reply that was not counted was refused, as ``receive`` would have raised it; all others count.

        Raises:
            LocalProtocolError, InputError: as for ``receive``; or ``threads`` is not a positive integer, or a reply no
                pair. Replies before that one count.
        """
        check_threads(threads)
        refused: list[PeerFault] = []
        accepted: dict[int, Upload] = {}
        held = 0
        with ThreadPoolExecutor(threads) as pool:  # it starts none before it is given work
            try:
                for client_id, payload in pairs(replies):
                    try:
                        held += self._take(client_id, payload, accepted)
                    except PeerFault as fault:
                        fault.stage = self.stage
                        refused.append(fault)
                    if held >= TOGETHER_BYTES:
                        self._add(accepted, pool, threads)
                        held = 0
            finally:
                self._add(accepted, pool, threads)
        return refused

    @exclusive
    def use_beacon(self, beacon: bytes) -> None:
        """Draw the graph from the public beacon that the clients use too, after ``advance`` has fixed the roster.

        Needed in the malicious-server model with a sparse graph alone. Save before replies are received. What clients
        sign names the beacon: shares and inputs made under another one are refused as PeerFault. A server that was
        itself given another beacon than its clients so refuses all of them and has lost nothing: restore the state that
        was saved before this call, and pass the right one.

        Raises:
            LocalProtocolError: no beacon is awaited now.
            InputError: it is not bytes, or shorter than 16.
        """
        check_beacon(beacon)
        if not isinstance(self._state, states.CollectingShares):
            raise LocalProtocolError("a beacon is used while the roster's answers are awaited")
        self._state = steps.use_beacon(self._round, self._state, beacon)

    @property
    def beacon_needed(self) -> bool:
        """Whether ``use_beacon`` must be called before replies can be received."""
        return isinstance(self._state, states.CollectingShares) and self._state.graph is None

    @property
    def session_id(self) -> bytes | None:
        """The session that the roster was fixed to; None before that, and after the end."""
        state = self._state
        if isinstance(state, states.CollectingKeys | states.Finished | states.Aborted):
            return None
        return state.session_id

    @in_own_process
    def transcript(self) -> Transcript:
        """Return what fixes this session, for third parties that check a fault's ``evidence`` against it.

        Raises:
            LocalProtocolError: the roster is not fixed, or the round is over; or the model has no evidence.
        """
        state = self._state
        if isinstance(state, states.CollectingKeys | states.Finished | states.Aborted) or self._directory is None:
            raise LocalProtocolError("a transcript is there while a malicious-server round has a roster and is open")
        return Transcript(
            params=self.params,
            context=self._round.context,
            nonce=self._round.nonce,
            roster=state.roster.encode_common(),
            directory=self._directory,
            beacon=state.beacon,
        )

    @exclusive
    def advance(self, *, threads: int = 1) -> Mapping[int, bytes]:
        """Close the open stage with whoever answered.

        Args:
            threads: how many threads share the unmasking of the last stage.

        Returns:
            The next stage's ``requests()``; empty when the round is done and ``result`` is there.

        Raises:
            TooFewClients: the stage cannot close yet; wait for more replies, or ``abort``.
            PeerFault: a client's shares rebuild something else than it advertised; when semi-honest, a suspicion,
                since a holder may have released a wrong one.
            InconsistentSum: the values cannot be a sum of inputs in range.
            LocalProtocolError: the round is done, or was aborted.
            InputError: ``threads`` is not a positive integer.
        """
        check_threads(threads)
        state = self._state
        if isinstance(state, states.CollectingKeys):
            self._state = steps.close_keys(self._round, state)
        elif isinstance(state, states.CollectingShares):
            self._state = steps.close_shares(self._round, state)
        elif isinstance(state, states.CollectingInputs):
            self._state = steps.close_inputs(self._round, state)
        elif isinstance(state, states.CollectingConsistency):
            self._state = steps.close_consistency(self._round, state)
        elif isinstance(state, states.CollectingUnmask):
            self._state = states.Finished(
                advertised=state.roster.advertised,
                shared=state.shared,
                survivors=state.survivors,
                asked=state.asked,
                answered=state.received,
                words=_frozen(unmask_sum(self._round, state, threads=threads)),
            )
        else:
            raise LocalProtocolError(
                "the round is done" if isinstance(state, states.Finished) else "the session was aborted"
            )
        return self.requests()

    @exclusive
    def abort(self) -> None:
        """Give the round up and forget everything that was received."""
        self._state = states.Aborted()

    @exclusive
    def save(self, *, seal_key: bytes | None = None) -> bytes:
        """Return this session as bytes: in the clear, or sealed under a 32-byte key.

        Raises:
            InputError: the key is not 32 bytes.
        """
        return save_server((self._round, self._state), seal_key=seal_key, randomness=self._randomness)

    @classmethod
    def restore(
        cls,
        saved: Buffer,
        *,
        seal_key: bytes | None = None,
        directory: Directory | None = None,
        randomness: Randomness = system_randomness,
    ) -> ServerSession:
        """Return the session that ``save`` wrote; the directory is not saved, so it is given again.

        Raises:
            DecodeError: the bytes are damaged, of another version, or sealed under another key.
            InputError: the directory is not the one that the session was built with, or
                ``saved`` is no buffer of bytes.
        """
        session = cls.__new__(cls)
        session._round, session._state = load_server(saved, seal_key=seal_key)
        if isinstance(session._state, states.Finished):
            _frozen(session._state.words)
        if checked_directory(session.params, session._round.ids, directory) != session._round.directory:
            raise InputError("the saved session was built with another directory")
        session._directory, session._randomness = directory, randomness
        session._index()
        return session

    def _index(self) -> None:
        self._entry = Entry("session")
        self._known_keys = steps.known_keys(self._state) if isinstance(self._state, states.CollectingKeys) else {}
        self._positions = {client_id: position for position, client_id in enumerate(self._round.ids.tolist())}

    def _transition_of(self, state: states.Collecting) -> ServerTransition:
        return SERVER_TRANSITIONS[self.params.threat][type(state)]

    def _session_of_request(self, state: states.Collecting) -> bytes:
        # A client computes the session's identifier from the roster, so the roster itself bears the round's
        if isinstance(state, states.CollectingInputs | states.CollectingConsistency | states.CollectingUnmask):
            return state.session_id
        return self._round.round_id

    def _take(self, client_id: SupportsIndex, payload: Buffer, accepted: dict[int, Upload]) -> int:
        """Check a message and fold it in, but put an input with ``accepted``; return the bytes that it holds there."""
        client_id = checked_id(client_id)
        position = self._positions.get(client_id)
        if position is None:
            raise PeerFault(client_id, "it is not in the roster")
        if isinstance(self._state, states.Aborted):
            raise LocalProtocolError("the session was aborted")
        try:
            header, body = open_message(payload)
        except DecodeError as problem:
            raise PeerFault(client_id, str(problem)) from None
        if header.sender != client_id:
            raise PeerFault(client_id, "its message names another sender")
        state = self._open_state(client_id, position, header)
        if position in accepted:
            raise StaleMessage(client_id, "its message is in already")
        beacon = steps.signed_beacon(state)
        body, hashed, signature = authenticated(self._directory, client_id, header, body, beacon=beacon)
        try:
            if not isinstance(state, states.CollectingInputs):
                steps.fold(self._round, state, position, body, signature, self._known_keys)
                return 0
            accepted[position] = check_input(self._round, state, position, body, hashed + signature)
        except DecodeError as problem:
            raise PeerFault(client_id, str(problem)) from None
        return len(body) if isinstance(payload, bytes) else TOGETHER_BYTES

    def _add(self, accepted: dict[int, Upload], pool: Executor | None = None, ranges: int = 1) -> None:
        state = self._state
        if not isinstance(state, states.CollectingInputs):
            return
        # After an interruption ``accepted`` may hold what was added already
        uploads = [upload for position, upload in accepted.items() if not state.received[position]]
        try:
            add_inputs(self._round, state, uploads, pool=pool, ranges=ranges)
        except BaseException:
            # Some input is in the accumulator in part: no sum can come of it
            self._state = states.Aborted()
            raise
        accepted.clear()

    def _open_state(self, client_id: int, position: int, header: Header) -> states.Collecting:
        state = self._state
        if isinstance(state, states.Finished | states.Aborted):
            raise StaleMessage(client_id, "its message came after the round")
        expected = self._transition_of(state).reply
        if header.kind != expected:
            replies = [transition.reply for transition in SERVER_TRANSITIONS[self.params.threat].values()]
            if header.kind in [kind for kind in replies if kind < expected]:
                raise StaleMessage(client_id, "its message came after the stage was closed")
            raise PeerFault(client_id, f"it sent message {header.kind} where {expected.name} is awaited")
        if not recipients(self._round, state)[position]:
            raise StaleMessage(client_id, "it dropped out at an earlier stage")
        session = self._round.round_id if isinstance(state, states.CollectingKeys) else state.session_id
        if header.session != session:
            raise PeerFault(client_id, "its message belongs to another session")
        if state.received[position]:
            raise StaleMessage(client_id, "its message is in already")
        return state


def _frozen(words: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    # Results hand the array out: a caller's slip must not change the session's own
    words.flags.writeable = False
    return words
