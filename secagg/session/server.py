"""The server's side of a round, whatever the protocol: one door."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, SupportsIndex

from secagg import protocol
from secagg.arguments import check_threads
from secagg.errors import InputError, LocalProtocolError, PeerFault
from secagg.primitives.randomness import Randomness, system_randomness
from secagg.session.guard import exclusive, in_own_process
from secagg.session.keeping import IN_MEMORY, UNSET, Keep, Keeper, SealKey, given_key
from secagg.session.roster import pairs
from secagg.snapshot import purpose_of
from secagg.wire import Buffer

TOGETHER_BYTES = 1 << 25
"""How much of clients' inputs ``receive_all`` holds before it adds them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Stand:
    """Where a server is: the stage's state, and whether that was kept as it was when the stage was opened."""

    state: Any
    kept: bool = False


class ServerSession(Keeper):
    """The server in one round: send ``requests()``, ``receive`` the replies, ``advance()`` when it is time.

    This is the door to every protocol: ``params`` say which. When to stop waiting is the caller's to decide: ``ready``
    says that the stage may close, ``waiting_for`` who has not answered. ``result`` is there after the last
    ``advance``. The server learns the sum and who survived, nothing else.

    The state rule is kept for you: ``keep`` is called once a stage, when it is opened, and has made the state durable
    before the stage's requests exist. Replies are not kept one by one. A server that was restored sends the stage's
    requests again, byte for byte, and takes the replies again, byte for byte too; what it had added before is not
    counted twice, since it was not kept. Where ``keep`` raises, make the same call again.

    Some protocols have a further party, a decryptor: ``parties`` names it. It is passed each payload that ``receive``
    was given; what it is asked, and what it answers, goes through ``party_requests`` and ``receive_from``.

    Args:
        params: what the round runs with; ``params.clients`` ids are expected.
        roster: ids of the clients invited, each 0 to 2**64 - 2, no two alike; a ``Directory`` serves.
        context: what the round is about; must equal every client's, and not be empty against a malicious server or in
            homomorphic sums.
        keep: makes a state durable, and returns when it is; see ``ClientSession``.
        seal_key: 32 bytes that states are sealed under; None leaves them in the clear, and must be said where states
            are kept.
        randomness: source of nonces and of the masking graph.
        credentials: what the protocol takes besides: the clients' ``Directory`` against a malicious server,
            ``HEServerCredentials`` in a homomorphic sum, None otherwise.

    Raises:
        InputError: an argument is not as described.
    """

    family: ClassVar[str]

    def __new__(cls, params: Any, *_args: Any, **_named: Any) -> Self:
        """Make a session of the wing that carries ``params``."""
        wing: Any = protocol.protocol_of(params).server_session if cls is ServerSession else cls
        made: Self = object.__new__(wing)
        return made

    def __init__(
        self,
        params: Any,
        roster: Iterable[int],
        *,
        context: bytes = b"",
        keep: Keep,
        seal_key: SealKey = UNSET,
        randomness: Randomness = system_randomness,
        credentials: Any = None,
    ) -> None:
        if not isinstance(self, protocol.protocol_of(params).server_session):
            raise InputError(f"{type(self).__name__} carries no round of {type(params).__name__}: use ServerSession")
        state = self._open(params, roster, context, randomness, credentials)
        self._begin(Stand(state=state, kept=keep is IN_MEMORY), keep, seal_key, randomness)

    # What a wing gives

    def _open(
        self, params: Any, roster: Iterable[int], context: bytes, randomness: Randomness, credentials: Any
    ) -> Any:
        """Check the arguments and keep them; return the first stage's state."""
        raise NotImplementedError

    def _reopen(self, saved: Buffer, seal_key: bytes | None, credentials: Any) -> Any:
        """Do the same with what was saved."""
        raise NotImplementedError

    def _requests(self, state: Any) -> Mapping[int, bytes]:
        raise NotImplementedError

    def _take(self, client_id: SupportsIndex, payload: Buffer, accepted: dict[int, Any]) -> int:
        """Check a reply and fold it in, or put it with ``accepted`` to be added; return how many bytes that holds."""
        raise NotImplementedError

    def _add(self, accepted: dict[int, Any], pool: Executor | None = None, ranges: int = 1) -> None:
        """Add what was accepted, and empty it."""

    def _close(self, state: Any, threads: int) -> Any:
        """Return the next stage's state, or the last one."""
        raise NotImplementedError

    def _given_up(self) -> Any:
        """Return the state of a session that was aborted."""
        raise NotImplementedError

    # What all have

    @property
    def params(self) -> Any:
        """What the round runs with."""
        raise NotImplementedError

    @property
    def waiting_for(self) -> tuple[int, ...]:
        """Ids of the clients that were sent this stage's request and have not answered."""
        raise NotImplementedError

    @property
    def ready(self) -> bool:
        """Whether enough clients have answered for ``advance`` to close this stage."""
        raise NotImplementedError

    @property
    def result(self) -> Any:
        """The sum, and who is in it.

        Raises:
            LocalProtocolError: the round is not done; or only the clients can decrypt.
        """
        raise NotImplementedError

    @property
    def session_id(self) -> bytes | None:
        """The session that the roster was fixed to; None before that, and after the end."""
        raise NotImplementedError

    @property
    def beacon_needed(self) -> bool:
        """Whether ``use_beacon`` must be called before replies can be received."""
        return False

    def use_beacon(self, beacon: bytes) -> None:
        """Draw the graph from the public beacon that the clients use too, where ``beacon_needed`` says so.

        Raises:
            LocalProtocolError: no beacon is awaited now.
            InputError: it is not as described; see the protocol's own session.
        """
        raise LocalProtocolError("this protocol draws nothing from a beacon")

    def transcript(self) -> Any:
        """Return what fixes this session, for third parties that check a fault's ``evidence`` against it.

        Raises:
            LocalProtocolError: there is none now, or the protocol has no evidence.
        """
        raise LocalProtocolError("this protocol has no evidence, and so no transcript")

    @property
    def parties(self) -> tuple[str, ...]:
        """Further parties that must be passed each payload that ``receive`` is given, by name; mostly none."""
        return ()

    def party_requests(self) -> Mapping[str, bytes]:
        """Return what further parties are asked now, by name, the same bytes each time."""
        return {}

    def receive_from(self, party: str, payload: Buffer) -> None:
        """Take in what a further party answers.

        Raises:
            LocalProtocolError: nothing is awaited of this party now.
            ServerFault: it is not the answer that this party owes.
        """
        raise LocalProtocolError(f"nothing is awaited of a party {party!r}")

    def requests(self) -> Mapping[int, bytes]:
        """Return what the open stage sends, by client id; the same bytes each time, also after ``restore``.

        The first call of a session keeps its state. With ``keep=DEFERRED`` it returns a ``Pending``.

        Raises:
            LocalProtocolError: another call's step waits for its state to be kept.
        """
        # Read once: another thread may be in ``advance``
        at: Stand = self._at
        return self._requests_again(at.state) if at.kept else self._first_requests()

    @exclusive
    def receive(self, client_id: SupportsIndex, payload: Buffer) -> None:
        """Fold in a client's reply to the open stage; an input is added at once and not kept.

        Args:
            client_id: whom the transport received it from.
            payload: the message, any contiguous buffer; it is not kept.

        Raises:
            StaleMessage: this client's reply is in already, or its stage is closed; ignore it.
            PeerFault: the message is malformed, of another session, or not from whom it says. It was not counted.
            LocalProtocolError: the session was aborted, or a call's step waits for its state to be kept.
            InputError: ``client_id`` is no client's id.
        """
        self._change()
        accepted: dict[int, Any] = {}
        self._take(client_id, payload, accepted)
        self._add(accepted)

    @exclusive
    def receive_all(self, replies: Iterable[tuple[SupportsIndex, Buffer]], *, threads: int = 1) -> list[PeerFault]:
        """Fold in replies as ``receive`` does, each pair a client's id and its message; several threads add the inputs.

        Inputs are taken up to 32 MiB at a time, then added and dropped: where ``replies`` makes them one by one, memory
        stays bounded. What is not ``bytes`` is added at once, so a buffer may be used again for the next reply.

        Args:
            replies: what the transport received, in any order.
            threads: how many threads share the adding of masked inputs; ciphertexts are added by one.

        Returns:
            Why each reply that was not counted was refused, as ``receive`` would have raised it; all others count.

        Raises:
            LocalProtocolError, InputError: as for ``receive``; or ``threads`` is not a positive integer, or a reply no
                pair. Replies before that one count.
        """
        check_threads(threads)
        self._change()
        refused: list[PeerFault] = []
        accepted: dict[int, Any] = {}
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
    def advance(self, *, threads: int = 1) -> Mapping[int, bytes]:
        """Close the open stage with whoever answered.

        Args:
            threads: how many threads share the unmasking of the last stage.

        Returns:
            The next stage's ``requests()``, once its state is durable; empty when there is nobody to ask. With
            ``keep=DEFERRED`` a ``Pending`` of them.

        Raises:
            TooFewClients: the stage cannot close yet; wait for more replies, or ``abort``.
            PeerFault: a client's shares rebuild something else than it advertised; when semi-honest, a suspicion,
                since a holder may have released a wrong one.
            InconsistentSum: the values cannot be a sum of inputs in range.
            LocalProtocolError: the round is done, or was aborted; or another call's step waits for its state.
            InputError: ``threads`` is not a positive integer.
        """
        check_threads(threads)
        if held := self._held_step(lambda: "advance"):
            requests: Mapping[int, bytes] = self._settle(held)
            return requests
        after = Stand(state=self._close(self._at.state, threads), kept=True)
        return self._step(lambda: "advance", after, self._requests_again(after.state))

    @exclusive
    def abort(self) -> None:
        """Give the round up and forget everything that was received, and a step that waits; nothing is kept of it."""
        self._at = Stand(state=self._given_up(), kept=True)

    @classmethod
    def restore(
        cls,
        saved: Buffer,
        *,
        keep: Keep,
        seal_key: SealKey = UNSET,
        randomness: Randomness = system_randomness,
        credentials: Any = None,
    ) -> Self:
        """Return the session whose state ``keep`` was given, or ``save`` returned.

        Args:
            saved: the state, as bytes, bytearray or memoryview.
            keep: as when the session was built.
            seal_key: the key that it was sealed under; further states are sealed under it.
            randomness: source of what is still drawn.
            credentials: what the session was built with: a directory is not in a state.

        Raises:
            DecodeError: the bytes are damaged, of another version, or sealed under another key.
            InputError: the credentials are not those that the session was built with, or another argument is not as
                described.
        """
        wing: Any = cls
        if cls is ServerSession:
            wing = protocol.protocol_of_state(purpose_of(saved)).server_session
        session: Self = object.__new__(wing)
        state = session._reopen(saved, given_key(seal_key), credentials)
        session._begin(Stand(state=state, kept=True), keep, seal_key, randomness)
        return session

    @property
    def _state(self) -> Any:
        return self._at.state

    @in_own_process
    def _requests_again(self, state: Any) -> Mapping[int, bytes]:
        return self._requests(state)

    @exclusive
    def _first_requests(self) -> Mapping[int, bytes]:
        if held := self._held_step(lambda: "requests"):
            requests: Mapping[int, bytes] = self._settle(held)
            return requests
        after = replace(self._at, kept=True)
        return self._step(lambda: "requests", after, self._requests_again(after.state))

    def _replaced(self, state: Any) -> Stand:
        """Return where the session is in the same stage with another state."""
        at: Stand = self._at
        return replace(at, state=state)
