"""A whole round in one process: the real sessions, over their encoded bytes, with a schedule of faults.

This is a simulation of the network alone: every key, mask and check is the one that separate machines would use.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secagg.cohort import Threat
from secagg.errors import InputError, TooFewClients
from secagg.he.keys import DecryptionKey
from secagg.he.messages import STAGES as HE_STAGES
from secagg.he.params import HEParams
from secagg.he.result import Sum
from secagg.he.simulation import run_sum
from secagg.identity import Directory, Identity
from secagg.pairwise.client_session import ClientSession
from secagg.pairwise.params import RoundParams
from secagg.pairwise.result import RoundResult
from secagg.pairwise.server_session import ServerSession
from secagg.pairwise.transitions import stages_of
from secagg.primitives.randomness import system_randomness
from secagg.primitives.signature import SigningKey
from secagg.session.answers import BeaconNeeded, InputNeeded, Reply


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SimulationResult:
    """What the server learned, and what the simulation saw besides.

    Attributes:
        outcome: the server's result; the clients' where they hold the key of a homomorphic sum.
        bytes_up: stage -> the most bytes that one client sent in it.
        bytes_down: stage -> the most bytes that one client was sent in it.
        seconds: stage -> seconds that the whole cohort and the server spent in it, one after the other.
        server_seconds: stage -> the server's part of that.
        clipped: client -> share of its coordinates that were clipped; outside a simulation only the client knows.
    """

    outcome: RoundResult | Sum
    bytes_up: Mapping[str, int]
    bytes_down: Mapping[str, int]
    seconds: Mapping[str, float]
    server_seconds: Mapping[str, float]
    clipped: Mapping[int, float]

    @property
    def total(self) -> NDArray[Any]:
        """The exact integers summed, uint64[d]; with CKKS the vectors' own sum within its error, float64[d]."""
        return self.outcome.total

    @property
    def weight(self) -> float:
        """The sum of the survivors' weights: an int, but for CKKS."""
        return self.outcome.weight

    @property
    def mean(self) -> NDArray[np.float64]:
        """The weighted mean of the survivors' quantised vectors: float64[d]."""
        return self.outcome.mean

    @property
    def survivors(self) -> tuple[int, ...]:
        """The clients whose input is in the sum."""
        return self.outcome.survivors

    @property
    def dropped(self) -> Mapping[int, str]:
        """Client -> the first stage whose message never came."""
        return self.outcome.dropped

    @property
    def threat(self) -> Threat:
        """The threat model that the round ran in."""
        return self.outcome.threat


def simulate(
    vectors: Iterable[NDArray[np.floating]],
    *,
    params: RoundParams | HEParams,
    weights: Sequence[int] | None = None,
    faults: Mapping[int, str] | None = None,
    context: bytes | None = None,
    threads: int = 1,
    key: DecryptionKey | None = None,
) -> SimulationResult:
    """Run one round among clients 0 to n - 1 and return the sum over those that survive.

    Vectors are taken one by one as clients reach their upload, so an iterator never has more than one in memory.

    Args:
        vectors: n vectors in client order, float32[d] or float64[d]; that of a client that drops out is taken and left.
        params: what the round runs with: a pairwise round's, or a homomorphic sum's.
        weights: n integers, 1 to max_weight; all 1 if None.
        faults: client -> the stage of ``secagg.STAGES`` whose message it never sends, nor any after; in a homomorphic
            sum there is but ``encrypted_input``.
        context: what the round is about. If None, since nobody is led astray in a simulation, the same for all rounds
            of the same parameters: the ASCII text ``secagg.simulate``, then ``params.encode()``.
        threads: how many threads a masking or unmasking may use.
        key: of a homomorphic sum, to go on with, its public half known to the clients already; a new one if None.

    Raises:
        TooFewClients: too many clients dropped out; nothing was revealed.
        InputError: an argument is not as described.
        LocalProtocolError: the key's budget is spent.
    """
    if not isinstance(params, RoundParams | HEParams):
        raise InputError(f"params must be RoundParams or HEParams, got {type(params).__name__}")
    if isinstance(vectors, Sized) and len(vectors) != params.clients:
        raise InputError(f"{params.clients} clients take {params.clients} vectors, got {len(vectors)}")
    if not isinstance(vectors, Iterable):
        raise InputError(f"vectors must be iterable, got {type(vectors).__name__}")
    faults = _checked_faults(params, faults or {})
    weights = _checked_weights(params, weights)
    context = b"secagg.simulate" + params.encode() if context is None else context
    if isinstance(params, HEParams):
        return _homomorphic(iter(vectors), params, weights, faults, context, key)
    if key is not None:
        raise InputError("a pairwise round has no key to go on with")
    return _Simulation(params, weights, faults, context, threads).run(iter(vectors))


def _homomorphic(
    vectors: Iterator[NDArray[np.floating]],
    params: HEParams,
    weights: Sequence[int],
    faults: Mapping[int, str],
    context: bytes,
    key: DecryptionKey | None,
) -> SimulationResult:
    seconds, server_seconds = dict.fromkeys(HE_STAGES, 0.0), dict.fromkeys(HE_STAGES, 0.0)

    def timed(stage: str, server: bool, call: Callable[..., Any], *args: Any) -> Any:
        start = time.perf_counter()
        try:
            return call(*args)
        finally:
            taken = time.perf_counter() - start
            seconds[stage] += taken
            server_seconds[stage] += taken if server else 0.0

    counted = (_next_vector(vectors, taken, params.clients) for taken in range(params.clients))
    outcome, seen = run_sum(params, counted, weights, faults, context=context, key=key, timed=timed)
    return SimulationResult(
        outcome=outcome,
        bytes_up=seen.bytes_up,
        bytes_down=seen.bytes_down,
        seconds=seconds,
        server_seconds=server_seconds,
        clipped=seen.clipped,
    )


class _Simulation:
    def __init__(
        self, params: RoundParams, weights: Sequence[int], faults: Mapping[int, str], context: bytes, threads: int
    ) -> None:
        self.params, self.weights, self.faults, self.threads = params, weights, faults, threads
        identities = _identities(params)
        directory = identities[0].directory if identities else None
        self.server = ServerSession(params, range(params.clients), context=context, directory=directory)
        self.clients = {
            one: ClientSession(params, one, context=context, identity=identities.get(one))
            for one in range(params.clients)
        }
        self.stages = stages_of(params.threat)
        self.beacon: bytes | None = None
        self.bytes_up = dict.fromkeys(self.stages, 0)
        self.bytes_down = dict.fromkeys(self.stages, 0)
        self.seconds = dict.fromkeys(self.stages, 0.0)
        self.server_seconds = dict.fromkeys(self.stages, 0.0)

    def run(self, vectors: Iterator[NDArray[np.floating]]) -> SimulationResult:
        taken = 0
        for stage in self.stages:
            start = time.perf_counter()
            if self.server.beacon_needed:
                # In the simulated world the beacon is published once the roster is fixed, as it must be in the real one
                self.beacon = system_randomness(32)
                self.server.use_beacon(self.beacon)
            requests = self.server.requests()
            for one in range(self.params.clients):
                vector = None
                if stage == "masked_input":
                    vector, taken = _next_vector(vectors, taken, self.params.clients), taken + 1
                if one in requests:
                    self._exchange(one, stage, requests[one], vector)
            self._timed(stage, self.server.advance, threads=self.threads)
            self.seconds[stage] = time.perf_counter() - start
        return SimulationResult(
            outcome=self.server.result,
            bytes_up=self.bytes_up,
            bytes_down=self.bytes_down,
            seconds=self.seconds,
            server_seconds=self.server_seconds,
            clipped={one: c.clipped for one, c in self.clients.items() if c.clipped is not None},
        )

    def _exchange(self, one: int, stage: str, request: bytes, vector: NDArray[np.floating] | None) -> None:
        self.bytes_down[stage] = max(self.bytes_down[stage], len(request))
        if self.faults.get(one) == stage:
            return
        client = self.clients[one]
        try:
            answer: Reply | InputNeeded | BeaconNeeded = client.receive(request)
            if isinstance(answer, BeaconNeeded):
                if self.beacon is None:  # pragma: no cover - both sides follow from the same parameters
                    raise InputError("a beacon was asked for out of turn")
                answer = client.use_beacon(self.beacon)
            if isinstance(answer, InputNeeded):
                if vector is None:  # pragma: no cover - inputs are asked for in one stage only
                    raise InputError("a vector was asked for out of turn")
                answer = client.submit(vector, self.weights[one], threads=self.threads)
        except TooFewClients:
            # This client's own floor is missed: it falls silent, and the server finds out that it cannot go on
            return
        self.bytes_up[stage] = max(self.bytes_up[stage], len(answer.payload))
        self._timed(stage, self.server.receive, one, answer.payload)
        client.delivered()

    def _timed(self, stage: str, call: Any, *args: Any, **kwargs: Any) -> None:
        start = time.perf_counter()
        call(*args, **kwargs)
        self.server_seconds[stage] += time.perf_counter() - start


def _identities(params: RoundParams) -> dict[int, Identity]:
    """Make a signing key for each client and the directory of them all; none in the semi-honest model."""
    if params.threat == "semi-honest":
        return {}
    keys = {one: SigningKey.generate() for one in range(params.clients)}
    directory = Directory({one: key.public for one, key in keys.items()})
    return {one: Identity(key=key, directory=directory) for one, key in keys.items()}


def _next_vector(vectors: Iterator[NDArray[np.floating]], taken: int, clients: int) -> NDArray[np.floating]:
    try:
        return next(vectors)
    except StopIteration:
        raise InputError(f"{clients} clients take {clients} vectors, got {taken}") from None


def _checked_weights(params: RoundParams | HEParams, weights: Sequence[int] | None) -> Sequence[int]:
    if weights is None:
        return [1] * params.clients
    try:
        weights = list(weights)
    except TypeError:
        raise InputError(f"weights must be a sequence of integers, got {type(weights).__name__}") from None
    if len(weights) != params.clients:
        raise InputError(f"{params.clients} clients take {params.clients} weights, got {len(weights)}")
    return weights


def _checked_faults(params: RoundParams | HEParams, faults: Mapping[int, str]) -> Mapping[int, str]:
    if not isinstance(faults, Mapping):
        raise InputError(f"faults must map clients to stages, got {type(faults).__name__}")
    stages = HE_STAGES[:1] if isinstance(params, HEParams) else stages_of(params.threat)
    for client, stage in faults.items():
        if client not in range(params.clients):
            raise InputError(f"faults name client {client!r}; clients are 0 to {params.clients - 1}")
        if stage not in stages:
            raise InputError(f"faults name stage {stage!r}; stages are {', '.join(stages)}")
    return faults
