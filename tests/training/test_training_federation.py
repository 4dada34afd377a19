"""Federations: every record dealt once, uneven, skewed, the same for the same seed, whatever the number of clients."""

from __future__ import annotations

import numpy as np
import pytest

from secagg.errors import InputError
from secagg.training import federation
from secagg.training.scaling import LIMIT, local_statistics, scaling_from_statistics

pytest.importorskip("sklearn")


def rows(*groups: federation.Records) -> np.ndarray:
    table = np.vstack([np.column_stack([group.x, group.y]) for group in groups])
    return table[np.lexsort(table.T)]


@pytest.mark.parametrize("name", federation.names())
@pytest.mark.parametrize("clients", [1, 2, 10, 100])
def test_every_record_is_held_out_or_dealt_exactly_once(name, clients):
    loaded = federation.load(name, clients=clients, seed=5)
    alone = federation.load(name, clients=1, seed=0)
    assert len(loaded.parties) == clients
    assert min(loaded.sizes) >= 1
    np.testing.assert_array_equal(rows(*loaded.parties, loaded.held_out), rows(*alone.parties, alone.held_out))


@pytest.mark.parametrize("name", federation.names())
def test_the_public_constants_bound_the_features(name):
    loaded = federation.load(name, clients=2, seed=0)
    x = np.vstack([loaded.held_out.x, *(party.x for party in loaded.parties)]) / np.array(loaded.schema.units)
    assert len(loaded.schema.units) == len(loaded.schema.features) == x.shape[1]
    assert np.abs(x).max() <= 1


def test_held_out_records_keep_the_share_of_labels():
    loaded = federation.load("breast-cancer", clients=10, seed=3)
    rest = np.concatenate([party.y for party in loaded.parties])
    assert len(loaded.held_out) == 171
    assert loaded.held_out.y.mean() == pytest.approx(rest.mean(), abs=0.005)


@pytest.mark.parametrize("clients", [10, 100])
def test_sizes_are_uneven_and_labels_skewed(clients):
    loaded = federation.load("breast-cancer", clients=clients, seed=1)
    share = np.array([party.y.mean() for party in loaded.parties])
    assert min(loaded.sizes) >= (4 if clients == 10 else 2)
    assert max(loaded.sizes) >= 3 * min(loaded.sizes)
    assert share.min() < 0.45
    assert share.max() > 0.9
    assert max(loaded.sizes) <= loaded.weight_cap < 2 * max(loaded.sizes)


def test_the_seed_fixes_the_split():
    one, same, other = (federation.load("breast-cancer", clients=10, seed=seed) for seed in (7, 7, 8))
    for ours, theirs in zip((*one.parties, one.held_out), (*same.parties, same.held_out), strict=True):
        np.testing.assert_array_equal(ours.x, theirs.x)
        np.testing.assert_array_equal(ours.y, theirs.y)
    assert one.sizes != other.sizes


def test_as_many_clients_as_records_is_the_limit():
    assert set(federation.load("breast-cancer", clients=398, seed=0).sizes) == {1}
    with pytest.raises(InputError, match="1 to 398"):
        federation.load("breast-cancer", clients=399, seed=0)


@pytest.mark.parametrize(
    ("name", "clients", "seed", "words"),
    [("no-such", 10, 0, "breast-cancer"), ("wine", 0, 0, "clients"), ("wine", 10, -1, "seed")],
)
def test_load_refuses(name, clients, seed, words):
    with pytest.raises(InputError, match=words):
        federation.load(name, clients=clients, seed=seed)


def test_pooled_statistics_scale_like_all_records_in_one_place():
    loaded = federation.load("breast-cancer", clients=10, seed=2)
    units = loaded.schema.units
    pooled = np.average([local_statistics(party, units) for party in loaded.parties], axis=0, weights=loaded.sizes)
    scaling = scaling_from_statistics(pooled, units)
    together = np.vstack([party.x for party in loaded.parties])
    np.testing.assert_allclose(scaling.mean, together.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(scaling.deviation, together.std(axis=0), rtol=1e-6)
    assert np.abs(scaling.apply(loaded.held_out).x).max() <= LIMIT


def test_a_constant_feature_is_left_finite():
    pooled = np.array([0.5, 0.25, 0.25, 0.0625 - 1e-7])  # rounding may even push a variance below 0
    scaling = scaling_from_statistics(pooled, (10.0, 1.0))
    np.testing.assert_array_equal(scaling.deviation, [10.0, 1.0])
    np.testing.assert_array_equal(scaling.mean, [5.0, 0.25])
