"""AES-256-GCM. The vectors reach it through ``aead._encrypt`` and ``_decrypt``, to which the wrappers give nonce 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.errors import DecodeError, InputError, LocalProtocolError
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


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33])
def test_keys_of_other_lengths_are_refused(length: int) -> None:
    for call in (aead.seal_once, aead.open_once, aead.seal_state, aead.open_state):
        with pytest.raises(InputError, match="32 bytes"):
            call(bytes(length), bytes(64), b"")


@given(keys, st.binary(max_size=100), st.binary(max_size=20))
def test_sealed_state_comes_back(key: bytes, plaintext: bytes, aad: bytes) -> None:
    sealed = aead.seal_state(key, plaintext, aad)
    assert len(sealed) == aead.SALT_BYTES + len(plaintext) + aead.TAG_BYTES
    assert aead.open_state(key, sealed, aad) == plaintext
    with pytest.raises(DecodeError):
        aead.open_state(key, sealed, aad + b"x")
    with pytest.raises(DecodeError):
        aead.open_state(bytes(reversed(key)) if key != key[::-1] else b"x" * 32, sealed, aad)


def test_sealed_state_is_salt_and_ciphertext_under_the_derived_key() -> None:
    salt = b"\xa5" * 32
    sealed = aead.seal_state(KEY, b"state", b"aad", lambda length: salt[:length])
    key = kdf.derive(KEY, salt=salt, label=kdf.Label.SEALED_STATE, length=32)
    assert sealed == salt + aead.seal_once(key, b"state", b"aad\x01")


def test_two_saves_share_nothing() -> None:
    first, second = (aead.seal_state(KEY, b"state", b"") for _ in range(2))
    assert first[:32] != second[:32]
    assert first[32:] != second[32:]


@pytest.mark.parametrize("position", [0, 31, 32, 40, -1])
def test_changed_state_is_noticed(position: int) -> None:
    sealed = bytearray(aead.seal_state(KEY, b"0123456789", b""))
    sealed[position] ^= 1
    with pytest.raises(DecodeError):
        aead.open_state(KEY, bytes(sealed), b"")


@pytest.mark.parametrize("length", [0, 31, 32, 47])
def test_short_state_is_refused(length: int) -> None:
    with pytest.raises(DecodeError):
        aead.open_state(KEY, bytes(length), b"")


def test_short_salts_are_refused() -> None:
    with pytest.raises(LocalProtocolError, match="32 bytes"):
        aead.seal_state(KEY, b"", b"", lambda length: bytes(length - 1))


def test_a_piece_is_what_the_specification_says() -> None:
    assert aead.PIECE_BYTES == 2**30  # too long to seal one here


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 128, 200])
def test_states_longer_than_a_piece_are_sealed_piece_by_piece(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    monkeypatch.setattr(aead, "PIECE_BYTES", 64)
    key, state = bytes(range(32)), bytes(i % 251 for i in range(length))
    sealed = aead.seal_state(key, state, b"aad")
    pieces = max(1, -(-length // 64))
    assert len(sealed) == aead.SALT_BYTES + length + pieces * aead.TAG_BYTES
    assert aead.open_state(key, sealed, b"aad") == state


def test_pieces_cannot_be_dropped_moved_or_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aead, "PIECE_BYTES", 64)
    key = bytes(range(32))
    sealed = aead.seal_state(key, bytes(192), b"aad")
    salt, size = sealed[:32], 64 + aead.TAG_BYTES
    pieces = [sealed[32 + size * i : 32 + size * (i + 1)] for i in range(3)]
    for order in ([0, 1], [0], [], [1, 0, 2], [0, 0, 2], [0, 1, 2, 2], [1, 2], [0, 2]):
        with pytest.raises(DecodeError):
            aead.open_state(key, salt + b"".join(pieces[i] for i in order), b"aad")
