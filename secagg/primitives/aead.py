"""AES-256-GCM under keys that encrypt once, and sealed state under a fresh key per save.

Source: NIST SP 800-38D (GCM); SPEC "Encryption".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from secagg.errors import DecodeError, InputError
from secagg.primitives.kdf import Label, derive

KEY_BYTES = 32
TAG_BYTES = 16
SALT_BYTES = 32
NONCE_BYTES = 12
PIECE_BYTES = 1 << 20
"""What a state is sealed by, so that no second copy of it is made."""
_ZERO_NONCE = bytes(NONCE_BYTES)


def seal_once(key: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """Encrypt and authenticate ``plaintext``, and authenticate ``aad``, under a key that never encrypts anything else.

    The nonce is zero. So ``key`` must have been derived for this one message and this one direction: two messages under
    one key reveal both and let anyone forge more.

    Args:
        key: 32 bytes.
        plaintext: any length.
        aad: what the ciphertext is bound to (session, stage, sender, recipient); not part of the result.

    Returns:
        The ciphertext, ``TAG_BYTES`` longer than ``plaintext``.

    Raises:
        InputError: ``key`` is not 32 bytes long.
    """
    return _encrypt(key, _ZERO_NONCE, plaintext, aad)


def open_once(key: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    """Decrypt what ``seal_once`` made under the same key and ``aad``.

    Raises:
        InputError: ``key`` is not 32 bytes long.
        DecodeError: the ciphertext, its tag or ``aad`` is not what was sealed under ``key``.
    """
    return _decrypt(key, _ZERO_NONCE, ciphertext, aad)


def seal_state(key: bytes, salt: bytes, plaintext: Iterable[bytes | memoryview], aad: bytes) -> Iterator[bytes]:
    """Seal a saved state under the caller's long-lived ``key``, which may seal any number of states.

    Each state has a key of its own, derived from ``key`` and a fresh 256-bit salt. Sealing the same state again under
    the same salt gives the same bytes; another state takes another salt.

    Args:
        key: 32 uniform bytes.
        salt: 32 fresh bytes; not part of the result.
        plaintext: the state in buffers, of any lengths.
        aad: what the state is bound to; not part of the result.

    Yields:
        The sealed pieces of 2**20 bytes and the rest, each ``TAG_BYTES`` longer than its plaintext. The nonce counts
        them, and the last is marked as such.

    Raises:
        InputError: ``key`` is not 32 bytes long.
    """
    _check_key(key)
    state_key, index, held = _state_key(key, salt), 0, bytearray()
    for buffer in plaintext:
        view = memoryview(buffer).cast("B")
        while len(held) + len(view) > PIECE_BYTES:
            room = PIECE_BYTES - len(held)
            held += view[:room]
            view = view[room:]
            yield _encrypt(state_key, _piece_nonce(index), bytes(held), aad + b"\0")
            held.clear()
            index += 1
        held += view
    yield _encrypt(state_key, _piece_nonce(index), bytes(held), aad + b"\1")


def sealed_bytes(length: int) -> int:
    """Return how long a state of ``length`` bytes is when it is sealed."""
    return length + TAG_BYTES * _pieces(length, PIECE_BYTES)


def open_state(key: bytes, salt: bytes, sealed: bytes | memoryview, aad: bytes) -> bytes:
    """Open what ``seal_state`` made under the same key, salt and ``aad``.

    Raises:
        InputError: ``key`` is not 32 bytes long.
        DecodeError: ``sealed``, ``salt`` or ``aad`` is not what was sealed under ``key``.
    """
    _check_key(key)
    state_key, size = _state_key(key, salt), PIECE_BYTES + TAG_BYTES
    count = _pieces(len(sealed), size)
    opened = bytearray()
    for index in range(count):
        piece = bytes(sealed[index * size : (index + 1) * size])
        opened += _decrypt(state_key, _piece_nonce(index), piece, aad + bytes([index == count - 1]))
    return bytes(opened)


def _pieces(length: int, size: int) -> int:
    return max(1, -(-length // size))


def _piece_nonce(index: int) -> bytes:
    return index.to_bytes(NONCE_BYTES, "little")


def _state_key(key: bytes, salt: bytes) -> bytes:
    return derive(key, salt=salt, label=Label.SEALED_STATE, length=KEY_BYTES)


def _encrypt(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    _check_key(key)
    return AESGCM(key).encrypt(nonce, plaintext, aad)


def _decrypt(key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    _check_key(key)
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, aad)
    except InvalidTag:
        raise DecodeError("a ciphertext is not authentic, or belongs to another context") from None


def _check_key(key: bytes) -> None:
    if len(key) != KEY_BYTES:
        raise InputError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
