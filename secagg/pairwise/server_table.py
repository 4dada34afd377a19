"""The server's tables, one a threat model and graph: (state, reply) -> what is sent, what is done, what follows.

They drive ``PairwiseServerSession``, and SPEC "Server" shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from secagg.pairwise import server_states as states
from secagg.pairwise import server_steps as steps
from secagg.pairwise.messages import Invitation, Kind, Members
from secagg.pairwise.params import RoundParams
from secagg.pairwise.recovery import unmask_sum
from secagg.pairwise.uploads import Upload, check_input

Encoder = Callable[[int], bytes]
"""Position -> the body of the request to the client there."""


class Arrival(NamedTuple):
    """A client's message, authenticated, on its way into a state.

    Attributes:
        current: the round.
        state: the open stage's state.
        position: the sender's place in the roster.
        body: what it sent, without a signature.
        hashed: the hash of the body that it signed; empty in the semi-honest model, as is ``signature``.
        signature: 64 bytes.
        known: public key -> whose it is, while keys are collected.
    """

    current: states.Round
    state: Any
    position: int
    body: memoryview
    hashed: bytes
    signature: bytes
    known: dict[bytes, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ServerRow:
    """How the server leaves a state.

    Attributes:
        stage: the stage's name.
        request: the kind of message that each client of the stage is sent.
        recipients: (round, state) -> whom it goes to, bool[n].
        encode: (round, state) -> what makes each one's body.
        fold: takes a reply in, or returns an input for the accumulator; see ``uploads``.
        close: (round, state, threads) -> the next state; raises TooFewClients where the stage cannot close.
        next: that state's type.
    """

    stage: str
    request: Kind
    recipients: Callable[[states.Round, Any], Members]
    encode: Callable[[states.Round, Any], Encoder]
    fold: Callable[[Arrival], Upload | None]
    close: Callable[[states.Round, Any, int], states.ServerState]
    next: type[states.ServerState]


ServerTable = Mapping[tuple[type[states.ServerState], Kind], ServerRow]
"""All rows of one threat model and graph, in the order of the stages."""


def server_table(params: RoundParams) -> ServerTable:
    """Return the rows of a round's threat model and graph."""
    if params.threat == "semi-honest":
        return SEMI_HONEST
    return MALICIOUS_COMPLETE if params.graph == "complete" else MALICIOUS_SPARSE


def _everybody(current: states.Round, _state: states.CollectingKeys) -> Members:
    return np.ones(current.params.clients, dtype=np.bool_)


def _to_all(body: bytes) -> Encoder:
    return lambda _position: body


def _invite(current: states.Round, _state: states.CollectingKeys) -> Encoder:
    return _to_all(Invitation(nonce=current.nonce).encode())


def _announce_roster(current: states.Round, state: states.CollectingShares) -> Encoder:
    common = state.roster.encode_common()
    return lambda position: common + steps.own_neighbours(current, state, position)


def _relay(_current: states.Round, state: states.CollectingInputs) -> Encoder:
    return lambda position: steps.relay_for(state, position).encode()


def _announce_survivors(
    _current: states.Round, state: states.CollectingConsistency | states.CollectingUnmask
) -> Encoder:
    return _to_all(steps.survivors_request(state).encode())


def _relay_signatures(_current: states.Round, state: states.CollectingUnmask) -> Encoder:
    return _to_all(steps.relayed_signatures(state).encode())


def _fold_advertisement(one: Arrival) -> None:
    steps.fold_advertisement(one.current, one.state, one.position, one.body, one.signature, one.known)


def _fold_shares(one: Arrival) -> None:
    steps.fold_shares(one.current, one.state, one.position, one.body, one.signature)


def _fold_input(one: Arrival) -> Upload:
    return check_input(one.current, one.state, one.position, one.body, one.hashed + one.signature)


def _fold_consistency(one: Arrival) -> None:
    steps.fold_consistency(one.current, one.state, one.position, one.body, one.signature)


def _fold_unmask_shares(one: Arrival) -> None:
    steps.fold_unmask_shares(one.current, one.state, one.position, one.body, one.signature)


def _close_keys(current: states.Round, state: states.CollectingKeys, _threads: int) -> states.CollectingShares:
    return steps.close_keys(current, state, drawn=True)


def _close_keys_undrawn(current: states.Round, state: states.CollectingKeys, _threads: int) -> states.CollectingShares:
    return steps.close_keys(current, state, drawn=False)


def _close_shares(current: states.Round, state: states.CollectingShares, _threads: int) -> states.CollectingInputs:
    return steps.close_shares(current, state)


def _close_inputs(current: states.Round, state: states.CollectingInputs, _threads: int) -> states.CollectingUnmask:
    return steps.close_inputs(current, state)


def _close_inputs_checked(
    current: states.Round, state: states.CollectingInputs, _threads: int
) -> states.CollectingConsistency:
    return steps.close_inputs_checked(current, state)


def _close_consistency(
    current: states.Round, state: states.CollectingConsistency, _threads: int
) -> states.CollectingUnmask:
    return steps.close_consistency(current, state)


def _finish(current: states.Round, state: states.CollectingUnmask, threads: int) -> states.Finished:
    return steps.finish(state, unmask_sum(current, state, threads=threads))


_KEYS = ServerRow(
    stage="advertise_keys",
    request=Kind.INVITATION,
    recipients=_everybody,
    encode=_invite,
    fold=_fold_advertisement,
    close=_close_keys,
    next=states.CollectingShares,
)
_SHARES = ServerRow(
    stage="share_keys",
    request=Kind.ROSTER,
    recipients=lambda _current, state: state.roster.advertised,
    encode=_announce_roster,
    fold=_fold_shares,
    close=_close_shares,
    next=states.CollectingInputs,
)

_INPUTS = ServerRow(
    stage="masked_input",
    request=Kind.RELAYED_SHARES,
    recipients=lambda _current, state: state.shared,
    encode=_relay,
    fold=_fold_input,
    close=_close_inputs,
    next=states.CollectingUnmask,
)
_UNMASK = ServerRow(
    stage="unmask",
    request=Kind.UNMASK_REQUEST,
    recipients=lambda _current, state: state.asked,
    encode=_announce_survivors,
    fold=_fold_unmask_shares,
    close=_finish,
    next=states.Finished,
)

SEMI_HONEST: ServerTable = {
    (states.CollectingKeys, Kind.KEY_ADVERTISEMENT): _KEYS,
    (states.CollectingShares, Kind.ENCRYPTED_SHARES): _SHARES,
    (states.CollectingInputs, Kind.MASKED_INPUT): _INPUTS,
    (states.CollectingUnmask, Kind.UNMASK_SHARES): _UNMASK,
}
"""An honest-but-curious server, whichever the graph."""

MALICIOUS_COMPLETE: ServerTable = {
    (states.CollectingKeys, Kind.KEY_ADVERTISEMENT): _KEYS,
    (states.CollectingShares, Kind.ENCRYPTED_SHARES): _SHARES,
    (states.CollectingInputs, Kind.MASKED_INPUT): replace(
        _INPUTS, close=_close_inputs_checked, next=states.CollectingConsistency
    ),
    (states.CollectingConsistency, Kind.CONSISTENCY): ServerRow(
        stage="check_consistency",
        request=Kind.UNMASK_REQUEST,
        recipients=lambda _current, state: state.survivors,
        encode=_announce_survivors,
        fold=_fold_consistency,
        close=_close_consistency,
        next=states.CollectingUnmask,
    ),
    (states.CollectingUnmask, Kind.UNMASK_SHARES): replace(
        _UNMASK, request=Kind.RELAYED_SIGNATURES, encode=_relay_signatures
    ),
}
"""A malicious server, everybody everybody's neighbour."""

MALICIOUS_SPARSE: ServerTable = {
    **MALICIOUS_COMPLETE,
    (states.CollectingKeys, Kind.KEY_ADVERTISEMENT): replace(_KEYS, close=_close_keys_undrawn),
}
"""A malicious server and a sparse graph: ``use_beacon`` draws it once the roster is fixed, before shares are taken."""


def by_state(table: ServerTable) -> Mapping[type[states.ServerState], tuple[Kind, ServerRow]]:
    """Return the reply that each state awaits, with its row; a state in which the round is over has none."""
    return {at: (reply, row) for (at, reply), row in table.items()}
