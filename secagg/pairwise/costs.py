"""Rows of the pairwise protocols, SecAgg and SecAgg+: exact bytes, memory at the peak, and counted work.

Bytes follow from the lengths that the messages themselves give. In memory vectors, rows of shares, rosters and the
masking graph are counted, with the copies that a step makes of them; Python's own objects and the interpreter are not.
Tests hold it against traced allocations. Source: SPEC "Messages".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from secagg.cohort import Threat
from secagg.encoding.fixed_point import ROUNDING_DTYPE
from secagg.encoding.ring import lane_dtype, packed_bytes
from secagg.pairwise.masking import BLOCK_WORDS
from secagg.pairwise.messages import (
    FORMATS,
    Consistency,
    EncryptedShares,
    Invitation,
    KeyAdvertisement,
    Kind,
    MaskedInput,
    RelayedShares,
    RelayedSignatures,
    Roster,
    UnmaskRequest,
    UnmaskShares,
)
from secagg.pairwise.params import PairwiseName, RoundParams
from secagg.pairwise.recovery import MASKS_AT_ONCE, SECRETS_AT_ONCE
from secagg.pairwise.server_table import server_table
from secagg.pairwise.work import client_work, server_work
from secagg.planning.rows import FLOAT_BYTES, Row, few_honest_notes
from secagg.planning.traffic import StageTraffic, Traffic
from secagg.primitives.shamir import SHARE_BYTES
from secagg.wire import HEADER_BYTES

if TYPE_CHECKING:
    from secagg.planning.calibration import Machine
    from secagg.planning.workload import Workload

_MASK_BYTES = 240
"""Of a mask's key as it was derived, as its batch holds it, and expanded."""
_DRAWING_BYTES, _GRAPH_BYTES = 40, 8
"""Of one neighbour of one client, while the graph is drawn and once it is."""
_RING_BYTES = 32
"""Of one place on the ring while it is drawn: its key, key stream and order."""


def pairwise_row(protocol: PairwiseName, workload: Workload, threat: Threat, machine: Machine | None) -> Row:
    """Plan a round of ``protocol`` and count what it costs.

    Raises:
        ParameterError: no safe parameters exist for this workload.
    """
    params = RoundParams.plan(
        clients=workload.clients,
        dimension=workload.dimension,
        encoding=workload.encoding,
        max_weight=workload.max_weight,
        dropout=workload.dropout,
        corrupt=workload.corrupt,
        protocol=protocol,
        threat=threat,
    )
    traffic = pairwise_traffic(params, workload.dropped)
    codes = params.dimension * params.encoding.bits / 8
    return Row(
        protocol=protocol,
        threat=threat,
        graph=params.graph,
        neighbours=params.neighbours,
        threshold=params.threshold,
        ring_bits=params.ring_bits,
        minimum_survivors=params.minimum_survivors,
        traffic=traffic,
        expansion=traffic.client_up / codes if codes else None,
        client_memory=client_bytes(params, traffic),
        server_memory=server_bytes(params),
        client_seconds=None if machine is None else machine.time(client_work(params, traffic)),
        server_seconds=None if machine is None else machine.time(server_work(params, traffic)),
        notes=(*params.notes, *_notes(params)),
    )


def _notes(params: RoundParams) -> list[str]:
    notes = few_honest_notes(params.minimum_survivors, params.corrupt_count)
    weight_bits = (params.max_weight - 1).bit_length()
    if weight_bits:
        lanes = int(lane_dtype(params.ring_bits).itemsize), int(lane_dtype(params.ring_bits - weight_bits).itemsize)
        cost = (
            f", which makes masks of {8 * lanes[0]}-bit words of {8 * lanes[1]}-bit ones" if lanes[0] > lanes[1] else ""
        )
        notes.append(
            f"Weights up to {params.max_weight} take {weight_bits} of the ring's {params.ring_bits} bits{cost}; "
            "they may be scaled down before the round."
        )
    if params.threat == "malicious-server" and params.graph == "harary":
        notes.append("The sparse graph needs a public beacon that nobody knows before the roster is fixed.")
    return notes


def pairwise_traffic(params: RoundParams, dropped: int) -> Traffic:
    """Return what a round of SecAgg or SecAgg+ sends if ``dropped`` clients vanish before their upload, and no other.

    That is exact for every client: all neighbours have advertised and shared keys by then.
    """
    lengths = body_bytes(params, params.clients - dropped)
    signature = FORMATS[params.threat].signature_bytes
    stages = []
    asked = params.clients
    for (_, reply), row in server_table(params).items():
        answered = params.clients - dropped if row.stage == "masked_input" else asked
        stages.append(
            StageTraffic(
                stage=row.stage,
                down=HEADER_BYTES + lengths[row.request],
                up=HEADER_BYTES + lengths[reply] + signature,
                asked=asked,
                answered=answered,
            )
        )
        asked = answered
    return Traffic(stages=tuple(stages))


def body_bytes(params: RoundParams, survivors: int) -> Mapping[Kind, int]:
    """Return how long the body of each kind of message is where everybody shares keys and ``survivors`` upload."""
    n, k, form = params.clients, params.neighbours, FORMATS[params.threat]
    drawn_by_server = params.graph == "harary" and params.threat == "semi-honest"
    return {
        Kind.INVITATION: Invitation.body_bytes(),
        Kind.KEY_ADVERTISEMENT: KeyAdvertisement.body_bytes(),
        Kind.ROSTER: Roster.body_bytes(
            clients=n, advertised=n, sparse_neighbours=k if drawn_by_server else 0, entry_bytes=form.entry_bytes
        ),
        Kind.ENCRYPTED_SHARES: EncryptedShares.body_bytes(count=k, dealt_bytes=form.dealt_bytes),
        Kind.RELAYED_SHARES: RelayedShares.body_bytes(clients=n, count=k, dealt_bytes=form.dealt_bytes),
        Kind.MASKED_INPUT: MaskedInput.body_bytes(
            count=params.dimension + 1, ring_bits=params.ring_bits, accepted_bytes=form.accepted_bytes
        ),
        Kind.UNMASK_REQUEST: UnmaskRequest.body_bytes(clients=n),
        Kind.CONSISTENCY: Consistency.body_bytes(),
        Kind.RELAYED_SIGNATURES: RelayedSignatures.body_bytes(clients=n, signed=survivors),
        Kind.UNMASK_SHARES: UnmaskShares.body_bytes(count=k, release_bytes=form.release_bytes),
    }


def client_bytes(params: RoundParams, traffic: Traffic) -> int:
    """Return the peak of one client, its float32 vector included, with the replies kept for one stage."""
    n, k, form = params.clients, params.neighbours, FORMATS[params.threat]
    stages = {stage.stage: stage for stage in traffic.stages}
    lane = int(lane_dtype(params.ring_bits).itemsize)
    sharing = 4 * stages["share_keys"].down + 3 * stages["share_keys"].up
    if params.threat == "malicious-server" and params.graph == "harary":
        sharing += _RING_BYTES * n  # from the beacon every client draws the whole ring
    upload, block = stages["masked_input"].up, BLOCK_WORDS * (lane + ROUNDING_DTYPE.itemsize)
    masking = 2 * stages["masked_input"].down + (2 * form.release_bytes + _MASK_BYTES) * k
    # Packed block by block in place; what is signed is then copied once, to stand before its signature
    masking += upload + max(block, upload if params.threat == "malicious-server" else 0)
    return FLOAT_BYTES * params.dimension + max(sharing, masking)


def server_bytes(params: RoundParams) -> int:
    """Return the peak of the server, one client's message in flight."""
    n, k, form = params.clients, params.neighbours, FORMATS[params.threat]
    words = (params.dimension + 1) * int(lane_dtype(params.ring_bits).itemsize)
    graph, drawing = (_GRAPH_BYTES * n * k, _DRAWING_BYTES * n * k) if params.graph == "harary" else (0, 0)
    dealt, held, roster = form.dealt_bytes * n * k, form.release_bytes * n * k, 2 * form.entry_bytes * n
    collecting = words + dealt + graph + max(held, packed_bytes(params.dimension + 1, params.ring_bits))
    # Commitments are needed until the last release; without them what was dealt is gone once it is relayed
    kept = dealt if params.threat == "malicious-server" else 0
    together = min(n, SECRETS_AT_ONCE) if params.graph == "complete" else 1
    masks = min(MASKS_AT_ONCE, params.minimum_survivors + params.dropout_count * k)
    rebuilding = max(4 * SHARE_BYTES * params.threshold * together, _MASK_BYTES * masks)
    return roster + max(dealt + drawing, collecting, kept + graph + held + 2 * words + rebuilding)
