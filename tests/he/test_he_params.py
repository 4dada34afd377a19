"""Parameters of homomorphic sums: proved when they are built, or refused with a reason."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import secagg
from federation import plan
from secagg.errors import DecodeError, ParameterError
from secagg.he import noise
from secagg.he.chains import CHAINS, batching_prime, estimated_security, is_prime
from secagg.he.engine import _model

NVFLARE_BYTES = 57.4
"""A coordinate of NVFlare's set, [60, 40, 40] at N = 8192."""


def test_every_set_is_estimated_at_128_bits_and_below_the_best_attack_where_that_is_known():
    for chain in CHAINS:
        assert chain.security_bits >= 128
        assert all(prime % (2 * chain.degree) == 1 for prime in chain.primes)
        assert len(set(chain.primes)) == len(chain.primes)
    # The lattice estimator's figures for SEAL's largest moduli
    for degree, bits, known in ((4096, 109, 125.6), (8192, 160, 176), (8192, 218, 126)):
        assert known - 3 < estimated_security(degree, bits) <= known


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: f"{chain.degree}-{chain.data_bits}")
def test_tenseal_makes_the_primes_that_parameters_count_on(chain):
    scheme = secagg.he.engine.Scheme(chain=chain, plain_modulus=batching_prime(chain.degree, 1 << 20), scale=1.0)
    assert _model(scheme).data_form.ntt == 0  # raises SelfTestError where they differ


def test_primality_is_right_where_it_is_easily_known():
    sieve = [number for number in range(2, 2000) if all(number % d for d in range(2, math.isqrt(number) + 1))]
    assert [number for number in range(2, 2000) if is_prime(number)] == sieve
    for composite in (3215031751, 3825123056546413051, 318665857834031151167461 % 2**64 | 1):
        assert not is_prime(composite)


def test_sixteen_bit_values_of_a_hundred_clients_take_few_bytes():
    bfv = plan(100, 100_000, dropout=0.1, corrupt=0.05)
    ckks = plan(100, 100_000, dropout=0.1, corrupt=0.05, protocol="ckks")
    assert bfv.ciphertext_bytes / 100_000 <= 11
    assert ckks.ciphertext_bytes / 100_000 <= 50 < NVFLARE_BYTES
    assert (bfv.codes_per_slot, ckks.flooding_bits, ckks.bits_left) == (2, 40, 16)
    assert plan(10, 4).protocol == "bfv"
    assert plan(10, 4).key_holder == "decryptor"


@given(
    clients=st.integers(2, 1 << 20),
    dimension=st.integers(0, 10**6),
    bits=st.integers(2, 32),
    weight=st.integers(1, 1 << 20),
    protocol=st.sampled_from(["bfv", "ckks"]),
)
def test_whatever_is_planned_fits_and_survives_encoding(clients, dimension, bits, weight, protocol):
    encoding = secagg.FixedPoint(clip=1.0, bits=bits)
    try:
        params = plan(clients, dimension, encoding=encoding, max_weight=weight, protocol=protocol)
    except ParameterError:
        # One value a slot is what asks the least; even so it must be bits or noise that are too many
        assert (clients * weight * encoding.largest_code).bit_length() > (38 if protocol == "bfv" else 20)
        return
    assert secagg.HEParams.decode(params.encode()) == params
    assert params.ciphertexts * params.values_per_ciphertext > dimension
    chain = params.chain
    if protocol == "bfv":
        largest = clients * weight * encoding.largest_code
        slot = sum(largest << (place * params.ring_bits) for place in range(params.codes_per_slot))
        assert slot < params.plain_modulus
        # Noise stays a factor of two below where decryption fails
        worst = noise.honest_noise(chain, clients, params.ciphertexts)
        assert worst <= clients * noise.fresh_noise(chain)
        assert 4 * params.plain_modulus * worst <= chain.modulus
        assert params.least_noise_budget >= 1
    else:
        assert params.bits_left >= bits
        noisy = noise.tail(dimension + 1) * params.flooding_deviation + clients * noise.fresh_noise(chain)
        assert 2 * (clients * 2**params.scale_bits + noisy) < chain.modulus
        assert 2 * params.error * weight / params.minimum_survivors <= 2 / encoding.largest_code


def test_sums_that_would_not_fit_are_refused_with_what_would_have_to_change():
    params = plan(100, 100_000)
    for change, reason in (
        ({"codes_per_slot": 4}, "wrap in a slot"),
        ({"chain": CHAINS[0]}, "noise of 100 uploads"),
        ({"chain": dataclasses.replace(CHAINS[0], special_bits=61)}, "128 bits"),
        ({"clients": 1}, "too few clients"),
        ({"corrupt": 0.99}, "too few clients"),
        ({"flooding_bits": 40}, "flooding_bits"),
        ({"scale_bits": 1}, "scale_bits"),
        ({"releases": 0}, "releases"),
        ({"releases": True}, "releases"),
        ({"protocol": "tfhe"}, "protocol"),
        ({"key_holder": "server"}, "key_holder"),
        ({"encoding": None}, "FixedPoint"),
        ({"dimension": -1}, "dimension"),
        ({"dropout": 1.0}, "dropout"),
    ):
        with pytest.raises(ParameterError, match=reason):
            dataclasses.replace(params, **change)
    with pytest.raises(ParameterError, match="would wrap in a slot"):
        plan(1 << 20, 10, max_weight=1 << 30)


def test_ckks_that_leaves_fewer_bits_than_asked_for_is_refused():
    with pytest.raises(ParameterError, match=r"leaves \d+ bits of the 32 asked for"):
        plan(3, 10, protocol="ckks", max_weight=1 << 30, encoding=secagg.FixedPoint(clip=1.0, bits=32))
    params = plan(100, 1000, protocol="ckks")
    with pytest.raises(ParameterError, match="leaves"):
        dataclasses.replace(params, encoding=secagg.FixedPoint(clip=1.0, bits=params.bits_left + 1))
    with pytest.raises(ParameterError, match="leaves"):
        dataclasses.replace(params, scale_bits=params.scale_bits - 10)
    with pytest.raises(ParameterError, match="would wrap"):
        dataclasses.replace(params, scale_bits=params.scale_bits + 1)
    for bad in (39, 65, 10**6, "x", 40.0, True):
        with pytest.raises(ParameterError, match="flooding_bits"):
            plan(3, 10, protocol="ckks", flooding_bits=bad)
    with pytest.raises(ParameterError, match="2 bits or more"):
        plan(3, 10, protocol="ckks", encoding=secagg.FixedPoint(clip=1.0, bits=1))
    with pytest.raises(ParameterError, match="two primes"):
        dataclasses.replace(params, chain=CHAINS[1])
    # More sums under one key are more to hide
    assert plan(100, 1000, protocol="ckks", releases=10_000).flooding_deviation > 9 * params.flooding_deviation


def test_encodings_that_are_not_canonical_are_refused():
    good = plan(3, 4).encode()
    for bad in (good[:-1], good + b"\0", b"", 5):
        with pytest.raises(DecodeError):
            secagg.HEParams.decode(bad)
    for at in (len(good) - 10, len(good) - 9, len(good) - 8):  # protocol, key holder, chain
        with pytest.raises(DecodeError, match="does not know"):
            secagg.HEParams.decode(good[:at] + b"\xff" + good[at + 1 :])
    minus_zero = bytearray(good)
    minus_zero[36] = 0x80  # the sign of a drop-out rate of zero
    with pytest.raises(DecodeError, match="canonical"):
        secagg.HEParams.decode(bytes(minus_zero))
