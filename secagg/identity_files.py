"""Identities on disk: a signing key in a file for its owner alone, public keys, a directory, a key that seals states.

Each kind of file says what it is, and every reader refuses the others: a private key is PKCS #8 in PEM, its public half
SubjectPublicKeyInfo in PEM, a sealing key a block of our own in the same form, a directory one line of JSON. Whoever
runs a node keeps the private key and the sealing key; the rest is public. Nothing is ever overwritten, and no error
text quotes a file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from secagg.errors import DecodeError, InputError
from secagg.identity import Directory
from secagg.primitives.randomness import system_randomness
from secagg.primitives.signature import SigningKey, check_public

PRIVATE_KEY, PUBLIC_KEY, SEALING_KEY, DIRECTORY = "a private key", "a public key", "a sealing key", "a directory"
"""The kinds of file that secagg makes, as ``kind_of`` names them."""

SEAL_KEY_BYTES = 32

_CHECK_BYTES = 4
_LARGEST_FILE = 128 << 20  # a directory of 2**20 clients takes 81 MB; what a name of a device gives has no end
_SEALING_TAG = b"SECAGG SEALING KEY"
_KIND_OF_TAG = {
    b"PRIVATE KEY": PRIVATE_KEY,
    b"PUBLIC KEY": PUBLIC_KEY,
    _SEALING_TAG: SEALING_KEY,
    b"ENCRYPTED PRIVATE KEY": "a private key under a password",
    b"OPENSSH PRIVATE KEY": "a private key of OpenSSH's",
    b"CERTIFICATE": "a certificate",
}
_BLOCK = re.compile(
    rb"\s*-----BEGIN ([A-Z0-9 ]{1,64})-----\r?\n([A-Za-z0-9+/=\r\n]*?)\r?\n-----END \1-----\s*", re.ASCII
)
_HEXADECIMAL = re.compile(rb"\s*[0-9a-fA-F]{64}\s*")


def new_signing_key(path: Path | str) -> SigningKey:
    """Make a signing key, write it to ``path`` (PEM, PKCS #8) for this user alone, and its public half beside it.

    The public half (PEM) goes to ``public_path(path)``. Either both files are there afterwards or neither is.

    Raises:
        InputError: one of the files is there already.
        OSError: one cannot be written.
    """
    path = Path(path)
    if path.suffix == ".pub":
        raise InputError("the suffix .pub is for the public half: name the key file otherwise")
    for one in (path, public_path(path)):
        _check_free(one)
    key = SigningKey.generate()
    private = Ed25519PrivateKey.from_private_bytes(key.secret_bytes())
    _write_new(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
    try:
        _write_new(public_path(path), _public_pem(private.public_key()))
    except BaseException:
        path.unlink()
        raise
    return key


def public_path(path: Path) -> Path:
    """Return where the public half of the key at ``path`` goes: .pub in the place of .key or .pem, else behind all."""
    return path.with_suffix(".pub") if path.suffix in (".key", ".pem") else path.with_name(f"{path.name}.pub")


def read_signing_key(path: Path | str) -> SigningKey:
    """Read a node's own signing key: an Ed25519 private key in PEM (PKCS #8), as ``secagg identity new`` writes it.

    Raises:
        DecodeError: the file holds something else; the text says what and does not quote it.
        OSError: it cannot be read.
    """
    content = _content(path)
    _expect(path, content, PRIVATE_KEY)
    try:
        private = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise DecodeError(f"{path} holds a private key that is damaged, or of an unknown kind") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise DecodeError(f"{path} holds a private key of another kind than Ed25519")
    return SigningKey.from_bytes(private.private_bytes_raw())


def read_public_key(path: Path | str) -> bytes:
    """Read a node's public key: Ed25519 in PEM (SubjectPublicKeyInfo), as ``secagg identity new`` writes it; 32 bytes.

    Raises:
        DecodeError: the file holds something else, or a key that binds nobody; the text says what.
        OSError: it cannot be read.
    """
    content = _content(path)
    _expect(path, content, PUBLIC_KEY)
    try:
        public = load_pem_public_key(content)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise DecodeError(f"{path} holds a public key that is damaged, or of an unknown kind") from None
    if not isinstance(public, Ed25519PublicKey):
        raise DecodeError(f"{path} holds a public key of another kind than Ed25519")
    raw = public.public_bytes_raw()
    try:
        check_public(raw)
    except DecodeError as problem:
        raise DecodeError(f"{path}: {problem}") from None
    return raw


def new_directory(path: Path | str, files: Mapping[int, Path]) -> Directory:
    """Write a directory of public key files, by their owners' ids, to ``path``.

    Raises:
        DecodeError: a file holds no public key.
        InputError: ``path`` is there already, an id is no client's, or two files hold one key.
        OSError: a file cannot be read or written.
    """
    path = Path(path)
    _check_free(path)
    owner: dict[bytes, Path] = {}
    keys: dict[int, bytes] = {}
    for client_id, file in files.items():
        keys[client_id] = public = read_public_key(file)
        if public in owner:
            raise InputError(f"{owner[public]} and {file} hold one key: each client has its own")
        owner[public] = file
    directory = Directory(keys)
    _write_new(path, directory.to_json().encode("ascii") + b"\n")
    return directory


def read_directory(path: Path | str, *, pinned: bytes | str | None = None) -> Directory:
    """Read the directory of a cohort, as ``secagg identity directory`` writes it.

    Args:
        path: the file.
        pinned: the digest that ``secagg identity directory`` printed, in hexadecimal or as 32 bytes. Without it,
            whoever may have put the file there chose the cohort.

    Raises:
        DecodeError: the file holds something else; the text says what and does not quote it.
        InputError: it holds a directory of keys that no directory holds, or of another digest.
        OSError: it cannot be read.
    """
    content = _content(path)
    _expect(path, content, DIRECTORY)
    try:
        return Directory.from_json(content.decode("ascii"), pinned=pinned)
    except (UnicodeDecodeError, DecodeError):
        raise DecodeError(f"{path} does not hold a directory: one JSON object of ids and public keys") from None
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from None


def new_seal_key(path: Path | str) -> None:
    """Write 32 fresh secret bytes to ``path`` for this user alone; they seal saved states.

    Raises:
        InputError: the file is there already.
        OSError: it cannot be written.
    """
    path = Path(path)
    _check_free(path)
    key = system_randomness(SEAL_KEY_BYTES)
    body = base64.b64encode(key + _checksum(key))
    _write_new(path, b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (_SEALING_TAG, body, _SEALING_TAG), mode=0o600)


def read_seal_key(path: Path | str) -> bytes:
    """Read the key that seals a node's saved states, as ``secagg identity sealing-key`` writes it: 32 bytes.

    Raises:
        DecodeError: the file holds something else; the text says what and does not quote it.
        OSError: it cannot be read.
    """
    content = _content(path)
    _expect(path, content, SEALING_KEY)
    found = _BLOCK.fullmatch(content)
    try:
        body = base64.b64decode(found[2] if found else b"", validate=True)
    except binascii.Error:
        body = b""
    key, check = body[:SEAL_KEY_BYTES], body[SEAL_KEY_BYTES:]
    if len(body) != SEAL_KEY_BYTES + _CHECK_BYTES or check != _checksum(key):
        raise DecodeError(f"{path} holds a sealing key that is damaged: its length or its check does not fit")
    return key


def kind_of(path: Path | str) -> str:
    """Say what a file is, from how it is tagged and without a word of what it holds; damage inside is not looked for.

    Raises:
        OSError: it cannot be read.
    """
    return _kind(_content(path))


def _kind(content: bytes) -> str:
    if found := _BLOCK.fullmatch(content):
        return _KIND_OF_TAG.get(found[1], "a PEM file of another kind")
    if content.lstrip().startswith(b"{"):
        return DIRECTORY
    if content.count(b"-----BEGIN ") > 1:
        return "several PEM blocks"
    if b"-----BEGIN " in content:
        return "a PEM block that is damaged, or has text around it"
    if _HEXADECIMAL.fullmatch(content):
        return "32 bytes in hexadecimal, which do not say what they are"
    return "none of the files that secagg makes" if content.strip() else "an empty file"


def _expect(path: Path | str, content: bytes, wanted: str) -> None:
    kind = _kind(content)
    if kind != wanted:
        raise DecodeError(f"{path} is {kind}, where {wanted} is expected (made by: {_MADE_BY[wanted]})")


_MADE_BY = {
    PRIVATE_KEY: "secagg identity new",
    PUBLIC_KEY: "secagg identity new",
    SEALING_KEY: "secagg identity sealing-key",
    DIRECTORY: "secagg identity directory",
}


def _content(path: Path | str) -> bytes:
    with Path(path).open("rb") as file:
        content = file.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise DecodeError(f"{path} is larger than any file that secagg makes")
    return content


def _checksum(key: bytes) -> bytes:
    # It stands beside the key and tells nothing more; it finds a letter that was lost in copying
    return hashlib.sha256(b"secagg sealing key" + key).digest()[:_CHECK_BYTES]


def _public_pem(public: Ed25519PublicKey) -> bytes:
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _check_free(path: Path) -> None:
    if path.exists():
        raise InputError(f"{path} is there already, and is never overwritten: name another file")


def _write_new(path: Path, content: bytes, mode: int = 0o644) -> None:
    # O_EXCL: a link or a file that somebody put there in the meantime is not followed
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except BaseException:
        path.unlink()  # a part of a key is no key, and the name must be free for another try
        raise
