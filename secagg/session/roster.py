"""Whom a server's session speaks to: the ids it was given, their identities, what goes out to each and what comes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from secagg.errors import DecodeError, InputError, PeerFault
from secagg.identity import Directory, body_hash
from secagg.pairwise import server as steps
from secagg.pairwise import server_states as states
from secagg.pairwise.identifiers import NO_BEACON
from secagg.pairwise.messages import FORMATS, Invitation, Kind, Members
from secagg.params import RoundParams
from secagg.wire import SERVER, Buffer, Header


class Requests(Mapping[int, bytes]):
    """Client id -> payload, each made when it is looked up: a cohort's payloads need not fit in memory together."""

    def __init__(
        self,
        ids: NDArray[np.uint64],
        recipients: Members,
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


def authenticated(
    directory: Directory | None, client_id: int, header: Header, body: memoryview, *, beacon: bytes = b""
) -> tuple[memoryview, bytes, bytes]:
    """Split a body from the signature behind it, and check that; return the hash that was signed as well.

    Without a directory nothing is signed: the hash and the signature are empty.

    Args:
        directory: the pinned identities.
        client_id: the sender.
        header: the message's header.
        body: what follows it.
        beacon: what else is signed though it does not travel, since the server has its own: ``steps.signed_beacon``.

    Raises:
        PeerFault: there is no signature of the client's.
    """
    if directory is None:
        return body, b"", b""
    form = FORMATS["malicious-server"]
    attached = form.accepted_bytes if header.kind == Kind.MASKED_INPUT else 0
    if len(body) < form.signature_bytes + attached:
        raise PeerFault(client_id, "its message is too short to bear a signature")
    end = len(body) - form.signature_bytes
    hashed, signature = body_hash(body[: end - attached]), bytes(body[end:])
    try:
        directory.check_hashed(
            client_id, header, hashed, signature, attached=bytes(body[end - attached : end]) + beacon
        )
    except DecodeError as problem:
        # A signature does not say what else it would fit
        other = "" if beacon in (b"", NO_BEACON) else ", or it used another beacon than this server"
        raise PeerFault(client_id, f"its message is not authentic{other}: {problem}") from None
    return body[:end], hashed, signature


def recipients(current: states.Round, state: states.ServerState) -> Members:
    """Return whom the open stage's request goes to: everybody where a stage is not open."""
    if isinstance(state, states.CollectingShares):
        return state.roster.advertised
    if isinstance(state, states.CollectingInputs):
        return state.shared
    if isinstance(state, states.CollectingConsistency):
        return state.survivors
    if isinstance(state, states.CollectingUnmask):
        return state.asked
    return np.ones(current.params.clients, dtype=np.bool_)


def request_encoder(current: states.Round, state: states.Collecting, head: bytes) -> Callable[[int], bytes]:
    """Return what makes the open stage's request to the client at a position; ``head`` is the header of them all."""
    if isinstance(state, states.CollectingShares):
        collecting, common = state, head + state.roster.encode_common()
        return lambda position: common + steps.own_neighbours(current, collecting, position)
    if isinstance(state, states.CollectingInputs):
        relaying = state
        return lambda position: head + steps.relay_for(relaying, position).encode()
    if isinstance(state, states.CollectingKeys):
        request = head + Invitation(nonce=current.nonce).encode()
    elif isinstance(state, states.CollectingUnmask) and current.params.threat == "malicious-server":
        request = head + steps.relayed_signatures(state).encode()
    else:
        request = head + steps.survivors_request(state).encode()
    return lambda position: request
