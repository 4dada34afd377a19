"""The public key that clients encrypt under, and the secret one with its record of what it has released."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from secagg import snapshot
from secagg.encoding.fixed_point import FixedPoint
from secagg.errors import DecodeError, InconsistentSum, InputError, LocalProtocolError
from secagg.he.chains import Chain
from secagg.he.ciphertexts import Residues, pack_residues, unpack_residues
from secagg.he.engine import Decryptor, Encryptor
from secagg.he.flooding import flood
from secagg.he.messages import HEKind, key_identifier
from secagg.he.params import HEParams
from secagg.he.slots import real_values, unpack_words
from secagg.identity import SIGNATURE_BYTES, Directory, Identity
from secagg.primitives.kdf import DIGEST_BYTES
from secagg.primitives.randomness import Randomness, draw, system_randomness
from secagg.primitives.signature import SigningKey, check_public
from secagg.session.guard import exclusive, in_own_process
from secagg.session.keeping import UNSET, Keep, Keeper, Pending, SealKey, given_key
from secagg.wire import ID_BYTES, SERVER, Buffer, Header, open_message

_FLOODING_SECRET_BYTES = 32
_RECORD_BYTES = ID_BYTES + DIGEST_BYTES
_PURPOSE = b"homomorphic/key"
_ALONE = 0
"""The decryptor's place in the directory of one that its signatures are checked against."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PublicKey:
    """What clients encrypt under. Send ``message`` once; sums under the same key name it by ``key_id``.

    Attributes:
        params: what it is for.
        packed: its residues as they travel.
        key_id: 32 bytes that stand for both.
    """

    params: HEParams
    packed: bytes
    key_id: bytes = field(init=False)
    _encryptor: list[Encryptor] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key_id", key_identifier(self.params, self.packed))

    def __repr__(self) -> str:
        return f"<PublicKey {self.key_id.hex()[:16]}>"

    def message(self, signing_key: SigningKey) -> bytes:
        """Return the signed message that ``open`` reads, for every client."""
        header = Header(kind=HEKind.PUBLIC_KEY, sender=SERVER, session=self.key_id)
        return header.encode() + self.packed + sign(signing_key, header, self.packed)

    @classmethod
    def open(cls, payload: Buffer, params: HEParams, decryptor: bytes) -> PublicKey:
        """Read what ``message`` returned.

        Args:
            payload: the message.
            params: what this client agreed to.
            decryptor: the decryptor's Ed25519 key, which the caller pins: whoever chooses it can read everybody.

        Raises:
            DecodeError: it is no key for these parameters, or the decryptor did not sign it.
            InputError: ``decryptor`` is no Ed25519 key.
        """
        check_decryptor(decryptor)
        header, body = open_message(payload)
        if header.kind != HEKind.PUBLIC_KEY or header.sender != SERVER:
            raise DecodeError("not a public key")
        end = params.public_key_bytes
        if len(body) != end + SIGNATURE_BYTES:
            raise DecodeError(f"a public key takes {end + SIGNATURE_BYTES} bytes of body, got {len(body)}")
        check_signature(decryptor, header, body[:end], bytes(body[end:]))
        unpack_residues(body[:end], params.chain.primes, 1, params.chain.degree)
        key = cls(params=params, packed=bytes(body[:end]))
        if key.key_id != header.session:
            raise DecodeError("the public key is for other parameters")
        return key

    def encryptor(self) -> Encryptor:
        """Return what encrypts under this key; made at the first call, since its tables take longer than encrypting."""
        if not self._encryptor:
            chain = self.params.chain
            residues = unpack_residues(memoryview(self.packed), chain.primes, 1, chain.degree)
            self._encryptor.append(Encryptor(self.params.scheme, residues[0]))
        return self._encryptor[0]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class _SavedKey:
    """What a saved key holds; ``sums`` is session and digest of each release, in their order."""

    params: HEParams
    pair: bytes
    flooding: bytes
    released: int
    sums: bytes
    retired: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Record:
    """What a key has released: session -> digest of its sum; and whether it was retired."""

    sums: Mapping[bytes, bytes] = field(default_factory=dict)
    retired: bool = False


class DecryptionKey(Keeper):
    """A secret key, and the record of what it has released. It serves one party, or every client (``key_holder``).

    What comes out of it is the sum over a cohort, exact or flooded, never a decryption as it is. Of a session it
    releases one sum, whatever becomes of the session's own state: two would differ by what one client sent. It stops
    after ``params.releases`` sums, and is **retired** for good when a decryption shows that some ciphertext was not
    made as specified: each such refusal tells its maker a bit about the key.

    The state rule is kept for you: ``keep`` has made the key durable before ``generate`` returns it, and its record of
    a release before that release exists; else a budget could be spent twice, and a session release two sums. Its state
    grows by 64 bytes with each release.

    Several sessions may share a key. One thread at a time is served, another gets LocalProtocolError and may call
    again; a forked child is served never.
    """

    _what = "decryption key"

    def __init__(
        self,
        params: HEParams,
        decryptor: Decryptor,
        flooding: bytes,
        record: _Record,
        *,
        keep: Keep,
        seal_key: SealKey,
        randomness: Randomness,
    ) -> None:
        self._params, self._decryptor, self._flooding = params, decryptor, flooding
        packed = pack_residues(decryptor.public_key()[None], params.chain.primes)
        self._public = PublicKey(params=params, packed=packed)
        self._begin(record, keep, seal_key, randomness)

    @classmethod
    def generate(
        cls,
        params: HEParams,
        *,
        keep: Keep,
        seal_key: SealKey = UNSET,
        randomness: Randomness = system_randomness,
    ) -> DecryptionKey:
        """Make a key pair; TenSEAL draws it from the operating system, ``randomness`` gives the flooding's secret.

        Args:
            params: what the key is for.
            keep: makes the key durable, and returns when it is: now, and at each release; see ``secagg.ClientSession``.
                With ``DEFERRED`` this returns a ``Pending`` of the key.
            seal_key: 32 bytes that it is sealed under; None leaves it in the clear, and must be said where it is kept.
            randomness: see above.

        Raises:
            InputError: an argument is not as described.
        """
        if not isinstance(params, HEParams):
            raise InputError(f"params must be HEParams, got {type(params).__name__}")
        flooding = draw(randomness, _FLOODING_SECRET_BYTES)
        key = cls(
            params,
            Decryptor(params.scheme),
            flooding,
            _Record(),
            keep=keep,
            seal_key=seal_key,
            randomness=randomness,
        )
        return key._step(lambda: "generate", key._at, key)

    def __repr__(self) -> str:
        state = "retired" if self.retired else f"{self.releases_left} releases left"
        return f"<DecryptionKey {self._public.key_id.hex()[:16]}: {state}, secrets withheld>"

    def __copy__(self) -> NoReturn:
        raise TypeError("a decryption key is not copied: a copy would have a budget of its own; use save()")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a decryption key is not pickled: it is secret; use save() and restore()")

    @property
    def params(self) -> HEParams:
        """What the key is for."""
        return self._params

    @property
    def public(self) -> PublicKey:
        """The public half.

        Raises:
            LocalProtocolError: the key is made and not durable yet.
        """
        if self._line[1] is not None and self._line[1].call == "generate":
            raise LocalProtocolError("this key waits to be kept: nobody must encrypt under it before that")
        return self._public

    @property
    def retired(self) -> bool:
        """Whether a malformed ciphertext has ended this key, for good."""
        retired: bool = self._at.retired
        return retired

    @property
    def released(self) -> int:
        """How many sums this key has released; the same sum again is no other one."""
        return len(self._at.sums)

    @property
    def releases_left(self) -> int:
        """How many sums this key may still release."""
        return 0 if self.retired else self.params.releases - self.released

    def _state_of(self, at: _Record, seal_key: bytes | None) -> snapshot.SavedState:
        value = _SavedKey(
            params=self.params,
            pair=self._decryptor.secret_bytes(),
            flooding=self._flooding,
            released=len(at.sums),
            sums=b"".join(session + digest for session, digest in at.sums.items()),
            retired=at.retired,
        )
        return snapshot.save(value, known=_KNOWN, purpose=_PURPOSE, seal_key=seal_key, randomness=self._randomness)

    @classmethod
    def restore(
        cls,
        saved: Buffer,
        *,
        keep: Keep,
        seal_key: SealKey = UNSET,
        randomness: Randomness = system_randomness,
    ) -> DecryptionKey:
        """Return the key that ``keep`` was given, or ``save`` returned. It must be the caller's own: TenSEAL parses it.

        Raises:
            DecodeError: the bytes are damaged, of another kind, or sealed under another key.
            InputError: an argument is not as described.
        """
        value = snapshot.load(saved, known=_KNOWN, purpose=_PURPOSE, seal_key=given_key(seal_key))
        if not isinstance(value, _SavedKey) or len(value.flooding) != _FLOODING_SECRET_BYTES:
            raise DecodeError("a saved key's fields are not a key's")
        record = _Record(sums=_sums_of(value), retired=value.retired)
        decryptor = Decryptor(value.params.scheme, value.pair)
        return cls(value.params, decryptor, value.flooding, record, keep=keep, seal_key=seal_key, randomness=randomness)

    @in_own_process
    def check_usable(self) -> None:
        """Check that one more sum may be released.

        Raises:
            LocalProtocolError: the key is retired, or its budget is spent.
        """
        if self.retired:
            raise LocalProtocolError("the key was retired after a malformed ciphertext: make a new one")
        if self.releases_left < 1:
            raise LocalProtocolError(f"the key has released its {self.params.releases} sums: make a new one")

    @in_own_process
    def check_releasable(self, session: bytes, digest: bytes) -> None:
        """Check that this sum of a session may be released: the session's first, or the one that was before.

        Raises:
            LocalProtocolError: another sum of the session was released, the key is retired, or its budget is spent.
        """
        known = self._at.sums.get(session)
        if known is None or self.retired:
            self.check_usable()
        elif known != digest:
            raise LocalProtocolError("the key has released another sum of this session: it releases no second one")

    def check_settled(self, session: bytes) -> None:
        """Check that no release of this session waits for the key to be kept: its uploads must stay what they are.

        Raises:
            LocalProtocolError: one does.
        """
        held = self._line[1]
        if held is not None and isinstance(held.call, tuple) and held.call[0] == session:
            self._check_free()

    @exclusive
    def release(self, residues: Residues, survivors: int, session: bytes, digest: bytes) -> NDArray[Any]:
        """Decrypt a sum of so many uploads to what may be shown: words of the ring, or flooded and rounded values.

        The sessions call this; they have checked whose uploads were added. The same sum of the same session may be
        released again, by another holder or after a crash: it shows what was shown, so it does not count. A call that
        raises has shown nothing and counts for nothing, unless it retires the key.

        Args:
            residues: uint64[C, 2, primes, N], checked.
            survivors: how many uploads it holds.
            session: the session's identifier, 32 bytes.
            digest: of the sum and of whose uploads it holds, 32 bytes.

        Raises:
            InputError: identifier or digest are of another length.
            LocalProtocolError: another sum of this session was released, the budget is spent, the key is retired, or
                this is a forked child. Or another thread uses the key: then call again.
            InconsistentSum: some ciphertext was not made as specified. Nothing is released; the key is retired.
        """
        if len(session) != ID_BYTES or len(digest) != DIGEST_BYTES:
            raise InputError(f"a session's identifier takes {ID_BYTES} bytes, a sum's digest {DIGEST_BYTES}")
        if held := self._held_step(lambda: (session, digest)):
            settled: NDArray[Any] = self._settle(held)
            return settled
        self.check_releasable(session, digest)
        sums = {**self._at.sums, session: digest}
        answer: Any  # an error is raised once it is durable
        try:
            answer, retired = self._open(residues, survivors, session, digest), False
        except InconsistentSum as refusal:
            answer, retired = refusal, True
        # Recorded once there is something to show, and before it is shown: what is cut off before may come again
        released: NDArray[Any] = self._step(lambda: (session, digest), _Record(sums=sums, retired=retired), answer)
        return released

    @exclusive
    def settle(self) -> None:
        """Have kept what a release left to keep, where nobody will ask for that release again: its session was let go.

        It counts as released: a session restored to before may ask for that sum, and for no other. Where nothing waits
        this does nothing. With ``DEFERRED`` it returns a ``Pending``.

        Raises:
            whatever ``keep`` raises: then it waits still.
        """
        held = self._line[1]
        if held is None:
            return None
        with suppress(InconsistentSum):  # its own session's to be told; the key is retired now
            settled: None = self._settle(held)
            return settled if isinstance(settled, Pending) else None
        return None

    def _open(self, residues: Residues, survivors: int, session: bytes, digest: bytes) -> NDArray[Any]:
        params, decryptor = self.params, self._decryptor
        if params.protocol == "ckks":
            deviation = params.flooding_deviation
            flooded = flood(residues, params.chain, deviation, self._flooding, session, digest)
            slots = np.array([decryptor.decrypt(one) for one in flooded])
            return real_values(slots, params, survivors)
        if min(decryptor.noise_budget(one) for one in residues) < params.least_noise_budget:
            raise InconsistentSum("a ciphertext is noisier than honest ones can be: a client encrypted amiss")
        slots = np.array([decryptor.decrypt(one) for one in residues])
        return unpack_words(slots, params, survivors)


def _sums_of(saved: _SavedKey) -> dict[bytes, bytes]:
    """Return session -> digest of what a saved key has released.

    Raises:
        DecodeError: the record is of another length than the count says, names a session twice, or passes the budget.
    """
    packed = saved.sums
    if len(packed) != saved.released * _RECORD_BYTES or saved.released > saved.params.releases:
        raise DecodeError("a saved key's record of releases does not match their count, or the budget")
    records = [packed[start : start + _RECORD_BYTES] for start in range(0, len(packed), _RECORD_BYTES)]
    sums = {record[:ID_BYTES]: record[ID_BYTES:] for record in records}
    if len(sums) != saved.released:
        raise DecodeError("a saved key's record of releases names a session twice")
    return sums


def sign(signing_key: SigningKey, header: Header, body: bytes | memoryview) -> bytes:
    """Return the decryptor's signature of a message: 64 bytes."""
    directory = Directory({_ALONE: signing_key.public})
    return Identity(key=signing_key, directory=directory).sign(header, body)


def check_decryptor(decryptor: object) -> None:
    """Check the key that a party pins as the decryptor's.

    Raises:
        InputError: it is no Ed25519 key of 32 bytes, or one of low order.
    """
    if not isinstance(decryptor, bytes):
        raise InputError(f"decryptor must be the decryptor's Ed25519 key, 32 bytes, got {type(decryptor).__name__}")
    try:
        check_public(decryptor)
    except DecodeError as problem:
        raise InputError(f"decryptor is not a usable Ed25519 key: {problem}") from None


def check_signature(decryptor: bytes, header: Header, body: bytes | memoryview, signature: bytes) -> None:
    """Check the decryptor's signature of a message.

    Raises:
        DecodeError: it did not sign this.
    """
    Directory({_ALONE: decryptor}).check(_ALONE, header, body, signature)


_KNOWN = snapshot.known_types(_SavedKey, HEParams, FixedPoint, Chain)
