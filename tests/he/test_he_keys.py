"""Decryption keys: what they release, how often, and when they are retired; how much noise honest sums really have."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest

import secagg
from federation import DECRYPTOR, Federation, key_pair, plan, vectors_of
from secagg import snapshot
from secagg.he import keys, noise
from secagg.he.chains import CHAINS, batching_prime
from secagg.he.ciphertexts import pack_residues
from secagg.he.engine import Decryptor, Encryptor, Scheme
from secagg.primitives.randomness import system_randomness
from test_he_hostile import SMALL, signed


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


@pytest.mark.parametrize("protocol", ["bfv", "ckks"])
@pytest.mark.parametrize("key_too", [False, True], ids=["live key", "restored key"])
def test_a_session_set_back_gets_no_second_sum_which_would_show_a_client_by_the_difference(protocol, key_too):
    params = plan(4, 3, dropout=0.25, protocol=protocol, encoding=SMALL)
    federation = Federation(params)
    federation.collect(np.zeros((4, 3)), absent=[3])
    before = federation.decryptor.save()
    without = secagg.HEServerSession.restore(federation.server.save(), federation.directory)
    without.advance()
    federation.send(3, federation.upload(3, np.ones(3)))
    federation.finish()
    key = secagg.DecryptionKey.restore(federation.key.save()) if key_too else federation.key
    session = secagg.DecryptorSession.restore(before, key, federation.directory, signing_key=DECRYPTOR)
    for _ in range(2):
        with pytest.raises(secagg.LocalProtocolError, match="another sum of this session"):
            session.release(without.release_request)
    # Nor past the session, which asks before it notes the request
    residues = session._collection.running.residues
    with pytest.raises(secagg.LocalProtocolError, match="another sum of this session"):
        key.release(residues, 3, federation.server.session_id, bytes(32))
    assert key.released == 1
    assert not key.retired


@pytest.mark.parametrize("protocol", ["bfv", "ckks"])
def test_after_a_crash_the_same_sum_comes_again_byte_for_byte_and_counts_once(protocol):
    params = plan(2, 3, releases=1, protocol=protocol, encoding=SMALL)
    key = secagg.DecryptionKey.generate(params)
    federation = Federation(params, key=key)
    federation.collect(vectors_of(params))
    federation.server.advance()
    before = federation.decryptor.save()
    answer = federation.decryptor.release(federation.server.release_request)
    key = secagg.DecryptionKey.restore(key.save())
    assert (key.released, key.releases_left) == (1, 0)
    session = secagg.DecryptorSession.restore(before, key, federation.directory, signing_key=DECRYPTOR)
    assert session.release(federation.server.release_request) == answer
    assert key.released == 1
    key._retired = True
    session = secagg.DecryptorSession.restore(before, key, federation.directory, signing_key=DECRYPTOR)
    with pytest.raises(secagg.LocalProtocolError, match="retired"):
        session.release(federation.server.release_request)


def test_clients_that_hold_one_key_spend_it_once_on_the_same_sum_and_get_no_other():
    params = plan(3, 5, dropout=0.3, releases=1, key_holder="clients", encoding=SMALL)
    federation = Federation(params, key=secagg.DecryptionKey.generate(params))
    federation.collect(np.zeros((3, 5)), absent=[2])
    less = secagg.HEServerSession.restore(federation.server.save(), federation.directory).advance()
    federation.send(2, federation.upload(2, np.ones(5)))
    sums = federation.server.advance()
    before = federation.clients[0].save()
    for one in range(2):
        federation.clients[one].receive(sums[one])
    assert (federation.clients[0].result.total == federation.clients[1].result.total).all()
    assert federation.key.released == 1
    client = secagg.HEClientSession.restore(before, 0, identity=federation.identities[0], key=federation.key)
    with pytest.raises(secagg.LocalProtocolError, match="another sum of this session"):
        client.receive(less[0])
    assert client.receive(sums[0]) is None


def test_what_a_saved_key_says_it_released_must_hang_together():
    params = plan(2, 3, releases=2)
    key = secagg.DecryptionKey.restore(key_pair(params))
    for session in (b"\1" * 32, b"\2" * 32):
        key._sums[session] = bytes(32)
    good = keys._SavedKey(
        params=params,
        pair=key._decryptor.secret_bytes(),
        flooding=bytes(32),
        released=2,
        sums=b"".join(one + of for one, of in key._sums.items()),
        retired=False,
    )

    def restore(**changes: object) -> secagg.DecryptionKey:
        value = dataclasses.replace(good, **changes)
        saved = snapshot.save(
            value, known=keys._KNOWN, purpose=keys._PURPOSE, seal_key=None, randomness=system_randomness
        )
        return secagg.DecryptionKey.restore(saved)

    assert restore()._sums == restore(retired=True)._sums == key._sums
    for changes in (
        {"sums": good.sums[:-1]},
        {"sums": good.sums + b"\0"},
        {"sums": b""},
        {"released": 1},
        {"released": 3, "sums": good.sums + bytes(64)},  # more than the budget
        {"sums": good.sums[:64] * 2},
    ):
        with pytest.raises(secagg.DecodeError, match="record of releases"):
            restore(**changes)
    with pytest.raises(secagg.InputError, match="32 bytes"):
        key.release(np.zeros((1, 2, 1, params.chain.degree), dtype=np.uint64), 2, b"short", bytes(32))


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
            held = {"key": federation.key}
            if key_holder == "decryptor":
                held = {"public_key": client._public_key, "decryptor": DECRYPTOR.public}
            federation.clients[one] = secagg.HEClientSession.restore(
                client.save(seal_key=bytes(32)), one, seal_key=bytes(32), identity=federation.identities[one], **held
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


@pytest.mark.parametrize("key_holder", ["decryptor", "clients"])
def test_a_client_is_restored_with_what_it_was_built_with_or_not_at_all(key_holder):
    params = plan(2, 3, key_holder=key_holder)
    federation = Federation(params)
    other_key = secagg.DecryptionKey.generate(params)
    signing = federation.identities[0].key
    wider = secagg.Directory({0: signing.public, 1: secagg.SigningKey.generate().public})
    client = federation.clients[0]
    good = {"identity": federation.identities[0]}
    if key_holder == "clients":
        good |= {"key": federation.key}
        bad = {"key": {"key": other_key}}
    else:
        stranger = secagg.SigningKey.generate()
        good |= {"public_key": client._public_key, "decryptor": DECRYPTOR.public}
        elsewhere = secagg.PublicKey.open(other_key.public.message(DECRYPTOR), params, DECRYPTOR.public)
        bad = {"key": {"public_key": elsewhere}, "decryptor": {"decryptor": stranger.public}}
    bad["directory"] = {"identity": secagg.Identity(key=signing, directory=wider)}
    for ready in (False, True):
        if ready:
            client.receive(federation.server.requests()[0])
        saved = client.save(seal_key=bytes(32))
        for what, change in bad.items():
            with pytest.raises(secagg.InputError, match=f"another {what}"):
                secagg.HEClientSession.restore(saved, 0, seal_key=bytes(32), **(good | change))
        with pytest.raises(secagg.InputError, match="client 0's, not client 1's"):
            secagg.HEClientSession.restore(saved, 1, seal_key=bytes(32), **good)
        assert secagg.HEClientSession.restore(saved, 0, seal_key=bytes(32), **good).stage == client.stage


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
    for key, signer, what in (
        (secagg.DecryptionKey.generate(params), DECRYPTOR, "decryption key"),
        (federation.key, secagg.SigningKey.generate(), "signing key"),
    ):
        with pytest.raises(secagg.InputError, match=f"another {what}"):
            secagg.DecryptorSession.restore(federation.decryptor.save(), key, federation.directory, signing_key=signer)
    with pytest.raises(secagg.DecodeError):
        secagg.HEServerSession.restore(federation.decryptor.save(), federation.directory)
