"""Rows and refusals: who can carry a round, at which cost, and how costs move with the question."""

from __future__ import annotations

import dataclasses
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from rich.filesize import decimal

import secagg
from machines import machine
from secagg import planning
from secagg import protocol as registry
from secagg.planning.comparison import THREATS, cohorts_around

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "he"))
from federation import Federation

ENCODING = secagg.FixedPoint(clip=1.0, bits=16)
PAIRWISE = ("secagg", "secagg+")
HOMOMORPHIC = ("bfv", "ckks")


def workload(**overrides) -> planning.Workload:
    return planning.Workload(**({"clients": 200, "dimension": 10_000, "encoding": ENCODING} | overrides))


def rows(protocols=PAIRWISE, **overrides) -> dict[tuple[str, str], planning.Row]:
    compared = planning.compare(workload(**overrides), machine=machine())
    return {(row.protocol, row.threat): row for row in compared.rows if row.protocol in protocols}


def total(seconds) -> float:
    return sum(seconds.values())


def costs_of(row: planning.Row) -> dict[str, float]:
    return {
        "up": row.traffic.client_up,
        "down": row.traffic.client_down,
        "received": row.traffic.server_received,
        "sent": row.traffic.server_sent,
        "client_memory": row.client_memory,
        "server_memory": row.server_memory,
        "client_seconds": total(row.client_seconds),
        "server_seconds": total(row.server_seconds),
    }


def test_every_protocol_answers_in_every_model():
    compared = planning.compare(workload())
    assert [(a.protocol, a.threat) for a in compared.answers] == [
        (p, t) for t in THREATS for p in PAIRWISE + HOMOMORPHIC
    ]
    assert compared.refusals == ()
    assert compared.machine is None
    assert all(row.client_seconds is None and row.server_seconds is None for row in compared.rows)


@pytest.mark.parametrize("protocol", PAIRWISE)
@pytest.mark.parametrize("threat", THREATS)
def test_rows_hold_the_parameters_that_a_round_is_planned_with(protocol, threat):
    row = rows(max_weight=60)[protocol, threat]
    params = secagg.RoundParams.plan(
        clients=200, dimension=10_000, encoding=ENCODING, max_weight=60, protocol=protocol, threat=threat
    )
    for field in ("graph", "neighbours", "threshold", "ring_bits", "minimum_survivors"):
        assert getattr(row, field) == getattr(params, field)
    assert row.exchanges == len(row.client_seconds) == len(row.server_seconds) == (4 if threat == "semi-honest" else 5)
    assert row.expansion == row.traffic.client_up / 20_000


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"clients": 100}, {"clients": 400}),
        ({"dimension": 1_000}, {"dimension": 100_000}),
        ({"encoding": secagg.FixedPoint(clip=1.0, bits=8)}, {"encoding": secagg.FixedPoint(clip=1.0, bits=30)}),
        ({"max_weight": 1}, {"max_weight": 1_000_000}),
    ],
    ids=["clients", "dimension", "bits", "weight"],
)
def test_no_cost_falls_where_the_round_grows(less, more):
    small, large = rows(**less), rows(**more)
    assert small.keys() == large.keys()
    for key, row in small.items():
        grown = costs_of(large[key])
        for name, cost in costs_of(row).items():
            assert cost <= grown[name], (key, name)
        assert costs_of(row) != grown


def test_a_server_pays_for_those_that_vanish():
    calm, planned = rows(actual_dropout=0.0), rows()
    for key, row in calm.items():
        assert total(row.server_seconds) < total(planned[key].server_seconds)
        assert row.traffic.server_received > planned[key].traffic.server_received
        assert (row.threshold, row.neighbours) == (planned[key].threshold, planned[key].neighbours)


def test_the_sparse_graph_is_cheaper_and_the_stronger_model_dearer():
    found = {key: costs_of(row) for key, row in rows(clients=1000).items()}
    for threat in THREATS:
        sparse, complete = found["secagg+", threat], found["secagg", threat]
        # A client that draws the whole graph from a beacon needs memory for it
        drawn = {"client_memory"} if threat == "malicious-server" else set()
        assert all(sparse[cost] < complete[cost] for cost in sparse.keys() - drawn)
    for protocol in PAIRWISE:
        cheap, dear = (found[protocol, threat] for threat in THREATS)
        assert all(cheap[cost] <= dear[cost] for cost in cheap)


@pytest.mark.parametrize(
    ("operation", "side", "factor"),
    [("exchange", "client", 2), ("exchange", "server", 40 * 160 / 199), ("mask", "client", 1 + 1 / 199)],
)
def test_operations_are_counted_as_the_papers_count_them(operation, side, factor):
    free = {name.value: 0.0 for name in planning.Operation}
    compared = planning.compare(workload(), machine=machine(**(free | {operation: 1.0})))
    row = next(row for row in compared.rows if (row.protocol, row.threat) == ("secagg", "semi-honest"))
    seconds = row.client_seconds if side == "client" else row.server_seconds
    assert total(seconds) == pytest.approx(factor * 199)


@pytest.mark.parametrize(
    ("overrides", "refused", "reason"),
    [
        ({"clients": 3, "dropout": 0.5, "corrupt": 0.3}, 8, "too few clients"),
        ({"max_weight": 10**18}, 8, ""),
        ({"clients": 5000}, 2, "complete graph takes at most 4096 clients"),
        ({"clients": 100, "dropout": 0.5}, 2, "must vouch for the survivor set"),
    ],
    ids=["few", "wide", "complete", "quorum"],
)
def test_a_protocol_that_cannot_says_why(overrides, refused, reason):
    answers = planning.compare(workload(**overrides), machine=machine()).answers
    refusals = [answer for answer in answers if isinstance(answer, planning.Refusal)]
    assert len(refusals) == refused
    assert len(answers) == 8
    assert all(reason in refusal.reason for refusal in refusals)


def test_a_sum_too_wide_is_refused_by_each_in_its_own_words():
    answers = planning.compare(workload(max_weight=10**18)).answers
    reasons = {answer.protocol: answer.reason for answer in answers}
    assert "need a ring of" in reasons["secagg+"]
    assert "would wrap in a slot" in reasons["bfv"]
    assert "bits of the 16 asked for" in reasons["ckks"]


@pytest.mark.parametrize("protocol", HOMOMORPHIC)
@pytest.mark.parametrize("threat", THREATS)
def test_homomorphic_rows_tell_what_a_sum_really_sends(protocol, threat):
    asked = {"clients": 5, "dimension": 5000, "dropout": 0.2, "corrupt": 0.0}
    row = rows(HOMOMORPHIC, **asked)[protocol, threat]
    params = secagg.HEParams.plan(encoding=ENCODING, protocol=protocol, **asked)
    seen = secagg.simulate(np.zeros((5, 5000)), params=params, faults={1: "encrypted_input"})
    assert row.traffic.client_up == sum(seen.bytes_up.values())
    assert row.traffic.client_down == seen.bytes_down["encrypted_input"] - params.public_key_bytes - 48 - 64
    assert row.traffic.server_received == 4 * row.traffic.client_up
    assert (row.graph, row.neighbours, row.threshold, row.exchanges) == (None, None, None, 1)
    assert row.minimum_survivors == 4
    assert row.ring_bits == (params.ring_bits if protocol == "bfv" else None)
    assert total(row.client_seconds) > 0 < total(row.server_seconds)
    assert any("read every client's vector" in note for note in row.notes)
    assert row.beside["uploads_passed_on"] == row.traffic.server_received
    assert row.beside["public_key"] == params.public_key_bytes + 48 + 64
    assert any(decimal(row.traffic.server_received) in note for note in row.notes)


def test_without_tenseal_only_cpu_time_is_missing(monkeypatch):
    from secagg.he import costs

    monkeypatch.setattr(costs, "find_spec", lambda name: None)
    row = rows(HOMOMORPHIC)["bfv", "semi-honest"]
    assert row.client_seconds is None
    assert any('pip install ".[he]"' in note for note in row.notes)


@pytest.mark.parametrize("protocol", HOMOMORPHIC)
def test_planned_memory_of_a_homomorphic_sum_is_about_what_it_takes(protocol):
    asked = {"clients": 20, "dimension": 40_000, "dropout": 0.0, "corrupt": 0.0}
    row = rows(HOMOMORPHIC, **asked)[protocol, "semi-honest"]
    federation = Federation(secagg.HEParams.plan(encoding=ENCODING, protocol=protocol, **asked))
    vector = np.zeros(40_000, dtype=np.float32)
    uploads = [federation.upload(one, vector) for one in range(2)]  # tables are made
    federation.server.receive(0, uploads[0])
    client = federation.clients[2]
    client.receive(federation.server.requests()[2])
    tracemalloc.start()
    try:
        client.submit(vector)
        used = tracemalloc.get_traced_memory()[1] + vector.nbytes
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        federation.server.receive(1, uploads[1])
        held = federation.server._state.collection.running.residues.nbytes
        taken = tracemalloc.get_traced_memory()[1] - before + held + len(uploads[1])
    finally:
        tracemalloc.stop()
    assert 0.6 < used / row.client_memory < 1.2
    assert 0.6 < taken / row.server_memory < 1.2


def test_notes_say_what_a_user_should_know():
    small = rows(clients=12, max_weight=60_000)["secagg+", "semi-honest"].notes
    assert any("use the complete graph" in note for note in small)
    assert any("as few as 7 honest inputs" in note for note in small)
    assert any("Weights up to 60000 take 16 of" in note for note in small)
    assert any(
        "masks of 64-bit words of 32-bit" in note for note in rows(max_weight=60_000)["secagg", THREATS[0]].notes
    )
    assert rows()["secagg", "semi-honest"].notes == ()
    assert any("beacon" in note for note in rows()["secagg+", "malicious-server"].notes)
    unsafe = rows(clients=100, dropout=0.5, corrupt=0.45)
    assert any("No sparse graph is safe" in note for note in unsafe["secagg+", "semi-honest"].notes)


@pytest.mark.parametrize(
    "wrong",
    [
        {"clients": 0},
        {"clients": 2.5},
        {"dimension": -1},
        {"max_weight": 0},
        {"dropout": 1.0},
        {"corrupt": float("nan")},
        {"actual_dropout": 0.21},
        {"actual_dropout": -0.1},
        {"encoding": 16},
    ],
    ids=str,
)
def test_a_question_that_makes_no_sense_is_refused_at_once(wrong):
    with pytest.raises(secagg.ParameterError):
        workload(**wrong)


def test_rates_count_as_they_are_written():
    assert workload(clients=30, dropout=0.1).dropped == 3
    assert workload(clients=30, dropout=0.1, actual_dropout=0).dropped == 0
    assert workload(clients=31, dropout=0.1).at(30).dropped == 3


def test_cohorts_reach_ten_times_what_was_asked_and_no_further_than_a_round():
    assert cohorts_around(50)[-1] == 10_000
    assert cohorts_around(5_000)[-1] == 50_000
    assert cohorts_around(1 << 20)[-1] == 1 << 20
    assert 777 in cohorts_around(777)
    assert list(cohorts_around(777)) == sorted(set(cohorts_around(777)))


def test_a_further_protocol_is_a_further_entry(monkeypatch):
    class Other(type(registry.protocol_named("secagg"))):
        family, names = "other", ("other",)
        params_type = type("OtherParams", (), {})

        def planning_row(self, name, asked, threat, timed):
            if threat != "semi-honest":
                raise secagg.ParameterError("it knows no such model")
            row = super().planning_row("secagg", asked, threat, timed)
            return dataclasses.replace(row, protocol="other", graph=None, neighbours=None, threshold=None)

    monkeypatch.setattr(registry, "_registry", registry._Registry())
    secagg.register_protocol(Other())
    compared = planning.compare(workload())
    known = [*PAIRWISE, *HOMOMORPHIC]
    assert [row.protocol for row in compared.rows] == [*known, "other", *known]
    assert [refusal.protocol for refusal in compared.refusals] == ["other"]
