"""Sums of residues, each modulo its own prime."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secagg.kernels import jit
from secagg.kernels.jit import kernel


@kernel
def add_residues_kernel(
    one: NDArray[np.uint64], other: NDArray[np.uint64], primes: NDArray[np.uint64], out: NDArray[np.uint64]
) -> None:
    """Do what ``add_residues`` says; the smaller of two values is a selection, so nothing branches by a residue."""
    rows, columns = one.shape
    for row in range(rows):
        prime = primes[row % primes.size]
        for column in range(columns):
            total = one[row, column] + other[row, column]
            # Below twice the prime: one of the two is reduced, and it is the lesser, since the other difference wraps
            out[row, column] = min(total, total - prime)


def add_residues(
    one: NDArray[np.uint64], other: NDArray[np.uint64], primes: NDArray[np.uint64], out: NDArray[np.uint64]
) -> None:
    """Write one + other, each row modulo its prime, to ``out``; neither is changed.

    Args:
        one: uint64[m, N], contiguous, every residue below its row's prime.
        other: the same.
        primes: uint64[p], below 2**63; row i is modulo ``primes[i % p]``.
        out: uint64[m, N], contiguous; it may be neither of the others.
    """
    if jit.is_compiling():
        add_residues_kernel(one, other, primes, out)
        return
    moduli = np.resize(primes, len(one))[:, None]
    np.add(one, other, out=out)
    np.minimum(out, out - moduli, out=out)
