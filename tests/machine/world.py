"""A cohort on a hostile network: sessions of both sides, everything that was ever sent, and what must hold of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest

import secagg
from cohort import CONTEXT, deterministic, identities, plan
from knowledge import Ledger, Masks, Step, watching
from lies import Front, View
from secagg import (
    IN_MEMORY,
    BeaconNeeded,
    ClientSession,
    InputNeeded,
    LocalProtocolError,
    SecAggError,
    ServerSession,
    TooFewClients,
)
from secagg.pairwise.client_states import Checked
from secagg.pairwise.graph import HararyGraph
from secagg.pairwise.stages import stages_of

EXACT = secagg.FixedPoint(clip=127.5, bits=8)
MAX_WEIGHT = 3
SMALL = (
    {"clients": 4, "dropout": 0.0, "threshold": 2},
    {"clients": 5, "dropout": 0.2},
    {"clients": 6, "dropout": 0.1, "threshold": 3},
    {"clients": 6, "dropout": 0.1, "corrupt": 0.1},
)
SPARSE = (
    {"clients": 40, "dropout": 0.1, "protocol": "secagg+"},
    {"clients": 40, "dropout": 0.1, "corrupt": 0.05, "protocol": "secagg+"},
)
CUTTABLE = ({"clients": 40, "dropout": 0.45, "protocol": "secagg+"},)
"""With this many planned drop-outs S is low enough for a server to show two halves of the ring to each other."""


def parameters(threat: str, variant: dict[str, object]) -> secagg.RoundParams:
    arguments = {"encoding": EXACT, "max_weight": MAX_WEIGHT, "threat": threat, "dimension": variant["clients"]}
    return plan(**(arguments | variant))


def flipped(payload: bytes, noise: int) -> bytes:
    """Flip one bit."""
    at = noise // 8 % len(payload)
    return payload[:at] + bytes([payload[at] ^ 1 << noise % 8]) + payload[at + 1 :]


@dataclass
class Seen:
    """One round's traffic, by roster position."""

    requests: dict[int, list[bytes]] = field(default_factory=dict)
    replies: list[tuple[int, bytes]] = field(default_factory=list)
    answers: dict[tuple[int, bytes], bytes] = field(default_factory=dict)


class World:
    """Rounds one after another among the same clients; positions stand for ids but where a session is spoken to."""

    def __init__(self, params: secagg.RoundParams, corrupt: Iterable[int] = ()) -> None:
        self.params, self.corrupt = params, frozenset(corrupt)
        self.ids = [3 * one + 2 for one in range(params.clients)]
        self.identities = identities(self.ids) if params.threat == "malicious-server" else {}
        self.directory = self.identities[self.ids[0]].directory if self.identities else None
        self.masks, self.rounds = Masks(), 0
        self.old: list[bytes] = []
        self.begin()

    # ------------------------------------------------------------------------------------------ rounds and restarts

    def begin(self) -> None:
        """Start a round; the traffic of the one before becomes old."""
        if self.rounds:
            self.old += [payload for _, payload in self.seen.replies]
            self.old += [payload for sent in self.seen.requests.values() for payload in sent]
        self.rounds += 1
        n, name = self.params.clients, f"round {self.rounds}"
        self.beacon = hashlib.sha256(name.encode()).digest()
        self.beacons = dict.fromkeys(range(n), self.beacon)
        self.server = ServerSession(
            self.params,
            self.ids,
            context=CONTEXT,
            credentials=self.directory,
            randomness=deterministic(f"{name}/server"),
            keep=IN_MEMORY,
        )
        self.sources = {one: deterministic(f"{name}/{one}") for one in range(n)}
        self.clients = {
            one: ClientSession(
                self.params,
                self.ids[one],
                context=CONTEXT,
                credentials=self.identity(one),
                randomness=self.sources[one],
                keep=IN_MEMORY,
            )
            for one in range(n)
        }
        self.durable = {one: client.save(seal_key=None) for one, client in self.clients.items()}
        self.made: dict[bytes, Step] = {}
        self.seen, self.ledger, self.misled = Seen(), Ledger(self.params, self.corrupt), set()
        self.weights = {one: 1 + (one + self.rounds) % MAX_WEIGHT for one in range(n)}

    def identity(self, one: int) -> secagg.Identity | None:
        return self.identities.get(self.ids[one])

    def vector(self, one: int) -> np.ndarray:
        """A bucket of its own: code 1 where the client stands, 0 elsewhere, exactly."""
        codes = np.zeros(self.params.dimension)
        codes[one] = 1
        return codes - EXACT.clip

    def restart_client(self, one: int) -> None:
        self.clients[one] = self.restored(self.durable[one], one)

    def restored(self, saved: bytes, one: int) -> ClientSession:
        return ClientSession.restore(
            saved, self.ids[one], credentials=self.identity(one), randomness=self.sources[one], keep=IN_MEMORY
        )

    def restart_server(self) -> None:
        before, saved = (
            (dict(self.server.requests()), self.server.waiting_for, self.server.stage),
            self.server.save(seal_key=None),
        )
        source = self.server._randomness
        self.server = ServerSession.restore(saved, credentials=self.directory, randomness=source, keep=IN_MEMORY)
        assert (dict(self.server.requests()), self.server.waiting_for, self.server.stage) == before
        assert self.server.save(seal_key=None) == saved

    # ----------------------------------------------------------------------------------------------------- messages

    def ask(self, one: int, request: bytes, crash: str = "") -> bytes | SecAggError | None:
        """Hand a request to a client. Its reply leaves unless it crashes; a call that raises must change nothing."""
        client = self.clients[one]
        first = before = client.save(seal_key=None)
        with watching(self.params) as step:
            try:
                reply = client.receive(request)
                if isinstance(reply, BeaconNeeded):
                    before = self.durable[one] = client.save(seal_key=None)
                    reply = client.use_beacon(self.beacons[one])
                if isinstance(reply, InputNeeded):
                    before = client.save(seal_key=None)
                    reply = client.submit(self.vector(one), self.weights[one])
            except SecAggError as error:
                assert client.save(seal_key=None) == before, "a call that raised changed the client"
                self.durable[one] = before
                self._note_misled(one, request, first)
                return error
        if step.upload:
            with pytest.raises(LocalProtocolError):
                client.submit(self.vector(one), 1 + self.weights[one] % MAX_WEIGHT)
        if crash == "before saving":
            self.restart_client(one)
            return None
        self.durable[one] = client.save(seal_key=None)
        self._note_misled(one, request, first)
        if step.dealing or step.upload:
            self.made[reply.payload] = step
        if crash == "after saving":
            self.restart_client(one)
            return None
        self.seen.requests.setdefault(one, []).append(bytes(request))
        self._leave(one, bytes(request), reply.payload)
        state = client._state
        if isinstance(state, Checked):
            shared, survivors = (frozenset(np.flatnonzero(flags).tolist()) for flags in (state.shared, state.survivors))
            self.ledger.signed(one, state.session_id, shared, survivors)
        return reply.payload

    def _note_misled(self, one: int, request: bytes, before: bytes) -> None:
        """From here on a client that took what the server did not send may refuse what it sends."""
        if self.durable[one] != before and bytes(request) != self.server.requests().get(self.ids[one]):
            self.misled.add(one)

    def _leave(self, one: int, request: bytes, payload: bytes) -> None:
        assert self.seen.answers.setdefault((one, request), payload) == payload, "one request, two answers"
        if (one, payload) in self.seen.replies:
            return
        self.seen.replies.append((one, payload))
        step = self.made.get(payload)
        self.ledger.left(one, payload, step)
        if step is not None and step.upload is not None:
            self.masks.add(self.rounds, one, step.upload)
            assert step.upload.words[one] == self.weights[one]
            assert step.upload.words[-1] == self.weights[one]

    def give(self, one: int, payload: bytes) -> SecAggError | None:
        """Hand a reply to the server, which must not change where it raises, nor take what the client never sent."""
        before = self.server.save(seal_key=None)
        try:
            self.server.receive(self.ids[one], payload)
        except SecAggError as error:
            assert self.server.save(seal_key=None) == before, "a call that raised changed the server"
            return error
        assert (one, bytes(payload)) in self.seen.replies, "the server took a message that its client never sent"
        return None

    def advance(self) -> bool:
        """Close the server's stage. With clients that follow the protocol only their absence may stand in the way."""
        try:
            self.server.advance()
        except TooFewClients:
            return False
        if self.server.stage is None:
            self.check_sum()
        return True

    def stage(self, fates: dict[int, str], noise: int = 0) -> None:
        """Run the open stage: each client's fate is to answer, or one of the misfortunes; ``noise`` says which bit."""
        if self.server.stage is None:
            return
        if self.server.beacon_needed:
            self.server.use_beacon(self.beacon)
        for client_id, request in self.server.requests().items():
            one = self.ids.index(client_id)
            fate = fates.get(one, "answer")
            if fate == "silent":
                continue
            if fate == "request damaged":
                self.ask(one, flipped(request, noise))
            if fate.startswith("crash "):
                self.ask(one, request, fate.removeprefix("crash "))
            reply = self.ask(one, request)
            if isinstance(reply, SecAggError):
                assert one in self.misled or isinstance(reply, TooFewClients), f"an honest request failed: {reply!r}"
            elif fate != "late":
                if fate == "damaged":
                    self.give(one, flipped(reply, noise))
                self.give(one, reply)
                if fate == "twice":
                    assert self.give(one, reply) is not None, "the server took a message twice"
        self.advance()

    def finish(self) -> None:
        """Let everybody who still can answer, until the round is done or stuck."""
        for _ in stages_of(self.params.threat):
            self.stage({})

    # ---------------------------------------------------------------------------------------------- a server that lies

    def campaign(self, groups: list[tuple[frozenset[int], View]]) -> None:
        """Lead each group of clients through what is left of the round under a view of its own.

        Corrupt clients take part in every group, as copies of themselves.
        """
        self.misled |= set(range(self.params.clients))
        if self.server.stage == "advertise_keys":
            for one, client_id in enumerate(self.ids):
                self.ask(one, self.server.requests()[client_id])
        fronts = [Front(self, members, view) for members, view in groups]
        for _ in stages_of(self.params.threat):
            for front in fronts:
                front.step()
            self.ledger.check()

    def ring(self) -> list[int] | None:
        """The ring under a sparse graph, which the server of this model knows as everybody does; None without one.

        Walked along its neighbours: the next is the unseen one with the most neighbours in common.
        """
        graph = getattr(self.server._state, "graph", None)
        if not isinstance(graph, HararyGraph):
            return None
        rows = {one: set(graph.neighbours(one).tolist()) for one in range(self.params.clients)}
        ring = [0]
        while len(ring) < self.params.clients:
            ahead = sorted(rows[ring[-1]] - set(ring))
            ring.append(max(ahead or set(rows) - set(ring), key=lambda one: len(rows[ring[-1]] & rows[one])))
        return ring

    # ------------------------------------------------------------------------------------------------------ what holds

    def check_sum(self) -> None:
        """The result holds each survivor's bucket once, weighted, and nobody else's."""
        result = self.server.result
        survivors = {self.ids.index(client_id) for client_id in result.survivors}
        assert len(survivors) >= self.params.minimum_survivors
        expected = [self.weights[one] if one in survivors else 0 for one in range(self.params.clients)]
        assert result.total.tolist() == expected, f"a wrong sum: {result.total.tolist()} for {expected}"
        assert result.weight == sum(expected)
        sums = self.ledger.derivable()
        assert [set(one) for one in sums] == [survivors - self.corrupt], f"the server can compute {sums}"
