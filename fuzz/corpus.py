"""Recorded rounds to attack: every state of both sides, and every message that passed, in both threat models."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import secagg
from secagg import IN_MEMORY, BeaconNeeded, ClientSession, InputNeeded, Reply, ServerSession

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from cohort import Cohort, deterministic, plan

ME = 2
"""The client whose messages are attacked, and whose client is sent attacks."""
SCENARIOS = (
    ("semi-honest", {"clients": 6, "dropout": 0.3}),
    ("malicious-server", {"clients": 6, "dropout": 0.3}),
    ("semi-honest", {"clients": 40, "dropout": 0.1, "protocol": "secagg+"}),
    ("malicious-server", {"clients": 40, "dropout": 0.1, "protocol": "secagg+"}),
)
SPARSE_FROM = 2
STAGE_OF_STATE = {
    "Idle": "advertise_keys",
    "Advertised": "share_keys",
    "Fixed": "share_keys",
    "Shared": "masked_input",
    "Ready": "masked_input",
    "Masked": "check_consistency",
    "Checked": "unmask",
}


@dataclass
class Snapshot:
    """A session at rest: how its state is called, what it is saved as, and the message that it awaits, if any."""

    name: str
    saved: bytes
    awaited: bytes | None


@dataclass
class Recording:
    """One honest round, and the messages of another one for splicing."""

    cohort: Cohort
    clients: list[Snapshot] = field(default_factory=list)
    servers: list[Snapshot] = field(default_factory=list)
    stages: dict[str, tuple[bytes, dict[int, bytes]]] = field(default_factory=dict)
    """Stage -> both sides as it opens: the server, and every client."""
    messages: list[bytes] = field(default_factory=list)
    upload: bytes = b""
    """What ME uploaded."""

    @property
    def threat(self) -> str:
        """The threat model."""
        return self.cohort.params.threat

    def client(self, saved: bytes, one: int = ME) -> ClientSession:
        """Restore a client."""
        identity = self.cohort.identities.get(one)
        return ClientSession.restore(
            saved, one, credentials=identity, randomness=deterministic(f"client {one}"), keep=IN_MEMORY
        )

    def server(self, saved: bytes) -> ServerSession:
        """Restore the server."""
        return ServerSession.restore(
            saved, credentials=self.cohort.directory, randomness=deterministic("server"), keep=IN_MEMORY
        )

    def answer(self, one: int, client: ClientSession, request: bytes) -> bytes:
        """Answer a request as an honest client does."""
        reply = client.receive(request)
        if isinstance(reply, BeaconNeeded):
            reply = client.use_beacon(self.cohort.beacon)
        if isinstance(reply, InputNeeded):
            reply = client.submit(self.cohort.vectors[one], self.cohort.weights[one])
        assert isinstance(reply, Reply)
        return reply.payload


@functools.cache
def recording(scenario: int) -> Recording:
    """Record a scenario once."""
    threat, variant = SCENARIOS[scenario]
    made = Recording(_cohort(threat, variant, "recorded"))
    _record(made)
    other = Recording(_cohort(threat, variant, "another"))
    _record(other)
    made.messages += other.messages
    return made


def _cohort(threat: str, variant: dict[str, object], seed: str) -> Cohort:
    n = int(variant["clients"])  # type: ignore[call-overload]
    params = plan(threat=threat, encoding=secagg.FixedPoint(clip=127.5, bits=8), max_weight=3, dimension=n, **variant)
    weights = [1 + one % 3 for one in range(n)]
    return Cohort(params, np.eye(n) - 127.5, weights, seed=seed)


def _record(made: Recording) -> None:
    cohort = made.cohort
    while (stage := cohort.server.stage) is not None:
        saved = {one: client.save(seal_key=None) for one, client in cohort.clients.items()}
        if cohort.server.beacon_needed:
            made.servers.append(Snapshot(f"{stage}, beacon awaited", cohort.server.save(seal_key=None), None))
            cohort.server.use_beacon(cohort.beacon)
        requests = cohort.server.requests()
        made.stages[stage] = (cohort.server.save(seal_key=None), saved)
        reply = _step_through(made, requests[ME])
        made.servers.append(Snapshot(stage, cohort.server.save(seal_key=None), reply))
        for one, request in requests.items():
            answer = reply if one == ME else cohort.answer(one, request)
            cohort.server.receive(one, answer)
            if one < 6:
                made.messages += [request, answer]
        made.servers.append(Snapshot(f"{stage}, all in", cohort.server.save(seal_key=None), reply))
        if stage == "masked_input":
            made.upload = reply
        cohort.server.advance()
    made.clients.append(Snapshot("Released", cohort.clients[ME].save(seal_key=None), None))
    made.servers.append(Snapshot("finished", cohort.server.save(seal_key=None), None))
    cohort.server.abort()
    made.servers.append(Snapshot("aborted", cohort.server.save(seal_key=None), None))


def _step_through(made: Recording, request: bytes) -> bytes:
    """Take ME through one stage, and note each state on the way."""
    cohort, client = made.cohort, made.cohort.clients[ME]
    made.clients.append(Snapshot(type(client._state).__name__, client.save(seal_key=None), request))
    reply = client.receive(request)
    if isinstance(reply, BeaconNeeded):
        made.clients.append(Snapshot("Fixed", client.save(seal_key=None), request))
        reply = client.use_beacon(cohort.beacon)
    if isinstance(reply, InputNeeded):
        made.clients.append(Snapshot("Ready", client.save(seal_key=None), request))
        reply = client.submit(cohort.vectors[ME], cohort.weights[ME])
    assert isinstance(reply, Reply)
    return reply.payload
