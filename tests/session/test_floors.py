"""Both floors, on both sides: S survivors in all and t in each neighbourhood, or nothing is revealed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cohort import Cohort, plan
from secagg import STAGES, ServerFault, TooFewClients, simulate
from secagg.wire import HEADER_BYTES, encode_bitmap


def zeros(params):
    return np.zeros((params.clients, params.dimension))


@pytest.mark.parametrize("stage", STAGES[:3])
def test_the_round_stands_at_s_survivors_and_stops_below(stage):
    params = plan(10, 2, dropout=0.3)
    assert params.minimum_survivors == 7
    simulate(zeros(params), params=params, faults=dict.fromkeys(range(3), stage))
    with pytest.raises(TooFewClients) as caught:
        simulate(zeros(params), params=params, faults=dict.fromkeys(range(4), stage))
    assert (caught.value.have, caught.value.need) == (6, 7)


def test_unmasking_stands_at_t_holders_of_each_secret_and_stops_below():
    params = replace(plan(10, 2, dropout=0.3), threshold=5)
    # A survivor that answers holds no share of its own seed, so t holders of everybody's take t + 1 answers
    simulate(zeros(params), params=params, faults=dict.fromkeys(range(4), "unmask"))
    with pytest.raises(TooFewClients) as caught:
        simulate(zeros(params), params=params, faults=dict.fromkeys(range(5), "unmask"))
    assert (caught.value.have, caught.value.need) == (4, 5)


def test_a_stage_that_cannot_close_stays_open_and_closes_when_answers_come():
    params = plan(4, 2)
    cohort = Cohort(params, zeros(params))
    requests = cohort.server.requests()
    assert cohort.server.waiting_for == (0, 1, 2, 3)
    cohort.server.receive(0, cohort.answer(0, requests[0]))
    assert not cohort.server.ready
    with pytest.raises(TooFewClients):
        cohort.server.advance()
    assert cohort.server.stage == "advertise_keys"
    for one in (1, 2, 3):
        cohort.server.receive(one, cohort.answer(one, requests[one]))
    assert cohort.server.ready
    assert cohort.server.waiting_for == ()
    cohort.server.advance()
    assert cohort.run().survivors == (0, 1, 2, 3)


def at_masked(params, stages=3):
    cohort = Cohort(params, zeros(params))
    for _ in range(stages):
        cohort.run_stage()
    return cohort


def unmask_request(cohort, one, survivors):
    request = cohort.server.requests()[one]
    members = np.zeros(cohort.params.clients, dtype=bool)
    members[list(survivors)] = True
    return request[:HEADER_BYTES] + encode_bitmap(members)


def test_a_client_releases_nothing_where_it_is_left_out_itself():
    params = plan(6, 2, dropout=0.3)
    cohort = at_masked(params)
    with pytest.raises(ServerFault, match="misses this client"):
        cohort.clients[0].receive(unmask_request(cohort, 0, range(1, 6)))


def test_a_client_releases_nothing_for_survivors_that_never_shared():
    params = plan(6, 2, dropout=0.3)
    cohort = Cohort(params, zeros(params))
    cohort.run_stage()
    cohort.run_stage({5: "share_keys"})
    cohort.run_stage()
    with pytest.raises(ServerFault, match="never shared keys"):
        cohort.clients[0].receive(unmask_request(cohort, 0, range(6)))


def sparse():
    params = plan(60, 2, dropout=0.4, protocol="secagg+")
    assert params.graph == "harary"
    return params


def test_sharers_stop_below_s_once_those_without_neighbours_are_left_out():
    params = sparse()
    cohort = at_masked(params, stages=1)
    gone = cohort.server._state.graph.neighbours(0)[params.threshold - 1 :].tolist()
    others = [one for one in range(1, 60) if one not in gone]
    gone += others[: params.clients - params.minimum_survivors - len(gone)]
    with pytest.raises(TooFewClients, match="t neighbours") as caught:
        cohort.run_stage(dict.fromkeys(gone, "share_keys"))
    assert caught.value.have < caught.value.need == params.minimum_survivors
    assert len(cohort.server.waiting_for) == params.clients - params.minimum_survivors


def test_inputs_stop_where_a_neighbourhood_has_fewer_than_t_survivors():
    params = sparse()
    cohort = at_masked(params, stages=2)
    *gone, last = cohort.server._state.graph.neighbours(0)[params.threshold - 1 :].tolist()
    with pytest.raises(TooFewClients, match="holders") as caught:
        cohort.run_stage(dict.fromkeys([*gone, last], "masked_input"))
    assert (caught.value.have, caught.value.need) == (params.threshold - 1, params.threshold)
    cohort.server.receive(last, cohort.answer(last, cohort.server.requests()[last]))
    cohort.server.advance()


def test_clients_whose_neighbourhood_is_gone_count_as_dropped_before_anybody_masks_with_them():
    params = sparse()
    cohort = at_masked(params, stages=1)
    graph = cohort.server._state.graph
    lonely = 0
    gone = graph.neighbours(lonely)[: params.neighbours - params.threshold + 1].tolist()
    cohort.run_stage(dict.fromkeys(gone, "share_keys"))
    assert lonely not in cohort.server.requests()
    result = cohort.run()
    assert lonely not in result.survivors
    assert result.dropped[lonely] == "share_keys"
