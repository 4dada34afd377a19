"""What a planner answers: one row for each protocol and threat model, with numbers or with the reason why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from secagg.cohort import Threat
from secagg.planning.traffic import Traffic

FLOAT_BYTES = 4
"""Of a coordinate as a client's caller holds it."""
FEW_HONEST = 10
"""Below so many honest inputs a sum may tell a lot about each; the number is a matter of taste."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A protocol that can carry the round, and what it costs.

    Attributes:
        protocol: its name.
        threat: the model that it is planned in.
        minimum_survivors: the fewest inputs that the sum may hold.
        traffic: bytes of every exchange, exact.
        expansion: bytes that a client sends over those of its codes alone, bits / 8 a value; None if d is 0.
        client_memory: bytes at a client's peak, its float32 vector included, Python's own objects left out.
        server_memory: the same of the server.
        graph: who masks with whom, ``complete`` or ``harary``; None where the protocol has no such graph, as below.
        neighbours: k, with how many others a client shares masks and secrets.
        threshold: t, how many of them rebuild a secret.
        ring_bits: b; sums are taken modulo 2**b.
        client_seconds: stage -> expected CPU seconds of a client, one thread; None where no machine was timed, or where
            the package that the protocol encrypts with is not installed.
        server_seconds: stage -> the same of the server, for everybody together.
        beside: what travels -> bytes, outside the exchanges with clients: between the server and whoever holds a key.
        notes: what a user should know about this row, a sentence each.
    """

    protocol: str
    threat: Threat
    minimum_survivors: int
    traffic: Traffic
    expansion: float | None
    client_memory: int
    server_memory: int
    graph: str | None = None
    neighbours: int | None = None
    threshold: int | None = None
    ring_bits: int | None = None
    client_seconds: Mapping[str, float] | None = None
    server_seconds: Mapping[str, float] | None = None
    beside: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def exchanges(self) -> int:
        """How often the server writes to everybody and waits for the answers."""
        return len(self.traffic.stages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A protocol that cannot carry the round in this threat model, and what would have to change."""

    protocol: str
    threat: Threat
    reason: str


def few_honest_notes(minimum_survivors: int, corrupt_count: int) -> list[str]:
    """Return a sentence where a sum may hold fewer than ``FEW_HONEST`` honest inputs."""
    honest = minimum_survivors - corrupt_count
    if honest >= FEW_HONEST:
        return []
    return [f"A sum may hold as few as {honest} honest inputs, which is little to hide among."]
