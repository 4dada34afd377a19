"""What is not protected: one client that does not encrypt as specified reads the secret key, and nobody notices.

An upload is a pair (c0, c1) that decrypts to c0 + c1 s. A client that adds K p(X) to its own c1 adds K p(X) s to the
sum: the polynomial p, of its choice, times the secret key, in the clear. Where that stays within the range of honest
sums no check finds it, and flooding hides the noise of honest ciphertexts, not this. Signatures show who sent an
upload and not how it was made. This is why SECURITY.md tells that homomorphic sums are only for clients trusted to
encrypt as specified.
"""

from __future__ import annotations

import numpy as np

import secagg
from federation import Federation, plan
from secagg import IN_MEMORY
from secagg.he import flooding
from secagg.he.ciphertexts import pack_residues, unpack_residues
from secagg.he.engine import Decryptor
from test_he_flooding import looks_like_a_secret
from test_he_hostile import body_of, signed

CORRUPT = 0


def crafted(federation: Federation, vector: np.ndarray, added: np.ndarray) -> bytes:
    """An upload of the corrupt client, its second polynomial more than it should be by ``added``, int64[N].

    CKKS ciphertexts travel as evaluations, BFV's as coefficients.
    """
    params = federation.params
    chain, body = params.chain, body_of(federation.upload(CORRUPT, vector))
    residues = unpack_residues(memoryview(body), chain.data_primes, params.ciphertexts, chain.degree).copy()
    for index, prime in enumerate(chain.data_primes):
        more = (added % prime).astype(np.uint64)
        if params.protocol == "ckks":
            more = flooding.transform(more[None], chain.degree, prime)[0]
        residues[0, 1, index] = (residues[0, 1, index] + more) % np.uint64(prime)
    return signed(federation, CORRUPT, pack_residues(residues, chain.data_primes))


def all_slots_but_the_weights(degree: int, weight: int, power: int) -> np.ndarray:
    """X^power less its part in the weight's slot, so that the weight that is released stays right: float64[N]."""
    polynomial = -2 / degree * np.cos(np.pi * pow(3, weight, 2 * degree) / degree * (power - np.arange(degree)))
    polynomial[power] += 1
    return polynomial


def secret_of(real: np.ndarray, turned: np.ndarray, degree: int) -> np.ndarray:
    """The ternary polynomial s from the real parts of the slots of s and of X^(N/2) s: int64[N]."""
    powers = np.array([pow(3, slot, 2 * degree) for slot in range(degree // 2)])
    # X^(N/2) is i or -i in a slot, and the real part of i z is -Im z
    slots = real + 1j * np.where(powers % 4 == 1, -turned, turned)
    evaluations = np.zeros(2 * degree, dtype=complex)
    evaluations[powers], evaluations[2 * degree - powers] = slots, slots.conj()
    return np.rint(np.fft.fft(evaluations)[:degree].real / degree).astype(np.int64)


def test_a_corrupt_client_reads_the_whole_ckks_key_from_two_released_sums_unnoticed():
    params = plan(4, 2047, protocol="ckks", encoding=secagg.FixedPoint(clip=1.0, bits=10))
    chain, weight = params.chain, params.dimension
    assert weight + 1 == params.scheme.slots
    key = secagg.DecryptionKey.generate(params, keep=IN_MEMORY)
    rng, amplitude = np.random.default_rng(1), 0.015
    released = []
    for power in (0, chain.degree // 2):
        federation = Federation(params, context=b"round %d" % power, key=key)
        added = amplitude * 2.0**params.scale_bits * all_slots_but_the_weights(chain.degree, weight, power)
        federation.send(CORRUPT, crafted(federation, np.zeros(weight), np.rint(added).astype(np.int64)))
        for one in range(1, 4):
            federation.send(one, federation.upload(one, rng.normal(0, 0.02, weight)))
        found = federation.finish().values.copy()
        found[weight] = 0  # what the two sums do not show; rounding makes up for it
        released.append(found / amplitude)
    assert not key.retired
    secret = secret_of(*released, chain.degree)
    evaluations = [
        flooding.transform((secret % prime).astype(np.uint64)[None], chain.degree, prime)[0]
        for prime in chain.data_primes
    ]
    assert looks_like_a_secret(np.array(evaluations), chain)
    # And it is the key: an honest client's upload, which the aggregator has, is read with it
    vector = rng.uniform(-1, 1, weight)
    federation = Federation(params, key=key)
    body = body_of(federation.upload(1, vector))
    c0, c1 = unpack_residues(memoryview(body), chain.data_primes, 1, chain.degree)[0]
    primes = np.array(chain.data_primes, dtype=np.uint64)[:, None]
    opened = (c0 + flooding._multiply(c1, np.array(evaluations), primes)) % primes
    read = Decryptor(params.scheme).decrypt(np.stack([opened, np.zeros_like(opened)]))  # any key reads it without c1
    assert np.abs(read[:weight] - vector).max() < 1e-6


def slots_alone(slots: list[int], degree: int, modulus: int) -> list[int]:
    """Coefficients of the polynomial modulo t that is 1 in these slots and 0 in the others."""
    root = int(flooding._root_powers(degree, modulus)[degree // 2])
    points, order = [pow(3, slot, 2 * degree) for slot in slots], 2 * degree
    found = [sum(pow(root, -point * power % order, modulus) for point in points) for power in range(degree)]
    return [value * pow(degree, -1, modulus) % modulus for value in found]


def scaled(polynomial: list[int], params: secagg.HEParams) -> np.ndarray:
    """A polynomial modulo t as a BFV ciphertext holds it: times q / t, rounded, int64[N]."""
    modulus = params.plain_modulus
    return np.array([(params.chain.modulus * value + modulus // 2) // modulus for value in polynomial], dtype=np.int64)


def test_a_corrupt_client_is_shown_slots_of_the_bfv_key_in_one_released_sum_unnoticed():
    params = plan(16, 9)
    degree, modulus = params.chain.degree, params.plain_modulus
    assert (len(params.chain.data_primes), params.codes_per_slot) == (1, 1)
    key = secagg.DecryptionKey.generate(params, keep=IN_MEMORY)
    # (0, q / t) decrypts to s modulo t, in its slots
    bare = np.zeros((2, 1, degree), dtype=np.uint64)
    bare[1, 0, 0] = scaled([1], params)[0]
    secret = key._decryptor.decrypt(bare)[: params.dimension]
    # A slot of s is anything below t. One above the largest sum, some 2 in 100, would retire the key
    shown = np.flatnonzero(secret <= params.clients * params.encoding.largest_code)
    assert len(shown) >= 5
    federation, lowest = Federation(params, key=key), np.full(params.dimension, -1.0)  # whose codes are 0
    added = scaled(slots_alone(shown.tolist(), degree, modulus), params)
    federation.send(CORRUPT, crafted(federation, lowest, added))
    for one in range(1, params.clients):
        federation.send(one, federation.upload(one, lowest))
    words = federation.finish().words
    assert not key.retired
    assert words[shown].tolist() == secret[shown].tolist()
    assert secret[shown].any()
