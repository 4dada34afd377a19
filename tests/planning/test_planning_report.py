"""The JSON report against its schema."""

from __future__ import annotations

import json

import jsonschema
import pytest

import secagg
from machines import machine
from secagg import planning
from secagg.planning import report

NUMBER = {"type": ["number", "null"], "minimum": 0}
COUNT = {"type": ["integer", "null"], "minimum": 0}


def exactly(**properties) -> dict:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


STAGE = exactly(
    stage={"enum": ["advertise_keys", "share_keys", "masked_input", "check_consistency", "unmask", "encrypted_input"]},
    asked=COUNT,
    answered=COUNT,
    bytes_down=COUNT,
    bytes_up=COUNT,
    client_seconds=NUMBER,
    server_seconds=NUMBER,
)
NAMES = {"protocol": {"type": "string"}, "threat": {"enum": ["semi-honest", "malicious-server"]}}
REFUSAL = exactly(**NAMES, possible={"const": False}, reason={"type": "string", "minLength": 1})
ROW = exactly(
    **NAMES,
    possible={"const": True},
    graph={"enum": ["complete", "harary", None]},
    neighbours=COUNT,
    threshold=COUNT,
    ring_bits=COUNT,
    minimum_survivors=COUNT,
    exchanges=COUNT,
    client=exactly(bytes_up=COUNT, bytes_down=COUNT, expansion=NUMBER, memory_bytes=COUNT, seconds=NUMBER),
    server=exactly(bytes_received=COUNT, bytes_sent=COUNT, memory_bytes=COUNT, seconds=NUMBER),
    stages={"type": "array", "items": STAGE, "minItems": 1},
    bytes_beside={"type": "object", "additionalProperties": COUNT},
    notes={"type": "array", "items": {"type": "string"}},
)
SCHEMA = exactly(
    schema={"const": 1},
    version={"type": "string"},
    workload=exactly(
        clients=COUNT,
        dimension=COUNT,
        encoding=exactly(clip={"type": "number"}, bits=COUNT),
        max_weight=COUNT,
        dropout=NUMBER,
        corrupt=NUMBER,
        actual_dropout=NUMBER,
        dropped=COUNT,
    ),
    machine={
        "anyOf": [
            {"type": "null"},
            exactly(
                calibration_seconds=NUMBER,
                ring_bits=COUNT,
                seconds_of=exactly(**{operation.value: NUMBER for operation in planning.Operation}),
            ),
        ]
    },
    rows={"type": "array", "items": {"anyOf": [ROW, REFUSAL]}, "minItems": 1},
)


def compared(timed: bool = True, **overrides) -> planning.Comparison:
    asked = {"clients": 100, "dimension": 1000, "encoding": secagg.FixedPoint(clip=1.0, bits=16)} | overrides
    return planning.compare(planning.Workload(**asked), machine=machine() if timed else None)


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("overrides", [{}, {"dimension": 0}, {"dropout": 0.5}, {"max_weight": 10**18}], ids=str)
def test_reports_follow_their_schema(timed, overrides):
    comparison = compared(timed, **overrides)
    written = json.loads(report.as_json(comparison))
    jsonschema.validate(written, SCHEMA)
    assert [row["possible"] for row in written["rows"]] == [isinstance(a, planning.Row) for a in comparison.answers]
    for row in written["rows"]:
        if row["possible"]:
            assert row["client"]["bytes_up"] == sum(stage["bytes_up"] for stage in row["stages"])
            assert (row["client"]["seconds"] is None) == (not timed)
