"""Sums of residues against Python's integers, compiled and as plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg.he.chains import CHAINS
from secagg.kernels import jit, residues
from secagg.kernels.residues import add_residues, add_residues_kernel

PATHS = {
    "chosen here": add_residues,
    "kernel as Python": getattr(add_residues_kernel, "py_func", add_residues_kernel),
}
PRIMES = sorted({prime for chain in CHAINS for prime in chain.data_primes} | {2, (1 << 63) - 25})


@pytest.mark.parametrize("path", [*PATHS, "NumPy"])
@given(data=st.data())
def test_sums_are_those_of_integers(path, data):
    primes = data.draw(st.lists(st.sampled_from(PRIMES), min_size=1, max_size=3))
    rows, columns = len(primes) * data.draw(st.integers(0, 2)), data.draw(st.integers(0, 5))
    edges = [
        [data.draw(st.sampled_from([0, 1, prime // 2, prime - 1]) | st.integers(0, prime - 1)) for _ in range(columns)]
        for prime in primes * (2 * rows // len(primes))
    ]
    one, other = np.array(edges, dtype=np.uint64).reshape(2, rows, columns)
    before, out = (one.copy(), other.copy()), np.full((rows, columns), 7, dtype=np.uint64)
    moduli = np.array(primes, dtype=np.uint64)
    if path == "NumPy":
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(jit, "is_compiling", lambda: False)
            residues.add_residues(one, other, moduli, out)
    else:
        with np.errstate(over="ignore"):  # Python's scalars warn of the wrap that is meant
            PATHS[path](one, other, moduli, out)
    for row in range(rows):
        modulus = primes[row % len(primes)]
        assert out[row].tolist() == [(int(a) + int(b)) % modulus for a, b in zip(one[row], other[row], strict=True)]
    assert (one == before[0]).all()
    assert (other == before[1]).all()
