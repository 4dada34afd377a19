"""The decryptor's side of a homomorphic sum: a party that is neither a client nor the aggregator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from secagg import snapshot
from secagg.encoding.fixed_point import FixedPoint
from secagg.errors import (
    DecodeError,
    InconsistentSum,
    InputError,
    LocalProtocolError,
    ServerFault,
    StaleMessage,
)
from secagg.he.chains import Chain
from secagg.he.ciphertexts import RunningSum
from secagg.he.collection import Collection, check_restored, checked_cohort, session_of
from secagg.he.keys import DecryptionKey, sign
from secagg.he.messages import STAGES, Kind, Opening, Release, ReleaseRequest, sum_digest
from secagg.he.params import HEParams
from secagg.identity import Directory
from secagg.primitives.kdf import Label, digest
from secagg.primitives.randomness import Randomness, draw, system_randomness
from secagg.primitives.signature import SigningKey
from secagg.session.context import check_saved_context, checked_context
from secagg.session.guard import Entry, Single, exclusive
from secagg.session.roster import checked_id
from secagg.wire import ID_BYTES, SERVER, Buffer, Header, open_message

_PURPOSE = b"decryptor of a homomorphic sum"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _State:
    params: HEParams
    context: bytes
    directory: bytes
    key_id: bytes
    signer: bytes
    opening: bytes
    session: bytes
    request: bytes
    reply: bytes | None
    members: NDArray[np.bool_]
    residues: NDArray[np.uint64]


class DecryptorSession(Single):
    """Whoever holds the key, in one homomorphic sum. It trusts the aggregator with nothing.

    It adds the clients' signed uploads itself, so nothing but a sum of at least ``minimum_survivors`` of them, each
    counted once, can be decrypted; it releases the sum alone, once a session, and counts that against the key's budget.
    It is passed the uploads and holds the key, so it could read every vector and is trusted not to. Against clients
    that do not encrypt as specified it does not protect (SECURITY.md).

    The state rule: make ``save()`` and the key's ``save()`` durable before a release leaves. The identical request then
    gets the identical release; another one is refused. The key remembers which sum of a session it released, so a
    session restored to before its release gets that one or none. A release that was cut off, or found the key busy,
    changed nothing: ask again.

    Args:
        params: what the sum runs with; ``key_holder`` is ``decryptor``.
        key: the secret key, with releases left.
        directory: the clients' identities, exactly the cohort.
        signing_key: this party's own Ed25519 key, which clients and aggregator pin.
        context: what the sum is about; not empty.
        randomness: source of the session's nonce.

    Raises:
        InputError: an argument is not as described.
        LocalProtocolError: the key's budget is spent, or the key is retired.
    """

    def __init__(
        self,
        params: HEParams,
        key: DecryptionKey,
        directory: Directory,
        *,
        signing_key: SigningKey,
        context: bytes = b"",
        randomness: Randomness = system_randomness,
    ) -> None:
        self._setup(params, key, directory, signing_key)
        key.check_usable()
        self._context = checked_context(context, required=True)
        message = Opening(nonce=draw(randomness, ID_BYTES), key_id=key.public.key_id)
        session = session_of(params, self._context, message, directory, signing_key.public)
        header, body = Header(kind=Kind.OPENING, sender=SERVER, session=session), message.encode()
        self._opening = header.encode() + body + sign(signing_key, header, body)
        self._collection = Collection(params, directory, session)
        self._answered: tuple[bytes, bytes | None] | None = None

    def _setup(self, params: HEParams, key: DecryptionKey, directory: Directory, signing_key: SigningKey) -> None:
        self._directory = checked_cohort(params, directory)
        if params.key_holder != "decryptor":
            raise InputError("these parameters leave the key to the clients: there is no decryptor")
        if not isinstance(key, DecryptionKey) or key.params != params:
            raise InputError("the key is for other parameters")
        if not isinstance(signing_key, SigningKey):
            raise InputError(f"signing_key must be a SigningKey, got {type(signing_key).__name__}")
        if signing_key.public in directory.values():
            raise InputError("the decryptor must not be one of the clients")
        self._params, self._key, self._signing_key = params, key, signing_key
        self._entry = Entry("session")

    def __repr__(self) -> str:
        return f"<DecryptorSession of {self._params.clients} clients: {self.stage or 'released'}, secrets withheld>"

    @property
    def params(self) -> HEParams:
        """What the sum runs with."""
        return self._params

    @property
    def stage(self) -> str | None:
        """``encrypted_input`` until it has released, or refused for good; then None."""
        return STAGES[0] if self._answered is None else None

    @property
    def opening(self) -> bytes:
        """What begins the sum: for the aggregator, who sends it on to every client."""
        self._entry.check_process()
        return self._opening

    @property
    def survivors(self) -> tuple[int, ...]:
        """Whose uploads are in."""
        return self._collection.ids(self._collection.members)

    @exclusive
    def receive(self, client_id: SupportsIndex, payload: Buffer) -> None:
        """Check a client's upload, add it, and forget it; the aggregator passes uploads on as it receives them.

        Raises:
            StaleMessage: this client's upload is in already, or the sum was released; ignore it.
            PeerFault: it is malformed, of another session or key, or not signed by whom it says. It was not counted.
        """
        client = checked_id(client_id)
        if self._answered is not None:
            raise StaleMessage(client, "its upload came after the sum was released")
        self._collection.receive(client, payload)

    @exclusive
    def release(self, request: Buffer) -> bytes:
        """Decrypt this party's own sum, once, if the aggregator has added the very same uploads.

        Returns:
            The signed release, for the aggregator.

        Raises:
            ServerFault: the request is malformed, of other uploads than were received here, or a second, different one.
            TooFewClients: fewer uploads are in than a sum must hold.
            LocalProtocolError: the key has released another sum of this session, its budget is spent, or it is retired;
                or another thread uses the key: ask again.
            InconsistentSum: some client did not encrypt as specified. Nothing is released, now or later in this
                session, and the key is retired.
        """
        try:
            header, body = open_message(request)
            if header.kind != Kind.RELEASE_REQUEST or header.sender != SERVER:
                raise DecodeError("it is another message")
            if header.session != self._collection.session_id:
                raise DecodeError("it is of another session")
            wanted = ReleaseRequest.decode(body, clients=self._params.clients)
        except DecodeError as problem:
            raise ServerFault(f"not a request to release this sum: {problem}") from None
        asked = digest(Label.REQUEST, header.encode(), body)
        if self._answered is not None:
            return self._again(asked, *self._answered)
        self._collection.check_enough()
        self._check_same(wanted)
        try:
            reply = self._released(wanted.digest)
        except InconsistentSum:
            self._answered = (asked, None)
            raise
        self._answered = (asked, reply)
        return reply

    @exclusive
    def save(self, *, seal_key: bytes | None = None, randomness: Randomness = system_randomness) -> bytes:
        """Return this session as bytes, in the clear or sealed; the keys are not in it."""
        collection = self._collection
        request, reply = self._answered or (b"", None)
        state = _State(
            params=self._params,
            context=self._context,
            directory=self._directory.digest(),
            key_id=self._key.public.key_id,
            signer=self._signing_key.public,
            opening=self._opening,
            session=collection.session_id,
            request=request,
            reply=reply,
            members=collection.members,
            residues=collection.running.residues.reshape(-1),
        )
        return snapshot.save(state, known=_KNOWN, purpose=_PURPOSE, seal_key=seal_key, randomness=randomness)

    @classmethod
    def restore(
        cls,
        saved: Buffer,
        key: DecryptionKey,
        directory: Directory,
        *,
        signing_key: SigningKey,
        seal_key: bytes | None = None,
    ) -> DecryptorSession:
        """Return the session that ``save`` wrote.

        Raises:
            DecodeError: the bytes are damaged, of another version, or sealed under another key.
            InputError: key, directory or signing key are not those that the session was built with, or ``saved`` is no
                buffer of bytes.
        """
        state: Any = snapshot.load(saved, known=_KNOWN, purpose=_PURPOSE, seal_key=seal_key)
        if not isinstance(state, _State) or state.members.shape != (state.params.clients,):
            raise DecodeError("a saved state's fields are not a decryptor's")
        check_saved_context(state.context, required=True)
        session = cls.__new__(cls)
        session._setup(state.params, key, directory, signing_key)
        check_restored(
            ("directory", directory.digest(), state.directory),
            ("decryption key", key.public.key_id, state.key_id),
            ("signing key", signing_key.public, state.signer),
        )
        session._context, session._opening = state.context, state.opening
        running = RunningSum(state.params.chain, state.params.ciphertexts, state.residues)
        session._collection = Collection(state.params, directory, state.session, state.members, running)
        session._answered = (state.request, state.reply) if state.request else None
        return session

    def _released(self, wanted: bytes) -> bytes:
        collection = self._collection
        values = self._key.release(collection.running.residues, collection.count, collection.session_id, wanted)
        answer = Header(kind=Kind.RELEASE, sender=SERVER, session=collection.session_id)
        encoded = Release(members=collection.members, values=values).encode(self._params)
        return answer.encode() + encoded + sign(self._signing_key, answer, encoded)

    @staticmethod
    def _again(asked: bytes, answered: bytes, reply: bytes | None) -> bytes:
        if asked != answered:
            raise ServerFault("a second, different request after one was answered")
        if reply is None:
            raise LocalProtocolError("this sum was refused, and stays refused")
        return reply

    def _check_same(self, wanted: ReleaseRequest) -> None:
        collection = self._collection
        here, there = set(collection.ids(collection.members)), set(collection.ids(wanted.members))
        if here != there:
            raise ServerFault(
                "the aggregator added other uploads: "
                f"only there {sorted(there - here)}, only here {sorted(here - there)}"
            )
        if wanted.digest != sum_digest(collection.session_id, collection.members, collection.running.encode()):
            raise ServerFault("the aggregator's sum of the same uploads is another one")


_KNOWN = snapshot.known_types(_State, HEParams, FixedPoint, Chain)
