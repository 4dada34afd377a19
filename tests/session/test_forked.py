"""A forked child holds a copy of every session and key that its parent opened: it can use none of them."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest

import secagg
from children import all_refused, fork, in_child, needs_fork
from cohort import Cohort, plan
from secagg import IN_MEMORY, BeaconNeeded, InputNeeded

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
    saved, request = cohort.clients[0].save(seal_key=None), cohort.server.requests()[0]
    assert in_child(lambda: secagg.ClientSession.restore(saved, 0, keep=IN_MEMORY).receive(request)) == ["answered"]


def test_a_child_of_a_child_is_one_too():
    client = Cohort(MODELS["semi-honest"], np.zeros((4, 2))).clients[0]

    def deeper() -> None:
        (told,) = in_child(client.save)
        assert told.startswith("LocalProtocolError")

    assert in_child(deeper) == ["answered"]


def test_messages_that_were_not_made_yet_are_not_made_in_a_child():
    cohort = Cohort(MODELS["malicious-server"], np.zeros((4, 2)), context=b"round")
    requests = cohort.server.requests()
    all_refused(lambda: requests[0])
    cohort.run_stage()
    all_refused(cohort.server.transcript)


def test_a_call_whose_own_caller_forks_ends_in_the_child():
    cohort = Cohort(MODELS["semi-honest"], np.zeros((4, 2)))
    replies = [(one, cohort.answer(one, request)) for one, request in cohort.server.requests().items()]
    told = []

    def forking():
        yield replies[0]
        told.extend(in_child(lambda: None))
        yield from replies[1:]

    assert cohort.server.receive_all(forking()) == []
    assert told == ["answered"]
    child = []

    def going_on_in_the_child():
        child.append(fork())
        yield from ()

    read, write = os.pipe()
    try:
        cohort.server.receive_all(going_on_in_the_child())
    except secagg.LocalProtocolError as refused:
        os.write(write, str(refused).encode())
    if child[0] == 0:
        os._exit(0)
    os.waitpid(child[0], 0)
    assert b"forked" in os.read(read, 1000)
    assert cohort.server.waiting_for == ()
