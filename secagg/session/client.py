"""The client's side of a round, whatever the protocol: one door, driven by the protocol's own table."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from secagg import protocol
from secagg.errors import DecodeError, InputError, LocalProtocolError, ServerFault
from secagg.primitives.kdf import Label, digest
from secagg.primitives.randomness import Randomness, system_randomness
from secagg.session.answers import Answer, Reply, ResultReady
from secagg.session.guard import exclusive
from secagg.session.keeping import UNSET, Keep, Keeper, SealKey, given_key
from secagg.session.roster import checked_id
from secagg.session.table import ClientRow, ClientTable, Later, Local, Taken, awaited
from secagg.snapshot import purpose_of
from secagg.wire import SERVER, Buffer, Header, open_message

Answers = Mapping[int, tuple[bytes, bytes | None]]
"""Kind of request -> its digest, and the reply: None until there is one, and after it was delivered."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Progress:
    """How far a client is: what it knows, what it answered, and which share of its coordinates was cut off."""

    state: Any
    answers: Answers = field(default_factory=dict)
    clipped: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Vector:
    """What ``submit`` was given, as it is."""

    values: NDArray[np.floating]
    weight: SupportsIndex
    threads: int

    def call(self) -> object:
        """Return what tells one submission from another; None of what no step was ever made of."""
        values = self.values
        if not isinstance(values, np.ndarray) or values.dtype.hasobject:
            return None
        try:
            weight = operator.index(self.weight)
        except TypeError:
            return None
        hashed = hashlib.sha256(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data).digest()
        return "submit", values.dtype.str, values.shape, hashed, weight


class ClientSession(Keeper):
    """One client in one round: ``receive`` the server's payloads, ``submit`` the vector, send the replies.

    This is the door to every protocol: ``params`` say which. The state rule is kept for you: ``keep`` is called with
    one state, and has made it durable, before a reply exists. The identical request then gets the identical reply, in
    this process or after ``restore``; a different one for a stage that was answered is refused. Where ``keep`` raises,
    nothing has left: make the same call again, with the same arguments, and it offers the same bytes. Restoring one
    state twice is outside the guarantee; ``FileStore`` hands each out once.

    Args:
        params: what this client agreed to; the server's invitation must be to exactly these.
        client_id: this client's id in the server's roster, 0 to 2**64 - 2.
        context: what the round is about, the hash of the model in training, say. Parties with different contexts never
            complete a round together. Against a malicious server and in homomorphic sums it must not be empty: nothing
            else keeps the server from sending each client another model.
        keep: makes a state durable, and returns when it is: ``FileStore(folder).slot(name).put``, or any function of
            one ``SavedState``. ``IN_MEMORY`` keeps nothing. With ``DEFERRED`` each step returns a ``Pending``.
        seal_key: 32 bytes that states are sealed under, for they hold secrets; None leaves them in the clear, and must
            be said where states are kept.
        randomness: source of keys, seeds and rounding: the operating system's outside tests.
        credentials: what the protocol takes besides: an ``Identity`` (or ``PairwiseCredentials``) against a malicious
            server, ``HECredentials`` in a homomorphic sum, None otherwise.

    Raises:
        InputError: an argument is not as described.
    """

    family: ClassVar[str]

    def __new__(cls, params: Any, *_args: Any, **_named: Any) -> Self:
        """Make a session of the wing that carries ``params``."""
        wing: Any = protocol.protocol_of(params).client_session if cls is ClientSession else cls
        made: Self = object.__new__(wing)
        return made

    def __init__(
        self,
        params: Any,
        client_id: SupportsIndex,
        *,
        context: bytes = b"",
        keep: Keep,
        seal_key: SealKey = UNSET,
        randomness: Randomness = system_randomness,
        credentials: Any = None,
    ) -> None:
        if not isinstance(self, protocol.protocol_of(params).client_session):
            raise InputError(f"{type(self).__name__} carries no round of {type(params).__name__}: use ClientSession")
        at = Progress(state=self._join(params, checked_id(client_id), context, credentials))
        self._begin(at, keep, seal_key, randomness)

    def __repr__(self) -> str:
        return f"<ClientSession of client {self.client_id}: {type(self._state).__name__}>"

    # What a wing gives

    def _join(self, params: Any, client_id: int, context: bytes, credentials: Any) -> Any:
        """Check the arguments and keep them; return the first state."""
        raise NotImplementedError

    def _rejoin(self, saved: Buffer, client_id: int, seal_key: bytes | None, credentials: Any) -> Progress:
        """Do the same with what was saved."""
        raise NotImplementedError

    @property
    def _table(self) -> ClientTable:
        raise NotImplementedError

    def _turn(self, row: ClientRow, announced: bytes) -> Any:
        """Return what a step may know; ``announced`` is the session that the request names."""
        raise NotImplementedError

    def _check_session(self, header: Header) -> None:
        """Raise ServerFault where a message is of another session."""
        raise NotImplementedError

    def _asks(self, local: Local, state: Any) -> Answer:
        """Return how the caller is asked for its vector, or the beacon, in a state."""
        raise NotImplementedError

    # What all have

    @property
    def params(self) -> Any:
        """What this client agreed to."""
        raise NotImplementedError

    @property
    def client_id(self) -> int:
        """This client's id."""
        raise NotImplementedError

    @property
    def stage(self) -> str | None:
        """The stage whose message this client sends next; None once it has sent all."""
        here = awaited(self._table, type(self._state))
        return None if here is None else here[1].stage

    @property
    def clipped(self) -> float | None:
        """The share of this client's coordinates that ``clip`` cut off, 0 to 1; None before ``submit``; kept local."""
        clipped: float | None = self._at.clipped
        return clipped

    @property
    def result(self) -> Any:
        """The sum, where the clients of a homomorphic sum hold the key.

        Raises:
            LocalProtocolError: this client has none.
        """
        raise LocalProtocolError("this client has no sum: the server's session has it")

    @exclusive
    def receive(self, payload: Buffer) -> Answer:
        """Take in a message from the server.

        Returns:
            The reply to send; InputNeeded when it is time for ``submit``; BeaconNeeded when it is for ``use_beacon``,
            which happens against a malicious server with a sparse graph alone; ResultReady where this client decrypts
            the sum. With ``keep=DEFERRED`` a ``Pending`` of the reply, of BeaconNeeded or of ResultReady.

        Raises:
            ServerFault: it is no message of this round and stage, or breaks a rule; also a second, different request.
            PeerFault: a neighbour's keys or shares are not valid.
            TooFewClients: too few clients are left for this client to go on; it reveals nothing.
            LocalProtocolError: another call's step waits for its state to be kept.
        """
        try:
            header, body = open_message(payload)
        except DecodeError as problem:
            raise ServerFault(f"not a message of this protocol: {problem}") from None
        request = digest(Label.REQUEST, header.encode(), body)
        if held := self._held_step(lambda: ("receive", request)):
            answer: Answer = self._settle(held)
            return answer
        if header.sender != SERVER:
            raise ServerFault("the message is not from the server")
        kind = next((comes for _, comes in self._table if comes == header.kind), None)
        if kind is None or isinstance(kind, Local):
            raise ServerFault(f"not a message of this protocol: no message to a client is of kind {header.kind}")
        if kind in self._at.answers:
            return self._repeat(kind, request)
        row = self._table.get((type(self._state), kind))
        if row is None or row.read is None:
            here = awaited(self._table, type(self._state))
            wanted = "nothing more" if here is None else getattr(here[0], "name", "its caller")
            raise ServerFault(f"{_name(kind)} came where this client awaits {wanted}")
        self._check_session(header)
        turn = self._turn(row, header.session)
        try:
            message = row.read(turn, body)
        except DecodeError as problem:
            raise ServerFault(f"{_name(kind)} is malformed: {problem}") from None
        told: Answer = self._take(row, turn, message, kind, request, lambda: ("receive", request))
        return told

    @exclusive
    def submit(self, vector: NDArray[np.floating], weight: SupportsIndex = 1, *, threads: int = 1) -> Reply:
        """Mask or encrypt this client's vector, once.

        Args:
            vector: float32[d] or float64[d], finite; coordinates beyond the encoding's clip are cut (see ``clipped``).
            weight: how often the vector counts, 1 to ``params.max_weight``.
            threads: how many threads share the masking during this call; encrypting takes one.

        Returns:
            The upload to send. With ``keep=DEFERRED`` a ``Pending`` of it.

        Raises:
            LocalProtocolError: no vector is awaited now; or another call's step waits for its state to be kept.
            InputError: the vector, the weight or threads is not as described; nothing has changed, submit again.
            PeerFault: a neighbour advertised a key that no honest client does.
        """
        given = Vector(values=vector, weight=weight, threads=threads)
        reply: Reply = self._take_local(Local.VECTOR, given, given.call)
        return reply

    @exclusive
    def use_beacon(self, beacon: bytes) -> Reply:
        """Draw the graph from a public beacon, and deal shares to the neighbours that it gives this client.

        What this client signs from here on names the beacon, so a server that was given another refuses it.

        Args:
            beacon: at least 16 bytes, unpublished when ``receive`` returned BeaconNeeded; the same for every party.

        Raises:
            LocalProtocolError: no beacon is awaited now; or another call's step waits for its state to be kept.
            InputError: it is not as described.
            TooFewClients: fewer than t of the neighbourhood advertised.
            PeerFault: a neighbour's advertisement is not authentic, or its key is none of an honest client's.
        """
        reply: Reply = self._take_local(Local.BEACON, beacon, lambda: ("use_beacon", beacon))
        return reply

    @exclusive
    def delivered(self) -> None:
        """Drop the replies kept for retries: the caller knows that the server has them. Later repeats are refused."""
        self._check_free()
        kept: Answers = {kind: (request, None) for kind, (request, _) in self._at.answers.items()}
        self._at = replace(self._at, answers=kept)

    @classmethod
    def restore(
        cls,
        saved: Buffer,
        client_id: SupportsIndex,
        *,
        keep: Keep,
        seal_key: SealKey = UNSET,
        randomness: Randomness = system_randomness,
        credentials: Any = None,
    ) -> Self:
        """Return the session whose state ``keep`` was given, or ``save`` returned.

        Args:
            saved: the state, as bytes, bytearray or memoryview.
            client_id: whose session it must be: where clients share a sealing key, nothing else tells them apart.
            keep: as when the session was built.
            seal_key: the key that it was sealed under; further states are sealed under it.
            randomness: source of what is still drawn.
            credentials: what the session was built with: keys are not in a state.

        Raises:
            DecodeError: the bytes are damaged, of another version, or sealed under another key.
            InputError: the state is another client's, the credentials are not those that the session was built with, or
                another argument is not as described.
        """
        client_id = checked_id(client_id)
        wing: Any = cls
        if cls is ClientSession:
            wing = protocol.protocol_of_state(purpose_of(saved)).client_session
        session: Self = object.__new__(wing)
        at = session._rejoin(saved, client_id, given_key(seal_key), credentials)
        here = awaited(session._table, type(at.state))
        if here is not None and isinstance(here[0], Local) and here[1].answers not in at.answers:
            raise DecodeError("a saved state awaits something of its caller's that no request has asked for")
        session._begin(at, keep, seal_key, randomness)
        return session

    @property
    def _state(self) -> Any:
        return self._at.state

    def _repeat(self, kind: int, request: bytes) -> Answer:
        answered, reply = self._at.answers[kind]
        if request != answered:
            raise ServerFault(f"a second, different {_name(kind)} after one was answered")
        if reply is not None:
            return Reply(reply, self._stage_of(kind))
        here = awaited(self._table, type(self._state))
        if here is not None and isinstance(here[0], Local) and here[1].answers == kind:
            return self._asks(here[0], self._state)
        return self._repeat_without_reply(kind)

    def _repeat_without_reply(self, kind: int) -> Answer:
        raise ServerFault(f"{_name(kind)} came again though its answer was delivered")

    def _take_local(self, local: Local, given: Any, call: Callable[[], object]) -> Any:
        if held := self._held_step(call):
            return self._settle(held)
        row = self._table.get((type(self._state), local))
        if row is None or row.answers is None:
            raise LocalProtocolError(local.value)
        request, _ = self._at.answers[row.answers]
        return self._take(row, self._turn(row, b""), given, row.answers, request, call)

    def _take(
        self, row: ClientRow, turn: Any, message: Any, kind: int, request: bytes, call: Callable[[], object]
    ) -> Any:
        """Take a row's step, go to the next state once that is durable, and return what the caller is told then."""
        taken = row.step(turn, message)
        if isinstance(taken, Later):
            go_on = taken.go_on
            return taken.pending.then(lambda out: self._go_on(row, go_on(out), kind, request, call))
        return self._follow(row, taken, kind, request, call)

    @exclusive
    def _go_on(self, row: ClientRow, taken: Taken, kind: int, request: bytes, call: Callable[[], object]) -> Any:
        if held := self._held_step(call):
            return self._settle(held)
        if type(self._state) is row.next and kind in self._at.answers:
            return self._repeat(kind, request)
        return self._follow(row, taken, kind, request, call)

    def _follow(self, row: ClientRow, taken: Taken, kind: int, request: bytes, call: Callable[[], object]) -> Any:
        if type(taken.state) is not row.next or (taken.reply is None) != (row.reply is None):
            raise RuntimeError(f"the table's row of stage {row.stage} is not what its step does")
        before: Progress = self._at
        after = Progress(
            state=taken.state,
            answers={**before.answers, kind: (request, taken.reply)},
            clipped=before.clipped if taken.clipped is None else taken.clipped,
        )
        if taken.reply is not None:
            return self._step(call, after, Reply(taken.reply, row.stage))
        here = awaited(self._table, row.next)
        if here is None or not isinstance(here[0], Local):
            return self._step(call, after, ResultReady())
        if here[0] is Local.BEACON:
            # Nobody must know the beacon before the roster is durable here
            return self._step(call, after, self._asks(here[0], after.state))
        self._at = after
        return self._asks(here[0], after.state)

    def _stage_of(self, kind: int) -> str:
        return next(row.stage for (_, comes), row in self._table.items() if kind in (comes, row.answers))


def _name(kind: int) -> str:
    return str(getattr(kind, "name", kind))


def not_these(credentials: object, wanted: str) -> InputError:
    """Return what to raise where credentials are of another protocol."""
    return InputError(f"credentials must be {wanted}, got {type(credentials).__name__}")
