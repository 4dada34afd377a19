"""A client's steps: each takes one frozen state and a message and returns the next state and a message.

A step that raises has changed nothing. Steps check in the order that SPEC "Client" lists; none reads a clock, a socket
or a global, and randomness is an argument. Source: CCS 2017 figure 4; CCS 2020 algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secagg.errors import DecodeError, PeerFault, ServerFault, TooFewClients
from secagg.pairwise.identifiers import (
    CHANNEL_KEY_BYTES,
    channel_keys,
    pairwise_mask_key,
    round_id,
    seed_commitment,
    self_mask_key,
    session_id,
    share_aad,
)
from secagg.pairwise.masking import mask_vector
from secagg.pairwise.messages import (
    PUBLIC_BYTES,
    SEALED_SHARES_BYTES,
    Bytes,
    EncryptedShares,
    Invitation,
    KeyAdvertisement,
    Kind,
    Members,
    RelayedShares,
    Roster,
    UnmaskRequest,
    UnmaskShares,
)
from secagg.params import RoundParams
from secagg.primitives.aead import open_once, seal_once
from secagg.primitives.agreement import AgreementKey
from secagg.primitives.prg import MASK_KEY_BYTES, MaskKeys
from secagg.primitives.randomness import Randomness, draw
from secagg.primitives.shamir import SHARE_BYTES, check_shares, share

SEED_BYTES = 32
MASK_KEY_SHARE, SEED_SHARE = 0, 1


class Secret:
    """A state that holds secrets: its repr shows none."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: secrets withheld>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """What a client pins before the round begins."""

    params: RoundParams
    client_id: int
    context: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Idle:
    """Before any message."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Advertised(Secret):
    """Keys are out; the roster is awaited."""

    round_id: bytes
    channel_secret: bytes
    mask_secret: bytes
    seed: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Shared(Secret):
    """Shares are out; the neighbours' are awaited. Arrays run over the neighbours in U1, ascending."""

    session_id: bytes
    position: int
    advertised: Members
    neighbours: NDArray[np.uint32]
    neighbour_ids: NDArray[np.uint64]
    opening_keys: bytes
    mask_publics: bytes
    mask_secret: bytes
    seed: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Ready(Secret):
    """Everything but the vector is here. Arrays run over the neighbours in U2, ascending; shares: uint8[m, 2, 40]."""

    session_id: bytes
    position: int
    shared: Members
    neighbours: NDArray[np.uint32]
    neighbour_ids: NDArray[np.uint64]
    mask_publics: bytes
    mask_secret: bytes
    seed: bytes
    shares: Bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Masked(Secret):
    """The masked vector is out; the survivor set is awaited."""

    session_id: bytes
    position: int
    shared: Members
    neighbours: NDArray[np.uint32]
    shares: Bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Released:
    """One kind of share of each neighbour is out, for good; no secret is left."""

    session_id: bytes


ClientState = Idle | Advertised | Shared | Ready | Masked | Released


def advertise_keys(
    party: Party, invitation: Invitation, announced_round: bytes, randomness: Randomness
) -> tuple[Advertised, KeyAdvertisement]:
    """Draw both key pairs and the self-mask seed; round 0 of the papers.

    Raises:
        ServerFault: the server invites to a round with other parameters or another context than this client pins.
    """
    identifier = round_id(party.params, party.context, invitation.nonce)
    if announced_round != identifier:
        raise ServerFault("the invitation is to a round with other parameters or another context than this client's")
    channel_key = AgreementKey.from_bytes(draw(randomness, 32))
    mask_key = AgreementKey.from_bytes(draw(randomness, 32))
    seed = draw(randomness, SEED_BYTES)
    state = Advertised(
        round_id=identifier,
        channel_secret=channel_key.secret_bytes(),
        mask_secret=mask_key.secret_bytes(),
        seed=seed,
    )
    message = KeyAdvertisement(
        channel_public=channel_key.public,
        mask_public=mask_key.public,
        seed_commitment=seed_commitment(identifier, party.client_id, seed),
    )
    return state, message


def share_keys(
    party: Party, state: Advertised, roster: Roster, randomness: Randomness
) -> tuple[Shared, EncryptedShares]:
    """Deal shares of the mask key and the seed to every neighbour in U1; round 1 of the papers.

    Raises:
        ServerFault: the roster misses this client, alters its entry, repeats its keys or makes it its own neighbour.
        TooFewClients: fewer than S advertised, or fewer than t of the neighbourhood.
        PeerFault: a neighbour advertised a key that no honest client does.
    """
    params = party.params
    channel_key = AgreementKey.from_bytes(state.channel_secret)
    mask_key = AgreementKey.from_bytes(state.mask_secret)
    position = _own_position(party, state, roster, channel_key, mask_key)
    neighbours = _advertised_neighbours(params, roster, position)
    session = session_id(state.round_id, roster.encode_common())
    dealt = share(
        [state.mask_secret, state.seed],
        threshold=params.threshold,
        points=neighbours.astype(np.uint64) + np.uint64(1),
        randomness=randomness,
    )
    row = np.cumsum(roster.advertised) - 1
    entries = roster.entries[row[neighbours]]
    neighbour_ids = roster.ids[neighbours]
    sealed, opening = [], []
    for index, peer in enumerate(neighbours.tolist()):
        secret = _agree(channel_key, entries[index, :PUBLIC_BYTES].tobytes(), int(neighbour_ids[index]))
        sealing_key, opening_key = channel_keys(secret, session, position, peer)
        aad = share_aad(session, Kind.ENCRYPTED_SHARES, position, peer)
        sealed.append(seal_once(sealing_key, dealt[index].tobytes(), aad))
        opening.append(opening_key)
    shared = Shared(
        session_id=session,
        position=position,
        advertised=roster.advertised,
        neighbours=neighbours,
        neighbour_ids=neighbour_ids,
        opening_keys=b"".join(opening),
        mask_publics=entries[:, PUBLIC_BYTES : 2 * PUBLIC_BYTES].tobytes(),
        mask_secret=state.mask_secret,
        seed=state.seed,
    )
    body = np.frombuffer(b"".join(sealed), dtype=np.uint8).reshape(-1, SEALED_SHARES_BYTES)
    return shared, EncryptedShares(sealed=body)


def receive_shares(party: Party, state: Shared, relay: RelayedShares) -> Ready:
    """Open the neighbours' shares, so that a bad one shows before any input is masked.

    Raises:
        ServerFault: U2 holds somebody who never advertised, or misses this client.
        TooFewClients: U2 is below S in all, or below t in the neighbourhood.
        PeerFault: what a neighbour sealed does not open, or is no share.
    """
    if not relay.shared[state.position] or (relay.shared & ~state.advertised).any():
        raise ServerFault("the set of clients that shared keys misses this one or holds one that never advertised")
    present = relay.shared[state.neighbours]
    _check_floors(party.params, relay.shared, int(present.sum()), "clients that shared keys")
    neighbours, ids = state.neighbours[present], state.neighbour_ids[present]
    opened = []
    for index, (slot, peer) in enumerate(zip(np.flatnonzero(present).tolist(), neighbours.tolist(), strict=True)):
        key = state.opening_keys[CHANNEL_KEY_BYTES * slot : CHANNEL_KEY_BYTES * (slot + 1)]
        aad = share_aad(state.session_id, Kind.ENCRYPTED_SHARES, peer, state.position)
        try:
            opened.append(open_once(key, relay.sealed[index].tobytes(), aad))
        except DecodeError:
            raise PeerFault(int(ids[index]), "the shares it sealed for this client do not open") from None
    shares = np.frombuffer(b"".join(opened), dtype=np.uint8).reshape(-1, 2, SHARE_BYTES)
    _check_canonical(shares, ids)
    publics = np.frombuffer(state.mask_publics, dtype=np.uint8).reshape(-1, PUBLIC_BYTES)
    return Ready(
        session_id=state.session_id,
        position=state.position,
        shared=relay.shared,
        neighbours=neighbours,
        neighbour_ids=ids,
        mask_publics=publics[present].tobytes(),
        mask_secret=state.mask_secret,
        seed=state.seed,
        shares=shares,
    )


def mask_input(
    party: Party,
    state: Ready,
    vector: NDArray[np.floating],
    weight: int,
    randomness: Randomness,
    *,
    prefix: bytes,
    threads: int,
) -> tuple[Masked, bytes, float]:
    """Quantise, weight, mask and pack the vector; round 2 of the papers.

    Args:
        party: who this is.
        state: what the client knows.
        vector: float32[d] or float64[d], finite.
        weight: 1 to max_weight.
        randomness: source of the rounding's key.
        prefix: bytes to stand before the body, the message's header.
        threads: how many threads share the work.

    Returns:
        The next state, prefix and body in one piece, and the share of coordinates that were clipped.

    Raises:
        InputError: the vector or weight is not as described.
        PeerFault: a neighbour advertised a key that no honest client does.
    """
    params = party.params
    rounding_key = draw(randomness, MASK_KEY_BYTES)
    mask_key = AgreementKey.from_bytes(state.mask_secret)
    keys = [self_mask_key(state.seed, state.session_id, params, state.position, MASK_KEY_BYTES)]
    for index, (peer, client_id) in enumerate(
        zip(state.neighbours.tolist(), state.neighbour_ids.tolist(), strict=True)
    ):
        public = state.mask_publics[PUBLIC_BYTES * index : PUBLIC_BYTES * (index + 1)]
        secret = _agree(mask_key, public, client_id)
        keys.append(pairwise_mask_key(secret, state.session_id, params, state.position, peer, MASK_KEY_BYTES))
    subtract = np.concatenate([[False], state.neighbours < state.position])
    payload, clipped = mask_vector(
        vector,
        weight,
        params,
        keys=MaskKeys.expand(b"".join(keys)),
        subtract=subtract,
        rounding_key=rounding_key,
        prefix=prefix,
        threads=threads,
    )
    masked = Masked(
        session_id=state.session_id,
        position=state.position,
        shared=state.shared,
        neighbours=state.neighbours,
        shares=state.shares,
    )
    return masked, payload, clipped


def unmask(party: Party, state: Masked, request: UnmaskRequest) -> tuple[Released, UnmaskShares]:
    """Release, of each neighbour, the seed's share if its input is in the sum and the mask key's share otherwise.

    Raises:
        ServerFault: U3 misses this client, or holds one that never shared keys.
        TooFewClients: U3 is below S in all, or below t in the neighbourhood.
    """
    survivors = request.survivors
    if not survivors[state.position] or (survivors & ~state.shared).any():
        raise ServerFault("the set of survivors misses this client or holds one that never shared keys")
    survived = survivors[state.neighbours]
    _check_floors(party.params, survivors, int(survived.sum()), "survivors")
    kinds = np.where(survived, SEED_SHARE, MASK_KEY_SHARE)
    released = state.shares[np.arange(len(kinds)), kinds]
    return Released(session_id=state.session_id), UnmaskShares(shares=released)


def _own_position(
    party: Party, state: Advertised, roster: Roster, channel_key: AgreementKey, mask_key: AgreementKey
) -> int:
    position = int(np.searchsorted(roster.ids, np.uint64(party.client_id)))
    if position == len(roster.ids) or int(roster.ids[position]) != party.client_id or not roster.advertised[position]:
        raise ServerFault("the roster does not hold this client")
    own = KeyAdvertisement(
        channel_public=channel_key.public,
        mask_public=mask_key.public,
        seed_commitment=seed_commitment(state.round_id, party.client_id, state.seed),
    ).encode()
    row = int(roster.advertised[:position].sum())
    if roster.entries[row].tobytes() != own:
        raise ServerFault("the roster alters this client's entry")
    publics = np.ascontiguousarray(roster.entries[:, : 2 * PUBLIC_BYTES]).reshape(-1, PUBLIC_BYTES)
    if not _are_canonical(publics):
        raise ServerFault("the roster holds a key in a form that no honest client sends")
    for key in (channel_key.public, mask_key.public):
        if int((publics == np.frombuffer(key, dtype=np.uint8)).all(axis=1).sum()) != 1:
            raise ServerFault("the roster holds this client's keys more than once")
    return position


def _are_canonical(publics: Bytes) -> bool:
    """Tell whether every X25519 key (uint8[m, 32]) is below 2**255 - 19, so that equal points have equal bytes."""
    high = publics[:, 31]
    wraps = (high == 0x7F) & (publics[:, 1:31] == 0xFF).all(axis=1) & (publics[:, 0] >= 0xED)
    return not (wraps | (high > 0x7F)).any()


def _advertised_neighbours(params: RoundParams, roster: Roster, position: int) -> NDArray[np.uint32]:
    if roster.neighbours is None:
        everybody = np.arange(params.clients, dtype=np.uint32)
        neighbours = everybody[everybody != position]
    else:
        neighbours = roster.neighbours
        if (neighbours == position).any():
            raise ServerFault("the roster makes this client its own neighbour")
    present: NDArray[np.uint32] = neighbours[roster.advertised[neighbours]]
    _check_floors(params, roster.advertised, len(present), "clients that advertised keys")
    return present


def _check_floors(params: RoundParams, members: Members, neighbours: int, what: str) -> None:
    """Both floors of the round: S in all, t in this client's neighbourhood."""
    if (have := int(members.sum())) < params.minimum_survivors:
        raise TooFewClients(have, params.minimum_survivors, what)
    if neighbours < params.threshold:
        raise TooFewClients(neighbours, params.threshold, f"{what} among this client's neighbours")


def _check_canonical(shares: Bytes, ids: NDArray[np.uint64]) -> None:
    try:
        check_shares(shares)
    except DecodeError:
        for share_pair, client_id in zip(shares, ids.tolist(), strict=True):
            try:
                check_shares(share_pair[None])
            except DecodeError:
                raise PeerFault(client_id, "the shares it sealed for this client are no shares") from None


def _agree(key: AgreementKey, public: bytes, client_id: int) -> bytes:
    try:
        return key.exchange(public)
    except DecodeError:
        raise PeerFault(client_id, "it advertised a key of low order") from None
