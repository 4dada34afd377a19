"""The transition tables of both sides: what each state waits for, where it leads, and what goes out.

The sessions are driven by these tables and SPEC shows them. The consistency check of the malicious-server model will
stand between ``Masked`` and ``Released``, and between ``CollectingInputs`` and ``CollectingUnmask``.
"""

from __future__ import annotations

from dataclasses import dataclass

from secagg.pairwise.client import Advertised, ClientState, Idle, Masked, Ready, Released, Shared
from secagg.pairwise.messages import Kind
from secagg.pairwise.server import Collecting, CollectingInputs, CollectingKeys, CollectingShares, CollectingUnmask

STAGES = ("advertise_keys", "share_keys", "masked_input", "unmask")
"""What a client sends, in order; the stage at which a client dropped is the first of these that never came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTransition:
    """How a client leaves a state.

    Attributes:
        request: the message awaited, or None where the local caller's input is.
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


CLIENT_TRANSITIONS: dict[type[ClientState], ClientTransition] = {
    Idle: ClientTransition(
        request=Kind.INVITATION, leads_to=Advertised, reply=Kind.KEY_ADVERTISEMENT, stage="advertise_keys"
    ),
    Advertised: ClientTransition(request=Kind.ROSTER, leads_to=Shared, reply=Kind.ENCRYPTED_SHARES, stage="share_keys"),
    Shared: ClientTransition(request=Kind.RELAYED_SHARES, leads_to=Ready, reply=None, stage="masked_input"),
    Ready: ClientTransition(request=None, leads_to=Masked, reply=Kind.MASKED_INPUT, stage="masked_input"),
    Masked: ClientTransition(request=Kind.UNMASK_REQUEST, leads_to=Released, reply=Kind.UNMASK_SHARES, stage="unmask"),
}

SERVER_TRANSITIONS: dict[type[Collecting], ServerTransition] = {
    CollectingKeys: ServerTransition(
        request=Kind.INVITATION, reply=Kind.KEY_ADVERTISEMENT, leads_to=CollectingShares, stage="advertise_keys"
    ),
    CollectingShares: ServerTransition(
        request=Kind.ROSTER, reply=Kind.ENCRYPTED_SHARES, leads_to=CollectingInputs, stage="share_keys"
    ),
    CollectingInputs: ServerTransition(
        request=Kind.RELAYED_SHARES, reply=Kind.MASKED_INPUT, leads_to=CollectingUnmask, stage="masked_input"
    ),
    CollectingUnmask: ServerTransition(
        request=Kind.UNMASK_REQUEST, reply=Kind.UNMASK_SHARES, leads_to=None, stage="unmask"
    ),
}
