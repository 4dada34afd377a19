"""The transition tables of both sides in both threat models: what each state waits for, where it leads, what goes out.

The sessions are driven by these tables and SPEC shows them.
"""

from __future__ import annotations

from dataclasses import dataclass

from secagg.cohort import Threat
from secagg.pairwise.client_states import (
    Advertised,
    Checked,
    ClientState,
    Fixed,
    Idle,
    Masked,
    Ready,
    Released,
    Shared,
)
from secagg.pairwise.messages import Kind
from secagg.pairwise.server_states import (
    Collecting,
    CollectingConsistency,
    CollectingInputs,
    CollectingKeys,
    CollectingShares,
    CollectingUnmask,
)

STAGES = ("advertise_keys", "share_keys", "masked_input", "unmask")
"""What a client sends in the semi-honest model, in order; a client drops out before the first of these that misses."""
MALICIOUS_STAGES = ("advertise_keys", "share_keys", "masked_input", "check_consistency", "unmask")
"""The same in the malicious-server model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTransition:
    """How a client leaves a state.

    Attributes:
        request: the message awaited, or None where something of the local caller's is: its vector, or the beacon.
        leads_to: the next state.
        reply: what goes out, or None where the caller is asked for its input first.
        stage: the stage that the reply belongs to.
    """

    request: Kind | None
    leads_to: type[ClientState]
    reply: Kind | None
    stage: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTransition:
    """How the server leaves a state.

    Attributes:
        request: what each client of the stage is sent.
        reply: what each is to answer.
        leads_to: the next state, or None where the round is done.
        stage: the stage's name.
    """

    request: Kind
    reply: Kind
    leads_to: type[Collecting] | None
    stage: str


_ADVERTISE = ClientTransition(
    request=Kind.INVITATION, leads_to=Advertised, reply=Kind.KEY_ADVERTISEMENT, stage="advertise_keys"
)
_RECEIVE = ClientTransition(request=Kind.RELAYED_SHARES, leads_to=Ready, reply=None, stage="masked_input")
_MASK = ClientTransition(request=None, leads_to=Masked, reply=Kind.MASKED_INPUT, stage="masked_input")

CLIENT_TRANSITIONS: dict[Threat, dict[type[ClientState], ClientTransition]] = {
    "semi-honest": {
        Idle: _ADVERTISE,
        Advertised: ClientTransition(
            request=Kind.ROSTER, leads_to=Shared, reply=Kind.ENCRYPTED_SHARES, stage="share_keys"
        ),
        Shared: _RECEIVE,
        Ready: _MASK,
        Masked: ClientTransition(
            request=Kind.UNMASK_REQUEST, leads_to=Released, reply=Kind.UNMASK_SHARES, stage="unmask"
        ),
    },
    # In the complete graph no beacon is awaited: Fixed is passed through and the roster is answered at once
    "malicious-server": {
        Idle: _ADVERTISE,
        Advertised: ClientTransition(request=Kind.ROSTER, leads_to=Fixed, reply=None, stage="share_keys"),
        Fixed: ClientTransition(request=None, leads_to=Shared, reply=Kind.ENCRYPTED_SHARES, stage="share_keys"),
        Shared: _RECEIVE,
        Ready: _MASK,
        Masked: ClientTransition(
            request=Kind.UNMASK_REQUEST, leads_to=Checked, reply=Kind.CONSISTENCY, stage="check_consistency"
        ),
        Checked: ClientTransition(
            request=Kind.RELAYED_SIGNATURES, leads_to=Released, reply=Kind.UNMASK_SHARES, stage="unmask"
        ),
    },
}

_KEYS = ServerTransition(
    request=Kind.INVITATION, reply=Kind.KEY_ADVERTISEMENT, leads_to=CollectingShares, stage="advertise_keys"
)
_SHARES = ServerTransition(
    request=Kind.ROSTER, reply=Kind.ENCRYPTED_SHARES, leads_to=CollectingInputs, stage="share_keys"
)

SERVER_TRANSITIONS: dict[Threat, dict[type[Collecting], ServerTransition]] = {
    "semi-honest": {
        CollectingKeys: _KEYS,
        CollectingShares: _SHARES,
        CollectingInputs: ServerTransition(
            request=Kind.RELAYED_SHARES, reply=Kind.MASKED_INPUT, leads_to=CollectingUnmask, stage="masked_input"
        ),
        CollectingUnmask: ServerTransition(
            request=Kind.UNMASK_REQUEST, reply=Kind.UNMASK_SHARES, leads_to=None, stage="unmask"
        ),
    },
    "malicious-server": {
        CollectingKeys: _KEYS,
        CollectingShares: _SHARES,
        CollectingInputs: ServerTransition(
            request=Kind.RELAYED_SHARES, reply=Kind.MASKED_INPUT, leads_to=CollectingConsistency, stage="masked_input"
        ),
        CollectingConsistency: ServerTransition(
            request=Kind.UNMASK_REQUEST,
            reply=Kind.CONSISTENCY,
            leads_to=CollectingUnmask,
            stage="check_consistency",
        ),
        CollectingUnmask: ServerTransition(
            request=Kind.RELAYED_SIGNATURES, reply=Kind.UNMASK_SHARES, leads_to=None, stage="unmask"
        ),
    },
}


def stages_of(threat: Threat) -> tuple[str, ...]:
    """Return the stages of a round in this model, in order."""
    return MALICIOUS_STAGES if threat == "malicious-server" else STAGES
