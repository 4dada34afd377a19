"""Decryption keys: what they release, how often, and when they are retired; how much noise honest sums really have."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import secagg
from federation import DECRYPTOR, Federation, key_pair, plan, vectors_of
from secagg.he import noise
from secagg.he.chains import CHAINS, batching_prime
from secagg.he.ciphertexts import pack_residues
from secagg.he.engine import Decryptor, Encryptor, Scheme
from test_he_hostile import signed


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: f"{chain.degree}-{chain.data_bits}")
def test_honest_sums_never_have_less_noise_budget_than_is_counted_on(chain):
    plain_modulus = batching_prime(chain.degree, 1 << 20)
    scheme = Scheme(chain=chain, plain_modulus=plain_modulus, scale=1.0)
    decryptor = Decryptor(scheme)
    encryptor = Encryptor(scheme, decryptor.public_key())
    primes = np.array(chain.data_primes, dtype=np.uint64)[:, None]
    value, total = np.arange(chain.degree) % 1000, np.zeros((2, len(primes), chain.degree), dtype=np.uint64)
    for count in range(1, 9):
        total = (total + encryptor.encrypt(value)) % primes
        budget = decryptor.noise_budget(total)
        assert budget >= noise.honest_budget(chain, plain_modulus, count, 1)
        # The bound is for certain, so it lies above what is seen, but by no more than a factor of about N
        assert budget <= noise.honest_budget(chain, plain_modulus, count, 1) + chain.degree.bit_length()
    assert decryptor.decrypt(total).tolist() == (8 * value % plain_modulus).tolist()


def test_too_little_room_would_be_silent_and_total():
    """Why the bound is proved when parameters are built: nothing notices afterwards."""
    chain = CHAINS[0]
    scheme = Scheme(chain=chain, plain_modulus=batching_prime(chain.degree, 1 << 46), scale=1.0)
    assert noise.honest_budget(chain, scheme.plain_modulus, 1, 1) < 1
    decryptor = Decryptor(scheme)
    wrong = decryptor.decrypt(Encryptor(scheme, decryptor.public_key()).encrypt(np.zeros(chain.degree, int)))
    assert (wrong != 0).mean() > 0.99


def test_noise_beyond_what_honest_uploads_have_is_refused_and_retires_the_key():
    params = plan(3, 5)
    federation = Federation(params)
    federation.collect(np.zeros((3, 5)), absent=[1])
    # A well-formed encryption with noise of its own added, still decrypting to the right sum
    residues = federation.clients[1]._public_key.encryptor().encrypt(np.zeros(params.chain.degree, dtype=np.int64))
    bound = noise.honest_noise(params.chain, params.clients, params.ciphertexts)
    assert 4 * bound < params.chain.modulus // (2 * params.plain_modulus)
    primes = np.array(params.chain.data_primes, dtype=np.uint64)
    residues[0, :, 0] = (residues[0, :, 0] + np.uint64(3 * bound)) % primes
    federation.send(1, signed(federation, 1, pack_residues(residues[None], params.chain.data_primes)))
    federation.server.advance()
    with pytest.raises(secagg.InconsistentSum, match="noisier"):
        federation.decryptor.release(federation.server.release_request)
    assert federation.key.retired
    assert federation.key.releases_left == 0
    assert secagg.DecryptionKey.restore(federation.key.save()).retired


@pytest.mark.parametrize(
    ("protocol", "where"),
    [
        ("bfv", "coordinate"),
        ("bfv", "weight"),
        ("bfv", "padding"),
        ("ckks", "coordinate"),
        ("ckks", "weight"),  # and not its padding: unused slots hold noise, of which nothing can be said
    ],
)
def test_sums_out_of_range_are_refused_and_retire_the_key(protocol, where):
    params = plan(3, 5, protocol=protocol, encoding=secagg.FixedPoint(clip=1.0, bits=8))
    federation = Federation(params)
    federation.collect(np.zeros((3, 5)), absent=[1])
    slots = np.zeros(params.scheme.slots, dtype=np.int64 if protocol == "bfv" else np.float64)
    slots[{"coordinate": 0, "weight": 5, "padding": 5}[where] // max(params.codes_per_slot, 1)] = (
        params.plain_modulus - 1 if protocol == "bfv" else 50.0
    )
    if where == "padding":
        slots[:] = 0
        slots[-1] = 1
    residues = federation.clients[1]._public_key.encryptor().encrypt(slots)
    federation.send(1, signed(federation, 1, pack_residues(residues[None], params.chain.data_primes)))
    federation.server.advance()
    with pytest.raises(secagg.InconsistentSum):
        federation.decryptor.release(federation.server.release_request)
    assert federation.key.retired


def test_a_key_counts_what_it_released_also_when_it_is_restored():
    params = plan(2, 3, releases=2)
    key = secagg.DecryptionKey.generate(params)
    for left in (1, 0):
        federation = Federation(params, key=key)
        federation.collect(np.zeros((2, 3)))
        federation.finish()
        assert key.releases_left == left
        key = secagg.DecryptionKey.restore(key.save(seal_key=bytes(32)), seal_key=bytes(32))
        assert key.releases_left == left
    with pytest.raises(secagg.LocalProtocolError, match="released its 2 sums"):
        Federation(params, key=key)


def test_a_budget_spent_meanwhile_releases_nothing():
    params = plan(2, 3, releases=1)
    key = secagg.DecryptionKey.generate(params)
    first, second = Federation(params, key=key), Federation(params, key=key)
    for federation in (first, second):
        federation.collect(np.zeros((2, 3)))
    first.finish()
    second.server.advance()
    with pytest.raises(secagg.LocalProtocolError, match="released its 1 sums"):
        second.decryptor.release(second.server.release_request)


def test_secrets_stay_out_of_sight_and_are_not_copied():
    key = secagg.DecryptionKey.restore(key_pair(plan(2, 3)))
    federation = Federation(plan(2, 3))
    for secret in (key, federation.decryptor, federation.clients[0], federation.server):
        assert len(repr(secret)) < 120
        for way in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                way(secret)
    assert "withheld" in repr(key._decryptor)
    public = key.public.message(DECRYPTOR)
    pair = key._decryptor.secret_bytes()
    assert not any(pair[at : at + 64] in public for at in range(0, len(pair) - 64, 64))


def test_damaged_and_foreign_keys_are_refused():
    saved = key_pair(plan(2, 3))
    for bad in (saved[:-1], saved[:80] + b"\xff" + saved[81:], b"", Federation(plan(2, 3)).decryptor.save()):
        with pytest.raises(secagg.DecodeError):
            secagg.DecryptionKey.restore(bad)
    with pytest.raises(secagg.InputError):
        secagg.DecryptionKey.generate(5)


@pytest.mark.parametrize("key_holder", ["decryptor", "clients"])
@pytest.mark.parametrize("protocol", ["bfv", "ckks"])
def test_every_party_may_be_saved_and_restored_anywhere(protocol, key_holder):
    params = plan(3, 7, protocol=protocol, key_holder=key_holder)
    vectors = vectors_of(params)
    federation = Federation(params)

    def restart() -> None:
        federation.server = secagg.HEServerSession.restore(federation.server.save(), federation.directory)
        if federation.decryptor is not None:
            federation.decryptor = secagg.DecryptorSession.restore(
                federation.decryptor.save(), federation.key, federation.directory, signing_key=DECRYPTOR
            )
        for one, client in federation.clients.items():
            keys = {"key": federation.key}
            if key_holder == "decryptor":
                keys = {"public_key": client._public_key, "decryptor": DECRYPTOR.public}
            federation.clients[one] = secagg.HEClientSession.restore(
                client.save(seal_key=bytes(32)), seal_key=bytes(32), identity=federation.identities[one], **keys
            )

    for one, vector in enumerate(vectors):
        restart()
        upload = federation.upload(one, vector)
        restart()
        assert federation.clients[one].receive(federation.server.requests()[one]).payload == upload
        federation.send(one, upload)
    sums = federation.server.advance()
    restart()
    assert federation.server.requests() == sums
    if key_holder == "clients":
        federation.clients[0].receive(sums[0])
        restart()
        assert federation.clients[0].receive(sums[0]) is None
        found = federation.clients[0].result
    else:
        asked = federation.server.release_request
        answer = federation.decryptor.release(asked)
        restart()
        assert federation.decryptor.release(asked) == answer
        federation.server.accept_release(answer)
        found = federation.server.result
    assert np.abs(found.mean - vectors.mean(axis=0)).max() < params.encoding.step
    assert federation.key.released == 1


def test_restoring_with_other_keys_or_directories_is_refused():
    params = plan(2, 3)
    federation, other = Federation(params), Federation(plan(2, 3, releases=5))
    strangers = secagg.Directory({one: secagg.SigningKey.generate().public for one in range(2)})
    with pytest.raises(secagg.InputError):
        secagg.HEServerSession.restore(federation.server.save(), strangers)
    with pytest.raises(secagg.InputError):
        secagg.DecryptorSession.restore(federation.decryptor.save(), federation.key, strangers, signing_key=DECRYPTOR)
    with pytest.raises(secagg.InputError):
        secagg.DecryptorSession.restore(
            federation.decryptor.save(), other.key, federation.directory, signing_key=DECRYPTOR
        )
    with pytest.raises(secagg.DecodeError):
        secagg.HEServerSession.restore(federation.decryptor.save(), federation.directory)
