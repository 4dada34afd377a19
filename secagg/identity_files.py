"""Identities on disk: a signing key in a file for its owner alone, public keys, a directory, a key that seals states.

Whoever runs a node keeps its key file; public keys and the directory are public. Nothing is ever overwritten.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from secagg.errors import DecodeError, InputError
from secagg.identity import Directory
from secagg.primitives.randomness import system_randomness
from secagg.primitives.signature import SigningKey

SEAL_KEY_BYTES = 32


def new_signing_key(path: Path) -> SigningKey:
    """Make a signing key, write it to ``path`` (PEM, PKCS #8) for this user alone, and its public half beside it.

    The public half, in hexadecimal, goes to the same name with the suffix ``.pub``.

    Raises:
        InputError: one of the files is there already.
        OSError: one cannot be written.
    """
    public_path = path.with_suffix(".pub")
    if public_path == path:
        raise InputError("the suffix .pub is for the public half: name the key file otherwise")
    for one in (path, public_path):
        if one.exists():
            raise InputError(f"{one} is there already, and a key is never overwritten")
    key = SigningKey.generate()
    pem = Ed25519PrivateKey.from_private_bytes(key.secret_bytes()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    _write_secret(path, pem)
    public_path.write_text(key.public.hex() + "\n", encoding="ascii")
    return key


def read_signing_key(path: Path) -> SigningKey:
    """Read what ``new_signing_key`` wrote.

    Raises:
        DecodeError: the file is no Ed25519 key in PEM; the text does not quote it.
        OSError: it cannot be read.
    """
    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        raise DecodeError(f"{path} does not hold a private key in PEM") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise DecodeError(f"{path} holds a key of another kind than Ed25519")
    return SigningKey.from_bytes(private.private_bytes_raw())


def new_directory(path: Path, public_keys: Sequence[Path]) -> Directory:
    """Write a directory of public key files to ``path``: their ids are 0, 1, 2, ... in the order given.

    Raises:
        DecodeError: a file holds no public key.
        InputError: ``path`` is there already, or two files hold one key.
        OSError: a file cannot be read or written.
    """
    if path.exists():
        raise InputError(f"{path} is there already, and a directory is never overwritten")
    directory = Directory({one: _read_public(file) for one, file in enumerate(public_keys)})
    path.write_text(directory.to_json() + "\n", encoding="ascii")
    return directory


def read_directory(path: Path) -> Directory:
    """Read what ``new_directory`` wrote.

    Raises:
        DecodeError: the file holds no directory.
        InputError: it does, but of keys that no directory holds.
        OSError: it cannot be read.
    """
    try:
        return Directory.from_json(path.read_text(encoding="ascii"))
    except UnicodeDecodeError:
        raise DecodeError(f"{path} does not hold a directory") from None


def new_seal_key(path: Path) -> None:
    """Write 32 fresh secret bytes, in hexadecimal, to ``path`` for this user alone; they seal saved states.

    Raises:
        InputError: the file is there already.
        OSError: it cannot be written.
    """
    if path.exists():
        raise InputError(f"{path} is there already, and a key is never overwritten")
    _write_secret(path, system_randomness(SEAL_KEY_BYTES).hex().encode("ascii") + b"\n")


def read_seal_key(path: Path) -> bytes:
    """Read what ``new_seal_key`` wrote: 32 bytes.

    Raises:
        DecodeError: the file does not hold 32 bytes in hexadecimal; the text does not quote it.
        OSError: it cannot be read.
    """
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except ValueError:
        key = b""
    if len(key) != SEAL_KEY_BYTES:
        raise DecodeError(f"{path} does not hold {SEAL_KEY_BYTES} bytes in hexadecimal")
    return key


def _read_public(path: Path) -> bytes:
    try:
        return bytes.fromhex(path.read_text(encoding="ascii"))
    except ValueError:
        raise DecodeError(f"{path} does not hold a public key in hexadecimal") from None


def _write_secret(path: Path, secret: bytes) -> None:
    # O_EXCL: a link or a file that somebody put there in the meantime is not followed
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
