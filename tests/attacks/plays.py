"""What attackers do in these tests: build messages, alter them, sign them anew as their own, and restart others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

import cheats
from cohort import CONTEXT, Cohort, plan
from secagg import IN_MEMORY, ClientSession, FixedPoint, RoundParams
from secagg.pairwise.messages import FORMATS, Kind
from secagg.wire import HEADER_BYTES, SERVER, Header, encode_bitmap

THREATS = ("semi-honest", "malicious-server")
EXACT = FixedPoint(clip=127.5, bits=8)
"""Codes 0 to 255 for -127.5 to 127.5, in steps of one: rounding changes nothing."""
KEY = bytes(range(32))


def parameters(threat: str, clients: int = 7, dimension: int = 3, **overrides: object) -> RoundParams:
    return plan(clients, dimension, **({"threat": threat, "encoding": EXACT, "dropout": 0.25} | overrides))


def codes_of(params: RoundParams, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (params.clients, params.dimension))


def sum_of(params: RoundParams, survivors: Iterable[int]) -> list[int]:
    return codes_of(params)[list(survivors)].sum(axis=0).tolist()


def cohort_at(
    stage: str | None,
    params: RoundParams,
    faults: Mapping[int, str] | None = None,
    *,
    seed: str = "cohort",
    context: bytes = CONTEXT,
) -> Cohort:
    """An honest round up to the opening of a stage; None runs it to the end."""
    cohort = Cohort(params, codes_of(params) - 127.5, seed=seed, context=context)
    while cohort.server.stage != stage:
        cohort.run_stage(faults)
    return cohort


def unmasking(params: RoundParams) -> str:
    """The stage that opens with the announcement of the survivors."""
    return "check_consistency" if params.threat == "malicious-server" else "unmask"


def restored(cohort: Cohort, one: int, seal_key: bytes | None = None) -> ClientSession:
    """A client after a restart; the session it was restored from stays behind, so take one of them only."""
    client = cohort.clients[one]
    return ClientSession.restore(
        client.save(seal_key=seal_key),
        one,
        seal_key=seal_key,
        credentials=cohort.identities.get(one),
        randomness=client._randomness,
        keep=IN_MEMORY,
    )


def flags(params: RoundParams, members: Iterable[int]) -> np.ndarray:
    marked = np.zeros(params.clients, dtype=bool)
    marked[list(members)] = True
    return marked


def from_server(kind: Kind, session: bytes, *parts: bytes) -> bytes:
    return Header(kind=kind, sender=SERVER, session=session).encode() + b"".join(parts)


def survivors_message(cohort: Cohort, members: Iterable[int]) -> bytes:
    return from_server(Kind.UNMASK_REQUEST, cohort.server.session_id, encode_bitmap(flags(cohort.params, members)))


def signatures_message(cohort: Cohort, replies: Mapping[int, bytes]) -> bytes:
    """What a server relays of the consistency replies that it has collected."""
    signatures = b"".join(replies[one][-64:] for one in sorted(replies))
    bitmap = encode_bitmap(flags(cohort.params, replies))
    return from_server(Kind.RELAYED_SIGNATURES, cohort.server.session_id, bitmap, signatures)


def signed(cohort: Cohort, one: int, payload: bytes) -> bytes:
    """Sign a changed message as its sender would, where messages are signed."""
    return cheats.signed(cohort, one, payload) if cohort.identities else bytes(payload)


def entry_at(params: RoundParams, position: int) -> slice:
    """Where a client's entry stands in a ROSTER in which everybody advertised."""
    size = FORMATS[params.threat].entry_bytes
    start = HEADER_BYTES + 8 * params.clients + (params.clients + 7) // 8 + size * position
    return slice(start, start + size)


def row_at(params: RoundParams, index: int) -> slice:
    """Where the row of the index-th neighbour in U2 stands in RELAYED_SHARES."""
    size = FORMATS[params.threat].dealt_bytes
    start = HEADER_BYTES + (params.clients + 7) // 8 + size * index
    return slice(start, start + size)


def replaced(payload: bytes, where: slice | int, what: bytes | int) -> bytes:
    """The payload with some of its bytes exchanged; its length stays."""
    changed = bytearray(payload)
    changed[where] = what
    assert len(changed) == len(payload)
    return bytes(changed)


def flipped(payload: bytes, at: int, bit: int = 1) -> bytes:
    return replaced(payload, at, payload[at] ^ bit)


def exchange(cohort: Cohort, absent: Iterable[int] = ()) -> Iterator[tuple[int, bytes, bytes]]:
    """Give every client the open stage's request; yield id, request and reply, and hand nothing to the server."""
    if cohort.server.beacon_needed:
        cohort.server.use_beacon(cohort.beacon)
    for one, request in cohort.server.requests().items():
        if one not in absent:
            yield one, request, cohort.answer(one, request)
