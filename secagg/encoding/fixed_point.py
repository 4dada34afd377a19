"""Real coordinates as integer codes, and the sum of codes back as a mean. ``FixedPoint`` holds the choice.

Source: SPEC "Encoding".
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from secagg.arguments import checked_integer, checked_real
from secagg.errors import InputError, ParameterError
from secagg.kernels import fixed

MAX_CODE_BITS = 32
MAX_DIMENSION = 1 << 32
MAX_WEIGHT = (1 << 64) - 1
ROUNDING_DTYPE = np.dtype(np.uint32)


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoint:
    """Fixed-point encoding of real coordinates: clip to [-clip, clip], then one of 2**bits evenly spaced codes.

    Args:
        clip: largest magnitude that survives, positive and finite, in the vector's own unit.
        bits: bits of a code, 1 to 32.

    Raises:
        ParameterError: an argument lies outside its range.
    """

    clip: float
    bits: int

    def __post_init__(self) -> None:
        clip = checked_real("clip", self.clip)
        if not (clip > 0 and math.isfinite(2 * clip)):
            raise ParameterError(f"clip must be positive and finite, got {self.clip!r}")
        object.__setattr__(self, "clip", clip)
        object.__setattr__(self, "bits", checked_integer("bits", self.bits, 1, MAX_CODE_BITS))
        if not (self.step > 0 and math.isfinite(1 / self.step)):
            raise ParameterError(f"clip {clip!r} is too small for codes of {self.bits} bits")

    @property
    def largest_code(self) -> int:
        """The code of ``+clip``: 2**bits - 1."""
        return (1 << self.bits) - 1

    @property
    def step(self) -> float:
        """Distance between neighbouring codes; stochastic rounding errs by less, and on average by nothing."""
        return 2 * self.clip / self.largest_code


def check_vector(vector: NDArray[np.floating], dimension: int) -> NDArray[np.floating]:
    """Return the vector as a contiguous native array; values are checked while they are quantised.

    Raises:
        InputError: it is not a float32 or float64 array of shape (dimension,).
    """
    if isinstance(vector, np.ma.MaskedArray):
        raise InputError("a vector must be a plain array, got a masked one: its masked values would be summed")
    if not isinstance(vector, np.ndarray) or vector.dtype.type not in (np.float32, np.float64):
        kind = vector.dtype if isinstance(vector, np.ndarray) else type(vector).__name__
        raise InputError(f"a vector must be a float32 or float64 array, got {kind}")
    if vector.shape != (dimension,):
        raise InputError(f"a vector must have shape ({dimension},), got {vector.shape}")
    return np.ascontiguousarray(vector, dtype=vector.dtype.newbyteorder("="))


def check_weight(weight: SupportsIndex, max_weight: int) -> int:
    """Return the weight as an int.

    Raises:
        InputError: it is not an integer in [1, max_weight].
    """
    try:
        number = operator.index(weight)
    except TypeError:
        raise InputError(f"a weight must be an integer, got {type(weight).__name__}") from None
    if isinstance(weight, bool):
        raise InputError("a weight must be an integer, got bool")
    if not 1 <= number <= max_weight:
        raise InputError(f"a weight must lie in [1, {max_weight}], got {number}")
    return number


def quantise_into(
    values: NDArray[np.floating],
    encoding: FixedPoint,
    weight: int,
    rounding: NDArray[np.uint32],
    out: NDArray[Any],
) -> tuple[int, int]:
    """Set ``out`` to weight times the stochastically rounded codes of ``values``.

    Args:
        values: float32[m] or float64[m], from ``check_vector``.
        encoding: clip and bits.
        weight: from ``check_weight``; the caller has proved that the product fits the lane.
        rounding: uint32[m] of key stream, used once.
        out: uint16[m], uint32[m] or uint64[m].

    Returns:
        How many values were clipped, and how many were not finite (their codes mean nothing).
    """
    return fixed.quantise(values, encoding.clip, 1 / encoding.step, encoding.largest_code, weight, rounding, out)


def decode_mean(total: NDArray[Any], weight: int, encoding: FixedPoint) -> NDArray[np.float64]:
    """Return the weighted mean that sums of codes stand for: float64[d]; ``weight`` is at least 1."""
    mean: NDArray[np.float64] = total.astype(np.float64)
    mean /= weight
    mean *= encoding.step
    mean -= encoding.clip
    return mean
