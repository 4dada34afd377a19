"""AES-256-GCM under keys that encrypt once, and sealed state under a fresh key per save.

Source: NIST SP 800-38D (GCM); SPEC "Encryption".
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from secagg.errors import DecodeError, InputError
from secagg.primitives.kdf import Label, derive
from secagg.primitives.randomness import Randomness, draw, system_randomness

KEY_BYTES = 32
TAG_BYTES = 16
SALT_BYTES = 32
NONCE_BYTES = 12
PIECE_BYTES = 1 << 30
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


def seal_state(key: bytes, plaintext: bytes, aad: bytes, randomness: Randomness = system_randomness) -> bytes:
    """Seal a saved state under the caller's long-lived ``key``, which may seal any number of states.

    Each save derives its own key from ``key`` and a fresh 256-bit salt.

    Args:
        key: 32 uniform bytes.
        plaintext: any length.
        aad: what the state is bound to; not part of the result.
        randomness: gives the salt.

    Returns:
        salt || the sealed pieces of 2**30 bytes and the rest, each ``TAG_BYTES`` longer than its plaintext: the
        cipher takes no more than 2**31 bytes at once. The nonce counts them, and the last is marked as such.

    Raises:
        InputError: ``key`` is not 32 bytes long.
    """
    _check_key(key)
    salt = draw(randomness, SALT_BYTES)
    state_key, pieces = _state_key(key, salt), [salt]
    count = max(1, -(-len(plaintext) // PIECE_BYTES))
    for index in range(count):
        piece = plaintext[index * PIECE_BYTES : (index + 1) * PIECE_BYTES]
        pieces.append(_encrypt(state_key, _piece_nonce(index), piece, aad + bytes([index == count - 1])))
    return b"".join(pieces)


def open_state(key: bytes, sealed: bytes, aad: bytes) -> bytes:
    """Open what ``seal_state`` made under the same key and ``aad``.

    Raises:
        InputError: ``key`` is not 32 bytes long.
        DecodeError: ``sealed`` or ``aad`` is not what was sealed under ``key``.
    """
    _check_key(key)
    state_key, size = _state_key(key, sealed[:SALT_BYTES]), PIECE_BYTES + TAG_BYTES
    count = max(1, -(-(len(sealed) - SALT_BYTES) // size))
    pieces = []
    for index in range(count):
        piece = sealed[SALT_BYTES + index * size : SALT_BYTES + (index + 1) * size]
        pieces.append(_decrypt(state_key, _piece_nonce(index), piece, aad + bytes([index == count - 1])))
    return b"".join(pieces)


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
