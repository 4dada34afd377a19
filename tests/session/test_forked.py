"""A forked child holds a copy of every session and key that its parent opened: it can use none of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import secagg
from children import all_refused, in_child, needs_fork
from cohort import Cohort, plan
from secagg import BeaconNeeded, InputNeeded

pytestmark = needs_fork


def client_calls(client: secagg.ClientSession, request: bytes, vector: np.ndarray) -> list[Callable[[], object]]:
    return [
        lambda: client.receive(request),
        lambda: client.submit(vector),
        lambda: client.use_beacon(bytes(32)),
        client.delivered,
        client.save,
    ]


def server_calls(server: secagg.ServerSession, reply: bytes) -> list[Callable[[], object]]:
    return [
        server.requests,
        lambda: server.receive(0, reply),
        lambda: server.receive_all([(0, reply)]),
        lambda: server.use_beacon(bytes(32)),
        server.advance,
        server.abort,
        server.save,
    ]


MODELS = {
    "semi-honest": plan(4, 2),
    "malicious-server": plan(4, 2, threat="malicious-server"),
    "sparse": plan(40, 2, threat="malicious-server", protocol="secagg+", dropout=0.1),
}


@pytest.mark.parametrize("model", MODELS)
def test_a_child_can_use_no_session_of_either_side_in_any_state(model):
    params = MODELS[model]
    cohort = Cohort(params, np.zeros((params.clients, 2)), context=b"round")
    server, client, vector = cohort.server, cohort.clients[0], np.zeros(2)
    while server.stage is not None:
        if server.beacon_needed:
            server.use_beacon(cohort.beacon)
        request = server.requests()[0]
        all_refused(*client_calls(client, request, vector), *server_calls(server, request))
        answer = client.receive(request)
        if isinstance(answer, BeaconNeeded):
            all_refused(*client_calls(client, request, vector))
            answer = client.use_beacon(cohort.beacon)
        if isinstance(answer, InputNeeded):
            all_refused(*client_calls(client, request, vector))
            answer = client.submit(vector)
        server.receive(0, answer.payload)
        for one, asked in server.requests().items():
            if one:
                server.receive(one, cohort.answer(one, asked))
        server.advance()
    all_refused(*client_calls(client, request, vector), *server_calls(server, answer.payload))
    assert server.result.survivors == tuple(range(params.clients))


def test_a_child_may_use_what_it_restores():
    cohort = Cohort(MODELS["semi-honest"], np.zeros((4, 2)))
    saved, request = cohort.clients[0].save(), cohort.server.requests()[0]
    assert in_child(lambda: secagg.ClientSession.restore(saved, 0).receive(request)) == ["answered"]


def test_a_child_of_a_child_is_one_too():
    client = Cohort(MODELS["semi-honest"], np.zeros((4, 2))).clients[0]

    def deeper() -> None:
        (told,) = in_child(client.save)
        assert told.startswith("LocalProtocolError")

    assert in_child(deeper) == ["answered"]
