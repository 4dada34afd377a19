"""Decryption keys: what they release, how often, and when they are retired; how much noise honest sums really have."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest

import secagg
from federation import DECRYPTOR, Federation, key_pair, plan, vectors_of
from secagg import IN_MEMORY, snapshot
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
        federation.decryptor.release(federation.server.party_requests()["decryptor"])
    assert federation.key.retired
    assert federation.key.releases_left == 0
    assert secagg.DecryptionKey.restore(federation.key.save(seal_key=None), keep=IN_MEMORY).retired


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
        federation.decryptor.release(federation.server.party_requests()["decryptor"])
    assert federation.key.retired


def test_a_key_counts_what_it_released_also_when_it_is_restored():
    params = plan(2, 3, releases=2)
    key = secagg.DecryptionKey.generate(params, keep=IN_MEMORY)
    for left in (1, 0):
        federation = Federation(params, key=key)
        federation.collect(np.zeros((2, 3)))
        federation.finish()
        assert key.releases_left == left
        key = secagg.DecryptionKey.restore(key.save(seal_key=bytes(32)), seal_key=bytes(32), keep=IN_MEMORY)
        assert key.releases_left == left
    with pytest.raises(secagg.LocalProtocolError, match="released its 2 sums"):
        Federation(params, key=key)


def test_a_budget_spent_meanwhile_releases_nothing():
    params = plan(2, 3, releases=1)
    key = secagg.DecryptionKey.generate(params, keep=IN_MEMORY)
    first, second = Federation(params, key=key), Federation(params, key=key)
    for federation in (first, second):
        federation.collect(np.zeros((2, 3)))
    first.finish()
    second.server.advance()
    with pytest.raises(secagg.LocalProtocolError, match="released its 1 sums"):
        second.decryptor.release(second.server.party_requests()["decryptor"])


@pytest.mark.parametrize("protocol", ["bfv", "ckks"])
@pytest.mark.parametrize("key_too", [False, True], ids=["live key", "restored key"])
def test_a_session_set_back_gets_no_second_sum_which_would_show_a_client_by_the_difference(protocol, key_too):
    params = plan(4, 3, dropout=0.25, protocol=protocol, encoding=SMALL)
    federation = Federation(params)
    federation.collect(np.zeros((4, 3)), absent=[3])
    before = federation.decryptor.save(seal_key=None)
    without = federation.restored_server(federation.server.save(seal_key=None))
    without.advance()
    federation.send(3, federation.upload(3, np.ones(3)))
    federation.finish()
    key = (
        secagg.DecryptionKey.restore(federation.key.save(seal_key=None), keep=IN_MEMORY) if key_too else federation.key
    )
    session = federation.restored_decryptor(before, key)
    for _ in range(2):
        with pytest.raises(secagg.LocalProtocolError, match="another sum of this session"):
            session.release(without.party_requests()["decryptor"])
    # Nor past the session, which asks before it notes the request
    residues = session._collection.running.residues
    with pytest.raises(secagg.LocalProtocolError, match="another sum of this session"):
        key.release(residues, 3, federation.server.session_id, bytes(32))
    assert key.released == 1
    assert not key.retired


@pytest.mark.parametrize("protocol", ["bfv", "ckks"])
def test_after_a_crash_the_same_sum_comes_again_byte_for_byte_and_counts_once(protocol):
    params = plan(2, 3, releases=1, protocol=protocol, encoding=SMALL)
    key = secagg.DecryptionKey.generate(params, keep=IN_MEMORY)
    federation = Federation(params, key=key)
    federation.collect(vectors_of(params))
    federation.server.advance()
    before = federation.decryptor.save(seal_key=None)
    answer = federation.decryptor.release(federation.server.party_requests()["decryptor"])
    key = secagg.DecryptionKey.restore(key.save(seal_key=None), keep=IN_MEMORY)
    assert (key.released, key.releases_left) == (1, 0)
    session = federation.restored_decryptor(before, key)
    assert session.release(federation.server.party_requests()["decryptor"]) == answer
    assert key.released == 1
    key._at = dataclasses.replace(key._at, retired=True)
    session = federation.restored_decryptor(before, key)
    with pytest.raises(secagg.LocalProtocolError, match="retired"):
        session.release(federation.server.party_requests()["decryptor"])


def test_clients_that_hold_one_key_spend_it_once_on_the_same_sum_and_get_no_other():
    params = plan(3, 5, dropout=0.3, releases=1, key_holder="clients", encoding=SMALL)
    federation = Federation(params, key=secagg.DecryptionKey.generate(params, keep=IN_MEMORY))
    federation.collect(np.zeros((3, 5)), absent=[2])
    less = federation.restored_server(federation.server.save(seal_key=None)).advance()
    federation.send(2, federation.upload(2, np.ones(5)))
    sums = federation.server.advance()
    before = federation.clients[0].save(seal_key=None)
    for one in range(2):
        federation.clients[one].receive(sums[one])
    assert (federation.clients[0].result.total == federation.clients[1].result.total).all()
    assert federation.key.released == 1
    client = federation.restored_client(0, before)
    with pytest.raises(secagg.LocalProtocolError, match="another sum of this session"):
        client.receive(less[0])
    assert client.receive(sums[0]) == secagg.ResultReady()


def test_what_a_saved_key_says_it_released_must_hang_together():
    params = plan(2, 3, releases=2)
    key = secagg.DecryptionKey.restore(key_pair(params), keep=IN_MEMORY)
    sums = {b"\1" * 32: bytes(32), b"\2" * 32: bytes(32)}
    good = keys._SavedKey(
        params=params,
        pair=key._decryptor.secret_bytes(),
        flooding=bytes(32),
        released=2,
        sums=b"".join(one + of for one, of in sums.items()),
        retired=False,
    )

    def restore(**changes: object) -> secagg.DecryptionKey:
        value = dataclasses.replace(good, **changes)
        saved = snapshot.save(
            value, known=keys._KNOWN, purpose=keys._PURPOSE, seal_key=None, randomness=system_randomness
        )
        return secagg.DecryptionKey.restore(bytes(saved), keep=IN_MEMORY)

    assert restore()._at.sums == restore(retired=True)._at.sums == sums
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
    key = secagg.DecryptionKey.restore(key_pair(plan(2, 3)), keep=IN_MEMORY)
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
    for bad in (
        saved[:-1],
        saved[:80] + b"\xff" + saved[81:],
        b"",
        Federation(plan(2, 3)).decryptor.save(seal_key=None),
    ):
        with pytest.raises(secagg.DecodeError):
            secagg.DecryptionKey.restore(bad, keep=IN_MEMORY)
    with pytest.raises(secagg.InputError):
        secagg.DecryptionKey.generate(5, keep=IN_MEMORY)


@pytest.mark.parametrize("key_holder", ["decryptor", "clients"])
@pytest.mark.parametrize("protocol", ["bfv", "ckks"])
def test_every_party_may_be_saved_and_restored_anywhere(protocol, key_holder):
    params = plan(3, 7, protocol=protocol, key_holder=key_holder)
    vectors = vectors_of(params)
    federation = Federation(params)

    def restart() -> None:
        federation.server = federation.restored_server(federation.server.save(seal_key=None))
        if federation.decryptor is not None:
            federation.decryptor = federation.restored_decryptor(federation.decryptor.save(seal_key=None))
        for one, client in federation.clients.items():
            saved = client.save(seal_key=bytes(32))
            federation.clients[one] = federation.restored_client(one, saved, seal_key=bytes(32))

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
        assert federation.clients[0].receive(sums[0]) == secagg.ResultReady()
        found = federation.clients[0].result
    else:
        asked = federation.server.party_requests()["decryptor"]
        answer = federation.decryptor.release(asked)
        restart()
        assert federation.decryptor.release(asked) == answer
        federation.server.receive_from("decryptor", answer)
        restart()
        found = federation.server.result
    assert np.abs(found.mean - vectors.mean(axis=0)).max() < params.encoding.step
    assert federation.key.released == 1


@pytest.mark.parametrize("key_holder", ["decryptor", "clients"])
def test_a_client_is_restored_with_what_it_was_built_with_or_not_at_all(key_holder):
    params = plan(2, 3, key_holder=key_holder)
    federation = Federation(params)
    other_key = secagg.DecryptionKey.generate(params, keep=IN_MEMORY)
    signing = federation.identities[0].key
    wider = secagg.Directory({0: signing.public, 1: secagg.SigningKey.generate().public})
    client = federation.clients[0]
    if key_holder == "clients":
        bad = {"key": {"key": other_key}}
    else:
        stranger = secagg.SigningKey.generate()
        elsewhere = secagg.PublicKey.open(other_key.public.message(DECRYPTOR), params, DECRYPTOR.public)
        bad = {"key": {"public_key": elsewhere}, "decryptor": {"decryptor": stranger.public}}
    bad["directory"] = {"identity": secagg.Identity(key=signing, directory=wider)}
    for ready in (False, True):
        if ready:
            client.receive(federation.server.requests()[0])
        saved = client.save(seal_key=bytes(32))
        for what, change in bad.items():
            with pytest.raises(secagg.InputError, match=f"another {what}"):
                federation.restored_client(
                    0, saved, seal_key=bytes(32), credentials=federation.client_credentials(0, **change)
                )
        with pytest.raises(secagg.InputError, match="client 0's, not client 1's"):
            federation.restored_client(1, saved, seal_key=bytes(32))
        assert federation.restored_client(0, saved, seal_key=bytes(32)).stage == client.stage


def test_restoring_with_other_keys_or_directories_is_refused():
    params = plan(2, 3)
    federation, other = Federation(params), Federation(plan(2, 3, releases=5))
    strangers = secagg.Directory({one: secagg.SigningKey.generate().public for one in range(2)})
    server, decryptor = federation.server.save(seal_key=None), federation.decryptor.save(seal_key=None)
    stranger = secagg.SigningKey.generate()
    for what, change in (
        ("directory", {"directory": strangers}),
        ("decryptor", {"decryptor": stranger.public}),
        ("opening", {"opening": federation.new_decryptor().opening()}),
    ):
        with pytest.raises(secagg.InputError, match=f"another {what}"):
            federation.restored_server(server, credentials=federation.server_credentials(**change))
    # Its state has the opening, so it need not be given again
    assert federation.restored_server(server, credentials=federation.server_credentials(opening=None)).stage
    alone = Federation(plan(2, 3, key_holder="clients"))
    with pytest.raises(secagg.InputError, match="another key"):
        alone.restored_server(alone.server.save(seal_key=None), credentials=alone.server_credentials(key_id=bytes(32)))
    with pytest.raises(secagg.InputError):
        secagg.DecryptorSession.restore(decryptor, federation.key, strangers, signing_key=DECRYPTOR, keep=IN_MEMORY)
    with pytest.raises(secagg.InputError):
        federation.restored_decryptor(decryptor, other.key)
    for key, signer, what in (
        (secagg.DecryptionKey.generate(params, keep=IN_MEMORY), DECRYPTOR, "decryption key"),
        (federation.key, stranger, "signing key"),
    ):
        with pytest.raises(secagg.InputError, match=f"another {what}"):
            federation.restored_decryptor(decryptor, key, signing_key=signer)
    with pytest.raises(secagg.DecodeError):
        federation.restored_server(decryptor)
