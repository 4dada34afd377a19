"""What a client reads of the server's requests: whether one is of its session, and the body that its state awaits."""

from __future__ import annotations

from secagg.errors import ServerFault
from secagg.pairwise import client_states as states
from secagg.pairwise.messages import (
    FORMATS,
    Invitation,
    RelayedShares,
    RelayedSignatures,
    Roster,
    UnmaskRequest,
)
from secagg.pairwise.params import RoundParams
from secagg.wire import Header

Request = Invitation | Roster | RelayedShares | UnmaskRequest | RelayedSignatures


def check_session(state: states.ClientState, header: Header) -> None:
    """Check that a message is of the session that a client is in.

    Raises:
        ServerFault: it is of another.
    """
    if isinstance(state, states.Idle):
        return  # its step compares the round's identifier with the one that it computes
    expected = state.round_id if isinstance(state, states.Advertised) else state.session_id
    if header.session != expected:
        raise ServerFault("the message belongs to another session, or the roster was not the same for everybody")


def drawn_by_server(params: RoundParams) -> bool:
    """Tell whether the roster names a client's neighbours."""
    return params.graph == "harary" and params.threat == "semi-honest"


def read_request(params: RoundParams, state: states.ClientState, body: memoryview) -> Request:
    """Read the body of the message that a state awaits.

    Raises:
        DecodeError: it is malformed.
    """
    form = FORMATS[params.threat]
    if isinstance(state, states.Idle):
        return Invitation.decode(body)
    if isinstance(state, states.Advertised):
        neighbours = params.neighbours if drawn_by_server(params) else 0
        return Roster.decode(body, clients=params.clients, sparse_neighbours=neighbours, entry_bytes=form.entry_bytes)
    if isinstance(state, states.Shared):
        return RelayedShares.decode(
            body, clients=params.clients, neighbours=state.neighbours, dealt_bytes=form.dealt_bytes
        )
    if isinstance(state, states.Masked):
        return UnmaskRequest.decode(body, clients=params.clients)
    return RelayedSignatures.decode(body, clients=params.clients)
