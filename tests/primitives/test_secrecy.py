"""No repr, exception text or traceback of a primitive shows a secret byte."""

from __future__ import annotations

import base64
import traceback
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from secagg.errors import LocalProtocolError, SecAggError
from secagg.primitives import aead, agreement, kdf, shamir, signature
from secagg.primitives.randomness import draw, system_randomness

SECRET = bytes.fromhex("c35a7e1996f0d2b8417c63aa05ef9bd87741a6c8f2133e905bd4ec8a277fb061")
POINTS = np.arange(1, 4, dtype=np.uint64)


def forms(secret: bytes) -> Iterator[str]:
    """Yield how four bytes or more of ``secret`` may look in a text."""
    for i in range(len(secret) - 3):
        part = secret[i : i + 4]
        yield part.hex()
        yield repr(part)[2:-1]
        yield ", ".join(map(str, part))
        yield " ".join(map(str, part))
        yield str(int.from_bytes(part, "little"))
    yield base64.b64encode(secret).decode()[:12]
    yield str(int.from_bytes(secret, "little"))
    yield str(int.from_bytes(secret, "big"))


def assert_hidden(text: str) -> None:
    assert [form for form in forms(SECRET) if form in text.replace("\n", " ")] == []


def test_the_search_finds_what_it_looks_for() -> None:
    for text in (repr(SECRET), SECRET.hex(), str(list(SECRET)), str(np.frombuffer(SECRET, np.uint8))):
        with pytest.raises(AssertionError):
            assert_hidden(text)


@pytest.mark.parametrize("make", [agreement.AgreementKey, signature.SigningKey])
def test_reprs(make: Callable[[bytes], object]) -> None:
    key = make(SECRET)
    for text in (repr(key), str(key), f"{key}", repr([key]), repr({"key": key})):
        assert_hidden(text)
        assert key.public.hex() in text


LOW_ORDER = bytes(32)
SHARES = shamir.share([SECRET], threshold=1, points=POINTS)
TOO_LARGE = SHARES.copy()
TOO_LARGE[:, 0, 7] = 0x0F  # still canonical, too large for a limb
NOT_CANONICAL = SHARES.copy()
NOT_CANONICAL[:, 0, 7] = 0xFF
FAILURES: dict[str, Callable[[], object]] = {
    "exchange with a point of low order": lambda: agreement.AgreementKey(SECRET).exchange(LOW_ORDER),
    "exchange with a secret of another length": lambda: agreement.AgreementKey(bytes(32)).exchange(SECRET[:31]),
    "agreement key of another length": lambda: agreement.AgreementKey(SECRET[:31]),
    "agreement key decoded": lambda: agreement.AgreementKey.from_bytes(SECRET[:31]),
    "signing key of another length": lambda: signature.SigningKey(SECRET[:31]),
    "signing key decoded": lambda: signature.SigningKey.from_bytes(SECRET[:31]),
    "signing in a long context": lambda: signature.SigningKey(SECRET).sign(SECRET * 9, SECRET),
    "verifying": lambda: signature.verify(SECRET, SECRET * 2, b"", SECRET),
    "sealing": lambda: aead.seal_once(SECRET[:31], SECRET, SECRET),
    "opening": lambda: aead.open_once(SECRET, SECRET, SECRET),
    "sealing state": lambda: list(aead.seal_state(SECRET[:31], SECRET, [SECRET], SECRET)),
    "opening state": lambda: aead.open_state(SECRET, SECRET, SECRET * 2, SECRET),
    "deriving": lambda: kdf.derive(SECRET, salt=SECRET, label=kdf.Label.ROUND, info=SECRET, length=0),
    "sharing too short a secret": lambda: shamir.share([SECRET[:31]], threshold=1, points=POINTS),
    "sharing without randomness": lambda: shamir.share(
        [SECRET], threshold=2, points=POINTS, randomness=lambda _: SECRET
    ),
    "rebuilding no secret": lambda: shamir.reconstruct(POINTS, TOO_LARGE),
    "rebuilding from bad shares": lambda: shamir.reconstruct(POINTS, NOT_CANONICAL),
    "rebuilding from bad shapes": lambda: shamir.reconstruct(POINTS, SHARES[:2]),
    "randomness of another length": lambda: draw(lambda _: SECRET, 31),
}


@pytest.mark.parametrize("failing", FAILURES.values(), ids=FAILURES.keys())
def test_exceptions(failing: Callable[[], object]) -> None:
    with pytest.raises(SecAggError) as caught:
        failing()
    assert_hidden(str(caught.value))
    assert_hidden(repr(caught.value))
    assert_hidden("".join(traceback.format_exception(caught.value)))


def test_draw() -> None:
    assert len(draw(system_randomness, 33)) == 33
    assert draw(system_randomness, 32) != draw(system_randomness, 32)
    assert draw(lambda length: b"x" * length, 3) == b"xxx"
    for wrong in (b"", b"xxxx", bytearray(3), None):
        with pytest.raises(LocalProtocolError):
            draw(lambda _, answer=wrong: answer, 3)
