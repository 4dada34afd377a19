"""The decryptor's side of a homomorphic sum: a party that is neither a client nor the aggregator."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from secagg import snapshot
from secagg.encoding.fixed_point import FixedPoint
from secagg.errors import DecodeError, InputError, ServerFault, StaleMessage
from secagg.he.chains import Chain
from secagg.he.ciphertexts import RunningSum
from secagg.he.collection import Collection, session_of
from secagg.he.credentials import check_restored, checked_cohort
from secagg.he.keys import DecryptionKey, sign
from secagg.he.messages import HE_STAGES, HEKind, Members, Opening, ReleasedSum, ReleaseRequest, sum_digest
from secagg.he.params import HEParams
from secagg.identity import Directory
from secagg.primitives.kdf import Label, digest
from secagg.primitives.randomness import Randomness, draw, system_randomness
from secagg.primitives.signature import SigningKey
from secagg.session.context import check_saved_context, checked_context
from secagg.session.guard import exclusive
from secagg.session.keeping import IN_MEMORY, UNSET, Keep, Keeper, Pending, SealKey, given_key
from secagg.session.roster import checked_id
from secagg.wire import ID_BYTES, SERVER, Buffer, Header, open_message

_PURPOSE = b"homomorphic/decryptor"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class _Saved:
    params: HEParams
    context: bytes
    directory: bytes
    key_id: bytes
    signer: bytes
    opening: bytes
    session: bytes
    request: bytes
    reply: bytes
    members: NDArray[np.bool_]
    residues: NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Progress:
    """What was answered, and whether the session was kept as it was when it was opened."""

    request: bytes = b""
    reply: bytes = b""
    kept: bool = False


class DecryptorSession(Keeper):
    """Whoever holds the key, in one homomorphic sum. It trusts the aggregator with nothing.

    It adds the clients' signed uploads itself, so nothing but a sum of at least ``minimum_survivors`` of them, each
    counted once, can be decrypted; it releases the sum alone, once a session, and counts that against the key's budget.
    It is passed the uploads and holds the key, so it could read every vector and is trusted not to. Against clients
    that do not encrypt as specified it does not protect (SECURITY.md).

    The state rule is kept for you: ``keep``, the session's and the key's, has made both durable before a release
    exists. The identical request then gets the identical release; another one is refused. The key remembers which sum
    of a session it released, so a session restored to before its release gets that one or none. Uploads are not kept
    one by one: a restored session takes them again. A release that was cut off, or found the key busy, changed nothing:
    ask again.

    Args:
        params: what the sum runs with; ``key_holder`` is ``decryptor``.
        key: the secret key, with releases left.
        directory: the clients' identities, exactly the cohort.
        signing_key: this party's own Ed25519 key, which clients and aggregator pin.
        context: what the sum is about; not empty.
        keep: makes a state durable, and returns when it is; see ``secagg.ClientSession``.
        seal_key: 32 bytes that states are sealed under; None leaves them in the clear, and must be said where states
            are kept.
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
        keep: Keep,
        seal_key: SealKey = UNSET,
        randomness: Randomness = system_randomness,
    ) -> None:
        self._setup(params, key, directory, signing_key)
        key.check_usable()
        self._context = checked_context(context, required=True)
        message = Opening(nonce=draw(randomness, ID_BYTES), key_id=key.public.key_id)
        session = session_of(params, self._context, message, directory, signing_key.public)
        header, body = Header(kind=HEKind.OPENING, sender=SERVER, session=session), message.encode()
        self._opening = header.encode() + body + sign(signing_key, header, body)
        self._collection = Collection(params, directory, session)
        self._begin(_Progress(kept=keep is IN_MEMORY), keep, seal_key, randomness)

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

    def __repr__(self) -> str:
        return f"<DecryptorSession of {self._params.clients} clients: {self.stage or 'released'}, secrets withheld>"

    @property
    def params(self) -> HEParams:
        """What the sum runs with."""
        return self._params

    @property
    def stage(self) -> str | None:
        """``encrypted_input`` until it has released; then None."""
        return None if self._at.request else HE_STAGES[0]

    @exclusive
    def opening(self) -> bytes:
        """Return what begins the sum: for the aggregator, who sends it on to every client. The same bytes each time.

        The first call keeps the session. With ``keep=DEFERRED`` it returns a ``Pending``.
        """
        if held := self._held_step(lambda: "opening"):
            return self._settle(held)  # type: ignore[no-any-return]
        if self._at.kept:
            return self._opening
        return self._step(lambda: "opening", replace(self._at, kept=True), self._opening)

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
            LocalProtocolError: a call's step waits for its state to be kept.
        """
        self._change()
        self._key.check_settled(self._collection.session_id)
        client = checked_id(client_id)
        if self._at.request:
            raise StaleMessage(client, "its upload came after the sum was released")
        self._collection.receive(client, payload)

    @exclusive
    def release(self, request: Buffer) -> bytes:
        """Decrypt this party's own sum, once, if the aggregator has added the very same uploads.

        Returns:
            The signed release, for the aggregator. With ``DEFERRED``, the session's or the key's, a ``Pending`` of it;
            where both are, the key's comes first.

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
            if header.kind != HEKind.RELEASE_REQUEST or header.sender != SERVER:
                raise DecodeError("it is another message")
            if header.session != self._collection.session_id:
                raise DecodeError("it is of another session")
            wanted = ReleaseRequest.decode(body, clients=self._params.clients)
        except DecodeError as problem:
            raise ServerFault(f"not a request to release this sum: {problem}") from None
        asked = digest(Label.REQUEST, header.encode(), body)
        if held := self._held_step(lambda: ("release", asked)):
            return self._settle(held)  # type: ignore[no-any-return]
        if self._at.request:
            if asked != self._at.request:
                raise ServerFault("a second, different request after one was answered")
            reply: bytes = self._at.reply
            return reply
        self._collection.check_enough()
        self._check_same(wanted)
        collection, members = self._collection, self._collection.members
        values = self._key.release(collection.running.residues, collection.count, collection.session_id, wanted.digest)
        if isinstance(values, Pending):
            return values.then(lambda out: self._go_on(asked, members, out))  # type: ignore[return-value]
        return self._released(asked, members, values)

    @exclusive
    def _go_on(self, asked: bytes, members: Members, values: NDArray[Any]) -> bytes:
        if held := self._held_step(lambda: ("release", asked)):
            return self._settle(held)  # type: ignore[no-any-return]
        if asked == self._at.request:
            reply: bytes = self._at.reply
            return reply
        return self._released(asked, members, values)

    def _released(self, asked: bytes, members: Members, values: NDArray[Any]) -> bytes:
        answer = Header(kind=HEKind.RELEASE, sender=SERVER, session=self._collection.session_id)
        encoded = ReleasedSum(members=members, values=values).encode(self._params)
        reply = answer.encode() + encoded + sign(self._signing_key, answer, encoded)
        return self._step(lambda: ("release", asked), _Progress(request=asked, reply=reply, kept=True), reply)

    def _state_of(self, at: _Progress, seal_key: bytes | None) -> snapshot.SavedState:
        collection = self._collection
        value = _Saved(
            params=self._params,
            context=self._context,
            directory=self._directory.digest(),
            key_id=self._key.public.key_id,
            signer=self._signing_key.public,
            opening=self._opening,
            session=collection.session_id,
            request=at.request,
            reply=at.reply,
            members=collection.members,
            residues=collection.running.residues.reshape(-1),
        )
        return snapshot.save(value, known=_KNOWN, purpose=_PURPOSE, seal_key=seal_key, randomness=self._randomness)

    @classmethod
    def restore(
        cls,
        saved: Buffer,
        key: DecryptionKey,
        directory: Directory,
        *,
        signing_key: SigningKey,
        keep: Keep,
        seal_key: SealKey = UNSET,
        randomness: Randomness = system_randomness,
    ) -> DecryptorSession:
        """Return the session whose state ``keep`` was given, or ``save`` returned; further states are kept as well.

        Raises:
            DecodeError: the bytes are damaged, of another version, or sealed under another key.
            InputError: key, directory or signing key are not those that the session was built with, or ``saved`` is no
                buffer of bytes.
        """
        loaded: Any = snapshot.load(saved, known=_KNOWN, purpose=_PURPOSE, seal_key=given_key(seal_key))
        if not isinstance(loaded, _Saved) or loaded.members.shape != (loaded.params.clients,):
            raise DecodeError("a saved state's fields are not a decryptor's")
        check_saved_context(loaded.context, required=True)
        session = cls.__new__(cls)
        session._setup(loaded.params, key, directory, signing_key)
        check_restored(
            ("directory", directory.digest(), loaded.directory),
            ("decryption key", key.public.key_id, loaded.key_id),
            ("signing key", signing_key.public, loaded.signer),
        )
        session._context, session._opening = loaded.context, loaded.opening
        running = RunningSum(loaded.params.chain, loaded.params.ciphertexts, loaded.residues)
        session._collection = Collection(loaded.params, directory, loaded.session, loaded.members, running)
        at = _Progress(request=loaded.request, reply=loaded.reply, kept=True)
        session._begin(at, keep, seal_key, randomness)
        return session

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


_KNOWN = snapshot.known_types(_Saved, HEParams, FixedPoint, Chain)
