"""Sessions survive their process: saved and restored at every stage, and retries are byte-identical."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort import Cohort, deterministic, plan
from secagg import (
    IN_MEMORY,
    BeaconNeeded,
    ClientSession,
    DecodeError,
    InputError,
    InputNeeded,
    PairwiseCredentials,
    Release,
    ServerFault,
    ServerSession,
)
from secagg.pairwise.saved import save_client
from secagg.session.client import Progress

KEY = bytes(range(32))


@pytest.mark.parametrize("seal_key", [None, KEY], ids=["clear", "sealed"])
@pytest.mark.parametrize(("clients", "protocol"), [(6, "secagg"), (44, "secagg+")])
def test_a_round_in_which_every_party_restarts_around_every_message(clients, protocol, seal_key):
    params = plan(clients, 5, protocol=protocol, dropout=0.2)
    vectors = np.random.default_rng(0).uniform(-1, 1, (clients, 5))
    faults = {1: "unmask", 3: "masked_input", 4: "share_keys"} if clients > 6 else {3: "masked_input"}
    steady = Cohort(params, vectors, seed="x").run(faults)
    restarting = Cohort(params, vectors, seed="x")

    def restart_client(one):
        saved = restarting.clients[one].save(seal_key=seal_key)
        source = restarting.clients[one]._randomness
        restarting.clients[one] = ClientSession.restore(
            saved, one, seal_key=seal_key, randomness=source, keep=IN_MEMORY
        )

    while restarting.server.stage is not None:
        stage, requests = restarting.server.stage, dict(restarting.server.requests())
        for one, request in requests.items():
            if faults.get(one) == stage:
                continue
            restart_client(one)
            if isinstance(restarting.clients[one].receive(request), InputNeeded):
                restart_client(one)
                assert isinstance(restarting.clients[one].receive(request), InputNeeded)
                restarting.clients[one].submit(vectors[one])
            restart_client(one)
            again = restarting.clients[one].receive(request)
            restarting.server.receive(one, again.payload)
            source = restarting.server._randomness
            saved = restarting.server.save(seal_key=seal_key)
            restarting.server = ServerSession.restore(saved, seal_key=seal_key, randomness=source, keep=IN_MEMORY)
            assert dict(restarting.server.requests()) == requests
        restarting.server.advance()
    result = ServerSession.restore(restarting.server.save(seal_key=seal_key), seal_key=seal_key, keep=IN_MEMORY).result
    assert result.survivors == steady.survivors
    assert result.dropped == steady.dropped
    assert np.abs(result.mean - steady.mean).max() <= params.encoding.step


def replies(cohort, one):
    """Yield each request of a whole round with the reply that client ``one`` gave to it."""
    while cohort.server.stage is not None:
        request = cohort.server.requests()[one]
        for other, payload in cohort.server.requests().items():
            reply = cohort.answer(other, payload)
            if other == one:
                answered = reply
            cohort.server.receive(other, reply)
        yield request, answered
        cohort.server.advance()


def test_the_identical_request_gets_identical_bytes_at_every_stage():
    cohort = Cohort(plan(4, 3), np.zeros((4, 3)))
    seen = []
    for request, reply in replies(cohort, 2):
        seen.append((request, reply))
        for earlier, answered in seen:
            assert cohort.clients[2].receive(earlier).payload == answered


def test_a_different_request_for_an_answered_stage_is_refused_also_after_restore():
    cohort = Cohort(plan(6, 3, dropout=0.3), np.zeros((6, 3)))
    for request, reply in replies(cohort, 2):
        other = request[:-1] + bytes([request[-1] ^ 1])
        for client in (
            cohort.clients[2],
            ClientSession.restore(cohort.clients[2].save(seal_key=None), 2, keep=IN_MEMORY),
        ):
            with pytest.raises(ServerFault, match="second, different"):
                client.receive(other)
            assert client.receive(request).payload == reply


def test_delivered_replies_are_forgotten_and_never_made_again():
    cohort = Cohort(plan(4, 3), np.zeros((4, 3)))
    for request, _ in replies(cohort, 2):
        cohort.clients[2].delivered()
        with pytest.raises(ServerFault, match="was delivered"):
            cohort.clients[2].receive(request)


def test_a_delivered_reply_is_not_taken_for_the_wait_for_a_vector_or_a_beacon():
    cohort = Cohort(plan(4, 3), np.zeros((4, 3)))
    cohort.run_stage()
    roster = cohort.server.requests()[2]
    cohort.run_stage()
    relay = cohort.server.requests()[2]
    cohort.clients[2].receive(relay)
    cohort.clients[2].delivered()
    with pytest.raises(ServerFault, match="was delivered"):
        cohort.clients[2].receive(roster)
    assert isinstance(cohort.clients[2].receive(relay), InputNeeded)

    params = plan(40, 1, threat="malicious-server", protocol="secagg+", dropout=0.1)
    cohort = Cohort(params, np.zeros((40, 1)))
    invitation = cohort.server.requests()[2]
    cohort.run_stage()
    roster = cohort.server.requests()[2]
    cohort.clients[2].receive(roster)
    cohort.clients[2].delivered()
    with pytest.raises(ServerFault, match="was delivered"):
        cohort.clients[2].receive(invitation)
    assert isinstance(cohort.clients[2].receive(roster), BeaconNeeded)


@pytest.mark.parametrize("kind", [ClientSession, ServerSession])
def test_saved_bytes_that_do_not_fit_are_refused(kind):
    params = plan(3, 2)
    session = (
        ClientSession(params, 1, keep=IN_MEMORY)
        if kind is ClientSession
        else ServerSession(params, range(3), keep=IN_MEMORY)
    )
    clear, sealed = session.save(seal_key=None), session.save(seal_key=KEY)
    as_client, as_server = (
        functools.partial(ClientSession.restore, client_id=1, keep=IN_MEMORY),
        functools.partial(ServerSession.restore, keep=IN_MEMORY),
    )
    restore, as_other = (as_client, as_server) if kind is ClientSession else (as_server, as_client)
    for saved, arguments in (
        (b"", {}),
        (clear[:-1], {}),
        (clear + b"\0", {}),
        (clear, {"seal_key": KEY}),
        (sealed, {}),
        (sealed, {"seal_key": bytes(32)}),
        (sealed[:40], {"seal_key": KEY}),
    ):
        with pytest.raises(DecodeError):
            restore(saved, **arguments)
    with pytest.raises(DecodeError):
        as_other(clear)
    with pytest.raises(DecodeError):
        as_other(sealed, seal_key=KEY)
    for bad in (b"short", "x" * 32, bytes(33)):
        with pytest.raises(InputError, match="32 bytes"):
            session.save(seal_key=bad)
        with pytest.raises(InputError, match="32 bytes"):
            restore(sealed, seal_key=bad)


@given(st.data())
def test_any_damage_to_a_saved_state_is_noticed(data):
    saved = bytearray(ClientSession(plan(3, 2), 1, keep=IN_MEMORY).save(seal_key=None))
    at = data.draw(st.integers(0, len(saved) - 1))
    saved[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DecodeError):
        ClientSession.restore(bytes(saved), 1, keep=IN_MEMORY)


def test_a_release_is_kept_as_bytes():
    cohort = Cohort(plan(8, 1, dropout=0.25), np.zeros((8, 1)))
    assert cohort.clients[0].release is None
    cohort.run({3: "masked_input"})
    release = cohort.clients[0].release
    assert release.survivors == (0, 1, 2, 4, 5, 6, 7)
    assert Release.decode(release.encode()) == release
    nobodys = Release(context=release.context, survivors=())
    assert Release.decode(nobodys.encode()) == nobodys
    restored = ClientSession.restore(cohort.clients[0].save(seal_key=None), 0, keep=IN_MEMORY)
    assert restored.release == release
    for bad in (b"", release.encode()[:-1], release.encode() + release.encode()[-8:], bytes(31), None):
        with pytest.raises(DecodeError):
            Release.decode(bad)
    for bad in (5, [b"x"], [release, None]):
        with pytest.raises(InputError, match="earlier"):
            ClientSession(cohort.params, 0, credentials=PairwiseCredentials(earlier=bad), keep=IN_MEMORY)


STATES = ("Advertised", "Shared", "Ready", "Masked", "Released")


def forged_states():
    """Every field of every state of a client, with a value of another type, behind a right checksum."""
    cohort = Cohort(plan(3, 2), np.zeros((3, 2)))
    client, seen = cohort.clients[0], []
    while cohort.server.stage is not None:
        request = cohort.server.requests()[0]
        if isinstance(answer := client.receive(request), InputNeeded):
            seen.append((client._party, client._state, dict(client._at.answers), None))
            answer = client.submit(np.zeros(2))
        seen.append((client._party, client._state, dict(client._at.answers), client.clipped))
        for one in (1, 2):
            cohort.server.receive(one, cohort.answer(one, cohort.server.requests()[one]))
        cohort.server.receive(0, answer.payload)
        cohort.server.advance()
    assert tuple(type(state).__name__ for _, state, _, _ in seen) == STATES
    for party, state, answers, clipped in seen:
        for field in dataclasses.fields(state):
            for bad in (None, "text", 5.0, np.zeros(3, bool), b"" if field.type != "bytes" else 7):
                if not (field.name in ("shared", "advertised") and isinstance(bad, np.ndarray)):
                    yield party, _with(state, field.name, bad), answers, clipped
        for field in dataclasses.fields(party):
            yield _with(party, field.name, 5.0), state, answers, clipped
        for change in ({"client_id": one} for one in ((1 << 64) - 1, 1 << 70)):
            yield dataclasses.replace(party, **change), state, answers, clipped
        for size in (31, 33):
            yield dataclasses.replace(party, context=bytes(size)), state, answers, clipped
        for kind, (digest, reply) in answers.items():
            for bad in ((None, reply), (digest, "text"), (7, None)):
                yield party, state, answers | {kind: bad}, clipped


def _with(instance, field, value):
    fields = {one.name: getattr(instance, one.name) for one in dataclasses.fields(instance)}
    return type(instance)(**(fields | {field: value}))


def test_a_state_whose_fields_are_of_other_types_is_refused_when_it_is_read():
    tried = 0
    for party, *fields in forged_states():
        progress = Progress(**dict(zip(("state", "answers", "clipped"), fields, strict=True)))
        saved = save_client(party, progress, seal_key=None, randomness=deterministic("x"))
        with pytest.raises(DecodeError):
            ClientSession.restore(saved, 0, keep=IN_MEMORY)
        tried += 1
    assert tried > 100


def test_a_client_that_signed_a_survivor_set_counts_as_one_that_released():
    cohort = Cohort(plan(5, 1, threat="malicious-server"), np.zeros((5, 1)))
    while cohort.server.stage != "check_consistency":
        cohort.run_stage()
    assert cohort.clients[0].release is None
    cohort.answer(0, cohort.server.requests()[0])
    assert cohort.clients[0].release.survivors == (0, 1, 2, 3, 4)
