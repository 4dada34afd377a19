"""AES-256-GCM. The vectors reach it through ``aead._encrypt`` and ``_decrypt``, to which the wrappers give nonce 0."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.errors import DecodeError, InputError
from secagg.primitives import aead, kdf

KEY = bytes(range(32))
keys = st.binary(min_size=32, max_size=32)


def test_gcm_specification_case_14() -> None:
    # McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B, test cases 13 and 14.
    assert aead.seal_once(bytes(32), b"", b"").hex() == "530f8afbc74536b9a963b4f1c4cb738b"
    sealed = "cea7403d4d606b6e074ec5d3baf39d18" + "d0d1c8a799996bf0265b98b5d48ab919"
    assert aead.seal_once(bytes(32), bytes(16), b"").hex() == sealed


def test_wycheproof(wycheproof: Callable[..., Any]) -> None:
    checked = refused = 0
    for group, case in wycheproof("Cipher", "aes_gcm_test.json"):
        if (group["keySize"], group["ivSize"], group["tagSize"]) != (256, 96, 128):
            continue
        key, nonce, aad, message = (bytes.fromhex(case[name]) for name in ("key", "iv", "aad", "msg"))
        sealed = bytes.fromhex(case["ct"] + case["tag"])
        if case["result"] == "valid":
            assert aead._encrypt(key, nonce, message, aad) == sealed, case["tcId"]
            assert aead._decrypt(key, nonce, sealed, aad) == message, case["tcId"]
        else:
            with pytest.raises(DecodeError):
                aead._decrypt(key, nonce, sealed, aad)
            refused += 1
        checked += 1
    assert checked >= 60
    assert refused >= 20


@given(keys, st.binary(max_size=200), st.binary(max_size=50))
def test_agrees_with_pycryptodome(key: bytes, plaintext: bytes, aad: bytes) -> None:
    aes = pytest.importorskip("Crypto.Cipher.AES")
    reference = aes.new(key, aes.MODE_GCM, nonce=bytes(12))
    reference.update(aad)
    sealed = b"".join(reference.encrypt_and_digest(plaintext))
    assert aead.seal_once(key, plaintext, aad) == sealed
    assert aead.open_once(key, sealed, aad) == plaintext


@given(st.binary(max_size=40), st.binary(max_size=20), st.data())
def test_every_changed_bit_is_noticed(plaintext: bytes, aad: bytes, data: st.DataObject) -> None:
    sealed = bytearray(aead.seal_once(KEY, plaintext, aad))
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DecodeError):
        aead.open_once(KEY, bytes(sealed), aad)
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DecodeError):
        aead.open_once(KEY, bytes(sealed), aad + b"x")
    with pytest.raises(DecodeError):
        aead.open_once(KEY[::-1], bytes(sealed), aad)


@pytest.mark.parametrize("length", range(aead.TAG_BYTES))
def test_short_ciphertexts_are_refused(length: int) -> None:
    with pytest.raises(DecodeError):
        aead.open_once(KEY, bytes(length), b"")


SALT = b"\xa5" * 32


def sealed_state(key: bytes, plaintext: bytes, aad: bytes, *, salt: bytes = SALT, cuts: tuple[int, ...] = ()) -> bytes:
    """Seal a state that comes in buffers cut at the given places."""
    bounds = [0, *sorted(cut % (len(plaintext) + 1) for cut in cuts), len(plaintext)]
    buffers = [plaintext[start:end] for start, end in itertools.pairwise(bounds)]
    return b"".join(aead.seal_state(key, salt, buffers, aad))


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33])
def test_keys_of_other_lengths_are_refused(length: int) -> None:
    for call in (aead.seal_once, aead.open_once, sealed_state, lambda key, *rest: aead.open_state(key, SALT, *rest)):
        with pytest.raises(InputError, match="32 bytes"):
            call(bytes(length), bytes(64), b"")


@given(keys, st.binary(max_size=100), st.binary(max_size=20))
def test_sealed_state_comes_back(key: bytes, plaintext: bytes, aad: bytes) -> None:
    sealed = sealed_state(key, plaintext, aad)
    assert len(sealed) == aead.sealed_bytes(len(plaintext)) == len(plaintext) + aead.TAG_BYTES
    assert aead.open_state(key, SALT, sealed, aad) == plaintext
    with pytest.raises(DecodeError):
        aead.open_state(key, SALT, sealed, aad + b"x")
    with pytest.raises(DecodeError):
        aead.open_state(key, bytes(32), sealed, aad)
    with pytest.raises(DecodeError):
        aead.open_state(bytes(reversed(key)) if key != key[::-1] else b"x" * 32, SALT, sealed, aad)


def test_sealed_state_is_a_ciphertext_under_the_derived_key() -> None:
    sealed = sealed_state(KEY, b"state", b"aad")
    key = kdf.derive(KEY, salt=SALT, label=kdf.Label.SEALED_STATE, length=32)
    assert sealed == aead.seal_once(key, b"state", b"aad\x01")


@pytest.mark.parametrize("position", [0, 8, -1])
def test_changed_state_is_noticed(position: int) -> None:
    sealed = bytearray(sealed_state(KEY, b"0123456789", b""))
    sealed[position] ^= 1
    with pytest.raises(DecodeError):
        aead.open_state(KEY, SALT, bytes(sealed), b"")


@pytest.mark.parametrize("length", [0, 1, 15])
def test_short_state_is_refused(length: int) -> None:
    with pytest.raises(DecodeError):
        aead.open_state(KEY, SALT, bytes(length), b"")


@given(st.integers(0, 3 << 20), st.lists(st.integers(0, 1 << 30), max_size=3))
@settings(max_examples=15, deadline=None)
def test_a_state_is_sealed_by_mebibytes_whatever_buffers_it_comes_in(length: int, cuts: list[int]) -> None:
    assert aead.PIECE_BYTES == 2**20
    state = bytes(range(256)) * (length // 256) + bytes(length % 256)
    sealed = sealed_state(KEY, state, b"aad", cuts=tuple(cuts))
    assert sealed == sealed_state(KEY, state, b"aad")
    key = kdf.derive(KEY, salt=SALT, label=kdf.Label.SEALED_STATE, length=32)
    pieces = [state[start : start + 2**20] for start in range(0, max(length, 1), 2**20)]
    assert sealed == b"".join(
        AESGCM(key).encrypt(index.to_bytes(12, "little"), piece, b"aad" + bytes([index == len(pieces) - 1]))
        for index, piece in enumerate(pieces)
    )
    assert len(sealed) == aead.sealed_bytes(length)
    assert aead.open_state(KEY, SALT, sealed, b"aad") == state


def test_pieces_cannot_be_dropped_moved_or_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aead, "PIECE_BYTES", 64)
    key = bytes(range(32))
    sealed, size = sealed_state(key, bytes(192), b"aad"), 64 + aead.TAG_BYTES
    pieces = [sealed[size * i : size * (i + 1)] for i in range(3)]
    for order in ([0, 1], [0], [], [1, 0, 2], [0, 0, 2], [0, 1, 2, 2], [1, 2], [0, 2]):
        with pytest.raises(DecodeError):
            aead.open_state(key, SALT, b"".join(pieces[i] for i in order), b"aad")
