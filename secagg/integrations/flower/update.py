"""A train reply as one vector, and a mean vector as what the strategy expects of its replies.

The vector is the update (trained minus received arrays, sorted by name), then the share of it that the clip cuts off,
then the agreed metrics. Weights are whole numbers of examples and enter in the ring, so they stay private.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from secagg.encoding.tensors import Layout, flatten, unflatten
from secagg.errors import InputError
from secagg.integrations.flower.agreement import CLIPPED, OWN_METRICS, Agreement

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """The arrays of a train message: what clients start from, and what the mean update is added to.

    Attributes:
        key: the name of the record that holds them.
        vector: float64[d], all of them end to end in the order of their names.
        layout: where each lies in the vector.
        order: their names as the strategy has them; models without names are told apart by it.
    """

    key: str
    vector: NDArray[np.float64]
    layout: Layout
    order: tuple[str, ...]

    @classmethod
    def take_from(cls, content: RecordDict) -> Model:
        """Read the one ArrayRecord of a train message.

        Raises:
            InputError: there are none or several, or an array is not one of floats.
        """
        records = content.array_records
        if len(records) != 1:
            raise InputError(f"a train message must hold one ArrayRecord, and holds {len(records)}")
        ((key, record),) = records.items()
        vector, layout = flatten(_arrays(record))
        return cls(key=key, vector=vector.astype(np.float64), layout=layout, order=tuple(record))


def update_vector(model: Model, reply: RecordDict, agreement: Agreement) -> tuple[NDArray[np.float64], int]:
    """Return a train reply as float64[d + extra], and its weight.

    Raises:
        InputError: the reply does not fit the model or the agreement; the text tells no value of it.
    """
    records = reply.array_records
    if len(records) != 1:
        raise InputError(f"a train reply must hold one ArrayRecord, and holds {len(records)}")
    (record,) = records.values()
    vector, layout = flatten(_arrays(record))
    if (layout.names, layout.shapes) != (model.layout.names, model.layout.shapes):
        raise InputError("the trained arrays have other names or shapes than those received")
    update = vector.astype(np.float64) - model.vector
    if not np.isfinite(update).all():
        raise InputError("the trained arrays hold a value that is not finite")
    metrics = _metrics(reply)
    clipped = np.count_nonzero(np.abs(update) > agreement.clip) / max(len(update), 1)
    extra = [clipped * agreement.clip, *_scaled_metrics(metrics, agreement)]
    return np.concatenate([update, extra]), _weight(metrics, agreement)


def mean_reply(model: Model, mean: NDArray[np.float64], agreement: Agreement) -> tuple[ArrayRecord, dict[str, float]]:
    """Return the model plus the mean update, in the model's own shapes and dtypes, and the mean metrics by name."""
    size = model.layout.size
    arrays = unflatten(model.vector + mean[:size], model.layout)
    # Rounding may carry a share of nothing below it
    metrics = {CLIPPED: max(float(mean[size]) / agreement.clip, 0.0)}
    for at, (name, bound) in enumerate(agreement.metrics.items(), start=size + OWN_METRICS):
        metrics[name] = float(mean[at]) / agreement.clip * bound
    return ArrayRecord({name: Array(arrays[name]) for name in model.order}), metrics


def _arrays(record: ArrayRecord) -> dict[str, Floats]:
    arrays = {}
    for name in sorted(record):
        try:
            arrays[name] = record[name].numpy()
        except (TypeError, ValueError, EOFError):
            raise InputError(f"array {name!r} is not one of NumPy's") from None
    return arrays


def _metrics(reply: RecordDict) -> MetricRecord:
    records = reply.metric_records
    if len(records) != 1:
        raise InputError(f"a train reply must hold one MetricRecord, and holds {len(records)}")
    (record,) = records.values()
    return record


def _scaled_metrics(metrics: MetricRecord, agreement: Agreement) -> list[float]:
    scaled = []
    for name, bound in agreement.metrics.items():
        value = metrics.get(name)
        if isinstance(value, list) or value is None or not math.isfinite(value):
            raise InputError(f"the train reply's metric {name!r} must be one finite number")
        scaled.append(float(value) / bound * agreement.clip)
    return scaled


def _weight(metrics: MetricRecord, agreement: Agreement) -> int:
    # Neither text tells the weight, which is the client's own
    value = metrics.get(agreement.weighted_by)
    try:
        weight = int(value) if isinstance(value, float) and value.is_integer() else operator.index(value)
    except TypeError:
        raise InputError(f"the train reply's {agreement.weighted_by!r} must be a whole number") from None
    if not 1 <= weight <= agreement.max_weight:
        raise InputError(f"the train reply's {agreement.weighted_by!r} must lie between 1 and the agreed max_weight")
    return weight
