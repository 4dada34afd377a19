"""A whole round in one process: the real sessions, over their encoded bytes, with a schedule of faults.

This is a simulation of the network alone: every key, mask and check is the one that separate machines would use. It is
one loop for every protocol; what the parties are, the protocol says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secagg.cohort import Threat
from secagg.errors import InputError, TooFewClients
from secagg.primitives.randomness import system_randomness
from secagg.protocol import Protocol, protocol_of
from secagg.session.answers import BeaconNeeded, InputNeeded, Reply
from secagg.session.client import ClientSession
from secagg.session.server import ServerSession
from secagg.wire import Buffer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FurtherParty:
    """A party that is neither a client nor the server, as a simulation drives it.

    Attributes:
        receive: takes each payload that the server's session was given, with its sender.
        answer: request -> what it answers.
    """

    receive: Callable[[int, Buffer], None]
    answer: Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parties:
    """The parties of one simulated round.

    Attributes:
        server: the server's session.
        client: id -> a new session of that client; asked for once each, when it is first needed.
        further: other parties by name, as ``ServerSession.parties`` has them.
        announced: bytes that each client was sent before the round, a new key's.
    """

    server: ServerSession
    client: Callable[[int], ClientSession]
    further: Mapping[str, FurtherParty] = field(default_factory=dict)
    announced: int = 0


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

    outcome: Any
    bytes_up: Mapping[str, int]
    bytes_down: Mapping[str, int]
    seconds: Mapping[str, float]
    server_seconds: Mapping[str, float]
    clipped: Mapping[int, float]

    @property
    def total(self) -> NDArray[Any]:
        """The exact integers summed, uint64[d]; with CKKS the vectors' own sum within its error, float64[d]."""
        total: NDArray[Any] = self.outcome.total
        return total

    @property
    def weight(self) -> float:
        """The sum of the survivors' weights: an int, but for CKKS."""
        weight: float = self.outcome.weight
        return weight

    @property
    def mean(self) -> NDArray[np.float64]:
        """The weighted mean of the survivors' quantised vectors: float64[d]."""
        mean: NDArray[np.float64] = self.outcome.mean
        return mean

    @property
    def survivors(self) -> tuple[int, ...]:
        """The clients whose input is in the sum."""
        survivors: tuple[int, ...] = self.outcome.survivors
        return survivors

    @property
    def dropped(self) -> Mapping[int, str]:
        """Client -> the first stage whose message never came."""
        dropped: Mapping[int, str] = self.outcome.dropped
        return dropped

    @property
    def threat(self) -> Threat:
        """The threat model that the round ran in."""
        threat: Threat = self.outcome.threat
        return threat


def simulate(
    vectors: Iterable[NDArray[np.floating]],
    *,
    params: Any,
    weights: Sequence[int] | None = None,
    faults: Mapping[int, str] | None = None,
    context: bytes | None = None,
    threads: int = 1,
    key: Any = None,
) -> SimulationResult:
    """Run one round among clients 0 to n - 1 and return the sum over those that survive.

    Vectors are taken one by one as clients reach their upload, so an iterator never has more than one in memory.

    Args:
        vectors: n vectors in client order, float32[d] or float64[d]; that of a client that drops out is taken and left.
        params: what the round runs with, of any protocol: a pairwise round's, a homomorphic sum's.
        weights: n integers, 1 to max_weight; all 1 if None.
        faults: client -> the stage of ``secagg.STAGES`` whose message it never sends, nor any after; in a homomorphic
            sum there is but ``encrypted_input``, and a registered protocol's stages are its own.
        context: what the round is about. If None, since nobody is led astray in a simulation, the same for all rounds
            of the same parameters: the ASCII text ``secagg.simulate``, then ``params.encode()``.
        threads: how many threads a masking or unmasking may use.
        key: of a homomorphic sum, to go on with, its public half known to the clients already; a new one if None.

    Raises:
        TooFewClients: too many clients dropped out; nothing was revealed.
        InputError: an argument is not as described.
        LocalProtocolError: the key's budget is spent.
    """
    protocol = protocol_of(params)
    if isinstance(vectors, Sized) and len(vectors) != params.clients:
        raise InputError(f"{params.clients} clients take {params.clients} vectors, got {len(vectors)}")
    if not isinstance(vectors, Iterable):
        raise InputError(f"vectors must be iterable, got {type(vectors).__name__}")
    faults = _checked_faults(protocol, params, faults or {})
    weights = _checked_weights(params, weights)
    context = b"secagg.simulate" + params.encode() if context is None else context
    parties = protocol.simulated(params, context, key)
    return _Simulation(protocol, params, parties, weights, faults, threads).run(iter(vectors))


class _Simulation:
    def __init__(
        self,
        protocol: Protocol,
        params: Any,
        parties: Parties,
        weights: Sequence[int],
        faults: Mapping[int, str],
        threads: int,
    ) -> None:
        self.params, self.parties, self.server = params, parties, parties.server
        self.weights, self.faults, self.threads = weights, faults, threads
        self.clients: dict[int, ClientSession] = {}
        self.stages, self.input_stage = protocol.stages(params), protocol.input_stage(params)
        self.beacon: bytes | None = None
        self.bytes_up = dict.fromkeys(self.stages, 0)
        self.bytes_down = dict.fromkeys(self.stages, 0)
        self.seconds = dict.fromkeys(self.stages, 0.0)
        self.server_seconds = dict.fromkeys(self.stages, 0.0)

    def run(self, vectors: Iterator[NDArray[np.floating]]) -> SimulationResult:
        self.bytes_down[self.stages[0]] += self.parties.announced
        requests = self.server.requests()
        while (stage := self.server.stage) is not None and requests:
            requests = self._stage(stage, requests, vectors)
        outcome = self._last(requests)
        return SimulationResult(
            outcome=outcome,
            bytes_up=self.bytes_up,
            bytes_down=self.bytes_down,
            seconds=self.seconds,
            server_seconds=self.server_seconds,
            clipped={one: c.clipped for one, c in sorted(self.clients.items()) if c.clipped is not None},
        )

    def _stage(
        self, stage: str, requests: Mapping[int, bytes], vectors: Iterator[NDArray[np.floating]]
    ) -> Mapping[int, bytes]:
        """Run one stage over all clients, and return the next one's requests."""
        start = time.perf_counter()
        if self.server.beacon_needed:
            # In the simulated world the beacon is published once the roster is fixed, as it must be in the real one
            self.beacon = system_randomness(32)
            self.server.use_beacon(self.beacon)
        before = self.bytes_down[stage]
        for one in range(self.params.clients):
            vector = _next_vector(vectors, one, self.params.clients) if stage == self.input_stage else None
            if one in requests:
                request = requests[one]
                self.bytes_down[stage] = max(self.bytes_down[stage], before + len(request))
                if self.faults.get(one) != stage:
                    self._exchange(one, stage, request, vector)
        following: Mapping[int, bytes] = self._timed(stage, self.server.advance, threads=self.threads)
        self.seconds[stage] += time.perf_counter() - start
        return following

    def _exchange(self, one: int, stage: str, request: bytes, vector: NDArray[np.floating] | None) -> None:
        if one not in self.clients:
            self.clients[one] = self.parties.client(one)
        client = self.clients[one]
        try:
            answer = client.receive(request)
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
        if not isinstance(answer, Reply):  # pragma: no cover - every stage is answered
            raise InputError("a client had no reply in a stage that takes one")
        self.bytes_up[stage] = max(self.bytes_up[stage], len(answer.payload))
        self._timed(stage, self.server.receive, one, answer.payload)
        for name in self.server.parties:
            self.parties.further[name].receive(one, answer.payload)
        client.delivered()

    def _last(self, requests: Mapping[int, bytes]) -> Any:
        """Have further parties answer, or the clients decrypt, where the protocol ends so; return the result."""
        stage, start = self.stages[-1], time.perf_counter()
        for name, request in self._timed(stage, self.server.party_requests).items():
            self._timed(stage, self.server.receive_from, name, self.parties.further[name].answer(request))
        if not requests:
            self.seconds[stage] += time.perf_counter() - start if self.server.parties else 0.0
            return self.server.result
        # The first survivor's decryption is the result: the others' are the same to the bit
        one = next(iter(requests))
        self.bytes_down[stage] = len(requests[one])
        self.clients[one].receive(requests[one])
        self.seconds[stage] += time.perf_counter() - start
        return self.clients[one].result

    def _timed(self, stage: str, call: Any, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            self.server_seconds[stage] += time.perf_counter() - start


def _next_vector(vectors: Iterator[NDArray[np.floating]], taken: int, clients: int) -> NDArray[np.floating]:
    try:
        return next(vectors)
    except StopIteration:
        raise InputError(f"{clients} clients take {clients} vectors, got {taken}") from None


def _checked_weights(params: Any, weights: Sequence[int] | None) -> Sequence[int]:
    if weights is None:
        return [1] * params.clients
    try:
        weights = list(weights)
    except TypeError:
        raise InputError(f"weights must be a sequence of integers, got {type(weights).__name__}") from None
    if len(weights) != params.clients:
        raise InputError(f"{params.clients} clients take {params.clients} weights, got {len(weights)}")
    return weights


def _checked_faults(protocol: Protocol, params: Any, faults: Mapping[int, str]) -> Mapping[int, str]:
    if not isinstance(faults, Mapping):
        raise InputError(f"faults must map clients to stages, got {type(faults).__name__}")
    stages = tuple(dict.fromkeys(stage for stage in protocol.fault_stages(params) if stage is not None))
    for client, stage in faults.items():
        if client not in range(params.clients):
            raise InputError(f"faults name client {client!r}; clients are 0 to {params.clients - 1}")
        if stage not in stages:
            raise InputError(f"faults name stage {stage!r}; stages are {', '.join(stages)}")
    return faults
