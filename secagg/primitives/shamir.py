"""Shamir sharing of 32-byte secrets over GF(2^61 - 1).

A secret is read as a little-endian integer and cut into five limbs, four of 52 bits and one of 48. Each limb is the
value at zero of its own random polynomial of degree below the threshold. A share is the five values at one point: 40
bytes, five little-endian 64-bit words below 2^61 - 1.

Points are public; secrets and coefficients decide no branch and no address.

Source: Shamir, "How to share a secret", CACM 1979; SPEC "Secret sharing".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secagg.errors import DecodeError, InputError, LocalProtocolError, ParameterError, SelfTestError
from secagg.kernels import field
from secagg.primitives.randomness import Randomness, draw, system_randomness

SECRET_BYTES = 32
SHARE_BYTES = 40
MODULUS = field.MODULUS

LIMBS = 5
_P = np.uint64(MODULUS)
_MAX_REDRAWS = 8  # an honest element is drawn again with a chance of 2^-61


def share(
    secrets: Sequence[bytes],
    *,
    threshold: int,
    points: NDArray[np.uint64],
    randomness: Randomness = system_randomness,
) -> NDArray[np.uint8]:
    """Share secrets so that any ``threshold`` of the shares of one rebuild it and fewer say nothing about it.

    Args:
        secrets: m secrets of 32 bytes.
        threshold: how many shares rebuild a secret, at least 1. With 1, every share is the secret.
        points: uint64 [n], where the polynomials are evaluated: distinct, 1 <= point < 2^61 - 1, n >= threshold.
        randomness: asked once for 40 (threshold - 1) m bytes, read as little-endian words, the three high bits of each
            dropped; coefficient of x^k, then secret, then limb. A word of 61 ones (one in 2^61) is asked for again.

    Returns:
        uint8 [n, m, 40]: the share of each secret at each point.

    Raises:
        InputError: a secret or a point is not as stated.
        ParameterError: ``threshold`` is below 1 or above the number of points.
    """
    points = _check_points(points)
    if not 1 <= threshold <= points.size:
        raise ParameterError(f"threshold {threshold} does not fit {points.size} points")
    width = LIMBS * len(secrets)
    coefficients = np.empty((threshold, width), np.uint64)
    coefficients[0] = _to_limbs(secrets)
    coefficients[1:] = _random_elements((threshold - 1) * width, randomness).reshape(threshold - 1, width)
    values = np.empty((points.size, width), np.uint64)
    field.share(coefficients, points, values)
    return _to_bytes(values).reshape(points.size, len(secrets), SHARE_BYTES)


def lagrange_weights(points: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Compute the weights with which shares at ``points`` add up to the secret.

    Args:
        points: uint64 [t], distinct, 1 <= point < 2^61 - 1, t >= 1.

    Returns:
        uint64 [t], each below 2^61 - 1.

    Raises:
        InputError: a point is not as stated.
    """
    points = _check_points(points)
    weights = np.empty_like(points)
    field.lagrange_weights(points, weights)
    return weights


def weights_without(
    points: NDArray[np.uint64], weights: NDArray[np.uint64], removed: NDArray[np.intp]
) -> NDArray[np.uint64]:
    """Compute the weights of all points but one, for each of several choices of that one, in O(t) a choice.

    Args:
        points: uint64 [t + 1], as for ``lagrange_weights``; t >= 1.
        weights: uint64 [t + 1], what ``lagrange_weights`` returned for them.
        removed: integers [r], the position in ``points`` to leave out.

    Returns:
        uint64 [r, t + 1]; zero at the position left out.

    Raises:
        InputError: an argument is not as stated.
    """
    points = _check_points(points)
    positions = _check_removed(points, removed)
    out = np.empty((positions.size, points.size), np.uint64)
    field.weights_without(points, _check_weights(points, weights), positions, out)
    return out


def reconstruct(
    points: NDArray[np.uint64], shares: NDArray[np.uint8], *, weights: NDArray[np.uint64] | None = None
) -> list[bytes]:
    """Rebuild secrets whose shares all lie at the same ``points``.

    Exactly these shares are used: give ``threshold`` of them, or more, which all must be right. A wrong share gives
    another secret or, with all but a negligible part of the wrong values, a DecodeError; compare the secret with a
    commitment to be certain.

    Args:
        points: uint64 [t], distinct, 1 <= point < 2^61 - 1, t at least the threshold.
        shares: uint8 [t, m, 40]: the share of each secret at each point.
        weights: uint64 [t], what ``lagrange_weights`` returned for ``points``; computed if not given.

    Returns:
        m secrets of 32 bytes.

    Raises:
        InputError: a point, a shape or a dtype is not as stated.
        DecodeError: a share is not canonical, or some shares belong to no 32-byte secret.
    """
    points = _check_points(points)
    weights = lagrange_weights(points) if weights is None else _check_weights(points, weights)
    values = _from_shares(points, shares)
    out = np.empty(values.shape[1], np.uint64)
    field.combine(weights, values, out)
    return _to_secrets(out)


def reconstruct_each(points: NDArray[np.uint64], shares: NDArray[np.uint8]) -> list[bytes]:
    """Rebuild secrets each of whose shares lie at points of their own, as ``reconstruct`` does one after another.

    Args:
        points: uint64 [m, t], as for ``reconstruct`` in each row.
        shares: uint8 [m, t, 40]: the shares of each secret at its points.

    Returns:
        m secrets of 32 bytes.

    Raises:
        InputError: a point, a shape or a dtype is not as stated.
        DecodeError: a share is not canonical, or some shares belong to no 32-byte secret.
    """
    points = _check_rows(points)
    if shares.ndim != 3 or shares.shape[:2] != points.shape:
        raise InputError(f"shares at {list(points.shape)} points are uint8 [m, t, 40], not {list(shares.shape)}")
    values = _limbs_of(shares)
    out = np.empty((len(points), LIMBS), np.uint64)
    field.combine_each(points, values, out)
    return _to_secrets(out)


def reconstruct_without(
    points: NDArray[np.uint64],
    shares: NDArray[np.uint8],
    removed: NDArray[np.intp],
    *,
    weights: NDArray[np.uint64] | None = None,
) -> list[bytes]:
    """Rebuild secrets of which each misses the share at one of ``points``, not always the same one.

    So a complete graph's secrets are rebuilt together: whoever dealt a secret holds no share of it, and everyone else
    at ``points`` does. It costs twice what ``reconstruct`` does.

    Args:
        points: uint64 [t + 1], distinct, 1 <= point < 2^61 - 1, t at least the threshold and at least 1.
        shares: uint8 [t + 1, m, 40]; the missing ones are ignored but must be canonical: leave them zero.
        removed: integers [m], the position in ``points`` whose share of each secret is missing.
        weights: uint64 [t + 1], what ``lagrange_weights`` returned for ``points``; computed if not given.

    Returns:
        m secrets of 32 bytes.

    Raises:
        InputError: a point, a position, a shape or a dtype is not as stated.
        DecodeError: a share is not canonical, or some shares belong to no 32-byte secret.
    """
    points = _check_points(points)
    positions = _check_removed(points, removed)
    weights = lagrange_weights(points) if weights is None else _check_weights(points, weights)
    values = _from_shares(points, shares)
    if positions.size != shares.shape[1]:
        raise InputError(f"{shares.shape[1]} secrets need as many removed positions, not {positions.size}")
    out = np.empty(values.shape[1], np.uint64)
    field.combine_without(points, weights, values, np.repeat(positions, LIMBS), out)
    return _to_secrets(out)


def check_shares(shares: NDArray[np.uint8]) -> None:
    """Check that shares have the one form that ``share`` gives them.

    Args:
        shares: uint8 [..., 40].

    Raises:
        InputError: the shape or the dtype is another.
        DecodeError: a word is 2^61 - 1 or more.
    """
    _limbs_of(shares)


def _limbs_of(shares: NDArray[np.uint8]) -> NDArray[np.uint64]:
    if shares.dtype != np.uint8 or shares.ndim < 1 or shares.shape[-1] != SHARE_BYTES:
        raise InputError(f"shares are uint8 [..., {SHARE_BYTES}], not {shares.dtype} {list(shares.shape)}")
    limbs = np.ascontiguousarray(shares).view("<u8").astype(np.uint64, copy=False)
    if limbs.size and limbs.max() >= _P:
        raise DecodeError("a share holds a word that is not below 2^61 - 1")
    return limbs


def _from_shares(points: NDArray[np.uint64], shares: NDArray[np.uint8]) -> NDArray[np.uint64]:
    if shares.ndim != 3 or shares.shape[0] != points.size:
        raise InputError(f"shares at {points.size} points are [{points.size}, m, 40], not {list(shares.shape)}")
    return _limbs_of(shares).reshape(points.size, LIMBS * shares.shape[1])


def _check_points(points: NDArray[np.uint64]) -> NDArray[np.uint64]:
    if points.dtype != np.uint64 or points.ndim != 1 or points.size == 0:
        raise InputError(f"points are uint64 [n], n >= 1, not {points.dtype} {list(points.shape)}")
    return _check_rows(points[None]).reshape(points.size)


def _check_rows(points: NDArray[np.uint64]) -> NDArray[np.uint64]:
    if points.dtype != np.uint64 or points.ndim != 2 or points.shape[1] == 0:
        raise InputError(f"points are uint64 [m, t], t >= 1, not {points.dtype} {list(points.shape)}")
    ordered = np.sort(points, axis=1)
    if (ordered[:, 0] == 0).any() or (ordered[:, -1] >= _P).any() or (ordered[:, 1:] == ordered[:, :-1]).any():
        raise InputError("points are distinct, at least 1 and below 2^61 - 1")
    return np.ascontiguousarray(points)


def _check_weights(points: NDArray[np.uint64], weights: NDArray[np.uint64]) -> NDArray[np.uint64]:
    if weights.dtype != np.uint64 or weights.shape != points.shape or weights.max() >= _P:
        raise InputError(f"the weights of {points.size} points are uint64 [{points.size}] below 2^61 - 1")
    return np.ascontiguousarray(weights)


def _check_removed(points: NDArray[np.uint64], removed: NDArray[np.intp]) -> NDArray[np.uint64]:
    if points.size < 2:
        raise InputError("one of at least two points can be left out")
    if removed.ndim != 1 or not np.issubdtype(removed.dtype, np.integer):
        raise InputError(f"removed positions are integers [m], not {removed.dtype} {list(removed.shape)}")
    if removed.size and (removed.min() < 0 or removed.max() >= points.size):
        raise InputError(f"a removed position is not one of {points.size} points")
    return removed.astype(np.uint64)


def _random_elements(count: int, randomness: Randomness) -> NDArray[np.uint64]:
    """Draw ``count`` uniform elements: 61 bits each, all ones drawn again."""
    elements = _random_words(count, randomness)
    for _ in range(_MAX_REDRAWS):
        again = np.flatnonzero(elements == _P)
        if not again.size:
            return elements
        elements[again] = _random_words(again.size, randomness)
    raise LocalProtocolError("the randomness repeats itself: it is not a source of randomness")


def _random_words(count: int, randomness: Randomness) -> NDArray[np.uint64]:
    if count == 0:
        return np.empty(0, np.uint64)
    return np.frombuffer(draw(randomness, 8 * count), "<u8") & _P


def _to_limbs(secrets: Sequence[bytes]) -> NDArray[np.uint64]:
    if any(len(secret) != SECRET_BYTES for secret in secrets):
        raise InputError(f"a secret has {SECRET_BYTES} bytes")
    words = np.frombuffer(b"".join(secrets), "<u8").astype(np.uint64).reshape(-1, 4)
    limbs = np.empty((len(secrets), LIMBS), np.uint64)
    field.split(words, limbs)
    return limbs.reshape(-1)


def _to_secrets(limbs: NDArray[np.uint64]) -> list[bytes]:
    words = np.empty((limbs.size // LIMBS, 4), np.uint64)
    if field.join(limbs.reshape(-1, LIMBS), words):
        raise DecodeError("shares do not reconstruct a 32-byte secret")
    packed = words.astype("<u8", copy=False).tobytes()
    return [packed[i : i + SECRET_BYTES] for i in range(0, len(packed), SECRET_BYTES)]


def _to_bytes(values: NDArray[np.uint64]) -> NDArray[np.uint8]:
    return values.astype("<u8", copy=False).view(np.uint8)


def self_test() -> None:
    """Check sharing and every way of rebuilding against a known secret, which compiles them as well.

    Raises:
        SelfTestError: an answer is wrong on this machine.
    """
    secret = bytes(range(32))
    points = np.arange(1, 6, dtype=np.uint64)
    # A fixed source is fine for a known secret; the rebuilt one is what is checked
    shares = share([secret], threshold=3, points=points, randomness=lambda length: bytes([7]) * length)
    among = shares[1:].copy()
    among[2] = 0
    rebuilt = reconstruct(points[2:], shares[2:])
    rebuilt += reconstruct_each(points[None, :3], shares[:3].reshape(1, 3, SHARE_BYTES))
    if [secret] * 3 != rebuilt + reconstruct_without(points[1:], among, np.array([2])):
        raise SelfTestError("secret sharing gives a wrong answer on this machine")
