"""A homomorphic sum whose every party keeps its states, in stores that fail or die when a test says so."""

from __future__ import annotations

import contextlib
import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import secagg
from federation import DECRYPTOR, Federation, key_pair, plan
from secagg import DEFERRED, IN_MEMORY, DecryptionKey, LocalProtocolError, Pending, PublicKey, SavedState

SEAL = bytes(range(32))
"""A fresh salt is drawn for each state that is sealed, so two that are alike were made once."""
CODES = np.random.default_rng(1).integers(0, 256, (3, 5))
VECTORS = CODES - 127.5


class Full(Exception):
    """What a store raises that cannot write now."""


class Died(BaseException):
    """The end of a process."""


class Store:
    """Where one party's states go. While it is ``flaky``, it raises at each state, and writes it when asked again."""

    def __init__(self) -> None:
        self.states: list[bytes] = []
        self.offered: list[bytes] = []
        self.flaky = self.failed = False
        self.moment: Callable[[], None] = lambda: None

    def __call__(self, state: SavedState) -> None:
        self.moment()
        self.offered.append(bytes(state))
        self.failed = self.flaky and not self.failed
        if self.failed:
            raise Full
        self.states.append(bytes(state))
        self.moment()


def exact(result: Any) -> None:
    assert result.total.tolist() == CODES[list(result.survivors)].sum(axis=0).tolist()


@functools.cache
def public_of(message: bytes, params: secagg.HEParams) -> PublicKey:
    return PublicKey.open(message, params, DECRYPTOR.public)


class Kept(Federation):
    """A federation whose parties keep their sealed states in stores of their own; each client has a key of its own."""

    def __init__(self, holder: str, *, deferred: bool = False, clients: int = 3) -> None:
        self.deferred, self.stores = deferred, defaultdict(Store)
        self.sent: dict[int, bytes] = {}
        encoding = secagg.FixedPoint(clip=127.5, bits=8)
        dropout = 0.3 if clients > 2 else 0.0
        params = plan(clients, 5, encoding=encoding, dropout=dropout, key_holder=holder)
        saved = DecryptionKey.restore(key_pair(params), keep=IN_MEMORY).save(seal_key=SEAL)
        self.names = [f"key {one}" for one in range(clients)] if holder == "clients" else ["key", "decryptor"]
        self.names += ["server", *(f"client {one}" for one in range(clients))]
        self.keys = {}
        for name in self.names:
            if name.startswith("key"):
                self.stores[name].states.append(saved)
                self.keys[name] = self.restored_key(name)
        super().__init__(params, key=next(iter(self.keys.values())))

    def kept(self, name: str) -> dict[str, object]:
        return {"keep": DEFERRED if self.deferred else self.stores[name], "seal_key": SEAL}

    def restored_key(self, name: str) -> DecryptionKey:
        return DecryptionKey.restore(self.stores[name].states[-1], **self.kept(name))

    def client_credentials(self, one: int, **overrides: object) -> secagg.HECredentials:
        own = (
            {"public_key": public_of(self.key.public.message(DECRYPTOR), self.params)}
            if self.decryptor is not None
            else {"key": self.keys[f"key {one}"]}
        )
        return super().client_credentials(one, **(own | overrides))

    def server_credentials(self, **overrides: object) -> secagg.HEServerCredentials:
        if self.decryptor is not None:
            self.settled(self.decryptor.opening())
        return super().server_credentials(**overrides)

    def client(self, one: int, **overrides: object) -> secagg.ClientSession:
        return super().client(one, **(self.kept(f"client {one}") | overrides))

    def new_server(self, **overrides: object) -> secagg.ServerSession:
        return super().new_server(**(self.kept("server") | overrides))

    def new_decryptor(self, **overrides: object) -> secagg.DecryptorSession:
        return super().new_decryptor(**(self.kept("decryptor") | overrides))

    def party(self, name: str) -> object:
        what, _, one = name.partition(" ")
        if what == "key":
            return self.keys[name]
        return self.clients[int(one)] if what == "client" else getattr(self, what)

    def settled(self, step: object) -> object:
        """What a step lets out: with DEFERRED once its state is in the store, and the next one's after it."""
        while isinstance(step, Pending):
            name = next(name for name in self.names if self.party(name) is step.party)
            self.stores[name](step.state)
            step = step.kept()
        return step

    def upload_of(self, one: int, opening: bytes) -> bytes:
        """A client's upload, the same one each time."""
        answer = self.clients[one].receive(opening)
        if isinstance(answer, secagg.InputNeeded):
            answer = self.settled(self.clients[one].submit(VECTORS[one]))
        assert self.sent.setdefault(one, answer.payload) == answer.payload, "two uploads of one client"
        return answer.payload

    def drive(self, moment: Callable[[], None] = lambda: None) -> None:
        """Bring the sum to its end from wherever its parties are, and check it; ``moment`` comes after each upload."""
        while self.server.stage == "encrypted_input":
            requests, waiting = self.settled(self.server.requests()), self.server.waiting_for
            if not waiting:
                self.settled(self.server.advance())
                continue
            upload = self.upload_of(waiting[0], requests[waiting[0]])
            for party in [self.server] if self.decryptor is None else [self.server, self.decryptor]:
                with contextlib.suppress(secagg.StaleMessage):
                    party.receive(waiting[0], upload)
                moment()
        if self.decryptor is None:
            for one, encrypted in self.settled(self.server.requests()).items():
                assert self.settled(self.clients[one].receive(encrypted)) == secagg.ResultReady()
            results = [client.result for client in self.clients.values()]
        else:
            while self.server.stage is not None:
                self.ask_decryptor(moment)
            results = [self.server.result]
        for one in results:
            assert one.survivors == tuple(range(self.params.clients))
            exact(one)
        assert {key.released for key in self.keys.values()} == {1}

    def ask_decryptor(self, moment: Callable[[], None]) -> None:
        # A decryptor that was restored has no uploads: their clients are asked for them again
        for one in set(self.server.survivors) - set(self.decryptor.survivors):
            self.decryptor.receive(one, self.upload_of(one, self.decryptor.opening()))
            moment()
        answer = self.settled(self.decryptor.release(self.server.party_requests()["decryptor"]))
        self.settled(self.server.receive_from("decryptor", answer))

    def restart(self, *names: str) -> None:
        """Restore parties from what they kept last, or build them anew: keys before those that hold them."""
        for name in (one for one in self.names if one in names):
            states, kept = self.stores[name].states[-1:], self.kept(name)
            what, _, number = name.partition(" ")
            if what == "key":
                self.keys[name] = self.key = self.restored_key(name)
            elif what == "decryptor":
                self.decryptor = self.restored_decryptor(*states, **kept)
            elif what == "server":
                self.server = self.restored_server(*states, **kept) if states else self.new_server()
            else:
                one = int(number)
                self.clients[one] = self.restored_client(one, *states, **kept) if states else self.client(one)


def view(party: Any) -> dict[str, object]:
    """What can be seen of a party."""
    names = ("stage", "clipped", "waiting_for", "ready", "survivors", "released", "releases_left", "retired")
    seen = {name: getattr(party, name) for name in names if hasattr(party, name)}
    with contextlib.suppress(LocalProtocolError, AttributeError):
        seen["result"] = party.result.total.tolist()
    with contextlib.suppress(AttributeError):
        seen["asked"] = party.party_requests()
    return seen


def insist(
    federation: Kept,
    names: Sequence[str],
    call: Callable[[], Any],
    others: Mapping[str, Sequence[Callable[[], object]]],
) -> Any:
    """Make a call until its answer is out; the parties of ``names`` keep a state each, in turn, and fail at first.

    While one waits nothing is to be seen of the step, and its ``others`` are refused.
    """
    step, pending, before = None, [], {name: len(federation.stores[name].offered) for name in names}
    for name in names:
        party, store = federation.party(name), federation.stores[name]
        seen = view(party)
        if federation.deferred:
            first, again = step or call(), call()
            assert first.party is again.party is party
            assert bytes(first.state) == bytes(first.state) == bytes(again.state)
        else:
            with pytest.raises(Full):
                call()
        assert view(party) == seen
        for other in others[name]:
            with pytest.raises(LocalProtocolError, match=r"a step of this .* waits for its state to be kept"):
                other()
        assert view(party) == seen
        if federation.deferred:
            store(first.state)
            step, pending = first.kept(), [*pending, first, again]
            assert repr(first) == f"<Pending until {len(first.state)} bytes of state are durable>"
    answer = step if federation.deferred else call()
    assert all(one.kept() == answer for one in pending)
    for name in names:
        offered = federation.stores[name].offered[before[name] :]
        assert len(offered) == (1 if federation.deferred else 2)
        assert set(offered) == {federation.stores[name].states[-1]}
    return answer
