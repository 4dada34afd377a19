"""Ed25519. The vectors reach it through ``SigningKey._sign`` and ``signature._verify``, below the context's prefix."""

from __future__ import annotations

import hashlib
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


def _times(point: tuple[int, int], scalar: int) -> tuple[int, int]:
    found = (0, 1)
    while scalar:
        found = _add(found, point) if scalar & 1 else found
        point, scalar = _add(point, point), scalar >> 1
    return found


def _torsion() -> list[tuple[int, int]]:
    """List points of low order: the multiples by the group's order of arbitrary points."""
    found = []
    for y in range(2, 12):
        square = (y * y - 1) * pow(-121665 * pow(121666, -1, P) * y * y + 1, -1, P) % P
        x = pow(square, (P + 3) // 8, P)
        x = x if x * x % P == square else x * pow(2, (P - 1) // 4, P) % P
        if x * x % P == square:
            found.append(_times((x, y), ORDER))
    return found


TORSION = _torsion()
LOW_ORDER_Y = {_times(point, multiple)[1] for point in TORSION for multiple in range(8)}
"""The y coordinates of order 1, 2, 4 and 8."""


def test_low_order_keys_are_refused() -> None:
    assert len(LOW_ORDER_Y) == 5
    for y in LOW_ORDER_Y | {P, P + 1}:
        for sign in (0, 1 << 255):
            public = (y | sign).to_bytes(32, "little")
            with pytest.raises(DecodeError, match="low order"):
                check_public(public)
            # R of order one and S = 0 would fit every eighth message or more.
            with pytest.raises(DecodeError, match="low order"):
                verify(public, (1).to_bytes(32, "little") + bytes(32), b"", b"")


def test_what_is_no_point_of_the_curve_is_refused() -> None:
    with pytest.raises(DecodeError, match="no point of the curve"):
        check_public((2).to_bytes(32, "little"))
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
    """What is below 2^255 may be 19 above another y: the second form of a point is refused, as is a y out of range."""
    check_public((3).to_bytes(32, "little"))
    for y in range(3, 19):
        with pytest.raises(DecodeError, match=r"canonically|low order"):
            check_public((P + y).to_bytes(32, "little"))
    with pytest.raises(DecodeError, match="canonically"):
        check_public((2**256 - 1).to_bytes(32, "little"))


def _is_point(public: bytes) -> bool:
    """Ask the other implementation, which decodes as RFC 8032 does."""
    eddsa = pytest.importorskip("Crypto.Signature.eddsa")
    try:
        eddsa.import_public_key(public)
    except ValueError:
        return False
    return True


def _is_low(public: bytes) -> bool:
    return int.from_bytes(public, "little") % 2**255 in (*LOW_ORDER_Y, P, P + 1)


def _is_usable(public: bytes) -> bool:
    try:
        check_public(public)
    except DecodeError:
        return False
    return True


@given(st.binary(min_size=32, max_size=32))
def test_points_are_those_that_pycryptodome_decodes(public: bytes) -> None:
    assert _is_usable(public) == (_is_point(public) and not _is_low(public))


def test_half_of_all_y_are_points() -> None:
    found = {sign: [_is_usable((y | sign).to_bytes(32, "little")) for y in range(2, 400)] for sign in (0, 1 << 255)}
    assert found[0] == found[1 << 255]
    assert 150 < sum(found[0]) < 250


def test_the_keys_of_the_vectors_are_points(wycheproof: Callable[..., Any]) -> None:
    for _, public, *_ in RFC_8032:
        check_public(bytes.fromhex(public))
    for group, case in wycheproof("Signature", "ed25519_test.json"):
        public = bytes.fromhex(group["publicKey"]["pk"])
        assert _is_usable(public) == (_is_point(public) and not _is_low(public))
        assert _is_usable(public) or case["result"] != "valid"


def test_zero_with_the_sign_bit_is_refused() -> None:
    """RFC 8032, 5.1.3, step 4: x = 0 has no negative. Both points with x = 0 have low order."""
    for y in (1, P - 1):
        with pytest.raises(DecodeError, match="low order"):
            check_public((y | 1 << 255).to_bytes(32, "little"))


def test_a_key_of_mixed_order_binds_like_any_other() -> None:
    """A usable point plus one of order 8 is a key: it signs one message in eight, to everybody, and no second one."""
    base = (15112221349535400772501151409588531511454012693041857206046113283949847762202, 4 * pow(5, -1, P) % P)
    secret = 0x1234567890ABCDEF1234567890ABCDEF
    order_8 = next(point for point in TORSION if _times(point, 4)[1] != 1)
    x, y = _add(_times(base, secret), order_8)
    public = (y | (x & 1) << 255).to_bytes(32, "little")
    check_public(public)
    assert _is_point(public)
    nonce = 99
    rx, ry = _times(base, nonce)
    r = (ry | (rx & 1) << 255).to_bytes(32, "little")
    kept = []
    for number in range(64):
        message = bytes([number])
        hashed = hashlib.sha512(r + public + signature._in_context(b"", message)).digest()
        k = int.from_bytes(hashed, "little") % ORDER
        signed = r + ((nonce + k * secret) % ORDER).to_bytes(32, "little")
        try:
            verify(public, signed, b"", message)
        except DecodeError:
            assert k % 8
            continue
        assert k % 8 == 0
        kept.append((message, signed))
    assert kept
    for message, signed in kept:
        with pytest.raises(DecodeError):
            verify(public, signed, b"", message + b"\0")
