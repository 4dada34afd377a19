"""Noise that hides a CKKS decryption's own: Gaussian, added to the ciphertext so that no step sees it without.

An approximate decryption holds the noise that the secret key went into; published as it is, it gives the key away. So
each coefficient gets Gaussian noise of the deviation that ``noise.flooding_deviation`` states, in the ring, before
TenSEAL decrypts: whatever is done afterwards, rounding in binary64 included, works on what is hidden already.

The noise is drawn from a secret of the key, the session and the sum: the same sum released again, by whoever holds the
key, shows the same noise and counts once. Source: Li, Micciancio, Schultz, Sorrell (CRYPTO 2022).
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from secagg.he.chains import Chain
from secagg.primitives.kdf import Label, derive
from secagg.primitives.prg import MASK_KEY_BYTES, MaskKeys, accumulate_blocks

Residues = NDArray[np.uint64]

_COARSE_BITS = 50
"""Gaussians are whole numbers within this many bits, which binary64 holds exactly; finer bits are uniform."""
_ONE = np.uint64(1)
_HALF_BITS = np.uint64(21)
_LOW_HALF = np.uint64((1 << 21) - 1)


def flood(residues: Residues, chain: Chain, deviation: float, secret: bytes, session: bytes, digest: bytes) -> Residues:
    """Return ciphertexts with fresh noise in their first polynomials.

    Args:
        residues: uint64[C, 2, primes, N], evaluations; not changed.
        chain: their ring; its data primes have at most 42 bits.
        deviation: of each coefficient's noise.
        secret: 32 bytes of the key's.
        session: the session's identifier.
        digest: of the sum.
    """
    key = derive(secret, salt=session, label=Label.HE_FLOODING, info=digest, length=MASK_KEY_BYTES)
    coarse, fine, shift = _gaussians(len(residues) * chain.degree, deviation, key)
    flooded = residues.copy()
    for index, prime in enumerate(chain.data_primes):
        modulus = np.uint64(prime)
        noise = (coarse % np.int64(prime)).astype(np.uint64)
        noise = (_multiply(noise, np.uint64((1 << shift) % prime), modulus) + fine) % modulus
        evaluated = transform(noise.reshape(len(residues), chain.degree), chain.degree, prime)
        flooded[:, 0, index] = (flooded[:, 0, index] + evaluated) % modulus
    return flooded


def transform(coefficients: Residues, degree: int, prime: int) -> Residues:
    """Evaluate polynomials as SEAL does: uint64[C, N] coefficients to values at the odd powers of the least primitive
    2N-th root of unity, in bit-reversed order."""
    roots, modulus = _root_powers(degree, prime), np.uint64(prime)
    values, blocks = coefficients, 1
    while blocks < degree:
        halves = values.reshape(len(values), blocks, 2, degree // (2 * blocks))
        high = _multiply(halves[:, :, 1], roots[blocks : 2 * blocks, None], modulus)
        low = halves[:, :, 0]
        values = np.stack([(low + high) % modulus, (low + modulus - high) % modulus], axis=2)
        blocks *= 2
    return values.reshape(coefficients.shape)


def _gaussians(count: int, deviation: float, key: bytes) -> tuple[NDArray[np.int64], Residues, int]:
    """Return whole numbers ``coarse``, ``fine`` in [0, 2**shift), and shift: coarse 2**shift + fine is the noise."""
    pairs = (count + 1) // 2
    stream = np.zeros(2 * pairs + count, dtype=np.uint64)
    accumulate_blocks(stream, MaskKeys.expand(key), np.zeros(1, dtype=np.bool_))
    uniform = (stream[: 2 * pairs].astype(np.float64) + 0.5) * 2.0**-64
    # Box and Muller (1958); 64-bit uniforms reach nine deviations
    radius, angle = np.sqrt(-2 * np.log(uniform[:pairs])), 2 * math.pi * uniform[pairs:]
    normal = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
    shift = max(math.ceil(math.log2(10 * deviation)) - _COARSE_BITS, 0)
    coarse = np.rint(normal * (deviation * 2.0**-shift)).astype(np.int64)
    return coarse, stream[2 * pairs :] >> np.uint64(64 - shift) if shift else np.zeros(count, np.uint64), shift


def _multiply(left: Residues, right: Residues | np.uint64, modulus: np.uint64) -> Residues:
    """Multiply residues of at most 42 bits in two halves, so that no product passes 63 bits."""
    high = (left * (right >> _HALF_BITS)) % modulus
    product: Residues = ((high << _HALF_BITS) + left * (right & _LOW_HALF)) % modulus
    return product


@functools.lru_cache(maxsize=8)
def _root_powers(degree: int, prime: int) -> Residues:
    """Return the powers of the least primitive 2N-th root, in bit-reversed order."""
    tried = (pow(base, (prime - 1) // (2 * degree), prime) for base in range(2, prime))
    candidate = next(root for root in tried if pow(root, degree, prime) == prime - 1)
    square, root, least = candidate * candidate % prime, candidate, candidate
    for _ in range(degree):
        root = root * square % prime
        least = min(least, root)
    bits = degree.bit_length() - 1
    powers, power = [1] * degree, 1
    for exponent in range(degree):
        powers[int(f"{exponent:0{bits}b}"[::-1], 2)] = power
        power = power * least % prime
    return np.array(powers, dtype=np.uint64)
