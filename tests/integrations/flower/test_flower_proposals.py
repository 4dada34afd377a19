"""What a node makes of the parameters that a server proposes: it compares them, and proves none of them."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohorts import NODES, faults_of, malicious, start
from secagg.errors import ParameterError, ServerFault
from secagg.integrations.flower.agreement import Agreement
from secagg.pairwise.encoded_params import UnprovedParams
from secagg.pairwise.params import RoundParams

AGREEMENT = Agreement()
PLANNED = AGREEMENT.plan(clients=100, dimension=9, threat="semi-honest")
SAID = UnprovedParams.decode(PLANNED.encode())
HOSTILE = replace(SAID, clients=20_000, neighbours=16_000, threshold=12_000, threat="malicious-server")


def agreed(proposed, threat="semi-honest", **cohort):
    return AGREEMENT.agreed(proposed, threat=threat, **cohort)


@pytest.fixture
def unproved(monkeypatch):
    """Fail where a proposal is decoded."""

    def decode(payload):
        raise AssertionError("it was decoded, and so proved")

    monkeypatch.setattr(RoundParams, "decode", decode)


def test_the_agreed_parameters_are_planned_and_compared(unproved):
    assert agreed(PLANNED.encode()) == PLANNED
    strict = AGREEMENT.plan(clients=100, dimension=9, threat="malicious-server")
    assert agreed(strict.encode(), "malicious-server", cohort=100) == strict


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"neighbours": 16_000, "threshold": 1},
            f"neighbours 16000, this client agreed to {PLANNED.neighbours}; t",
        ),
        ({"graph": "complete"}, "graph complete, this client agreed to harary"),
        ({"clip": float("nan")}, "clip nan, this client agreed to 3.0"),
        ({"dropout": 5e-324}, "dropout 5e-324, this client agreed to 0.2"),
        ({"ring_bits": 0}, "ring_bits 0, this client agreed to"),
        (
            {"max_weight": 0, "threat": "malicious-server"},
            "max_weight 0, this client agreed to 65536; threat m",
        ),
        ({"clients": 0}, "0 clients are invited, and at least 3"),
        ({"clients": (1 << 32) - 1}, r"clients must lie in \[1, 1048576\]"),
        ({"dimension": 0}, "a vector of 0 coordinates holds no model"),
        ({"dimension": (1 << 64) - 1}, r"dimension must lie in \[0, 4294967296\]"),
    ],
)
def test_a_proposal_that_differs_is_told_field_by_field(unproved, change, told):
    with pytest.raises(ServerFault, match=told):
        agreed(replace(SAID, **change).encode())


def test_every_field_but_the_two_sizes_is_compared(unproved):
    others = {"protocol": "secagg", "threat": "malicious-server", "graph": "complete"}
    for one in fields(UnprovedParams):
        if one.name in ("clients", "dimension"):
            continue
        value = getattr(SAID, one.name)
        with pytest.raises(ServerFault):
            agreed(replace(SAID, **{one.name: others.get(one.name) or value + 1}).encode())


def test_bytes_that_are_no_parameters_are_the_servers_fault(unproved):
    plain = Agreement(dropout=0.0)
    own = plain.plan(clients=100, dimension=9, threat="semi-honest").encode()
    for wrong in (b"", own[:-1], own + b"\0", own[:45] + b"\x07" + own[46:], own[:56] + b"\1" + own[57:]):
        with pytest.raises(ServerFault, match="not agreed to"):
            plain.agreed(wrong, threat="semi-honest")
    assert plain.agreed(own, threat="semi-honest").dropout == 0.0
    with pytest.raises(ServerFault, match="in other bytes than their own"):
        plain.agreed(replace(UnprovedParams.decode(own), dropout=-0.0).encode(), threat="semi-honest")


def test_a_directory_fixes_the_cohort_before_anything_is_planned(unproved, monkeypatch):
    def plan(*_, **__):
        raise AssertionError("it planned")

    monkeypatch.setattr(RoundParams, "plan", plan)
    with pytest.raises(ServerFault, match="20000 clients are invited, and this node's directory holds 100"):
        agreed(HOSTILE.encode(), "malicious-server", cohort=100)


@settings(max_examples=100, deadline=None)
@given(payload=st.one_of(st.binary(min_size=61, max_size=61), st.binary(max_size=80)), data=st.data())
def test_no_bytes_but_the_planned_ones_are_agreed_to(payload, data):
    position = data.draw(st.integers(0, 60))
    own = PLANNED.encode()
    for proposed in (payload, own[:position] + payload[:1] + own[position + 1 :]):
        try:
            params = agreed(proposed)
        except ServerFault:
            continue
        # Another cohort or model may be planned for, and nothing else differ
        dimension = params.dimension - AGREEMENT.extra_coordinates()
        assert params == AGREEMENT.plan(clients=params.clients, dimension=dimension, threat="semi-honest")
        assert params.encode() == proposed


@pytest.mark.parametrize("threat", ["semi-honest", "malicious-server"])
@pytest.mark.parametrize(
    "proposed", [HOSTILE, replace(HOSTILE, clients=10**6, neighbours=900_000, threshold=700_000)], ids=["2GiB", "1TiB"]
)
def test_sixty_one_bytes_do_not_exhaust_a_node(tmp_path, threat, proposed, unproved):
    def script(delivery):
        if delivery.kind == "INVITATION":
            delivery.message.content["secagg"]["params"] = proposed.encode()
        return [delivery.answer()]

    if threat == "malicious-server":
        _, grid = malicious(tmp_path, script)
        start(grid)
        faults, told = grid.rounds[0].faults, "this node's directory holds 5"
    else:
        faults, told = faults_of(script), "threat malicious-server, this client agreed to semi-honest"
    assert set(faults) == set(NODES)
    assert all("ServerFault" in text and told in text for text in faults.values())


def test_a_plan_that_does_not_hold_is_refused_in_its_own_words():
    with pytest.raises(ParameterError, match="at least 3"):
        AGREEMENT.plan(clients=2, dimension=1, threat="semi-honest")
    with pytest.raises(ServerFault, match="too few clients"):
        agreed(replace(SAID, clients=3).encode())
