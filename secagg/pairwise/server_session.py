"""The server's side of a pairwise round."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from typing import Any, SupportsIndex

from secagg.errors import DecodeError, InputError, LocalProtocolError, PeerFault, StaleMessage, TooFewClients
from secagg.identity import Directory
from secagg.pairwise import server_states as states
from secagg.pairwise import server_steps as steps
from secagg.pairwise.authentication import authenticated
from secagg.pairwise.credentials import server_directory
from secagg.pairwise.evidence import Transcript
from secagg.pairwise.identifiers import check_beacon, round_id
from secagg.pairwise.params import RoundParams
from secagg.pairwise.result import RoundResult
from secagg.pairwise.saved import load_server, save_server
from secagg.pairwise.server_table import Arrival, ServerRow, by_state, server_table
from secagg.pairwise.uploads import Upload, add_inputs
from secagg.primitives.randomness import Randomness, draw
from secagg.session.context import checked_context
from secagg.session.guard import exclusive, in_own_process
from secagg.session.roster import Requests, checked_id, ordered_ids
from secagg.session.server import TOGETHER_BYTES, ServerSession, Stand
from secagg.snapshot import SavedState
from secagg.wire import ID_BYTES, SERVER, Buffer, Header, open_message


class PairwiseServerSession(ServerSession):
    """The server in one round of SecAgg or SecAgg+; see ``secagg.ServerSession``, which makes it.

    Its credentials are the ``Directory`` of exactly the roster's clients in the malicious-server model, else None.
    """

    def _open(
        self, params: RoundParams, roster: Iterable[int], context: bytes, randomness: Randomness, credentials: Any
    ) -> states.CollectingKeys:
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
            directory=server_directory(params, ids, credentials),
        )
        state = steps.open_round(self._round)
        self._index(state, credentials)
        return state

    def _reopen(self, saved: Buffer, seal_key: bytes | None, credentials: Any) -> states.ServerState:
        self._round, state = load_server(saved, seal_key=seal_key)
        if isinstance(state, states.Finished):
            # Results hand the array out: a caller's slip must not change the session's own
            state.words.flags.writeable = False
        if server_directory(self.params, self._round.ids, credentials) != self._round.directory:
            raise InputError("the saved session was built with another directory")
        self._index(state, credentials)
        return state

    def _index(self, state: states.ServerState, directory: Directory | None) -> None:
        self._directory, self._rows = directory, by_state(server_table(self.params))
        self._known_keys = steps.known_keys(state) if isinstance(state, states.CollectingKeys) else {}
        self._positions = {client_id: position for position, client_id in enumerate(self._round.ids.tolist())}

    def __repr__(self) -> str:
        return f"<ServerSession of {self.params.clients} clients: {type(self._state).__name__}>"

    @property
    def params(self) -> RoundParams:
        """What the round runs with."""
        return self._round.params

    @property
    def stage(self) -> str | None:
        """The stage of ``secagg.STAGES`` that is open; None once the round is done or aborted."""
        here = self._rows.get(type(self._state))
        return None if here is None else here[1].stage

    @property
    def waiting_for(self) -> tuple[int, ...]:
        """Ids of the clients that were sent this stage's request and have not answered."""
        # Here and below the state is read once: another thread may be in ``advance``
        state = self._state
        here = self._rows.get(type(state))
        if here is None:
            return ()
        return tuple(self._round.ids[here[1].recipients(self._round, state) & ~state.received].tolist())

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

    @exclusive
    def use_beacon(self, beacon: bytes) -> None:
        """Draw the graph from the public beacon that the clients use too, after ``advance`` has fixed the roster.

        Needed in the malicious-server model with a sparse graph alone. What clients sign names the beacon: shares and
        inputs made under another one are refused as PeerFault. A server that was itself given another beacon than its
        clients so refuses all of them and has lost nothing: restore the state that was kept before this call, and pass
        the right one. The drawn graph is kept as a stage is; with ``keep=DEFERRED`` this returns a ``Pending``.

        Raises:
            LocalProtocolError: no beacon is awaited now; or another call's step waits for its state to be kept.
            InputError: it is not bytes, or shorter than 16.
        """
        check_beacon(beacon)
        if held := self._held_step(lambda: ("use_beacon", beacon)):
            settled: None = self._settle(held)
            return settled
        if not isinstance(self._state, states.CollectingShares):
            raise LocalProtocolError("a beacon is used while the roster's answers are awaited")
        after = self._replaced(steps.use_beacon(self._round, self._state, beacon))
        return self._step(lambda: ("use_beacon", beacon), after, None)

    @property
    def beacon_needed(self) -> bool:
        """Whether ``use_beacon`` must be called before replies can be received."""
        state = self._state
        return isinstance(state, states.CollectingShares) and state.session.graph is None

    @property
    def session_id(self) -> bytes | None:
        """The session that the roster was fixed to; None before that, and after the end."""
        state = self._state
        if isinstance(state, states.CollectingKeys | states.Finished | states.Aborted):
            return None
        session: bytes = state.session_id
        return session

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

    def _requests(self, state: states.ServerState) -> Mapping[int, bytes]:
        here = self._rows.get(type(state))
        if here is None or isinstance(state, states.Finished | states.Aborted):
            return {}
        row = here[1]
        # A client computes the session's identifier from the roster, so the roster itself bears the round's
        if isinstance(state, states.CollectingKeys | states.CollectingShares):
            session = self._round.round_id
        else:
            session = state.session_id
        header = Header(kind=row.request, sender=SERVER, session=session).encode()
        encode = row.encode(self._round, state)
        return Requests(
            self._round.ids,
            row.recipients(self._round, state),
            lambda position: header + encode(position),
            self._entry.check_process,
        )

    def _take(self, client_id: SupportsIndex, payload: Buffer, accepted: dict[int, Upload]) -> int:
        client_id = checked_id(client_id)
        position = self._positions.get(client_id)
        if position is None:
            raise PeerFault(client_id, "it is not in the roster")
        state = self._line[0].state
        if type(state) is states.Aborted:
            raise LocalProtocolError("the session was aborted")
        try:
            header, body = open_message(payload)
        except DecodeError as problem:
            raise PeerFault(client_id, str(problem)) from None
        if header.sender != client_id:
            raise PeerFault(client_id, "its message names another sender")
        row = self._open_row(state, client_id, position, header)
        if position in accepted:
            raise StaleMessage(client_id, "its message is in already")
        beacon = steps.signed_beacon(state)
        body, hashed, signature = authenticated(self._directory, client_id, header, body, beacon=beacon)
        arrival = Arrival(self._round, state, position, body, hashed, signature, self._known_keys)
        try:
            upload = row.fold(arrival)
        except DecodeError as problem:
            raise PeerFault(client_id, str(problem)) from None
        if upload is None:
            return 0
        accepted[position] = upload
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
            self._at = Stand(state=states.Aborted(), kept=True)
            raise
        accepted.clear()

    def _open_row(self, state: Any, client_id: int, position: int, header: Header) -> ServerRow:
        here = self._rows.get(type(state))
        if here is None:
            raise StaleMessage(client_id, "its message came after the round")
        expected, row = here
        if header.kind != expected:
            # In the order of the stages: what comes before the reply that is awaited is late
            if header.kind in [reply for reply, _ in self._rows.values() if reply < expected]:
                raise StaleMessage(client_id, "its message came after the stage was closed")
            raise PeerFault(client_id, f"it sent message {header.kind} where {expected.name} is awaited")
        if not row.recipients(self._round, state)[position]:
            raise StaleMessage(client_id, "it dropped out at an earlier stage")
        session = self._round.round_id if isinstance(state, states.CollectingKeys) else state.session_id
        if header.session != session:
            raise PeerFault(client_id, "its message belongs to another session")
        if state.received[position]:
            raise StaleMessage(client_id, "its message is in already")
        return row

    def _close(self, state: states.ServerState, threads: int) -> states.ServerState:
        here = self._rows.get(type(state))
        if here is None:
            raise LocalProtocolError(
                "the round is done" if isinstance(state, states.Finished) else "the session was aborted"
            )
        after = here[1].close(self._round, state, threads)
        if type(after) is not here[1].next:
            raise RuntimeError(f"the table's row of stage {here[1].stage} is not what closes it")
        return after

    def _given_up(self) -> states.Aborted:
        return states.Aborted()

    def _state_of(self, at: Stand, seal_key: bytes | None) -> SavedState:
        return save_server((self._round, at.state), seal_key=seal_key, randomness=self._randomness)
