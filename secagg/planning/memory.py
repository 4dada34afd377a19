"""How much memory a pairwise round takes on either side at its peak, from the arrays that its states hold.

Counted are vectors, rows of shares, rosters and the masking graph, with the copies that a step makes of them; Python's
own objects and the interpreter are not. Tests hold the result against traced allocations.
"""

from __future__ import annotations

from secagg.encoding.fixed_point import ROUNDING_DTYPE
from secagg.encoding.ring import lane_dtype, packed_bytes
from secagg.pairwise.masking import BLOCK_WORDS
from secagg.pairwise.messages import FORMATS
from secagg.pairwise.params import RoundParams
from secagg.pairwise.recovery import MASKS_AT_ONCE, SECRETS_AT_ONCE
from secagg.planning.traffic import Traffic
from secagg.primitives.shamir import SHARE_BYTES

FLOAT_BYTES = 4
"""Of a coordinate as the client's caller holds it."""
_MASK_BYTES = 240
"""Of a mask's key as it was derived, as its batch holds it, and expanded."""
_DRAWING_BYTES, _GRAPH_BYTES = 40, 8
"""Of one neighbour of one client, while the graph is drawn and once it is."""
_RING_BYTES = 32
"""Of one place on the ring while it is drawn: its key, key stream and order."""


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
