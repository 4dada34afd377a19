"""HKDF-SHA256 and the labels. The vectors reach HKDF through ``kdf._hkdf``, which ``derive`` calls with a label."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.errors import InputError
from secagg.primitives import kdf
from secagg.primitives.kdf import Label

# RFC 5869, appendix A.1 to A.3: ikm, salt, info, okm.
RFC_5869 = [
    (
        "0b" * 22,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        bytes(range(0x50)).hex(),
        bytes(range(0x60, 0xB0)).hex(),
        bytes(range(0xB0, 0x100)).hex(),
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
        "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ),
    (
        "0b" * 22,
        "",
        "",
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
]


@pytest.mark.parametrize(("ikm", "salt", "info", "okm"), RFC_5869)
def test_rfc_5869(ikm: str, salt: str, info: str, okm: str) -> None:
    length = len(okm) // 2
    assert kdf._hkdf(bytes.fromhex(ikm), bytes.fromhex(salt), bytes.fromhex(info), length).hex() == okm


def test_wycheproof(wycheproof: Callable[..., Any]) -> None:
    checked = 0
    for _, case in wycheproof("Protocol", "hkdf_sha256_test.json"):
        arguments = (*(bytes.fromhex(case[name]) for name in ("ikm", "salt", "info")), case["size"])
        if case["result"] == "valid":
            assert kdf._hkdf(*arguments).hex() == case["okm"], case["tcId"]
        else:
            with pytest.raises(InputError):
                kdf._hkdf(*arguments)
        checked += 1
    assert checked >= 80


@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=80), st.integers(1, 200))
def test_agrees_with_pycryptodome(secret: bytes, salt: bytes, info: bytes, length: int) -> None:
    reference = pytest.importorskip("Crypto.Protocol.KDF")
    sha256 = pytest.importorskip("Crypto.Hash.SHA256")
    labelled = bytes([len(Label.ROUND.value)]) + Label.ROUND.value + info
    expected = reference.HKDF(secret, length, salt, sha256, context=labelled)
    assert kdf.derive(secret, salt=salt, label=Label.ROUND, info=info, length=length) == expected


@pytest.mark.parametrize("length", [-1, 0, 8161])
def test_impossible_lengths_are_refused(length: int) -> None:
    with pytest.raises(InputError, match="8160"):
        kdf.derive(b"secret", salt=b"", label=Label.ROUND, length=length)


def test_labels_are_distinct_and_separate() -> None:
    values = [label.value for label in Label]
    assert len(set(values)) == len(values) == len(Label.__members__)
    assert len({kdf.derive(b"s", salt=b"", label=label, length=32) for label in Label}) == len(values)
    assert len({kdf.digest(label, b"x") for label in Label}) == len(values)


def test_digest_separates_its_parts() -> None:
    label = Label.CONTEXT
    digests = {kdf.digest(label, *parts) for parts in [(b"ab", b"c"), (b"a", b"bc"), (b"abc",), (b"abc", b"")]}
    assert len(digests) == 4
    prefix = bytes([len(label.value)]) + label.value
    expected = hashlib.sha256(prefix + (2).to_bytes(8, "little") + b"ab" + (1).to_bytes(8, "little") + b"c").digest()
    assert kdf.digest(label, b"ab", memoryview(b"c")) == expected
