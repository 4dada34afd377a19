"""The kernels over GF(2^61 - 1) against Python integers, compiled and as plain Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secagg.kernels import field

P = field.MODULUS
# Values where halves and sums are largest, or where a reduction just does or does not happen.
EDGES = [0, 1, 2, P - 1, P - 2, (1 << 31) - 1, 1 << 31, (1 << 60) - 1, 1 << 60, P - (1 << 31), P - (1 << 31) + 1]
elements = st.one_of(st.sampled_from(EDGES), st.integers(0, P - 1))
Modes = Callable[[Any], Any]


@pytest.fixture(params=["compiled", "python"])
def mode(request: pytest.FixtureRequest) -> Modes:
    """Give the compiled kernel, or the Python function underneath it."""
    return (lambda kernel: kernel) if request.param == "compiled" else (lambda k: getattr(k, "py_func", k))


def u64(*shape: int, seed: int = 0, low: int = 0) -> NDArray[np.uint64]:
    """Make an array with edge values in a third of its places."""
    generator = np.random.default_rng(seed)
    random = generator.integers(low, P, shape, dtype=np.uint64)
    edges = generator.choice(np.array([e for e in EDGES if e >= low], np.uint64), shape)
    return np.where(generator.random(shape) < 1 / 3, edges, random)


def points_of(count: int, seed: int = 0) -> NDArray[np.uint64]:
    distinct = np.unique(np.concatenate([u64(2 * count + 40, seed=seed, low=1), np.arange(1, 4, dtype=np.uint64)]))
    return np.random.default_rng(seed).permutation(distinct)[:count]


def ints(array: NDArray[np.uint64]) -> list[Any]:
    return array.tolist()


def evaluate(coefficients: NDArray[np.uint64], x: int) -> list[int]:
    return [sum(c * pow(x, k, P) for k, c in enumerate(column)) % P for column in ints(coefficients.T)]


def weighted(weights: list[int], column: list[int]) -> int:
    return sum(w * v for w, v in zip(weights, column, strict=True)) % P


@given(st.integers(0, P + 1), st.integers(0, (1 << 62) - 1))
def test_multiply(a: int, b: int) -> None:
    for function in (field.multiply, getattr(field.multiply, "py_func", field.multiply)):
        product = int(function(np.uint64(a), np.uint64(b)))
        assert product % P == a * b % P
        assert product <= P + 1


@pytest.mark.parametrize("a", [*EDGES, P, P + 1])
@pytest.mark.parametrize("b", [*EDGES, P, P + 1, 2 * P - 1, (1 << 62) - 1])
def test_multiply_at_edges(a: int, b: int) -> None:
    product = int(field.multiply(np.uint64(a), np.uint64(b)))
    assert product % P == a * b % P
    assert product <= P + 1


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 1))
def test_fold(low: int, mid: int) -> None:
    folded = int(field.fold(np.uint64(low), np.uint64(mid)))
    assert folded % P == (low + (mid << 31)) % P
    assert folded <= P + 1


def test_fold_at_its_bounds() -> None:
    for low in (0, P, 2**61, 2**64 - 1):
        for mid in (0, 2**30 - 1, 2**30, 2**63 - 1):
            folded = int(field.fold(np.uint64(low), np.uint64(mid)))
            assert folded % P == (low + (mid << 31)) % P
            assert folded <= P + 1


@pytest.mark.parametrize("x", [0, 1, P - 1, P, P + 1, 2 * P - 1])
def test_canonical(x: int) -> None:
    assert int(field.canonical(np.uint64(x))) == x % P


@given(st.integers(1, P - 1))
def test_invert(a: int) -> None:
    assert int(field.invert(np.uint64(a))) * a % P == 1


@pytest.mark.parametrize("t", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("n", [1, 4, 9])
def test_share(mode: Modes, t: int, n: int) -> None:
    coefficients, points, out = u64(t, 3, seed=t), points_of(n, seed=n), np.empty((n, 3), np.uint64)
    mode(field.share)(coefficients, points, out)
    assert ints(out) == [evaluate(coefficients, x) for x in ints(points)]


@pytest.mark.parametrize("n", [field.TILE - 1, field.TILE, field.TILE + 1, 2 * field.TILE + 3])
def test_share_over_several_tiles(n: int) -> None:
    coefficients, points, out = u64(6, 2, seed=n), points_of(n, seed=n), np.empty((n, 2), np.uint64)
    field.share(coefficients, points, out)
    assert ints(out) == [evaluate(coefficients, x) for x in ints(points)]


@pytest.mark.parametrize("t", [43, 44])
def test_share_of_the_largest_values(t: int) -> None:
    """All halves at their largest: what the bounds in the kernel's loop must hold."""
    for value in (P - 1, P - (1 << 31), (1 << 60) - 1):
        coefficients, points = np.full((t, 1), value, np.uint64), np.array([P - 1, value, 1 << 60, P - 2], np.uint64)
        out = np.empty((4, 1), np.uint64)
        field.share(coefficients, points, out)
        assert ints(out[:, 0]) == [sum(value * pow(x, k, P) for k in range(t)) % P for x in ints(points)]


def weights_by_definition(points: list[int]) -> list[int]:
    weights = []
    for i, x in enumerate(points):
        weight = 1
        for j, y in enumerate(points):
            if j != i:
                weight = weight * y * pow(y - x, -1, P) % P
        weights.append(weight)
    return weights


@pytest.mark.parametrize("t", [1, 2, 3, 10, 33])
def test_lagrange_weights(mode: Modes, t: int) -> None:
    points, out = points_of(t, seed=t), np.empty(t, np.uint64)
    mode(field.lagrange_weights)(points, out)
    assert ints(out) == weights_by_definition(ints(points))


@pytest.mark.parametrize("t", [2, 3, 10])
def test_weights_without(mode: Modes, t: int) -> None:
    points, weights = points_of(t, seed=t), np.empty(t, np.uint64)
    field.lagrange_weights(points, weights)
    removed = np.array([t - 1, *range(t)], np.uint64)
    out = np.empty((t + 1, t), np.uint64)
    mode(field.weights_without)(points, weights, removed, out)
    for row, i in zip(ints(out), ints(removed), strict=True):
        expected = weights_by_definition([x for j, x in enumerate(ints(points)) if j != i])
        expected.insert(i, 0)
        assert row == expected


@pytest.mark.parametrize("t", [1, 2, 3, 6, 7])
@pytest.mark.parametrize("m", [1, 5, 11])
def test_combine(mode: Modes, t: int, m: int) -> None:
    weights, values, out = u64(t, seed=t), u64(t, m, seed=m), np.empty(m, np.uint64)
    mode(field.combine)(weights, values, out)
    assert ints(out) == [weighted(ints(weights), column) for column in ints(values.T)]


@pytest.mark.parametrize("m", [field.TILE, field.TILE + 1, 3 * field.TILE - 1])
@pytest.mark.parametrize("value", [P - 1, P - (1 << 31), (1 << 60) - 1])
def test_combine_of_the_largest_values_over_several_tiles(m: int, value: int) -> None:
    weights, values, out = np.full(9, value, np.uint64), np.full((9, m), value, np.uint64), np.empty(m, np.uint64)
    values[:, -1] = np.arange(9)
    field.combine(weights, values, out)
    assert ints(out) == [9 * value * value % P] * (m - 1) + [36 * value % P]


@settings(max_examples=30)
@given(st.integers(2, 8), st.integers(0, 2**32))
def test_combine_without(t: int, seed: int) -> None:
    points, values = points_of(t, seed=seed), u64(t, 7, seed=seed)
    weights, out = np.empty(t, np.uint64), np.empty(7, np.uint64)
    field.lagrange_weights(points, weights)
    removed = np.random.default_rng(seed).integers(0, t, 7).astype(np.uint64)
    without = np.empty((7, t), np.uint64)
    field.weights_without(points, weights, removed, without)
    expected = [weighted(*pair) for pair in zip(ints(without), ints(values.T), strict=True)]
    for function in (field.combine_without, getattr(field.combine_without, "py_func", field.combine_without)):
        out[:] = 0
        function(points, weights, values, removed, out)
        assert ints(out) == expected


@settings(max_examples=30)
@given(st.integers(0, 4), st.integers(1, 8), st.integers(0, 2**32))
def test_combine_each(sets: int, t: int, seed: int) -> None:
    rows = [points_of(t, seed=seed + r) for r in range(sets)]
    points = np.array(rows, np.uint64).reshape(sets, t)
    values = u64(sets * t, 5, seed=seed).reshape(sets, t, 5)
    expected = []
    for xs, ys in zip(rows, values, strict=True):
        weights = np.empty(t, np.uint64)
        field.lagrange_weights(xs, weights)
        expected.append([weighted(ints(weights), ints(column)) for column in ys.T])
    for function in (field.combine_each, getattr(field.combine_each, "py_func", field.combine_each)):
        out = np.zeros((sets, 5), np.uint64)
        function(points, values, out)
        assert ints(out) == expected


@given(st.lists(st.integers(0, 2**256 - 1), max_size=3))
def test_split_and_join(numbers: list[int]) -> None:
    words = np.array([[n >> 64 * i & (2**64 - 1) for i in range(4)] for n in numbers], np.uint64).reshape(-1, 4)
    for python in (False, True):
        split, join = (getattr(f, "py_func", f) if python else f for f in (field.split, field.join))
        limbs, back = np.empty((len(numbers), 5), np.uint64), np.empty_like(words)
        split(words, limbs)
        assert ints(limbs) == [[n >> 52 * i & (2**52 - 1) for i in range(5)] for n in numbers]
        assert int(join(limbs, back)) == 0
        assert ints(back) == ints(words)


@pytest.mark.parametrize("limb", range(5))
def test_join_reports_every_excess_bit(mode: Modes, limb: int) -> None:
    for bit in range(48 if limb == 4 else 52, 64):
        limbs = np.zeros((2, 5), np.uint64)
        limbs[0, limb] = 1 << bit
        assert int(mode(field.join)(limbs, np.empty((2, 4), np.uint64))) != 0


def test_the_loops_are_vectors() -> None:
    """Sharing is fast because its loop multiplies several 32-bit halves an instruction; see that it still does."""
    if not hasattr(field.share, "py_func"):
        pytest.skip("kernels are not compiled")
    fresh = numba.njit(error_model="numpy")(field.share.py_func)  # code from the disk cache cannot be looked at
    fresh(u64(4, 2), points_of(4), np.empty((4, 2), np.uint64))
    text = "".join(fresh.inspect_asm().values())
    if "ymm" not in text:
        pytest.skip("the processor has no 256-bit vectors")
    assert text.count("vpmuludq") >= 8
