"""A session answers once: not from two threads, not from copies, and a restored server repeats what it did."""

from __future__ import annotations

import pickle
import threading
from dataclasses import replace

import numpy as np
import pytest

import secagg
from cohort import Cohort, deterministic, plan
from secagg import (
    IN_MEMORY,
    BeaconNeeded,
    ClientSession,
    DecodeError,
    InputError,
    InputNeeded,
    LocalProtocolError,
    ParameterError,
    PeerFault,
    ServerSession,
    StaleMessage,
    TooFewClients,
    snapshot,
)
from secagg.pairwise import saved


def ready_client(dimension):
    cohort = Cohort(plan(3, dimension), np.zeros((3, dimension)))
    cohort.run_stage()
    cohort.run_stage()
    client = cohort.clients[0]
    client.receive(cohort.server.requests()[0])
    return client


def test_two_threads_never_mask_two_vectors_under_the_same_masks():
    client = ready_client(1 << 20)
    outcomes = []

    def submit(value):
        try:
            outcomes.append(client.submit(np.full(1 << 20, value)).payload)
        except LocalProtocolError as refused:
            outcomes.append(refused)

    threads = [threading.Thread(target=submit, args=(value,)) for value in (-1.0, 1.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["LocalProtocolError", "bytes"]


def test_a_session_in_use_refuses_every_other_call():
    client, server = ready_client(2), ServerSession(plan(3, 2), range(3), keep=IN_MEMORY)
    inside = object()
    client._entry.enter(inside)
    server._entry.enter(inside)
    calls = [
        lambda: client.receive(b""),
        lambda: client.submit(np.zeros(2)),
        lambda: client.use_beacon(bytes(32)),
        client.delivered,
        client.save,
        lambda: server.receive(0, b""),
        lambda: server.use_beacon(bytes(32)),
        server.advance,
        server.abort,
        server.save,
    ]
    for call in calls:
        with pytest.raises(LocalProtocolError, match="another thread"):
            call()
    client._entry.leave(inside)
    client.submit(np.zeros(2))


@pytest.mark.parametrize(
    "error",
    [PeerFault(3, "x", proof=True), StaleMessage(4, "x"), TooFewClients(1, 2, "x")],
    ids=lambda error: type(error).__name__,
)
def test_errors_do_cross_process_boundaries(error):
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - an error holds no secret
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_a_restored_server_draws_the_same_graph_again():
    params = plan(60, 2, protocol="secagg+", dropout=0.1)
    cohort = Cohort(params, np.zeros((60, 2)))
    for one, request in cohort.server.requests().items():
        cohort.server.receive(one, cohort.answer(one, request))
    before = cohort.server.save(seal_key=None)
    first = dict(cohort.server.advance())
    again = ServerSession.restore(before, randomness=deterministic("another"), keep=IN_MEMORY)
    assert dict(again.advance()) == first


def test_two_servers_draw_different_graphs():
    params = plan(60, 2, protocol="secagg+", dropout=0.1)
    rows = []
    for seed in ("one", "other"):
        cohort = Cohort(params, np.zeros((60, 2)), seed=seed)
        cohort.run_stage()
        rows.append(cohort.server._state.graph.rows.tolist())
    assert rows[0] != rows[1]


@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
def test_randomness_that_is_none_is_an_error_and_no_endless_loop(byte):
    params = plan(60, 2, protocol="secagg+", dropout=0.1)
    cohort = Cohort(params, np.zeros((60, 2)))
    cohort.run_stage()
    client = ClientSession.restore(
        cohort.clients[0].save(seal_key=None), 0, randomness=lambda length: byte * length, keep=IN_MEMORY
    )
    try:
        client.receive(cohort.server.requests()[0])
    except LocalProtocolError as error:
        assert "repeats itself" in str(error)  # noqa: PT017 - zero bytes are as good as any to a polynomial
    from secagg.pairwise.graph import draw_ring

    with pytest.raises(LocalProtocolError, match="repeats itself"):
        draw_ring(60, lambda length: byte * length)


def test_complete_graphs_stop_where_a_server_could_not_hold_the_shares():
    assert plan(4096, 1).neighbours == 4095
    with pytest.raises(ParameterError, match="at most 4096 clients"):
        plan(4097, 1)


NESTED = b"L" + (1).to_bytes(8, "little")
BODIES = {
    "deep": NESTED * 100_000 + b"N",
    "dimensions": b"A\0" + bytes([200]) + bytes(1600),
    "shape": b"A\0\2" + (1 << 63).to_bytes(8, "little") * 2,
    "odd dict": b"D" + b"L" + (1).to_bytes(8, "little") + b"N",
    "dict of int": b"D" + b"I" + bytes(16),
    "unhashable key": b"D" + b"L" + (2).to_bytes(8, "little") + b"D" + b"L" + bytes(8) + b"N",
    "unknown type": b"O" + b"S" + (1).to_bytes(8, "little") + b"X" + b"D" + b"L" + bytes(8),
    "long tuple": b"L" + (1 << 62).to_bytes(8, "little"),
    "nothing": b"N",
    "four nothings": b"L" + (4).to_bytes(8, "little") + b"NNNN",
    "unknown tag": b"?",
    "empty": b"",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("purpose", ["pairwise/client", "pairwise/server"])
def test_forged_saves_with_a_right_checksum_are_decode_errors(body, purpose):
    whose = {"client_id": 0} if purpose == "pairwise/client" else {}
    kind = ClientSession if whose else ServerSession
    checksum = snapshot.digest(snapshot.Label.STATE_CHECKSUM, purpose.encode(), body)
    head = b"SAst\x02\x00" + bytes([len(purpose)]) + purpose.encode()
    with pytest.raises(DecodeError):
        kind.restore(head + checksum + body, **whose, keep=IN_MEMORY)


def test_saved_fields_that_are_no_sessions_are_decode_errors():
    party, progress = saved.load_client(ready_client(2).save(seal_key=None), seal_key=None)
    for whose, fields in (
        (None, progress),
        (party, replace(progress, state=party)),
        (party, replace(progress, clipped=b"clipped")),
    ):
        written = saved.save_client(whose, fields, seal_key=None, randomness=deterministic("x"))
        with pytest.raises(DecodeError, match="not a client session's"):
            ClientSession.restore(written, 0, keep=IN_MEMORY)
    current, collecting = saved.load_server(
        ServerSession(plan(3, 2), range(3), keep=IN_MEMORY).save(seal_key=None), seal_key=None
    )
    for fields in ((None, collecting), (current, current)):
        written = saved.save_server(fields, seal_key=None, randomness=deterministic("x"))
        with pytest.raises(DecodeError, match="not a server session's"):
            ServerSession.restore(written, keep=IN_MEMORY)


@pytest.mark.parametrize("what", [None, 7, "text", [1]])
def test_what_is_no_bytes_is_no_saved_state(what):
    with pytest.raises(InputError, match="a saved state is bytes"):
        ClientSession.restore(what, 0, keep=IN_MEMORY)


@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview])
def test_any_bytes_restore(buffer):
    assert ClientSession.restore(buffer(ready_client(2).save(seal_key=None)), 0, keep=IN_MEMORY).stage == "masked_input"


def test_results_are_not_the_sessions_own_to_change():
    cohort = Cohort(plan(3, 2), np.zeros((3, 2)))
    words = cohort.run().words
    with pytest.raises(ValueError, match="read-only"):
        words[0] = 1


def test_results_of_a_restored_session_are_not_its_own_to_change_either():
    cohort = Cohort(plan(3, 2), np.zeros((3, 2)))
    cohort.run()
    words = ServerSession.restore(cohort.server.save(seal_key=None), keep=IN_MEMORY).result.words
    with pytest.raises(ValueError, match="read-only"):
        words[0] = 1


def test_a_state_is_restored_by_its_own_client_alone():
    """Clients of one machine may share a sealing key, and then nothing else tells their states apart."""
    client = ready_client(2)
    saved = client.save(seal_key=bytes(32))
    with pytest.raises(InputError, match="client 0's, not client 1's"):
        ClientSession.restore(saved, 1, seal_key=bytes(32), keep=IN_MEMORY)
    with pytest.raises(InputError, match="an integer in"):
        ClientSession.restore(saved, "0", seal_key=bytes(32), keep=IN_MEMORY)
    assert ClientSession.restore(saved, 0, seal_key=bytes(32), keep=IN_MEMORY).stage == "masked_input"


def test_a_session_is_not_entered_from_within_a_call_to_it():
    server = ServerSession(plan(3, 2), range(3), keep=IN_MEMORY)

    def replies():
        yield 0, b"junk"
        server.abort()

    with pytest.raises(LocalProtocolError, match="inside another"):
        server.receive_all(replies())
    assert server.stage == "advertise_keys"


def test_masked_arrays_and_surplus_vectors_are_refused():
    params = plan(3, 2)
    with pytest.raises(secagg.InputError, match="masked"):
        secagg.simulate([np.ma.array(np.zeros(2), mask=[0, 1])] * 3, params=params)
    with pytest.raises(secagg.InputError, match="take 3 vectors, got 4"):
        secagg.simulate(np.zeros((4, 2)), params=params)


def test_the_clip_itself_in_float32_is_not_clipped():
    params = plan(2, 2, encoding=secagg.FixedPoint(clip=0.1, bits=16))
    at_the_edge = np.array([0.1, -0.1], dtype=np.float32)
    result = secagg.simulate([at_the_edge, np.nextafter(at_the_edge, at_the_edge * 2)], params=params)
    assert result.clipped == {0: 0.0, 1: 1.0}


@pytest.mark.parametrize("threads", [0, -1, "2", 1.0, None, True])
def test_threads_must_be_a_positive_integer(threads):
    with pytest.raises(secagg.InputError, match="threads"):
        ServerSession(plan(3, 2), range(3), keep=IN_MEMORY).advance(threads=threads)
    with pytest.raises(secagg.InputError, match="threads"):
        ready_client(2).submit(np.zeros(2), threads=threads)


def every_payload(params):
    """Each request of a round with what the client it is for has taken in before, in both models and graphs."""
    cohort = Cohort(params, np.zeros((params.clients, 2)), context=b"round")
    while cohort.server.stage is not None:
        if cohort.server.beacon_needed:
            cohort.server.use_beacon(cohort.beacon)
        yield cohort, cohort.server.requests()[0]
        cohort.run_stage()


@pytest.mark.parametrize(
    "params",
    [
        plan(4, 2),
        plan(4, 2, threat="malicious-server"),
        plan(40, 2, threat="malicious-server", protocol="secagg+", dropout=0.1),
        plan(40, 2, protocol="secagg+", dropout=0.1),
    ],
    ids=["semi-honest", "malicious-server", "malicious-server sparse", "semi-honest sparse"],
)
def test_a_buffer_is_the_callers_again_once_a_call_has_returned(params):
    for cohort, request in every_payload(params):
        client = cohort.clients[0]
        buffer = bytearray(request)
        answer = client.receive(buffer)
        buffer[:] = bytes(len(buffer))
        buffer.clear()  # not while a session looks into it
        if isinstance(answer, BeaconNeeded):
            answer = client.use_beacon(cohort.beacon)
        if isinstance(answer, InputNeeded):
            answer = client.submit(np.zeros(2))
        reply = bytearray(answer.payload)
        cohort.server.receive(0, reply)
        reply[:] = bytes(len(reply))
        reply.clear()
        for one, asked in cohort.server.requests().items():
            if one:
                cohort.server.receive(one, cohort.answer(one, asked))
        cohort.run_stage = lambda cohort=cohort: cohort.server.advance()
    assert cohort.server.result.survivors == tuple(range(params.clients))


def test_what_the_open_stage_sends_is_of_one_stage_whatever_another_thread_does(monkeypatch):
    cohort = Cohort(plan(4, 2), np.zeros((4, 2)))
    server = cohort.server
    while server.stage is not None:
        for one, request in server.requests().items():
            server.receive(one, cohort.answer(one, request))
        before, stage = dict(server.requests()), server.stage
        after = []
        reply, row = server._rows[type(server._state)]
        recipients = row.recipients

        def meanwhile(current, state, after=after, recipients=recipients):
            if not after:
                after.append(None)
                after.append(dict(server.advance()))
            return recipients(current, state)

        with monkeypatch.context() as patched:
            wrong = (reply, replace(row, recipients=meanwhile))
            patched.setattr(server, "_rows", server._rows | {type(server._state): wrong})
            assert dict(server.requests()) == before
        assert server.stage != stage
        assert dict(server.requests()) == after[1]
