"""Secrets are rebuilt batch by batch from as many shares as it takes, and a sum out of range is withheld."""

from __future__ import annotations

import numpy as np
import pytest

from cheats import reach
from cohort import Cohort, plan
from secagg import FixedPoint, InconsistentSum, PeerFault, RoundParams
from secagg.pairwise import recovery
from secagg.wire import HEADER_BYTES

EXACT = FixedPoint(clip=127.5, bits=8)
SHAPES = {
    "complete": {"clients": 9, "dropout": 0.25},
    "harary": {"clients": 40, "dropout": 0.1, "protocol": "secagg+"},
}


def drawn(params: RoundParams) -> tuple[Cohort, np.ndarray]:
    codes = np.random.default_rng(0).integers(0, 256, (params.clients, params.dimension))
    return Cohort(params, codes - EXACT.clip), codes


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_batches_give_the_sum_that_one_gives(monkeypatch, shape, at_once):
    monkeypatch.setattr(recovery, "SECRETS_AT_ONCE", at_once)
    monkeypatch.setattr(recovery, "MASKS_AT_ONCE", at_once)
    cohort, codes = drawn(plan(dimension=3, encoding=EXACT, **SHAPES[shape]))
    result = cohort.run({1: "masked_input", 4: "masked_input"})
    assert result.total.tolist() == codes[list(result.survivors)].sum(axis=0).tolist()


@pytest.mark.parametrize("dealer", [0, 5, 8])
def test_a_wrong_secret_is_laid_at_its_own_dealers_door_in_every_batch(monkeypatch, dealer):
    monkeypatch.setattr(recovery, "SECRETS_AT_ONCE", 2)
    cohort, _ = drawn(plan(dimension=3, encoding=EXACT, **SHAPES["complete"]))
    reach(cohort, "unmask", {})
    holder = 1
    row = int(cohort.server._state.graph.slot_of(np.array(holder), np.array(dealer)))
    for one, request in cohort.server.requests().items():
        reply = bytearray(cohort.answer(one, request))
        if one == holder:
            reply[HEADER_BYTES + 40 * row] ^= 1
        cohort.server.receive(one, bytes(reply))
    with pytest.raises(PeerFault, match="it dealt wrong ones, or a holder released one") as caught:
        cohort.server.advance()
    assert caught.value.client_id == dealer


def test_a_share_beyond_those_that_it_takes_is_not_looked_at():
    """Of the holders that answered the first t + 1 serve, so a forgery by the next one costs nobody the sum."""
    cohort, codes = drawn(plan(dimension=3, encoding=EXACT, threshold=5, **SHAPES["complete"]))
    params = cohort.params
    reach(cohort, "unmask", {})
    for one, request in cohort.server.requests().items():
        reply = bytearray(cohort.answer(one, request))
        if one == params.threshold + 1:
            reply[HEADER_BYTES:] = bytes(len(reply) - HEADER_BYTES)
        cohort.server.receive(one, bytes(reply))
    cohort.server.advance()
    assert cohort.server.result.total.tolist() == codes.sum(axis=0).tolist()


@pytest.mark.parametrize("coordinate", [0, 1, 2])
def test_any_coordinate_out_of_range_withholds_the_sum(coordinate):
    cohort, _ = drawn(plan(5, 3, encoding=EXACT, max_weight=1000))
    params = cohort.params
    assert params.clients * EXACT.largest_code < 1 << params.ring_bits - 1
    reach(cohort, "masked_input", {})
    for one, request in cohort.server.requests().items():
        reply = bytearray(cohort.answer(one, request))
        if one == 2:
            highest = (coordinate + 1) * params.ring_bits - 1
            reply[HEADER_BYTES + highest // 8] ^= 1 << highest % 8
        cohort.server.receive(one, bytes(reply))
    cohort.server.advance()
    for one, request in cohort.server.requests().items():
        cohort.server.receive(one, cohort.answer(one, request))
    with pytest.raises(InconsistentSum, match="out of range"):
        cohort.server.advance()
