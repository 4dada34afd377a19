"""Each limit of the parameters from both sides, and each refusal by its own words."""

from dataclasses import replace

import numpy as np
import pytest

from cohort import plan
from secagg import DecodeError, FixedPoint, ParameterError, RoundParams

ENCODING = FixedPoint(clip=1.0, bits=16)
MALICIOUS = "malicious-server"


def sparse(clients=60, **arguments):
    return RoundParams.plan(clients=clients, dimension=1, encoding=ENCODING, **arguments)


@pytest.mark.parametrize(
    ("name", "value", "limits"),
    [
        ("clients", 0, r"\[1, 1048576\]"),
        ("clients", (1 << 20) + 1, r"\[1, 1048576\]"),
        ("dimension", -1, r"\[0, 4294967296\]"),
        ("max_weight", 0, r"\[1, 18446744073709551615\]"),
        ("max_weight", 1 << 64, r"\[1, 18446744073709551615\]"),
        ("neighbours", 0, r"\[1, 1048576\]"),
        ("threshold", 0, r"\[1, 1048576\]"),
        ("ring_bits", 0, r"\[1, 64\]"),
        ("ring_bits", 65, r"\[1, 64\]"),
        ("corrupt", 1.0, r"\[0, 1\)"),
        ("dropout", 1.0, r"\[0, 1\)"),
    ],
)
def test_a_field_outside_its_range_names_the_range(name, value, limits):
    with pytest.raises(ParameterError, match=f"{name} must lie in {limits}"):
        replace(plan(10), **{name: value})
    if name != "neighbours":
        with pytest.raises(ParameterError, match=f"{name} must lie in {limits}"):
            plan(**{name: value})


def test_the_ends_of_ranges_are_refused_for_what_they_mean_alone():
    params = plan(10)
    with pytest.raises(ParameterError, match="too few clients"):
        replace(params, clients=1)
    with pytest.raises(ParameterError, match="would wrap in a ring of 1 bits"):
        replace(params, ring_bits=1)
    with pytest.raises(ParameterError, match="lower bits or max_weight"):
        replace(params, max_weight=(1 << 64) - 1)
    assert plan(2, max_weight=(1 << 63) - 1, encoding=FixedPoint(clip=1.0, bits=1)).ring_bits == 64


@pytest.mark.parametrize("name", ["clients", "dimension", "max_weight", "neighbours", "threshold", "ring_bits"])
def test_true_is_no_integer(name):
    with pytest.raises(ParameterError, match=f"{name} must be an integer, got bool"):
        replace(plan(10), **{name: True})


@pytest.mark.parametrize("value", [True, "0.5", 1j, None, np.array([0.5, 0.5]), np.array("x"), 10**400])
def test_what_is_no_real_number_is_refused(value):
    with pytest.raises(ParameterError, match="clip must be a real number"):
        FixedPoint(clip=value, bits=8)
    with pytest.raises(ParameterError, match="dropout must be a real number"):
        plan(10, dropout=value)


def test_clip_is_kept_as_a_float():
    assert isinstance(FixedPoint(clip=1, bits=8).clip, float)


def test_clip_may_reach_as_far_as_floats_do():
    assert FixedPoint(clip=8e307, bits=8).clip == 8e307
    assert FixedPoint(clip=5e-309, bits=1).step == 1e-308
    for clip in (0, -0.5, 9e307, float("inf"), float("nan")):
        with pytest.raises(ParameterError, match="positive and finite"):
            FixedPoint(clip=clip, bits=8)
    for clip, bits in ((1e-310, 1), (5e-324, 32)):  # the number of steps in a unit is infinite; a step is zero
        with pytest.raises(ParameterError, match="too small for codes"):
            FixedPoint(clip=clip, bits=bits)


def test_parameters_built_by_hand_leave_two_honest_survivors_too():
    with pytest.raises(ParameterError, match="too few clients"):
        replace(plan(10, dropout=0.2, corrupt=0.3), dropout=0.6)


def test_parameters_built_by_hand_need_an_encoding():
    with pytest.raises(ParameterError, match="encoding must be a FixedPoint, got int"):
        replace(plan(10), encoding=8)


@pytest.mark.parametrize("name", ["protocol", "threat", "graph"])
def test_a_choice_is_one_of_the_known_texts(name):
    for value in ("", 0, np.array(["secagg", "secagg+"])):
        with pytest.raises(ParameterError, match=f"{name} must be one of"):
            replace(plan(10), **{name: value})
        if name != "graph":
            with pytest.raises(ParameterError, match=f"{name} must be one of"):
                sparse(40, **{name: value})


def test_a_vector_weighs_one_unless_more_is_asked_for():
    assert plan(10).max_weight == 1


def test_a_step_is_the_range_over_the_largest_code():
    assert FixedPoint(clip=3.0, bits=2).step == 2.0


def test_the_default_threshold_is_two_thirds_within_the_limits():
    assert plan(31, dropout=0.1, corrupt=0.05).threshold == 2 * 30 // 3 + 1
    assert plan(10, dropout=0.0, corrupt=0.7).threshold == 8  # the least that seven corrupt cannot reach
    assert plan(10, dropout=0.5, corrupt=0.1).threshold == 4  # all the others that are sure to survive


@pytest.mark.parametrize(("corrupt", "least"), [(0.0, 5), (0.1, 6), (0.2, 6), (0.3, 7)])
def test_a_malicious_servers_threshold_leaves_no_two_sets_of_answers(corrupt, least):
    params = plan(10, threat=MALICIOUS, dropout=0.0, corrupt=corrupt)
    assert 2 * least > 9 + params.corrupt_count >= 2 * (least - 1)
    assert replace(params, threshold=least).threshold == least
    with pytest.raises(ParameterError, match=f"secrecy needs more than {least - 1} "):
        replace(params, threshold=least - 1)
    assert replace(params, threshold=9).threshold == 9
    with pytest.raises(ParameterError, match="recovery at most 9 "):
        replace(params, threshold=10)


def test_a_quorum_is_more_than_half_of_all_and_the_corrupt():
    assert [plan(n, corrupt=0.2, dropout=0.0).quorum for n in (9, 10, 11)] == [6, 7, 8]
    assert plan(10, threat=MALICIOUS, dropout=0.3, corrupt=0.2).minimum_survivors == 7
    with pytest.raises(ParameterError, match="7 of 10 clients must vouch"):
        plan(10, threat=MALICIOUS, dropout=0.4, corrupt=0.2)


def test_rates_that_leave_no_threshold_say_so():
    with pytest.raises(ParameterError, match="no threshold is safe for 10 clients"):
        plan(10, threat=MALICIOUS, dropout=0.4, corrupt=0.1)


def test_complete_graphs_join_everybody_and_end_at_4096():
    with pytest.raises(ParameterError, match="each client has 9 neighbours, got 8"):
        replace(plan(10), neighbours=8, threshold=6)
    assert plan(4096, protocol="secagg").neighbours == 4095
    with pytest.raises(ParameterError, match="at most 4096 clients, got 4097"):
        plan(4097, protocol="secagg")


def test_the_note_tells_small_cohorts_from_impossible_rates():
    assert "39 clients use the complete graph: below 40" in sparse(39).notes[0]
    assert "No sparse graph" in sparse(40, dropout=0.5, corrupt=0.41).notes[0]


def test_sparse_graphs_are_for_secagg_plus_alone():
    with pytest.raises(ParameterError, match="'secagg' uses the complete graph"):
        replace(sparse(), protocol="secagg")


def test_sparse_degrees_are_even_and_leave_somebody_out():
    params = sparse(60, dropout=0.1, corrupt=0.05)
    assert replace(params, neighbours=58, threshold=30).neighbours == 58
    for clients, neighbours in ((60, 57), (61, 60), (60, 1), (60, 60), (60, 62)):
        with pytest.raises(ParameterError, match=f"from 2 to {clients - 2}, got {clients} and {neighbours}"):
            replace(params, clients=clients, neighbours=neighbours, threshold=30)
    least = sparse(40)
    assert least.graph == "harary"
    with pytest.raises(ParameterError, match="at least 40 clients"):
        replace(least, clients=39)


def test_a_sparse_graph_has_at_most_16384_neighbours():
    params = sparse(20_000, dropout=0.1, corrupt=0.05)
    assert replace(params, neighbours=16_384, threshold=8000).neighbours == 16_384
    with pytest.raises(ParameterError, match="at most 16384 neighbours, got 16386"):
        replace(params, neighbours=16_386, threshold=8000)
    with pytest.raises(ParameterError, match="at most 16384"):
        replace(params, threat=MALICIOUS, neighbours=19_998, threshold=15_000)


def test_a_plan_checks_what_is_cheap_before_it_searches(monkeypatch):
    def unsearched(*_, **__):
        raise AssertionError("it searched")

    monkeypatch.setattr("secagg.pairwise.params.smallest_sparse_graph", unsearched)
    for wrong in ({"dimension": 1 << 33}, {"dimension": -1}, {"max_weight": 1 << 60}, {"dropout": 0.99}):
        with pytest.raises(ParameterError):
            RoundParams.plan(**({"clients": 1000, "dimension": 1, "encoding": ENCODING} | wrong))


def test_a_sparse_graph_that_falls_apart_is_refused():
    with pytest.raises(ParameterError, match="falls apart"):
        replace(sparse(1000), neighbours=2, threshold=2)


def test_a_secret_is_never_one_share():
    params = sparse(corrupt=0.0)
    assert replace(params, threshold=2).threshold == 2
    with pytest.raises(ParameterError, match="secrecy needs more than 1 "):
        replace(params, threshold=1)


def test_a_ring_that_a_malicious_server_can_cut_is_refused():
    params = sparse(1000, threat=MALICIOUS, corrupt=0.33, dropout=0.05)
    assert (params.neighbours, params.threshold) == (142, 118)
    with pytest.raises(ParameterError, match="cuts the ring"):
        replace(params, neighbours=132, threshold=109)


@pytest.mark.parametrize(
    ("clients", "threat", "corrupt", "dropout", "graph"),
    [
        (200, "semi-honest", 0.4, 0.5, "harary"),
        (1000, "semi-honest", 0.1, 0.45, "harary"),
        (300, MALICIOUS, 0.0, 0.31, "harary"),
        (1000, MALICIOUS, 0.0, 0.46, "complete"),
    ],
)
def test_no_sparse_graph_is_sought_beyond_the_published_sum_of_rates(clients, threat, corrupt, dropout, graph):
    assert sparse(clients, threat=threat, corrupt=corrupt, dropout=dropout).graph == graph


def test_encodings_of_another_kind_length_or_version_are_refused():
    payload = plan(10).encode()
    with pytest.raises(DecodeError, match="encoded as bytes, got bytearray"):
        RoundParams.decode(bytearray(payload))
    for wrong in (payload[:-1], payload + b"\0", b""):
        with pytest.raises(DecodeError, match=f"parameters take {len(payload)} bytes, got {len(wrong)}"):
            RoundParams.decode(wrong)
    for position in (-16, -15, -14, -5):  # protocol, threat, graph, and the field that is always zero
        with pytest.raises(DecodeError, match="does not know"):
            RoundParams.decode(payload[:position] + b"\x07" + payload[len(payload) + position + 1 :])
