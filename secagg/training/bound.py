r"""How far quantisation can drive the secure model from the plain one: a proven bound of their Euclidean distance.

**Setting.** Both runs train on the same scaled records (they share round 0). p coefficients; w and v are the models of
the secure and the plain run before a round, both over the same survivors U with the same weights a_i > 0 (records of
party i over records of all survivors), which sum to 1. T_i is party i's local training, non-expansive:
|T_i(w) - T_i(v)| <= |w - v| (``linear``). The plain run moves to v' = v + sum a_i (T_i(v) - v) = sum a_i T_i(v).
The secure run quantises each update: with e_i the rounding error of party i,
w' = w + sum a_i (T_i(w) - w + e_i) = sum a_i T_i(w) + sum a_i e_i.

**One round.** Stochastic rounding picks one of the two codes beside a value, so every coordinate of e_i is below one
step in magnitude and |e_i| < sqrt(p) step, *as long as no coordinate was clipped*. Sum and weighting are exact, in
integers. So, by the triangle inequality and sum a_i = 1,

    |w' - v'| <= sum a_i |T_i(w) - T_i(v)| + sum a_i |e_i| <= |w - v| + sqrt(p) step.

**All rounds.** Both start from the same model; a failed round moves neither. After r rounds with a sum,
|w - v| <= r sqrt(p) step. No coefficient differs by more than the Euclidean distance.
The bound says nothing of cancelling errors: rounding errs by nothing on average, so real differences are far smaller.

**Floating point.** u = 2^-53 is the unit round-off. R bounds the norm of a scaled record with its 1, W the norm of any
model that is visited, n the records of a party, m the parties, s the step size, with s (curvature) <= 1, E the local
steps. To first order in u (the factor ``_SECOND_ORDER`` covers the rest) one local step errs by
  scores            p u R W, a quarter of it through the logistic function, which itself errs by 9 u (assumed <= 8 ulp)
  X' residual / n   (n + 2) u R, since residuals are within 1
  penalty, update   (8 W + 3 s R) u
in all  s R (p R W / 4 + 9 + n + 2) u + (8 W + 3 s R) u. The map stays non-expansive in between, so E steps add up, in
both runs. Besides, a round errs by 2 u W for each difference T_i(w) - w, 16 u sqrt(p) clip for coding and decoding in
float64, (m + 2) u 2 W for the plain weighted mean, and u W for adding it to the model, in both runs.
For codes of 16 bits all of this is some 10^-7 of the bound; it is added nevertheless.

Source: Higham, Accuracy and Stability of Numerical Algorithms (2002), section 3.1 (inner products).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from secagg.encoding.fixed_point import FixedPoint

_UNIT_ROUNDOFF = 2.0**-53
_SECOND_ORDER = 1.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """The sizes that float round-off grows with; each an upper bound over all parties and both runs.

    Attributes:
        coefficients: p, the model's length.
        parties: m.
        records: n, of the largest party.
        record_norm: R, of a scaled record with its 1.
        model_norm: W', of the models between rounds.
        step_size: s.
        local_steps: E.
    """

    coefficients: int
    parties: int
    records: int
    record_norm: float
    model_norm: float
    step_size: float
    local_steps: int


def distance_bound(rounds: int, *, encoding: FixedPoint, extent: Extent) -> float:
    """Return how far, at most, the two models are apart after ``rounds`` rounds that gave a sum without clipping."""
    quantisation = math.sqrt(extent.coefficients) * encoding.step
    return rounds * (quantisation + float_allowance(encoding, extent))


def float_allowance(encoding: FixedPoint, extent: Extent) -> float:
    """Return what float64 round-off adds to the distance in one round, at most."""
    p, big_r, s = extent.coefficients, extent.record_norm, extent.step_size
    # between two rounds each of E steps moves a model by at most s R: the penalty alone never lengthens it
    big_w = extent.model_norm + extent.local_steps * s * big_r
    step = s * big_r * (p * big_r * big_w / 4 + extent.records + 11) + 8 * big_w + 3 * s * big_r
    round_trip = 4 * big_w + 16 * math.sqrt(p) * encoding.clip + 2 * (extent.parties + 2) * big_w + 2 * big_w
    return _SECOND_ORDER * _UNIT_ROUNDOFF * (2 * extent.local_steps * step + round_trip)
