"""Planned bytes are those that a real round sends, stage by stage, in both models and over both graphs."""

from __future__ import annotations

import numpy as np
import pytest

import secagg
from cohort import Cohort
from secagg.pairwise.costs import pairwise_traffic
from secagg.pairwise.stages import stages_of

ENCODING = secagg.FixedPoint(clip=1.0, bits=16)
SHAPES = {"complete": {"clients": 9, "protocol": "secagg"}, "harary": {"clients": 44, "protocol": "secagg+"}}


def planned(graph: str, threat: str, *, dimension: int = 33, max_weight: int = 5, **overrides) -> secagg.RoundParams:
    params = secagg.RoundParams.plan(
        dimension=dimension,
        encoding=ENCODING,
        max_weight=max_weight,
        dropout=0.1,
        corrupt=0.05,
        threat=threat,
        **(SHAPES[graph] | overrides),
    )
    assert params.graph == graph
    return params


@pytest.mark.parametrize("threat", ["semi-honest", "malicious-server"])
@pytest.mark.parametrize("graph", SHAPES)
@pytest.mark.parametrize("dropped", [0, None], ids=["nobody", "as-planned"])
def test_planned_bytes_are_those_of_a_real_round(graph, threat, dropped):
    params = planned(graph, threat)
    dropped = params.dropout_count if dropped is None else dropped
    vectors = np.random.default_rng(1).uniform(-1, 1, (params.clients, params.dimension))
    seen = secagg.simulate(vectors, params=params, faults=dict.fromkeys(range(dropped), "masked_input"))
    traffic = pairwise_traffic(params, dropped)
    assert {stage.stage: stage.up for stage in traffic.stages} == seen.bytes_up
    assert {stage.stage: stage.down for stage in traffic.stages} == seen.bytes_down
    assert traffic.client_up == sum(seen.bytes_up.values())
    assert traffic.client_down == sum(seen.bytes_down.values())


@pytest.mark.parametrize("threat", ["semi-honest", "malicious-server"])
@pytest.mark.parametrize("graph", SHAPES)
def test_the_servers_bytes_are_all_that_sessions_exchange(graph, threat):
    params = planned(graph, threat)
    dropped = params.dropout_count
    cohort = Cohort(params, np.zeros((params.clients, params.dimension)))
    sent = received = 0
    for stage in stages_of(threat):
        if cohort.server.beacon_needed:
            cohort.server.use_beacon(cohort.beacon)
        for one, request in cohort.server.requests().items():
            sent += len(request)
            if stage == "masked_input" and one < dropped:
                continue
            answer = cohort.answer(one, request)
            received += len(answer)
            cohort.server.receive(one, answer)
        cohort.server.advance()
    traffic = pairwise_traffic(params, dropped)
    assert (traffic.server_sent, traffic.server_received) == (sent, received)


@pytest.mark.parametrize("bits", [1, 16, 32])
def test_an_upload_is_the_packed_ring_vector(bits):
    params = secagg.RoundParams.plan(
        clients=9, dimension=1000, encoding=secagg.FixedPoint(clip=1.0, bits=bits), protocol="secagg"
    )
    upload = next(stage for stage in pairwise_traffic(params, 0).stages if stage.stage == "masked_input").up
    assert upload == 48 + -(-1001 * params.ring_bits // 8)
