"""What a client's session answers to the server's payload."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reply:
    """Bytes for the server. The state behind them is durable: ``keep`` had it before this existed.

    Attributes:
        payload: the message.
        stage: the stage of ``secagg.STAGES`` that it answers.
    """

    payload: bytes
    stage: str

    def __repr__(self) -> str:
        return f"Reply({len(self.payload)} bytes, stage={self.stage!r})"


@dataclass(frozen=True, slots=True)
class InputNeeded:
    """The server waits for this client's vector: train now if need be, then call ``ClientSession.submit``.

    Attributes:
        clients: how many clients are still in the round.
    """

    clients: int


@dataclass(frozen=True, slots=True)
class BeaconNeeded:
    """The roster is fixed, and durable here, and the graph waits for a beacon: look it up, then call ``use_beacon``.

    The beacon must be a public value that nobody could know when this was returned: a later output of a randomness
    beacon that the caller trusts, never one from the server.

    Attributes:
        session_id: what the roster was fixed to; every honest client of the round has the same.
    """

    session_id: bytes


@dataclass(frozen=True, slots=True)
class ResultReady:
    """This client has decrypted the sum: ``ClientSession.result`` has it. Nothing is to be sent."""


Answer = Reply | InputNeeded | BeaconNeeded | ResultReady
"""What ``ClientSession.receive`` may return; with ``keep=DEFERRED`` a ``Pending`` of one."""
