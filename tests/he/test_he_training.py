"""Homomorphic sums where pairwise rounds are used: ``simulate`` and training."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

import secagg
from federation import plan, vectors_of
from secagg import IN_MEMORY
from secagg.he import client_table as he_client
from secagg.pairwise import client_steps as pairwise_client
from secagg.training import driver
from secagg.training.federation import load
from secagg.training.report import Outcome, as_dict


def test_simulate_runs_every_party_and_tells_what_it_saw():
    params = plan(5, 30, dropout=0.2)
    vectors = vectors_of(params)
    seen = secagg.simulate(iter(vectors), params=params, faults={2: "encrypted_input"}, context=b"x")
    assert seen.survivors == (0, 1, 3, 4)
    assert seen.dropped == {2: "encrypted_input"}
    assert seen.threat == "malicious-server"
    assert np.abs(seen.mean - vectors[[0, 1, 3, 4]].mean(axis=0)).max() < params.encoding.step
    assert seen.bytes_up == {"encrypted_input": 48 + params.ciphertext_bytes + 64, "release": 0}
    opening, key = 48 + 64 + 64, 48 + params.public_key_bytes + 64
    assert seen.bytes_down["encrypted_input"] == opening + key
    assert set(seen.clipped) == {0, 1, 3, 4}
    assert all(seen.seconds[stage] >= seen.server_seconds[stage] > 0 for stage in ("encrypted_input", "release"))


def test_one_key_serves_several_sums_and_no_more_than_its_budget():
    params = plan(2, 3, protocol="ckks", releases=2)
    key = secagg.DecryptionKey.generate(params, keep=IN_MEMORY)
    for _ in range(2):
        again = secagg.simulate(np.zeros((2, 3)), params=params, key=key)
        assert again.bytes_down["encrypted_input"] == 48 + 64 + 64
    with pytest.raises(secagg.LocalProtocolError, match="released its 2 sums"):
        secagg.simulate(np.zeros((2, 3)), params=params, key=key)


def test_simulate_refuses_what_does_not_fit():
    params = plan(3, 4)
    zeros = np.zeros((3, 4))
    for arguments in (
        {"key": secagg.DecryptionKey.generate(plan(3, 4, releases=5), keep=IN_MEMORY)},
        {"key": 5},
        {"faults": {0: "masked_input"}},
        {"faults": {3: "encrypted_input"}},
        {"weights": [1, 1]},
    ):
        with pytest.raises(secagg.InputError):
            secagg.simulate(zeros, params=params, **arguments)
    with pytest.raises(secagg.TooFewClients):
        secagg.simulate(zeros, params=params, faults={0: "encrypted_input"})
    pairwise = secagg.RoundParams.plan(clients=3, dimension=4, encoding=params.encoding, dropout=0, corrupt=0)
    with pytest.raises(secagg.InputError, match="no key"):
        secagg.simulate(zeros, params=pairwise, key=secagg.DecryptionKey.generate(params, keep=IN_MEMORY))
    with pytest.raises(secagg.InputError):
        secagg.simulate(iter(zeros[:2]), params=params)


@pytest.fixture
def same_rounding(monkeypatch):
    """Let every client's rounding follow from how many were drawn before it, in both protocols.

    Rounding is random in whatever ships, so two runs of one protocol differ by it as well.
    """
    drawn = {"count": 0}

    def rounding_key(randomness: object, length: int) -> bytes:
        drawn["count"] += 1
        return hashlib.shake_256(str(drawn["count"]).encode()).digest(length)

    def start() -> None:
        drawn["count"] = 0

    monkeypatch.setattr(he_client, "draw", rounding_key)
    plain_draw = pairwise_client.draw
    monkeypatch.setattr(
        pairwise_client,
        "draw",
        lambda randomness, length: (rounding_key if length == 24 else plain_draw)(randomness, length),
    )
    return start


def final_model(settings: driver.Settings, same_rounding) -> np.ndarray:
    same_rounding()
    federation = load("breast-cancer", clients=10, seed=settings.seed)
    plan = driver.plan(federation, settings)
    scaled = driver.agree_scaling(federation, settings, plan.statistics)
    return list(driver.train(scaled, settings, plan.training))[-1].model


@pytest.mark.parametrize("key_holder", ["decryptor", "clients"])
def test_bfv_trains_to_the_coefficients_of_secagg_plus_bit_for_bit(same_rounding, key_holder):
    plus = final_model(driver.Settings(rounds=6, seed=3), same_rounding)
    bfv = final_model(driver.Settings(rounds=6, seed=3, protocol="bfv", key_holder=key_holder), same_rounding)
    assert bfv.tobytes() == plus.tobytes()
    other = final_model(driver.Settings(rounds=6, seed=4), same_rounding)
    assert other.tobytes() != plus.tobytes()


def test_drop_outs_take_the_same_inputs_from_either_protocol():
    federation = load("breast-cancer", clients=10, seed=1)
    settings = {name: driver.Settings(rounds=1, protocol=name, dropout=0.4, corrupt=0.0) for name in ("secagg+", "bfv")}
    plans = {name: driver.plan(federation, each).training for name, each in settings.items()}
    seen = set()
    for number in range(1, 40):
        plus = driver.draw_faults(settings["secagg+"], plans["secagg+"], number)
        bfv = driver.draw_faults(settings["bfv"], plans["bfv"], number)
        assert set(bfv) == {party for party, stage in plus.items() if stage != "unmask"}
        assert set(bfv.values()) <= {"encrypted_input"}
        seen |= set(plus.values())
    assert "unmask" in seen


@pytest.mark.parametrize("protocol", ["bfv", "ckks"])
def test_training_reports_what_it_ran_with(protocol):
    settings = driver.Settings(rounds=2, protocol=protocol)
    federation = load("wine", clients=6, seed=1)
    planned = driver.plan(federation, settings)
    scaled = driver.agree_scaling(federation, settings, planned.statistics)
    secure = tuple(driver.train(scaled, settings, planned.training))
    plain = tuple(driver.train_in_clear(scaled, settings.local, [record.traffic.survivors for record in secure]))
    compared = driver.compare_runs(scaled, settings, secure, plain)
    assert compared.bound is None or compared.distance <= compared.bound
    outcome = Outcome(
        federation=federation,
        settings=settings,
        plan=planned,
        scaled=scaled,
        secure=secure,
        plain=plain,
        comparison=compared,
        kernels_compiled=0,
    )
    report = as_dict(outcome)
    json.dumps(report, allow_nan=False)
    shown = report["parameters"]
    assert (shown["protocol"], shown["key_holder"], shown["releases"]) == (protocol, "decryptor", 2)
    assert shown["security_bits"] >= 128
    assert any("read every client's vector" in note for note in report["notes"])


def test_nobody_checks_the_aggregator_where_the_clients_hold_the_key():
    settings = driver.Settings(protocol="bfv", key_holder="clients", threat="malicious-server")
    with pytest.raises(secagg.ParameterError, match="nobody checks the aggregator"):
        driver.plan(load("wine", clients=6, seed=1), settings)
