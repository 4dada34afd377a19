"""Both floors, on both sides: S survivors in all and t in each neighbourhood, or nothing is revealed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cohort import Cohort, plan
from secagg import STAGES, ServerFault, TooFewClients, simulate
from secagg.wire import HEADER_BYTES, SERVER, Header, decode_bitmap, encode_bitmap


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


def test_a_client_releases_nothing_for_fewer_than_s_survivors():
    params = plan(10, 2, dropout=0.3)
    cohort = at_masked(params)
    with pytest.raises(TooFewClients) as caught:
        cohort.clients[0].receive(unmask_request(cohort, 0, range(6)))
    assert (caught.value.have, caught.value.need) == (6, 7)
    assert cohort.clients[0].stage == "unmask"
    cohort.clients[0].receive(unmask_request(cohort, 0, range(7)))


def test_a_client_releases_nothing_for_fewer_than_t_survivors_of_its_neighbourhood():
    params = plan(60, 2, dropout=0.4, protocol="secagg+")
    assert params.graph == "harary"
    cohort = at_masked(params)
    neighbours = cohort.clients[0]._state.neighbours.tolist()
    spared = neighbours[: params.threshold - 1]
    survivors = [one for one in range(60) if one not in neighbours or one in spared]
    assert len(survivors) >= params.minimum_survivors
    with pytest.raises(TooFewClients, match="neighbours") as caught:
        cohort.clients[0].receive(unmask_request(cohort, 0, survivors))
    assert (caught.value.have, caught.value.need) == (params.threshold - 1, params.threshold)
    cohort.clients[0].receive(unmask_request(cohort, 0, [*survivors, neighbours[params.threshold]]))


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


def test_a_client_masks_nothing_for_fewer_than_s_clients():
    params = plan(10, 2, dropout=0.3)
    cohort = at_masked(params, stages=2)
    request = cohort.server.requests()[0]
    bitmap = decode_bitmap(memoryview(request)[HEADER_BYTES : HEADER_BYTES + 2], 10)
    bitmap[6:] = False
    sealed = request[HEADER_BYTES + 2 :]
    with pytest.raises(TooFewClients) as caught:
        cohort.clients[0].receive(request[:HEADER_BYTES] + encode_bitmap(bitmap) + sealed[: 5 * 96])
    assert (caught.value.have, caught.value.need) == (6, 7)
    assert cohort.clients[0].stage == "masked_input"


def test_a_client_shares_nothing_for_fewer_than_s_advertised_keys():
    params = plan(10, 2, dropout=0.3)
    cohort = at_masked(params, stages=1)
    request = cohort.server.requests()[0]
    body = request[HEADER_BYTES:]
    members = np.arange(10) < 6
    shorter = body[:80] + encode_bitmap(members) + body[82 : 82 + 6 * 96]
    with pytest.raises(TooFewClients) as caught:
        cohort.clients[0].receive(request[:HEADER_BYTES] + shorter)
    assert (caught.value.have, caught.value.need) == (6, 7)


def test_clients_whose_neighbourhood_is_gone_count_as_dropped_before_anybody_masks_with_them():
    params = plan(60, 2, dropout=0.4, protocol="secagg+")
    cohort = at_masked(params, stages=1)
    graph = cohort.server._state.graph
    lonely = 0
    gone = graph.neighbours(lonely)[: params.neighbours - params.threshold + 1].tolist()
    cohort.run_stage(dict.fromkeys(gone, "share_keys"))
    assert lonely not in cohort.server.requests()
    result = cohort.run()
    assert lonely not in result.survivors
    assert result.dropped[lonely] == "share_keys"


def test_the_unmask_request_names_survivors_and_has_no_room_for_more():
    params = plan(9, 2, dropout=0.3)
    cohort = Cohort(params, zeros(params))
    for _ in range(2):
        cohort.run_stage()
    cohort.run_stage({4: "masked_input"})
    request = cohort.server.requests()[0]
    head = Header(kind=6, sender=SERVER, session=cohort.server._state.session_id).encode()
    assert request == head + bytes([0b11101111, 0b1])
