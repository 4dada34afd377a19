"""The oracle of the state machines finds a leak where there is one, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from knowledge import Masks, Upload, left_null_space
from world import SMALL, World, parameters


def pairs(*edges):
    """Rows of clients that share masks along ``edges``: the lower end adds, the higher subtracts."""
    count = 1 + max(max(edge) for edge in edges)
    rows = [{} for _ in range(count)]
    for low, high in edges:
        rows[low][f"{low}-{high}".encode()], rows[high][f"{low}-{high}".encode()] = 1, -1
    return rows


def test_a_connected_graph_of_masks_gives_the_sum_alone():
    assert left_null_space(pairs((0, 1), (1, 2), (2, 3))).tolist() == [[1, 1, 1, 1]]


def test_a_graph_that_falls_apart_gives_the_sum_of_each_part():
    assert left_null_space(pairs((0, 1), (2, 3), (3, 4))).tolist() == [[1, 1, 0, 0, 0], [0, 0, 1, 1, 1]]


def test_one_unknown_self_mask_hides_everything():
    rows = pairs((0, 1), (1, 2))
    rows[1][b"self"] = 1
    assert left_null_space(rows).shape == (0, 3)


def test_a_self_mask_that_two_share_gives_their_difference():
    assert left_null_space([{b"self": 1}, {b"self": 1}]).tolist() in ([[1, 2**31 - 2]], [[2**31 - 2, 1]])


def test_an_upload_without_masks_is_read():
    assert left_null_space([{}, {b"self": 1}]).tolist() == [[1, 0]]


@pytest.fixture(params=["semi-honest", "malicious-server"])
def world(request):
    made = World(parameters(request.param, SMALL[1]))
    made.finish()
    assert made.server.stage is None
    return made


def test_an_honest_round_gives_its_sum(world):
    world.ledger.check()
    assert [sorted(one) for one in world.ledger.derivable()] == [[0, 1, 2, 3, 4]]


def test_a_mask_secret_too_many_gives_one_client_away(world):
    """The seeds are out, as they must be; with its mask key besides, client 3 stands alone."""
    dealing = next(dealing for dealer, dealing in world.ledger.dealings if dealer == 3)
    world.ledger.exposed.add(dealing.secrets[0])
    with pytest.raises(AssertionError, match="2 independent sums"):
        world.ledger.check()
    assert [3] in [sorted(one) for one in world.ledger.derivable()]


def test_shares_count_from_the_threshold_on(world):
    dealing = next(dealing for dealer, dealing in world.ledger.dealings if dealer == 3)
    for index, holder in enumerate(dealing.shares):
        assert (dealing.secrets[0] in world.ledger.known_secrets()) == (index >= dealing.threshold)
        world.ledger.released[holder, 3, 0] = dealing.shares[holder][0]


def test_a_share_of_the_other_kind_is_noticed_in_any_message(world):
    dealing = next(dealing for dealer, dealing in world.ledger.dealings if dealer == 3)
    with pytest.raises(AssertionError, match="both kinds of share of 3 left holder 1"):
        world.ledger.left(1, bytes(6) + b"\xff" + b"anything" + dealing.shares[1][0], None)


def test_a_mask_may_serve_both_ends_of_a_pair_and_nothing_else():
    def upload(**row):
        return Upload(bytes(32), 0, {key.encode(): sign for key, sign in row.items()}, bytes(32), [], np.zeros(1))

    masks = Masks()
    masks.add(1, 0, upload(pair=1, a=1))
    masks.add(1, 1, upload(pair=-1, b=1))
    for again in (upload(a=1), upload(a=-1, pair=1), upload(c=2)):
        with pytest.raises(AssertionError, match=r"twice"):
            masks.add(2, 2, again)
