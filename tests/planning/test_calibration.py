"""Calibration times every operation once, by the clock that it is given; no test asserts a time."""

from __future__ import annotations

import itertools

import pytest

import secagg
from secagg import planning

ENCODING = secagg.FixedPoint(clip=1.0, bits=16)


def ticking(seconds: float):
    ticks = itertools.count()
    return lambda: next(ticks) * seconds


def test_every_operation_gets_a_cost_by_the_clock_that_was_given():
    slow = planning.calibrate(ring_bits=26, encoding=ENCODING, clock=ticking(1.0))
    fast = planning.calibrate(ring_bits=26, encoding=ENCODING, clock=ticking(0.5))
    assert set(slow.costs) == set(planning.Operation)
    assert all(cost >= 0 for cost in slow.costs.values())
    assert slow.ring_bits == 26
    for operation in (planning.Operation.EXCHANGE, planning.Operation.MASK_BYTE, planning.Operation.UNPACK_CACHED):
        assert slow.costs[operation] == pytest.approx(2 * fast.costs[operation])
    assert slow.seconds == pytest.approx(2 * fast.seconds)


def test_a_machines_time_is_the_sum_of_what_is_counted():
    timed = planning.calibrate(ring_bits=26, encoding=ENCODING, clock=ticking(1.0))
    work = {"unmask": {planning.Operation.EXCHANGE: 3, planning.Operation.SEAL: 2}, "input": {}}
    expected = 3 * timed.costs[planning.Operation.EXCHANGE] + 2 * timed.costs[planning.Operation.SEAL]
    assert timed.time(work) == {"unmask": expected, "input": 0}


def test_a_ring_that_cannot_hold_the_codes_is_refused():
    with pytest.raises(secagg.ParameterError, match="smallest width"):
        planning.calibrate(ring_bits=16, encoding=ENCODING, clock=ticking(1.0))
