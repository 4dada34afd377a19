"""Uploads taken in one by one: authenticated, checked, added to one running sum, forgotten. Both the aggregator and the
decryptor do this, each for itself."""

from __future__ import annotations

import operator
from typing import SupportsIndex

import numpy as np

from secagg.errors import DecodeError, InputError, PeerFault, StaleMessage, TooFewClients
from secagg.he.ciphertexts import RunningSum
from secagg.he.messages import HEKind, Members, Opening, session_identifier
from secagg.he.params import HEParams
from secagg.identity import SIGNATURE_BYTES, Directory
from secagg.wire import Buffer, open_message


class Collection:
    """The uploads of one session so far. Their sum and whose they are change in one assignment.

    Args:
        params: what the sum runs with.
        directory: the clients' identities, exactly the cohort.
        session_id: what every upload must name.
        members: whose uploads are in already, bool[n] by position in the directory; nobody's if None.
        running: their sum.
    """

    __slots__ = ("_directory", "_ids", "_params", "_positions", "_taken", "session_id")

    def __init__(
        self,
        params: HEParams,
        directory: Directory,
        session_id: bytes,
        members: Members | None = None,
        running: RunningSum | None = None,
    ) -> None:
        self._params, self._directory, self.session_id = params, directory, session_id
        self._ids = list(directory)
        self._positions = {client: position for position, client in enumerate(self._ids)}
        self._taken: tuple[Members, RunningSum] = (
            np.zeros(params.clients, dtype=np.bool_) if members is None else members,
            RunningSum(params.chain, params.ciphertexts) if running is None else running,
        )

    @property
    def members(self) -> Members:
        """Whose uploads are in: bool[n] by position in the directory."""
        return self._taken[0]

    @property
    def running(self) -> RunningSum:
        """Their sum."""
        return self._taken[1]

    @property
    def count(self) -> int:
        """How many uploads are in."""
        return int(self.members.sum())

    def ids(self, members: Members) -> tuple[int, ...]:
        """Return the ids of members, ascending."""
        return tuple(self._ids[position] for position in np.flatnonzero(members).tolist())

    def check_enough(self) -> None:
        """Check that the sum holds as many uploads as it must.

        Raises:
            TooFewClients: it does not.
        """
        if self.count < self._params.minimum_survivors:
            raise TooFewClients(self.count, self._params.minimum_survivors, "too few uploads for a sum")

    def receive(self, client_id: SupportsIndex, payload: Buffer) -> None:
        """Check an upload and add it.

        Raises:
            StaleMessage: this client's upload is in already.
            PeerFault: it is malformed, of another session or key, or not signed by whom it says. It was not counted.
            InputError: ``client_id`` is no integer.
        """
        try:
            client = operator.index(client_id)
        except TypeError:
            raise InputError(f"a client's id must be an integer, got {client_id!r}") from None
        position = self._positions.get(client)
        if position is None:
            raise PeerFault(client, "it is not in the directory")
        try:
            header, body = open_message(payload)
            if header.kind != HEKind.UPLOAD or header.sender != client:
                raise DecodeError("it sent another message than its own upload")
            if header.session != self.session_id:
                raise DecodeError("its upload belongs to another session, key or context")
            end = self._params.ciphertext_bytes
            if len(body) != end + SIGNATURE_BYTES:
                raise DecodeError(f"an upload takes {end + SIGNATURE_BYTES} bytes of body, got {len(body)}")
            self._directory.check(client, header, body[:end], bytes(body[end:]))
            if self.members[position]:
                raise StaleMessage(client, "its upload is in already")
            residues = self.running.decode(body[:end])
        except DecodeError as problem:
            raise PeerFault(client, str(problem)) from None
        members = self.members.copy()
        members[position] = True
        self._taken = (members, self.running.plus(residues))


def session_of(
    params: HEParams, context: bytes, opening: Opening, directory: Directory, decryptor: bytes | None
) -> bytes:
    """Return the identifier of the session that an opening begins; ``context`` is a digest."""
    return session_identifier(params, context, opening, directory.digest(), decryptor or b"")
