"""The server's side of a round of one exchange: it opens a session, and folds what clients answer into a sum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from secagg import snapshot
from secagg.errors import DecodeError, LocalProtocolError, PeerFault, StaleMessage, TooFewClients
from secagg.primitives.randomness import Randomness, draw
from secagg.session.client import not_these
from secagg.session.context import checked_context
from secagg.session.roster import checked_id, ordered_ids
from secagg.session.server import ServerSession, Stand
from secagg.wire import ID_BYTES, SERVER, Buffer, Header, open_message


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Collected:
    """What the server knows; it is replaced, never changed.

    Attributes:
        phase: whether inputs are taken, the sum is closed, or the session was given up.
        context: the digest of what the round is about.
        nonce: 32 bytes, fresh.
        ids: whom it speaks to, ascending: uint64[n].
        members: whose input is in: bool[n].
        total: what was folded so far, as the wing has it.
    """

    phase: Literal["collecting", "done", "aborted"]
    context: bytes
    nonce: bytes
    ids: NDArray[np.uint64]
    members: NDArray[np.bool_]
    total: NDArray[np.unsignedinteger]

    @property
    def survivors(self) -> tuple[int, ...]:
        """Whose input is in, ascending."""
        return tuple(self.ids[self.members].tolist())

    @property
    def missing(self) -> tuple[int, ...]:
        """Whose is not."""
        return tuple(self.ids[~self.members].tolist())


class OneStageServerSession(ServerSession):
    """A server of one exchange and no credentials; see ``secagg.ServerSession``.

    A wing derives from it and gives the attributes, ``_session_of``, ``_nothing``, ``_fold`` and ``_result_of``.

    Attributes:
        family: as the protocol's.
        params_type: the class of the parameters.
        stage_name: the one stage.
        opening_kind: the kind of the server's message; its body is the nonce.
        input_kind: the kind of the clients'.
        saved_types: of ``snapshot.known_types``: the parameters, what they hold, and ``Collected``.
    """

    params_type: ClassVar[type]
    stage_name: ClassVar[str]
    opening_kind: ClassVar[int]
    input_kind: ClassVar[int]
    saved_types: ClassVar[snapshot.Types]

    # What a wing gives

    def _session_of(self, context: bytes, nonce: bytes) -> bytes:
        """Return the 32 bytes that every message of the session names."""
        raise NotImplementedError

    def _nothing(self) -> NDArray[np.unsignedinteger]:
        """Return the sum of no inputs."""
        raise NotImplementedError

    def _fold(
        self, total: NDArray[np.unsignedinteger], session: bytes, body: memoryview
    ) -> NDArray[np.unsignedinteger]:
        """Return a new sum with an input's body in it; the old one stays as it is.

        Raises:
            DecodeError: it is no input.
        """
        raise NotImplementedError

    def _result_of(self, state: Collected) -> Any:
        """Return the result of a closed sum."""
        raise NotImplementedError

    # What all have

    def _open(
        self, params: Any, roster: Iterable[int], context: bytes, randomness: Randomness, credentials: Any
    ) -> Collected:
        self._set_up(params, credentials)
        return Collected(
            phase="collecting",
            context=checked_context(context, required=False),
            nonce=draw(randomness, ID_BYTES),
            ids=ordered_ids(roster, params.clients),
            members=np.zeros(params.clients, dtype=np.bool_),
            total=self._nothing(),
        )

    def _set_up(self, params: Any, credentials: Any) -> None:
        if credentials is not None:
            raise not_these(credentials, "None: this protocol takes none")
        self._params = params

    def _reopen(self, saved: Buffer, seal_key: bytes | None, credentials: Any) -> Collected:
        loaded = snapshot.load(saved, known=self.saved_types, purpose=self._purpose(), seal_key=seal_key)
        if not isinstance(loaded, dict) or loaded.keys() != {"params", "state"}:
            raise DecodeError("a saved state's fields are not a server's")
        params, state = loaded["params"], loaded["state"]
        if not isinstance(params, self.params_type) or not isinstance(state, Collected):
            raise DecodeError("a saved state's fields are not a server's")
        self._set_up(params, credentials)
        nothing, shape = self._nothing(), (self._params.clients,)
        fits = state.ids.shape == state.members.shape == shape and bool((np.diff(state.ids.astype(object)) > 0).all())
        fits = fits and (state.total.shape, state.total.dtype) == (nothing.shape, nothing.dtype)
        if not fits or len(state.context) != ID_BYTES or len(state.nonce) != ID_BYTES:
            raise DecodeError("a saved state's fields are not of the sizes that its parameters give them")
        return state

    def _state_of(self, at: Stand, seal_key: bytes | None) -> snapshot.SavedState:
        return snapshot.save(
            {"params": self._params, "state": at.state},
            known=self.saved_types,
            purpose=self._purpose(),
            seal_key=seal_key,
            randomness=self._randomness,
        )

    @classmethod
    def _purpose(cls) -> bytes:
        return f"{cls.family}/server".encode()

    def _requests(self, state: Collected) -> Mapping[int, bytes]:
        if state.phase != "collecting":
            return {}
        opening = self._header(state, self.opening_kind, SERVER).encode() + state.nonce
        return dict.fromkeys(state.ids.tolist(), opening)

    def _header(self, state: Collected, kind: int, sender: int) -> Header:
        return Header(kind=kind, sender=sender, session=self._session_of(state.context, state.nonce))

    def _take(self, client_id: SupportsIndex, payload: Buffer, accepted: dict[int, Any]) -> int:
        client, state = checked_id(client_id), self._state
        if state.phase == "aborted":
            raise LocalProtocolError("the session was aborted")
        position = int(np.searchsorted(state.ids, np.uint64(client)))
        if position == len(state.ids) or state.ids[position] != client:
            raise PeerFault(client, "it is not in the roster")
        if state.phase == "done" or state.members[position]:
            raise StaleMessage(client, "its input is in already, or came after the sum was closed")
        try:
            header, body = open_message(payload)
            expected = self._header(state, self.input_kind, client)
            if header != expected:
                raise DecodeError("it sent another message than its own input, or one of another session")
            total = self._fold(state.total, expected.session, body)
        except DecodeError as problem:
            raise PeerFault(client, str(problem)) from None
        members = state.members.copy()
        members[position] = True
        self._at = self._replaced(replace(state, members=members, total=total))
        return 0

    def _close(self, state: Collected, threads: int) -> Collected:
        if state.phase != "collecting":
            raise LocalProtocolError("the sum was closed, or given up, before")
        if not self.ready:
            raise TooFewClients(len(state.survivors), self._params.minimum_survivors, "too few inputs for a sum")
        return replace(state, phase="done")

    def _given_up(self) -> Collected:
        state: Collected = self._state
        return replace(state, phase="aborted", members=np.zeros_like(state.members), total=self._nothing())

    @property
    def params(self) -> Any:
        """What the round runs with."""
        return self._params

    @property
    def stage(self) -> str | None:
        """The one stage; None once it is closed or given up."""
        return self.stage_name if self._state.phase == "collecting" else None

    @property
    def session_id(self) -> bytes | None:
        """What every message of this round names; None after the end."""
        state: Collected = self._state
        return self._session_of(state.context, state.nonce) if state.phase == "collecting" else None

    @property
    def waiting_for(self) -> tuple[int, ...]:
        """The clients whose input is not in yet; nobody once the sum is closed."""
        state: Collected = self._state
        return state.missing if state.phase == "collecting" else ()

    @property
    def ready(self) -> bool:
        """Whether enough inputs are in for ``advance``."""
        state: Collected = self._state
        enough: bool = int(state.members.sum()) >= self._params.minimum_survivors
        return enough and state.phase == "collecting"

    @property
    def result(self) -> Any:
        """The sum, and who is in it.

        Raises:
            LocalProtocolError: the round is not done.
        """
        state: Collected = self._state
        if state.phase != "done":
            raise LocalProtocolError("there is no result: the sum is not closed, or was given up")
        return self._result_of(state)
