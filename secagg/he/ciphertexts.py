"""Ciphertexts as they travel and as they are added: residues in the bits of their primes, and nothing else.

Every body of the right length whose residues lie below their primes *is* a ciphertext of these parameters, so this
check leaves nothing for a parser to stumble over: no compression, no lengths, no scales, no levels that a peer chose.
Residues stand prime by prime; for each prime, ciphertext by ciphertext, polynomial by polynomial. Source: SPEC
"Homomorphic sums".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from secagg.encoding.ring import lane_dtype, pack, packed_bytes, unpack_add
from secagg.errors import DecodeError
from secagg.he.chains import Chain
from secagg.kernels.residues import add_residues

Residues = NDArray[np.uint64]


def pack_residues(residues: Residues, primes: Sequence[int]) -> bytes:
    """Return the bytes of uint64[C, 2, primes, N]."""
    runs = []
    for index, prime in enumerate(primes):
        width = prime.bit_length()
        run = np.ascontiguousarray(residues[:, :, index], dtype=lane_dtype(width)).reshape(-1)
        runs.append(pack(run, width).tobytes())
    return b"".join(runs)


def unpack_residues(body: memoryview, primes: Sequence[int], ciphertexts: int, degree: int) -> Residues:
    """Return uint64[C, 2, primes, N], every residue below its prime.

    Raises:
        DecodeError: the length is another, a residue is not reduced, or a ciphertext is transparent: its second
            polynomial is zero, so that anybody can read it.
    """
    count, at = 2 * ciphertexts * degree, 0
    sizes = [packed_bytes(count, prime.bit_length()) for prime in primes]
    if len(body) != sum(sizes):
        raise DecodeError(f"ciphertexts take {sum(sizes)} bytes, got {len(body)}")
    residues = np.empty((ciphertexts, 2, len(primes), degree), dtype=np.uint64)
    for index, (prime, size) in enumerate(zip(primes, sizes, strict=True)):
        width = prime.bit_length()
        run = np.zeros(count, dtype=lane_dtype(width))
        unpack_add(body[at : at + size], run, width)
        if count and int(run.max()) >= prime:
            raise DecodeError("a ciphertext holds a residue that is not reduced modulo its prime")
        residues[:, :, index] = run.reshape(ciphertexts, 2, degree)
        at += size
    if not residues[:, 1].any(axis=(1, 2)).all():
        raise DecodeError("a ciphertext is transparent: it hides nothing")
    return residues


class RunningSum:
    """The sum of ciphertexts so far, residue by residue; what was added is not kept.

    ``plus`` makes the next sum in the memory of the one before this: whoever holds one sum at a time pays for two, and
    none is changed while it is held.

    Args:
        chain: their ring and moduli.
        ciphertexts: C, how many an upload holds.
        residues: where to go on from, as a vector; zero if None.

    Raises:
        DecodeError: that is of another length, or not reduced.
    """

    __slots__ = ("_chain", "_primes", "_spare", "residues")

    def __init__(self, chain: Chain, ciphertexts: int, residues: Residues | None = None) -> None:
        primes = chain.data_primes
        shape = (ciphertexts, 2, len(primes), chain.degree)
        self._chain = chain
        self._primes = np.array(primes, dtype=np.uint64)
        self._spare: Residues | None = None
        if residues is None:
            self.residues = np.zeros(shape, dtype=np.uint64)
            return
        if residues.size != math.prod(shape) or residues.dtype != np.uint64:
            raise DecodeError("a running sum is of other parameters")
        self.residues = residues.reshape(shape)
        if (self.residues >= self._primes[:, None]).any():
            raise DecodeError("a running sum is not reduced modulo its primes")

    def decode(self, body: memoryview) -> Residues:
        """Return an upload's residues, checked; see ``unpack_residues``."""
        return unpack_residues(body, self._chain.data_primes, len(self.residues), self._chain.degree)

    def plus(self, residues: Residues) -> RunningSum:
        """Return the sum with what ``decode`` returned; the sum after that is made in the memory of this one."""
        total = np.empty_like(self.residues) if self._spare is None else self._spare
        rows = (-1, self._chain.degree)
        add_residues(self.residues.reshape(rows), residues.reshape(rows), self._primes, total.reshape(rows))
        after = RunningSum.__new__(RunningSum)
        after._chain, after._primes, after._spare, after.residues = self._chain, self._primes, self.residues, total
        return after

    def encode(self) -> bytes:
        """Return the sum's bytes."""
        return pack_residues(self.residues, self._chain.data_primes)
