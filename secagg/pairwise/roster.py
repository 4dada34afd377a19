"""Who signs in a pairwise round, whom each stage asks, and with what."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from secagg.errors import DecodeError, InputError, PeerFault
from secagg.identity import Directory, body_hash
from secagg.pairwise import server_states as states
from secagg.pairwise import server_steps as steps
from secagg.pairwise.identifiers import NO_BEACON
from secagg.pairwise.messages import FORMATS, Invitation, Kind, Members
from secagg.pairwise.params import RoundParams
from secagg.wire import Header


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
