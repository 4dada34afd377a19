"""Rows of the pairwise protocols, SecAgg and SecAgg+."""

from __future__ import annotations

from secagg.cohort import Threat
from secagg.encoding.ring import lane_dtype
from secagg.pairwise.params import Protocol, RoundParams
from secagg.planning.calibration import Machine
from secagg.planning.memory import client_bytes, server_bytes
from secagg.planning.operations import client_work, server_work
from secagg.planning.rows import Row
from secagg.planning.traffic import pairwise_traffic
from secagg.planning.workload import Workload

FEW_HONEST = 10
"""Below so many honest inputs a sum may tell a lot about each; the number is a matter of taste."""


def pairwise_row(protocol: Protocol, workload: Workload, threat: Threat, machine: Machine | None) -> Row:
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
    notes = []
    honest = params.minimum_survivors - params.corrupt_count
    if honest < FEW_HONEST:
        notes.append(f"A sum may hold as few as {honest} honest inputs, which is little to hide among.")
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
