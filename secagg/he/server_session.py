"""The aggregator's side of a homomorphic sum, for integrators. It never holds a secret key, and never loads TenSEAL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from secagg import snapshot
from secagg.encoding.fixed_point import FixedPoint
from secagg.errors import (
    DecodeError,
    InputError,
    LocalProtocolError,
    PeerFault,
    ServerFault,
    StaleMessage,
)
from secagg.he.chains import Chain
from secagg.he.ciphertexts import RunningSum
from secagg.he.collection import Collection, check_restored, checked_cohort, session_of
from secagg.he.keys import check_decryptor, check_signature
from secagg.he.messages import STAGES, EncryptedSum, Kind, Opening, Release, ReleaseRequest, sum_digest
from secagg.he.params import HEParams
from secagg.he.result import Sum, sum_of
from secagg.identity import SIGNATURE_BYTES, Directory
from secagg.primitives.randomness import Randomness, draw, system_randomness
from secagg.session.context import check_saved_context, checked_context
from secagg.session.guard import Entry, Single, exclusive, in_own_process
from secagg.session.roster import checked_id
from secagg.wire import ID_BYTES, SERVER, Buffer, Header, open_message

Phase = Literal["collecting", "closed", "done", "aborted"]

_PURPOSE = b"server of a homomorphic sum"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _State:
    params: HEParams
    context: bytes
    directory: bytes
    decryptor: bytes
    opening: bytes
    session: bytes
    phase: Phase
    members: NDArray[np.bool_]
    residues: NDArray[np.uint64]


class HEServerSession(Single):
    """The aggregator of one homomorphic sum: adds uploads as they come, and keeps none.

    With ``key_holder="decryptor"`` pass each upload on to the decryptor once ``receive`` has returned: it adds them
    again, and only its own sum is released. ``advance`` closes the sum, ``release_request`` is for the decryptor,
    ``accept_release`` takes its answer. With ``key_holder="clients"`` ``advance`` returns the encrypted sum for each
    client, and **this side never learns the sum**; any client that shares its key with this side lets it read
    everybody.

    An upload's check leaves nothing to parse: it has one length, and residues below public primes. So a hostile one is
    a ``PeerFault`` and costs nothing; no process has to be kept for parsing it.

    Args:
        params: what the sum runs with.
        directory: the clients' identities, exactly the cohort.
        context: what the sum is about; not empty.
        opening: from ``DecryptorSession.opening``, where a decryptor holds the key.
        decryptor: its pinned Ed25519 key (32 bytes), there.
        key_id: of the public key (``PublicKey.key_id``), where the clients hold the secret one.
        randomness: source of the session's nonce, there.

    Raises:
        InputError: an argument is not as described.
        DecodeError: the opening is not the decryptor's for this sum.
    """

    def __init__(
        self,
        params: HEParams,
        directory: Directory,
        *,
        context: bytes = b"",
        opening: Buffer | None = None,
        decryptor: bytes | None = None,
        key_id: bytes | None = None,
        randomness: Randomness = system_randomness,
    ) -> None:
        self._directory = checked_cohort(params, directory)
        self._params, self._context, self._decryptor = params, checked_context(context, required=True), decryptor
        if params.key_holder == "decryptor":
            if opening is None or not isinstance(decryptor, bytes) or key_id is not None:
                raise InputError("where a decryptor holds the key, the server takes its opening and identity alone")
            check_decryptor(decryptor)
            self._opening, session = self._checked_opening(opening, decryptor)
        else:
            if opening is not None or decryptor is not None:
                raise InputError("where the clients hold the key, there is no decryptor")
            if not isinstance(key_id, bytes) or len(key_id) != ID_BYTES:
                raise InputError(f"key_id must be the public key's {ID_BYTES} bytes")
            message = Opening(nonce=draw(randomness, ID_BYTES), key_id=key_id)
            session = session_of(params, self._context, message, directory, None)
            self._opening = Header(kind=Kind.OPENING, sender=SERVER, session=session).encode() + message.encode()
        self._collection = Collection(params, directory, session)
        self._phase: Phase = "collecting"
        self._result: Sum | None = None
        self._entry = Entry("session")

    def __repr__(self) -> str:
        return f"<HEServerSession of {self._params.clients} clients: {self._phase}, {self._collection.count} in>"

    @property
    def params(self) -> HEParams:
        """What the sum runs with."""
        return self._params

    @property
    def session_id(self) -> bytes:
        """What every message of this sum names."""
        return self._collection.session_id

    @property
    def stage(self) -> str | None:
        """``encrypted_input``, ``release`` while the decryptor's answer is awaited, or None when there is no more."""
        if self._phase == "collecting":
            return STAGES[0]
        return STAGES[1] if self._phase == "closed" and self._params.key_holder == "decryptor" else None

    @property
    def waiting_for(self) -> tuple[int, ...]:
        """The clients whose upload is not in yet; nobody once the sum is closed."""
        return self._collection.ids(~self._collection.members) if self._phase == "collecting" else ()

    @property
    def ready(self) -> bool:
        """Whether enough uploads are in for ``advance``."""
        return self._phase == "collecting" and self._collection.count >= self._params.minimum_survivors

    @property
    def survivors(self) -> tuple[int, ...]:
        """Whose uploads are in."""
        return self._collection.ids(self._collection.members)

    @property
    def result(self) -> Sum:
        """The sum that the decryptor released, and who is in it.

        Raises:
            LocalProtocolError: there is none yet, or only the clients can decrypt.
        """
        if self._result is None:
            raise LocalProtocolError("there is no result on this side: none was released")
        return self._result

    @in_own_process
    def requests(self) -> Mapping[int, bytes]:
        """Return what to send now, by client id: the opening, or the encrypted sum where the clients hold the key."""
        if self._phase == "collecting":
            return dict.fromkeys(self._directory, self._opening)
        if self._phase != "closed" or self._params.key_holder == "decryptor":
            return {}
        collection = self._collection
        header = Header(kind=Kind.ENCRYPTED_SUM, sender=SERVER, session=collection.session_id)
        message = EncryptedSum(members=collection.members, ciphertexts=collection.running.encode())
        return dict.fromkeys(self.survivors, header.encode() + message.encode())

    @exclusive
    def receive(self, client_id: SupportsIndex, payload: Buffer) -> None:
        """Check a client's upload, add it, and forget it.

        Args:
            client_id: whom the transport received it from.
            payload: the message, any contiguous buffer; it is not kept.

        Raises:
            StaleMessage: this client's upload is in already, or the sum is closed; ignore it.
            PeerFault: it is malformed, of another session or key, or not signed by whom it says. It was not counted.
            LocalProtocolError: the session was aborted.
        """
        client = checked_id(client_id)
        if self._phase == "aborted":
            raise LocalProtocolError("the session was aborted")
        if self._phase != "collecting":
            if client not in self._directory:
                raise PeerFault(client, "it is not in the directory")
            raise StaleMessage(client, "its upload came after the sum was closed")
        self._collection.receive(client, payload)

    @exclusive
    def advance(self) -> Mapping[int, bytes]:
        """Close the sum with whoever's upload is in, and return ``requests()``.

        Raises:
            TooFewClients: it cannot close yet; wait for more uploads, or ``abort``.
            LocalProtocolError: it was closed or aborted before.
        """
        if self._phase != "collecting":
            raise LocalProtocolError("the sum was closed, or aborted, before")
        self._collection.check_enough()
        self._phase = "closed"
        return self.requests()

    @property
    def release_request(self) -> bytes:
        """What to send the decryptor once the sum is closed; the same bytes each time.

        Raises:
            LocalProtocolError: the sum is not closed, or there is no decryptor.
        """
        self._entry.check_process()
        if self._phase != "closed" or self._params.key_holder != "decryptor":
            raise LocalProtocolError("a release is asked for once the sum is closed, of a decryptor")
        collection = self._collection
        header = Header(kind=Kind.RELEASE_REQUEST, sender=SERVER, session=collection.session_id)
        digest = sum_digest(collection.session_id, collection.members, collection.running.encode())
        return header.encode() + ReleaseRequest(members=collection.members, digest=digest).encode()

    @exclusive
    def accept_release(self, payload: Buffer) -> None:
        """Take in what the decryptor released.

        Raises:
            LocalProtocolError: none is awaited.
            ServerFault: it is not the decryptor's release of this sum. (The decryptor is who is at fault.)
        """
        if self._phase != "closed" or self._decryptor is None:
            raise LocalProtocolError("a release is taken in once, after the sum was closed")
        try:
            header, body = open_message(payload)
            if header.kind != Kind.RELEASE or header.session != self._collection.session_id:
                raise DecodeError("it is another message, or of another session")
            if len(body) < SIGNATURE_BYTES:
                raise DecodeError("it is too short to bear a signature")
            check_signature(self._decryptor, header, body[:-SIGNATURE_BYTES], bytes(body[-SIGNATURE_BYTES:]))
            release = Release.decode(body[:-SIGNATURE_BYTES], self._params)
            if not np.array_equal(release.members, self._collection.members):
                raise DecodeError("it is of other clients' uploads")
        except DecodeError as problem:
            raise ServerFault(f"not the decryptor's release: {problem}") from None
        self._result = sum_of(self._params, list(self._directory), release.members, release.values)
        self._phase = "done"

    @exclusive
    def abort(self) -> None:
        """Give the sum up and forget everything that was received."""
        self._phase = "aborted"
        self._collection = Collection(self._params, self._directory, self._collection.session_id)

    @exclusive
    def save(self, *, seal_key: bytes | None = None, randomness: Randomness = system_randomness) -> bytes:
        """Return this session as bytes, in the clear or sealed; a released result is not kept, ask again for it."""
        collection = self._collection
        state = _State(
            params=self._params,
            context=self._context,
            directory=self._directory.digest(),
            decryptor=self._decryptor or b"",
            opening=self._opening,
            session=collection.session_id,
            phase="closed" if self._phase == "done" else self._phase,
            members=collection.members,
            residues=collection.running.residues.reshape(-1),
        )
        return snapshot.save(state, known=_KNOWN, purpose=_PURPOSE, seal_key=seal_key, randomness=randomness)

    @classmethod
    def restore(cls, saved: Buffer, directory: Directory, *, seal_key: bytes | None = None) -> HEServerSession:
        """Return the session that ``save`` wrote.

        Raises:
            DecodeError: the bytes are damaged, of another version, or sealed under another key.
            InputError: the directory is not the one that the session was built with.
        """
        state: Any = snapshot.load(saved, known=_KNOWN, purpose=_PURPOSE, seal_key=seal_key)
        if not isinstance(state, _State) or state.members.shape != (state.params.clients,):
            raise DecodeError("a saved state's fields are not a server's")
        check_saved_context(state.context, required=True)
        check_restored(("directory", checked_cohort(state.params, directory).digest(), state.directory))
        session = cls.__new__(cls)
        session._params, session._directory, session._context = state.params, directory, state.context
        session._decryptor, session._opening = state.decryptor or None, state.opening
        running = RunningSum(state.params.chain, state.params.ciphertexts, state.residues)
        session._collection = Collection(state.params, directory, state.session, state.members, running)
        session._phase, session._result, session._entry = state.phase, None, Entry("session")
        return session

    def _checked_opening(self, payload: Buffer, decryptor: bytes) -> tuple[bytes, bytes]:
        header, body = open_message(payload)
        if header.kind != Kind.OPENING or header.sender != SERVER or len(body) < SIGNATURE_BYTES:
            raise DecodeError("not an opening")
        opening = Opening.decode(body[:-SIGNATURE_BYTES])
        check_signature(decryptor, header, body[:-SIGNATURE_BYTES], bytes(body[-SIGNATURE_BYTES:]))
        session = session_of(self._params, self._context, opening, self._directory, decryptor)
        if header.session != session:
            raise DecodeError("the opening is for other parameters, another context, directory or decryptor")
        return header.encode() + bytes(body), session


_KNOWN = snapshot.known_types(_State, HEParams, FixedPoint, Chain)
