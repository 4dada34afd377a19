r"""How large the noise of honest ciphertexts can get.

**Fresh upload.** TenSEAL encrypts under the public key modulo q p and divides by p, rounding to nearest. Modulo q p the
noise is v = e0 + e1 s - u e with s and u ternary and errors of magnitude at most 21 (SEAL's centred binomial; its
clipped Gaussian stays below), so |v| <= V = 21 (2 N + 1). Dividing leaves v / p + r0 + r1 s, where r0 and r1 are what
rounding took, each coefficient within 1/2; rounding the scaled plaintext adds at most 1/2 more. So, of any coefficient,

    |noise| <= |r1 s| + 1 + V / p <= F = N / 2 + 1 + V / p,    for certain.

**Sum, for certain.** Noises add: n uploads have at most n F.

**Sum, but for 2**-128.** Where that is too much, r1 is looked at more closely. The second polynomial of a fresh
ciphertext is a u + e1 with u drawn for it alone: RLWE's own samples, which nobody, the secret key's holder included,
tells from uniform. For uniform ones r1's coefficients are independent and uniform within 1/2, hence sub-Gaussian with
proxy 1/12 (the uniform law is strictly so: Arbel et al., ESAIM 2020). A coefficient of the sum of all r1 s adds n N of
them at most, with signs, so it exceeds x with probability at most 2 exp(-6 x^2 / (n N)). Over all C N coefficients of a
sum that is 2**-128 at

    x = sqrt(n N ln 2 (129 + log2(C N)) / 6),    and the noise at most x + n (1 + V / p).

With real samples the rate is larger by at most n times the advantage of this test in telling RLWE from uniform.

**BFV.** A sum decrypts to itself as long as the noise stays below q / 2t. Parameters hold the lesser of the two bounds
at half of that or less (``ROOM``), and at a noise budget of 1 or more as SEAL counts it, bits(q) - bits(t noise) - 1;
what has less than honest sums can have is refused.

**CKKS.** Released is the decryption with Gaussian noise added to each of its coefficients, sigma = sqrt(12 tau C)
2^(s/2) B, where C ciphertexts a sum count as C decryptions each and B = sqrt(N) n F bounds the Euclidean norm of the
noise of one, for certain. Source: Li, Micciancio, Schultz, Sorrell, Securing Approximate Homomorphic Encryption Using
Differential Privacy (CRYPTO 2022), Gaussian mechanism for Kullback-Leibler privacy.
"""

from __future__ import annotations

import math

from secagg.he.chains import Chain

ERROR_BOUND = 21
"""Largest magnitude of a coefficient of SEAL's errors."""
FAILURE_BITS = 128
"""An honest BFV sum fails to decrypt with probability at most 2**-128."""
ROOM = 2
"""Honest noise is at most the noise that would spoil a BFV sum, divided by this."""
TAIL_BITS = 40
"""A stated error bound of CKKS fails with probability at most 2**-40 a sum."""
_FLOAT_BITS = 44
"""Encoding and decoding in binary64 err by less than 2**-44 of the largest value: measured 2**-50, N = 8192."""


def fresh_noise(chain: Chain) -> int:
    """Return F, the largest coefficient of an honest upload's noise."""
    return chain.degree // 2 + 1 + -(-_key_noise(chain) // chain.special)


def honest_noise(chain: Chain, clients: int, ciphertexts: int) -> int:
    """Return the largest coefficient of the noise of so many uploads' sum, but for 2**-``FAILURE_BITS``."""
    union = FAILURE_BITS + 1 + math.log2(ciphertexts * chain.degree)
    rounding = math.sqrt(clients * chain.degree * math.log(2) * union / 6)
    likely = math.ceil(rounding) + clients + -(-clients * _key_noise(chain) // chain.special)
    return min(clients * fresh_noise(chain), likely)


def honest_budget(chain: Chain, plain_modulus: int, clients: int, ciphertexts: int) -> int:
    """Return the least noise budget, in bits, that a BFV sum of honest uploads has left; below 1 there is no room."""
    spoilt = plain_modulus * honest_noise(chain, clients, ciphertexts)
    if 2 * ROOM * spoilt > chain.modulus:
        return 0
    return chain.modulus.bit_length() - spoilt.bit_length() - 1


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


def _key_noise(chain: Chain) -> int:
    """Return V, the largest coefficient of the noise before the special prime is divided out."""
    return ERROR_BOUND * (2 * chain.degree + 1)
