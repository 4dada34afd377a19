"""secagg: its sessions over their encoded bytes, one thread, in either threat model.

Everything between an update and its sum is counted: quantising, masks, encoding and decoding of every message.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

import secagg
from benchmarks.systems.catalogue import PLANNED_CORRUPT, PLANNED_DROPOUT, Setting
from benchmarks.systems.measurement import Meter, Outcome, main, survivors_of
from secagg import IN_MEMORY, BeaconNeeded, ClientSession, FixedPoint, Identity, InputNeeded, RoundParams, ServerSession
from secagg.primitives.prg import active_path
from secagg.primitives.randomness import system_randomness

CONTEXT = b"secagg benchmark"
REPORTED = ("threat", "graph", "neighbours", "threshold", "ring_bits", "corrupt", "dropout")


def parameters(setting: Setting, threat: str) -> RoundParams:
    """Return the round's parameters: the graph and threshold that were asked for, proved at the planned rates."""
    complete = setting.neighbours == setting.clients - 1
    return RoundParams(
        clients=setting.clients,
        dimension=setting.dimension,
        encoding=FixedPoint(clip=setting.clip, bits=setting.bits),
        max_weight=1,
        dropout=PLANNED_DROPOUT,
        corrupt=PLANNED_CORRUPT,
        protocol="secagg" if complete else "secagg+",
        threat=threat,
        graph="complete" if complete else "harary",
        neighbours=setting.neighbours,
        threshold=setting.threshold,
        ring_bits=(setting.clients * ((1 << setting.bits) - 1)).bit_length(),
    )


def run(setting: Setting, vectors: list[np.ndarray], meter: Meter, *, threat: str) -> Outcome:
    """Play a whole round, every message encoded and decoded."""
    secagg.warmup(parameters(setting, threat))
    identities, directory = _identities(setting.clients) if threat == "malicious-server" else ({}, None)
    # Every party proves the parameters itself, so that is counted too
    with meter.server():
        params = parameters(setting, threat)
        server = ServerSession(params, range(setting.clients), context=CONTEXT, credentials=directory, keep=IN_MEMORY)
    clients: dict[int, ClientSession] = {}
    for one in range(setting.clients):
        with meter.client(one):
            clients[one] = ClientSession(
                parameters(setting, threat), one, context=CONTEXT, credentials=identities.get(one), keep=IN_MEMORY
            )
    _play(setting, server, clients, vectors, meter)
    with meter.server():
        total = server.result.mean * server.result.weight
    return Outcome(
        total=total,
        error_bound=len(server.result.survivors) * params.encoding.step,
        version=secagg.__version__,
        parameters={name: getattr(params, name) for name in REPORTED} | {"aes_path": active_path()},
    )


def _play(
    setting: Setting,
    server: ServerSession,
    clients: Mapping[int, ClientSession],
    vectors: list[np.ndarray],
    meter: Meter,
) -> None:
    """Exchange all messages of a round, but for the uploads of the clients that drop out."""
    beacon = b""
    with meter.server():
        requests = server.requests()
    while requests:
        if server.beacon_needed:
            beacon = system_randomness(32)
            with meter.server():
                server.use_beacon(beacon)
        for one in list(requests):
            with meter.server():
                request = requests[one]
            meter.down[one] += len(request)
            if server.stage == "masked_input" and one not in survivors_of(setting):
                continue
            with meter.client(one):
                payload = _answer(clients[one], request, vectors[one], beacon)
            meter.up[one] += len(payload)
            with meter.server():
                server.receive(one, payload)
        with meter.server():
            requests = server.advance()


def _answer(client: ClientSession, request: bytes, vector: np.ndarray, beacon: bytes) -> bytes:
    answer = client.receive(request)
    if isinstance(answer, BeaconNeeded):
        answer = client.use_beacon(beacon)
    if isinstance(answer, InputNeeded):
        answer = client.submit(vector)
    return answer.payload


def _identities(clients: int) -> tuple[dict[int, Identity], secagg.Directory]:
    # Long-lived keys, made and pinned before any round: not part of one
    keys = {one: secagg.SigningKey.generate() for one in range(clients)}
    directory = secagg.Directory({one: key.public for one, key in keys.items()})
    return {one: Identity(key=key, directory=directory) for one, key in keys.items()}, directory


if __name__ == "__main__":
    main(
        {
            "secagg": functools.partial(run, threat="semi-honest"),
            "secagg-malicious": functools.partial(run, threat="malicious-server"),
        }
    )
