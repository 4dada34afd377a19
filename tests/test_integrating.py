"""The code of docs/integrating.md, run as it stands there."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import guides
import secagg
from guides import CONTEXT, SEAL_KEY
from interruptions import Cut, run_cut
from secagg import IN_MEMORY
from secagg.wire import open_message

BLOCKS = guides.blocks("integrating.md")
PARAMS = secagg.RoundParams.plan(clients=3, dimension=2, dropout=0.0, encoding=secagg.FixedPoint(clip=1.0, bits=16))


def test_the_guides_round_gives_the_mean_of_those_that_stayed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # A round that fails leaves its clients waiting, which should not keep the tests from ending
    monkeypatch.setattr(threading, "Thread", functools.partial(threading.Thread, daemon=True))
    namespace: dict[str, object] = {}
    exec("\n".join(BLOCKS), namespace)  # noqa: S102 - our own documentation
    result, updates = namespace["session"].result, namespace["updates"]
    assert result.dropped == {3: "share_keys"}
    assert namespace["again"].result.survivors == result.survivors
    present = list(result.survivors)
    mean = np.average(updates[present], axis=0, weights=[10 * (one + 1) for one in present])
    assert np.abs(result.mean - mean).max() < result.params.encoding.step
    assert not any(thread.join(timeout=5) or thread.is_alive() for thread in namespace["threads"])


def test_the_guides_round_stands_where_no_kernel_is_compiled_yet(tmp_path):
    root = str(guides.DOCS.parent)
    fresh = {"NUMBA_CACHE_DIR": str(tmp_path / "kernels"), "TMPDIR": str(tmp_path), "PYTHONPATH": root}
    command = [sys.executable, "-c", "\n".join(BLOCKS)]
    done = subprocess.run(
        command, env={**os.environ, **fresh}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(0, 1, 2, 4) {3: 'share_keys'}")


class Restarted(Exception):
    """The process is gone; what it held in memory is, too."""


class World:
    """A cohort whose every message is taken by a process that knows nothing but its folder.

    The server's loop dies before each thing that it sends and after each that it takes in, once at each of them, but
    for those that ``spared`` says.
    """

    def __init__(self, folder: Path, protocol: str, spared=lambda count: False) -> None:
        self.folder, self.cohort, self.spared = folder, guides.cohort(protocol), spared
        self.loops, self.decryptors = guides.loops(), guides.decryptors()
        self.died: set[object] = set()
        self.count = 0
        self.left: dict[object, set[bytes]] = defaultdict(set)
        self.replies: list[tuple[int, bytes]] = []
        self.further = protocol == "bfv"
        self.opening = self.key_message = b""
        self.vectors = np.random.default_rng(1).uniform(-1, 1, (self.cohort.params.clients, 3))
        if self.further:
            key, session = self.decryptor()
            self.opening, self.key_message = session.opening(), key.public.message(self.cohort.own)

    def slot(self, name: str):
        store = secagg.FileStore(self.folder / name)
        store.recover()
        return store.slot("state")

    def decryptor(self):
        keys, self.sessions = self.slot("key"), self.slot("decryptor")
        return self.decryptors.begin_decryptor(
            self.cohort.params, self.cohort.roster, self.cohort.own, CONTEXT, keys, self.sessions, SEAL_KEY
        )

    def ask(self, client_id, payload):
        _, session = self.decryptor()
        self.may_die("ask", client_id, payload)
        given = self.decryptors.serve(session, self.sessions, client_id, payload)
        if client_id is None:
            self.left["release"].add(given)
        return given

    def may_die(self, *event: object) -> None:
        if event not in self.died:
            self.died.add(event)
            self.count += 1
            if not self.spared(self.count):
                raise Restarted

    def client(self, one: int, payload: bytes) -> bytes | None:
        credentials = self.cohort.client(one, self.key_message)
        train = lambda: (self.vectors[one], 1)  # noqa: E731 - as in the guide
        reply = self.loops.answer(
            payload,
            one,
            self.cohort.params,
            CONTEXT,
            self.slot(f"client-{one}"),
            SEAL_KEY,
            train,
            credentials,
            guides.beacon,
        )
        if reply is not None:
            header, _ = open_message(reply)
            self.left[one, header.kind, header.session].add(reply)
        return reply

    def send(self, one: int, payload: bytes) -> None:
        self.may_die("send", one, payload)
        reply = self.client(one, payload)
        if reply is not None:
            self.replies.append((one, reply))

    def get(self, timeout: float) -> tuple[int, bytes]:
        if not self.replies:
            raise queue.Empty
        reply = self.replies.pop()
        self.may_die("get", *reply)
        return reply

    def run(self) -> secagg.ServerSession:
        while True:
            self.replies.clear()
            slot, credentials = self.slot("server"), self.cohort.server(self.opening)
            saved, known = slot.take(), {"keep": slot.put, "seal_key": SEAL_KEY, "credentials": credentials}
            if saved is None:
                session = secagg.ServerSession(self.cohort.params, self.cohort.roster, context=CONTEXT, **known)
            else:
                session = secagg.ServerSession.restore(saved, **known)
            try:
                self.loops.run_server(session, self.send, self, 30.0, guides.beacon, {"decryptor": self.ask})
            except Restarted:
                continue
            return session


@pytest.mark.parametrize("protocol", guides.PROTOCOLS)
def test_the_same_code_serves_every_protocol_whatever_starts_again(tmp_path, protocol):
    sparse = protocol == "malicious sparse"
    world = World(tmp_path, protocol, spared=lambda count: sparse and count % 40 != 1)
    session = world.run()
    everybody = tuple(range(world.cohort.params.clients))
    if protocol == "bfv of clients":
        slot = world.slot("client-1")
        credentials = world.cohort.client(1, b"")
        last = secagg.ClientSession.restore(slot.take(), 1, keep=slot.put, seal_key=SEAL_KEY, credentials=credentials)
        result = last.result
    else:
        result = session.result
    assert result.survivors == everybody
    assert np.abs(result.mean - world.vectors.mean(axis=0)).max() < world.cohort.params.encoding.step
    assert world.count > 5
    # Whatever died, nobody has ever given two answers
    assert {what: len(said) for what, said in world.left.items() if len(said) > 1} == {}


def test_a_client_that_connects_again_is_sent_its_request_again(tmp_path):
    world = World(tmp_path, "semi-honest", spared=lambda count: True)
    lost = {1}

    def send(one, payload):
        if one in lost:
            lost.discard(one)
            world.replies.insert(0, (one, None))
        else:
            World.send(world, one, payload)

    world.may_die = lambda *event: None
    slot = world.slot("server")
    session = secagg.ServerSession(world.cohort.params, range(3), context=CONTEXT, keep=slot.put, seal_key=SEAL_KEY)
    world.loops.run_server(session, send, world, 30.0)
    assert not lost
    assert session.result.survivors == (0, 1, 2)


@pytest.mark.parametrize("what", ["a wrong sealing key", "a message of nobody's", "a full disk", "a failing model"])
def test_a_state_survives_whatever_keeps_its_client_from_answering(tmp_path, monkeypatch, what):
    code = guides.loops()
    server = secagg.ServerSession(PARAMS, range(3), keep=IN_MEMORY)
    others = {one: secagg.ClientSession(PARAMS, one, keep=IN_MEMORY) for one in (1, 2)}
    store = secagg.FileStore(tmp_path)

    def answer(payload, key=bytes(32), train=lambda: (np.zeros(2), 1)):
        # A fresh process for each message
        return code.answer(payload, 0, PARAMS, b"", store.slot("client"), key, train)

    def fail(payload):
        if what == "a wrong sealing key":
            with pytest.raises(secagg.DecodeError, match="seal_key"):
                answer(payload, key=bytes(range(32)))
        elif what == "a message of nobody's":
            assert answer(b"SAgg" + bytes(99)) is None
        elif what == "a full disk":
            with monkeypatch.context() as patched:
                patched.setattr("os.fsync", full_once())
                with pytest.raises(OSError, match="no space left"):
                    answer(payload)
        elif server.stage == "masked_input":
            with pytest.raises(ZeroDivisionError):
                answer(payload, train=lambda: 1 / 0)

    def full_once(real=os.fsync):
        failed = []

        def fsync(descriptor):
            if not failed:
                failed.append(descriptor)
                raise OSError(errno.ENOSPC, "no space left on device")
            real(descriptor)

        return fsync

    while server.stage is not None:
        for one, payload in server.requests().items():
            if one == 0:
                if server.stage != "advertise_keys":
                    fail(payload)
                server.receive(0, answer(payload))
                continue
            reply = others[one].receive(payload)
            if isinstance(reply, secagg.InputNeeded):
                reply = others[one].submit(np.zeros(2))
            server.receive(one, reply.payload)
        server.advance()
    assert server.result.survivors == (0, 1, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["client.state"]


def test_one_slot_serves_round_after_round(tmp_path):
    code, slot = guides.loops(), secagg.FileStore(tmp_path).slot("client")
    for context in (b"round 1", b"round 2"):
        server = secagg.ServerSession(PARAMS, range(3), context=context, keep=IN_MEMORY)
        invitation = server.requests()[0]
        assert code.answer(b"junk", 0, PARAMS, context, slot, None, None) is None
        server.receive(0, code.answer(invitation, 0, PARAMS, context, slot, None, None))
        assert code.answer(b"junk", 0, PARAMS, context, slot, None, None) is None
        slot.drop() if slot.take() else pytest.fail("the state is gone")


def test_a_state_whose_claim_is_cut_off_anywhere_serves_again(tmp_path):
    code, payload = guides.loops(), secagg.ServerSession(PARAMS, range(3), keep=IN_MEMORY).requests()[0]
    stores = (secagg.FileStore(tmp_path / str(number)) for number in range(10_000))

    def again(store):
        return code.answer(payload, 0, PARAMS, b"", store.slot("client"), None, None)

    cuts = 0
    for at in range(1000):
        store = next(stores)
        first = again(store)
        try:
            run_cut(lambda store=store: again(store), at, of="<string>")
            break
        except Cut:
            cuts += 1
        store.recover()
        assert again(store) == first
    assert cuts > 8


class Rows:
    """A database that is awaited; every second write fails."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.writes = 0

    async def put(self, party: object, state: bytes) -> None:
        await asyncio.sleep(0)
        self.writes += 1
        if self.writes % 2:
            raise OSError("the database is away")
        self.kept[type(party).__name__] = state

    def restored(self, new, restore):
        """Return what was kept last, or something new."""
        (saved,) = self.kept.values() or [None]
        return new() if saved is None else restore(saved)


async def until_kept(call):
    """Make a call again until its state could be written."""
    while True:
        try:
            return await call()
        except OSError:
            continue


class AwaitedWorld:
    """A cohort in one event loop. A client or server whose write fails starts again from what was written before."""

    def __init__(self, protocol: str) -> None:
        self.code, self.cohort = guides.awaited(), guides.cohort(protocol)
        self.n = self.cohort.params.clients
        self.vectors = np.random.default_rng(1).uniform(-1, 1, (self.n, 3))
        self.rows: dict[object, Rows] = defaultdict(Rows)
        self.left: dict[object, set[bytes]] = defaultdict(set)
        self.inbox: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self.opening = self.key_message = b""

    known: ClassVar = {"keep": secagg.DEFERRED, "seal_key": SEAL_KEY}

    async def begin_decryptor(self):
        put = self.rows["decryptor"].put
        made = secagg.DecryptionKey.generate(self.cohort.params, **self.known)
        key = await until_kept(lambda: self.code.let_out(made, put))
        given = {"signing_key": self.cohort.own, "context": CONTEXT, **self.known}
        self.decryptor = secagg.DecryptorSession(self.cohort.params, key, self.cohort.roster, **given)
        self.opening = await until_kept(lambda: self.code.let_out(self.decryptor.opening(), put))
        self.key_message = key.public.message(self.cohort.own)

    async def ask(self, one, payload):
        if one is not None:
            try:
                return self.decryptor.receive(one, payload)
            except secagg.StaleMessage:
                return None
        put = self.rows["decryptor"].put
        return await until_kept(lambda: self.code.let_out(self.decryptor.release(payload), put))

    async def train(self, one):
        return self.vectors[one], 1

    async def beacon(self, session_id):
        return guides.beacon(session_id)

    async def client(self, one, payload):
        given = {"credentials": self.cohort.client(one, self.key_message), **self.known}
        session = self.rows[one].restored(
            lambda: secagg.ClientSession(self.cohort.params, one, context=CONTEXT, **given),
            lambda saved: secagg.ClientSession.restore(saved, one, **given),
        )
        return await self.code.answer(session, payload, self.rows[one].put, lambda: self.train(one), self.beacon)

    async def send(self, one, payload):
        reply = await until_kept(lambda: self.client(one, payload))
        header, _ = open_message(reply.payload)
        self.left[one, header.kind].add(reply.payload)
        await self.inbox.put((one, reply.payload))

    async def server(self):
        given = {"credentials": self.cohort.server(self.opening), **self.known}
        session = self.rows["server"].restored(
            lambda: secagg.ServerSession(self.cohort.params, self.cohort.roster, context=CONTEXT, **given),
            lambda saved: secagg.ServerSession.restore(saved, **given),
        )
        parties = {"decryptor": self.ask}
        await self.code.run_server(session, self.send, self.inbox, self.rows["server"].put, 30.0, self.beacon, parties)
        return session


@pytest.mark.parametrize("protocol", ["semi-honest", "malicious sparse", "bfv"])
def test_the_awaited_loop_serves_pairwise_rounds_and_homomorphic_sums(protocol):
    world = AwaitedWorld(protocol)

    async def run():
        if protocol == "bfv":
            await world.begin_decryptor()
        return (await until_kept(world.server)).result

    result = asyncio.run(run())
    assert result.survivors == tuple(range(world.n))
    assert np.abs(result.mean - world.vectors.mean(axis=0)).max() < world.cohort.params.encoding.step
    assert all(len(said) == 1 for said in world.left.values())
    assert all(rows.writes >= 2 for rows in world.rows.values())
    if protocol == "bfv":
        assert world.rows["decryptor"].kept.keys() == {"DecryptionKey", "DecryptorSession"}


def reply_of(clients: dict[int, secagg.ClientSession], one: int, payload: bytes) -> bytes:
    answer = clients[one].receive(payload)
    return (answer if isinstance(answer, secagg.Reply) else clients[one].submit(np.full(2, 0.5))).payload


class Slow:
    """A server's session that takes longer over each reply than its caller waits for one."""

    def __init__(self, session: secagg.ServerSession, seconds: float) -> None:
        self.__dict__.update(session=session, seconds=seconds)

    def __getattr__(self, name: str) -> object:
        return getattr(self.session, name)

    def receive(self, *reply: object) -> None:
        time.sleep(self.seconds)
        self.session.receive(*reply)


def test_what_lies_in_the_inbox_counts_however_busy_the_server_was():
    clients, inbox = {one: secagg.ClientSession(PARAMS, one, keep=IN_MEMORY) for one in range(3)}, queue.Queue()
    server = Slow(secagg.ServerSession(PARAMS, range(3), keep=IN_MEMORY), 0.02)
    guides.loops().run_server(server, lambda one, p: inbox.put((one, reply_of(clients, one, p))), inbox, 0.01)
    assert server.result.survivors == (0, 1, 2)


def test_the_same_in_the_awaited_loop():
    async def run() -> tuple[int, ...]:
        clients, inbox = {one: secagg.ClientSession(PARAMS, one, keep=IN_MEMORY) for one in range(3)}, asyncio.Queue()
        server = Slow(secagg.ServerSession(PARAMS, range(3), keep=secagg.DEFERRED, seal_key=None), 0.02)

        async def send(one: int, payload: bytes) -> None:
            await inbox.put((one, reply_of(clients, one, payload)))

        async def put(_party: object, _state: secagg.SavedState) -> None:
            await asyncio.sleep(0)

        await guides.awaited().run_server(server, send, inbox, put, 0.01)
        return server.result.survivors

    assert asyncio.run(run()) == (0, 1, 2)


def test_a_message_that_comes_while_another_process_holds_the_state_is_not_answered(tmp_path):
    store, loops = secagg.FileStore(tmp_path), guides.loops()
    request = secagg.ServerSession(PARAMS, range(3), keep=IN_MEMORY).requests()[0]

    def answered() -> bytes | None:
        return loops.answer(request, 0, PARAMS, b"", store.slot("client-0"), None, None)

    first, holder = answered(), store.slot("client-0")
    assert first is not None
    assert holder.take() is not None
    assert answered() is None
    holder.put_back()
    assert answered() == first
