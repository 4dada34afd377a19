"""Logistic regression: the gradient, the curvature, and that local training never moves two models apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.errors import InputError
from secagg.training import linear
from secagg.training.linear import LocalTraining, Records


def make_records(seed: int, records: int, features: int, spread: float = 1.0) -> Records:
    rng = np.random.default_rng(seed)
    return Records(rng.normal(0, spread, (records, features)), rng.integers(0, 2, records).astype(np.float64))


def penalised(model: linear.Floats, records: Records, l2: float) -> float:
    return linear.loss(model, records) + l2 / 2 * float(model[:-1] @ model[:-1])


def test_gradient_equals_central_differences():
    records, l2, h = make_records(1, 23, 5), 0.3, 1e-6
    model = np.random.default_rng(2).normal(size=6)
    expected = [
        (penalised(model + h * axis, records, l2) - penalised(model - h * axis, records, l2)) / (2 * h)
        for axis in np.eye(6)
    ]
    np.testing.assert_allclose(linear.gradient(model, records, l2), expected, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    records=st.integers(1, 30),
    features=st.integers(1, 8),
    spread=st.sampled_from([0.01, 1.0, 30.0]),
    far=st.sampled_from([1e-3, 1.0, 100.0]),
    rate=st.sampled_from([0.01, 0.2, 1e9]),
)
def test_local_training_never_moves_two_models_apart(seed, records, features, spread, far, rate):
    own = make_records(seed, records, features, spread)
    rng = np.random.default_rng([seed, 1])
    one, other = rng.normal(0, far, (2, features + 1))
    training = LocalTraining(steps=4, learning_rate=rate, l2=0.01)
    after = linear.train_locally(one, own, training) - linear.train_locally(other, own, training)
    assert np.linalg.norm(after) <= np.linalg.norm(one - other) * (1 + 1e-12) + 1e-12


@pytest.mark.parametrize("rate", [0.05, 1e6])
def test_local_training_lowers_the_loss_at_any_wished_rate(rate):
    records, training = make_records(3, 40, 4, spread=20.0), LocalTraining(learning_rate=rate)
    model = linear.initial_model(4)
    for _ in range(5):
        after = linear.train_locally(model, records, training)
        assert penalised(after, records, training.l2) < penalised(model, records, training.l2)
        model = after


def test_step_size_is_the_wished_rate_unless_the_loss_is_steep():
    assert linear.step_size(make_records(1, 50, 2), LocalTraining(learning_rate=0.01)) == 0.01
    steep = make_records(1, 50, 2, spread=100.0)
    assert linear.step_size(steep, LocalTraining(learning_rate=1.0)) == pytest.approx(
        1 / linear.smoothness(steep, 0.001)
    )


def test_curvature_bounds_the_hessian():
    records, l2 = make_records(5, 30, 4), 0.1
    x = linear.with_intercept(records.x)
    slope = 0.25 * np.ones(len(records))  # at a model of zeros the logistic function is steepest
    hessian = (x.T * slope) @ x / len(records) + np.diag([l2] * 4 + [0.0])
    assert np.linalg.eigvalsh(hessian)[-1] <= linear.smoothness(records, l2) * (1 + 1e-12)


def test_loss_stays_finite_far_out():
    records = Records(np.array([[1000.0], [-1000.0]]), np.array([0.0, 1.0]))
    model = np.array([1000.0, 0.0])
    with np.errstate(over="raise", invalid="raise"):
        assert linear.loss(model, records) == pytest.approx(1e6)
        assert np.isfinite(linear.gradient(model, records, 0.0)).all()


def test_accuracy_counts_a_tie_as_label_0():
    records = Records(np.zeros((4, 1)), np.array([0.0, 0.0, 0.0, 1.0]))
    assert linear.accuracy(linear.initial_model(1), records) == 0.75


@pytest.mark.parametrize("bad", [{"steps": 0}, {"learning_rate": 0.0}, {"learning_rate": np.nan}, {"l2": -1.0}])
def test_local_training_refuses(bad):
    with pytest.raises(InputError):
        LocalTraining(**bad)


def test_records_refuse_labels_of_another_number():
    with pytest.raises(InputError, match="shapes"):
        Records(np.zeros((3, 2)), np.zeros(2))
