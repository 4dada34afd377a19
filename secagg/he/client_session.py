"""A client's side of a homomorphic sum, for integrators."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    TooFewClients,
)
from secagg.he.chains import Chain
from secagg.he.ciphertexts import pack_residues, unpack_residues
from secagg.he.collection import check_restored, checked_cohort, session_of
from secagg.he.keys import DecryptionKey, PublicKey, check_decryptor, check_signature
from secagg.he.messages import STAGES, EncryptedSum, Kind, Opening, Release, sum_digest
from secagg.he.params import HEParams
from secagg.he.result import Sum, sum_of
from secagg.he.slots import exact_slots, real_slots
from secagg.identity import SIGNATURE_BYTES, Identity
from secagg.primitives.kdf import Label, digest
from secagg.primitives.prg import MASK_KEY_BYTES
from secagg.primitives.randomness import Randomness, draw, system_randomness
from secagg.session.answers import InputNeeded, Reply
from secagg.session.context import check_saved_context, checked_context
from secagg.session.guard import Entry, Single, exclusive
from secagg.session.roster import checked_id
from secagg.wire import SERVER, Buffer, Header, open_message

_PURPOSE = b"client of a homomorphic sum"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _State:
    """What a client has taken in and sent: the session, the request it answered, its upload.

    Where it decrypts also the digest of the sum that it released or refused for good, empty before, and what it
    released, None if it refused.
    """

    session: bytes
    request: bytes
    upload: bytes | None = None
    clipped: float | None = None
    summed: bytes = b""
    released: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Saved:
    """What a saved client holds: what it pins, as digests where it is not saved itself, and its state."""

    params: HEParams
    client_id: int
    context: bytes
    directory: bytes
    key_id: bytes
    decryptor: bytes
    state: _State | None


class HEClientSession(Single):
    """One client in one homomorphic sum: ``receive`` the opening, ``submit`` the vector, send the upload.

    The same calls as ``secagg.ClientSession``, and the same state rule: make ``save()`` durable before the reply
    leaves; the identical request gets the identical reply, a different one is refused.

    With ``key_holder="clients"`` the client has the secret key, and decrypts the encrypted sum that the aggregator
    sends afterwards (``receive`` again, then ``result``). **Any one client together with the aggregator then reads
    everybody's vector**, and a client believes the aggregator about whose uploads the sum holds.

    Args:
        params: what this client agreed to.
        client_id: this client's id.
        context: what the sum is about, a hash of the model, say; not empty. Parties with different contexts get no sum.
        identity: this client's signing key, and the directory of exactly the sum's clients.
        public_key: from ``PublicKey.open``, where a decryptor holds the key.
        decryptor: its pinned Ed25519 key (32 bytes), there.
        key: the secret key, where the clients hold it: a copy for each (``DecryptionKey.save``), sent as secrets are.
        randomness: source of the rounding's key; TenSEAL draws encryption's from the operating system.

    Raises:
        InputError: an argument is not as described.
    """

    def __init__(
        self,
        params: HEParams,
        client_id: SupportsIndex,
        *,
        context: bytes = b"",
        identity: Identity,
        public_key: PublicKey | None = None,
        decryptor: bytes | None = None,
        key: DecryptionKey | None = None,
        randomness: Randomness = system_randomness,
    ) -> None:
        self._setup(params, checked_id(client_id), identity, public_key, decryptor, key)
        self._context, self._randomness = checked_context(context, required=True), randomness
        self._state: _State | None = None

    def _setup(
        self,
        params: HEParams,
        client_id: int,
        identity: Identity,
        public_key: PublicKey | None,
        decryptor: bytes | None,
        key: DecryptionKey | None,
    ) -> None:
        if not isinstance(identity, Identity):
            raise InputError("a homomorphic sum takes an identity: a signing key and the directory")
        self._directory = checked_cohort(params, identity.directory)
        if self._directory.get(client_id) != identity.key.public:
            raise InputError("the directory holds another key for this client, or none")
        if params.key_holder == "decryptor":
            if key is not None or not isinstance(public_key, PublicKey) or not isinstance(decryptor, bytes):
                raise InputError("where a decryptor holds the key, a client takes its public key and identity alone")
            check_decryptor(decryptor)
        elif not isinstance(key, DecryptionKey) or public_key is not None or decryptor is not None:
            raise InputError("where the clients hold the key, a client takes that key and no decryptor")
        else:
            public_key = key.public
        if public_key.params != params:
            raise InputError("the key is for other parameters")
        self._params, self._client_id, self._identity = params, client_id, identity
        self._public_key, self._decryptor, self._key = public_key, decryptor, key
        self._entry = Entry("session")

    def __repr__(self) -> str:
        return f"<HEClientSession of client {self._client_id}: {self.stage or 'done'}>"

    @property
    def params(self) -> HEParams:
        """What this client agreed to."""
        return self._params

    @property
    def client_id(self) -> int:
        """This client's id."""
        return self._client_id

    @property
    def stage(self) -> str | None:
        """``encrypted_input`` until the upload is made, then ``release`` if this client decrypts; None at the end."""
        if self._state is None or self._state.upload is None:
            return STAGES[0]
        return STAGES[1] if self._key is not None and not self._state.summed else None

    @property
    def clipped(self) -> float | None:
        """The share of this client's coordinates that ``clip`` cut off, 0 to 1; None before ``submit``; kept local."""
        return None if self._state is None else self._state.clipped

    @property
    def result(self) -> Sum:
        """The sum, where the clients hold the key.

        Raises:
            LocalProtocolError: this client has not decrypted one.
        """
        if self._state is None or self._state.released is None:
            raise LocalProtocolError("this client has decrypted no sum")
        release = Release.decode(memoryview(self._state.released), self._params)
        return sum_of(self._params, list(self._directory), release.members, release.values)

    @exclusive
    def receive(self, payload: Buffer) -> Reply | InputNeeded | None:
        """Take in the opening, or, where the clients hold the key, the encrypted sum.

        Returns:
            InputNeeded when it is time for ``submit``, the upload where it was made already, None for a sum.

        Raises:
            ServerFault: it is no message of this sum, or breaks a rule; also a second, different one.
            TooFewClients: the sum is of fewer clients than agreed.
            LocalProtocolError: the key has released another sum of this session, its budget is spent, or it is retired.
            InconsistentSum: the ciphertext is no sum of honest uploads; the key is retired.
        """
        try:
            header, body = open_message(payload)
            if header.sender != SERVER:
                raise DecodeError("it is not from the server")
            if header.kind == Kind.OPENING:
                return self._open(header, body)
            if header.kind == Kind.ENCRYPTED_SUM and self._key is not None:
                self._decrypt(self._key, header, body)
                return None
            raise DecodeError(f"message {header.kind} is not for this client")
        except DecodeError as problem:
            raise ServerFault(f"not a message of this sum: {problem}") from None

    @exclusive
    def submit(self, vector: NDArray[np.floating], weight: SupportsIndex = 1) -> Reply:
        """Encrypt this client's vector and sign the upload, once.

        Args:
            vector: float32[d] or float64[d], finite; coordinates beyond the encoding's clip are cut (see ``clipped``).
            weight: how often the vector counts, 1 to ``params.max_weight``.

        Raises:
            LocalProtocolError: no vector is awaited now.
            InputError: the vector or the weight is not as described; nothing has changed, submit again.
        """
        state = self._state
        if state is None or state.upload is not None:
            raise LocalProtocolError("a vector is submitted once, after receive() returned InputNeeded")
        slots: NDArray[Any]
        if self._params.protocol == "bfv":
            rounding_key = draw(self._randomness, MASK_KEY_BYTES)
            slots, clipped = exact_slots(vector, weight, self._params, rounding_key)
        else:
            slots, clipped = real_slots(vector, weight, self._params)
        encryptor = self._public_key.encryptor()
        residues = np.stack([encryptor.encrypt(one) for one in slots])
        header = Header(kind=Kind.UPLOAD, sender=self._client_id, session=state.session)
        body = pack_residues(residues, self._params.chain.data_primes)
        upload = header.encode() + body + self._identity.sign(header, body)
        self._state = replace(state, upload=upload, clipped=clipped)
        return Reply(upload, STAGES[0])

    @exclusive
    def save(self, *, seal_key: bytes | None = None) -> bytes:
        """Return this session as bytes, in the clear or sealed; keys are not saved, they are given again."""
        value = _Saved(
            params=self._params,
            client_id=self._client_id,
            context=self._context,
            directory=self._directory.digest(),
            key_id=self._public_key.key_id,
            decryptor=self._decryptor or b"",
            state=self._state,
        )
        return snapshot.save(value, known=_KNOWN, purpose=_PURPOSE, seal_key=seal_key, randomness=self._randomness)

    @classmethod
    def restore(
        cls,
        saved: Buffer,
        client_id: SupportsIndex,
        *,
        seal_key: bytes | None = None,
        identity: Identity,
        public_key: PublicKey | None = None,
        decryptor: bytes | None = None,
        key: DecryptionKey | None = None,
        randomness: Randomness = system_randomness,
    ) -> HEClientSession:
        """Return the session that ``save`` wrote; keys and directory are not in it, and must be the same again.

        Raises:
            DecodeError: the bytes are damaged, of another version, or sealed under another key.
            InputError: the state is another client's; directory, key or decryptor are not those that the session was
                built with; or ``saved`` is no buffer of bytes.
        """
        client_id = checked_id(client_id)
        loaded = snapshot.load(saved, known=_KNOWN, purpose=_PURPOSE, seal_key=seal_key)
        if not isinstance(loaded, _Saved):
            raise DecodeError("a saved state's fields are not a client's")
        if loaded.client_id != client_id:
            raise InputError(f"the saved session is client {loaded.client_id}'s, not client {client_id}'s")
        check_saved_context(loaded.context, required=True)
        session = cls.__new__(cls)
        session._setup(loaded.params, client_id, identity, public_key, decryptor, key)
        check_restored(
            ("directory", identity.directory.digest(), loaded.directory),
            ("key", session._public_key.key_id, loaded.key_id),
            ("decryptor", decryptor or b"", loaded.decryptor),
        )
        session._context, session._state, session._randomness = loaded.context, loaded.state, randomness
        return session

    def _open(self, header: Header, body: memoryview) -> Reply | InputNeeded:
        request = digest(Label.REQUEST, header.encode(), body)
        if self._state is not None:
            if request != self._state.request:
                raise ServerFault("a second, different opening after one was taken in")
            upload = self._state.upload
            return InputNeeded(self._params.clients) if upload is None else Reply(upload, STAGES[0])
        signature = b""
        if self._decryptor is not None:
            signature, body = bytes(body[-SIGNATURE_BYTES:]), body[:-SIGNATURE_BYTES]
        opening = Opening.decode(body)
        if self._decryptor is not None:
            check_signature(self._decryptor, header, body, signature)
        if opening.key_id != self._public_key.key_id:
            raise DecodeError("it names another key")
        session = session_of(self._params, self._context, opening, self._directory, self._decryptor)
        if header.session != session:
            raise DecodeError("it is of another session: parameters, context, directory or decryptor differ")
        self._state = _State(session=session, request=request)
        return InputNeeded(self._params.clients)

    def _decrypt(self, key: DecryptionKey, header: Header, body: memoryview) -> None:
        state, params = self._state, self._params
        if state is None or state.upload is None or header.session != state.session:
            raise DecodeError("it is of another session, or came too early")
        request = digest(Label.REQUEST, header.encode(), body)
        if state.summed:
            if request != state.summed:
                raise ServerFault("a second, different sum after one was decrypted")
            if state.released is None:
                raise LocalProtocolError("this sum was refused, and stays refused")
            return
        message = EncryptedSum.decode(body, params)
        survivors = int(message.members.sum())
        if survivors < params.minimum_survivors:
            raise TooFewClients(survivors, params.minimum_survivors, "too few uploads for a sum")
        if not message.members[list(self._directory).index(self._client_id)]:
            raise DecodeError("it leaves this client's upload out")
        chain = params.chain
        residues = unpack_residues(memoryview(message.ciphertexts), chain.data_primes, params.ciphertexts, chain.degree)
        summed = sum_digest(state.session, message.members, message.ciphertexts)
        try:
            values = key.release(residues, survivors, state.session, summed)
        except InconsistentSum:
            self._state = replace(state, summed=request)
            raise
        released = Release(members=message.members, values=values).encode(params)
        self._state = replace(state, summed=request, released=released)


_KNOWN = snapshot.known_types(_Saved, _State, HEParams, FixedPoint, Chain)
