"""GF(p), p = 2^61 - 1: polynomials at many points, Lagrange weights at zero, linear combinations.

Elements are uint64. A canonical element is below p; a loose one is at most p + 1 and is what the loops carry along.
Products of two elements are taken from 31-bit halves, which compilers turn into vectors of 32x32->64-bit
multiplications, and two of them are summed before one reduction. No step branches on an element or indexes by one, and
no intermediate value wraps, so the kernels give the same results uncompiled.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secagg.kernels.jit import kernel

U64 = NDArray[np.uint64]

MODULUS = (1 << 61) - 1
TILE = 256  # lanes that one pass of a loop covers: its working arrays stay in a 32 KiB first-level cache

_P = np.uint64(MODULUS)
_ZERO, _ONE = np.uint64(0), np.uint64(1)
_S30, _S31, _S61 = np.uint64(30), np.uint64(31), np.uint64(61)
_M52 = np.uint64((1 << 52) - 1)
_M30, _M31, _M32 = np.uint64((1 << 30) - 1), np.uint64((1 << 31) - 1), np.uint64((1 << 32) - 1)


@kernel
def halves(x: np.uint64) -> tuple[np.uint64, np.uint64]:
    """Split x < 2^62 into its low 31 bits and the rest; the second mask tells compilers that the rest has 32 bits."""
    return x & _M31, (x >> _S31) & _M32


@kernel
def fold(low: np.uint64, mid: np.uint64) -> np.uint64:
    """Reduce low + 2^31 mid to a loose element; any ``low``, ``mid`` below 2^63."""
    x = (low & _P) + (low >> _S61) + ((mid & _M30) << _S31) + (mid >> _S30)
    return (x & _P) + (x >> _S61)


@kernel
def canonical(x: np.uint64) -> np.uint64:
    """Reduce x < 2p to below p without a branch."""
    return (x + ((x + _ONE) >> _S61)) & _P


@kernel
def multiply(a: np.uint64, b: np.uint64) -> np.uint64:
    """Multiply a loose ``a`` by ``b`` < 2^62 to a loose element."""
    (a0, a1), (b0, b1) = halves(a), halves(b)
    return fold(a0 * b0 + ((a1 * b1) << _ONE), a0 * b1 + a1 * b0)


@kernel
def invert(a: np.uint64) -> np.uint64:
    """Invert a loose, nonzero ``a`` to a loose element as a^(p-2), with the same 60 squarings for every ``a``."""
    r = a
    for bit in range(59, -1, -1):
        r = multiply(r, r)
        if bit != 1:  # p - 2 = 2^61 - 3: every bit but the second lowest is set
            r = multiply(r, a)
    return r


@kernel
def share(coefficients: U64, points: U64, out: U64) -> None:
    """Evaluate polynomials at points: out[i, j] = sum over k of coefficients[k, j] * points[i]^k, canonical.

    Horner's rule in steps of two coefficients, over up to ``TILE`` points at once.

    Args:
        coefficients: uint64 [t, w], canonical, secret; row 0 holds the values at zero. t >= 1.
        points: uint64 [n], canonical, public.
        out: uint64 [n, w], overwritten.
    """
    t, w = coefficients.shape
    tile = np.empty((5, TILE), np.uint64)
    x0, x1, y0, y1, acc = tile[0], tile[1], tile[2], tile[3], tile[4]
    for start in range(0, points.size, TILE):
        xs, rows = points[start : start + TILE], out[start : start + TILE]
        n = xs.size
        for i in range(n):
            x0[i], x1[i] = halves(xs[i])
            y0[i], y1[i] = halves(multiply(xs[i], xs[i]))
        for j in range(w):
            for i in range(n):
                acc[i] = coefficients[t - 1, j]
            if t % 2 == 0:
                c = coefficients[t - 2, j]
                for i in range(n):
                    acc[i] = fold(multiply(acc[i], xs[i]) + c, _ZERO)
            for k in range((t - 1) // 2 * 2 - 2, -1, -2):
                c, (d0, d1) = coefficients[k, j], halves(coefficients[k + 1, j])
                for i in range(n):
                    a0, a1 = halves(acc[i])
                    u0, u1, v0, v1 = x0[i] & _M32, x1[i] & _M32, y0[i] & _M32, y1[i] & _M32
                    low = a0 * v0 + d0 * u0 + ((a1 * v1 + d1 * u1) << _ONE) + c
                    acc[i] = fold(low, a0 * v1 + a1 * v0 + d0 * u1 + d1 * u0)
            for i in range(n):
                rows[i, j] = canonical(acc[i])


@kernel
def lagrange_weights(points: U64, out: U64) -> None:
    """Compute the weights that take values at ``points`` to the value at zero, with one inversion.

    out[i] = product over j != i of points[j] / (points[j] - points[i]).

    Args:
        points: uint64 [t], canonical, distinct, nonzero, public.
        out: uint64 [t], overwritten, canonical.
    """
    t = points.size
    product = _ONE
    for i in range(t):
        out[i] = points[i]  # becomes x_i times the product of its differences
        product = multiply(product, points[i])
    for j in range(t):
        x = points[j] + _P
        before, products = points[:j], out[:j]
        for i in range(before.size):
            products[i] = multiply(products[i], x - before[i])
        after, products = points[j + 1 :], out[j + 1 :]
        for i in range(after.size):
            products[i] = multiply(products[i], x - after[i])
    invert_all(out)
    for i in range(t):
        out[i] = canonical(multiply(out[i], product))


@kernel
def invert_all(values: U64) -> None:
    """Invert uint64 [t] values, loose and nonzero, in place to loose ones with one inversion (Montgomery's trick)."""
    t = values.size
    before = np.empty(t, np.uint64)
    product = _ONE
    for i in range(t):
        before[i] = product
        product = multiply(product, values[i])
    inverse = invert(product)
    for i in range(t - 1, -1, -1):
        value = values[i]
        values[i] = multiply(inverse, before[i])
        inverse = multiply(inverse, value)


@kernel
def weights_without(points: U64, weights: U64, removed: U64, out: U64) -> None:
    """Compute the weights at zero of all points but one, for several choices of that one, from the weights of all.

    out[r, j] = weights[j] * (1 - points[j] / x), x = points[removed[r]], which is zero at j = removed[r].

    Args:
        points: uint64 [t + 1], canonical, distinct, nonzero.
        weights: uint64 [t + 1], canonical: the weights of ``points``.
        removed: uint64 [m], indices into ``points``.
        out: uint64 [m, t + 1], overwritten, canonical.
    """
    inverses = np.empty(removed.size, np.uint64)
    for r in range(removed.size):
        inverses[r] = points[removed[r]]
    invert_all(inverses)
    for r in range(removed.size):
        x = points[removed[r]] + _P
        for j in range(points.size):
            out[r, j] = canonical(multiply(multiply(inverses[r], x - points[j]), weights[j]))


@kernel
def combine(weights: U64, values: U64, out: U64) -> None:
    """Combine rows: out[s] = sum over i of weights[i] * values[i, s], canonical; two rows a reduction.

    Args:
        weights: uint64 [t], canonical, public.
        values: uint64 [t, m], canonical, secret.
        out: uint64 [m], overwritten.
    """
    t, m = values.shape
    for start in range(0, m, TILE):
        acc = out[start : start + TILE]
        n = acc.size
        row = values[t - 1][start : start + TILE]
        for s in range(n):
            acc[s] = multiply(row[s], weights[t - 1])
        if t % 2 == 0:
            row = values[t - 2][start : start + TILE]
            for s in range(n):
                acc[s] = fold(acc[s] + multiply(row[s], weights[t - 2]), _ZERO)
        for i in range(0, (t - 1) // 2 * 2, 2):
            (u0, u1), (v0, v1) = halves(weights[i]), halves(weights[i + 1])
            row, next_row = values[i][start : start + TILE], values[i + 1][start : start + TILE]
            for s in range(n):
                (a0, a1), (b0, b1) = halves(row[s]), halves(next_row[s])
                low = a0 * u0 + b0 * v0 + ((a1 * u1 + b1 * v1) << _ONE) + acc[s]
                acc[s] = fold(low, a0 * u1 + a1 * u0 + b0 * v1 + b1 * v0)
        for s in range(n):
            acc[s] = canonical(acc[s])


@kernel
def combine_each(points: U64, values: U64, out: U64) -> None:
    """Interpolate at zero several sets of columns, each from points of its own: out[r] from values[r] at points[r].

    Args:
        points: uint64 [r, t], canonical, nonzero, distinct in each row, public.
        values: uint64 [r, t, w], canonical, secret.
        out: uint64 [r, w], overwritten, canonical.
    """
    weights = np.empty(points.shape[1], np.uint64)
    for r in range(points.shape[0]):
        lagrange_weights(points[r], weights)
        combine(weights, values[r], out[r])


@kernel
def combine_without(points: U64, weights: U64, values: U64, removed: U64, out: U64) -> None:
    """Combine rows with the weights of ``weights_without``: out[s] = sum over i of w[i] * values[i, s], canonical.

    Column s leaves out row removed[s], whose value there is ignored. As out[s] = A[s] - B[s] / points[removed[s]],
    where A combines with weights[i] and B with weights[i] * points[i], this costs two combinations, whatever the number
    of different rows left out.

    Args:
        points: uint64 [t + 1], canonical, distinct, nonzero.
        weights: uint64 [t + 1], canonical: the weights of ``points``.
        values: uint64 [t + 1, m], canonical, secret.
        removed: uint64 [m], indices into ``points``, public.
        out: uint64 [m], overwritten.
    """
    scaled = np.empty(points.size, np.uint64)
    for i in range(points.size):
        scaled[i] = canonical(multiply(weights[i], points[i]))
    inverses = points.copy()
    invert_all(inverses)
    shifted = np.empty(out.size, np.uint64)
    combine(weights, values, out)
    combine(scaled, values, shifted)
    for s in range(out.size):
        minus = _P - canonical(multiply(inverses[removed[s]], shifted[s]))
        out[s] = canonical(canonical(out[s]) + minus)


@kernel
def split(words: U64, limbs: U64) -> None:
    """Cut 256-bit integers into limbs of 52, 52, 52, 52 and 48 bits.

    Args:
        words: uint64 [m, 4], the integers, least significant word first, secret.
        limbs: uint64 [m, 5], overwritten.
    """
    for s in range(words.shape[0]):
        a, b, c, d = words[s, 0], words[s, 1], words[s, 2], words[s, 3]
        limbs[s, 0] = a & _M52
        limbs[s, 1] = (a >> np.uint64(52) | b << np.uint64(12)) & _M52
        limbs[s, 2] = (b >> np.uint64(40) | c << np.uint64(24)) & _M52
        limbs[s, 3] = (c >> np.uint64(28) | d << np.uint64(36)) & _M52
        limbs[s, 4] = d >> np.uint64(16)


@kernel
def join(limbs: U64, words: U64) -> np.uint64:
    """Put back together what ``split`` cut; return zero if and only if no limb has a bit that ``split`` never sets.

    Args:
        limbs: uint64 [m, 5], secret.
        words: uint64 [m, 4], overwritten.
    """
    excess = _ZERO
    for s in range(words.shape[0]):
        a, b, c, d, e = limbs[s, 0], limbs[s, 1], limbs[s, 2], limbs[s, 3], limbs[s, 4]
        words[s, 0] = a | b << np.uint64(52)
        words[s, 1] = b >> np.uint64(12) | c << np.uint64(40)
        words[s, 2] = c >> np.uint64(24) | d << np.uint64(28)
        words[s, 3] = d >> np.uint64(36) | e << np.uint64(16)
        excess |= (a | b | c | d) >> np.uint64(52) | e >> np.uint64(48)
    return excess
