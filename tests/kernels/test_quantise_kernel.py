"""Quantising against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.kernels import fixed


def plain_quantise(values, clip, scale, largest, weight, random, out):
    kernel = getattr(fixed.quantise_kernel, "py_func", fixed.quantise_kernel)
    return kernel(values, clip, clip, scale, float(largest), np.uint64(weight), random, out)


@pytest.mark.parametrize("quantise", [fixed.quantise, plain_quantise])
@settings(max_examples=150, deadline=None)
@given(
    value=st.one_of(st.floats(-4, 4), st.floats(), st.sampled_from([0.0, 3.0, -3.0, math.nan, math.inf, -math.inf])),
    random=st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2**31, 2**32 - 1])),
    bits=st.integers(1, 32),
    weight=st.integers(1, 2**32),
    lane=st.sampled_from([np.float32, np.float64]),
)
def test_code_is_the_exact_one(quantise, value, random, bits, weight, lane):
    with np.errstate(over="ignore"):
        x = lane(value)
    clip, largest = 3.0, 2**bits - 1
    scale, out = largest / (2 * clip), np.zeros(1, np.uint64)
    clipped, bad = quantise(np.array([x]), clip, scale, largest, weight, np.array([random], np.uint32), out)
    assert clipped == (abs(x) > clip)
    assert bad == (not np.isfinite(x))
    held = -clip if np.isnan(x) else min(max(float(x), -clip), clip)
    exact = Fraction((held + clip) * scale)  # float64 up to here; from here on, exactly
    down = math.floor(exact)
    code = min(down + (exact - down > Fraction(random, 2**32)), largest)
    assert int(out[0]) == code * weight


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("lane", "bits"), [(np.uint16, 12), (np.uint32, 20), (np.uint64, 32)])
def test_compiled_vectors_equal_plain_python(dtype, lane, bits):
    rng = np.random.default_rng(1)
    values = rng.standard_normal(1003).astype(dtype) * 2
    values[[3, 500, 1002]] = [np.nan, np.inf, -np.inf]
    random = rng.integers(0, 2**32, 1003, dtype=np.uint32)
    largest = 2**bits - 1
    arguments = (values, 3.0, largest / 6, largest, 3, random)
    fast, slow = np.zeros(1003, lane), np.zeros(1003, lane)
    assert fixed.quantise(*arguments, fast) == plain_quantise(*arguments, slow)
    assert (fast == slow).all()
    clipped, bad = fixed.quantise(*arguments, fast)
    assert clipped == np.count_nonzero(np.abs(values) > 3)
    assert bad == 3
    assert fast[3] == 0
    assert fast[1002] == 0
    assert fast[500] == 3 * largest


def test_every_fraction_is_rounded_up_as_often_as_it_should():
    """All thresholds of one byte, spread over 32 bits: the count of codes rounded up is the fraction itself."""
    random = (np.arange(256, dtype=np.uint64) << np.uint64(24)).astype(np.uint32)
    for numerator in range(257):
        out = np.zeros(256, np.uint32)
        fixed.quantise(np.full(256, 7 + numerator / 256), 100.0, 1.0, 2**32 - 1, 1, random, out)
        assert set(out.tolist()) <= {107, 108}
        assert int(np.count_nonzero(out == 108)) == numerator


def test_the_mean_is_unbiased():
    rng = np.random.default_rng(2)
    count, value, scale = 1 << 20, np.float32(0.1234567), 1000.0
    out = np.zeros(count, np.uint32)
    random = rng.integers(0, 2**32, count, dtype=np.uint32)
    fixed.quantise(np.full(count, value), 3.0, scale, 6000, 1, random, out)
    exact = (float(value) + 3.0) * scale
    fraction = exact - math.floor(exact)
    deviation = math.sqrt(fraction * (1 - fraction) / count)
    assert abs(out.mean() - exact) < 5 * deviation


def test_the_random_word_decides_to_the_last_bit():
    out = np.zeros(3, np.uint32)
    random = np.array([2**31 - 1, 2**31, 2**31 + 1], np.uint32)
    fixed.quantise(np.full(3, 0.5), 1.0, 1.0, 10, 1, random, out)
    assert out.tolist() == [2, 1, 1]
