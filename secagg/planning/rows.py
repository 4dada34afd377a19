"""What a planner answers: one row for each protocol and threat model, with numbers or with the reason why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from secagg.cohort import Threat
from secagg.planning.traffic import Traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A protocol that can carry the round, and what it costs.

    Attributes:
        protocol: its name.
        threat: the model that it is planned in.
        graph: who masks with whom, ``complete`` or ``harary``; None where the protocol has no such graph, as below.
        neighbours: k, with how many others a client shares masks and secrets.
        threshold: t, how many of them rebuild a secret.
        ring_bits: b; sums are taken modulo 2**b.
        minimum_survivors: the fewest inputs that the sum may hold.
        traffic: bytes of every exchange, exact.
        expansion: bytes that a client sends over those of its codes alone, bits / 8 a value; None if d is 0.
        client_memory: bytes at a client's peak, its float32 vector included, Python's own objects left out.
        server_memory: the same of the server.
        client_seconds: stage -> expected CPU seconds of a client, one thread; None where no machine was timed, or where
            the package that the protocol encrypts with is not installed.
        server_seconds: stage -> the same of the server, for everybody together.
        beside: what travels -> bytes, outside the exchanges with clients: between the server and whoever holds a key.
        notes: what a user should know about this row, a sentence each.
    """

    protocol: str
    threat: Threat
    graph: str | None
    neighbours: int | None
    threshold: int | None
    ring_bits: int | None
    minimum_survivors: int
    traffic: Traffic
    expansion: float | None
    client_memory: int
    server_memory: int
    client_seconds: Mapping[str, float] | None
    server_seconds: Mapping[str, float] | None
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
