"""How a server's integration reaches a further party of a protocol, a decryptor, wherever that is: bytes in, bytes out.

An integration implements these two over its own transport. What is passed on is for the party to check: it trusts the
server with nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod


class PartyRound(ABC):
    """A further party in one round. What it refuses it raises as a ``SecAggError``; a call that is cut off, an OSError.

    A call that was cut off may be made again.
    """

    @property
    @abstractmethod
    def opening(self) -> bytes:
        """What begins the round: for the server's credentials."""

    @abstractmethod
    def receive(self, client_id: int, payload: bytes) -> None:
        """Pass on a payload that the server's session took in, with the client that it is of."""

    @abstractmethod
    def answer(self, request: bytes) -> bytes:
        """Pass on what ``ServerSession.party_requests`` asks, and return what ``receive_from`` takes."""


class PartyLink(ABC):
    """The way to a further party. A round that was begun and is asked nothing was given up: the next one may follow."""

    @property
    @abstractmethod
    def identity(self) -> bytes:
        """The Ed25519 key that the server pins as the party's, 32 bytes; clients pin it for themselves."""

    @abstractmethod
    def begin(self, params: bytes, context: bytes, roster: tuple[int, ...]) -> PartyRound:
        """Have the party begin a round.

        Args:
            params: the parameters, encoded: the party compares them with its own.
            context: what the round is about.
            roster: the clients' ids, ascending: the party compares them with its own directory.

        Raises:
            SecAggError: the party refuses; or, for a round that it never takes part in, an InputError.
            OSError: it cannot be reached.
        """
