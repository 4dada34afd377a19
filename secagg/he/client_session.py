"""A client's side of a homomorphic sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from secagg import snapshot
from secagg.encoding.fixed_point import FixedPoint
from secagg.errors import DecodeError, InputError, LocalProtocolError, ServerFault
from secagg.he.chains import Chain
from secagg.he.client_table import Idle, Opened, Summed, Turn, Uploaded, client_table
from secagg.he.credentials import HECredentials, check_restored, client_credentials
from secagg.he.messages import HEKind, ReleasedSum
from secagg.he.params import HEParams
from secagg.he.result import Sum, sum_of
from secagg.session.answers import Answer, InputNeeded, ResultReady
from secagg.session.client import ClientSession, Progress
from secagg.session.context import check_saved_context, checked_context
from secagg.session.table import ClientRow, ClientTable, Local
from secagg.wire import ID_BYTES, Buffer, Header

_PURPOSE = b"homomorphic/client"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class _Saved:
    """What a saved client holds: what it pins, as digests where it is not saved itself, and how far it is."""

    params: HEParams
    client_id: int
    context: bytes
    directory: bytes
    key_id: bytes
    decryptor: bytes
    state: Idle | Opened | Uploaded | Summed
    opened: bytes
    summed: bytes
    upload: bytes | None
    clipped: float | None


class HEClientSession(ClientSession):
    """One client in one homomorphic sum; see ``secagg.ClientSession``, which makes it.

    Its credentials are ``HECredentials``. With ``key_holder="clients"`` the client has the secret key, and decrypts the
    encrypted sum that the aggregator sends afterwards: ``receive`` returns ResultReady, and ``result`` has the sum.
    **Any one client together with the aggregator then reads everybody's vector**, and a client believes the aggregator
    about whose uploads the sum holds.
    """

    def _join(self, params: HEParams, client_id: int, context: bytes, credentials: Any) -> Idle:
        self._set_up(params, client_id, credentials)
        self._context = checked_context(context, required=True)
        return Idle()

    def _set_up(self, params: HEParams, client_id: int, credentials: Any) -> HECredentials:
        self._credentials, self._public_key = client_credentials(credentials, params, client_id)
        self._params, self._client_id = params, client_id
        self._rows = client_table(params)
        return self._credentials

    def _rejoin(self, saved: Buffer, client_id: int, seal_key: bytes | None, credentials: Any) -> Progress:
        loaded = snapshot.load(saved, known=_KNOWN, purpose=_PURPOSE, seal_key=seal_key)
        if not isinstance(loaded, _Saved):
            raise DecodeError("a saved state's fields are not a client's")
        if loaded.client_id != client_id:
            raise InputError(f"the saved session is client {loaded.client_id}'s, not client {client_id}'s")
        check_saved_context(loaded.context, required=True)
        given = self._set_up(loaded.params, client_id, credentials)
        check_restored(
            ("directory", given.identity.directory.digest(), loaded.directory),
            ("key", self._public_key.key_id, loaded.key_id),
            ("decryptor", given.decryptor or b"", loaded.decryptor),
        )
        self._context = loaded.context
        answers: dict[int, tuple[bytes, bytes | None]] = {}
        for kind, request, reply in (
            (HEKind.OPENING, loaded.opened, loaded.upload),
            (HEKind.ENCRYPTED_SUM, loaded.summed, None),
        ):
            if len(request) not in (0, ID_BYTES):
                raise DecodeError("a saved state's fields are not of the sizes that its parameters give them")
            answers |= {kind: (request, reply)} if request else {}
        return Progress(state=loaded.state, answers=answers, clipped=loaded.clipped)

    @property
    def params(self) -> HEParams:
        """What this client agreed to."""
        return self._params

    @property
    def client_id(self) -> int:
        """This client's id."""
        return self._client_id

    @property
    def result(self) -> Sum:
        """The sum, where the clients hold the key.

        Raises:
            LocalProtocolError: this client has not decrypted one.
        """
        state = self._state
        if not isinstance(state, Summed):
            raise LocalProtocolError("this client has decrypted no sum")
        release = ReleasedSum.decode(memoryview(state.released), self._params)
        return sum_of(self._params, list(self._credentials.identity.directory), release.members, release.values)

    @property
    def _table(self) -> ClientTable:
        return self._rows

    def _turn(self, row: ClientRow, announced: bytes) -> Turn:
        return Turn(
            params=self._params,
            client_id=self._client_id,
            context=self._context,
            credentials=self._credentials,
            public_key=self._public_key,
            state=self._state,
            randomness=self._randomness,
            announced=announced,
            reply=row.reply,
        )

    def _check_session(self, header: Header) -> None:
        # An opening's step compares the session with the one that it computes
        if not isinstance(self._state, Idle) and header.session != self._state.session:
            raise ServerFault("the message belongs to another session")

    def _asks(self, local: Local, state: Any) -> Answer:
        return InputNeeded(self._params.clients)

    def _repeat_without_reply(self, kind: int) -> Answer:
        if kind == HEKind.ENCRYPTED_SUM:
            return ResultReady()
        return super()._repeat_without_reply(kind)

    def _state_of(self, at: Progress, seal_key: bytes | None) -> snapshot.SavedState:
        opened, upload = at.answers.get(HEKind.OPENING, (b"", None))
        summed, _ = at.answers.get(HEKind.ENCRYPTED_SUM, (b"", None))
        value = _Saved(
            params=self._params,
            client_id=self._client_id,
            context=self._context,
            directory=self._credentials.identity.directory.digest(),
            key_id=self._public_key.key_id,
            decryptor=self._credentials.decryptor or b"",
            state=at.state,
            opened=opened,
            summed=summed,
            upload=upload,
            clipped=at.clipped,
        )
        return snapshot.save(value, known=_KNOWN, purpose=_PURPOSE, seal_key=seal_key, randomness=self._randomness)


_KNOWN = snapshot.known_types(_Saved, Idle, Opened, Uploaded, Summed, HEParams, FixedPoint, Chain)
