"""Whom a server's session speaks to: the ids it was given, their identities, and what goes out to each."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from secagg.errors import InputError
from secagg.identity import Directory
from secagg.pairwise.messages import Members
from secagg.params import RoundParams
from secagg.wire import SERVER


class Requests(Mapping[int, bytes]):
    """Client id -> payload, each made when it is looked up: a cohort's payloads need not fit in memory together."""

    def __init__(self, ids: NDArray[np.uint64], recipients: Members, encode: Callable[[int], bytes]) -> None:
        self._positions = {int(ids[position]): position for position in np.flatnonzero(recipients).tolist()}
        self._encode = encode

    def __getitem__(self, client_id: int) -> bytes:
        return self._encode(self._positions[client_id])

    def __iter__(self) -> Iterator[int]:
        return iter(self._positions)

    def __len__(self) -> int:
        return len(self._positions)

    def __repr__(self) -> str:
        return f"<Requests to {len(self)} clients>"


def checked_directory(params: RoundParams, ids: NDArray[np.uint64], directory: Directory | None) -> bytes:
    """Return the directory's digest, empty in the semi-honest model.

    Raises:
        InputError: it is missing, out of place, or not of exactly these ids.
    """
    if params.threat == "semi-honest":
        if directory is not None:
            raise InputError("a directory serves the malicious-server model only; the parameters are semi-honest")
        return b""
    if not isinstance(directory, Directory):
        raise InputError("the malicious-server model takes a directory of the clients' identities")
    if list(directory) != ids.tolist():
        raise InputError("the directory must hold exactly the roster's clients")
    return directory.digest()


def checked_id(client_id: SupportsIndex) -> int:
    """Return a client's id as an int.

    Raises:
        InputError: it is not an integer in [0, 2**64 - 2].
    """
    try:
        number = -1 if isinstance(client_id, bool) else operator.index(client_id)
    except TypeError:
        number = -1
    if not 0 <= number < SERVER:
        raise InputError(f"a client's id must be an integer in [0, 2**64 - 2], got {client_id!r}")
    return number


def ordered_ids(roster: Iterable[int], clients: int) -> NDArray[np.uint64]:
    """Return the ids ascending: uint64[clients].

    Raises:
        InputError: an id is no client's, two are alike, or their number is another.
    """
    try:
        ids = [checked_id(one) for one in roster]
    except TypeError:
        raise InputError(f"a roster must be an iterable of ids, got {type(roster).__name__}") from None
    if len(ids) != clients:
        raise InputError(f"the parameters are for {clients} clients, the roster holds {len(ids)}")
    if len(set(ids)) != clients:
        raise InputError("a roster's ids must be distinct")
    return np.array(sorted(ids), dtype=np.uint64)
