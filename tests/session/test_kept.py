"""``keep`` has made a state durable before anything leaves that follows from it: both sides, in every model."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import pickle
import tracemalloc
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import secagg
from children import all_refused, needs_fork
from cohort import CONTEXT, deterministic, identities, plan
from interruptions import Cut, every_cut, run_cut
from secagg import DEFERRED, IN_MEMORY, BeaconNeeded, ClientSession, InputNeeded, Pending, Reply, ServerSession
from secagg.session import keeping

KEY = bytes(range(32))
BEACON = bytes(range(16))
MODELS = {
    "semi-honest": plan(4, 3),
    "malicious-server": plan(4, 3, threat="malicious-server"),
    "sparse, semi-honest": plan(40, 3, protocol="secagg+", dropout=0.1),
    "sparse, malicious-server": plan(40, 3, threat="malicious-server", protocol="secagg+", dropout=0.1),
}
every_model = pytest.mark.parametrize("model", MODELS)


class Lost(Exception):
    """What a store raises."""


class Store:
    """Keeps the last state of one party; each state fails ``failures`` times before it is taken."""

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.left = failures, failures
        self.offered: list[bytes] = []
        self.kept: bytes | None = None

    def __call__(self, state: secagg.SavedState) -> None:
        self.offered.append(b"".join(state.buffers()))
        assert len(state) == len(self.offered[-1])
        if self.left:
            self.left -= 1
            raise Lost
        self.kept, self.left = self.offered[-1], self.failures


class World:
    """A cohort whose every party keeps its states; ``tell`` makes each call, and may make it again."""

    def __init__(self, model: str, keep: Callable[[str], object], tell: Callable[[Callable, object], object]) -> None:
        self.params, self.tell, self.keep = MODELS[model], tell, keep
        self.ids = range(self.params.clients)
        malicious = self.params.threat == "malicious-server"
        self.identities = identities(self.ids) if malicious else {}
        self.directory = self.identities[0].directory if malicious else None
        self.server = ServerSession(
            self.params,
            self.ids,
            context=CONTEXT,
            keep=keep("server"),
            seal_key=KEY,
            randomness=deterministic("server"),
            credentials=self.directory,
        )
        self.clients = {one: self.client(one) for one in self.ids}
        self.vectors = np.random.default_rng(7).uniform(-1, 1, (self.params.clients, self.params.dimension))

    def client(self, one: int) -> ClientSession:
        return ClientSession(
            self.params,
            one,
            context=CONTEXT,
            keep=self.keep(str(one)) if one < 2 else IN_MEMORY,
            seal_key=KEY,
            randomness=deterministic(f"client {one}"),
            credentials=self.identities.get(one),
        )

    def exchange(self, one: int, request: bytes) -> Reply:
        answer = self.tell(lambda: self.clients[one].receive(request), self.clients[one])
        if isinstance(answer, BeaconNeeded):
            answer = self.tell(lambda: self.clients[one].use_beacon(BEACON), self.clients[one])
        if isinstance(answer, InputNeeded):
            answer = self.tell(lambda: self.clients[one].submit(self.vectors[one], 1), self.clients[one])
        assert isinstance(answer, Reply)
        return answer

    def run(self, between: Callable[[], None] = lambda: None) -> np.ndarray:
        requests = self.tell(lambda: self.server.requests(), self.server)
        while requests:
            if self.server.beacon_needed:
                self.tell(lambda: self.server.use_beacon(BEACON), self.server)
            for one in list(requests):
                self.server.receive(one, self.exchange(one, requests[one]).payload)
                if one < 2:
                    between()
            requests = self.tell(lambda: self.server.advance(), self.server)
        return self.server.result.total


def at_once(call: Callable[[], object], _party: object) -> object:
    return call()


def in_memory(model: str) -> np.ndarray:
    return World(model, lambda _: IN_MEMORY, at_once).run()


@every_model
def test_a_keep_that_raises_at_each_call_lets_nothing_out_and_is_offered_the_same_bytes_again(model):
    stores: dict[str, Store] = {}
    kept = []

    def failing_first(call: Callable[[], object], party: object) -> object:
        store = next(store for name, store in stores.items() if named(name) is party) if party in held() else None
        offers = 0 if store is None else len(store.offered)
        before = party.stage
        for _ in range(2 if store is not None else 0):
            try:
                answer = call()
            except Lost:
                # Nothing has changed but that the step is held: any other call is refused
                assert party.stage == before
                for other in others(party):
                    with pytest.raises(secagg.LocalProtocolError, match="make the same call again"):
                        other()
                assert party.stage == before
            else:  # a call with nothing to keep
                assert len(store.offered) == offers
                return answer
        answer = call()
        if store is not None:
            offered = store.offered[offers:]
            assert len(offered) == 3
            assert len(set(offered)) == 1
            kept.append(party)
        return answer

    def store_of(name: str) -> Store:
        return stores.setdefault(name, Store(failures=2))

    world = World(model, store_of, failing_first)

    def named(name: str) -> object:
        return world.server if name == "server" else world.clients[int(name)]

    def held() -> list[object]:
        return [named(name) for name in stores]

    def others(party: object) -> list[Callable[[], object]]:
        if isinstance(party, ServerSession):
            return [
                lambda: party.receive(0, b"x"),
                lambda: party.receive_all([]),
                lambda: party.save(seal_key=None),
                *([] if party.stage == "advertise_keys" else [lambda: party.use_beacon(bytes(17))]),
            ]
        return [
            lambda: party.submit(np.ones(3) / 3),
            lambda: party.use_beacon(bytes(20)),
            party.delivered,
            lambda: party.save(seal_key=None),
        ]

    assert np.abs(world.run().astype(np.int64) - in_memory(model).astype(np.int64)).max() <= world.params.clients
    stages = len(secagg.protocol.protocol_of(world.params).stages(world.params))
    drawn = int(model == "sparse, malicious-server")
    assert kept.count(world.server) == 1 + stages + drawn
    assert kept.count(world.clients[0]) == kept.count(world.clients[1]) == stages + drawn
    codes = np.rint((world.vectors + 1) / world.params.encoding.step)
    assert np.abs(world.server.result.total - codes.sum(axis=0)).max() <= world.params.clients


@every_model
def test_another_vector_is_not_taken_for_the_one_whose_state_waits(model):
    store = Store()
    world = World(model, lambda name: store if name == "0" else IN_MEMORY, at_once)
    while world.server.stage != "masked_input":
        if world.server.beacon_needed:
            world.server.use_beacon(BEACON)
        for one, request in world.server.requests().items():
            world.server.receive(one, world.exchange(one, request).payload)
        world.server.advance()
    client, vector = world.clients[0], world.vectors[0]
    assert isinstance(client.receive(world.server.requests()[0]), InputNeeded)
    store.failures = store.left = 1
    with pytest.raises(Lost):
        client.submit(vector, 1)
    changed = vector.copy()
    changed[0] += 0.5
    for other in ((changed, 1), (vector.astype(np.float32), 1), (vector[::-1], 1)):
        with pytest.raises(secagg.LocalProtocolError, match="same call again"):
            client.submit(*other)
    first = store.offered[-1]
    reply = client.submit(vector.copy(), np.int64(1))
    assert store.kept == first
    again = ClientSession.restore(
        store.kept, 0, keep=IN_MEMORY, seal_key=KEY, credentials=world.identities.get(0)
    ).receive(world.server.requests()[0])
    assert again == reply


@every_model
def test_whoever_starts_again_from_what_was_kept_repeats_itself_or_goes_on(model):
    """After every exchange the server and two clients are thrown away, and begun again from their stores."""
    stores: dict[str, Store] = {}
    world = World(model, lambda name: stores.setdefault(name, Store()), at_once)
    answered: dict[tuple[int, bytes], bytes] = {}
    exchange = world.exchange

    def remembering(one: int, request: bytes) -> Reply:
        reply = exchange(one, request)
        assert answered.setdefault((one, request), reply.payload) == reply.payload
        return reply

    def restart_clients() -> None:
        for one in (0, 1):
            if stores[str(one)].kept is not None:
                world.clients[one] = ClientSession.restore(
                    stores[str(one)].kept,
                    one,
                    keep=stores[str(one)],
                    seal_key=KEY,
                    randomness=deterministic(f"another {one}"),
                    credentials=world.identities.get(one),
                )

    def restart_server() -> None:
        requests, stage = dict(world.server.requests()), world.server.stage
        world.server = ServerSession.restore(
            stores["server"].kept, keep=stores["server"], seal_key=KEY, credentials=world.directory
        )
        assert (dict(world.server.requests()), world.server.stage) == (requests, stage)
        for one, request in requests.items():
            # Whoever answered repeats itself, byte for byte
            world.server.receive(one, remembering(one, request).payload)

    world.exchange = remembering
    requests = world.server.requests()
    while requests:
        if world.server.beacon_needed:
            world.server.use_beacon(BEACON)
        for one, request in list(requests.items()):
            world.server.receive(one, remembering(one, request).payload)
            restart_clients()
        restart_server()
        requests = world.server.advance()
    assert world.server.result.weight == world.params.clients
    ended = ServerSession.restore(stores["server"].kept, keep=IN_MEMORY, seal_key=KEY, credentials=world.directory)
    assert ended.result.total.tolist() == world.server.result.total.tolist()


@every_model
def test_the_same_through_an_awaited_store(model):
    """With DEFERRED nothing is let out before ``kept()``; an asyncio loop awaits a store in between."""
    stored: list[tuple[object, bytes]] = []

    async def put(state: secagg.SavedState, party: object) -> None:
        await asyncio.sleep(0)
        stored.append((party, bytes(state)))

    async def told(call: Callable[[], object], party: object) -> object:
        answer = call()
        while isinstance(answer, Pending):
            same = call()
            assert isinstance(same, Pending)
            assert bytes(same.state) == bytes(answer.state)
            assert answer.party is party
            await put(answer.state, party)
            answer = answer.kept()
        return answer

    loop = asyncio.new_event_loop()
    try:
        world = World(model, lambda _: DEFERRED, lambda call, party: loop.run_until_complete(told(call, party)))
        total = world.run()
    finally:
        loop.close()
    assert total.shape == (3,)
    assert world.server.result.weight == world.params.clients
    stages = len(secagg.protocol.protocol_of(world.params).stages(world.params))
    drawn = int(model == "sparse, malicious-server")
    assert sum(party is world.server for party, _ in stored) == 1 + stages + drawn
    assert sum(party is world.clients[0] for party, _ in stored) == stages + drawn


def test_a_pending_step_is_let_out_once_however_often_it_is_said_to_be_kept():
    world = World("semi-honest", lambda _: DEFERRED, at_once)
    pending = world.server.requests()
    assert world.server.stage == "advertise_keys"
    with pytest.raises(secagg.LocalProtocolError, match="make the same call again"):
        world.server.receive(0, b"")
    requests = pending.kept()
    assert dict(pending.kept()) == dict(requests)
    reply = world.clients[0].receive(requests[0])
    assert reply.kept() == reply.kept() == world.clients[0].receive(requests[0])
    for one in (1, 2, 3):
        answer = world.clients[one].receive(requests[one])
        world.server.receive(one, answer.kept().payload if isinstance(answer, Pending) else answer.payload)
    world.server.receive(0, reply.kept().payload)
    world.server.advance().kept()
    with pytest.raises(secagg.LocalProtocolError, match="gone on"):
        pending.kept()
    assert "secret" not in repr(reply)
    assert "bytes" in repr(reply)
    assert repr(reply.state) == f"<SavedState of {len(reply.state)} bytes, sealed>"


@needs_fork
def test_a_child_lets_no_pending_step_out():
    world = World("semi-honest", lambda _: DEFERRED, at_once)
    pending = world.server.requests()
    all_refused(pending.kept, world.server.requests)
    requests = pending.kept()
    mine = world.clients[0].receive(requests[0])
    all_refused(mine.kept, lambda: world.clients[0].receive(requests[0]))


def test_a_state_is_not_pickled_or_copied_with_the_key_that_seals_it():
    state = World("semi-honest", lambda _: DEFERRED, at_once).server.requests().state
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="seals it"):
            take(state)


@pytest.mark.parametrize("seal_key", [None, KEY], ids=["clear", "sealed"])
@pytest.mark.parametrize("arrive", [lambda server: server.receive(0, b""), lambda server: server.receive_all([])])
def test_a_state_shows_nothing_once_the_session_changes_what_it_looks_into(seal_key, arrive):
    """Later it would be another state, sealed under the same key and nonces."""
    late = []

    def keep(state: secagg.SavedState) -> None:
        late.append((state, state.buffers(), bytes(state)))

    server = ServerSession(MODELS["semi-honest"], range(4), keep=keep, seal_key=seal_key)
    server.requests()
    ((state, buffers, written),) = late
    assert len(state) == len(written)
    assert bytes(state) == written == b"".join(state.buffers())
    head = next(buffers)
    assert written.startswith(bytes(head))
    with contextlib.suppress(secagg.PeerFault):
        arrive(server)
    for show in (lambda: bytes(state), lambda: list(buffers), lambda: list(state.buffers())):
        with pytest.raises(secagg.LocalProtocolError, match="gone on"):
            show()
    assert len(state) == len(written)


@pytest.mark.parametrize("keep", [None, 5, "store", b""])
def test_what_cannot_keep_is_refused(keep):
    params = MODELS["semi-honest"]
    for build in (
        lambda: ClientSession(params, 0, keep=keep, seal_key=None),
        lambda: ServerSession(params, range(4), keep=keep, seal_key=None),
    ):
        with pytest.raises(secagg.InputError, match="keep must be a function"):
            build()


@pytest.mark.parametrize("keep", [lambda state: None, DEFERRED], ids=["a function", "deferred"])
def test_a_sealing_key_or_none_is_said_where_states_are_kept(keep):
    params = MODELS["semi-honest"]
    saved = ClientSession(params, 0, keep=IN_MEMORY).save(seal_key=None)
    state = ServerSession(params, range(4), keep=IN_MEMORY).save(seal_key=None)
    for build in (
        lambda **key: ClientSession(params, 0, keep=keep, **key),
        lambda **key: ServerSession(params, range(4), keep=keep, **key),
        lambda **key: ClientSession.restore(saved, 0, keep=keep, **key),
        lambda **key: ServerSession.restore(state, keep=keep, **key),
    ):
        with pytest.raises(secagg.InputError, match="seal_key"):
            build()
        for bad in (b"short", "x" * 32, 7, True):
            with pytest.raises(secagg.InputError, match="32 bytes"):
                build(seal_key=bad)
        build(seal_key=None)
    with pytest.raises(TypeError, match="keep"):
        ClientSession(params, 0)
    for session in (ClientSession(params, 0, keep=IN_MEMORY), ServerSession(params, range(4), keep=IN_MEMORY)):
        with pytest.raises(secagg.InputError, match="seal_key"):
            session.save()


def test_a_state_is_written_without_a_second_copy_of_the_accumulator():
    params = plan(3, 500_000)
    sizes = []

    def keep(state: secagg.SavedState) -> None:
        tracemalloc.start()
        sizes.append(sum(len(one) for one in state.buffers()))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(state) == sizes[-1]

    for seal_key in (None, KEY):
        peaks: list[int] = []
        server = ServerSession(params, range(3), keep=keep, seal_key=seal_key)
        clients = {
            one: ClientSession(params, one, keep=keep if one == 0 else IN_MEMORY, seal_key=None) for one in range(3)
        }
        requests = server.requests()
        while requests:
            for one, request in requests.items():
                answer = clients[one].receive(request)
                if isinstance(answer, InputNeeded):
                    answer = clients[one].submit(np.zeros(500_000, dtype=np.float32))
                server.receive(one, answer.payload)
            requests = server.advance()
        assert max(sizes) > 2_000_000
        assert max(peaks) < 6 << 20 if seal_key else max(peaks) < 1 << 20


def at_stage(model: str, stage: str) -> tuple[World, bytes, bytes]:
    """A world at a stage of which nothing was answered, with client 0 and the server as they were saved."""
    world = World(model, lambda _: IN_MEMORY, at_once)
    while world.server.stage != stage:
        for one, request in world.server.requests().items():
            world.server.receive(one, world.exchange(one, request).payload)
        world.server.advance()
    return world, world.clients[0].save(seal_key=None), world.server.save(seal_key=None)


STAGES_OF = {
    "semi-honest": ("advertise_keys", "share_keys", "masked_input", "unmask"),
    "malicious-server": ("advertise_keys", "share_keys", "masked_input", "check_consistency", "unmask"),
}


@pytest.mark.parametrize(
    ("model", "stage"), [(model, stage) for model, stages in STAGES_OF.items() for stage in stages]
)
def test_a_step_that_is_cut_off_anywhere_has_left_one_answer_and_its_state(model, stage):
    """Cut at every line that keeps, and at others: what leaves at last is what the last state repeats."""
    world, client, _ = at_stage(model, stage)
    request, identity = world.server.requests()[0], world.identities.get(0)

    def fresh() -> tuple[Store, ClientSession]:
        store = Store()
        return store, ClientSession.restore(client, 0, keep=store, seal_key=None, credentials=identity)

    def answer(pair: tuple[Store, ClientSession]) -> Reply:
        _, session = pair
        try:
            told = session.receive(request)
        except secagg.LocalProtocolError:  # the vector's step is held
            told = InputNeeded(0)
        return session.submit(world.vectors[0]) if isinstance(told, InputNeeded) else told

    def cuts() -> Iterator[tuple[Store, ClientSession]]:
        yield from every_cut(fresh, answer, step=13)
        whole = fresh()
        lines = run_cut(lambda: answer(whole), -1, of=keeping.__file__)
        for at in range(lines):
            pair = fresh()
            with pytest.raises(Cut):
                run_cut(lambda pair=pair: answer(pair), at, of=keeping.__file__)
            yield pair

    waited = 0
    for pair in cuts():
        store, session = pair
        offered = len(store.offered)
        reply = answer(pair)
        waited += len(store.offered) > offered > 0
        again = ClientSession.restore(store.kept, 0, keep=IN_MEMORY, credentials=identity)
        assert again.receive(request) == reply == session.receive(request)
        assert len(set(store.offered)) == 1 or stage == "masked_input" or not offered
    assert waited


@pytest.mark.parametrize("model", STAGES_OF)
def test_a_servers_step_that_is_cut_off_anywhere_has_asked_one_thing_and_kept_it(model):
    world, _, server = at_stage(model, "share_keys")
    replies = [(one, world.exchange(one, request).payload) for one, request in world.server.requests().items()]

    def all_in() -> tuple[Store, ServerSession]:
        store = Store()
        session = ServerSession.restore(server, keep=store, seal_key=None, credentials=world.directory)
        session.receive_all(replies)
        return store, session

    for store, session in every_cut(all_in, lambda pair: pair[1].advance(), step=5):
        requests = session.advance() if session.stage == "share_keys" else session.requests()
        again = ServerSession.restore(store.kept, keep=IN_MEMORY, credentials=world.directory)
        assert dict(again.requests()) == dict(requests)
        assert again.stage == session.stage == "masked_input"


@pytest.mark.parametrize("model", STAGES_OF)
def test_a_round_that_is_cut_off_before_it_is_asked_has_one_nonce(model):
    def opened() -> tuple[Store, ServerSession]:
        store = Store()
        params = MODELS[model]
        directory = identities(range(4))[0].directory if params.threat == "malicious-server" else None
        return store, ServerSession(params, range(4), context=CONTEXT, keep=store, seal_key=None, credentials=directory)

    for store, session in every_cut(opened, lambda pair: pair[1].requests(), step=2):
        requests = session.requests()
        again = ServerSession.restore(store.kept, keep=IN_MEMORY, credentials=session._directory)
        assert dict(again.requests()) == dict(requests)


async def _awaited(state: secagg.SavedState) -> None:
    """A store that somebody would have to await."""


class _Awaited:
    async def __call__(self, state: secagg.SavedState) -> None:
        """The same, as an object."""


def test_a_store_that_is_awaited_is_no_keep():
    """It would return before anything is durable."""
    params = MODELS["semi-honest"]
    for build in (
        lambda: ClientSession(params, 0, keep=_awaited, seal_key=None),
        lambda: ServerSession(params, range(4), keep=_awaited, seal_key=None),
    ):
        with pytest.raises(secagg.InputError, match="DEFERRED"):
            build()
    loop = asyncio.new_event_loop()
    future = asyncio.Future(loop=loop)
    for keep in (lambda state: _awaited(state), _Awaited(), lambda state: (yield), lambda state: future):
        server = ServerSession(params, range(4), keep=keep, seal_key=None)
        for _ in range(2):
            with pytest.raises(secagg.InputError, match="nothing is durable yet"):
                server.requests()
        with pytest.raises(secagg.LocalProtocolError, match="same call again"):
            server.receive(0, b"")
    loop.close()


def test_each_state_that_shares_what_changes_is_closed():
    """Two steps may show the same array before it changes: neither shows it afterwards."""
    world = World("sparse, malicious-server", lambda name: DEFERRED if name == "server" else IN_MEMORY, at_once)
    requests = world.server.requests().kept()
    for one, request in requests.items():
        world.server.receive(one, world.exchange(one, request).payload)
    first = world.server.advance()
    requests = first.kept()
    second = world.server.use_beacon(BEACON)
    second.kept()
    bytes(first.state), bytes(second.state)
    world.server.receive(0, world.exchange(0, requests[0]).payload)
    for pending in (first, second):
        with pytest.raises(secagg.LocalProtocolError, match="gone on"):
            bytes(pending.state)


def test_a_sealed_state_that_is_read_late_shows_no_piece_of_what_changed():
    params = plan(3, 1_000_000)
    server = ServerSession(params, range(3), keep=DEFERRED, seal_key=KEY)
    clients = {one: ClientSession(params, one, keep=IN_MEMORY) for one in range(3)}
    requests = server.requests().kept()
    late = None
    for stage in ("advertise_keys", "share_keys", "masked_input"):
        for one, request in requests.items():
            answer = clients[one].receive(request)
            if isinstance(answer, InputNeeded):
                answer = clients[one].submit(np.zeros(1_000_000))
            server.receive(one, answer.payload)
        if stage == "masked_input":
            with pytest.raises(secagg.LocalProtocolError, match="gone on"):
                list(late)
            return
        pending = server.advance()
        whole, late = bytes(pending.state), pending.state.buffers()
        assert whole.startswith(next(late) + next(late))
        requests = pending.kept()


def test_a_session_holds_no_state_that_it_has_let_out():
    """A state holds the secrets of its time, and a decryption key or a client would gather them all."""
    shown = []
    params = MODELS["semi-honest"]

    def keep(state: secagg.SavedState) -> None:
        shown.append(weakref.ref(state))

    server = ServerSession(params, range(4), keep=IN_MEMORY)
    client = ClientSession(params, 0, keep=keep, seal_key=None)
    others = {one: ClientSession(params, one, keep=IN_MEMORY) for one in range(1, 4)}
    while server.stage is not None:
        for one, request in server.requests().items():
            session = others.get(one, client)
            answer = session.receive(request)
            server.receive(one, (answer if isinstance(answer, Reply) else session.submit(np.zeros(3))).payload)
        gc.collect()
        assert [one() for one in shown] == [None] * len(shown)
        server.advance()
    assert len(shown) == 4
