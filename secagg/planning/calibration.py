"""How fast this machine does what rounds are made of: the library's own operations, timed for a second or two.

Not protocol code. Each protocol times what it brings (``Protocol.calibrated``), and counts what a round needs of it.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from secagg.encoding.fixed_point import FixedPoint
from secagg.planning.operations import Counts, Operation, Work
from secagg.protocol import protocols

Clock = Callable[[], float]

# Windows counts a process's CPU time in ticks of 16 ms, longer than what is timed here
CPU_CLOCK: Clock = time.perf_counter if sys.platform == "win32" else time.process_time


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Machine:
    """What a machine's operations cost.

    Attributes:
        costs: CPU seconds of each operation, one thread.
        ring_bits: width of the ring that packing was timed at.
        seconds: CPU seconds that the calibration took.
    """

    costs: Mapping[Operation, float]
    ring_bits: int
    seconds: float

    def time(self, work: Work) -> dict[str, float]:
        """Return the CPU seconds of each stage."""
        return {stage: priced(counts, self.costs) for stage, counts in work.items()}


BATCHES = 5
"""How often a thing is timed, for the median."""
_BATCH_SECONDS = 0.006
_MAX_CALLS = 4096


def calibrate(*, ring_bits: int, encoding: FixedPoint, clock: Clock = CPU_CLOCK) -> Machine:
    """Time every operation that protocols count on this machine, on one thread.

    Takes a second or so once kernels are compiled: ``secagg.warmup`` does that ahead, else the first calibration of a
    ring width takes a few seconds more.

    Args:
        ring_bits: the ring's width, which decides what packing costs.
        encoding: how coordinates are quantised.
        clock: what is read before and after, in seconds; outside tests this process's CPU time, if it ticks finely.

    Raises:
        InputError: ``ring_bits`` is not from 1 to 64.
        ParameterError: the ring is too narrow for the sum of two such codes.
        SelfTestError: a mask kernel gives a wrong answer on this machine.
    """
    start = clock()
    stopwatch = Stopwatch(clock)
    costs: dict[Operation, float] = {}
    for protocol in protocols():
        costs |= protocol.calibrated(stopwatch, ring_bits, encoding)
    return Machine(costs=MappingProxyType(costs), ring_bits=ring_bits, seconds=clock() - start)


class Stopwatch:
    """Times calls: the median of a few batches, each long enough for the clock.

    Attributes:
        clock: what is read before and after, in seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def __call__(self, call: Callable[[], object]) -> float:
        """Return the seconds that one call takes."""
        call()  # compiles, and fills caches
        once = self._batch(call, 1)
        count = _MAX_CALLS if once <= 0 else min(max(1, round(_BATCH_SECONDS / once)), _MAX_CALLS)
        return statistics.median(self._batch(call, count) for _ in range(BATCHES)) / count

    def _batch(self, call: Callable[[], object], count: int) -> float:
        start = self.clock()
        for _ in range(count):
            call()
        return self.clock() - start


def priced(counts: Counts, costs: Mapping[Operation, float]) -> float:
    """Return the CPU seconds of what was counted."""
    return sum(count * costs[operation] for operation, count in counts.items())
