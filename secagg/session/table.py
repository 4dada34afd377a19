"""What drives a client's session: rows (state, what comes) -> how it is read, the step, the next state, what goes out.

A wing writes its rows, SPEC shows them, and ``ClientSession`` looks them up: it knows no other order of messages.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from secagg.session.keeping import Pending


class Local(enum.Enum):
    """What comes from the client's own caller, where no message of the server's is awaited."""

    VECTOR = "a vector is submitted once, after receive() returned InputNeeded"
    BEACON = "a beacon is used once, after receive() returned BeaconNeeded"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Taken:
    """What a step comes to.

    Attributes:
        state: the next state.
        reply: the message that goes out, or None where the caller is asked for something first, or is given the sum.
        clipped: the share of coordinates that the encoding cut off, where a vector was taken in.
    """

    state: Any
    reply: bytes | None = None
    clipped: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Later:
    """A step that waits for another party's state, a key's, to be durable: ``go_on`` takes what that lets out."""

    pending: Pending[Any]
    go_on: Callable[[Any], Taken]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClientRow:
    """How a client leaves a state.

    Attributes:
        read: (turn, body) -> the message; None where the caller's own object comes.
        step: (turn, message) -> what it comes to. ``turn`` is the wing's own: who this is, the state, randomness.
        next: the state that the step leads to.
        reply: the kind of message that goes out; None where none does.
        stage: the stage that the reply belongs to.
        answers: the kind of request that the reply answers, where the caller's own object comes; else the row's key.
    """

    read: Callable[[Any, memoryview], Any] | None
    step: Callable[[Any, Any], Taken | Later]
    next: type
    reply: int | None
    stage: str
    answers: int | None = None


ClientTable = Mapping[tuple[type, int | Local], ClientRow]
"""All rows of one protocol in one threat model and graph."""


def awaited(table: ClientTable, state: type) -> tuple[int | Local, ClientRow] | None:
    """Return what a state waits for, with its row; None where it waits for nothing."""
    return next(((comes, row) for (at, comes), row in table.items() if at is state), None)
