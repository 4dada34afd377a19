"""A cohort driven by hand: the sessions of both sides, and a deterministic source of randomness for replays."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

import secagg
from secagg import IN_MEMORY, BeaconNeeded, ClientSession, Identity, InputNeeded, Reply, RoundParams, ServerSession

CONTEXT = b"a hash of the model"


def deterministic(seed: str) -> Callable[[int], bytes]:
    """Return a source of reproducible bytes; for tests alone."""
    calls = 0

    def randomness(length: int) -> bytes:
        nonlocal calls
        calls += 1
        return hashlib.shake_256(f"{seed}/{calls}".encode()).digest(length)

    return randomness


def plan(clients: int = 5, dimension: int = 7, **overrides: object) -> RoundParams:
    """Parameters with no tolerance unless it is asked for, so that tiny cohorts have some."""
    arguments: dict[str, object] = {
        "encoding": secagg.FixedPoint(clip=1.0, bits=16),
        "dropout": 0.0,
        "corrupt": 0.0,
        "protocol": "secagg",
    }
    return RoundParams.plan(clients=clients, dimension=dimension, **(arguments | overrides))  # type: ignore[arg-type]


def integer_vector(params: RoundParams, codes: np.ndarray) -> np.ndarray:
    """Return floats that quantise to ``codes`` but for a rounding that the encoding cannot help (at most one code)."""
    return codes * params.encoding.step - params.encoding.clip


def identities(ids: Sequence[int]) -> dict[int, Identity]:
    """Signing keys that follow from the ids, and the directory of them all."""
    keys = {one: secagg.SigningKey(hashlib.sha256(f"identity/{one}".encode()).digest()) for one in ids}
    directory = secagg.Directory({one: key.public for one, key in keys.items()})
    return {one: Identity(key=key, directory=directory) for one, key in keys.items()}


class Cohort:
    """Both sides of a round. ``vectors`` and ``weights`` in client order; ids are positions unless given."""

    def __init__(
        self,
        params: RoundParams,
        vectors: Sequence[np.ndarray],
        weights: Sequence[int] | None = None,
        *,
        ids: Sequence[int] | None = None,
        context: bytes = CONTEXT,
        seed: str = "cohort",
    ) -> None:
        self.params = params
        self.ids = list(ids) if ids is not None else list(range(params.clients))
        self.vectors = dict(zip(self.ids, vectors, strict=True))
        self.weights = dict(zip(self.ids, weights or [1] * params.clients, strict=True))
        self.identities = {} if params.threat == "semi-honest" else identities(self.ids)
        self.directory = next(iter(self.identities.values())).directory if self.identities else None
        self.beacon = hashlib.sha256(seed.encode()).digest()
        self.server = ServerSession(
            params,
            self.ids,
            context=context,
            credentials=self.directory,
            randomness=deterministic(f"{seed}/server"),
            keep=IN_MEMORY,
        )
        self.clients = {
            one: ClientSession(
                params,
                one,
                context=context,
                credentials=self.identities.get(one),
                randomness=deterministic(f"{seed}/{one}"),
                keep=IN_MEMORY,
            )
            for one in self.ids
        }

    def answer(self, one: int, request: bytes) -> bytes:
        reply = self.clients[one].receive(request)
        if isinstance(reply, BeaconNeeded):
            reply = self.clients[one].use_beacon(self.beacon)
        if isinstance(reply, InputNeeded):
            reply = self.clients[one].submit(self.vectors[one], self.weights[one])
        assert isinstance(reply, Reply)
        return reply.payload

    def run_stage(self, faults: Mapping[int, str] | None = None) -> None:
        stage = self.server.stage
        if self.server.beacon_needed:
            self.server.use_beacon(self.beacon)
        for one, request in self.server.requests().items():
            if (faults or {}).get(one) == stage:
                continue
            self.server.receive(one, self.answer(one, request))
        self.server.advance()

    def run(self, faults: Mapping[int, str] | None = None) -> secagg.RoundResult:
        while self.server.stage is not None:
            self.run_stage(faults)
        return self.server.result
