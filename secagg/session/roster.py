"""Whom a server's session speaks to: the ids that it was given, what goes out to each, and what comes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from secagg.errors import InputError
from secagg.wire import SERVER, Buffer


class Requests(Mapping[int, bytes]):
    """Client id -> payload, each made when it is looked up: a cohort's payloads need not fit in memory together."""

    def __init__(
        self,
        ids: NDArray[np.uint64],
        recipients: NDArray[np.bool_],
        encode: Callable[[int], bytes],
        check_process: Callable[[], None],
    ) -> None:
        self._check_process = check_process
        self._positions = {int(ids[position]): position for position in np.flatnonzero(recipients).tolist()}
        self._encode = encode

    def __getitem__(self, client_id: int) -> bytes:
        self._check_process()
        return self._encode(self._positions[client_id])

    def __iter__(self) -> Iterator[int]:
        return iter(self._positions)

    def __len__(self) -> int:
        return len(self._positions)

    def __repr__(self) -> str:
        return f"<Requests to {len(self)} clients>"


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


def pairs(replies: Iterable[tuple[SupportsIndex, Buffer]]) -> Iterator[tuple[SupportsIndex, Buffer]]:
    """Yield each reply with its sender.

    Raises:
        InputError: this is no iterable of pairs.
    """
    try:
        iterator = iter(replies)
    except TypeError:
        raise InputError(f"replies must be pairs of an id and a message, got {type(replies).__name__}") from None
    for reply in iterator:
        if not isinstance(reply, tuple) or len(reply) != 2:
            raise InputError("each reply must be a pair of a client's id and its message")
        yield reply
