"""Loops of the guides in processes that are killed (SIGKILL) before or after something that they store or send.

Run: ``python tests/killed_loops.py FOLDER PROTOCOL VICTIM [STEP]``. One round for each event of the victim's, of which
every STEP-th is taken: the victim is killed there and started again. One line of JSON a round says how it ended, and
what left anybody. This process makes no session: it carries messages, and forks.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import queue
import signal
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable
from multiprocessing import Pipe, connection
from pathlib import Path
from typing import Any

import numpy as np

import guides
import secagg
from children import fork
from guides import CONTEXT, SEAL_KEY
from secagg.protocol import protocol_of
from secagg.wire import open_message

VICTIM = 0
"""Which client is killed, where a client is."""
PATIENCE = 60.0


class Events:
    """Counts what a process stores and sends, and ends the process at one of them."""

    def __init__(self, killed_at: int | None) -> None:
        self.killed_at, self.count = killed_at, 0

    def pass_one(self) -> None:
        if self.count == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

    def around(self, act: Callable[..., Any]) -> Callable[..., Any]:
        """Return what does the same, with an event before and one after."""

        def acted(*given: Any) -> Any:
            self.pass_one()
            out = act(*given)
            self.pass_one()
            return out

        return acted


class Slot:
    """A slot of a store, watched."""

    def __init__(self, folder: Path, events: Events) -> None:
        store = secagg.FileStore(folder)
        store.recover()
        slot = store.slot("state")
        self.take, self.put_back, self.put = slot.take, slot.put_back, events.around(slot.put)


class Parties:
    """What each process runs; ``folder`` is the round's."""

    def __init__(self, folder: Path, cohort: guides.Cohort) -> None:
        self.folder, self.cohort = folder, cohort
        self.vectors = np.random.default_rng(1).uniform(-1, 1, (cohort.params.clients, 3))
        self.opening = self.key_message = b""

    def decryptor(self, pipe: connection.Connection, events: Events, again: bool) -> None:
        code, cohort = guides.decryptors(), self.cohort
        keys, sessions = Slot(self.folder / "key", events), Slot(self.folder / "decryptor", events)
        key, session = code.begin_decryptor(cohort.params, cohort.roster, cohort.own, CONTEXT, keys, sessions, SEAL_KEY)
        send = events.around(pipe.send)
        send(("opening", session.opening(), key.public.message(cohort.own)))
        while True:
            ask, client_id, payload = pipe.recv()
            send(("answer", ask, code.serve(session, sessions, client_id, payload)))

    def client(self, pipe: connection.Connection, events: Events, again: bool) -> None:
        code, slot = guides.loops(), Slot(self.folder / "client", events)
        credentials = self.cohort.client(VICTIM, self.key_message)
        send = events.around(pipe.send)
        if again:
            send(("reply", VICTIM, None))
        while True:
            _, payload = pipe.recv()
            train = lambda: (self.vectors[VICTIM], 1)  # noqa: E731 - as in the guide
            reply = code.answer(
                payload, VICTIM, self.cohort.params, CONTEXT, slot, SEAL_KEY, train, credentials, guides.beacon
            )
            if reply is not None:
                send(("reply", VICTIM, reply))

    def others(self, pipe: connection.Connection, events: Events, again: bool) -> None:
        """All clients that are not killed: they keep nothing."""
        clients = {}
        while True:
            one, payload = pipe.recv()
            if one not in clients:
                credentials = self.cohort.client(one, self.key_message)
                clients[one] = secagg.ClientSession(
                    self.cohort.params, one, context=CONTEXT, credentials=credentials, keep=secagg.IN_MEMORY
                )
            reply = clients[one].receive(payload)
            if isinstance(reply, secagg.BeaconNeeded):
                reply = clients[one].use_beacon(guides.beacon(reply.session_id))
            if isinstance(reply, secagg.InputNeeded):
                reply = clients[one].submit(self.vectors[one], 1)
            pipe.send(("reply", one, reply.payload))

    def server(self, pipe: connection.Connection, events: Events, again: bool) -> None:
        cohort, slot, waiting = self.cohort, Slot(self.folder / "server", events), deque()
        asks = iter(range(10_000))
        send = events.around(pipe.send)

        class Inbox:
            def get(self, timeout: float) -> Any:
                if waiting:
                    return waiting.popleft()
                if not pipe.poll(timeout):
                    raise queue.Empty
                return pipe.recv()[1:]

        def ask(client_id: int | None, payload: bytes) -> bytes:
            number = (os.getpid(), next(asks))
            send(("ask", number, client_id, bytes(payload)))
            while True:
                what, *told = pipe.recv()
                if what == "reply":
                    waiting.append(told)
                elif told[0] == number:
                    return told[1]

        credentials, saved = cohort.server(self.opening), slot.take()
        known = {"keep": slot.put, "seal_key": SEAL_KEY, "credentials": credentials}
        if saved is None:
            session = secagg.ServerSession(cohort.params, cohort.roster, context=CONTEXT, **known)
        else:
            session = secagg.ServerSession.restore(saved, **known)
        guides.loops().run_server(
            session, lambda *to: send(("to", *to)), Inbox(), PATIENCE, guides.beacon, {"decryptor": ask}
        )
        result = session.result
        error = float(np.abs(result.mean - self.vectors[list(result.survivors)].mean(axis=0)).max())
        send(("result", list(result.survivors), error))


class Round:
    """One round: processes, the pipes to them, and what left them."""

    def __init__(self, folder: Path, cohort: guides.Cohort, victim: str, killed_at: int) -> None:
        self.parties, self.victim, self.killed_at = Parties(folder, cohort), victim, killed_at
        self.pipes: dict[str, connection.Connection] = {}
        self.pids: dict[str, int] = {}
        self.left: dict[str, set[str]] = defaultdict(set)
        self.kills = 0
        self.asked: tuple[Any, ...] | None = None
        self.result: list[Any] | None = None
        self.ended: str | None = None

    def start(self, name: str) -> None:
        mine, theirs = Pipe()
        pid = fork()
        if pid == 0:
            for pipe in (mine, *self.pipes.values()):
                pipe.close()
            gc.freeze()
            killed_at = self.killed_at if name == self.victim and not self.kills else None
            try:
                getattr(self.parties, name)(theirs, Events(killed_at), self.kills > 0)
            except (EOFError, BrokenPipeError):
                os._exit(0)  # the round is over
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
            os._exit(0)
        theirs.close()
        self.pipes[name], self.pids[name] = mine, pid

    def run(self) -> dict[str, Any]:
        names = ["client", "others", "server"]
        if isinstance(self.parties.cohort.params, secagg.HEParams):
            self.start("decryptor")
            while not self.parties.opening:
                self.carry()
        for name in names:
            self.start(name)
        deadline = time.monotonic() + PATIENCE
        while self.result is None and self.ended is None and time.monotonic() < deadline:
            self.carry()
        for name, pid in self.pids.items():
            # A server that has told its result ends; all others wait for more, but for whoever was just killed
            ends = name == "server" and self.result is not None
            gone, status = os.waitpid(pid, 0 if ends else os.WNOHANG)
            if not gone:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            elif os.WIFSIGNALED(status) and name == self.victim:
                self.kills += 1
        for pipe in self.pipes.values():
            pipe.close()
        return {
            "killed_at": self.killed_at,
            "kills": self.kills,
            "result": self.result,
            "ended": self.ended,
            "left": {what: len(said) for what, said in self.left.items()},
        }

    def carry(self) -> None:
        by_pipe = {pipe: name for name, pipe in self.pipes.items()}
        for pipe in connection.wait(list(by_pipe), timeout=1.0):
            name = by_pipe[pipe]  # type: ignore[index]
            try:
                self.pass_on(name, *pipe.recv())  # type: ignore[union-attr]
            except (EOFError, ConnectionResetError):
                if self.result is None:
                    self.restart(name)

    def restart(self, name: str) -> None:
        _, status = os.waitpid(self.pids[name], 0)
        if not os.WIFSIGNALED(status) or name != self.victim or self.kills:
            self.ended = name
            del self.pipes[name], self.pids[name]
            return
        self.kills += 1
        self.pipes.pop(name).close()
        self.start(name)
        if name == "server":
            self.asked = None
        elif name == "decryptor" and self.asked is not None:
            self.send(name, *self.asked)

    def send(self, name: str, *message: Any) -> None:
        # Where it is dead, what it is sent is lost
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, KeyError):
            self.pipes[name].send(message)

    def pass_on(self, name: str, what: str, *told: Any) -> None:
        if what == "reply":
            self.note("reply", told[0], told[1])
            self.send("server", what, *told)
        elif what == "to":
            self.note("request", *told)
            self.send("client" if told[0] == VICTIM else "others", *told)
        elif what == "ask":
            self.asked = told
            self.send("decryptor", *told)
        elif what == "answer":
            if self.asked is not None and self.asked[0] == told[0]:
                if self.asked[1] is None:
                    self.note("release", 0, told[1])
                self.asked = None
                self.send("server", what, *told)
        elif what == "opening":
            self.note("opening", 0, told[0])
            self.parties.opening, self.parties.key_message = told
        else:
            self.result = list(told)

    def note(self, what: str, one: int, payload: bytes | None) -> None:
        if payload is not None:
            header, _ = open_message(payload)
            hashed = hashlib.sha256(payload).hexdigest()
            # By round, and not by session, so that a vector that is masked in two sessions shows
            self.left[f"{what} {int(header.kind)} of {one}"].add(hashed)


def main(folder: str, protocol: str, victim: str, step: str = "1") -> None:
    cohort = guides.cohort(protocol)
    secagg.warmup(cohort.params)
    # Loaded once, and not in each process again
    protocol_of(cohort.params).client_session, protocol_of(cohort.params).server_session
    if protocol == "bfv":
        secagg.DecryptorSession  # noqa: B018
    for killed_at in range(0, 100_000, int(step)):
        told = Round(Path(folder) / str(killed_at), cohort, victim, killed_at).run()
        if told["result"] is not None and not told["kills"]:
            return  # it has no such event
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
