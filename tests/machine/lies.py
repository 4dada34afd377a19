"""A server that lies: it leads each group of clients through a round of that group's own, from what clients sent."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from knowledge import watching
from secagg import BeaconNeeded, InputNeeded, RoundParams, SecAggError
from secagg.pairwise import client_states as states
from secagg.pairwise.identifiers import consistency_digest
from secagg.pairwise.messages import FORMATS, Kind, RelayedShares, RelayedSignatures, Roster, UnmaskRequest
from secagg.wire import HEADER_BYTES, SERVER, Header

if TYPE_CHECKING:
    from world import World

FORMAT = FORMATS["malicious-server"]


@dataclass(frozen=True)
class View:
    """What one group is shown: who advertised, shared, survived and signed; each client is in its own view always.

    A brazen server fills signatures that it does not have in with others, leaves a client out of its own survivor set,
    and puts strangers into it. An insistent one asks who has answered already again, with another survivor set.
    """

    advertised: frozenset[int]
    shared: frozenset[int]
    survivors: frozenset[int]
    signed: frozenset[int]
    brazen: bool = False
    insistent: bool = False


class Front:
    """One group, led under one view. Corrupt clients take part in every group, as copies that the server runs."""

    def __init__(self, world: World, members: frozenset[int], view: View) -> None:
        self.world, self.view = world, view
        self.members = members - world.corrupt
        self.copies = {one: world.restored(world.durable[one], one) for one in world.corrupt}
        self.dealt = {one: reply for one, reply in world.seen.replies if reply[6] == Kind.ENCRYPTED_SHARES}
        self.digests = {one: reply for one, reply in world.seen.replies if reply[6] == Kind.CONSISTENCY}

    def step(self) -> None:
        """Send everybody in the group the next lie."""
        for one in sorted(self.members | set(self.copies)):
            client = self.copies.get(one, self.world.clients[one])
            if self.view.insistent and one in self.members:
                self._insist(one, client._state)
            request = self._lie(one, client._state)
            if request is None:
                continue
            reply = self._ask_copy(one, request) if one in self.copies else self.world.ask(one, request)
            if isinstance(reply, bytes) and reply[6] == Kind.ENCRYPTED_SHARES:
                self.dealt[one] = reply
            if isinstance(reply, bytes) and reply[6] == Kind.CONSISTENCY:
                self.digests[one] = reply

    def _ask_copy(self, one: int, request: bytes) -> bytes | None:
        world, copy = self.world, self.copies[one]
        with watching(world.params) as step:
            try:
                reply = copy.receive(request)
                if isinstance(reply, BeaconNeeded):
                    reply = copy.use_beacon(world.beacons[one])
                if isinstance(reply, InputNeeded):
                    reply = copy.submit(world.vector(one), world.weights[one])
            except SecAggError:
                return None
        if step.dealing:
            world.ledger.dealings.append((one, step.dealing))
        return reply.payload

    def _lie(self, one: int, state: states.ClientState) -> bytes | None:
        """Form the request that a client in ``state`` awaits; None where this server has nothing more to ask."""
        if isinstance(state, states.Advertised):
            return self._roster(one, state)
        if isinstance(state, states.Shared):
            return self._relay(one, state)
        if isinstance(state, states.Masked):
            shown = self.view.survivors if self.view.brazen else self.view.survivors & _members(state.shared) | {one}
            return self._survivors(state.session_id, shown)
        if isinstance(state, states.Checked):
            return self._signatures(one, state)
        return None

    def _survivors(self, session: bytes, shown: Iterable[int]) -> bytes:
        return _message(Kind.UNMASK_REQUEST, session, UnmaskRequest(survivors=self._flags(shown)).encode())

    def _insist(self, one: int, state: states.ClientState) -> None:
        if isinstance(state, states.Checked | states.Released):
            # Leave out the lowest other client: a different set, and one that a floor above S - 1 may still allow
            shown = set(range(self.world.params.clients)) - {0 if one else 1}
            self.world.ask(one, self._survivors(state.session_id, shown))

    def _roster(self, one: int, state: states.Advertised) -> bytes:
        replies = self.world.seen.replies
        bodies = {who: reply[HEADER_BYTES:] for who, reply in replies if reply[6] == Kind.KEY_ADVERTISEMENT}
        flags = self._flags(self.view.advertised & set(bodies) | {one})
        entries = np.frombuffer(b"".join(bodies[j] for j in np.flatnonzero(flags)), np.uint8)
        roster = Roster(
            ids=np.array(self.world.ids, dtype=np.uint64),
            advertised=flags,
            entries=entries.reshape(-1, FORMAT.entry_bytes),
            neighbours=None,
        )
        return _message(Kind.ROSTER, state.round_id, roster.encode())

    def _relay(self, one: int, state: states.Shared) -> bytes:
        session, dealings = state.session_id, self.world.ledger.dealings
        dealt = {who: reply for who, reply in self.dealt.items() if reply[16:48] == session}
        here = {who: sorted(d.shares) for who, d in dealings if d.session == session and who in dealt}
        neighbours = set(state.neighbours.tolist())
        near = sorted(j for j in neighbours & self.view.shared if one in here.get(j, ()))
        far = self.view.shared & _members(state.advertised) - neighbours
        flags = self._flags(far | set(near) | {one})
        starts = {j: HEADER_BYTES + FORMAT.dealt_bytes * here[j].index(one) for j in near}
        rows = b"".join(dealt[j][starts[j] : starts[j] + FORMAT.dealt_bytes] for j in near)
        sealed = np.frombuffer(rows, np.uint8).reshape(-1, FORMAT.dealt_bytes)
        return _message(Kind.RELAYED_SHARES, session, RelayedShares(shared=flags, sealed=sealed).encode())

    def _signatures(self, one: int, state: states.Checked) -> bytes:
        own = consistency_digest(state.session_id, state.shared, state.survivors)
        signatures: dict[int, bytes] = {}
        for j in sorted(self.view.signed & _members(state.survivors) | {one}):
            if j in self.world.corrupt:
                header = Header(kind=Kind.CONSISTENCY, sender=self.world.ids[j], session=state.session_id)
                signatures[j] = self.world.identity(j).sign(header, own)
            elif j in self.digests and (self.view.brazen or self.digests[j][HEADER_BYTES:-64] == own):
                signatures[j] = self.digests[j][-64:]
            elif self.view.brazen:
                signatures[j] = bytes(64)
        rows = np.frombuffer(b"".join(signatures[j] for j in sorted(signatures)), np.uint8).reshape(-1, 64)
        relayed = RelayedSignatures(signed=self._flags(signatures), signatures=rows)
        return _message(Kind.RELAYED_SIGNATURES, state.session_id, relayed.encode())

    def _flags(self, members: Iterable[int]) -> np.ndarray:
        flags = np.zeros(self.world.params.clients, dtype=bool)
        flags[list(members)] = True
        return flags


def drawn_groups(params: RoundParams, source: random.Random) -> list[tuple[frozenset[int], View]]:
    """Draw up to two groups and what each is shown, so that floors are met, or just missed, often."""
    clients = params.clients
    everybody, most_missing = frozenset(range(clients)), min(clients // 2, 3 + params.dropout_count)

    def crowd() -> frozenset[int]:
        return everybody - set(source.sample(range(clients), source.randint(0, most_missing)))

    def view() -> View:
        advertised, shared, signed = (source.choice([everybody, everybody, crowd()]) for _ in range(3))
        return View(advertised, shared, crowd(), signed, brazen=source.random() < 0.5, insistent=source.random() < 0.5)

    side = source.choice([everybody, crowd(), crowd()])
    return [(side, view()), (everybody - side, view())]


def _members(flags: np.ndarray) -> set[int]:
    return set(np.flatnonzero(flags).tolist())


def _message(kind: Kind, session: bytes, body: bytes) -> bytes:
    return Header(kind=kind, sender=SERVER, session=session).encode() + body
