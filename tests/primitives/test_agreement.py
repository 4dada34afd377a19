"""X25519 through ``AgreementKey``."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.errors import DecodeError, InputError, LocalProtocolError
from secagg.primitives.agreement import AgreementKey, is_canonical, is_low_order, parse_public

# RFC 7748, section 6.1.
ALICE = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
ALICE_PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
BOB = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
BOB_PUBLIC = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
SHARED = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
# RFC 7748, section 5.2: k and u start as 9; each step takes u <- k and k <- X25519(k, u).
AFTER = {
    1: "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079",
    1000: "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51",
}
P = 2**255 - 19
# Order 1, 2, 4 and 8, on the curve and its twist, and the two encodings that are not reduced.
LOW_ORDER = [
    0,
    1,
    P - 1,
    P,
    P + 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
]

keys = st.binary(min_size=32, max_size=32)


def test_rfc_7748_exchange() -> None:
    alice, bob = AgreementKey(bytes.fromhex(ALICE)), AgreementKey.from_bytes(bytes.fromhex(BOB))
    assert alice.public.hex() == ALICE_PUBLIC
    assert bob.public.hex() == BOB_PUBLIC
    assert alice.exchange(bob.public).hex() == bob.exchange(alice.public).hex() == SHARED


def test_rfc_7748_iterated() -> None:
    k = u = (9).to_bytes(32, "little")
    for step in range(1, max(AFTER) + 1):
        k, u = AgreementKey(k).exchange(u), k
        assert k.hex() == AFTER.get(step, k.hex())


def test_wycheproof(wycheproof: Callable[..., Any]) -> None:
    checked = refused = 0
    for _, case in wycheproof("Protocol", "x25519_test.json"):
        key, public = AgreementKey(bytes.fromhex(case["private"])), bytes.fromhex(case["public"])
        if case["shared"] == "00" * 32:
            with pytest.raises(DecodeError):
                key.exchange(public)
            refused += 1
        else:
            assert key.exchange(public).hex() == case["shared"], case["tcId"]
        assert is_low_order(public) == (case["shared"] == "00" * 32), case["tcId"]
        checked += 1
    assert checked >= 500
    assert refused >= 30


def test_only_the_least_encoding_of_a_point_is_canonical() -> None:
    for u, canonical in ((0, True), (P - 1, True), (P, False), (P + 1, False), (9 | 1 << 255, False)):
        assert is_canonical(u.to_bytes(32, "little")) == canonical


@given(keys, keys)
def test_both_sides_agree_with_pycryptodome(a: bytes, b: bytes) -> None:
    dh = pytest.importorskip("Crypto.Protocol.DH", reason="this pycryptodome has no X25519 (3.22 has)")
    if not hasattr(dh, "import_x25519_private_key"):
        pytest.skip("this pycryptodome has no X25519 (3.22 has)")
    ours, theirs = AgreementKey(a), AgreementKey(b)
    private = dh.import_x25519_private_key(a)
    assert private.public_key().export_key(format="raw") == ours.public
    expected = dh.key_agreement(static_priv=private, static_pub=dh.import_x25519_public_key(theirs.public), kdf=bytes)
    assert ours.exchange(theirs.public) == theirs.exchange(ours.public) == expected
    assert ours.exchange(parse_public(theirs.public)) == expected
    assert not is_low_order(ours.public)


@given(keys)
def test_secret_bytes_come_back_unclamped(secret: bytes) -> None:
    assert AgreementKey(secret).secret_bytes() == secret


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_wrong_lengths_are_refused(length: int) -> None:
    wrong = b"\x77" * length
    with pytest.raises(InputError):
        AgreementKey(wrong)
    for decode in (AgreementKey.from_bytes, AgreementKey.generate().exchange):
        with pytest.raises(DecodeError) as caught:
            decode(wrong)
        assert "77" * 2 not in str(caught.value)
        assert caught.value.__cause__ is None


def test_generate_takes_its_randomness() -> None:
    asked = []

    def randomness(length: int) -> bytes:
        asked.append(length)
        return bytes.fromhex(ALICE)

    assert AgreementKey.generate(randomness).public.hex() == ALICE_PUBLIC
    assert asked == [32]
    with pytest.raises(LocalProtocolError):
        AgreementKey.generate(lambda length: bytes(length - 1))


def test_equality() -> None:
    a, b = AgreementKey(bytes.fromhex(ALICE)), AgreementKey(bytes.fromhex(BOB))
    assert a == AgreementKey(bytes.fromhex(ALICE))
    assert hash(a) == hash(AgreementKey(bytes.fromhex(ALICE)))
    assert a != b
    assert a != bytes.fromhex(ALICE)


def test_never_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(AgreementKey.generate())


def test_a_public_key_of_another_length_is_not_parsed():
    for length in (0, 31, 33):
        with pytest.raises(DecodeError):
            parse_public(bytes(length))
