"""The driver: the secure run stays within its bound of plain averaging, whatever drops out; failures are reported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import secagg
from secagg.encoding.fixed_point import FixedPoint
from secagg.errors import InputError, ParameterError, TooFewClients
from secagg.pairwise.stages import SEMI_HONEST_STAGES, stages_of
from secagg.training import driver
from secagg.training.bound import distance_bound
from secagg.training.driver import RunsCompared, ScaledFederation, SecureRecord, Settings
from secagg.training.federation import Federation, Schema
from secagg.training.linear import LocalTraining, Records


def make_federation(clients: int, *, seed: int = 0, features: int = 4) -> Federation:
    """Two overlapping clouds, dealt out unevenly; needs no scikit-learn."""
    rng = np.random.default_rng(seed)

    def some(count: int) -> Records:
        y = rng.integers(0, 2, count).astype(np.float64)
        return Records(np.clip(rng.normal(0.2 * (2 * y[:, None] - 1), 0.25, (count, features)), -1, 1), y)

    schema = Schema("clouds", "label 1: the right cloud", tuple("abcdefgh"[:features]), (1.0,) * features)
    return Federation(schema, tuple(some(int(n)) for n in rng.integers(1, 40, clients)), some(60))


def run(federation: Federation, settings: Settings) -> tuple[ScaledFederation, list[SecureRecord], RunsCompared]:
    plan = driver.plan(federation, settings)
    scaled = driver.agree_scaling(federation, settings, plan.statistics)
    secure = list(driver.train(scaled, settings, plan.training))
    plain = list(driver.train_in_clear(scaled, settings.local, [record.traffic.survivors for record in secure]))
    return scaled, secure, driver.compare_runs(scaled, settings, secure, plain)


@pytest.mark.parametrize(
    ("clients", "bits", "protocol"), [(5, 16, "secagg"), (6, 8, "secagg+"), (9, 24, "secagg"), (12, 4, "secagg+")]
)
def test_the_models_stay_within_the_bound(clients, bits, protocol):
    settings = Settings(rounds=4, seed=clients, encoding=FixedPoint(clip=1.0, bits=bits), protocol=protocol)
    scaled, secure, end = run(make_federation(clients, seed=clients), settings)
    assert end.rounds_failed == 0
    assert end.bound is not None
    assert 0 < end.max_abs_difference <= end.distance <= end.bound
    assert end.bound == pytest.approx(4 * np.sqrt(5) * settings.encoding.step, rel=1e-6)
    assert {len(scaled.parties)} == {clients} == {len(scaled.sizes)}
    assert [record.round for record in secure] == [1, 2, 3, 4]


def test_the_bound_holds_after_every_round():
    settings = Settings(rounds=6, encoding=FixedPoint(clip=1.0, bits=6))
    federation = make_federation(7)
    plan = driver.plan(federation, settings)
    scaled = driver.agree_scaling(federation, settings, plan.statistics)
    secure = list(driver.train(scaled, settings, plan.training))
    plain = list(driver.train_in_clear(scaled, settings.local, [record.traffic.survivors for record in secure]))
    for rounds in range(1, 7):
        end = driver.compare_runs(scaled, settings, secure[:rounds], plain[:rounds])
        assert end.bound is not None
        assert end.distance <= end.bound


def test_finer_codes_come_closer():
    federation = make_federation(6)
    coarse, fine = (
        run(federation, Settings(rounds=3, encoding=FixedPoint(clip=1.0, bits=bits)))[2] for bits in (4, 20)
    )
    assert fine.distance < coarse.distance / 100


def test_round_off_is_a_small_part_of_the_bound():
    settings = Settings(rounds=2)
    scaled, secure, _ = run(make_federation(6), settings)
    extent = driver._extent(scaled, settings.local, [record.model for record in secure])
    bound = distance_bound(2, encoding=settings.encoding, extent=extent)
    assert 1 < bound / (2 * np.sqrt(5) * settings.encoding.step) < 1 + 1e-6


def test_without_drop_outs_everybody_is_in_every_sum():
    _, secure, _ = run(make_federation(5), Settings(rounds=2, dropout=0.0))
    assert all(record.traffic.survivors == (0, 1, 2, 3, 4) and not record.traffic.dropped for record in secure)


def test_no_bound_is_stated_once_something_was_clipped():
    settings = Settings(rounds=2, encoding=FixedPoint(clip=0.01, bits=16))
    _, secure, end = run(make_federation(5), settings)
    assert 0 < secure[0].traffic.clipped <= 1
    assert end.bound is None
    assert "clipped, first in round 1" in end.bound_note


def test_traffic_names_every_stage():
    _, secure, _ = run(make_federation(5), Settings(rounds=1, dropout=0.0))
    traffic = secure[0].traffic
    for figures in (traffic.bytes_up, traffic.seconds):
        assert set(figures) == set(SEMI_HONEST_STAGES)
    assert traffic.bytes_up["masked_input"] > 0
    assert traffic.bytes_up_total == sum(traffic.bytes_up.values())
    assert all(seconds >= 0 for seconds in traffic.seconds.values())


def test_a_party_that_drops_before_unmasking_is_in_the_sum(monkeypatch):
    monkeypatch.setattr(driver, "draw_faults", lambda *_: {0: "unmask", 1: "masked_input"})
    _, secure, end = run(make_federation(10), Settings(rounds=1))
    assert secure[0].traffic.survivors == (0, 2, 3, 4, 5, 6, 7, 8, 9)
    assert end.bound is not None
    assert end.distance <= end.bound


def test_a_failed_round_leaves_the_model_and_says_so(monkeypatch):
    drawn = driver.draw_faults

    def too_many_in_round_2(settings, params, number, attempt=1):
        return dict.fromkeys(range(5), "share_keys") if number == 2 else drawn(settings, params, number, attempt)

    monkeypatch.setattr(driver, "draw_faults", too_many_in_round_2)
    _, secure, end = run(make_federation(8), Settings(rounds=3))
    np.testing.assert_array_equal(secure[1].model, secure[0].model)
    assert not np.array_equal(secure[2].model, secure[1].model)
    assert secure[1].traffic.failure is not None
    assert secure[1].traffic.survivors == ()
    assert secure[1].traffic.dropped == dict.fromkeys(range(5), "share_keys")
    assert end.rounds_failed == 1
    assert end.bound == pytest.approx(2 * np.sqrt(5) * FixedPoint(clip=1.0, bits=16).step, rel=1e-6)
    assert end.distance <= end.bound


def test_round_0_is_tried_again_and_then_given_up(monkeypatch):
    federation, settings = make_federation(6), Settings(actual_dropout=1.0)
    params = driver.plan(federation, settings).statistics
    with pytest.raises(TooFewClients):
        driver.agree_scaling(federation, settings, params)
    monkeypatch.setattr(driver, "draw_faults", lambda *args: {} if args[3] == 3 else dict.fromkeys(range(6), "unmask"))
    assert driver.agree_scaling(federation, settings, params).attempts == 3


def test_the_seed_fixes_the_drop_outs():
    params = driver.plan(make_federation(10), Settings()).training
    drawn = [[driver.draw_faults(Settings(seed=seed), params, r) for r in range(30)] for seed in (4, 4, 5)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert driver.draw_faults(Settings(), params, 0, attempt=1) != driver.draw_faults(Settings(), params, 0, attempt=2)


@pytest.mark.parametrize("threat", ["semi-honest", "malicious-server"])
def test_drop_outs_stay_within_the_plan_and_reach_every_stage(threat):
    params = driver.plan(make_federation(10), Settings(threat=threat)).training
    drawn = [driver.draw_faults(Settings(), params, number) for number in range(200)]
    assert {stage for faults in drawn for stage in faults.values()} == set(stages_of(threat))
    assert {party for faults in drawn for party in faults} == set(range(10))
    assert {len(faults) for faults in drawn} == {0, 1, 2} == set(range(params.dropout_count + 1))


def test_actual_drop_outs_may_exceed_the_plan():
    settings = Settings(actual_dropout=1.0)
    params = driver.plan(make_federation(10), settings).training
    assert len(driver.draw_faults(settings, params, 1)) == 10
    assert driver.draw_faults(Settings(actual_dropout=0.0), params, 1) == {}


def test_the_same_seed_gives_the_same_course_but_not_the_same_rounding():
    federation, settings = make_federation(8), Settings(rounds=2)
    (_, one, _), (_, other, _) = run(federation, settings), run(federation, settings)
    assert [r.traffic.dropped for r in one] == [r.traffic.dropped for r in other]
    assert [r.traffic.survivors for r in one] == [r.traffic.survivors for r in other]
    assert not np.array_equal(one[-1].model, other[-1].model)
    np.testing.assert_allclose(one[-1].model, other[-1].model, atol=1e-3)


def test_the_context_follows_the_model_and_the_round():
    model = np.array([1.0, 2.0])
    changed = {driver._context(1, model), driver._context(2, model), driver._context(1, np.nextafter(model, 3))}
    assert len(changed) == 3
    assert driver._context(1, model) == driver._context(1, model.copy())


def test_every_sum_of_a_training_has_a_context_of_its_own(monkeypatch):
    simulate, seen = secagg.simulate, []

    def noting(vectors, *, context, **options):
        seen.append(context)
        return simulate(vectors, context=context, **options)

    monkeypatch.setattr(secagg, "simulate", noting)
    run(make_federation(4), Settings(rounds=2))
    assert len(set(seen)) == len(seen) >= 3
    assert {len(context) for context in seen} == {32}


@pytest.mark.parametrize("protocol", ["secagg", "secagg+"])
def test_a_training_against_a_malicious_server_is_as_good_and_names_its_stages(protocol):
    settings = Settings(rounds=4, threat="malicious-server", protocol=protocol)
    scaled, secure, end = run(make_federation(10), settings)
    assert end.rounds_failed == 0
    assert end.bound is not None
    assert end.distance <= end.bound
    for traffic in (scaled.traffic, *(record.traffic for record in secure)):
        for figures in (traffic.bytes_up, traffic.bytes_down, traffic.seconds):
            assert tuple(figures) == stages_of("malicious-server")
        assert set(traffic.dropped.values()) <= set(stages_of("malicious-server"))


def test_the_defaults_are_feasible_against_a_malicious_server():
    params = driver.plan(make_federation(10), Settings(threat="malicious-server")).training
    assert params.threat == "malicious-server"
    assert params.minimum_survivors >= params.quorum
    assert 2 * params.threshold > params.neighbours + params.corrupt_count


@pytest.mark.parametrize(
    ("clients", "rates", "says"),
    [
        (5, {"dropout": 0.25, "corrupt": 0.0}, "no threshold is safe for 5 clients"),
        (10, {"dropout": 0.4, "corrupt": 0.2}, "must vouch for the survivor set"),
        (10, {"dropout": 0.6, "corrupt": 0.3}, "too few clients"),
    ],
)
def test_rates_that_no_malicious_servers_round_bears_are_refused(clients, rates, says):
    settings = Settings(threat="malicious-server", **rates)
    with pytest.raises(ParameterError, match=says):
        driver.plan(make_federation(clients), settings)


@pytest.mark.parametrize("clients", [1, 2])
def test_a_cohort_that_hides_nobody_is_refused(clients):
    with pytest.raises(ParameterError):
        driver.plan(make_federation(clients), Settings())


@pytest.mark.parametrize(
    "bad", [{"rounds": 0}, {"seed": -1}, {"threads": 0}, {"actual_dropout": 1.5}, {"actual_dropout": float("nan")}]
)
def test_settings_refuse(bad):
    with pytest.raises(InputError):
        replace(Settings(), **bad)


def test_a_lone_record_trains():
    federation = make_federation(5)
    parties = tuple(Records(party.x[:1], party.y[:1]) for party in federation.parties)
    _, secure, end = run(replace(federation, parties=parties), Settings(rounds=1, local=LocalTraining(steps=1)))
    assert end.bound is not None
    assert end.distance <= end.bound
    assert np.isfinite(secure[-1].model).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_default_training_is_as_accurate_as_plain_averaging(seed):
    pytest.importorskip("sklearn")
    from secagg.training.federation import load

    settings = Settings(seed=seed)
    _, secure, end = run(load("breast-cancer", clients=10, seed=seed), settings)
    assert end.accuracy_secure > 0.95
    assert abs(end.accuracy_secure - end.accuracy_plain) <= 0.005
    assert end.bound is not None
    assert end.max_abs_difference <= end.distance <= end.bound
    assert end.rounds_failed == 0
    assert any(record.traffic.dropped for record in secure)
