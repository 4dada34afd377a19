"""Homomorphic sums from end to end: exact where they are exact, within their bound where they are not."""

from __future__ import annotations

import numpy as np
import pytest

import secagg
from cohort import plan as pairwise_plan
from federation import CONTEXT, Federation, plan, vectors_of
from secagg import IN_MEMORY

EXACT = secagg.FixedPoint(clip=127.5, bits=8)
"""Codes 0 to 255 for -127.5 to 127.5, in steps of one: rounding changes nothing."""


def codes_of(params: secagg.HEParams, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (params.clients, params.dimension))


@pytest.mark.parametrize("key_holder", ["decryptor", "clients"])
@pytest.mark.parametrize(("clients", "dimension"), [(2, 1), (2, 0), (3, 9), (5, 12290), (4, 4095)])
def test_bfv_sums_are_the_integers_of_a_pairwise_round(clients, dimension, key_holder):
    params = plan(clients, dimension, encoding=EXACT, max_weight=9, key_holder=key_holder)
    codes, weights = codes_of(params), list(range(1, clients + 1))
    federation = Federation(params)
    federation.collect(codes - 127.5, weights)
    found = federation.finish()
    pairwise = secagg.simulate(
        codes - 127.5,
        params=pairwise_plan(clients, dimension, encoding=EXACT, max_weight=9),
        weights=weights,
        context=CONTEXT,
    ).outcome
    assert found.words.tolist() == pairwise.words.tolist()
    assert found.words.dtype == pairwise.words.dtype
    assert found.total.tolist() == (codes * np.array(weights)[:, None]).sum(axis=0).tolist()
    assert found.mean.tobytes() == pairwise.mean.tobytes()
    assert (found.weight, found.survivors, found.dropped) == (pairwise.weight, pairwise.survivors, {})


def test_the_extremes_of_the_largest_sum_neither_wrap_nor_touch_their_neighbours():
    params = plan(7, 4 * 4096, encoding=EXACT, max_weight=200)
    assert params.codes_per_slot > 1
    codes = np.zeros((7, params.dimension), dtype=int)
    codes[:, :: params.codes_per_slot] = 255
    federation = Federation(params)
    federation.collect(codes - 127.5, [200] * 7)
    found = federation.finish()
    assert found.total.tolist() == (codes.sum(axis=0) * 200).tolist()
    assert found.weight == 1400


@pytest.mark.parametrize("protocol", ["bfv", "ckks"])
def test_clients_may_vanish_up_to_the_plan_and_no_further(protocol):
    params = plan(5, 20, protocol=protocol, dropout=0.4, corrupt=0.2)
    vectors = vectors_of(params)
    federation = Federation(params)
    federation.collect(vectors, absent=[0, 3])
    found = federation.finish()
    assert found.survivors == (1, 2, 4)
    assert found.dropped == {0: "encrypted_input", 3: "encrypted_input"}
    error = params.encoding.step if protocol == "bfv" else found.mean_error
    assert (np.abs(found.mean - vectors[[1, 2, 4]].mean(axis=0)) <= error).all()
    too_few = Federation(params)
    too_few.collect(vectors, absent=[0, 2, 3])
    assert not too_few.server.ready
    with pytest.raises(secagg.TooFewClients):
        too_few.server.advance()


@pytest.mark.parametrize("key_holder", ["decryptor", "clients"])
@pytest.mark.parametrize(("clients", "dimension"), [(2, 1), (2, 0), (3, 9), (4, 5000)])
def test_ckks_sums_stay_within_their_stated_error(clients, dimension, key_holder):
    encoding = secagg.FixedPoint(clip=2.5, bits=12)
    params = plan(clients, dimension, protocol="ckks", encoding=encoding, max_weight=5, key_holder=key_holder)
    vectors, weights = 2.5 * vectors_of(params), [1 + one % 5 for one in range(clients)]
    federation = Federation(params)
    federation.collect(vectors, weights)
    found = federation.finish()
    exact = (vectors * np.array(weights)[:, None]).sum(axis=0)
    assert (np.abs(found.total - exact) <= found.error).all()
    assert abs(found.weight - sum(weights)) <= params.error * params.max_weight
    assert (np.abs(found.mean - exact / sum(weights)) <= found.mean_error).all()
    assert (found.mean_error < encoding.step).all()
    assert (found.values == np.rint(found.values / params.precision) * params.precision).all()


def test_what_is_out_of_range_is_cut_and_counted_and_what_is_not_finite_refused():
    for protocol in ("bfv", "ckks"):
        params = plan(2, 4, protocol=protocol)
        federation = Federation(params)
        client = federation.clients[0]
        client.receive(federation.server.requests()[0])
        for bad in ([1.0, np.nan, 0, 0], [np.inf, 0, 0, 0]):
            with pytest.raises(secagg.InputError, match="finite"):
                client.submit(np.array(bad))
        for wrong in (np.zeros(3), np.zeros((4, 1)), [0.0] * 4, np.zeros(4, dtype=int)):
            with pytest.raises(secagg.InputError):
                client.submit(wrong)
        for weight in (0, 2, 1.0, True):
            with pytest.raises(secagg.InputError):
                client.submit(np.zeros(4), weight)
        assert client.stage == "encrypted_input"
        federation.send(0, client.submit(np.array([3.0, -3.0, 0.5, 1.0], dtype=np.float32)).payload)
        assert client.clipped == 0.5
        federation.send(1, federation.upload(1, np.zeros(4)))
        assert np.abs(federation.finish().mean - [0.5, -0.5, 0.25, 0.5]).max() < params.encoding.step


def test_the_result_says_who_can_read_what():
    alone = Federation(plan(2, 1, key_holder="clients"))
    alone.collect(np.zeros((2, 1)))
    assert "reads every client's vector" in " ".join(alone.finish().notes)
    with pytest.raises(secagg.LocalProtocolError, match="no result on this side"):
        _ = alone.server.result
    trusted = Federation(plan(2, 1))
    trusted.collect(np.zeros((2, 1)))
    found = trusted.finish()
    assert (found.key_holder, found.threat) == ("decryptor", "malicious-server")
    assert (alone.clients[0].result.key_holder, alone.clients[0].result.threat) == ("clients", "semi-honest")


def test_every_client_that_holds_the_key_decrypts_to_the_same():
    params = plan(3, 40, protocol="ckks", key_holder="clients")
    federation = Federation(params)
    federation.collect(vectors_of(params))
    sums = federation.server.advance()
    found = []
    for one in range(3):
        copy = secagg.DecryptionKey.restore(federation.key.save(seal_key=None), keep=IN_MEMORY)  # each has its own
        saved = federation.clients[one].save(seal_key=None)
        client = federation.restored_client(one, saved, credentials=federation.client_credentials(one, key=copy))
        assert client.receive(sums[one]) == secagg.ResultReady()
        found.append(client.result.values.tolist())
    assert found[0] == found[1] == found[2]
