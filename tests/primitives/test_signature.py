"""Ed25519. The vectors reach it through ``SigningKey._sign`` and ``signature._verify``, below the context's prefix."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.errors import DecodeError, InputError, LocalProtocolError
from secagg.primitives import signature
from secagg.primitives.signature import SigningKey, check_public, verify

# RFC 8032, section 7.1, tests 1 to 3: seed, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
seeds = st.binary(min_size=32, max_size=32)
contexts = st.binary(max_size=255)


@pytest.mark.parametrize(("seed", "public", "message", "expected"), RFC_8032)
def test_rfc_8032(seed: str, public: str, message: str, expected: str) -> None:
    key = SigningKey(bytes.fromhex(seed))
    assert key.public.hex() == public
    assert key._sign(bytes.fromhex(message)).hex() == expected
    signature._verify(key.public, bytes.fromhex(expected), bytes.fromhex(message))


def test_wycheproof(wycheproof: Callable[..., Any]) -> None:
    valid = invalid = 0
    for group, case in wycheproof("Signature", "ed25519_test.json"):
        public = bytes.fromhex(group["publicKey"]["pk"])
        signed, message = bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"])
        if case["result"] == "invalid":
            with pytest.raises(DecodeError):
                signature._verify(public, signed, message)
            invalid += 1
        elif case["result"] == "valid":
            signature._verify(public, signed, message)
            valid += 1
    assert valid >= 80
    assert invalid >= 50


@given(seeds, contexts, st.binary(max_size=100))
def test_agrees_with_pycryptodome(seed: bytes, context: bytes, message: bytes) -> None:
    eddsa = pytest.importorskip("Crypto.Signature.eddsa")
    key = SigningKey(seed)
    private = eddsa.import_private_key(seed)
    assert private.public_key().export_key(format="raw") == key.public
    expected = eddsa.new(private, "rfc8032").sign(bytes([len(context)]) + context + message)
    assert key.sign(context, message) == expected
    verify(key.public, expected, context, message)


@given(seeds, contexts, st.binary(max_size=40), st.data())
def test_nothing_else_fits(seed: bytes, context: bytes, message: bytes, data: st.DataObject) -> None:
    key = SigningKey(seed)
    signed = bytearray(key.sign(context, message))
    with pytest.raises(DecodeError):
        verify(key.public, bytes(signed), context, message + b"\0")
    bit = data.draw(st.integers(0, 511))
    signed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DecodeError):
        verify(key.public, bytes(signed), context, message)


def test_contexts_do_not_run_into_messages() -> None:
    key = SigningKey(bytes(32))
    signed = key.sign(b"ab", b"c")
    for context, message in ((b"a", b"bc"), (b"abc", b""), (b"", b"abc")):
        with pytest.raises(DecodeError):
            verify(key.public, signed, context, message)


def test_another_multiple_of_the_order_is_refused() -> None:
    key = SigningKey(bytes(32))
    signed = key.sign(b"", b"message")
    s = int.from_bytes(signed[32:], "little") + ORDER
    with pytest.raises(DecodeError):
        verify(key.public, signed[:32] + s.to_bytes(32, "little"), b"", b"message")


def _add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    d = -121665 * pow(121666, -1, P) % P
    k = d * a[0] * b[0] * a[1] * b[1] % P
    return (
        (a[0] * b[1] + b[0] * a[1]) * pow(1 + k, -1, P) % P,
        (a[1] * b[1] + a[0] * b[0]) * pow(1 - k, -1, P) % P,
    )


def _low_order_y() -> set[int]:
    """Find the y coordinates of order 1, 2, 4 and 8 as the multiples by the group's order of arbitrary points."""
    found: set[int] = set()
    d = -121665 * pow(121666, -1, P) % P
    for y in range(2, 40):
        square = (y * y - 1) * pow(d * y * y + 1, -1, P) % P
        x = pow(square, (P + 3) // 8, P)
        x = x if x * x % P == square else x * pow(2, (P - 1) // 4, P) % P
        if x * x % P != square:
            continue
        point, scalar, torsion = (x, y), ORDER, (0, 1)
        while scalar:
            torsion = _add(torsion, point) if scalar & 1 else torsion
            point, scalar = _add(point, point), scalar >> 1
        multiple = torsion
        for _ in range(8):
            found.add(multiple[1])
            multiple = _add(multiple, torsion)
    return found


def test_low_order_keys_are_refused() -> None:
    low = _low_order_y()
    assert len(low) == 5
    for y in low | {P, P + 1}:
        for sign in (0, 1 << 255):
            public = (y | sign).to_bytes(32, "little")
            with pytest.raises(DecodeError, match="low order"):
                check_public(public)
            # R of order one and S = 0 would fit every eighth message or more.
            with pytest.raises(DecodeError, match="low order"):
                verify(public, (1).to_bytes(32, "little") + bytes(32), b"", b"")


def test_no_point_of_the_curve_is_refused() -> None:
    with pytest.raises(DecodeError):
        verify((2).to_bytes(32, "little"), bytes(64), b"", b"")


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_wrong_lengths_are_refused(length: int) -> None:
    key = SigningKey(bytes(32))
    with pytest.raises(InputError):
        SigningKey(bytes(length))
    for call in (
        lambda: SigningKey.from_bytes(bytes(length)),
        lambda: check_public(bytes(length)),
        lambda: verify(bytes(length), bytes(64), b"", b""),
        lambda: verify(key.public, key.sign(b"", b"")[: length - 1], b"", b""),
    ):
        with pytest.raises(DecodeError):
            call()


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_public_key_of_another_length_is_told_by_its_length(length: int) -> None:
    for call in (lambda: check_public(b"\x77" * length), lambda: verify(b"\x77" * length, bytes(64), b"", b"")):
        with pytest.raises(DecodeError, match=f"has 32 bytes, not {length}"):
            call()


def test_signatures_have_64_bytes() -> None:
    assert len(SigningKey(bytes(32)).sign(b"", b"")) == signature.SIGNATURE_BYTES == 64


def test_long_contexts_are_refused() -> None:
    key = SigningKey(bytes(32))
    verify(key.public, key.sign(bytes(255), b""), bytes(255), b"")
    with pytest.raises(InputError, match="255"):
        key.sign(bytes(256), b"")
    with pytest.raises(InputError, match="255"):
        verify(key.public, bytes(64), bytes(256), b"")


@given(seeds)
def test_seeds_come_back(seed: bytes) -> None:
    key = SigningKey.from_bytes(seed)
    assert key.secret_bytes() == seed
    assert key == SigningKey.generate(lambda length: seed[:length])
    assert hash(key) == hash(SigningKey(seed))
    assert key != SigningKey(bytes(31) + bytes([seed[31] ^ 1]))
    assert key != seed


def test_randomness_and_pickle() -> None:
    with pytest.raises(LocalProtocolError):
        SigningKey.generate(lambda length: bytes(length + 1))
    with pytest.raises(TypeError):
        pickle.dumps(SigningKey(bytes(32)))


def test_a_key_of_another_than_its_one_encoding_is_refused() -> None:
    """y = 2 is no low order, and 2 + p, where it fits, names the same point: the second form is refused."""
    check_public((3).to_bytes(32, "little"))
    for y in range(3, 19):
        with pytest.raises(DecodeError, match=r"canonically|low order"):
            check_public((2**255 - 19 + y).to_bytes(32, "little"))
    with pytest.raises(DecodeError, match="canonically"):
        check_public((2**256 - 1).to_bytes(32, "little"))
