"""Shamir's sharing against Python integers."""

from __future__ import annotations

import itertools
import secrets as system
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secagg.errors import DecodeError, InputError, LocalProtocolError, ParameterError
from secagg.kernels.jit import is_compiling
from secagg.primitives import shamir

P = 2**61 - 1
WIDTHS = (52, 52, 52, 52, 48)
byte_secrets = st.one_of(st.binary(min_size=32, max_size=32), st.sampled_from([bytes(32), b"\xff" * 32]))


def points(*values: int) -> NDArray[np.uint64]:
    return np.array(values, np.uint64)


def limbs(secret: bytes) -> list[int]:
    number = int.from_bytes(secret, "little")
    return [number >> 52 * i & ((1 << width) - 1) for i, width in enumerate(WIDTHS)]


def words(share: NDArray[np.uint8]) -> list[int]:
    return [int.from_bytes(share[8 * i : 8 * i + 8].tobytes(), "little") for i in range(5)]


def from_words(values: Sequence[int]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(value.to_bytes(8, "little") for value in values), np.uint8)


def interpolate(xs: Sequence[int], ys: Sequence[int], at: int = 0) -> int:
    total = 0
    for i, x in enumerate(xs):
        numerator = denominator = 1
        for other in [*xs[:i], *xs[i + 1 :]]:
            numerator, denominator = numerator * (at - other) % P, denominator * (x - other) % P
        total += ys[i] * numerator * pow(denominator, -1, P)
    return total % P


@given(st.lists(byte_secrets, min_size=1, max_size=3), st.integers(1, 6), st.data())
def test_shares_are_the_polynomials_of_the_randomness(secrets: list[bytes], t: int, data: st.DataObject) -> None:
    xs = data.draw(st.lists(st.integers(1, P - 1), min_size=t, max_size=t + 3, unique=True))
    stream = system.token_bytes(40 * (t - 1) * len(secrets))
    asked = []

    def randomness(length: int) -> bytes:
        asked.append(length)
        return stream

    dealt = shamir.share(secrets, threshold=t, points=points(*xs), randomness=randomness)
    assert (dealt.dtype, dealt.shape) == (np.uint8, (len(xs), len(secrets), shamir.SHARE_BYTES))
    assert asked == ([len(stream)] if t > 1 else [])
    drawn = [int.from_bytes(stream[i : i + 8], "little") % 2**61 for i in range(0, len(stream), 8)]
    for index, secret in enumerate(secrets):
        for limb, value in enumerate(limbs(secret)):
            polynomial = [value, *drawn[5 * index + limb :: 5 * len(secrets)]]
            for i, x in enumerate(xs):
                expected = sum(c * pow(x, k, P) for k, c in enumerate(polynomial)) % P
                assert words(dealt[i, index])[limb] == expected


@given(st.lists(byte_secrets, min_size=1, max_size=3), st.integers(1, 8), st.integers(0, 4), st.data())
def test_any_threshold_of_shares_rebuild(secrets: list[bytes], t: int, more: int, data: st.DataObject) -> None:
    xs = points(*data.draw(st.lists(st.integers(1, P - 1), min_size=t + more, max_size=t + more, unique=True)))
    dealt = shamir.share(secrets, threshold=t, points=xs)
    shamir.check_shares(dealt)
    chosen = np.array(data.draw(st.permutations(range(t + more)))[: t + data.draw(st.integers(0, more))])
    assert shamir.reconstruct(xs[chosen], dealt[chosen]) == secrets
    weights = shamir.lagrange_weights(xs[chosen])
    assert shamir.reconstruct(xs[chosen], dealt[chosen], weights=weights) == secrets


def test_every_subset_rebuilds() -> None:
    secret, xs = system.token_bytes(32), np.arange(1, 7, dtype=np.uint64)
    dealt = shamir.share([secret], threshold=3, points=xs)
    for subset in itertools.combinations(range(6), 3):
        assert shamir.reconstruct(xs[list(subset)], dealt[list(subset)]) == [secret]


@given(byte_secrets, byte_secrets, st.integers(2, 6))
def test_fewer_shares_fit_every_secret(secret: bytes, other: bytes, t: int) -> None:
    """For t - 1 shares and any other secret there is one more share with which they rebuild that other secret."""
    xs = list(range(1, t + 1))
    dealt = shamir.share([secret], threshold=t, points=points(*xs))[: t - 1]
    known = [words(row[0]) for row in dealt]
    forged = [
        interpolate([0, *xs[:-1]], [limb, *(row[i] for row in known)], at=t) for i, limb in enumerate(limbs(other))
    ]
    shares = np.concatenate([dealt, from_words(forged).reshape(1, 1, 40)])
    assert shamir.reconstruct(points(*xs), shares) == [other]


def test_a_single_share_is_uniform() -> None:
    """Every bit of shares of the all-zero secret is set about half of the time (six sigma)."""
    dealt = shamir.share([bytes(32)] * 4000, threshold=2, points=points(1, 2))
    bits = np.unpackbits(dealt[0].reshape(-1, 8), axis=1, bitorder="little")[:, :61].mean(axis=0)
    assert np.abs(bits - 0.5).max() < 6 * 0.5 / np.sqrt(20_000)


@given(byte_secrets, st.integers(1, 5), st.data())
def test_a_changed_share_never_goes_unnoticed(secret: bytes, t: int, data: st.DataObject) -> None:
    xs = np.arange(1, t + 1, dtype=np.uint64)
    dealt = shamir.share([secret], threshold=t, points=xs)
    bit = data.draw(st.integers(0, 319))
    dealt[data.draw(st.integers(0, t - 1)), 0, bit // 8] ^= np.uint8(1 << bit % 8)
    try:
        rebuilt = shamir.reconstruct(xs, dealt)
    except DecodeError:
        return
    assert rebuilt != [secret]


def test_a_share_at_the_wrong_point_never_goes_unnoticed() -> None:
    secret, xs = system.token_bytes(32), points(1, 2, 3)
    dealt = shamir.share([secret], threshold=3, points=xs)
    with pytest.raises(DecodeError, match="do not reconstruct"):
        shamir.reconstruct(points(1, 2, 4), dealt)


@pytest.mark.parametrize("limb", range(5))
def test_limbs_too_large_for_a_secret_are_refused(limb: int) -> None:
    largest = [(1 << width) - 1 for width in WIDTHS]
    assert shamir.reconstruct(points(5), from_words(largest).reshape(1, 1, 40)) == [b"\xff" * 32]
    largest[limb] += 1
    with pytest.raises(DecodeError, match="do not reconstruct a 32-byte secret"):
        shamir.reconstruct(points(5), from_words(largest).reshape(1, 1, 40))


@pytest.mark.parametrize("limb", range(5))
@pytest.mark.parametrize("value", [P, P + 1, 2**64 - 1])
def test_words_that_are_not_canonical_are_refused(limb: int, value: int) -> None:
    share = [0] * 5
    share[limb] = P - 1
    shamir.check_shares(from_words(share))
    share[limb] = value
    with pytest.raises(DecodeError, match="below"):
        shamir.check_shares(from_words(share))
    for call in (shamir.reconstruct, lambda xs, s: shamir.reconstruct_without(xs, s, np.array([0]))):
        with pytest.raises(DecodeError, match="below"):
            call(points(1, 2), np.stack([from_words(share)] * 2)[:, None])


def test_threshold_one_deals_the_secret_itself() -> None:
    secret = system.token_bytes(32)
    dealt = shamir.share([secret], threshold=1, points=points(3, 9))
    assert words(dealt[0, 0]) == words(dealt[1, 0]) == limbs(secret)
    assert shamir.reconstruct(points(9), dealt[1:]) == [secret]


def test_no_secrets() -> None:
    dealt = shamir.share([], threshold=2, points=points(1, 2))
    assert dealt.shape == (2, 0, 40)
    assert shamir.reconstruct(points(1, 2), dealt) == []
    assert shamir.reconstruct_without(points(1, 2), dealt, np.array([], np.intp)) == []


def test_words_of_61_ones_are_drawn_again() -> None:
    answers = [(b"\xff" * 8 + b"\1" * 8) * 2 + b"\2" * 8, b"\3" * 8 + b"\xff" * 8, b"\4" * 8]
    asked = []

    def randomness(length: int) -> bytes:
        asked.append(length)
        return answers[len(asked) - 1]

    dealt = shamir.share([bytes(32)], threshold=2, points=points(1, 2), randomness=randomness)
    assert asked == [40, 16, 8]
    drawn = [int.from_bytes(bytes([n]) * 8, "little") % 2**61 for n in (3, 1, 4, 1, 2)]
    assert words(dealt[0, 0]) == drawn


def test_randomness_that_gives_nothing_but_ones_is_refused() -> None:
    asked = []

    def randomness(length: int) -> bytes:
        asked.append(length)
        return b"\xff" * length

    with pytest.raises(LocalProtocolError, match="repeats itself"):
        shamir.share([bytes(32)], threshold=2, points=points(1, 2), randomness=randomness)
    assert asked == [40] * 9


def test_short_randomness_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        shamir.share([bytes(32)], threshold=2, points=points(1, 2), randomness=lambda length: bytes(length - 8))


@settings(max_examples=40)
@given(st.integers(2, 7), st.integers(1, 6), st.data())
def test_reconstruct_without(count: int, m: int, data: st.DataObject) -> None:
    xs = points(*data.draw(st.lists(st.integers(1, P - 1), min_size=count, max_size=count, unique=True)))
    removed = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=m, max_size=m)))
    secrets = [system.token_bytes(32) for _ in range(m)]
    dealt = shamir.share(secrets, threshold=count - 1, points=xs)
    dealt[removed, np.arange(m)] = data.draw(st.sampled_from([0, 7]))
    weights = shamir.lagrange_weights(xs)
    assert shamir.reconstruct_without(xs, dealt, removed) == secrets
    assert shamir.reconstruct_without(xs, dealt, removed, weights=weights) == secrets
    rows = shamir.weights_without(xs, weights, removed)
    for i, secret in enumerate(secrets):
        others = np.delete(np.arange(count), removed[i])
        assert np.array_equal(rows[i, others], shamir.lagrange_weights(xs[others]))
        assert rows[i, removed[i]] == 0
        assert shamir.reconstruct(xs, dealt[:, i : i + 1], weights=rows[i]) == [secret]


@settings(max_examples=40, deadline=None)
@given(st.lists(byte_secrets, max_size=4), st.integers(1, 5), st.data())
def test_reconstruct_each_from_points_of_its_own(secrets: list[bytes], t: int, data: st.DataObject) -> None:
    rows = [data.draw(st.lists(st.integers(1, P - 1), min_size=t, max_size=t, unique=True)) for _ in secrets]
    shares = [
        shamir.share([secret], threshold=t, points=points(*xs))[:, 0] for secret, xs in zip(secrets, rows, strict=True)
    ]
    at, held = np.array(rows, np.uint64).reshape(-1, t), np.array(shares, np.uint8).reshape(-1, t, 40)
    assert shamir.reconstruct_each(at, held) == secrets


def test_reconstruct_each_refuses_what_reconstruct_does() -> None:
    share = np.zeros((2, 3, 40), np.uint8)
    good = np.array([[1, 2, 3], [4, 5, 6]], np.uint64)
    assert shamir.reconstruct_each(good, share) == [bytes(32)] * 2
    assert shamir.reconstruct_each(np.array([[1, 2, 3], [2, 1, 3]], np.uint64), share) == [bytes(32)] * 2
    with pytest.raises(InputError, match="t >= 1"):
        shamir.reconstruct_each(good[:, :0], share[:, :0])
    for wrong in ([[1, 2, 3], [4, 5, 5]], [[0, 2, 3], [4, 5, 6]], [[1, 2, P], [4, 5, 6]]):
        with pytest.raises(InputError):
            shamir.reconstruct_each(np.array(wrong, np.uint64), share)
    for xs, held in ((good.astype(np.int64), share), (good[0], share), (good, share[0]), (good[:1], share)):
        with pytest.raises(InputError):
            shamir.reconstruct_each(xs, held)
    many = np.arange(1, 41, dtype=np.uint64).reshape(1, 40)
    for xs, held in (
        (good, np.zeros((2, 3, 2, 40), np.uint8)),
        (many, np.zeros((1, 40), np.uint8)),
        (good.reshape(2, 3, 1), share),
    ):
        with pytest.raises(InputError):
            shamir.reconstruct_each(xs, held)
    share[1, 0, 7] = 0xFF
    with pytest.raises(DecodeError):
        shamir.reconstruct_each(good, share)


@given(st.lists(st.integers(1, P - 1), min_size=1, max_size=9, unique=True))
def test_lagrange_weights(xs: list[int]) -> None:
    for i, weight in enumerate(shamir.lagrange_weights(points(*xs)).tolist()):
        assert weight == interpolate(xs, [int(j == i) for j in range(len(xs))])


@pytest.mark.parametrize(
    "wrong",
    [
        points(0, 1),
        points(1, 1),
        points(1, 2, 2),
        points(1, P),
        points(1, 2**64 - 1),
        points(),
        points(1, 2).reshape(1, 2),
        np.array(5, np.uint64),
        np.array([1, 2]),
        np.array([1.0, 2.0]),
    ],
)
def test_wrong_points_are_refused(wrong: Any) -> None:
    shares = np.zeros((2, 1, 40), np.uint8)
    for call in (
        lambda: shamir.share([bytes(32)], threshold=1, points=wrong),
        lambda: shamir.lagrange_weights(wrong),
        lambda: shamir.reconstruct(wrong, shares),
        lambda: shamir.reconstruct_without(wrong, shares, np.array([0])),
        lambda: shamir.weights_without(wrong, points(1, 1), np.array([0])),
    ):
        with pytest.raises(InputError):
            call()


@pytest.mark.parametrize("wrong", [points(), points(1, 2).reshape(1, 2), np.array([1, 2])])
def test_points_of_another_shape_are_told_which_is_right(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"points are uint64 \[n\], n >= 1"):
        shamir.lagrange_weights(wrong)


def test_wrong_points_are_refused_beside_weights_too() -> None:
    shares, weights = np.zeros((2, 1, 40), np.uint8), points(1, 1)
    with pytest.raises(InputError, match="points are distinct"):
        shamir.reconstruct(points(1, 1), shares, weights=weights)
    with pytest.raises(InputError, match="points are distinct"):
        shamir.reconstruct_without(points(1, 1), shares, np.array([0]), weights=weights)


@pytest.mark.parametrize("threshold", [-1, 0, 3])
def test_impossible_thresholds_are_refused(threshold: int) -> None:
    with pytest.raises(ParameterError, match="threshold"):
        shamir.share([bytes(32)], threshold=threshold, points=points(1, 2))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_secrets_of_other_lengths_are_refused(length: int) -> None:
    with pytest.raises(InputError, match="32 bytes"):
        shamir.share([bytes(32), bytes(length)], threshold=1, points=points(1))


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((2, 1, 39), np.uint8), np.zeros((2, 1, 40), np.int8), np.zeros((3, 1, 40), np.uint8), np.zeros((2, 40))]
    + [np.zeros(shape, np.uint8) for shape in ((2, 40), (2, 1, 1, 40), (0,))],
)
def test_shares_of_other_shapes_are_refused(wrong: Any) -> None:
    with pytest.raises(InputError):
        shamir.reconstruct(points(1, 2), wrong)
    with pytest.raises(InputError):
        shamir.reconstruct_without(points(1, 2), wrong, np.array([0]))


def test_check_shares_refuses_other_shapes() -> None:
    for wrong in (np.zeros((2, 39), np.uint8), np.zeros(40, np.int8), np.uint8(3)):
        with pytest.raises(InputError):
            shamir.check_shares(np.asarray(wrong))
    shamir.check_shares(np.zeros((0, 40), np.uint8))


@pytest.mark.parametrize("removed", [[-1], [2], [0, 1], [0.0], [[0]], 0])
def test_wrong_removed_positions_are_refused(removed: Any) -> None:
    with pytest.raises(InputError):
        shamir.reconstruct_without(points(1, 2), np.zeros((2, 1, 40), np.uint8), np.array(removed))


def test_each_secret_has_its_removed_position() -> None:
    for removed in ([0], [0, 0, 0]):
        with pytest.raises(InputError, match="2 secrets need as many"):
            shamir.reconstruct_without(points(1, 2), np.zeros((2, 2, 40), np.uint8), np.array(removed))


def test_one_point_cannot_be_left_out() -> None:
    with pytest.raises(InputError, match="two points"):
        shamir.reconstruct_without(points(1), np.zeros((1, 1, 40), np.uint8), np.array([0]))


@pytest.mark.parametrize("wrong", [points(1), points(1, P), np.array([1, 1])])
def test_wrong_weights_are_refused(wrong: Any) -> None:
    shares = np.zeros((2, 1, 40), np.uint8)
    with pytest.raises(InputError, match="weights"):
        shamir.reconstruct(points(1, 2), shares, weights=wrong)
    with pytest.raises(InputError, match="weights"):
        shamir.reconstruct_without(points(1, 2), shares, np.array([0]), weights=wrong)


def test_arrays_that_are_not_contiguous() -> None:
    secrets = [system.token_bytes(32) for _ in range(3)]
    xs = np.arange(1, 13, dtype=np.uint64)[::-2]
    dealt = shamir.share(secrets, threshold=3, points=xs)
    assert shamir.reconstruct(xs[::2], dealt[::2]) == secrets
    assert shamir.reconstruct(xs[::2], np.asfortranarray(dealt[::2])) == secrets


def test_arguments_are_left_as_they_were() -> None:
    xs = points(4, 2, 9)
    dealt = shamir.share([b"\7" * 32], threshold=3, points=xs)
    before, weights = dealt.copy(), shamir.lagrange_weights(xs)
    kept = weights.copy()
    shamir.reconstruct(xs, dealt, weights=weights)
    assert xs.tolist() == [4, 2, 9]
    assert np.array_equal(dealt, before)
    assert np.array_equal(weights, kept)


def test_a_large_round_trip() -> None:
    n, t = (1000, 667) if is_compiling() else (300, 67)
    xs = np.arange(1, n + 1, dtype=np.uint64)
    secrets = [system.token_bytes(32) for _ in range(2)]
    dealt = shamir.share(secrets, threshold=t, points=xs)
    chosen = np.random.default_rng(0).permutation(n)[:t]
    assert shamir.reconstruct(xs[chosen], dealt[chosen]) == secrets
