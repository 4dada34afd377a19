"""What an observer of masks tries: bias, and related seeds. The randomness of these tests is fixed, so they repeat."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest

from cohort import plan
from plays import EXACT, THREATS, cohort_at
from secagg import FixedPoint
from secagg.encoding.ring import lane_dtype, unpack_add
from secagg.pairwise.identifiers import pairwise_mask_key, self_mask_key
from secagg.primitives.agreement import AgreementKey
from secagg.primitives.prg import MASK_KEY_BYTES, stream
from secagg.wire import HEADER_BYTES

SECRET = hashlib.sha256(b"a seed").digest()
SESSION = hashlib.sha256(b"a session").digest()
KEY_OF: dict[str, Callable[[bytes, bytes], bytes]] = {
    "pairwise": lambda secret, session: pairwise_mask_key(secret, session, plan(), 0, 1, MASK_KEY_BYTES),
    "self": lambda secret, session: self_mask_key(secret, session, plan(), 0, MASK_KEY_BYTES),
}
every_key = pytest.mark.parametrize("derive", KEY_OF.values(), ids=KEY_OF)


def assert_uniform(values: np.ndarray, count: int) -> None:
    """A chi-square test: the statistic of uniform values exceeds this bound with a chance below 1e-4."""
    expected = len(values) / count
    statistic = ((np.bincount(values, minlength=count) - expected) ** 2 / expected).sum()
    freedom = count - 1  # Wilson and Hilferty's approximation, 3.72 standard deviations
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 3.72 * (2 / (9 * freedom)) ** 0.5) ** 3


@pytest.mark.parametrize(("ring_bits", "residues"), [(4, 16), (13, 16), (13, 8192), (26, 64), (57, 256)])
@every_key
def test_12_biased_reduction_masks_are_uniform_in_low_and_high_residues(derive, ring_bits, residues):
    """Attack: look for values that a reduction makes likelier. Defence: rings are powers of two: bits are cut."""
    words = stream(derive(SECRET, SESSION), 1 << 18, lane_dtype(ring_bits)) & lane_dtype(ring_bits).type(
        (1 << ring_bits) - 1
    )
    assert_uniform((words % residues).astype(np.int64), residues)
    assert_uniform((words >> words.dtype.type(ring_bits - residues.bit_length() + 1)).astype(np.int64), residues)


@pytest.mark.parametrize("threat", THREATS)
@pytest.mark.parametrize("code", [0, 255])
def test_12_biased_reduction_an_upload_is_uniform_over_its_ring_whatever_it_hides(threat, code):
    """Attack: guess a constant vector from its upload. Defence: all values of the ring are equally likely."""
    params = plan(2, 50_000, encoding=EXACT, ring_bits=9, threat=threat)
    cohort = cohort_at("masked_input", params, seed="uniform")
    cohort.vectors[1] = np.full(50_000, code - 127.5)
    upload = cohort.answer(1, cohort.server.requests()[1])[HEADER_BYTES:][: (50_001 * 9 + 7) // 8]
    words = np.zeros(50_001, dtype=np.uint16)
    unpack_add(np.frombuffer(upload, np.uint8), words, 9)
    assert_uniform(words[:-1] & 511, 512)
    assert_uniform(words[:-1] & 3, 4)


def test_12_biased_reduction_rings_are_powers_of_two():
    """Attack: choose a modulus that no word count divides. Defence: parameters have a width in bits and no modulus."""
    for clients in (2, 3, 5, 100):
        params = plan(clients, 1, encoding=FixedPoint(clip=1.0, bits=7))
        assert clients * 127 < 1 << params.ring_bits <= 2 * clients * 127


@every_key
def test_13_weak_generator_every_bit_of_the_seed_changes_the_stream(derive):
    """Attack: try seeds that share bits with the true one. Defence: all 256 go through HKDF; about half of all change.

    Key and nonce change both, so no two seeds give streams of one key, nor of one nonce.
    """
    key = derive(SECRET, SESSION)
    words = stream(key, 64, np.uint64)
    seen = {key}
    for bit in range(256):
        number = int.from_bytes(SECRET, "little") ^ (1 << bit)
        other = derive(number.to_bytes(32, "little"), SESSION)
        assert other[:16] != key[:16]
        assert other[16:] != key[16:]
        changed = int(np.bitwise_count(words ^ stream(other, 64, np.uint64)).sum())
        assert abs(changed - 2048) < 6 * 32  # 4096 fair bits: a standard deviation is 32
        seen.add(other)
    assert len(seen) == 257


@every_key
def test_13_weak_generator_every_bit_of_the_session_changes_the_stream(derive):
    """Attack: wait for a session like an earlier one. Defence: the session salts every key."""
    keys = {derive(SECRET, SESSION)}
    for bit in range(256):
        number = int.from_bytes(SESSION, "little") ^ (1 << bit)
        keys.add(derive(SECRET, number.to_bytes(32, "little")))
    assert len({key[:16] for key in keys}) == len({key[16:] for key in keys}) == 257


def test_13_weak_generator_every_bit_that_x25519_uses_changes_the_pairs_mask():
    """Attack: as before, on the mask secret key. Defence: all its bits but the five that clamping fixes count."""
    peer = AgreementKey(hashlib.sha256(b"a peer").digest()).public
    keys = set()
    for bit in range(256):
        secret = (int.from_bytes(SECRET, "little") ^ (1 << bit)).to_bytes(32, "little")
        keys.add(KEY_OF["pairwise"](AgreementKey(secret).exchange(peer), SESSION))
    keys.add(KEY_OF["pairwise"](AgreementKey(SECRET).exchange(peer), SESSION))
    assert len(keys) == 256 - 5 + 1


def test_13_weak_generator_pairs_purposes_and_shapes_have_masks_of_their_own():
    """Attack: masks that cancel out of place. Defence: purpose, ordered pair, dimension and width enter the keys."""
    shapes = [plan(5, 7), plan(5, 8), plan(5, 7, ring_bits=40)]
    keys = [
        pairwise_mask_key(SECRET, SESSION, params, own, peer, MASK_KEY_BYTES)
        for params in shapes
        for own, peer in ((0, 1), (0, 2), (1, 2))
    ]
    keys += [self_mask_key(SECRET, SESSION, params, one, MASK_KEY_BYTES) for params in shapes for one in range(3)]
    assert len(set(keys)) == 18
    assert pairwise_mask_key(SECRET, SESSION, shapes[0], 1, 0, MASK_KEY_BYTES) == keys[0]
