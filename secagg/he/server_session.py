"""The aggregator's side of a homomorphic sum. It never holds a secret key, and never loads TenSEAL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from secagg import snapshot
from secagg.encoding.fixed_point import FixedPoint
from secagg.errors import DecodeError, InputError, LocalProtocolError, PeerFault, ServerFault, StaleMessage
from secagg.he.chains import Chain
from secagg.he.ciphertexts import RunningSum
from secagg.he.collection import Collection, session_of
from secagg.he.credentials import HEServerCredentials, check_restored, server_credentials
from secagg.he.keys import check_signature
from secagg.he.messages import HE_STAGES, EncryptedSum, HEKind, Opening, ReleasedSum, ReleaseRequest, sum_digest
from secagg.he.params import HEParams
from secagg.he.result import Sum, sum_of
from secagg.identity import SIGNATURE_BYTES
from secagg.primitives.kdf import Label, digest
from secagg.primitives.randomness import Randomness, draw
from secagg.session.context import check_saved_context, checked_context
from secagg.session.guard import exclusive, in_own_process
from secagg.session.roster import checked_id, ordered_ids
from secagg.session.server import ServerSession, Stand
from secagg.wire import ID_BYTES, SERVER, Buffer, Header, open_message

DECRYPTOR = "decryptor"
"""The further party of a sum whose key it holds."""

Phase = Literal["collecting", "closed", "done", "aborted"]

_PURPOSE = b"homomorphic/server"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _State:
    """How far the aggregator is; ``release`` is the decryptor's, encoded, once it is here."""

    phase: Phase
    collection: Collection
    release: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class _Saved:
    params: HEParams
    context: bytes
    directory: bytes
    decryptor: bytes
    opening: bytes
    session: bytes
    phase: Phase
    members: NDArray[np.bool_]
    residues: NDArray[np.uint64]
    release: bytes


class HEServerSession(ServerSession):
    """The aggregator of one homomorphic sum: adds uploads as they come, and keeps none; see ``secagg.ServerSession``.

    Its credentials are ``HEServerCredentials``. With ``key_holder="decryptor"`` pass each upload on to the decryptor:
    it adds them again, and only its own sum is released. ``advance`` closes the sum, ``party_requests()["decryptor"]``
    is for the decryptor, ``receive_from("decryptor", ...)`` takes its answer. With ``key_holder="clients"`` ``advance``
    returns the encrypted sum for each client, and **this side never learns the sum**; any client that shares its key
    with this side lets it read everybody.

    An upload's check leaves nothing to parse: it has one length, and residues below public primes. So a hostile one is
    a ``PeerFault`` and costs nothing; no process has to be kept for parsing it.
    """

    def _open(
        self, params: HEParams, roster: Iterable[int], context: bytes, randomness: Randomness, credentials: Any
    ) -> _State:
        self._set_up(params, credentials)
        if ordered_ids(roster, params.clients).tolist() != list(self._credentials.directory):
            raise InputError("the directory must hold exactly the roster's clients")
        self._context = checked_context(context, required=True)
        given = self._credentials
        if given.decryptor is not None:
            if given.opening is None:
                raise InputError("where a decryptor holds the key, the server takes its opening and identity alone")
            self._opening, session = self._checked_opening(given.opening, given.decryptor)
        else:
            message = Opening(nonce=draw(randomness, ID_BYTES), key_id=given.key_id or b"")
            session = session_of(params, self._context, message, given.directory, None)
            self._opening = Header(kind=HEKind.OPENING, sender=SERVER, session=session).encode() + message.encode()
        return _State(phase="collecting", collection=Collection(params, given.directory, session))

    def _set_up(self, params: HEParams, credentials: Any) -> None:
        self._params, self._credentials = params, server_credentials(credentials, params)

    def _reopen(self, saved: Buffer, seal_key: bytes | None, credentials: Any) -> _State:
        loaded: Any = snapshot.load(saved, known=_KNOWN, purpose=_PURPOSE, seal_key=seal_key)
        if not isinstance(loaded, _Saved) or loaded.members.shape != (loaded.params.clients,):
            raise DecodeError("a saved state's fields are not a server's")
        check_saved_context(loaded.context, required=True)
        self._set_up(loaded.params, credentials)
        given = self._credentials
        check_restored(
            ("directory", given.directory.digest(), loaded.directory),
            ("decryptor", given.decryptor or b"", loaded.decryptor),
        )
        self._check_same_sum(given, loaded.opening)
        self._context, self._opening = loaded.context, loaded.opening
        running = RunningSum(loaded.params.chain, loaded.params.ciphertexts, loaded.residues)
        collection = Collection(loaded.params, given.directory, loaded.session, loaded.members, running)
        if loaded.phase == "done":
            ReleasedSum.decode(memoryview(loaded.release), loaded.params)
        return _State(phase=loaded.phase, collection=collection, release=loaded.release)

    def __repr__(self) -> str:
        state = self._state
        return f"<HEServerSession of {self._params.clients} clients: {state.phase}, {state.collection.count} in>"

    @property
    def params(self) -> HEParams:
        """What the sum runs with."""
        return self._params

    @property
    def session_id(self) -> bytes:
        """What every message of this sum names."""
        session: bytes = self._state.collection.session_id
        return session

    @property
    def stage(self) -> str | None:
        """``encrypted_input``, ``release`` while the decryptor's answer is awaited, or None when there is no more."""
        phase = self._state.phase
        if phase == "collecting":
            return HE_STAGES[0]
        return HE_STAGES[1] if phase == "closed" and self.parties else None

    @property
    def waiting_for(self) -> tuple[int, ...]:
        """The clients whose upload is not in yet; nobody once the sum is closed."""
        state = self._state
        return state.collection.ids(~state.collection.members) if state.phase == "collecting" else ()

    @property
    def ready(self) -> bool:
        """Whether enough uploads are in for ``advance``."""
        state = self._state
        enough: bool = state.collection.count >= self._params.minimum_survivors
        return enough and state.phase == "collecting"

    @property
    def survivors(self) -> tuple[int, ...]:
        """Whose uploads are in."""
        return self._survivors(self._state)

    @property
    def result(self) -> Sum:
        """The sum that the decryptor released, and who is in it.

        Raises:
            LocalProtocolError: there is none yet, or only the clients can decrypt.
        """
        state = self._state
        if state.phase != "done":
            raise LocalProtocolError("there is no result on this side: none was released")
        release = ReleasedSum.decode(memoryview(state.release), self._params)
        return sum_of(self._params, list(self._credentials.directory), release.members, release.values)

    @property
    def parties(self) -> tuple[str, ...]:
        """``decryptor``, where one holds the key."""
        return (DECRYPTOR,) if self._params.key_holder == "decryptor" else ()

    @in_own_process
    def party_requests(self) -> Mapping[str, bytes]:
        """Return what to send the decryptor once the sum is closed; the same bytes each time."""
        state = self._state
        if state.phase != "closed" or not self.parties:
            return {}
        collection: Collection = state.collection
        header = Header(kind=HEKind.RELEASE_REQUEST, sender=SERVER, session=collection.session_id)
        summed = sum_digest(collection.session_id, collection.members, collection.running.encode())
        return {DECRYPTOR: header.encode() + ReleaseRequest(members=collection.members, digest=summed).encode()}

    @exclusive
    def receive_from(self, party: str, payload: Buffer) -> None:
        """Take in what the decryptor released; with ``keep=DEFERRED`` this returns a ``Pending``.

        Raises:
            LocalProtocolError: none is awaited; or another call's step waits for its state to be kept.
            ServerFault: it is not the decryptor's release of this sum. (The decryptor is who is at fault.)
        """
        if self._line[1] is not None:
            hashed = digest(Label.REQUEST, bytes(payload))
            if held := self._held_step(lambda: ("receive_from", hashed)):
                settled: None = self._settle(held)
                return settled
        state, decryptor = self._state, self._credentials.decryptor
        if state.phase != "closed" or decryptor is None or party != DECRYPTOR:
            raise LocalProtocolError("a release is taken in once, of the decryptor, after the sum was closed")
        try:
            header, body = open_message(payload)
            if header.kind != HEKind.RELEASE or header.session != state.collection.session_id:
                raise DecodeError("it is another message, or of another session")
            if len(body) < SIGNATURE_BYTES:
                raise DecodeError("it is too short to bear a signature")
            signed = bytes(body[:-SIGNATURE_BYTES])
            check_signature(decryptor, header, signed, bytes(body[-SIGNATURE_BYTES:]))
            release = ReleasedSum.decode(memoryview(signed), self._params)
            if not np.array_equal(release.members, state.collection.members):
                raise DecodeError("it is of other clients' uploads")
        except DecodeError as problem:
            raise ServerFault(f"not the decryptor's release: {problem}") from None
        after = self._replaced(_State(phase="done", collection=state.collection, release=signed))
        return self._step(lambda: ("receive_from", digest(Label.REQUEST, bytes(payload))), after, None)

    def _requests(self, state: _State) -> Mapping[int, bytes]:
        """Return the opening for everybody; where the clients hold the key, the encrypted sum for whoever is in it."""
        if state.phase == "collecting":
            return dict.fromkeys(self._credentials.directory, self._opening)
        if state.phase != "closed" or self.parties:
            return {}
        collection = state.collection
        header = Header(kind=HEKind.ENCRYPTED_SUM, sender=SERVER, session=collection.session_id)
        message = EncryptedSum(members=collection.members, ciphertexts=collection.running.encode())
        return dict.fromkeys(self._survivors(state), header.encode() + message.encode())

    def _survivors(self, state: _State) -> tuple[int, ...]:
        return state.collection.ids(state.collection.members)

    def _take(self, client_id: SupportsIndex, payload: Buffer, accepted: dict[int, Any]) -> int:
        client, state = checked_id(client_id), self._state
        if state.phase == "aborted":
            raise LocalProtocolError("the session was aborted")
        if state.phase != "collecting":
            if client not in self._credentials.directory:
                raise PeerFault(client, "it is not in the directory")
            raise StaleMessage(client, "its upload came after the sum was closed")
        state.collection.receive(client, payload)
        return 0

    def _close(self, state: _State, threads: int) -> _State:
        if state.phase != "collecting":
            raise LocalProtocolError("the sum was closed, or aborted, before")
        state.collection.check_enough()
        return _State(phase="closed", collection=state.collection)

    def _given_up(self) -> _State:
        collection = Collection(self._params, self._credentials.directory, self._state.collection.session_id)
        return _State(phase="aborted", collection=collection)

    def _state_of(self, at: Stand, seal_key: bytes | None) -> snapshot.SavedState:
        state: _State = at.state
        saved = _Saved(
            params=self._params,
            context=self._context,
            directory=self._credentials.directory.digest(),
            decryptor=self._credentials.decryptor or b"",
            opening=self._opening,
            session=state.collection.session_id,
            phase=state.phase,
            members=state.collection.members,
            residues=state.collection.running.residues.reshape(-1),
            release=state.release,
        )
        return snapshot.save(saved, known=_KNOWN, purpose=_PURPOSE, seal_key=seal_key, randomness=self._randomness)

    @staticmethod
    def _check_same_sum(given: HEServerCredentials, saved: bytes) -> None:
        """Check that what names the sum, where it is given again, names the one that was saved."""
        if given.opening is not None:
            header, body = open_message(given.opening)
            check_restored(("opening", header.encode() + bytes(body), saved))
        if given.key_id is not None:
            check_restored(("key", given.key_id, Opening.decode(open_message(saved)[1]).key_id))

    def _checked_opening(self, payload: Buffer, decryptor: bytes) -> tuple[bytes, bytes]:
        header, body = open_message(payload)
        if header.kind != HEKind.OPENING or header.sender != SERVER or len(body) < SIGNATURE_BYTES:
            raise DecodeError("not an opening")
        opening = Opening.decode(body[:-SIGNATURE_BYTES])
        check_signature(decryptor, header, body[:-SIGNATURE_BYTES], bytes(body[-SIGNATURE_BYTES:]))
        session = session_of(self._params, self._context, opening, self._credentials.directory, decryptor)
        if header.session != session:
            raise DecodeError("the opening is for other parameters, another context, directory or decryptor")
        return header.encode() + bytes(body), session


_KNOWN = snapshot.known_types(_Saved, HEParams, FixedPoint, Chain)
