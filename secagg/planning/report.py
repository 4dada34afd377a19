"""A comparison as strict JSON: every number is finite, ``null`` where there is none to give."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from secagg._version import __version__
from secagg.planning.comparison import Comparison
from secagg.planning.rows import Refusal, Row

SCHEMA = 1
"""Rises when a field changes its meaning or goes away; new fields do not raise it."""


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as plain dictionaries, lists, strings, finite numbers and None."""
    machine = comparison.machine
    return {
        "schema": SCHEMA,
        "version": __version__,
        "workload": {**asdict(comparison.workload), "dropped": comparison.workload.dropped},
        "machine": None
        if machine is None
        else {
            "calibration_seconds": machine.seconds,
            "ring_bits": machine.ring_bits,
            "seconds_of": {operation.value: cost for operation, cost in machine.costs.items()},
        },
        "rows": [_row(answer) if isinstance(answer, Row) else _refusal(answer) for answer in comparison.answers],
    }


def as_json(comparison: Comparison) -> str:
    """Return the report as indented JSON text that ends in a line feed."""
    return json.dumps(as_dict(comparison), indent=2, allow_nan=False) + "\n"


def _refusal(answer: Refusal) -> dict[str, Any]:
    return {"protocol": answer.protocol, "threat": answer.threat, "possible": False, "reason": answer.reason}


def _row(row: Row) -> dict[str, Any]:
    traffic = row.traffic
    return {
        "protocol": row.protocol,
        "threat": row.threat,
        "possible": True,
        "graph": row.graph,
        "neighbours": row.neighbours,
        "threshold": row.threshold,
        "ring_bits": row.ring_bits,
        "minimum_survivors": row.minimum_survivors,
        "exchanges": row.exchanges,
        "client": {
            "bytes_up": traffic.client_up,
            "bytes_down": traffic.client_down,
            "expansion": row.expansion,
            "memory_bytes": row.client_memory,
            "seconds": _total(row.client_seconds),
        },
        "server": {
            "bytes_received": traffic.server_received,
            "bytes_sent": traffic.server_sent,
            "memory_bytes": row.server_memory,
            "seconds": _total(row.server_seconds),
        },
        "stages": [
            {
                "stage": stage.stage,
                "asked": stage.asked,
                "answered": stage.answered,
                "bytes_down": stage.down,
                "bytes_up": stage.up,
                "client_seconds": None if row.client_seconds is None else row.client_seconds[stage.stage],
                "server_seconds": None if row.server_seconds is None else row.server_seconds[stage.stage],
            }
            for stage in traffic.stages
        ],
        "bytes_beside": dict(row.beside),
        "notes": list(row.notes),
    }


def _total(seconds: Mapping[str, float] | None) -> float | None:
    return None if seconds is None else sum(seconds.values())
