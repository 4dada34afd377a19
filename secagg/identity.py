"""Who is who: the directory of Ed25519 identities that the caller pins, and the signatures that clients make under it.

The library does not vouch for keys; whoever makes the directory does. In the malicious-server model a round's directory
holds exactly its cohort, so that nobody the caller did not choose can be in it. Source: SPEC "Signatures".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from secagg.errors import DecodeError, InputError
from secagg.primitives.kdf import DIGEST_BYTES, Label, digest
from secagg.primitives.signature import SIGNATURE_BYTES as SIGNATURE_BYTES
from secagg.primitives.signature import SigningKey, check_public, verify
from secagg.wire import SERVER, Header


class Directory(Mapping[int, bytes]):
    """Client id -> Ed25519 public key (32 bytes), in ascending order of ids; immutable.

    Raises:
        InputError: an id is no client's, a key is no point of the curve or one of low order, or two ids share a key.
    """

    __slots__ = ("_digest", "_keys")

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        if not isinstance(keys, Mapping):
            raise InputError(f"a directory maps ids to public keys, got {type(keys).__name__}")
        for client_id, public in keys.items():
            if isinstance(client_id, bool) or not hasattr(client_id, "__index__") or not 0 <= int(client_id) < SERVER:
                raise InputError(f"a directory's ids must be integers in [0, 2**64 - 2], got {client_id!r}")
            if not isinstance(public, bytes):
                raise InputError(
                    f"the directory's key of client {client_id} must be bytes, got {type(public).__name__}"
                )
            try:
                check_public(public)
            except DecodeError as problem:
                raise InputError(f"the directory's key of client {client_id} is not usable: {problem}") from None
        self._keys = {int(one): keys[one] for one in sorted(keys)}
        if len(set(self._keys.values())) != len(self._keys):
            raise InputError("two ids of a directory share a key, so one party would count twice")
        self._digest = _digest_of(self._keys)

    def __getitem__(self, client_id: int) -> bytes:
        return self._keys[client_id]

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"<Directory of {len(self)} clients, {self._digest.hex()[:16]}>"

    def digest(self) -> bytes:
        """Return the 32 bytes that bind a session to this directory."""
        return self._digest

    def id_of(self, public: bytes) -> int:
        """Return the id of whoever has this public key, 32 bytes.

        Raises:
            InputError: nobody in the directory has it.
        """
        for client_id, key in self._keys.items():
            if key == public:
                return client_id
        raise InputError("this public key is not in the directory: is it the right key, and the right cohort?")

    def to_json(self) -> str:
        """Return one line of JSON, ids to public keys in hexadecimal, for configurations."""
        return json.dumps({str(one): public.hex() for one, public in self._keys.items()}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, *, pinned: bytes | str | None = None) -> Directory:
        """Read what ``to_json`` wrote.

        Args:
            text: JSON, as ``to_json`` writes it.
            pinned: the digest that it must have, where somebody not trusted sent it: 32 bytes, or the 64 hexadecimal
                digits that ``secagg identity directory`` prints. It is compared before any work on the keys.

        Raises:
            DecodeError: it is no such text.
            InputError: it is, but of keys that no directory holds, or of another digest; or ``pinned`` is no digest.
        """
        wanted = None if pinned is None else _checked_digest(pinned)
        try:
            # An object's pairs are tuples, so an array of two-item arrays is told apart
            pairs = json.loads(text, object_pairs_hook=tuple)
            keys = {int(one): bytes.fromhex(public) for one, public in pairs}
            exact = isinstance(pairs, tuple) and [str(one) for one in keys] == [one for one, _ in pairs]
        except (ValueError, TypeError, RecursionError):
            exact = False
        if not exact:
            raise DecodeError("a directory is a JSON object of ids, none twice, and public keys in hexadecimal")
        if wanted is not None and not (all(0 <= one < SERVER for one in keys) and _digest_of(keys) == wanted):
            raise InputError("this directory is not the one whose digest is pinned")
        return cls(keys)

    def check(
        self, client_id: int, header: Header, body: bytes | memoryview, signature: bytes, *, attached: bytes = b""
    ) -> None:
        """Check a client's signature of a message; what is ``attached`` to the body is signed as it is, not hashed.

        Raises:
            DecodeError: the client is not in the directory, or did not sign this.
        """
        self.check_hashed(client_id, header, body_hash(body), signature, attached=attached)

    def check_hashed(
        self, client_id: int, header: Header, hashed: bytes, signature: bytes, *, attached: bytes = b""
    ) -> None:
        """Do as ``check`` does for whoever has the body's ``body_hash`` alone."""
        public = self._keys.get(client_id)
        if public is None:
            raise DecodeError("its sender is not in the directory")
        verify(public, signature, *_signed(header, hashed, attached))

    def check_commitments(self, client_id: int, statement: bytes, signature: bytes) -> None:
        """Check a dealer's signature of what ``commitments_statement`` returned.

        Raises:
            DecodeError: the dealer is not in the directory, or did not sign this.
        """
        public = self._keys.get(client_id)
        if public is None:
            raise DecodeError("its dealer is not in the directory")
        verify(public, signature, _COMMITMENTS_CONTEXT, statement)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A client's own signing key, and the directory that it believes in.

    Raises:
        InputError: they are of other types.
    """

    key: SigningKey
    directory: Directory

    def __post_init__(self) -> None:
        if not isinstance(self.key, SigningKey) or not isinstance(self.directory, Directory):
            kinds = f"{type(self.key).__name__} and {type(self.directory).__name__}"
            raise InputError(f"an identity is a SigningKey and a Directory, got {kinds}")

    def sign(self, header: Header, body: bytes | memoryview, *, attached: bytes = b"") -> bytes:
        """Return the signature that stands behind a message: 64 bytes. See ``Directory.check``."""
        return self.key.sign(*_signed(header, body_hash(body), attached))

    def sign_commitments(self, statement: bytes) -> bytes:
        """Return the signature that binds a dealer to its commitments towards one recipient: 64 bytes."""
        return self.key.sign(_COMMITMENTS_CONTEXT, statement)


def _digest_of(keys: Mapping[int, bytes]) -> bytes:
    return digest(Label.DIRECTORY, b"".join(one.to_bytes(8, "little") + keys[one] for one in sorted(keys)))


def _checked_digest(pinned: bytes | str) -> bytes:
    try:
        wanted = bytes.fromhex(pinned) if isinstance(pinned, str) else pinned
    except ValueError:
        wanted = b""
    if not isinstance(wanted, bytes) or len(wanted) != DIGEST_BYTES:
        raise InputError(f"a directory's digest is {DIGEST_BYTES} bytes, or as many in hexadecimal")
    return wanted


def commitments_statement(session: bytes, dealer: int, recipient: int, commitments: bytes) -> bytes:
    """Return what a dealer signs for one recipient; both are roster positions."""
    return session + dealer.to_bytes(4, "little") + recipient.to_bytes(4, "little") + commitments


def body_hash(body: bytes | memoryview) -> bytes:
    """Return the hash that stands for a body in what is signed: 32 bytes."""
    return digest(Label.SIGNED_BODY, body)


def _signed(header: Header, hashed: bytes, attached: bytes) -> tuple[bytes, bytes]:
    """Return the context, one for each kind of message, and the statement: header, body's hash, what is attached."""
    return b"secagg/v1/message/" + bytes([header.kind]), header.encode() + hashed + attached


_COMMITMENTS_CONTEXT = b"secagg/v1/share-commitments"
