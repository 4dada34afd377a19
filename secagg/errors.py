"""Every error that the library raises on purpose, arranged by whose fault it is.

``SecAggError`` is the root and is never raised itself. An error leaves the object that raised it as it was: nothing is
folded in, released or consumed. No error text ever holds a secret, a vector or a share.
"""

from __future__ import annotations

from typing import Any, Protocol


class Evidence(Protocol):
    """What convinces a third party that a client cheated: ``ForgedRelease`` or ``ContradictoryDealer``."""

    def convict(self, transcript: Any) -> int:
        """Return the culprit's id; raise DecodeError where this proves nothing in that ``Transcript``."""

    def encode(self) -> bytes:
        """Return this as bytes."""


class SecAggError(Exception):
    """Root of the taxonomy; catch it to catch whatever the library raises on purpose.

    Attributes:
        stage: the stage of ``secagg.STAGES`` that the session was in when it raised this; None outside sessions.
    """

    stage: str | None = None


class ParameterError(SecAggError, ValueError):
    """Whoever chose the round's parameters is at fault: they are unsafe, impossible, or their sum would wrap."""


class InputError(SecAggError, ValueError):
    """The local caller is at fault: an argument (a vector, a weight) is of the wrong kind, size or range."""


class LocalProtocolError(SecAggError):
    """The local caller is at fault: the call does not fit the session's stage (a second ``submit``, say)."""


class DecodeError(SecAggError):
    """Some bytes are not a message of this protocol version: wrong length, header, or a field out of range.

    Sessions know who sent the bytes and raise ``PeerFault`` or ``ServerFault`` from this error.
    """


class PeerFault(SecAggError):
    """A client is at fault.

    Attributes:
        client_id: the client at fault, as it stands in the roster.
        reason: what it did, in words.
        proof: whether whoever raises this knows it for certain, by signatures that it checked; else it is a suspicion,
            which the server or another client may have caused.
        evidence: what convinces third parties, where a proof can (SPEC "Blame"); else None.
    """

    def __init__(self, client_id: int, reason: str, *, proof: bool = False, evidence: Evidence | None = None) -> None:
        super().__init__(f"client {client_id}: {reason}")
        self.client_id = client_id
        self.reason = reason
        self.proof = proof
        self.evidence = evidence

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_fault, (type(self), self.client_id, self.reason, self.proof, self.evidence)


def _rebuild_fault(
    kind: type[PeerFault], client_id: int, reason: str, proof: bool, evidence: Evidence | None
) -> PeerFault:
    # Errors cross process boundaries (a worker's), unlike sessions and states
    return kind(client_id, reason, proof=proof, evidence=evidence)


class StaleMessage(PeerFault):
    """A client's message was folded in already, or its stage is closed; it was not counted and may be ignored."""


class ServerFault(SecAggError):
    """The server is at fault: it sent what an honest server never sends."""


class TooFewClients(SecAggError):
    """Nobody's fault: fewer clients are left than privacy or recovery needs. Nothing was revealed.

    Attributes:
        have: how many there are.
        need: how many there must be.
        what: which floor was missed, in words.
    """

    def __init__(self, have: int, need: int, what: str) -> None:
        super().__init__(f"{what}: have {have}, need {need}")
        self.have = have
        self.need = need
        self.what = what

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.have, self.need, self.what)


class SelfTestError(SecAggError):
    """The machine is at fault: a kernel's known answer came out wrong, so the kernel is not used."""


class InconsistentSum(SecAggError):
    """Some client is at fault, nobody can say which: the unmasked values cannot be a sum of inputs in range."""
