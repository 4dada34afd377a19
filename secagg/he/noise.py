r"""How large the noise of honest ciphertexts can get: bounds that hold always, not only with high probability.

**Fresh upload.** TenSEAL encrypts under the public key modulo q p and divides by p, rounding to nearest. Modulo q p the
noise is v = e0 + e1 s - u e with s and u ternary and errors of magnitude at most 21 (SEAL's centred binomial; its
clipped Gaussian stays below), so |v| <= 21 (2 N + 1). Dividing adds the two roundings, r0 + r1 s, each coefficient of
r0 and r1 within 1/2, so at most (N + 1) / 2. Rounding the scaled plaintext adds 1/2. In all, of any coefficient,

    F = N / 2 + 1 + 21 (2 N + 1) / p.

**Sum.** Noises add: n uploads have at most n F. The estimate that everybody uses would be about sqrt(n N / 18), far
less; this bound needs no independence, so an honest upload cannot fail to decrypt, and the least noise budget that
honest uploads leave is known for certain.

**BFV.** The sum decrypts to itself as long as the noise stays below q / 2t. SEAL's invariant noise budget is
bits(q) - bits(t noise) - 1; honest sums leave at least bits(q) - bits(t n F) - 1, which parameters hold at
``BUDGET_MARGIN`` or more.

**CKKS.** Released is the decryption with Gaussian noise added to each of its coefficients, sigma = sqrt(12 tau C)
2^(s/2) B, where C ciphertexts a sum count as C decryptions each and B = sqrt(N) n F bounds the Euclidean norm of the
noise of one. Source: Li, Micciancio, Schultz, Sorrell, Securing Approximate Homomorphic Encryption Using Differential
Privacy (CRYPTO 2022), Gaussian mechanism for Kullback-Leibler privacy.
"""

from __future__ import annotations

import math

from secagg.he.chains import Chain

ERROR_BOUND = 21
"""Largest magnitude of a coefficient of SEAL's errors."""
BUDGET_MARGIN = 2
"""Bits of noise budget that every honest BFV sum has left at least."""
TAIL_BITS = 40
"""A stated error bound of CKKS fails with probability at most 2**-40 a sum; BFV has no such failure."""
_FLOAT_BITS = 44
"""Encoding and decoding in binary64 err by less than 2**-44 of the largest value: measured 2**-50, N = 8192."""


def fresh_noise(chain: Chain) -> int:
    """Return F, the largest coefficient of an honest upload's noise."""
    key_noise = ERROR_BOUND * (2 * chain.degree + 1)
    return chain.degree // 2 + 1 + -(-key_noise // chain.special)


def honest_budget(chain: Chain, plain_modulus: int, clients: int) -> int:
    """Return the least noise budget, in bits, that a BFV sum of so many honest uploads has left; negative: none."""
    return chain.modulus.bit_length() - (plain_modulus * clients * fresh_noise(chain)).bit_length() - 1


def flooding_deviation(chain: Chain, clients: int, decryptions: int, bits: int) -> float:
    """Return sigma of each coefficient's flooding noise, for so many decryptions of one ciphertext under one key."""
    worst = math.sqrt(chain.degree) * clients * fresh_noise(chain)
    return math.sqrt(12 * decryptions * 2.0**bits) * worst


def tail(values: int) -> float:
    """Return how many deviations none of ``values`` Gaussians exceeds, but for 2**-``TAIL_BITS``."""
    return math.sqrt(2 * math.log(2) * (TAIL_BITS + 1 + math.log2(values)))


def slot_deviation(chain: Chain, deviation: float) -> float:
    """Return the deviation of a slot's real part where each coefficient has ``deviation``, before scaling."""
    return deviation * math.sqrt(chain.degree / 2)


def largest_scale_bits(chain: Chain, clients: int, deviation: float, values: int) -> int:
    """Return the largest scale at which a flooded sum of values within 1 does not wrap modulo q, as a power of two."""
    room = chain.modulus // 2 - clients * fresh_noise(chain) - math.ceil((tail(values) + 1) * deviation)
    return (room // (clients + 1)).bit_length() - 1 if room > clients else -1


def slot_error(chain: Chain, clients: int, deviation: float, scale_bits: int, values: int) -> float:
    """Return the error bound of a released value: flooding, rounding to ``precision``, noise, binary64."""
    slot = slot_deviation(chain, deviation)
    noise = chain.degree * clients * fresh_noise(chain)
    return (
        (tail(values) * slot + noise) * 2.0**-scale_bits + precision(slot, scale_bits) / 2 + clients * 2.0**-_FLOAT_BITS
    )


def precision(slot: float, scale_bits: int) -> float:
    """Return the grid that released values are rounded to: the power of two at or below one deviation."""
    return 2.0 ** (math.floor(math.log2(slot)) - scale_bits)
