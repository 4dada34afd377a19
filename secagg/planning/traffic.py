"""Exact bytes of a round, from the lengths that the messages themselves give. Source: SPEC "Messages"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from secagg.pairwise.messages import (
    FORMATS,
    Consistency,
    EncryptedShares,
    Invitation,
    KeyAdvertisement,
    Kind,
    MaskedInput,
    RelayedShares,
    RelayedSignatures,
    Roster,
    UnmaskRequest,
    UnmaskShares,
)
from secagg.pairwise.params import RoundParams
from secagg.pairwise.transitions import SERVER_TRANSITIONS
from secagg.wire import HEADER_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTraffic:
    """One exchange: what each client of it is sent, and what it answers.

    Attributes:
        stage: the stage's name.
        down: bytes that the server sends one client, header included.
        up: bytes that one client answers with, header and signature included.
        asked: how many clients are sent the request.
        answered: how many of them answer.
    """

    stage: str
    down: int
    up: int
    asked: int
    answered: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """All exchanges of a round, in order."""

    stages: tuple[StageTraffic, ...]

    @property
    def client_up(self) -> int:
        """Bytes that a client which stays to the end sends."""
        return sum(stage.up for stage in self.stages)

    @property
    def client_down(self) -> int:
        """Bytes that a client which stays to the end is sent."""
        return sum(stage.down for stage in self.stages)

    @property
    def server_received(self) -> int:
        """Bytes that the server is sent by everybody together."""
        return sum(stage.up * stage.answered for stage in self.stages)

    @property
    def server_sent(self) -> int:
        """Bytes that the server sends to everybody together."""
        return sum(stage.down * stage.asked for stage in self.stages)


def pairwise_traffic(params: RoundParams, dropped: int) -> Traffic:
    """Return what a round of SecAgg or SecAgg+ sends if ``dropped`` clients vanish before their upload, and no other.

    That is exact for every client: all neighbours have advertised and shared keys by then.
    """
    lengths = body_bytes(params, params.clients - dropped)
    signature = FORMATS[params.threat].signature_bytes
    stages = []
    asked = params.clients
    for transition in SERVER_TRANSITIONS[params.threat].values():
        answered = params.clients - dropped if transition.stage == "masked_input" else asked
        stages.append(
            StageTraffic(
                stage=transition.stage,
                down=HEADER_BYTES + lengths[transition.request],
                up=HEADER_BYTES + lengths[transition.reply] + signature,
                asked=asked,
                answered=answered,
            )
        )
        asked = answered
    return Traffic(stages=tuple(stages))


def body_bytes(params: RoundParams, survivors: int) -> Mapping[Kind, int]:
    """Return how long the body of each kind of message is where everybody shares keys and ``survivors`` upload."""
    n, k, form = params.clients, params.neighbours, FORMATS[params.threat]
    drawn_by_server = params.graph == "harary" and params.threat == "semi-honest"
    return {
        Kind.INVITATION: Invitation.body_bytes(),
        Kind.KEY_ADVERTISEMENT: KeyAdvertisement.body_bytes(),
        Kind.ROSTER: Roster.body_bytes(
            clients=n, advertised=n, sparse_neighbours=k if drawn_by_server else 0, entry_bytes=form.entry_bytes
        ),
        Kind.ENCRYPTED_SHARES: EncryptedShares.body_bytes(count=k, dealt_bytes=form.dealt_bytes),
        Kind.RELAYED_SHARES: RelayedShares.body_bytes(clients=n, count=k, dealt_bytes=form.dealt_bytes),
        Kind.MASKED_INPUT: MaskedInput.body_bytes(
            count=params.dimension + 1, ring_bits=params.ring_bits, accepted_bytes=form.accepted_bytes
        ),
        Kind.UNMASK_REQUEST: UnmaskRequest.body_bytes(clients=n),
        Kind.CONSISTENCY: Consistency.body_bytes(),
        Kind.RELAYED_SIGNATURES: RelayedSignatures.body_bytes(clients=n, signed=survivors),
        Kind.UNMASK_SHARES: UnmaskShares.body_bytes(count=k, release_bytes=form.release_bytes),
    }
