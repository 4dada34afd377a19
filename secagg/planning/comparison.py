"""Every protocol of the registry, asked to carry one round."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from secagg.cohort import MAX_CLIENTS, Threat
from secagg.errors import ParameterError
from secagg.planning.calibration import Machine
from secagg.planning.rows import Refusal, Row
from secagg.planning.workload import Workload
from secagg.protocol import protocol_named, protocol_names

THREATS: tuple[Threat, ...] = get_args(Threat)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A round, and every protocol's answer to it.

    Attributes:
        workload: what was asked.
        answers: a row or a refusal for each threat model and protocol.
        machine: what seconds were computed from, or None.
    """

    workload: Workload
    answers: tuple[Row | Refusal, ...]
    machine: Machine | None

    @property
    def rows(self) -> tuple[Row, ...]:
        """The protocols that can carry the round."""
        return tuple(answer for answer in self.answers if isinstance(answer, Row))

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Those that cannot."""
        return tuple(answer for answer in self.answers if isinstance(answer, Refusal))


def compare(workload: Workload, *, threats: Iterable[Threat] = THREATS, machine: Machine | None = None) -> Comparison:
    """Ask every protocol to carry a round, in each of ``threats``.

    Args:
        workload: the round.
        threats: the models to plan in.
        machine: from ``calibrate``, for CPU seconds; without one bytes and memory alone are given. Packing is counted
            at the width that it was timed at.
    """
    names = protocol_names()
    return Comparison(
        workload=workload,
        answers=tuple(_answer(name, workload, threat, machine) for threat in threats for name in names),
        machine=machine,
    )


def cohorts_around(clients: int, points: int = 40) -> tuple[int, ...]:
    """Return numbers of clients from 4 to ten times ``clients`` (at least 10,000), evenly spaced in the logarithm."""
    low, high = 4, min(max(10 * clients, 10_000), MAX_CLIENTS)
    sizes = {round(low * (high / low) ** (step / (points - 1))) for step in range(points)}
    return tuple(sorted(sizes | {clients}))


def _answer(name: str, workload: Workload, threat: Threat, machine: Machine | None) -> Row | Refusal:
    try:
        return protocol_named(name).planning_row(name, workload, threat, machine)
    except ParameterError as problem:
        return Refusal(protocol=name, threat=threat, reason=str(problem))
