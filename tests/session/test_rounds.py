"""A round's sum is the survivors' integer sum, bit for bit, or a typed error: both graphs, any drop-outs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import secagg
from cohort import CONTEXT, Cohort, plan
from secagg import IN_MEMORY, FixedPoint, RoundParams, TooFewClients, simulate
from secagg.pairwise.masking import BLOCK_WORDS
from secagg.pairwise.stages import SEMI_HONEST_STAGES


def exact(bits: int) -> FixedPoint:
    """An encoding whose step is 1, so that ``code - clip`` quantises to ``code`` with nothing to round."""
    return FixedPoint(clip=((1 << bits) - 1) / 2, bits=bits)


def codes_and_vectors(params: RoundParams, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, params.encoding.largest_code, (params.clients, params.dimension), endpoint=True)
    return codes, codes - params.encoding.clip


def integer_sum(codes: np.ndarray, weights: list[int], survivors: tuple[int, ...]) -> list[int]:
    return [sum(weights[one] * int(codes[one, i]) for one in survivors) for i in range(codes.shape[1])]


@st.composite
def rounds(draw):
    clients = draw(st.integers(2, 60))
    bits = draw(st.integers(1, 24))
    params = plan(
        clients,
        draw(st.sampled_from([0, 1, 2, 7, 15, 64, 129, 1000])),
        encoding=exact(bits),
        max_weight=draw(st.sampled_from([1, 3, 1000, 1 << 30])),
        dropout=draw(st.sampled_from([0.0, 0.1, 0.3])) if clients > 5 else 0.0,
        protocol=draw(st.sampled_from(["secagg", "secagg+"])),
    )
    stages = st.sampled_from(SEMI_HONEST_STAGES)
    tolerated = draw(st.dictionaries(st.integers(0, clients - 1), stages, max_size=params.dropout_count))
    beyond = draw(st.dictionaries(st.integers(0, clients - 1), stages, max_size=3))
    return params, tolerated | (beyond if draw(st.booleans()) else {}), draw(st.integers(0, 1 << 32))


@given(rounds())
@settings(max_examples=150)
def test_the_sum_is_the_survivors_integer_sum_or_too_few_clients(case):
    params, faults, seed = case
    codes, vectors = codes_and_vectors(params, seed)
    weights = np.random.default_rng(seed + 1).integers(1, params.max_weight, params.clients, endpoint=True).tolist()
    inputs = [one for one in range(params.clients) if faults.get(one, "unmask") == "unmask"]
    try:
        result = simulate(iter(vectors), params=params, weights=weights, faults=faults)
    except TooFewClients:
        assert len(faults) > params.dropout_count
        return
    assert result.survivors == tuple(inputs)
    assert result.total.dtype == np.uint64
    assert result.total.tolist() == integer_sum(codes, weights, result.survivors)
    assert result.weight == sum(weights[one] for one in inputs)
    assert result.dropped == dict(sorted(faults.items()))


@pytest.mark.parametrize("protocol", ["secagg", "secagg+"])
@pytest.mark.parametrize("ring_bits", [7, 8, 13, 16, 17, 26, 32, 33, 57, 63, 64])
def test_every_ring_width_carries_the_sum(ring_bits, protocol):
    params = plan(40, 37, encoding=exact(1), protocol=protocol, dropout=0.1, ring_bits=ring_bits)
    codes, vectors = codes_and_vectors(params, ring_bits)
    result = simulate(vectors, params=params, faults={3: "masked_input", 5: "share_keys"})
    assert result.total.tolist() == integer_sum(codes, [1] * 40, result.survivors)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dimension", [BLOCK_WORDS - 2, BLOCK_WORDS - 1, BLOCK_WORDS, BLOCK_WORDS + 1, 150_000])
def test_vectors_longer_than_a_block(dimension, dtype):
    params = plan(3, dimension, encoding=exact(9), max_weight=7)
    codes, vectors = codes_and_vectors(params, dimension)
    result = simulate(vectors.astype(dtype), params=params, weights=[1, 7, 2], threads=2)
    assert result.total.tolist() == integer_sum(codes, [1, 7, 2], result.survivors)


@given(seed=st.integers(0, 1 << 32), clip=st.floats(1e-3, 1e3), bits=st.integers(2, 32))
@settings(max_examples=25)
def test_the_mean_is_within_one_step_of_the_clipped_vectors(seed, clip, bits):
    params = plan(4, 50, encoding=FixedPoint(clip=clip, bits=bits), max_weight=9)
    rng = np.random.default_rng(seed)
    vectors, weights = rng.normal(0, clip, (4, 50)), rng.integers(1, 9, 4, endpoint=True)
    result = simulate(vectors, params=params, weights=weights.tolist())
    clipped = np.clip(vectors, -clip, clip)
    expected = (weights[:, None] * clipped).sum(axis=0) / weights.sum()
    assert np.abs(result.mean - expected).max() <= params.encoding.step * (1 + 1e-6)
    assert result.clipped[2] == pytest.approx((np.abs(vectors[2]) > clip).mean())


def test_rounding_is_unbiased_through_the_whole_round():
    params = plan(2, 40_000, encoding=FixedPoint(clip=1.0, bits=2))
    vector = np.full(40_000, 0.123)
    result = simulate([vector, vector], params=params)
    # 80,000 roundings of standard deviation below half a step: five sigma
    assert abs(result.mean.mean() - 0.123) < 5 * 0.5 * params.encoding.step / np.sqrt(80_000)


def test_masks_and_rounding_never_repeat():
    params = plan(2, 64)
    vectors = [np.zeros(64), np.zeros(64)]
    uploads = set()
    for _ in range(3):
        cohort = Cohort(params, vectors, seed="same")
        cohort.clients[0] = secagg.ClientSession(params, 0, context=CONTEXT, keep=IN_MEMORY)
        for _ in range(2):
            cohort.run_stage()
        uploads.add(cohort.answer(0, cohort.server.requests()[0]))
    assert len(uploads) == 3


def test_ids_are_the_callers_and_need_not_be_in_order():
    params = plan(4, 3, encoding=exact(8), dropout=0.25)
    ids = [900, 2**64 - 2, 7, 41]
    codes, vectors = codes_and_vectors(params, 0)
    result = Cohort(params, vectors, ids=ids).run({41: "masked_input"})
    assert result.survivors == (7, 900, 2**64 - 2)
    assert result.dropped == {41: "masked_input"}
    assert result.total.tolist() == integer_sum(codes, [1] * 4, (0, 1, 2))


def test_simulate_takes_an_iterator_and_holds_one_vector_at_a_time():
    alive = 0
    most = 0

    class Tracked(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def vectors():
        nonlocal alive, most
        for _ in range(6):
            vector = np.zeros(3).view(Tracked)
            alive += 1
            most = max(most, alive)
            yield vector
            del vector

    simulate(vectors(), params=plan(6, 3))
    assert most <= 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"weights": [1, 1]}, "take 3 weights, got 2"),
        ({"weights": [1, 0, 1]}, r"weight must lie in \[1, 1\], got 0"),
        ({"weights": [1, 2, 1]}, r"got 2"),
        ({"weights": [1, 1.5, 1]}, "must be an integer"),
        ({"faults": {3: "unmask"}}, "clients are 0 to 2"),
        ({"faults": {1: "lunch"}}, "stage 'lunch'"),
        ({"vectors": [np.zeros(2)] * 2}, "take 3 vectors, got 2"),
        ({"vectors": [np.zeros(3)] * 3}, r"shape \(2,\), got \(3,\)"),
        ({"vectors": [np.zeros(2, np.int64)] * 3}, "float32 or float64"),
        ({"vectors": [[0.0, 0.0]] * 3}, "float32 or float64 array, got list"),
        ({"vectors": [np.array([0, np.nan])] * 3}, "must be finite, but 1 of its 2"),
        ({"vectors": [np.array([np.inf, -np.inf])] * 3}, "must be finite, but 2 of its 2"),
        ({"threads": 0}, "threads"),
    ],
)
def test_what_simulate_refuses(arguments, says):
    arguments = {"vectors": [np.zeros(2)] * 3} | arguments
    with pytest.raises(secagg.InputError, match=says):
        simulate(arguments.pop("vectors"), params=plan(3, 2), **arguments)


def test_bytes_up_are_what_the_parameters_say():
    params = plan(10, 1000, dropout=0.2)
    result = simulate(np.zeros((10, 1000)), params=params)
    header = 48
    assert result.bytes_up == {
        "advertise_keys": header + 96,
        "share_keys": header + 9 * 96,
        "masked_input": header + (1001 * params.ring_bits + 7) // 8,
        "unmask": header + 9 * 40,
    }
    assert set(result.seconds) == set(result.server_seconds) == set(SEMI_HONEST_STAGES)
    assert result.threat == "semi-honest"
