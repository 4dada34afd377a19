"""Vectors as the slots of ciphertexts, and back. Source: SPEC "Homomorphic sums"."""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from secagg.encoding.fixed_point import ROUNDING_DTYPE, check_vector, check_weight, quantise_into
from secagg.encoding.ring import lane_dtype
from secagg.errors import InconsistentSum, InputError
from secagg.he.params import HEParams
from secagg.primitives.prg import MaskKeys, accumulate_blocks


def exact_slots(
    vector: NDArray[np.floating], weight: SupportsIndex, params: HEParams, rounding_key: bytes
) -> tuple[NDArray[np.int64], float]:
    """Return a client's codes times its weight, packed for BFV: int64[C, N]; and the share of clipped coordinates.

    Raises:
        InputError: the vector or weight is not as ``params`` say, or a value is not finite.
    """
    vector, factor = check_vector(vector, params.dimension), check_weight(weight, params.max_weight)
    words = np.empty(params.dimension + 1, dtype=np.uint64)
    rounding = np.zeros(params.dimension, dtype=ROUNDING_DTYPE)
    accumulate_blocks(rounding, MaskKeys.expand(rounding_key), np.zeros(1, dtype=np.bool_))
    clipped, not_finite = quantise_into(vector, params.encoding, factor, rounding, words[:-1])
    _check_finite(not_finite, params.dimension)
    words[-1] = factor
    return pack_words(words, params), clipped / max(params.dimension, 1)


def pack_words(words: NDArray[np.uint64], params: HEParams) -> NDArray[np.int64]:
    """Return int64[C, N]: word i lies in slot i // m at bit (i mod m) b, m words of b bits to a slot."""
    count, width = params.codes_per_slot, params.ring_bits
    padded = np.zeros((params.ciphertexts * params.chain.degree, count), dtype=np.uint64)
    padded.reshape(-1)[: words.size] = words
    slots = np.zeros(len(padded), dtype=np.uint64)
    for place in range(count):
        slots |= padded[:, place] << np.uint64(place * width)
    return slots.astype(np.int64).reshape(params.ciphertexts, params.chain.degree)


def unpack_words(slots: NDArray[np.int64], params: HEParams, survivors: int) -> NDArray[np.unsignedinteger]:
    """Return the sum's words, as wide as their ring's lane, from int64[C, N] in [0, t).

    Raises:
        InconsistentSum: no sum of so many inputs in range looks like this.
    """
    count, width = params.codes_per_slot, params.ring_bits
    flat = slots.reshape(-1).astype(np.uint64)
    mask = np.uint64((1 << width) - 1)
    places = [(flat >> np.uint64(place * width)) & mask for place in range(count)]
    words = np.stack(places, axis=1).reshape(-1)
    beyond = (flat >> np.uint64(count * width)).any() or words[params.dimension + 1 :].any()
    words, weight = words[: params.dimension + 1], int(words[params.dimension])
    largest = int(words[:-1].max()) if params.dimension else 0
    if beyond or not survivors <= weight <= survivors * params.max_weight:
        raise InconsistentSum("the decryption is no sum of inputs in range: a client did not encrypt as specified")
    if largest > weight * params.encoding.largest_code:
        raise InconsistentSum("the decryption is no sum of inputs in range: a client did not encrypt as specified")
    return words.astype(lane_dtype(width))


def real_slots(
    vector: NDArray[np.floating], weight: SupportsIndex, params: HEParams
) -> tuple[NDArray[np.float64], float]:
    """Return a client's values within 1 for CKKS, weight times clipped value over W clip: float64[C, N / 2]; and the
    share of clipped coordinates.

    Raises:
        InputError: the vector or weight is not as ``params`` say, or a value is not finite.
    """
    vector, factor = check_vector(vector, params.dimension), check_weight(weight, params.max_weight)
    _check_finite(int(vector.size - np.isfinite(vector).sum()), params.dimension)
    clip, share = params.encoding.clip, factor / params.max_weight
    slots = np.zeros(params.ciphertexts * params.scheme.slots)
    held = np.clip(vector.astype(np.float64), -clip, clip)
    slots[: params.dimension] = held / clip * share
    slots[params.dimension] = share
    # +-clip in the vector's own precision is not beyond clip, though float32 may round it outwards
    limit = max(clip, float(vector.dtype.type(clip)))
    clipped = int((np.abs(vector) > limit).sum())
    return slots.reshape(params.ciphertexts, params.scheme.slots), clipped / max(params.dimension, 1)


def real_values(slots: NDArray[np.float64], params: HEParams, survivors: int) -> NDArray[np.float64]:
    """Return the released sum, float64[d + 1], from flooded slots float64[C, N / 2]: rounded to the stated precision.

    Raises:
        InconsistentSum: no sum of so many inputs in range, and noise, looks like this.
    """
    values: NDArray[np.float64] = slots.reshape(-1)[: params.dimension + 1].copy()
    if not np.isfinite(values).all() or (np.abs(values) > survivors + params.error).any():
        raise InconsistentSum("the decryption is no sum of inputs in range: a client did not encrypt as specified")
    if values[-1] < survivors / params.max_weight - params.error:
        raise InconsistentSum("the decryption is no sum of weights in range: a client did not encrypt as specified")
    rounded: NDArray[np.float64] = np.rint(values / params.precision) * params.precision
    return rounded + 0.0


def _check_finite(not_finite: int, dimension: int) -> None:
    if not_finite:
        raise InputError(f"a vector must be finite, but {not_finite} of its {dimension} values are not")
