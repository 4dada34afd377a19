"""What server and hospitals share: the records' split, the model, local training, and the terms of the secure sums."""

import functools

import numpy as np
from flwr.app import Array, ArrayRecord

from secagg.training import linear
from secagg.training.federation import Federation, load
from secagg.training.linear import LocalTraining, Records

LOCAL = LocalTraining(steps=50, learning_rate=2.0)

TERMS = {"clip": 3.0, "bits": 16, "max_weight": 512, "dropout": 0.2, "corrupt": 0.1, "metrics": {"loss": 10.0}}
"""Both sides name the same; a hospital refuses a round on others."""


@functools.cache
def federation(hospitals: int, seed: int) -> Federation:
    """Deal the records out; each feature is divided by a public constant, so no hospital's statistics are needed."""
    dealt = load("breast-cancer", clients=hospitals, seed=seed)
    units = np.asarray(dealt.schema.units)

    def scaled(records: Records) -> Records:
        return Records(records.x / units, records.y)

    return Federation(dealt.schema, tuple(map(scaled, dealt.parties)), scaled(dealt.held_out))


def to_arrays(model: np.ndarray) -> ArrayRecord:
    """Return a model as Flower sends it."""
    return ArrayRecord({"coefficients": Array(model[:-1].copy()), "intercept": Array(np.asarray(model[-1]))})


def to_model(arrays: ArrayRecord) -> np.ndarray:
    """Return a model as it is trained: coefficients, then the intercept."""
    return np.append(arrays["coefficients"].numpy(), arrays["intercept"].numpy())


def initial_arrays(hospitals: int, seed: int) -> ArrayRecord:
    """Return the model that every training starts from."""
    return to_arrays(linear.initial_model(len(federation(hospitals, seed).schema.features)))
