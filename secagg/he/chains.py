"""The rings and moduli that homomorphic sums choose from, and what is estimated for their security.

Primes are those that SEAL makes of the same bit sizes: the largest below 2**bits that are 1 modulo 2N, handed out from
the smallest of a size on. Source: SPEC "Homomorphic sums".
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

MIN_SECURITY_BITS = 128
_ERROR_DEVIATION = 3.2
_SECRET_DEVIATION = math.sqrt(2 / 3)  # of a uniform ternary coefficient
_AGAINST_BEST_ATTACK = 0.97
"""The primal attack alone gives 127.9, 181.1 and 128.3 bits where the lattice estimator's best attack gives 125.6, 176
and 126 (N = 4096 with 109 bits, 8192 with 160 and 218): this factor makes it no more than that at all three."""
_WITNESSES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
"""Bases that decide primality below 3.3 * 10**24."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A ring Z[X]/(X^N + 1) and its moduli.

    Attributes:
        degree: N, a power of two.
        data_bits: sizes of the primes whose product q a ciphertext is taken modulo.
        special_bits: size of the prime that fresh encryptions are divided by, which takes their noise away.
    """

    degree: int
    data_bits: tuple[int, ...]
    special_bits: int

    @property
    def primes(self) -> tuple[int, ...]:
        """All primes in order, the special one last."""
        return _primes(self.degree, (*self.data_bits, self.special_bits))

    @property
    def data_primes(self) -> tuple[int, ...]:
        """The primes of a ciphertext."""
        return self.primes[:-1]

    @property
    def modulus(self) -> int:
        """q, the product of the data primes."""
        return math.prod(self.data_primes)

    @property
    def special(self) -> int:
        """p, the special prime."""
        return self.primes[-1]

    @property
    def total_bits(self) -> int:
        """Bits of the public key's modulus, which is what security depends on."""
        return (self.modulus * self.special).bit_length()

    @property
    def security_bits(self) -> float:
        """What is estimated for the best known attack on the public key."""
        return estimated_security(self.degree, self.total_bits)


CHAINS: tuple[Chain, ...] = (
    Chain(degree=4096, data_bits=(48,), special_bits=56),
    Chain(degree=4096, data_bits=(58,), special_bits=47),
    Chain(degree=4096, data_bits=(60,), special_bits=45),
    Chain(degree=4096, data_bits=(33, 33), special_bits=39),
    Chain(degree=4096, data_bits=(34, 34), special_bits=37),
    Chain(degree=4096, data_bits=(36, 36), special_bits=33),
    Chain(degree=4096, data_bits=(39, 39), special_bits=27),
    Chain(degree=4096, data_bits=(41, 42), special_bits=22),
    Chain(degree=8192, data_bits=(40, 40, 40), special_bits=60),
)
"""Every set that is picked from, by the bytes of a ciphertext. SEAL's largest allowed moduli (109 bits at N = 4096, 218
at 8192) are estimated at slightly under 128 bits, so none of these reaches them."""


def is_prime(number: int) -> bool:
    """Tell whether a number from 2 to 2**64 is prime (Miller-Rabin with bases that leave no doubt there)."""
    for base in _WITNESSES:
        if number % base == 0:
            return number == base
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(_passes(number, base, odd, twos) for base in _WITNESSES)


@functools.cache
def batching_prime(degree: int, above: int) -> int:
    """Return the least prime above ``above`` that is 1 modulo 2N, so that a plaintext has N slots."""
    candidate = (above // (2 * degree) + 1) * 2 * degree + 1
    while not is_prime(candidate):
        candidate += 2 * degree
    return candidate


@functools.cache
def estimated_security(degree: int, modulus_bits: int) -> float:
    """Estimate the bits of work of the best known attack on RLWE with a ternary secret and errors of deviation 3.2.

    The primal attack's least block size by the geometric series assumption, costed as 0.292 b + 16.4 + log2(8 d) for
    sieving (Becker et al., SODA 2016), and scaled down to the best attack (see ``_AGAINST_BEST_ATTACK``).
    """
    low, high = 50, 4 * degree
    while low < high:
        block = (low + high) // 2
        if _primal_dimension(block, degree, modulus_bits) is None:
            low = block + 1
        else:
            high = block
    dimension = _primal_dimension(low, degree, modulus_bits) or 1
    return _AGAINST_BEST_ATTACK * (0.292 * low + 16.4 + math.log2(8 * dimension))


def _primal_dimension(block: int, degree: int, modulus_bits: int) -> int | None:
    """Return the dimension of the lattice in which ``block`` finds the secret, or None where it does not."""
    log_delta = math.log2(block / (2 * math.pi * math.e) * (math.pi * block) ** (1 / block)) / (2 * (block - 1))
    stretch = math.log2(_ERROR_DEVIATION / _SECRET_DEVIATION)
    dimension = min(int(math.sqrt(degree * (modulus_bits - stretch) / log_delta)), 2 * degree + 1)
    volume = ((dimension - degree - 1) * modulus_bits + degree * stretch) / dimension
    found = math.log2(block) / 2 + math.log2(_ERROR_DEVIATION) <= log_delta * (2 * block - dimension - 1) + volume
    return dimension if found and dimension > degree + 1 else None


@functools.cache
def _primes(degree: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    stock = {}
    for bits in set(sizes):
        found: list[int] = []
        candidate = ((1 << bits) - 1) // (2 * degree) * (2 * degree) + 1
        while len(found) < sizes.count(bits):
            if candidate < 1 << bits and is_prime(candidate):
                found.append(candidate)
            candidate -= 2 * degree
        stock[bits] = found
    return tuple(stock[bits].pop() for bits in sizes)


def _passes(number: int, base: int, odd: int, twos: int) -> bool:
    power = pow(base, odd, number)
    if power in (1, number - 1):
        return True
    for _ in range(twos - 1):
        power = power * power % number
        if power == number - 1:
            return True
    return False
