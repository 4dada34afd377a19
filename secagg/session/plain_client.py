"""The client's side where a client brings no credentials: what is left to a protocol are its table and its types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from secagg import snapshot
from secagg.errors import DecodeError, InputError, ServerFault
from secagg.primitives.randomness import Randomness
from secagg.session.answers import Answer, InputNeeded
from secagg.session.client import ClientSession, Progress, not_these
from secagg.session.context import checked_context
from secagg.session.table import ClientRow, ClientTable, Local
from secagg.wire import ID_BYTES, Buffer, Header

_FIELDS = frozenset(("params", "client_id", "context", "state", "answers", "clipped"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class PlainTurn:
    """What a step may know.

    Attributes:
        params: what the client agreed to.
        client_id: its id.
        context: the digest of what the round is about.
        state: what it knows.
        randomness: source of what it draws.
        announced: the session that the request names.
        reply: the kind of message that goes out.
    """

    params: Any
    client_id: int
    context: bytes
    state: Any
    randomness: Randomness
    announced: bytes
    reply: int | None

    def message(self, session: bytes, body: bytes) -> bytes:
        """Return what goes out."""
        return Header(kind=self.reply or 0, sender=self.client_id, session=session).encode() + body


class PlainClientSession(ClientSession):
    """A client without credentials; see ``secagg.ClientSession``. Derive from it, and give the attributes.

    Attributes:
        family: as the protocol's.
        params_type: the class of the parameters.
        table: its rows; the first one's state is built without arguments and begins. Every later state has a
            ``session``, the identifier that messages to it name. Steps are given a ``PlainTurn``.
        saved_types: of ``snapshot.known_types``: the parameters, what they hold, and the states.
    """

    params_type: ClassVar[type]
    table: ClassVar[ClientTable]
    saved_types: ClassVar[snapshot.Types]

    def _join(self, params: Any, client_id: int, context: bytes, credentials: Any) -> Any:
        self._set_up(params, client_id, checked_context(context, required=False), credentials)
        return self._first()

    def _set_up(self, params: Any, client_id: int, context: bytes, credentials: Any) -> None:
        if credentials is not None:
            raise not_these(credentials, "None: this protocol takes none")
        self._params, self._client_id, self._context = params, client_id, context

    def _first(self) -> Any:
        state, _ = next(iter(self.table))
        return state()

    def _rejoin(self, saved: Buffer, client_id: int, seal_key: bytes | None, credentials: Any) -> Progress:
        loaded = snapshot.load(saved, known=self.saved_types, purpose=self._purpose(), seal_key=seal_key)
        if not isinstance(loaded, dict) or loaded.keys() != _FIELDS or not self._fits(**loaded):
            raise DecodeError("a saved state's fields are not a client's")
        if loaded["client_id"] != client_id:
            raise InputError(f"the saved session is client {loaded['client_id']}'s, not client {client_id}'s")
        self._set_up(loaded["params"], client_id, loaded["context"], credentials)
        answers = {kind: (request, reply) for kind, request, reply in loaded["answers"]}
        return Progress(state=loaded["state"], answers=answers, clipped=loaded["clipped"])

    def _fits(self, *, params: Any, client_id: Any, context: Any, state: Any, answers: Any, clipped: Any) -> bool:
        known = {at for at, _ in self.table} | {row.next for row in self.table.values()}
        fits = isinstance(params, self.params_type) and isinstance(client_id, int) and type(state) in known
        fits = fits and isinstance(context, bytes) and len(context) == ID_BYTES and isinstance(clipped, float | None)
        return fits and isinstance(answers, tuple) and all(self._is_answer(one) for one in answers)

    def _is_answer(self, one: object) -> bool:
        kinds = {comes if row.answers is None else row.answers for (_, comes), row in self.table.items()}
        if not isinstance(one, tuple) or len(one) != 3 or not isinstance(one[0], int) or one[0] not in kinds:
            return False
        return isinstance(one[1], bytes) and len(one[1]) == ID_BYTES and isinstance(one[2], bytes | None)

    def _state_of(self, at: Progress, seal_key: bytes | None) -> snapshot.SavedState:
        value = {
            "params": self._params,
            "client_id": self._client_id,
            "context": self._context,
            "state": at.state,
            "answers": tuple((int(kind), request, reply) for kind, (request, reply) in at.answers.items()),
            "clipped": at.clipped,
        }
        return snapshot.save(
            value,
            known=self.saved_types,
            purpose=self._purpose(),
            seal_key=seal_key,
            randomness=self._randomness,
        )

    @classmethod
    def _purpose(cls) -> bytes:
        return f"{cls.family}/client".encode()

    @property
    def params(self) -> Any:
        """What this client agreed to."""
        return self._params

    @property
    def client_id(self) -> int:
        """This client's id."""
        return self._client_id

    @property
    def _table(self) -> ClientTable:
        return self.table

    def _turn(self, row: ClientRow, announced: bytes) -> PlainTurn:
        return PlainTurn(
            params=self._params,
            client_id=self._client_id,
            context=self._context,
            state=self._state,
            randomness=self._randomness,
            announced=announced,
            reply=row.reply,
        )

    def _check_session(self, header: Header) -> None:
        # The first request's step compares the session with the one that it computes
        if header.session != getattr(self._state, "session", header.session):
            raise ServerFault("the message belongs to another session")

    def _asks(self, local: Local, state: Any) -> Answer:
        return InputNeeded(self._params.clients)
