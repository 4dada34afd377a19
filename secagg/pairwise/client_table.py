"""A client's tables, one a threat model and graph: (state, what comes) -> how it is read, the step, what follows.

They drive ``PairwiseClientSession``, and SPEC "Client" shows them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from secagg.identity import Identity
from secagg.pairwise import client_states as states
from secagg.pairwise import client_steps as steps
from secagg.pairwise import release
from secagg.pairwise.graph import CompleteGraph, beacon_ring, ring_neighbours
from secagg.pairwise.identifiers import check_beacon
from secagg.pairwise.messages import (
    FORMATS,
    Invitation,
    Kind,
    RelayedShares,
    RelayedSignatures,
    Roster,
    Secret,
    UnmaskRequest,
)
from secagg.pairwise.params import RoundParams
from secagg.primitives.randomness import Randomness
from secagg.session.client import Vector
from secagg.session.table import ClientRow, ClientTable, Local, Taken
from secagg.wire import HEADER_BYTES, Header


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Turn(Secret):
    """What a step may know.

    Attributes:
        party: what this client pins.
        state: what it knows.
        identity: its own, in the malicious-server model.
        randomness: source of what it draws.
        announced: the session that the request names.
        reply: the kind of message that goes out.
    """

    party: states.Party
    state: Any
    identity: Identity | None
    randomness: Randomness
    announced: bytes
    reply: int | None

    def header(self, session: bytes) -> Header:
        """Return the header of what goes out."""
        return Header(kind=self.reply or 0, sender=self.party.client_id, session=session)

    def message(self, session: bytes, body: bytes, *, attached: bytes = b"") -> bytes:
        """Return what goes out, signed in the malicious-server model together with what is ``attached``."""
        header = self.header(session)
        signature = b"" if self.identity is None else self.identity.sign(header, body, attached=attached)
        return header.encode() + body + signature


def client_table(params: RoundParams) -> ClientTable:
    """Return the rows of a round's threat model and graph."""
    if params.threat == "semi-honest":
        return SEMI_HONEST
    return MALICIOUS_COMPLETE if params.graph == "complete" else MALICIOUS_SPARSE


def drawn_by_server(params: RoundParams) -> bool:
    """Tell whether the roster names a client's neighbours."""
    return params.graph == "harary" and params.threat == "semi-honest"


def _read_invitation(_turn: Turn, body: memoryview) -> Invitation:
    return Invitation.decode(body)


def _read_roster(turn: Turn, body: memoryview) -> Roster:
    params = turn.party.params
    neighbours = params.neighbours if drawn_by_server(params) else 0
    entry_bytes = FORMATS[params.threat].entry_bytes
    return Roster.decode(body, clients=params.clients, sparse_neighbours=neighbours, entry_bytes=entry_bytes)


def _read_shares(turn: Turn, body: memoryview) -> RelayedShares:
    params = turn.party.params
    return RelayedShares.decode(
        body,
        clients=params.clients,
        neighbours=turn.state.neighbours,
        dealt_bytes=FORMATS[params.threat].dealt_bytes,
    )


def _read_survivors(turn: Turn, body: memoryview) -> UnmaskRequest:
    return UnmaskRequest.decode(body, clients=turn.party.params.clients)


def _read_signatures(turn: Turn, body: memoryview) -> RelayedSignatures:
    return RelayedSignatures.decode(body, clients=turn.party.params.clients)


def _advertise(turn: Turn, invitation: Invitation) -> Taken:
    after, message = steps.advertise_keys(turn.party, invitation, turn.announced, turn.randomness)
    return Taken(state=after, reply=turn.message(after.round_id, message.encode()))


def _fix(turn: Turn, roster: Roster) -> Taken:
    fixed = steps.fix_roster(turn.party, turn.state, roster, turn.identity)
    # Kept until the beacon comes, where all else that is kept was copied: the buffer is the caller's again
    return Taken(state=replace(fixed, roster=replace(roster, entries=roster.entries.copy())))


def _share(turn: Turn, roster: Roster) -> Taken:
    fixed = steps.fix_roster(turn.party, turn.state, roster, turn.identity)
    neighbourhood = roster.neighbours
    if neighbourhood is None:
        neighbourhood = CompleteGraph(turn.party.params.clients).neighbours(fixed.position)
    after, message = steps.share_keys(
        turn.party, fixed, neighbourhood, turn.randomness, identity=turn.identity, beacon=None
    )
    return Taken(state=after, reply=turn.message(fixed.session_id, message.encode(), attached=after.beacon))


def _share_drawn(turn: Turn, beacon: bytes) -> Taken:
    check_beacon(beacon)
    params, fixed = turn.party.params, turn.state
    ring = beacon_ring(params.clients, fixed.session_id, beacon)
    neighbourhood = ring_neighbours(ring, params.neighbours, fixed.position)
    after, message = steps.share_keys(
        turn.party, fixed, neighbourhood, turn.randomness, identity=turn.identity, beacon=beacon
    )
    return Taken(state=after, reply=turn.message(fixed.session_id, message.encode(), attached=after.beacon))


def _receive_shares(turn: Turn, relay: RelayedShares) -> Taken:
    directory = None if turn.identity is None else turn.identity.directory
    return Taken(state=steps.receive_shares(turn.party, turn.state, relay, directory))


def _mask(turn: Turn, vector: Vector) -> Taken:
    state: states.Ready = turn.state
    header = turn.header(state.session_id)
    masked, payload, clipped = steps.mask_input(
        turn.party,
        state,
        vector.values,
        vector.weight,
        turn.randomness,
        prefix=header.encode(),
        threads=vector.threads,
    )
    if turn.identity is not None:
        body = memoryview(payload)[HEADER_BYTES:]
        payload += state.accepted + turn.identity.sign(header, body, attached=state.accepted)
    return Taken(state=masked, reply=payload, clipped=clipped)


def _unmask(turn: Turn, request: UnmaskRequest) -> Taken:
    after, message = release.unmask(turn.party, turn.state, request)
    return Taken(state=after, reply=turn.message(after.session_id, message.encode()))


def _check_consistency(turn: Turn, request: UnmaskRequest) -> Taken:
    after, message = release.check_consistency(turn.party, turn.state, request)
    return Taken(state=after, reply=turn.message(after.session_id, message.encode()))


def _unmask_consistent(turn: Turn, relayed: RelayedSignatures) -> Taken:
    directory = None if turn.identity is None else turn.identity.directory
    after, message = release.unmask_consistent(turn.party, turn.state, relayed, directory)
    return Taken(state=after, reply=turn.message(after.session_id, message.encode()))


_INVITED = ClientRow(
    read=_read_invitation,
    step=_advertise,
    next=states.Advertised,
    reply=Kind.KEY_ADVERTISEMENT,
    stage="advertise_keys",
)
_ROSTER = ClientRow(read=_read_roster, step=_share, next=states.Shared, reply=Kind.ENCRYPTED_SHARES, stage="share_keys")
_RELAYED = ClientRow(read=_read_shares, step=_receive_shares, next=states.Ready, reply=None, stage="masked_input")
_VECTOR = ClientRow(
    read=None,
    step=_mask,
    next=states.Masked,
    reply=Kind.MASKED_INPUT,
    stage="masked_input",
    answers=Kind.RELAYED_SHARES,
)

SEMI_HONEST: ClientTable = {
    (states.Idle, Kind.INVITATION): _INVITED,
    (states.Advertised, Kind.ROSTER): _ROSTER,
    (states.Shared, Kind.RELAYED_SHARES): _RELAYED,
    (states.Ready, Local.VECTOR): _VECTOR,
    (states.Masked, Kind.UNMASK_REQUEST): ClientRow(
        read=_read_survivors, step=_unmask, next=states.Released, reply=Kind.UNMASK_SHARES, stage="unmask"
    ),
}
"""An honest-but-curious server, whichever the graph: a sparse one's roster names the client's neighbours."""

MALICIOUS_COMPLETE: ClientTable = {
    (states.Idle, Kind.INVITATION): _INVITED,
    (states.Advertised, Kind.ROSTER): _ROSTER,
    (states.Shared, Kind.RELAYED_SHARES): _RELAYED,
    (states.Ready, Local.VECTOR): _VECTOR,
    (states.Masked, Kind.UNMASK_REQUEST): ClientRow(
        read=_read_survivors,
        step=_check_consistency,
        next=states.Checked,
        reply=Kind.CONSISTENCY,
        stage="check_consistency",
    ),
    (states.Checked, Kind.RELAYED_SIGNATURES): ClientRow(
        read=_read_signatures,
        step=_unmask_consistent,
        next=states.Released,
        reply=Kind.UNMASK_SHARES,
        stage="unmask",
    ),
}
"""A malicious server, everybody everybody's neighbour: the roster is answered at once."""

MALICIOUS_SPARSE: ClientTable = {
    **MALICIOUS_COMPLETE,
    (states.Advertised, Kind.ROSTER): ClientRow(
        read=_read_roster, step=_fix, next=states.Fixed, reply=None, stage="share_keys"
    ),
    (states.Fixed, Local.BEACON): ClientRow(
        read=None,
        step=_share_drawn,
        next=states.Shared,
        reply=Kind.ENCRYPTED_SHARES,
        stage="share_keys",
        answers=Kind.ROSTER,
    ),
}
"""A malicious server and a sparse graph: the roster is fixed, and the neighbours follow from the beacon."""
