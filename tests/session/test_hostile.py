"""Messages that no honest party sends: a typed error that names whose fault it is, and nothing changes or leaks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import secagg
from cohort import Cohort, plan
from secagg import (
    ClientSession,
    InputError,
    InputNeeded,
    LocalProtocolError,
    PeerFault,
    SecAggError,
    ServerFault,
    ServerSession,
    StaleMessage,
    TooFewClients,
)
from secagg.pairwise.messages import Kind
from secagg.wire import HEADER_BYTES

PARAMS = plan(6, 3, dropout=0.3)
VECTORS = np.linspace(-1, 1, 18).reshape(6, 3)


def transcript(seed="hostile"):
    """Every request to and reply of client 2, the sessions as they stood before each stage, and the whole cohort."""
    cohort = Cohort(PARAMS, VECTORS, seed=seed)
    requests, replies, clients, servers = [], [], [], []
    while cohort.server.stage is not None:
        clients.append(cohort.clients[2].save())
        pending = cohort.server.requests()
        for one, request in pending.items():
            if one == 2:
                servers.append(cohort.server.save())
            reply = cohort.answer(one, request)
            cohort.server.receive(one, reply)
            if one == 2:
                requests.append(request)
                replies.append(reply)
        cohort.server.advance()
    clients.append(cohort.clients[2].save())
    servers.append(cohort.server.save())
    return requests, replies, clients, servers


REQUESTS, REPLIES, CLIENTS, SERVERS = transcript()
OTHER_REQUESTS, OTHER_REPLIES, _, _ = transcript("another session")


@pytest.mark.parametrize("state", range(5))
@pytest.mark.parametrize("message", range(4))
def test_every_request_in_every_client_state(state, message):
    client = ClientSession.restore(CLIENTS[state])
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
    server = ServerSession.restore(SERVERS[state])
    before = server.save()
    if message == state:
        server.receive(2, REPLIES[message])
        assert server.save() != before
        with pytest.raises(StaleMessage, match="in already"):
            server.receive(2, REPLIES[message])
        return
    with pytest.raises(StaleMessage if message < state else PeerFault) as caught:
        server.receive(2, REPLIES[message])
    assert caught.value.client_id == 2
    assert server.save() == before


@pytest.mark.parametrize("state", range(5))
@pytest.mark.parametrize("message", range(4))
def test_replies_sent_to_clients_and_requests_sent_to_servers(state, message):
    client, server = ClientSession.restore(CLIENTS[state]), ServerSession.restore(SERVERS[state])
    with pytest.raises(ServerFault, match="not from the server"):
        client.receive(REPLIES[message])
    with pytest.raises(PeerFault):
        server.receive(2, REQUESTS[message])


@pytest.mark.parametrize("stage", range(1, 4))
def test_messages_of_another_session_are_refused(stage):
    client, server = ClientSession.restore(CLIENTS[stage]), ServerSession.restore(SERVERS[stage])
    with pytest.raises(ServerFault, match="another session"):
        client.receive(OTHER_REQUESTS[stage])
    with pytest.raises(PeerFault, match="another session"):
        server.receive(2, OTHER_REPLIES[stage])


def test_an_invitation_with_another_nonce_is_another_round():
    request = bytearray(REQUESTS[0])
    request[-1] ^= 1
    with pytest.raises(ServerFault, match="other parameters or another context"):
        ClientSession(PARAMS, 2).receive(request)


@given(stage=st.integers(0, 3), data=st.data())
@settings(max_examples=300)
def test_any_damage_to_a_request_is_a_typed_error_or_harmless(stage, data):
    payload = damaged(REQUESTS[stage], data)
    client = ClientSession.restore(CLIENTS[stage])
    before = client.save()
    try:
        client.receive(payload)
    except (ServerFault, PeerFault, TooFewClients):
        assert client.save() == before
        return
    # What a semi-honest client cannot tell from the truth: a roster with another's keys, or fewer survivors
    assert stage in (1, 2, 3)


@given(stage=st.integers(0, 3), data=st.data())
@settings(max_examples=300)
def test_any_damage_to_a_reply_is_a_peer_fault_or_counted_as_that_clients(stage, data):
    payload = damaged(REPLIES[stage], data)
    server = ServerSession.restore(SERVERS[stage])
    before = server.save()
    fault = None
    try:
        server.receive(2, payload)
    except PeerFault as caught:
        fault = caught
    assert fault is None or (fault.client_id == 2 and server.save() == before)


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
        ClientSession.restore(CLIENTS[state]).receive(payload)
    with pytest.raises(PeerFault):
        ServerSession.restore(SERVERS[state]).receive(2, payload)


@pytest.mark.parametrize("payload", [None, 7, "text", [1, 2], {}, 1.5])
def test_what_is_no_buffer_is_refused(payload):
    with pytest.raises(ServerFault):
        ClientSession(PARAMS, 2).receive(payload)
    with pytest.raises(PeerFault):
        ServerSession(PARAMS, range(6)).receive(2, payload)


@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)])
@pytest.mark.parametrize("stage", range(4))
def test_any_contiguous_buffer_serves_as_payload(stage, buffer):
    ServerSession.restore(SERVERS[stage]).receive(2, buffer(REPLIES[stage]))
    ClientSession.restore(CLIENTS[stage]).receive(buffer(REQUESTS[stage]))


def test_a_payload_whose_buffer_changes_afterwards_changes_nothing():
    for stage in range(4):
        server = ServerSession.restore(SERVERS[stage])
        payload = bytearray(REPLIES[stage])
        server.receive(2, payload)
        saved = server.save()
        payload[:] = bytes(len(payload))
        assert server.save() == saved


def test_swapped_ciphertexts_do_not_open():
    body = bytearray(REQUESTS[2])
    start = HEADER_BYTES + 1
    first, second = slice(start, start + 96), slice(start + 96, start + 192)
    body[first], body[second] = body[second], body[first]
    with pytest.raises(PeerFault, match="shares it sealed for this client are refused") as caught:
        ClientSession.restore(CLIENTS[2]).receive(bytes(body))
    assert caught.value.client_id == 0


LOW_ORDER = [
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:4])
@pytest.mark.parametrize("which", [0, 1])
def test_low_order_keys_are_refused_when_they_are_advertised(point, which):
    reply = bytearray(REPLIES[0])
    reply[HEADER_BYTES + 32 * which : HEADER_BYTES + 32 * (which + 1)] = point
    with pytest.raises(PeerFault, match="low order"):
        ServerSession.restore(SERVERS[0]).receive(2, reply)


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:4])
def test_low_order_keys_in_a_roster_are_refused_by_clients_too(point):
    roster = bytearray(REQUESTS[1])
    first_entry = HEADER_BYTES + 6 * 8 + 1
    roster[first_entry : first_entry + 32] = point
    with pytest.raises((PeerFault, ServerFault), match=r"low order|no honest client sends"):
        ClientSession.restore(CLIENTS[1]).receive(roster)


def test_one_key_for_both_purposes_is_refused():
    reply = bytearray(REPLIES[0])
    reply[HEADER_BYTES + 32 : HEADER_BYTES + 64] = reply[HEADER_BYTES : HEADER_BYTES + 32]
    with pytest.raises(PeerFault, match="both purposes"):
        ServerSession.restore(SERVERS[0]).receive(2, reply)


def test_a_roster_that_alters_or_repeats_this_clients_entry_is_refused():
    entries = HEADER_BYTES + 6 * 8 + 1
    altered = bytearray(REQUESTS[1])
    altered[entries + 2 * 96 + 95] ^= 1
    with pytest.raises(ServerFault, match="alters this client's entry"):
        ClientSession.restore(CLIENTS[1]).receive(altered)
    repeated = bytearray(REQUESTS[1])
    repeated[entries : entries + 32] = repeated[entries + 2 * 96 : entries + 2 * 96 + 32]
    with pytest.raises(ServerFault, match="more than once"):
        ClientSession.restore(CLIENTS[1]).receive(repeated)


def test_two_rosters_for_two_halves_never_share_a_session():
    """Clients that were shown different keys compute different sessions, so neither takes the other's shares."""
    cohort = Cohort(PARAMS, VECTORS)
    cohort.run_stage()
    requests = dict(cohort.server.requests())
    tampered = bytearray(requests[5])
    tampered[HEADER_BYTES + 6 * 8 + 1 + 3 * 96 + 40] ^= 1
    requests[5] = bytes(tampered)
    for one, request in requests.items():
        reply = cohort.answer(one, request)
        if one == 5:
            with pytest.raises(PeerFault, match="another session"):
                cohort.server.receive(one, reply)
        else:
            cohort.server.receive(one, reply)


def test_a_forged_release_is_noticed_and_the_sum_withheld():
    server = ServerSession.restore(SERVERS[3])
    forged = bytearray(REPLIES[3])
    forged[HEADER_BYTES] ^= 1
    server.receive(2, forged)
    requests = REQUESTS[3]
    cohort = Cohort(PARAMS, VECTORS, seed="hostile")
    for _ in range(3):
        cohort.run_stage()
    for one in range(3, 6):
        server.receive(one, cohort.answer(one, requests))
    with pytest.raises(PeerFault, match="do not rebuild what it advertised"):
        server.advance()
    assert server.stage == "unmask"


def test_a_share_outside_its_field_is_refused():
    forged = bytearray(REPLIES[3])
    forged[HEADER_BYTES : HEADER_BYTES + 8] = b"\xff" * 8
    with pytest.raises(PeerFault):
        ServerSession.restore(SERVERS[3]).receive(2, forged)


def test_an_upload_that_no_honest_client_makes_is_noticed_where_the_sum_shows_it():
    server = ServerSession.restore(SERVERS[2])
    cohort = Cohort(PARAMS, VECTORS, seed="hostile")
    for _ in range(2):
        cohort.run_stage()
    forged = bytearray(REPLIES[2])
    forged[-1] ^= 1 << 3  # the weight's top bits
    server.receive(2, forged)
    for one in range(3, 6):
        server.receive(one, cohort.answer(one, cohort.server.requests()[one]))
    cohort.answer(0, cohort.server.requests()[0])
    cohort.answer(1, cohort.server.requests()[1])
    cohort.answer(2, cohort.server.requests()[2])
    for one, request in server.advance().items():
        server.receive(one, cohort.clients[one].receive(request).payload)
    with pytest.raises(secagg.InconsistentSum):
        server.advance()


def test_padding_bits_must_be_zero():
    params = plan(3, 0, ring_bits=20)
    cohort = Cohort(params, np.zeros((3, 0)))
    for _ in range(2):
        cohort.run_stage()
    upload = bytearray(cohort.answer(0, cohort.server.requests()[0]))
    upload[-1] |= 0x80
    with pytest.raises(PeerFault, match="padding"):
        cohort.server.receive(0, upload)


def test_messages_are_bound_to_whom_the_transport_names():
    server = ServerSession.restore(SERVERS[0])
    with pytest.raises(PeerFault, match="another sender") as caught:
        server.receive(3, REPLIES[0])
    assert caught.value.client_id == 3
    with pytest.raises(PeerFault, match="not in the roster"):
        server.receive(77, REPLIES[0])


def test_messages_of_clients_that_dropped_earlier_are_stale():
    cohort = Cohort(PARAMS, VECTORS)
    late = cohort.answer(5, cohort.server.requests()[5])
    cohort.run_stage({5: "advertise_keys"})
    before = cohort.server.save()
    with pytest.raises(StaleMessage, match="stage was closed"):
        cohort.server.receive(5, late)
    assert cohort.server.save() == before
    relabelled = late[:6] + bytes([Kind.ENCRYPTED_SHARES]) + late[7:]
    with pytest.raises(StaleMessage, match="dropped out"):
        cohort.server.receive(5, relabelled)


def test_nothing_goes_on_after_abort_or_the_end():
    server = ServerSession(PARAMS, range(6))
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
    finished = ServerSession.restore(SERVERS[4])
    with pytest.raises(LocalProtocolError, match="done"):
        finished.advance()
    assert not finished.ready


def test_a_vector_is_submitted_once_and_only_when_asked_for():
    client = ClientSession.restore(CLIENTS[1])
    with pytest.raises(LocalProtocolError):
        client.submit(VECTORS[2])
    client = ClientSession.restore(CLIENTS[2])
    client.receive(REQUESTS[2])
    before = client.save()
    for vector in (np.zeros(2), np.full(3, np.nan), np.zeros(3, int), np.zeros((3, 1)), None):
        with pytest.raises(InputError):
            client.submit(vector)
    for weight in (0, -1, 2, 1.0, True, None, "1"):
        with pytest.raises(InputError):
            client.submit(VECTORS[2], weight)
    assert client.save() == before
    client.submit(VECTORS[2])
    with pytest.raises(LocalProtocolError):
        client.submit(VECTORS[2])
    assert client.stage == "unmask"


@pytest.mark.parametrize("roster", [range(5), range(7), [0, 1, 2, 3, 4, 4], [-1, 1, 2, 3, 4, 5], [0.5, 1, 2, 3, 4, 5]])
def test_rosters_that_do_not_fit_are_refused(roster):
    with pytest.raises(InputError):
        ServerSession(PARAMS, roster)


@pytest.mark.parametrize("client_id", [-1, 2**64 - 1, 2**64, "a", None, 1.0, True])
def test_ids_that_no_client_bears_are_refused(client_id):
    with pytest.raises(InputError):
        ClientSession(PARAMS, client_id)
    with pytest.raises(InputError):
        ServerSession(plan(2, 1), [0, client_id])


def secrets_of(client):
    state = client._state
    for name in ("channel_secret", "mask_secret", "seed"):
        if hasattr(state, name):
            yield getattr(state, name)
    if hasattr(state, "shares"):
        yield state.shares[0, 0].tobytes()


def renderings(secret):
    yield from (repr(secret)[2:-1], secret.hex(), str(list(secret))[1:-1], str(int.from_bytes(secret, "little")))


@pytest.mark.parametrize("stage", range(1, 4))
def test_no_repr_or_exception_text_shows_a_secret(stage):
    client, server = ClientSession.restore(CLIENTS[stage]), ServerSession.restore(SERVERS[stage])
    secrets = list(secrets_of(client))
    assert secrets
    shown = [repr(client), repr(server), repr(client._state), repr(client._party), str(client._state)]
    shown += [repr(server._state), repr(server._round)]
    for request in [*REQUESTS, *REPLIES, *OTHER_REQUESTS, b"", REQUESTS[stage][:-1]]:
        try:
            shown.append(repr(ClientSession.restore(client.save()).receive(request)))
        except SecAggError as error:
            shown.append(repr(error) + str(error) + repr(error.__context__))
    for secret in secrets:
        for text in renderings(secret):
            assert not any(text in line for line in shown)


def test_a_copied_key_is_refused_when_it_is_advertised():
    server = ServerSession.restore(SERVERS[0])
    server.receive(2, REPLIES[0])
    for first, second in ((0, 0), (0, 32), (32, 0), (32, 32)):
        copied = bytearray(OTHER_REPLIES[0])
        copied[8:16] = (3).to_bytes(8, "little")
        copied[16:48] = REPLIES[0][16:48]
        at, source = HEADER_BYTES + second, HEADER_BYTES + first
        copied[at : at + 32] = REPLIES[0][source : source + 32]
        with pytest.raises(PeerFault, match="another client advertised") as caught:
            server.receive(3, copied)
        assert caught.value.client_id == 3


def test_keys_that_are_not_canonical_are_refused_on_both_sides():
    reply = bytearray(REPLIES[0])
    reply[HEADER_BYTES + 31] |= 0x80
    with pytest.raises(PeerFault, match="no honest client sends"):
        ServerSession.restore(SERVERS[0]).receive(2, reply)
    roster = bytearray(REQUESTS[1])
    entries = HEADER_BYTES + 6 * 8 + 1
    # This client's own channel key, in another form, under another name
    roster[entries : entries + 32] = roster[entries + 2 * 96 : entries + 2 * 96 + 32]
    roster[entries + 31] |= 0x80
    with pytest.raises(ServerFault, match="no honest client sends"):
        ClientSession.restore(CLIENTS[1]).receive(roster)
