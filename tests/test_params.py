import json
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import comb
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cohort import plan
from secagg import DecodeError, FixedPoint, ParameterError, RoundParams
from secagg.cohort import Cohort
from secagg.pairwise.graph_parameters import (
    SparseGraph,
    published_graph_parameters,
    recovery_limit,
    secrecy_limit,
    smallest_sparse_graph,
)

PUBLISHED = json.loads((Path(__file__).parent / "vectors" / "graph_parameters.json").read_text())
ENCODING = FixedPoint(clip=1.0, bits=16)


@pytest.mark.parametrize("case", PUBLISHED["cases"], ids=lambda case: f"n{case['n']}-{case['neighbours']}")
def test_published_rule_reproduces_every_vector(case):
    try:
        found = published_graph_parameters(
            clients=case["n"],
            corrupt=case["corrupt"],
            dropout=case["dropout"],
            malicious_server=case["malicious_server"],
            security_bits=PUBLISHED["sigma"],
            failure_bits=PUBLISHED["eta"],
        )
    except ParameterError:
        found = None
    assert (found and found.neighbours, found and found.threshold) == (case["neighbours"], case["threshold"])


def test_all_published_rows_are_there():
    feasible = [case for case in PUBLISHED["cases"] if case["neighbours"] is not None]
    assert (len(feasible), len(PUBLISHED["cases"])) == (98, 105)


def test_planning_is_stricter_than_the_published_comparison():
    """Where one share would do, the published rule takes two although two need not be left; planning goes on."""
    counts = Cohort(clients=10, corrupt=0, dropouts=3, survivors=7)
    assert published_graph_parameters(clients=10, corrupt=0.05, dropout=0.33) == SparseGraph(neighbours=4, threshold=2)
    assert recovery_limit(counts, 4) == 1
    assert smallest_sparse_graph(counts) == SparseGraph(neighbours=6, threshold=2)
    assert recovery_limit(counts, 6) >= 2


def test_published_rule_of_impossible_rates_is_none():
    assert published_graph_parameters(clients=1000, corrupt=0.5, dropout=0.5) is None
    assert published_graph_parameters(clients=1000, corrupt=0.1, dropout=0.45, malicious_server=True) is None


@pytest.mark.parametrize("rates", [{"corrupt": -0.1, "dropout": 0}, {"corrupt": 0, "dropout": 1.0}])
def test_published_rule_refuses_rates_outside_their_range(rates):
    with pytest.raises(ParameterError, match=r"must lie in \[0, 1\)"):
        published_graph_parameters(clients=100, **rates)


def hypergeometric(population, marked, draws):
    total = comb(population, draws)
    return {x: Fraction(comb(marked, x) * comb(population - marked, draws - x), total) for x in range(draws + 1)}


@given(clients=st.integers(5, 60), corrupt=st.integers(0, 20), dropouts=st.integers(0, 20), half=st.integers(1, 15))
def test_limits_are_the_exact_tails(clients, corrupt, dropouts, half):
    neighbours = 2 * half
    assume(corrupt + dropouts < clients and neighbours <= clients - 2)
    cohort = Cohort(clients=clients, corrupt=corrupt, dropouts=dropouts, survivors=clients - dropouts)
    above = hypergeometric(clients, corrupt, neighbours)
    bound = Fraction(1, 2**41 * clients)
    exact = min(x for x in range(neighbours + 1) if sum(p for y, p in above.items() if y > x) <= bound)
    assert secrecy_limit(cohort, neighbours) == exact
    below = hypergeometric(clients, clients - dropouts, neighbours)
    bound = Fraction(1, 2**20 * clients)
    exact = max(t for t in range(neighbours + 1) if sum(p for y, p in below.items() if y < t) < bound)
    assert recovery_limit(cohort, neighbours) == exact


def test_plan_rounds_counts_up_and_reports_both():
    params = RoundParams.plan(clients=50, dimension=1, encoding=ENCODING, dropout=0.05, corrupt=0.05)
    assert (params.corrupt_count, params.dropout_count, params.minimum_survivors) == (3, 3, 47)


def test_rates_mean_the_decimals_that_were_written():
    params = RoundParams.plan(clients=30, dimension=1, encoding=ENCODING, dropout=0.1, corrupt=0.1)
    assert (params.corrupt_count, params.dropout_count) == (3, 3)


def test_small_cohorts_use_the_complete_graph_and_say_so():
    params = RoundParams.plan(clients=39, dimension=1, encoding=ENCODING)
    assert params.graph == "complete"
    assert params.neighbours == 38
    assert "complete graph" in params.notes[0]


def test_secagg_uses_the_complete_graph_without_a_note():
    params = RoundParams.plan(clients=100, dimension=1, encoding=ENCODING, protocol="secagg")
    assert (params.graph, params.neighbours, params.notes) == ("complete", 99, ())


def test_secagg_plus_is_sparse_where_that_is_safe():
    params = RoundParams.plan(clients=1000, dimension=1, encoding=ENCODING)
    assert params.graph == "harary"
    assert params.neighbours < 100
    dense = RoundParams.plan(clients=40, dimension=1, encoding=ENCODING, dropout=0.5, corrupt=0.41)
    assert dense.graph == "complete"
    assert "No sparse graph" in dense.notes[0]


@pytest.mark.parametrize(
    ("clients", "weight", "bits", "width"),
    [(1000, 60_000, 16, 42), (1000, 1, 16, 26), (1 << 10, 1, 16, 26), (2, 1, 1, 2), (2, 1, 32, 33), (16, 1, 1, 5)],
)
def test_ring_is_as_wide_as_the_sum_needs(clients, weight, bits, width):
    params = plan(clients, max_weight=weight, encoding=FixedPoint(clip=1.0, bits=bits))
    assert params.ring_bits == width


@given(clients=st.integers(2, 4096), weight=st.integers(1, 10**9), bits=st.integers(1, 32), spare=st.integers(-3, 3))
def test_no_parameters_that_wrap_can_be_built(clients, weight, bits, spare):
    largest = clients * weight * ((1 << bits) - 1)
    encoding = FixedPoint(clip=1.0, bits=bits)
    width = largest.bit_length() + spare
    if spare >= 0 and width <= 64:
        assert plan(clients, max_weight=weight, encoding=encoding, ring_bits=width).ring_bits == width
    else:
        with pytest.raises(ParameterError):
            plan(clients, max_weight=weight, encoding=encoding, ring_bits=width)


def test_a_ring_too_narrow_names_the_width_that_works():
    with pytest.raises(ParameterError, match="smallest width that works is 42"):
        plan(1000, max_weight=60_000, ring_bits=41)


def test_a_sum_too_wide_for_any_ring_says_what_to_lower():
    with pytest.raises(ParameterError, match="lower bits or max_weight"):
        plan(1000, max_weight=1 << 50)


@pytest.mark.parametrize("rates", [{}, {"dropout": 0.3}, {"corrupt": 0.3}])
@pytest.mark.parametrize("clients", [1, 2, 3])
def test_cohorts_in_which_nobody_can_hide_are_refused(clients, rates):
    arguments = {"dropout": 0.1, "corrupt": 0.05} | rates
    with pytest.raises(ParameterError, match="too few clients"):
        RoundParams.plan(clients=clients, dimension=1, encoding=ENCODING, **arguments)


@pytest.mark.parametrize("protocol", ["secagg", "secagg+"])
def test_thresholds_beyond_either_limit_are_refused(protocol):
    params = RoundParams.plan(clients=200, dimension=1, encoding=ENCODING, protocol=protocol)
    for threshold in (1, params.neighbours):
        with pytest.raises(ParameterError, match="is not safe"):
            replace(params, threshold=threshold)


def test_a_degree_lower_than_planned_is_refused():
    params = RoundParams.plan(clients=1000, dimension=1, encoding=ENCODING)
    with pytest.raises(ParameterError):
        replace(params, neighbours=2, threshold=2)


def test_complete_graph_bounds_its_threshold_by_corrupt_and_survivors():
    params = plan(10, dropout=0.2, corrupt=0.3)
    for threshold in (4, 5, 6, 7):
        assert replace(params, threshold=threshold).threshold == threshold
    for threshold in (3, 8):
        with pytest.raises(ParameterError, match="is not safe"):
            replace(params, threshold=threshold)


@pytest.mark.parametrize(
    "overrides",
    [
        {"clients": 0},
        {"clients": 2.0},
        {"clients": True},
        {"clients": (1 << 20) + 1},
        {"dimension": -1},
        {"dimension": (1 << 32) + 1},
        {"max_weight": 0},
        {"max_weight": 1.5},
        {"dropout": float("nan")},
        {"dropout": 1.0},
        {"corrupt": -0.01},
        {"corrupt": "a"},
        {"protocol": "secagg++"},
        {"threat": "none"},
        {"ring_bits": 65},
        {"ring_bits": 0},
        {"threshold": 0},
        {"encoding": None},
    ],
    ids=str,
)
def test_arguments_outside_their_range_are_parameter_errors(overrides):
    with pytest.raises(ParameterError):
        plan(**overrides)


@pytest.mark.parametrize(
    ("clip", "bits"),
    [(0, 8), (-1, 8), (float("inf"), 8), (float("nan"), 8), ("x", 8), (1.0, 0), (1.0, 33), (1.0, 8.0), (1e308, 8)],
)
def test_fixed_point_refuses_what_it_cannot_encode(clip, bits):
    with pytest.raises(ParameterError):
        FixedPoint(clip=clip, bits=bits)


@given(
    clients=st.integers(4, 400),
    dimension=st.integers(0, 1 << 32),
    weight=st.integers(1, 1000),
    protocol=st.sampled_from(["secagg", "secagg+"]),
)
def test_encoding_is_canonical_and_reversible(clients, dimension, weight, protocol):
    params = plan(clients, dimension, max_weight=weight, protocol=protocol)
    assert RoundParams.decode(params.encode()) == params
    assert len(params.encode()) == len(plan().encode())


def test_every_field_changes_the_encoding():
    base = RoundParams.plan(clients=60, dimension=9, encoding=ENCODING, max_weight=3)
    arguments = {"clients": 60, "dimension": 9, "encoding": ENCODING, "max_weight": 3}
    encodings = {
        base.encode(),
        *(
            RoundParams.plan(**(arguments | change)).encode()
            for change in (
                {"clients": 61},
                {"dimension": 10},
                {"encoding": FixedPoint(clip=2.0, bits=16)},
                {"encoding": FixedPoint(clip=1.0, bits=15)},
                {"max_weight": 4},
                {"dropout": 0.11},
                {"corrupt": 0.06},
                {"protocol": "secagg"},
                {"ring_bits": 40},
            )
        ),
    }
    assert len(encodings) == 10


@given(st.binary(max_size=80))
def test_bytes_that_are_no_parameters_raise_a_typed_error(payload):
    with pytest.raises((DecodeError, ParameterError)):
        RoundParams.decode(payload)


def test_flipping_any_bit_of_an_encoding_never_yields_the_same_parameters():
    params = plan(60, 3)
    payload = params.encode()
    for bit in range(8 * len(payload)):
        flipped = bytearray(payload)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            assert RoundParams.decode(bytes(flipped)) != params
        except (DecodeError, ParameterError):
            continue


def test_degrees_grow_with_the_rates():
    degrees = [
        RoundParams.plan(clients=1000, dimension=1, encoding=ENCODING, dropout=rate).neighbours
        for rate in (0.0, 0.1, 0.2, 0.3)
    ]
    assert all(low <= high for low, high in pairwise(degrees))
