"""The server's side of a round, for integrators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secagg import snapshot
from secagg.errors import DecodeError, InputError, LocalProtocolError, PeerFault, StaleMessage, TooFewClients
from secagg.pairwise import server as steps
from secagg.pairwise.graph import CompleteGraph, HararyGraph
from secagg.pairwise.identifiers import context_digest, round_id
from secagg.pairwise.messages import Invitation, Members, Roster
from secagg.pairwise.recovery import unmask_sum
from secagg.pairwise.transitions import SERVER_TRANSITIONS, STAGES
from secagg.params import FixedPoint, RoundParams
from secagg.primitives.randomness import Randomness, draw, system_randomness
from secagg.session.result import RoundResult
from secagg.wire import ID_BYTES, SERVER, Buffer, Header, open_message


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Finished:
    advertised: Members
    shared: Members
    survivors: Members
    answered: Members
    words: NDArray[np.unsignedinteger]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Aborted:
    pass


_SAVED_TYPES = {
    kind.__name__: kind
    for kind in (
        RoundParams,
        FixedPoint,
        Roster,
        CompleteGraph,
        HararyGraph,
        steps.Round,
        steps.CollectingKeys,
        steps.CollectingShares,
        steps.CollectingInputs,
        steps.CollectingUnmask,
        _Finished,
        _Aborted,
    )
}
_PURPOSE = b"server session"
_KIND_OF_STAGE = {transition.stage: transition.reply for transition in SERVER_TRANSITIONS.values()}


class Requests(Mapping[int, bytes]):
    """Client id -> payload, each made when it is looked up: a cohort's payloads need not fit in memory together."""

    def __init__(self, ids: NDArray[np.uint64], recipients: Members, encode: Callable[[int], bytes]) -> None:
        self._positions = {int(ids[position]): position for position in np.flatnonzero(recipients).tolist()}
        self._encode = encode

    def __getitem__(self, client_id: int) -> bytes:
        return self._encode(self._positions[client_id])

    def __iter__(self) -> Iterator[int]:
        return iter(self._positions)

    def __len__(self) -> int:
        return len(self._positions)

    def __repr__(self) -> str:
        return f"<Requests to {len(self)} clients>"


class ServerSession:
    """The server in one round: send ``requests()``, ``receive`` the replies, ``advance()`` when it is time.

    When to stop waiting is the caller's to decide: ``ready`` says that the stage may close, ``waiting_for`` who has not
    answered. ``result`` is there after the last ``advance``. The server learns the sum and who survived, nothing else.

    A new stage's requests leave only when the state behind them is durable (``save`` after ``advance``): a server that
    forgot an ``advance`` would draw another graph for the same session. The same goes for the invitations.

    Args:
        params: what the round runs with; ``params.clients`` ids are expected.
        roster: ids of the clients invited, each 0 to 2**64 - 2, no two alike.
        context: what the round is about; must equal every client's.
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
        randomness: Randomness = system_randomness,
    ) -> None:
        if not isinstance(params, RoundParams):
            raise InputError(f"params must be RoundParams, got {type(params).__name__}")
        if not isinstance(context, bytes):
            raise InputError(f"context must be bytes, got {type(context).__name__}")
        nonce = draw(randomness, ID_BYTES)
        self._round = steps.Round(
            params=params,
            ids=_ordered_ids(roster, params.clients),
            round_id=round_id(params, context_digest(context), nonce),
            nonce=nonce,
        )
        self._randomness = randomness
        self._state: steps.Collecting | _Finished | _Aborted = steps.open_round(self._round)
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
        return None if isinstance(self._state, _Finished | _Aborted) else self._transition.stage

    @property
    def waiting_for(self) -> tuple[int, ...]:
        """Ids of the clients that were sent this stage's request and have not answered."""
        if isinstance(self._state, _Finished | _Aborted):
            return ()
        waiting = self._recipients & ~self._state.received
        return tuple(self._round.ids[waiting].tolist())

    @property
    def ready(self) -> bool:
        """Whether enough clients have answered for ``advance`` to close this stage."""
        if isinstance(self._state, _Finished | _Aborted):
            return False
        try:
            steps.check_enough(self._round, self._state)
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
        if not isinstance(state, _Finished):
            raise LocalProtocolError("there is no result before the last stage is closed")
        dropped: dict[int, str] = {}
        sets = (state.advertised, state.shared, state.survivors, state.answered)
        for stage, members in zip(reversed(STAGES), reversed(sets), strict=True):
            dropped |= dict.fromkeys(self._round.ids[~members].tolist(), stage)
        return RoundResult(
            params=self.params,
            survivors=tuple(self._round.ids[state.survivors].tolist()),
            dropped=dict(sorted(dropped.items())),
            words=state.words,
        )

    def requests(self) -> Mapping[int, bytes]:
        """Return what the open stage sends, by client id; the same bytes each time, also after ``restore``."""
        state = self._state
        if isinstance(state, _Finished | _Aborted):
            return {}
        header = Header(kind=self._transition.request, sender=SERVER, session=self._session_of_request())
        head = header.encode()
        encode: Callable[[int], bytes]
        if isinstance(state, steps.CollectingKeys):
            invitation = head + Invitation(nonce=self._round.nonce).encode()
            encode = lambda position: invitation  # noqa: E731
        elif isinstance(state, steps.CollectingShares):
            collecting = state
            encode = lambda position: head + steps.roster_for(collecting, position).encode()  # noqa: E731
        elif isinstance(state, steps.CollectingInputs):
            relaying = state
            encode = lambda position: head + steps.relay_for(relaying, position).encode()  # noqa: E731
        else:
            announcement = head + steps.survivors_request(state).encode()
            encode = lambda position: announcement  # noqa: E731
        return Requests(self._round.ids, self._recipients, encode)

    def receive(self, client_id: int, payload: Buffer) -> None:
        """Fold in a client's reply to the open stage; a masked input is added at once and not kept.

        Args:
            client_id: whom the transport received it from.
            payload: the message, any contiguous buffer; it is not kept.

        Raises:
            StaleMessage: this client's reply is in already, or its stage is closed; ignore it.
            PeerFault: the message is malformed, of another session, or not from whom it says. It was not counted.
            LocalProtocolError: the session was aborted.
        """
        position = self._positions.get(client_id)
        if position is None:
            raise PeerFault(client_id, "it is not in the roster")
        if isinstance(self._state, _Aborted):
            raise LocalProtocolError("the session was aborted")
        try:
            header, body = open_message(payload)
        except DecodeError as problem:
            raise PeerFault(client_id, str(problem)) from None
        if header.sender != client_id:
            raise PeerFault(client_id, "its message names another sender")
        state = self._open_state(client_id, position, header)
        try:
            self._fold(state, position, body)
        except DecodeError as problem:
            raise PeerFault(client_id, str(problem)) from None

    def advance(self, *, threads: int = 1) -> Mapping[int, bytes]:
        """Close the open stage with whoever answered.

        Args:
            threads: how many threads share the unmasking of the last stage.

        Returns:
            The next stage's ``requests()``; empty when the round is done and ``result`` is there.

        Raises:
            TooFewClients: the stage cannot close yet; wait for more replies, or ``abort``.
            PeerFault: a client's shares rebuild something else than it advertised; a suspicion, since a holder may have
                released a wrong one.
            InconsistentSum: the values cannot be a sum of inputs in range.
            LocalProtocolError: the round is done, or was aborted.
        """
        state = self._state
        if isinstance(state, steps.CollectingKeys):
            self._state = steps.close_keys(self._round, state, self._randomness)
        elif isinstance(state, steps.CollectingShares):
            self._state = steps.close_shares(self._round, state)
        elif isinstance(state, steps.CollectingInputs):
            self._state = steps.close_inputs(self._round, state)
        elif isinstance(state, steps.CollectingUnmask):
            self._state = _Finished(
                advertised=state.roster.advertised,
                shared=state.shared,
                survivors=state.survivors,
                answered=state.received,
                words=unmask_sum(self._round, state, threads=threads),
            )
        else:
            raise LocalProtocolError("the round is done" if isinstance(state, _Finished) else "the session was aborted")
        return self.requests()

    def abort(self) -> None:
        """Give the round up and forget everything that was received."""
        self._state = _Aborted()

    def save(self, *, seal_key: bytes | None = None) -> bytes:
        """Return this session as bytes: in the clear, or sealed under a 32-byte key.

        Raises:
            InputError: the key is not 32 bytes.
        """
        return snapshot.save(
            (self._round, self._state),
            types=_SAVED_TYPES,
            purpose=_PURPOSE,
            seal_key=seal_key,
            randomness=self._randomness,
        )

    @classmethod
    def restore(
        cls, saved: bytes, *, seal_key: bytes | None = None, randomness: Randomness = system_randomness
    ) -> ServerSession:
        """Return the session that ``save`` wrote.

        Raises:
            DecodeError: the bytes are damaged, of another version, or sealed under another key.
        """
        session = cls.__new__(cls)
        session._round, session._state = snapshot.load(saved, types=_SAVED_TYPES, purpose=_PURPOSE, seal_key=seal_key)
        session._randomness = randomness
        session._index()
        return session

    def _index(self) -> None:
        self._positions = {client_id: position for position, client_id in enumerate(self._round.ids.tolist())}

    @property
    def _transition(self) -> Any:
        return SERVER_TRANSITIONS[type(self._state)]  # type: ignore[index]

    @property
    def _recipients(self) -> Members:
        state = self._state
        if isinstance(state, steps.CollectingShares):
            return state.roster.advertised
        if isinstance(state, steps.CollectingInputs):
            return state.shared
        if isinstance(state, steps.CollectingUnmask):
            return state.survivors
        return np.ones(self.params.clients, dtype=np.bool_)

    def _session_of_request(self) -> bytes:
        # A client computes the session's identifier from the roster, so the roster itself bears the round's
        state = self._state
        if isinstance(state, steps.CollectingInputs | steps.CollectingUnmask):
            return state.session_id
        return self._round.round_id

    def _open_state(self, client_id: int, position: int, header: Header) -> steps.Collecting:
        state = self._state
        if isinstance(state, _Finished | _Aborted):
            raise StaleMessage(client_id, "its message came after the round")
        expected = _KIND_OF_STAGE[self._transition.stage]
        if header.kind in [kind for kind in _KIND_OF_STAGE.values() if kind < expected]:
            raise StaleMessage(client_id, "its message came after the stage was closed")
        if header.kind != expected:
            raise PeerFault(client_id, f"it sent message {header.kind} where {expected.name} is awaited")
        if not self._recipients[position]:
            raise StaleMessage(client_id, "it dropped out at an earlier stage")
        session = self._round.round_id if isinstance(state, steps.CollectingKeys) else state.session_id
        if header.session != session:
            raise PeerFault(client_id, "its message belongs to another session")
        if state.received[position]:
            raise StaleMessage(client_id, "its message is in already")
        return state

    def _fold(self, state: steps.Collecting, position: int, body: memoryview) -> None:
        if isinstance(state, steps.CollectingKeys):
            steps.fold_advertisement(self._round, state, position, body)
        elif isinstance(state, steps.CollectingShares):
            steps.fold_shares(self._round, state, position, body)
        elif isinstance(state, steps.CollectingInputs):
            steps.fold_input(self._round, state, position, body)
        else:
            steps.fold_unmask_shares(self._round, state, position, body)


def _ordered_ids(roster: Iterable[int], clients: int) -> NDArray[np.uint64]:
    ids = list(roster)
    if any(isinstance(one, bool) or not hasattr(one, "__index__") or not 0 <= int(one) < SERVER for one in ids):
        raise InputError("a roster's ids must be integers in [0, 2**64 - 2]")
    if len(ids) != clients:
        raise InputError(f"the parameters are for {clients} clients, the roster holds {len(ids)}")
    if len(set(ids)) != clients:
        raise InputError("a roster's ids must be distinct")
    return np.array(sorted(int(one) for one in ids), dtype=np.uint64)
