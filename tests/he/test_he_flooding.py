"""CKKS releases: an attack that takes the secret key out of raw decryptions, and finds nothing in what is released.

Li and Micciancio (EUROCRYPT 2021): a raw decryption, scaled and encoded again, is the very polynomial c0 + c1 s that
the ciphertext decrypts to; the ciphertext is public, so s is the solution of linear equations. TenSEAL shows real
parts alone, which are M(X) + M(1/X): a pair of evaluations, at a root and at its inverse, takes two decryptions.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import secagg
from federation import Federation, plan
from secagg import IN_MEMORY
from secagg.he import flooding, keys, noise
from secagg.he.chains import CHAINS, Chain
from secagg.he.engine import Decryptor, Encryptor, Scheme

ROUNDS = 20
TWO_PRIMES = [chain for chain in CHAINS if len(chain.data_bits) > 1]
"""What CKKS takes."""


def doubled_real_part(slots: np.ndarray, chain: Chain, scale: float) -> list[int]:
    """M(X) + M(1/X) as whole numbers, from the real parts of M's slots."""
    degree = chain.degree
    powers = np.array([pow(3, index, 2 * degree) for index in range(degree // 2)])
    evaluations = np.zeros(2 * degree, dtype=complex)
    evaluations[powers] = evaluations[2 * degree - powers] = slots
    coefficients = np.fft.fft(evaluations)[:degree].real / degree
    return [round(value) for value in 2 * coefficients * scale]


def recover(ciphertexts: np.ndarray, decryptions: np.ndarray, chain: Chain, scale: float) -> np.ndarray:
    """Solve for the secret from two ciphertexts, uint64[2, 2, primes, N], and their decryptions, float64[2, N / 2].

    Returns evaluations, uint64[primes, N].
    """
    found = []
    for index, prime in enumerate(chain.data_primes):
        known, own, inverse = [], [], []
        for (c0, c1), slots in zip(ciphertexts, decryptions, strict=True):
            whole = np.array([value % prime for value in doubled_real_part(slots, chain, scale)], dtype=np.uint64)
            message = flooding.transform(whole[None], chain.degree, prime)[0].astype(object)
            first, second = c0[index].astype(object), c1[index].astype(object)
            known.append(
                message - first - first[::-1]
            )  # in bit-reversed order the inverse root stands at the other end
            own.append(second)
            inverse.append(second[::-1])
        above = known[0] * inverse[1] - known[1] * inverse[0]
        below = own[0] * inverse[1] - own[1] * inverse[0]
        found.append([a * pow(int(b) % prime, -1, prime) % prime for a, b in zip(above, below, strict=True)])
    return np.array(found, dtype=np.uint64)


def looks_like_a_secret(evaluations: np.ndarray, chain: Chain) -> bool:
    """Whether evaluations are those of one ternary polynomial modulo every prime."""
    coefficients = [
        inverse(values, chain.degree, prime) for values, prime in zip(evaluations, chain.data_primes, strict=True)
    ]
    centred = [
        np.where(values > prime // 2, values.astype(object) - prime, values.astype(object))
        for values, prime in zip(coefficients, chain.data_primes, strict=True)
    ]
    return all((np.abs(values) <= 1).all() and (values == centred[0]).all() for values in centred)


def inverse(values: np.ndarray, degree: int, prime: int) -> np.ndarray:
    """Coefficients from evaluations, by transforming with the inverse root: uint64[N]."""
    roots = flooding._root_powers(degree, prime)
    modulus, blocks = np.uint64(prime), degree // 2
    found = values.copy()
    half = np.uint64(pow(2, -1, prime))
    while blocks:
        pairs = found.reshape(blocks, 2, degree // (2 * blocks))
        unroot = np.array([pow(int(root), -1, prime) for root in roots[blocks : 2 * blocks]], dtype=np.uint64)[:, None]
        low = flooding._multiply((pairs[:, 0] + pairs[:, 1]) % modulus, half, modulus)
        high = flooding._multiply((pairs[:, 0] + modulus - pairs[:, 1]) % modulus, half, modulus)
        found = np.stack([low, flooding._multiply(high, unroot, modulus)], axis=1)
        blocks //= 2
    return found.reshape(degree)


def test_raw_decryptions_give_the_secret_key_away():
    """The attack works: TenSEAL adds no noise, and a float64 decryption has every bit of the polynomial."""
    chain = TWO_PRIMES[0]
    scheme = Scheme(chain=chain, plain_modulus=0, scale=2.0**40)
    decryptor = Decryptor(scheme)
    encryptor = Encryptor(scheme, decryptor.public_key())
    primes = np.array(chain.data_primes, dtype=np.uint64)[:, None]
    values = np.random.default_rng(1).uniform(-1, 1, (2, scheme.slots))
    aggregated = [(encryptor.encrypt(one) + encryptor.encrypt(-one / 2)) % primes for one in values]
    published = np.array([decryptor.decrypt(one) for one in aggregated])
    assert np.abs(published - values / 2).max() < 1e-6
    found = recover(np.array(aggregated), published, chain, scheme.scale)
    assert looks_like_a_secret(found, chain)
    # And it is the key: what others encrypt is read with it
    other = np.random.default_rng(2).uniform(-1, 1, scheme.slots)
    theirs = encryptor.encrypt(other)
    opened = (theirs[0] + flooding._multiply(theirs[1], found, primes)) % primes
    read = Decryptor(scheme).decrypt(np.stack([opened, np.zeros_like(opened)]))  # any key reads a ciphertext without c1
    assert np.abs(read - other).max() < 1e-6


def attackable() -> secagg.HEParams:
    """A scale at which a float64 decryption has every bit of the polynomial, so that nothing but flooding protects."""
    encoding = secagg.FixedPoint(clip=1.0, bits=2)
    planned = plan(3, 2047, protocol="ckks", releases=ROUNDS, encoding=encoding)
    return dataclasses.replace(planned, scale_bits=52)


def twenty_rounds(params: secagg.HEParams) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Public ciphertexts, what is released of them (float64[20, N / 2]), and the exact sums."""
    key = secagg.DecryptionKey.generate(params, keep=IN_MEMORY)
    rng, ciphertexts, released, exact = np.random.default_rng(1), [], [], []
    for _ in range(ROUNDS):
        federation = Federation(params, key=key)
        vectors = rng.uniform(-1, 1, (3, params.dimension))
        federation.collect(vectors)
        ciphertexts.append(federation.server._state.collection.running.residues[0].copy())
        released.append(federation.finish().values)
        exact.append(np.append(vectors.sum(axis=0), 3.0))
    assert key.releases_left == 0
    return ciphertexts, np.array(released), np.array(exact)


def guesses(params: secagg.HEParams, ciphertexts: list[np.ndarray], released: np.ndarray) -> list[np.ndarray]:
    """A guess at the key from each two rounds."""
    pairs = [slice(first, first + 2) for first in range(0, ROUNDS, 2)]
    return [recover(np.array(ciphertexts[pair]), released[pair], params.chain, params.scheme.scale) for pair in pairs]


def test_sessions_that_did_not_flood_would_give_the_key_away(monkeypatch):
    params = attackable()
    monkeypatch.setattr(keys, "flood", lambda residues, *_: residues)
    monkeypatch.setattr(keys, "real_values", lambda slots, *_: slots.reshape(-1))
    ciphertexts, released, _ = twenty_rounds(params)
    found = guesses(params, ciphertexts, released)
    assert all(looks_like_a_secret(guess, params.chain) and (guess == found[0]).all() for guess in found)


@pytest.mark.parametrize("rounded", [True, False])
def test_what_is_released_over_twenty_rounds_gives_no_key_away(monkeypatch, rounded):
    params = attackable()
    if not rounded:  # the flooding does it alone
        monkeypatch.setattr(keys, "real_values", lambda slots, *_: slots.reshape(-1))
    ciphertexts, released, exact = twenty_rounds(params)
    found = guesses(params, ciphertexts, released)
    assert not any(looks_like_a_secret(guess, params.chain) for guess in found)
    # No evaluation is even found twice, where the true one would be found every time
    for index in range(len(params.chain.data_primes)):
        columns = np.sort(np.array([guess[index] for guess in found]), axis=0)
        assert (columns[1:] == columns[:-1]).sum() <= 2
    # The errors are the flooding's, as large as stated, and independent from round to round
    errors = released - exact
    deviation = noise.slot_deviation(params.chain, params.flooding_deviation) * 2.0**-params.scale_bits
    assert np.std(errors) == pytest.approx(np.hypot(deviation, rounded * params.precision / np.sqrt(12)), rel=0.05)
    assert np.abs(errors).max() <= params.error
    assert np.std(np.mean(errors, axis=0)) > deviation / np.sqrt(ROUNDS) * 0.9
    # The noise of the ciphertexts themselves is 2**20 times smaller at least: s = 40 bits
    assert deviation >= 2.0**20 * params.clients * noise.fresh_noise(params.chain) * 2.0**-params.scale_bits


def test_rounding_alone_is_less_than_the_flooding_so_it_hides_nothing_and_spoils_nothing():
    params = plan(3, 10, protocol="ckks")
    deviation = noise.slot_deviation(params.chain, params.flooding_deviation) * 2.0**-params.scale_bits
    assert deviation / 2 < params.precision <= deviation


def test_noise_is_of_the_sum_and_of_the_key_and_the_same_when_asked_again():
    chain = TWO_PRIMES[1]
    zero = np.zeros((2, 2, 2, chain.degree), dtype=np.uint64)
    first = flooding.flood(zero, chain, 2.0**30, bytes(32), bytes(32), bytes(32))
    assert (first == flooding.flood(zero, chain, 2.0**30, bytes(32), bytes(32), bytes(32))).all()
    assert not first[:, 1].any()
    assert not zero.any()
    for place in range(3):
        other = [bytes(32)] * 3
        other[place] = b"\x01" * 32
        assert (first[:, 0] != flooding.flood(zero, chain, 2.0**30, *other)[:, 0]).mean() > 0.999
    assert (first[0, 0] != first[1, 0]).mean() > 0.999


@pytest.mark.parametrize("deviation", [3.0, 2.0**30, 2.0**47, 2.0**60])
def test_the_noise_is_gaussian_down_to_the_last_bit(deviation):
    coarse, fine, shift = flooding._gaussians(200_001, deviation, bytes(24))
    values = np.array(coarse, dtype=object) * (1 << shift) + np.array(fine, dtype=object)
    normal = values.astype(np.float64) / deviation
    assert abs(normal.mean()) < 0.02
    assert normal.std() == pytest.approx(1, rel=0.02)
    assert (normal**4).mean() == pytest.approx(3, rel=0.05)
    assert 4 < np.abs(normal).max() < 9.5
    if deviation > 2.0**20:
        low = np.array([int(value) & 15 for value in values])
        counts = np.bincount(low, minlength=16)
        assert np.abs(counts - len(low) / 16).max() < 6 * np.sqrt(len(low) / 16)


@pytest.mark.parametrize("chain", TWO_PRIMES, ids=lambda chain: f"{chain.degree}-{chain.data_bits}")
def test_noise_is_transformed_as_seal_transforms(chain):
    scheme = Scheme(chain=chain, plain_modulus=0, scale=2.0**50)
    decryptor = Decryptor(scheme)
    ciphertext = Encryptor(scheme, decryptor.public_key()).encrypt(np.zeros(scheme.slots))
    before = decryptor.decrypt(ciphertext)
    for index, prime in enumerate(chain.data_primes):
        polynomial = np.zeros((1, chain.degree), dtype=np.uint64)
        polynomial[0, 0], polynomial[0, 3] = 2**50 % prime, 5 * 2**50 % prime
        evaluated = flooding.transform(polynomial, chain.degree, prime)[0]
        ciphertext[0, index] = (ciphertext[0, index] + evaluated) % np.uint64(prime)
    angles = [3 * pow(3, slot, 2 * chain.degree) for slot in range(scheme.slots)]
    expected = 1 + 5 * np.cos(np.pi * np.array(angles) / chain.degree)
    assert np.abs(decryptor.decrypt(ciphertext) - before - expected).max() < 1e-9
