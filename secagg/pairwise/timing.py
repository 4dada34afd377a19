"""How fast this machine does what a pairwise round is made of, and what any round's vectors and signatures take.

Not protocol code: it reads a clock. What a round needs of each operation is counted in ``work``.
"""

from __future__ import annotations

import functools
import statistics
from collections import defaultdict
from collections.abc import Mapping
from typing import cast

import numpy as np

from secagg.encoding.fixed_point import FixedPoint
from secagg.encoding.ring import lane_dtype, packed_bytes, unpack_add
from secagg.identity import Directory, Identity
from secagg.pairwise import commitments
from secagg.pairwise.costs import pairwise_traffic
from secagg.pairwise.graph import HararyGraph, draw_ring
from secagg.pairwise.identifiers import channel_keys, share_aad
from secagg.pairwise.masking import BLOCK_WORDS, mask_vector
from secagg.pairwise.messages import COMMITMENT_SALT_BYTES, DIGEST_BYTES, FORMATS, Kind
from secagg.pairwise.params import RoundParams
from secagg.pairwise.stages import stages_of
from secagg.pairwise.work import client_message, client_work, server_message, server_work
from secagg.planning.calibration import BATCHES, Clock, Stopwatch, priced
from secagg.planning.operations import CACHED_WORDS, STREAMED_WORDS, Operation
from secagg.primitives.aead import open_once, seal_once
from secagg.primitives.agreement import AgreementKey
from secagg.primitives.kdf import Label, digest
from secagg.primitives.prg import MASK_KEY_BYTES, MaskKeys, accumulate
from secagg.primitives.randomness import system_randomness
from secagg.primitives.shamir import LIMBS, SHARE_BYTES, lagrange_weights, reconstruct, reconstruct_without, share
from secagg.primitives.signature import SigningKey
from secagg.session.answers import InputNeeded, Reply
from secagg.session.client import ClientSession
from secagg.session.keeping import IN_MEMORY
from secagg.session.server import ServerSession
from secagg.wire import Header

_SMALL_CLIENTS = 16
_CONTEXT = b"secagg calibration"


def calibrated(stopwatch: Stopwatch, ring_bits: int, encoding: FixedPoint) -> Mapping[Operation, float]:
    """Time all operations; see ``secagg.planning.calibrate``."""
    costs = _keys(stopwatch) | _signatures(stopwatch) | _sharing(stopwatch) | _vectors(stopwatch, ring_bits, encoding)
    costs |= _movement(stopwatch)
    return costs | _messages(stopwatch.clock, costs)


def _keys(seconds: Stopwatch) -> dict[Operation, float]:
    secret, session = bytes(range(32)), bytes(32)
    key, peer = AgreementKey.from_bytes(secret), AgreementKey.from_bytes(secret[::-1]).public
    aad, shares = share_aad(session, Kind.ENCRYPTED_SHARES, 1, 2), bytes(2 * SHARE_BYTES)
    sealed = seal_once(secret, shares, aad)
    return {
        Operation.KEY_PAIR: seconds(lambda: AgreementKey.from_bytes(secret)),
        Operation.EXCHANGE: seconds(lambda: key.exchange(peer)),
        Operation.DERIVE: seconds(lambda: channel_keys(secret, session, 1, 2)),
        Operation.SEAL: seconds(lambda: open_once(secret, sealed, share_aad(session, Kind.ENCRYPTED_SHARES, 1, 2))),
    }


def _signatures(seconds: Stopwatch) -> dict[Operation, float]:
    # A key for timing alone: it signs nothing that anybody believes
    key = SigningKey(bytes(range(32)))
    identity = Identity(key=key, directory=Directory({1: key.public}))
    header = Header(kind=Kind.CONSISTENCY, sender=1, session=bytes(32))
    signature = identity.sign(header, bytes(32))
    record, committed = np.zeros(SHARE_BYTES + COMMITMENT_SALT_BYTES, np.uint8), np.zeros(2 * DIGEST_BYTES, np.uint8)
    return {
        Operation.SIGN: seconds(lambda: identity.sign(header, bytes(32))),
        Operation.VERIFY: seconds(lambda: identity.directory.check(1, header, bytes(32), signature)),
        Operation.COMMIT: seconds(lambda: commitments.opens(bytes(32), 1, 2, 0, record.tobytes(), committed.tobytes())),
    }


def _sharing(seconds: Stopwatch) -> dict[Operation, float]:
    threshold, count, together = 64, 128, 64
    secret = bytes(range(32))
    points = np.arange(1, count + 1, dtype=np.uint64)
    chosen, one_more = points[:threshold], points[: threshold + 1]
    shares = np.repeat(share([secret], threshold=threshold, points=points), together, axis=1)
    single, several = np.ascontiguousarray(shares[:threshold, :1]), np.ascontiguousarray(shares[: threshold + 1])
    weights, more_weights = lagrange_weights(chosen), lagrange_weights(one_more)
    removed = np.zeros(together, dtype=np.intp)
    several[0] = 0
    deal = seconds(lambda: share([secret, secret], threshold=threshold, points=points))
    lagrange = seconds(lambda: lagrange_weights(chosen))
    combine = seconds(lambda: reconstruct_without(one_more, several, removed, weights=more_weights))
    combine /= 2 * together * LIMBS * (threshold + 1)
    alone = seconds(lambda: reconstruct(chosen, single, weights=weights))
    return {
        Operation.DEAL: deal / (2 * LIMBS * threshold * count),
        Operation.LAGRANGE: lagrange / threshold**2,
        Operation.COMBINE: combine,
        Operation.REBUILD: max(alone - combine * LIMBS * threshold, 0.0),
    }


def _vectors(seconds: Stopwatch, ring_bits: int, encoding: FixedPoint) -> dict[Operation, float]:
    words = np.zeros(BLOCK_WORDS, dtype=lane_dtype(ring_bits))
    masks, key_bytes = 16, bytes(range(MASK_KEY_BYTES))
    keys, signs = MaskKeys.expand(key_bytes * masks), np.zeros(masks, dtype=np.bool_)
    mask_byte = seconds(lambda: accumulate(words, keys, signs)) / (masks * words.nbytes)
    timed = {
        Operation.MASK: seconds(lambda: MaskKeys.expand(key_bytes * masks)) / masks,
        Operation.MASK_BYTE: mask_byte,
        Operation.ENCODE: _encode(seconds, ring_bits, encoding),
    }
    sizes = {Operation.UNPACK_CACHED: CACHED_WORDS, Operation.UNPACK_STREAMED: STREAMED_WORDS}
    for operation, count in sizes.items():
        packed = np.zeros(packed_bytes(count, ring_bits), dtype=np.uint8)
        sums = np.zeros(count, dtype=lane_dtype(ring_bits))
        timed[operation] = seconds(functools.partial(unpack_add, packed, sums, ring_bits)) / count
    return timed


def _encode(seconds: Stopwatch, ring_bits: int, encoding: FixedPoint) -> float:
    """Time the client's pass over its vector where no mask is added."""
    dimension = 8 * BLOCK_WORDS
    params = RoundParams(
        clients=2,
        dimension=dimension,
        encoding=encoding,
        max_weight=1,
        dropout=0.0,
        corrupt=0.0,
        protocol="secagg",
        threat="semi-honest",
        graph="complete",
        neighbours=1,
        threshold=1,
        ring_bits=ring_bits,
    )
    vector = np.linspace(-encoding.clip, encoding.clip, dimension, dtype=np.float32)
    none, rounding = MaskKeys.expand(b""), bytes(range(MASK_KEY_BYTES))
    whole = seconds(
        lambda: mask_vector(
            vector,
            1,
            params,
            keys=none,
            subtract=np.zeros(0, dtype=np.bool_),
            rounding_key=rounding,
            prefix=b"",
            threads=1,
        )
    )
    return whole / dimension


def _movement(seconds: Stopwatch) -> dict[Operation, float]:
    clients, degree = 1024, 64
    ring = draw_ring(clients, system_randomness)
    graph = HararyGraph.of_ring(ring, degree)
    rows = np.zeros((clients, degree, FORMATS["semi-honest"].dealt_bytes), dtype=np.uint8)
    megabyte, long = bytes(1 << 20), np.zeros(1 << 23, dtype=np.uint8)
    return {
        Operation.EDGE: seconds(lambda: HararyGraph.of_ring(ring, degree)) / (clients * degree),
        Operation.ROW: seconds(lambda: rows[graph.neighbours(0), graph.slots(0)].tobytes()) / degree,
        Operation.HASH_BYTE: seconds(lambda: digest(Label.SIGNED_BODY, megabyte)) / len(megabyte),
        Operation.COPY_BYTE: seconds(long.tobytes) / long.nbytes,
    }


def _messages(clock: Clock, costs: Mapping[Operation, float]) -> dict[Operation, float]:
    """Run small rounds for real; what the operations counted in them do not explain is laid upon their messages."""
    params = RoundParams.plan(
        clients=_SMALL_CLIENTS,
        dimension=1,
        encoding=FixedPoint(clip=1.0, bits=8),
        dropout=0.0,
        corrupt=0.0,
        protocol="secagg",
    )
    traffic = pairwise_traffic(params, 0)
    bare = defaultdict(float, costs)  # messages cost nothing yet
    _small_round(params, clock)
    rounds = [_small_round(params, clock) for _ in range(BATCHES)]
    at_clients, at_server = client_work(params, traffic), server_work(params, traffic)
    left: dict[Operation, list[float]] = defaultdict(list)
    for stage in stages_of(params.threat):
        clients, server = (statistics.median(run[side][stage] for run in rounds) for side in (0, 1))
        left[client_message(stage)].append(clients / params.clients - priced(at_clients[stage], bare))
        left[server_message(stage)].append((server - priced(at_server[stage], bare)) / params.clients)
    return {operation: max(statistics.mean(values), 0.0) for operation, values in left.items()}


def _small_round(params: RoundParams, clock: Clock) -> tuple[dict[str, float], dict[str, float]]:
    """Return, by stage, the seconds of all clients together, and of the server."""
    server = ServerSession(params, range(params.clients), context=_CONTEXT, keep=IN_MEMORY)
    clients = [ClientSession(params, one, context=_CONTEXT, keep=IN_MEMORY) for one in range(params.clients)]
    vector = np.zeros(params.dimension, dtype=np.float32)
    at_clients: dict[str, float] = defaultdict(float)
    at_server: dict[str, float] = {}
    while (stage := server.stage) is not None:
        start = clock()
        requests = server.requests()
        for one, client in enumerate(clients):
            request = requests[one]
            asked = clock()
            answer = client.receive(request)
            reply = client.submit(vector) if isinstance(answer, InputNeeded) else cast(Reply, answer)
            at_clients[stage] += clock() - asked
            server.receive(one, reply.payload)
        server.advance()
        at_server[stage] = clock() - start - at_clients[stage]
    return at_clients, at_server
