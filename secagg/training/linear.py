"""Logistic regression with intercept and L2 penalty; its local training never moves two models further apart.

A model is float64[features + 1]: one coefficient a feature, the intercept last. The penalty leaves the intercept alone.

Local training is full-batch gradient descent. Why a step is non-expansive: a party's loss is convex and its Hessian H
satisfies 0 <= H <= L I with L = largest eigenvalue of X'X / (4 records) + l2, X with a column of ones (the logistic
function's slope is at most 1/4). So the gradient is co-coercive, and the step w -> w - s grad(w) does not lengthen the
Euclidean distance of two models for 0 < s <= 2/L (the eigenvalues of I - s H lie in [1 - s L, 1]).
We take s <= 1/L, which also lowers the loss in every step.

Source: Nesterov, Introductory Lectures on Convex Optimization (2004), Theorem 2.1.5 (co-coercivity of the gradient).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from secagg.errors import InputError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """Labelled records of one owner.

    Attributes:
        x: float64[records, features], finite.
        y: float64[records], each 0.0 or 1.0.
    """

    x: Floats
    y: Floats

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or self.y.shape != (len(self.x),):
            raise InputError(f"records need x[n, d] and y[n], got shapes {self.x.shape} and {self.y.shape}")

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTraining:
    """How every party trains between two sums.

    Attributes:
        steps: gradient steps over all of a party's records, at least 1.
        learning_rate: the wished step size, positive; a party with steeper loss takes 1/L instead.
        l2: penalty ``l2/2 * |coefficients|^2``, at least 0.
    """

    steps: int = 5
    learning_rate: float = 0.2
    l2: float = 0.001

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"local steps must be at least 1, got {self.steps}")
        if not 0 < self.learning_rate < np.inf:
            raise InputError(f"learning rate must be positive and finite, got {self.learning_rate}")
        if not 0 <= self.l2 < np.inf:
            raise InputError(f"l2 must be at least 0 and finite, got {self.l2}")


def initial_model(features: int) -> Floats:
    """Return the model that every run starts from: all zeros, float64[features + 1]."""
    return np.zeros(features + 1, dtype=np.float64)


def with_intercept(x: Floats) -> Floats:
    """Append a column of ones: float64[n, d] -> float64[n, d + 1]."""
    return np.hstack([x, np.ones((len(x), 1))])


def scores(model: Floats, x: Floats) -> Floats:
    """Return the log-odds of label 1 for each record, float64[n]."""
    log_odds: Floats = x @ model[:-1] + model[-1]
    return log_odds


def loss(model: Floats, records: Records) -> float:
    """Return the mean logistic loss in nats, without the penalty."""
    z = scores(model, records.x)
    return float(np.mean(np.logaddexp(0.0, z) - records.y * z))


def accuracy(model: Floats, records: Records) -> float:
    """Return the share of records whose label the model gets right, 0 to 1; a tie counts as label 0."""
    return float(np.mean((scores(model, records.x) > 0) == (records.y > 0.5)))


def smoothness(records: Records, l2: float) -> float:
    """Return L, an upper bound of the curvature of the records' penalised mean loss."""
    x = with_intercept(records.x)
    return float(np.linalg.eigvalsh(x.T @ x)[-1]) / (4 * len(records)) + l2


def step_size(records: Records, training: LocalTraining) -> float:
    """Return the party's step size, min(learning rate, 1/L): half of what would still be non-expansive."""
    return min(training.learning_rate, 1 / smoothness(records, training.l2))


def gradient(model: Floats, records: Records, l2: float) -> Floats:
    """Return the gradient of the penalised mean loss, float64[features + 1]."""
    residual = _sigmoid(scores(model, records.x)) - records.y
    slope = np.append(records.x.T @ residual, residual.sum()) / len(records)
    slope[:-1] += l2 * model[:-1]
    return slope


def train_locally(model: Floats, records: Records, training: LocalTraining) -> Floats:
    """Return the model after the party's gradient steps; the map is non-expansive in the Euclidean norm."""
    size = step_size(records, training)
    for _ in range(training.steps):
        model = model - size * gradient(model, records, training.l2)
    return model


def _sigmoid(z: Floats) -> Floats:
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, small) / (1.0 + small)
