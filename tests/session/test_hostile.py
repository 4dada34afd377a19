"""Messages that no honest party sends: a typed error that names whose fault it is, and nothing changes or leaks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import secagg
from cohort import Cohort, plan
from secagg import (
    IN_MEMORY,
    ClientSession,
    InputError,
    InputNeeded,
    LocalProtocolError,
    PeerFault,
    ServerFault,
    ServerSession,
    StaleMessage,
    TooFewClients,
)
from secagg.wire import HEADER_BYTES

PARAMS = plan(6, 3, dropout=0.3)
VECTORS = np.linspace(-1, 1, 18).reshape(6, 3)


def transcript(seed="hostile"):
    """Every request to and reply of client 2, the sessions as they stood before each stage, and the whole cohort."""
    cohort = Cohort(PARAMS, VECTORS, seed=seed)
    requests, replies, clients, servers = [], [], [], []
    while cohort.server.stage is not None:
        clients.append(cohort.clients[2].save(seal_key=None))
        pending = cohort.server.requests()
        for one, request in pending.items():
            if one == 2:
                servers.append(cohort.server.save(seal_key=None))
            reply = cohort.answer(one, request)
            cohort.server.receive(one, reply)
            if one == 2:
                requests.append(request)
                replies.append(reply)
        cohort.server.advance()
    clients.append(cohort.clients[2].save(seal_key=None))
    servers.append(cohort.server.save(seal_key=None))
    return requests, replies, clients, servers


REQUESTS, REPLIES, CLIENTS, SERVERS = transcript()
OTHER_REQUESTS, OTHER_REPLIES, _, _ = transcript("another session")


@pytest.mark.parametrize("state", range(5))
@pytest.mark.parametrize("message", range(4))
def test_every_request_in_every_client_state(state, message):
    client = ClientSession.restore(CLIENTS[state], 2, keep=IN_MEMORY)
    if message == state:
        assert isinstance(client.receive(REQUESTS[message]), secagg.Reply | InputNeeded)
    elif message < state:
        assert client.receive(REQUESTS[message]).payload == REPLIES[message]
    else:
        with pytest.raises(ServerFault, match="awaits"):
            client.receive(REQUESTS[message])


@pytest.mark.parametrize("state", range(5))
@pytest.mark.parametrize("message", range(4))
def test_every_reply_in_every_server_state(state, message):
    server = ServerSession.restore(SERVERS[state], keep=IN_MEMORY)
    before = server.save(seal_key=None)
    if message == state:
        server.receive(2, REPLIES[message])
        assert server.save(seal_key=None) != before
        with pytest.raises(StaleMessage, match="in already"):
            server.receive(2, REPLIES[message])
        return
    with pytest.raises(StaleMessage if message < state else PeerFault) as caught:
        server.receive(2, REPLIES[message])
    assert caught.value.client_id == 2
    assert server.save(seal_key=None) == before


@pytest.mark.parametrize("state", range(5))
@pytest.mark.parametrize("message", range(4))
def test_replies_sent_to_clients_and_requests_sent_to_servers(state, message):
    client, server = (
        ClientSession.restore(CLIENTS[state], 2, keep=IN_MEMORY),
        ServerSession.restore(SERVERS[state], keep=IN_MEMORY),
    )
    with pytest.raises(ServerFault, match="not from the server"):
        client.receive(REPLIES[message])
    with pytest.raises(PeerFault):
        server.receive(2, REQUESTS[message])


def test_an_invitation_with_another_nonce_is_another_round():
    request = bytearray(REQUESTS[0])
    request[-1] ^= 1
    with pytest.raises(ServerFault, match="other parameters or another context"):
        ClientSession(PARAMS, 2, keep=IN_MEMORY).receive(request)


@given(stage=st.integers(0, 3), data=st.data())
@settings(max_examples=300)
def test_any_damage_to_a_request_is_a_typed_error_or_harmless(stage, data):
    payload = damaged(REQUESTS[stage], data)
    client = ClientSession.restore(CLIENTS[stage], 2, keep=IN_MEMORY)
    before = client.save(seal_key=None)
    try:
        client.receive(payload)
    except (ServerFault, PeerFault, TooFewClients):
        assert client.save(seal_key=None) == before
        return
    # What a semi-honest client cannot tell from the truth: a roster with another's keys, or fewer survivors
    assert stage in (1, 2, 3)


@given(stage=st.integers(0, 3), data=st.data())
@settings(max_examples=300)
def test_any_damage_to_a_reply_is_a_peer_fault_or_counted_as_that_clients(stage, data):
    payload = damaged(REPLIES[stage], data)
    server = ServerSession.restore(SERVERS[stage], keep=IN_MEMORY)
    before = server.save(seal_key=None)
    fault = None
    try:
        server.receive(2, payload)
    except PeerFault as caught:
        fault = caught
    assert fault is None or (fault.client_id == 2 and server.save(seal_key=None) == before)


def damaged(payload, data):
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "splice"]))
    if how == "flip":
        at = data.draw(st.integers(0, len(payload) - 1))
        return payload[:at] + bytes([payload[at] ^ data.draw(st.integers(1, 255))]) + payload[at + 1 :]
    if how == "cut":
        return payload[: data.draw(st.integers(0, len(payload) - 1))]
    if how == "grow":
        return payload + data.draw(st.binary(min_size=1, max_size=200))
    other = data.draw(st.sampled_from(REQUESTS + REPLIES + OTHER_REQUESTS + OTHER_REPLIES))
    return payload[:HEADER_BYTES] + other[HEADER_BYTES:] + b"\0" * (other[HEADER_BYTES:] == payload[HEADER_BYTES:])


@given(payload=st.binary(max_size=300), state=st.integers(0, 4))
def test_arbitrary_bytes_are_refused_by_both_sides(payload, state):
    with pytest.raises(ServerFault):
        ClientSession.restore(CLIENTS[state], 2, keep=IN_MEMORY).receive(payload)
    with pytest.raises(PeerFault):
        ServerSession.restore(SERVERS[state], keep=IN_MEMORY).receive(2, payload)


def released() -> memoryview:
    view = memoryview(bytes(400))
    view.release()
    return view


@pytest.mark.parametrize("payload", [None, 7, "text", [1, 2], {}, 1.5, memoryview(bytes(400))[::2], released()])
def test_what_is_no_buffer_is_the_callers_fault_and_nobody_elses(payload):
    client, server = (
        ClientSession.restore(CLIENTS[1], 2, keep=IN_MEMORY),
        ServerSession.restore(SERVERS[0], keep=IN_MEMORY),
    )
    for call in (
        lambda: client.receive(payload),
        lambda: server.receive(2, payload),
        lambda: server.receive_all([(2, payload)]),
    ):
        with pytest.raises(InputError):
            call()
    assert isinstance(client.receive(REQUESTS[1]), secagg.Reply)
    server.receive(2, REPLIES[0])


@pytest.mark.parametrize("saved", [None, 7, "text", [1, 2], np.zeros(400, np.uint8), released()])
def test_what_is_no_saved_state_is_the_callers_fault(saved):
    with pytest.raises(InputError):
        ClientSession.restore(saved, 2, keep=IN_MEMORY)
    with pytest.raises(InputError):
        ServerSession.restore(saved, keep=IN_MEMORY)


@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)])
@pytest.mark.parametrize("stage", range(4))
def test_any_contiguous_buffer_serves_as_payload(stage, buffer):
    ServerSession.restore(SERVERS[stage], keep=IN_MEMORY).receive(2, buffer(REPLIES[stage]))
    ClientSession.restore(CLIENTS[stage], 2, keep=IN_MEMORY).receive(buffer(REQUESTS[stage]))


def test_a_payload_whose_buffer_changes_afterwards_changes_nothing():
    for stage in range(4):
        server = ServerSession.restore(SERVERS[stage], keep=IN_MEMORY)
        payload = bytearray(REPLIES[stage])
        server.receive(2, payload)
        saved = server.save(seal_key=None)
        payload[:] = bytes(len(payload))
        assert server.save(seal_key=None) == saved


def test_one_key_for_both_purposes_is_refused():
    reply = bytearray(REPLIES[0])
    reply[HEADER_BYTES + 32 : HEADER_BYTES + 64] = reply[HEADER_BYTES : HEADER_BYTES + 32]
    with pytest.raises(PeerFault, match="both purposes"):
        ServerSession.restore(SERVERS[0], keep=IN_MEMORY).receive(2, reply)


def test_messages_are_bound_to_whom_the_transport_names():
    server = ServerSession.restore(SERVERS[0], keep=IN_MEMORY)
    with pytest.raises(PeerFault, match="another sender") as caught:
        server.receive(3, REPLIES[0])
    assert caught.value.client_id == 3
    with pytest.raises(PeerFault, match="not in the roster"):
        server.receive(77, REPLIES[0])


def test_nothing_goes_on_after_abort_or_the_end():
    server = ServerSession(PARAMS, range(6), keep=IN_MEMORY)
    with pytest.raises(LocalProtocolError, match="no result"):
        _ = server.result
    server.abort()
    assert server.stage is None
    assert not server.ready
    assert server.waiting_for == ()
    assert dict(server.requests()) == {}
    for call in (server.advance, lambda: server.receive(2, REPLIES[0])):
        with pytest.raises(LocalProtocolError):
            call()
    finished = ServerSession.restore(SERVERS[4], keep=IN_MEMORY)
    with pytest.raises(LocalProtocolError, match="done"):
        finished.advance()
    assert not finished.ready


def test_a_vector_is_submitted_once_and_only_when_asked_for():
    client = ClientSession.restore(CLIENTS[1], 2, keep=IN_MEMORY)
    with pytest.raises(LocalProtocolError):
        client.submit(VECTORS[2])
    client = ClientSession.restore(CLIENTS[2], 2, keep=IN_MEMORY)
    client.receive(REQUESTS[2])
    before = client.save(seal_key=None)
    for vector in (np.zeros(2), np.full(3, np.nan), np.zeros(3, int), np.zeros((3, 1)), None):
        with pytest.raises(InputError):
            client.submit(vector)
    for weight in (0, -1, 2, 1.0, True, None, "1"):
        with pytest.raises(InputError):
            client.submit(VECTORS[2], weight)
    assert client.save(seal_key=None) == before
    client.submit(VECTORS[2])
    with pytest.raises(LocalProtocolError):
        client.submit(VECTORS[2])
    assert client.stage == "unmask"


@pytest.mark.parametrize(
    "roster",
    [range(5), range(7), [0, 1, 2, 3, 4, 4], [0, 1, 2, 3, 4, 5, 5], [-1, 1, 2, 3, 4, 5], [0.5, 1, 2, 3, 4, 5], 6, None],
    ids=str,
)
def test_rosters_that_do_not_fit_are_refused(roster):
    with pytest.raises(InputError):
        ServerSession(PARAMS, roster, keep=IN_MEMORY)


def test_sessions_refuse_parameters_and_contexts_of_other_types():
    for build in (lambda *args, **options: ClientSession(*args, 0, **options, keep=IN_MEMORY), _server):
        for params in (None, {}, "secagg"):
            with pytest.raises(InputError, match="params must be those of a protocol"):
                build(params)
        for context in (None, "text", bytearray(2)):
            with pytest.raises(InputError, match="context must be bytes"):
                build(PARAMS, context=context)


def _server(params, **options):
    return ServerSession(params, range(6), **options, keep=IN_MEMORY)


@pytest.mark.parametrize("client_id", [-1, 2**64 - 1, 2**64, "a", None, 1.0, True])
def test_ids_that_no_client_bears_are_refused(client_id):
    with pytest.raises(InputError):
        ClientSession(PARAMS, client_id, keep=IN_MEMORY)
    with pytest.raises(InputError):
        ServerSession(plan(2, 1), [0, client_id], keep=IN_MEMORY)


def test_keys_that_are_not_canonical_are_refused_on_both_sides():
    reply = bytearray(REPLIES[0])
    reply[HEADER_BYTES + 31] |= 0x80
    with pytest.raises(PeerFault, match="no honest client sends"):
        ServerSession.restore(SERVERS[0], keep=IN_MEMORY).receive(2, reply)
    roster = bytearray(REQUESTS[1])
    entries = HEADER_BYTES + 6 * 8 + 1
    # This client's own channel key, in another form, under another name
    roster[entries : entries + 32] = roster[entries + 2 * 96 : entries + 2 * 96 + 32]
    roster[entries + 31] |= 0x80
    with pytest.raises(ServerFault, match="no honest client sends"):
        ClientSession.restore(CLIENTS[1], 2, keep=IN_MEMORY).receive(roster)
