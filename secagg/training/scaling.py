"""Common scaling of features without sharing records: their means and variances come out of one secure sum.

Round 0 of a training: each party divides every feature by a public constant of the schema (its unit's order of
magnitude, so that values lie within -1 and 1), and contributes the means of z and of z^2 over its own records, weighted
by their number. The weighted mean of these is the mean of z and z^2 over all records of the survivors, whence the
variance. The aggregator learns these 2d pooled means, as it would in the clear, and nothing else of any party.

A value outside -1 and 1 is clipped for the statistics alone; a wrong constant therefore costs quality, never privacy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from secagg.encoding.fixed_point import FixedPoint
from secagg.training.linear import Floats, Records

STATISTICS_ENCODING = FixedPoint(clip=1.0, bits=24)
"""Finer than the training's: the variance is a small difference of the two means, and 2d values are few."""

LIMIT = 4.0
"""A scaled value is clipped to this many standard deviations, so that one odd record cannot make a step steep."""

_SMALLEST_VARIANCE = 1e-6  # in squared units; below this a feature counts as constant (rounding errs by about 2e-7)


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """How every party scales its records: subtract ``mean``, divide by ``deviation``, clip to +-``LIMIT``.

    Attributes:
        mean: float64[d], in the records' own units.
        deviation: float64[d], positive, likewise.
    """

    mean: Floats
    deviation: Floats

    def apply(self, records: Records) -> Records:
        """Return the records with scaled features, each within +-``LIMIT``; a party does this alone."""
        return Records(np.clip((records.x - self.mean) / self.deviation, -LIMIT, LIMIT), records.y)


def local_statistics(records: Records, units: Sequence[float]) -> Floats:
    """Return a party's contribution to round 0: float64[2d], the means of z, then of z^2, all within -1 and 1."""
    z = np.clip(records.x / np.asarray(units, dtype=np.float64), -1.0, 1.0)
    return np.concatenate([z.mean(axis=0), np.square(z).mean(axis=0)])


def scaling_from_statistics(pooled: Floats, units: Sequence[float]) -> Scaling:
    """Turn the weighted mean of all contributions, float64[2d], into the scaling that all parties use."""
    unit = np.asarray(units, dtype=np.float64)
    mean, square = np.split(pooled, 2)
    variance = square - mean**2
    deviation = np.sqrt(np.where(variance > _SMALLEST_VARIANCE, variance, 1.0))
    return Scaling(mean * unit, deviation * unit)
