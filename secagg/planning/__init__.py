"""Planning: which protocol carries a round, and what it costs, before anything is built.

    workload = planning.Workload(clients=1000, dimension=10**6, encoding=secagg.FixedPoint(clip=1.0, bits=16))
    for row in planning.compare(workload).rows: ...

``compare`` asks every protocol and counts exact bytes; with what ``calibrate`` returned it gives CPU seconds too.
"""

from secagg.planning.calibration import Machine, calibrate
from secagg.planning.comparison import Comparison, compare
from secagg.planning.operations import Operation
from secagg.planning.rows import Refusal, Row
from secagg.planning.traffic import StageTraffic, Traffic
from secagg.planning.workload import Workload

__all__ = [
    "Comparison",
    "Machine",
    "Operation",
    "Refusal",
    "Row",
    "StageTraffic",
    "Traffic",
    "Workload",
    "calibrate",
    "compare",
]
