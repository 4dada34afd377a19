"""Real values as fixed-point codes, rounded up or down at random without bias."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from secagg.kernels.jit import kernel

# A whole number below 2^52, added to it, is left in the low 52 bits: a conversion that every vector unit can do.
_TWO_52 = 2.0**52
_LOW_52_BITS = np.uint64((1 << 52) - 1)
_TWO_MINUS_32 = 2.0**-32


@kernel
def quantise_kernel(
    values: NDArray[Any],
    clip: float,
    limit: float,
    scale: float,
    largest: float,
    weight: np.uint64,
    random: NDArray[np.uint32],
    out: NDArray[Any],
) -> tuple[np.int64, np.int64]:
    """Do what ``quantise`` says; its comparisons are selections, so nothing branches by a value."""
    clipped, non_finite = np.int64(0), np.int64(0)
    for i in range(values.size):
        value = np.float64(values[i])
        held = value if value > -clip else -clip  # a NaN compares false and so becomes -clip
        held = held if held < clip else clip
        clipped += np.int64((value > limit) | (value < -limit))
        non_finite += np.int64(not (abs(value) < np.inf))
        exact = (held + clip) * scale
        down = np.floor(exact)
        up = np.float64(1.0) if exact - down > np.float64(random[i]) * _TWO_MINUS_32 else np.float64(0.0)
        code = down + up
        code = code if code < largest else largest
        out[i] = (np.float64(code + _TWO_52).view(np.uint64) & _LOW_52_BITS) * weight
    return clipped, non_finite


def quantise(
    values: NDArray[Any],
    clip: float,
    scale: float,
    largest: int,
    weight: int,
    random: NDArray[np.uint32],
    out: NDArray[Any],
) -> tuple[int, int]:
    """Write weight * code to ``out``, where code is (clamp(value, -clip, clip) + clip) * scale, rounded at random.

    The fraction is rounded up with a probability that is less than 2^-32 above it; then the code is clamped to
    ``largest``. Codes are computed in float64, the product in uint64 modulo the lane: the caller proves that it fits.
    A NaN has code 0.

    Args:
        values: float32 or float64 [n], contiguous.
        clip: positive and finite.
        scale: positive; 2 * clip * scale is at most 2^32.
        largest: 0 to 2^32 - 1.
        weight: 0 to 2^64 - 1.
        random: uint32[n], uniform.
        out: uint16, uint32 or uint64 [n].

    Returns:
        How many values were clamped (infinities among them), and how many were infinite or NaN.
    """
    seen, drawn = values.view(), random.view()
    seen.flags.writeable = drawn.flags.writeable = False  # kernels are compiled apart for the two kinds: pass one only
    # +-clip in the values' own precision is not beyond clip, though float32 may round it outwards
    limit = max(float(clip), float(seen.dtype.type(clip)))
    counts = quantise_kernel(seen, float(clip), limit, float(scale), float(largest), np.uint64(weight), drawn, out)
    return int(counts[0]), int(counts[1])
