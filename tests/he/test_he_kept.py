"""States that are durable before anything leaves: keeps that raise, processes that die anywhere, and DEFERRED."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable

import numpy as np
import pytest

import secagg
from federation import Federation, plan
from interruptions import Cut, run_cut
from kept_federation import SEAL, VECTORS, Died, Full, Kept, Store, exact, insist
from secagg import DEFERRED, IN_MEMORY, DecryptionKey, LocalProtocolError, Pending
from secagg.session import keeping
from test_he_hostile import body_of, request, signed

holders = pytest.mark.parametrize("holder", ["decryptor", "clients"])
ways = pytest.mark.parametrize("deferred", [False, True], ids=["function", "DEFERRED"])


@ways
@holders
def test_a_keep_that_raises_at_each_of_its_calls_costs_nothing(holder, deferred):
    federation = Kept(holder, deferred=deferred)
    for name in federation.names:
        federation.stores[name].flaky = not deferred
    if holder == "decryptor":
        decryptor = federation.decryptor = federation.new_decryptor()
        waiting = [lambda: decryptor.receive(0, b""), decryptor.save]
        opening = insist(federation, ["decryptor"], decryptor.opening, {"decryptor": waiting})
        assert decryptor.opening() == opening
    server = federation.server = federation.new_server()
    taking = [lambda: server.receive(0, b""), lambda: server.receive_all([]), server.save]
    requests = insist(federation, ["server"], server.requests, {"server": [*taking, server.advance]})
    assert server.requests() == requests
    for one in range(3):
        upload = submitted(federation, one, requests[one])
        server.receive(one, upload)
        if holder == "decryptor":
            decryptor.receive(one, upload)
    sums = insist(federation, ["server"], server.advance, {"server": taking})
    assert server.requests() == sums
    if holder == "clients":
        for one in range(3):
            decrypted(federation, one, sums[one])
        return
    asked = server.party_requests()["decryptor"]
    waiting = [*waiting, lambda: decryptor.release(request(federation, [True, True, False]))]
    key_waiting = [lambda: decryptor.receive(0, upload), *other_releases(federation.key, server.session_id)]
    others = {"key": key_waiting, "decryptor": waiting}
    answer = insist(federation, ["key", "decryptor"], lambda: decryptor.release(asked), others)
    assert decryptor.release(asked) == answer
    others = {"server": [*taking, server.advance, lambda: server.receive_from("decryptor", answer + b"0")]}
    assert insist(federation, ["server"], lambda: server.receive_from("decryptor", answer), others) is None
    assert server.result.survivors == (0, 1, 2)
    exact(server.result)
    assert federation.key.released == 1


def other_releases(key: DecryptionKey, session: bytes) -> list[Callable[[], object]]:
    """Calls of a key that would release something else."""
    nothing = np.zeros((1, 2, 1, key.params.chain.degree), dtype=np.uint64)
    pairs = [(session, bytes(32)), (bytes(32), bytes(32))]
    return [*(lambda pair=pair: key.release(nothing, 3, *pair) for pair in pairs), key.save]


def submitted(federation: Kept, one: int, opening: bytes) -> bytes:
    """A client's upload, insisted on."""
    client, name = federation.clients[one], f"client {one}"
    assert client.receive(opening) == client.receive(opening) == secagg.InputNeeded(3)
    assert federation.stores[name].offered == []  # what is not sent need not be kept
    vector = VECTORS[one]
    calls = [
        (vector + 1,),
        (vector, 2),
        (vector.astype(np.float32),),
        (vector, 1.5),
        (vector, vector),
        (None,),
        ([0.0] * 5,),
    ]
    others = [*(lambda call=call: client.submit(*call) for call in calls), lambda: client.receive(opening)]
    others += [client.delivered, client.save]
    reply = insist(federation, [name], lambda: client.submit(vector), {name: others})
    assert client.receive(opening) == reply
    assert client.clipped == 0
    return reply.payload


def decrypted(federation: Kept, one: int, encrypted: bytes) -> None:
    """A client's decryption, insisted on."""
    client, name, key = federation.clients[one], f"client {one}", f"key {one}"
    others = {
        key: other_releases(federation.keys[key], federation.server.session_id),
        name: [lambda: client.receive(federation.server.requests()[one][:-1]), client.delivered, client.save],
    }
    answer = insist(federation, [key, name], lambda: client.receive(encrypted), others)
    assert answer == client.receive(encrypted) == secagg.ResultReady()
    assert client.result.survivors == (0, 1, 2)
    exact(client.result)
    assert federation.keys[key].released == 1


@ways
def test_an_upload_that_comes_while_the_key_waits_costs_no_sum(deferred):
    federation = Kept("decryptor", deferred=deferred)
    decryptor, server, opening = federation.decryptor, federation.server, federation.decryptor.opening()
    federation.settled(server.requests())
    for one in range(2):
        federation.send(one, federation.upload_of(one, opening))
    late = federation.upload_of(2, opening)
    federation.settled(server.advance())
    asked = server.party_requests()["decryptor"]
    federation.stores["key"].flaky = not deferred
    others = {"key": [lambda: decryptor.receive(2, late)], "decryptor": [lambda: decryptor.receive(2, late)]}
    federation.stores["decryptor"].flaky = not deferred
    answer = insist(federation, ["key", "decryptor"], lambda: decryptor.release(asked), others)
    with pytest.raises(secagg.StaleMessage):
        decryptor.receive(2, late)
    federation.settled(server.receive_from("decryptor", answer))
    assert server.result.survivors == (0, 1)
    exact(server.result)


def test_a_release_is_of_the_uploads_that_were_decrypted_whoever_comes_between_the_two_states():
    federation = Kept("decryptor", deferred=True)
    decryptor, server, opening = federation.decryptor, federation.server, federation.decryptor.opening()
    for one in range(2):
        federation.send(one, federation.upload_of(one, opening))
    federation.settled(server.advance())
    pending, other = decryptor.release(server.party_requests()["decryptor"]), object()
    decryptor._entry.enter(other)  # another thread's call
    with pytest.raises(LocalProtocolError, match="another thread"):
        pending.kept()
    decryptor._entry.leave(other)
    decryptor.receive(2, federation.upload_of(2, opening))
    federation.settled(server.receive_from("decryptor", federation.settled(pending)))
    assert server.result.survivors == (0, 1)
    exact(server.result)


def test_another_session_goes_on_while_a_key_waits_and_is_served_after_it():
    """The key alone waits: sessions that share it take uploads in, and are refused a release until it is durable."""
    first = Kept("decryptor")
    second = Federation(first.params, key=first.key)
    for federation in (first, second):
        for one in range(3):
            federation.send(one, federation.upload(one, VECTORS[one]))
    first.server.advance()
    first.stores["key"].flaky = True
    asked = first.server.party_requests()["decryptor"]
    with pytest.raises(Full):
        first.decryptor.release(asked)
    other = Federation(first.params, key=first.key)
    other.send(0, other.upload(0, VECTORS[0]))
    second.server.advance()
    with pytest.raises(LocalProtocolError, match="this decryption key waits"):
        second.decryptor.release(second.server.party_requests()["decryptor"])
    first.server.receive_from("decryptor", first.decryptor.release(asked))
    first.stores["key"].flaky = False
    answer = second.decryptor.release(second.server.party_requests()["decryptor"])
    second.server.receive_from("decryptor", answer)
    for federation in (first, second):
        exact(federation.server.result)
    assert first.key.released == 2


@ways
def test_a_key_is_durable_before_anybody_has_it(deferred):
    store, params = Store(), plan(3, 5)
    store.flaky = not deferred
    kept = {"keep": DEFERRED if deferred else store, "seal_key": SEAL}
    if deferred:
        pending = DecryptionKey.generate(params, **kept)
        assert isinstance(pending, Pending)
        store(pending.state)
        key = pending.kept()
        assert pending.kept() is key is pending.party
    else:
        with pytest.raises(Full):
            DecryptionKey.generate(params, **kept)
        key = DecryptionKey.generate(params, **kept)
        assert len(store.offered) == 2
    again = DecryptionKey.restore(store.states[-1], keep=IN_MEMORY, seal_key=SEAL)
    assert again.public.key_id == key.public.key_id
    with pytest.raises(secagg.DecodeError):
        DecryptionKey.restore(store.states[-1], keep=IN_MEMORY, seal_key=None)


@ways
@holders
def test_a_key_is_retired_durably_before_anybody_is_told(holder, deferred):
    federation = Kept(holder, deferred=deferred)
    stranger = Federation(federation.params, key=DecryptionKey.generate(federation.params, keep=IN_MEMORY))
    requests = federation.settled(federation.server.requests())
    for one in range(2):
        federation.send(one, federation.upload_of(one, requests[one]))
    uploads = [*federation.sent.values(), signed(federation, 2, body_of(stranger.upload(2, VECTORS[2])))]
    federation.send(2, uploads[2])
    sums = federation.settled(federation.server.advance())
    if holder == "decryptor":
        name, asked = "key", federation.server.party_requests()["decryptor"]
    else:
        name, asked = "key 0", sums[0]

    def ask() -> object:
        return federation.decryptor.release(asked) if holder == "decryptor" else federation.clients[0].receive(asked)

    federation.stores[name].flaky = not deferred
    with pytest.raises(secagg.InconsistentSum):
        insist(federation, [name], ask, {name: other_releases(federation.keys[name], federation.server.session_id)})
    offered = federation.stores[name].offered
    assert deferred or (len(offered) == 2 and len(set(offered)) == 1)
    for _ in range(2):
        with pytest.raises(LocalProtocolError, match="retired"):
            ask()
        federation.restart(*federation.names)
        federation.stores[name].flaky = False
        assert federation.keys[name].retired
        if holder == "decryptor":
            for one in range(3):
                federation.decryptor.receive(one, uploads[one])


PROCESSES = {"server": ("server",), "decryptor": ("key", "decryptor"), "client": ("key 0", "client 0"), "all": None}
DEATHS = [(False, "decryptor", who) for who in PROCESSES] + [
    (False, "clients", who) for who in ("server", "client", "all")
]


@pytest.mark.parametrize(
    ("deferred", "holder", "who"), [*DEATHS, *((True, holder, "all") for holder in ("decryptor", "clients"))]
)
def test_whoever_dies_anywhere_goes_on_from_what_was_kept_to_the_same_sum(deferred, holder, who):
    """Before each write of a state, after it, and after each upload; nobody ever sends two uploads or a second sum."""
    for at in itertools.count():
        federation, seen = Kept(holder, deferred=deferred, clients=2), itertools.count()

        def moment(at: int = at, seen: itertools.count = seen) -> None:
            if next(seen) == at:
                raise Died

        names = [one for one in federation.names if one in (PROCESSES[who] or federation.names)]
        for name in names:
            federation.stores[name].moment = moment
        try:
            federation.drive(moment)
        except Died:
            for name in names:
                federation.stores[name].moment = lambda: None
            federation.restart(*names)
            federation.drive()
        else:
            break
    assert at > 5


@holders
def test_a_release_that_is_cut_off_anywhere_while_it_is_kept_comes_when_it_is_asked_for_again(holder):
    federation = Kept(holder)
    requests = federation.server.requests()
    for one in range(3):
        federation.send(one, federation.upload_of(one, requests[one]))
    sums = federation.server.advance()
    key, name = ("key", "decryptor") if holder == "decryptor" else ("key 0", "client 0")
    asked = federation.server.party_requests()["decryptor"] if holder == "decryptor" else sums[0]
    start = {key: federation.stores[key].states[-1], name: federation.party(name).save()}

    def set_back() -> None:
        for one, saved in start.items():
            federation.stores[one].states[:] = [saved]
        federation.restart(key, name)

    def ask() -> object:
        return federation.decryptor.release(asked) if holder == "decryptor" else federation.clients[0].receive(asked)

    set_back()
    expected = ask()
    set_back()
    for at in range(run_cut(ask, -1, of=keeping.__file__)):
        set_back()
        with contextlib.suppress(Cut):
            run_cut(ask, at, of=keeping.__file__)
        assert ask() == expected
        federation.restart(key, name)
        assert ask() == expected
        assert federation.keys[key].released == 1
    if holder == "clients":
        exact(federation.clients[0].result)


def test_an_upload_that_is_cut_off_anywhere_while_it_is_kept_is_the_one_that_was_kept():
    federation = Kept("decryptor")
    opening, states = federation.server.requests()[0], federation.stores["client 0"].states

    def ready() -> None:
        states.clear()
        federation.clients[0] = federation.client(0)
        federation.clients[0].receive(opening)

    def submit() -> bytes:
        return federation.clients[0].submit(VECTORS[0]).payload

    ready()
    for at in range(run_cut(submit, -1, of=keeping.__file__)):
        ready()
        with contextlib.suppress(Cut):
            run_cut(submit, at, of=keeping.__file__)
        try:
            upload = submit()
        except LocalProtocolError:  # it was made
            upload = federation.clients[0].receive(opening).payload
        assert len(set(states)) == 1, "two uploads were made"
        federation.restart("client 0")
        assert federation.clients[0].receive(opening).payload == upload


@pytest.mark.parametrize("key_too", [False, True], ids=["live key", "restored key"])
@holders
def test_no_restart_makes_a_second_sum_of_a_session(holder, key_too):
    """The difference of two sums is somebody's vector: a party set back to before its release is asked for another."""
    federation = Kept(holder)
    federation.drive()
    less = federation.restored_server(federation.stores["server"].states[0], keep=IN_MEMORY, seal_key=SEAL)
    for one in range(2):
        less.receive(one, federation.sent[one])
    sums = less.advance()
    if key_too:
        federation.restart(*federation.keys)
    key = federation.key
    if holder == "clients":
        key = federation.keys["key 0"]
        held = [federation.restored_client(0, federation.stores["client 0"].states[0], **federation.kept("client 0"))]
        asked, ask = sums[0], [held[0].receive]
    else:
        early = federation.restored_decryptor(federation.stores["decryptor"].states[0], **federation.kept("decryptor"))
        for one in range(2):
            early.receive(one, federation.sent[one])
        asked, ask = less.party_requests()["decryptor"], [early.release]
    before = {name: len(store.states) for name, store in federation.stores.items()}
    for _ in range(2):
        with pytest.raises(LocalProtocolError, match="another sum of this session"):
            ask[0](asked)
    assert before == {name: len(store.states) for name, store in federation.stores.items()}
    assert (key.released, key.retired) == (1, False)


def test_of_a_session_whose_decryptor_died_before_its_key_was_kept_one_sum_leaves():
    """Which sum is open until the key's record is durable: nothing has left before."""
    federation = Kept("decryptor")
    requests = federation.server.requests()
    uploads = [federation.upload_of(one, requests[one]) for one in range(3)]
    for one in range(3):
        federation.send(one, uploads[one])
    federation.server.advance()
    asked = federation.server.party_requests()["decryptor"]
    federation.stores["key"].flaky = True
    with pytest.raises(Full):
        federation.decryptor.release(asked)
    federation.stores["key"].flaky = False
    federation.restart("key", "decryptor")
    federation.server = federation.restored_server(federation.stores["server"].states[0], **federation.kept("server"))
    for one in range(2):
        federation.send(one, uploads[one])
    federation.server.advance()
    answer = federation.decryptor.release(federation.server.party_requests()["decryptor"])
    federation.server.receive_from("decryptor", answer)
    exact(federation.server.result)
    early = federation.restored_decryptor(federation.stores["decryptor"].states[0], **federation.kept("decryptor"))
    for one in range(3):
        early.receive(one, uploads[one])
    with pytest.raises(LocalProtocolError, match="another sum of this session"):
        early.release(asked)
    assert federation.key.released == 1


def test_a_step_that_was_overtaken_lets_nothing_out():
    federation = Kept("decryptor", deferred=True)
    server, first = federation.server, federation.server.requests()
    requests = federation.settled(first)
    assert first.kept() == requests
    for one in range(3):
        federation.send(one, federation.upload_of(one, requests[one]))
    second = server.advance()
    assert second.kept() == {}
    with pytest.raises(LocalProtocolError, match="gone on from another step"):
        first.kept()
    third = server.receive_from("decryptor", released(federation))
    server.abort()
    for one in (second, third):
        with pytest.raises(LocalProtocolError, match="gone on from another step"):
            one.kept()
    with pytest.raises(LocalProtocolError, match="no result"):
        _ = server.result


def released(federation: Kept) -> bytes:
    return federation.settled(federation.decryptor.release(federation.server.party_requests()["decryptor"]))


def test_where_states_are_kept_it_is_said_what_they_are_sealed_under():
    federation = Federation(plan(3, 5))
    saved = federation.decryptor.save(seal_key=None)
    builds = [
        lambda **given: federation.client(0, **given),
        federation.new_server,
        federation.new_decryptor,
        lambda **given: DecryptionKey.generate(federation.params, **given),
        lambda **given: federation.restored_decryptor(saved, **given),
    ]
    for build in builds:
        for keep in (DEFERRED, print):
            with pytest.raises(secagg.InputError, match="pass a seal_key"):
                build(keep=keep)
            with pytest.raises(secagg.InputError, match="32 bytes"):
                build(keep=keep, seal_key=b"short")
        with pytest.raises(secagg.InputError, match="keep must be a function"):
            build(keep=None, seal_key=None)


def test_a_key_whose_session_was_let_go_settles_what_it_left_and_serves_the_next():
    first = Kept("decryptor")
    for one in range(3):
        first.send(one, first.upload(one, VECTORS[one]))
    first.server.advance()
    asked = first.server.party_requests()["decryptor"]
    first.stores["key"].flaky = True
    with pytest.raises(Full):
        first.decryptor.release(asked)
    second = Federation(first.params, key=first.key)
    for one in range(3):
        second.send(one, second.upload(one, VECTORS[one]))
    second.server.advance()
    with pytest.raises(LocalProtocolError, match="waits"):
        second.decryptor.release(second.server.party_requests()["decryptor"])
    first.key.settle()
    first.key.settle()
    assert first.key.released == 1
    assert len(set(first.stores["key"].offered[-2:])) == 1
    first.stores["key"].flaky = False
    second.server.receive_from("decryptor", second.decryptor.release(second.server.party_requests()["decryptor"]))
    exact(second.server.result)
    # The first one's sum was recorded: it may still come, and no other of its session
    first.server.receive_from("decryptor", first.decryptor.release(asked))
    exact(first.server.result)
    assert first.key.released == 2


def test_nobody_encrypts_under_a_key_that_is_not_durable_yet():
    pending = DecryptionKey.generate(plan(3, 5), keep=secagg.DEFERRED, seal_key=None)
    with pytest.raises(LocalProtocolError, match="waits to be kept"):
        _ = pending.party.public
    assert "DecryptionKey" in repr(pending.party)
    key = pending.kept()
    assert key is pending.party
    assert key.public.params == plan(3, 5)
