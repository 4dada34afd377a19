"""What both sides of a pairwise round do, counted stage by stage; times the machine's costs it is their CPU time.

The counts follow the steps of this wing one by one; comments name what is not plain from the papers. Everything is
counted for clients that vanish before their upload, when all others have masked with them.
"""

from __future__ import annotations

from secagg.encoding.ring import lane_dtype
from secagg.pairwise.params import RoundParams
from secagg.pairwise.recovery import SECRETS_AT_ONCE
from secagg.pairwise.stages import stages_of
from secagg.planning.operations import CACHED_WORDS, STREAMED_WORDS, Counts, Operation, Work
from secagg.planning.traffic import StageTraffic, Traffic
from secagg.primitives.shamir import LIMBS


def client_message(stage: str) -> Operation:
    """Return how a client's handling of a stage's messages is counted, beside the operations in it."""
    return Operation.CLIENT_SHARES if stage in ("share_keys", "masked_input") else Operation.CLIENT_MESSAGE


def server_message(stage: str) -> Operation:
    """Return how the server's handling of one client's messages is counted, beside the operations in it."""
    return Operation.SERVER_SHARES if stage in ("share_keys", "masked_input", "unmask") else Operation.SERVER_MESSAGE


def client_work(params: RoundParams, traffic: Traffic) -> Work:
    """Count what one client does that stays to the end."""
    stages = {stage.stage: stage for stage in traffic.stages}
    malicious = params.threat == "malicious-server"
    survivors = stages["masked_input"].answered
    parts: dict[str, list[Counts]] = {
        "advertise_keys": [{Operation.KEY_PAIR: 2, Operation.COMMIT: 1}],
        "share_keys": [_deal(params, stages["share_keys"])],
        "masked_input": [_open(params, stages["masked_input"]), _mask(params, stages["masked_input"])],
        "unmask": [{Operation.ROW: params.neighbours}],
    }
    if malicious:
        parts["check_consistency"] = []
        # Signatures beyond the quorum are not looked at, and the client's own is not checked
        others = min(params.quorum, survivors) - 1
        parts["unmask"].append({Operation.VERIFY: others, Operation.HASH_BYTE: stages["unmask"].down})
    for stage in stages_of(params.threat):
        framing: dict[Operation, float] = {client_message(stage): 1, Operation.HASH_BYTE: stages[stage].down}
        if malicious:
            framing |= {Operation.SIGN: 1}
        parts[stage].append(framing)
    return {stage: _sum(*parts[stage]) for stage in stages_of(params.threat)}


def server_work(params: RoundParams, traffic: Traffic) -> Work:
    """Count what the server does for everybody together."""
    stages = {stage.stage: stage for stage in traffic.stages}
    n, k = params.clients, params.neighbours
    survivors = stages["masked_input"].answered
    malicious = params.threat == "malicious-server"
    draws = params.graph == "harary"
    parts: dict[str, list[Counts]] = {
        # Closing the first stage draws the graph, unless a beacon does so in the next
        "advertise_keys": [{Operation.HASH_BYTE: stages["share_keys"].down}],
        "share_keys": [{Operation.ROW: n * k}],
        "masked_input": [{Operation.ROW: n * k}, _fold(params, stages["masked_input"])],
        "check_consistency": [],
        "unmask": [{Operation.ROW: 2 * survivors * k}, _rebuild(params), _unmask(params, survivors)],
    }
    if draws:
        parts["share_keys" if malicious else "advertise_keys"].append({Operation.EDGE: n * k})
    if malicious:
        # Each upload names the relayed shares that it was masked for, which are gathered and hashed to compare
        again: Counts = {Operation.ROW: survivors * k, Operation.HASH_BYTE: survivors * stages["masked_input"].down}
        parts["masked_input"].append(again)
        parts["unmask"].append({Operation.COMMIT: survivors * k})
    for stage in stages_of(params.threat):
        parts[stage].append(_exchange(params, stages[stage]))
    return {stage: _sum(*parts[stage]) for stage in stages_of(params.threat)}


def _deal(params: RoundParams, stage: StageTraffic) -> Counts:
    """Shares for every neighbour. The roster is hashed for the session too, and a key pair is made anew to agree."""
    k, malicious = params.neighbours, params.threat == "malicious-server"
    counts: dict[Operation, float] = {
        Operation.KEY_PAIR: 1,
        Operation.DEAL: 2 * LIMBS * k * params.threshold,
        Operation.EXCHANGE: k,
        Operation.DERIVE: k,
        Operation.SEAL: k,
        Operation.COMMIT: 1,
        Operation.HASH_BYTE: stage.down,
        Operation.COPY_BYTE: 4 * stage.down,
    }
    if malicious:
        counts |= {Operation.VERIFY: k, Operation.COMMIT: 1 + 2 * k, Operation.SIGN: k}
    return counts


def _open(params: RoundParams, stage: StageTraffic) -> Counts:
    k = params.neighbours
    if params.threat == "malicious-server":
        return {Operation.SEAL: k, Operation.VERIFY: k, Operation.COMMIT: 2 * k, Operation.HASH_BYTE: stage.down}
    return {Operation.SEAL: k}


def _mask(params: RoundParams, stage: StageTraffic) -> Counts:
    k, malicious = params.neighbours, params.threat == "malicious-server"
    return {
        Operation.KEY_PAIR: 1,
        Operation.EXCHANGE: k,
        Operation.DERIVE: k + 1,
        Operation.MASK: k + 1,
        Operation.MASK_BYTE: (k + 1) * _lane_bytes(params),
        Operation.ENCODE: params.dimension,
        Operation.HASH_BYTE: stage.up if malicious else 0,
        Operation.COPY_BYTE: (3 if malicious else 1) * stage.up,
    }


def _exchange(params: RoundParams, stage: StageTraffic) -> Counts:
    """Requests made and replies taken in; a signature covers the whole reply."""
    counts: dict[Operation, float] = {
        server_message(stage.stage): stage.answered,
        Operation.COPY_BYTE: 2 * stage.down * stage.asked,
    }
    if params.threat == "malicious-server":
        counts |= {Operation.VERIFY: stage.answered, Operation.HASH_BYTE: stage.up * stage.answered}
    return counts


def _fold(params: RoundParams, stage: StageTraffic) -> Counts:
    """Uploads added to the accumulator. Between the sizes timed, its share out of cache grows with the logarithm."""
    words = params.dimension + 1
    streamed = 0.0
    if words > CACHED_WORDS:
        streamed = min(
            1.0, (words.bit_length() - CACHED_WORDS.bit_length()) / (STREAMED_WORDS // CACHED_WORDS).bit_length()
        )
    return {
        Operation.UNPACK_CACHED: (1 - streamed) * words * stage.answered,
        Operation.UNPACK_STREAMED: streamed * words * stage.answered,
    }


def _rebuild(params: RoundParams) -> Counts:
    """One secret of everybody. In the complete graph batches of secrets share their holders, and so their weights."""
    n, t = params.clients, params.threshold
    if params.graph == "complete":
        batches = -(-n // SECRETS_AT_ONCE)
        return {
            Operation.REBUILD: 2 * batches,
            Operation.LAGRANGE: 2 * batches * t**2,
            Operation.COMBINE: 2 * LIMBS * n * t,
            Operation.ROW: n * t,
        }
    return {
        Operation.REBUILD: n,
        Operation.LAGRANGE: n * t**2,
        Operation.COMBINE: LIMBS * n * t,
        Operation.ROW: n * t,
    }


def _unmask(params: RoundParams, survivors: int) -> Counts:
    """Masks still in the sum: one of each survivor, and one of each survivor that neighbours somebody who vanished."""
    dropped = params.clients - survivors
    left = dropped * params.neighbours * survivors / (params.clients - 1)
    masks = survivors + left
    return {
        Operation.COMMIT: survivors,
        Operation.KEY_PAIR: 2 * dropped,
        Operation.EXCHANGE: left,
        Operation.DERIVE: masks,
        Operation.MASK: masks,
        Operation.MASK_BYTE: masks * _lane_bytes(params),
        Operation.COPY_BYTE: 4 * _lane_bytes(params),
    }


def _lane_bytes(params: RoundParams) -> int:
    return (params.dimension + 1) * int(lane_dtype(params.ring_bits).itemsize)


def _sum(*parts: Counts) -> Counts:
    total: dict[Operation, float] = {}
    for counts in parts:
        for operation, count in counts.items():
            total[operation] = total.get(operation, 0.0) + count
    return total
