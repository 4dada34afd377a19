"""Bytes of a round, exchange by exchange: exact, from the lengths that a protocol's messages themselves give."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTraffic:
    """One exchange: what each client of it is sent, and what it answers.

    Attributes:
        stage: the stage's name.
        down: bytes that the server sends one client, header included.
        up: bytes that one client answers with, header and signature included.
        asked: how many clients are sent the request.
        answered: how many of them answer.
    """

    stage: str
    down: int
    up: int
    asked: int
    answered: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """All exchanges of a round, in order."""

    stages: tuple[StageTraffic, ...]

    @property
    def client_up(self) -> int:
        """Bytes that a client which stays to the end sends."""
        return sum(stage.up for stage in self.stages)

    @property
    def client_down(self) -> int:
        """Bytes that a client which stays to the end is sent."""
        return sum(stage.down for stage in self.stages)

    @property
    def server_received(self) -> int:
        """Bytes that the server is sent by everybody together."""
        return sum(stage.up * stage.answered for stage in self.stages)

    @property
    def server_sent(self) -> int:
        """Bytes that the server sends to everybody together."""
        return sum(stage.down * stage.asked for stage in self.stages)
