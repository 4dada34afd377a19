"""A client's steps: each takes one frozen state and a message and returns the next state and a message.

A step that raises has changed nothing. Steps check in the order that SPEC "Client" lists; none reads a clock, a socket
or a global, and randomness is an argument. Source: CCS 2017 figure 4; CCS 2020 algorithm 2.
"""

from __future__ import annotations

import hmac
from dataclasses import replace
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from secagg.errors import DecodeError, PeerFault, ServerFault
from secagg.identity import Directory, Identity
from secagg.pairwise import commitments
from secagg.pairwise.client_states import (
    Advertised,
    Fixed,
    Masked,
    Party,
    Place,
    Ready,
    Shared,
)
from secagg.pairwise.floors import check_floors, check_neighbours, check_survivors
from secagg.pairwise.identifiers import (
    CHANNEL_KEY_BYTES,
    accepted_digest,
    beacon_digest,
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
    ADVERTISEMENT_BYTES,
    FORMATS,
    PUBLIC_BYTES,
    Bytes,
    EncryptedShares,
    Invitation,
    KeyAdvertisement,
    Kind,
    RelayedShares,
    Roster,
)
from secagg.primitives.aead import open_once, seal_once
from secagg.primitives.agreement import AgreementKey
from secagg.primitives.prg import MASK_KEY_BYTES, MaskKeys
from secagg.primitives.randomness import Randomness, draw
from secagg.primitives.shamir import SHARE_BYTES, check_shares, share
from secagg.wire import Header

SEED_BYTES = 32


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
    message = KeyAdvertisement(
        channel_public=channel_key.public,
        mask_public=mask_key.public,
        seed_commitment=seed_commitment(identifier, party.client_id, seed),
    )
    state = Advertised(
        round_id=identifier,
        advertisement=message.encode(),
        channel_secret=channel_key.secret_bytes(),
        mask_secret=mask_key.secret_bytes(),
        seed=seed,
    )
    return state, message


def fix_roster(party: Party, state: Advertised, roster: Roster, identity: Identity | None) -> Fixed:
    """Check the roster and compute the session's identifier from it; from here on nobody can join or change keys.

    Raises:
        ServerFault: the roster is not the cohort of the identity's directory, misses this client, alters its entry, or
            repeats its keys.
        TooFewClients: fewer than S advertised.
    """
    if identity is not None and list(identity.directory) != roster.ids.tolist():
        raise ServerFault("the roster is not the directory's cohort")
    position = _own_position(party, state, roster)
    check_survivors(party.params, roster.advertised, "clients that advertised keys")
    return Fixed(
        round_id=state.round_id,
        session_id=session_id(state.round_id, roster.encode_common(), party.directory),
        position=position,
        roster=roster,
        channel_secret=state.channel_secret,
        mask_secret=state.mask_secret,
        seed=state.seed,
    )


def share_keys(
    party: Party,
    state: Fixed,
    neighbourhood: NDArray[np.uint32],
    randomness: Randomness,
    *,
    identity: Identity | None,
    beacon: bytes | None,
) -> tuple[Shared, EncryptedShares]:
    """Deal shares of the mask key and the seed to every neighbour in U1; round 1 of the papers.

    Args:
        party: who this is.
        state: the fixed roster.
        neighbourhood: positions of all k neighbours, ascending.
        randomness: source of the polynomials and salts.
        identity: this client's, in the malicious-server model.
        beacon: what drew the neighbourhood; None in the complete graph and in the semi-honest model.

    Raises:
        ServerFault: the server made this client its own neighbour.
        TooFewClients: fewer than t of the neighbourhood advertised.
        PeerFault: a neighbour advertised a key that no honest client does, or did not sign its advertisement.
    """
    params, roster, position = party.params, state.roster, state.position
    if (neighbourhood == position).any():
        raise ServerFault("the roster makes this client its own neighbour")
    neighbours: NDArray[np.uint32] = neighbourhood[roster.advertised[neighbourhood]]
    check_neighbours(params, len(neighbours), "clients that advertised keys")
    row = np.cumsum(roster.advertised) - 1
    entries, ids = roster.entries[row[neighbours]], roster.ids[neighbours]
    if identity is not None:
        _check_advertisements(identity.directory, state.round_id, entries, ids)
    records = share(
        [state.mask_secret, state.seed],
        threshold=params.threshold,
        points=neighbours.astype(np.uint64) + np.uint64(1),
        randomness=randomness,
    )
    if identity is not None:
        records = commitments.with_salts(records, randomness)
    channel_key = AgreementKey.from_bytes(state.channel_secret)
    dealt, opening = [], []
    for index, peer in enumerate(neighbours.tolist()):
        secret = _agree(channel_key, entries[index, :PUBLIC_BYTES].tobytes(), int(ids[index]))
        sealing_key, opening_key = channel_keys(secret, state.session_id, position, peer)
        aad = share_aad(state.session_id, Kind.ENCRYPTED_SHARES, position, peer)
        dealt.append(seal_once(sealing_key, records[index].tobytes(), aad))
        if identity is not None:
            dealt.append(commitments.commit(identity, state.session_id, position, peer, records[index]))
        opening.append(opening_key)
    shared = Shared(
        place=Place(session_id=state.session_id, position=position, ids=roster.ids, neighbours=neighbours),
        beacon=b"" if identity is None else beacon_digest(beacon),
        advertised=roster.advertised,
        opening_keys=b"".join(opening),
        mask_publics=entries[:, PUBLIC_BYTES : 2 * PUBLIC_BYTES].tobytes(),
        mask_secret=state.mask_secret,
        seed=state.seed,
    )
    body = np.frombuffer(b"".join(dealt), dtype=np.uint8).reshape(-1, FORMATS[params.threat].dealt_bytes)
    return shared, EncryptedShares(sealed=body)


def receive_shares(party: Party, state: Shared, relay: RelayedShares, directory: Directory | None) -> Ready:
    """Open the neighbours' shares, so that a bad one shows before any input is masked.

    Raises:
        ServerFault: U2 holds somebody who never advertised, or misses this client.
        TooFewClients: U2 is below S in all, or below t in the neighbourhood.
        PeerFault: what a neighbour sealed does not open, is no share, or differs from its signed commitments.
    """
    if not relay.shared[state.position] or (relay.shared & ~state.advertised).any():
        raise ServerFault("the set of clients that shared keys misses this one or holds one that never advertised")
    present = relay.shared[state.neighbours]
    check_floors(party.params, relay.shared, int(present.sum()), "clients that shared keys")
    neighbours = state.neighbours[present]
    ids = state.ids[neighbours]
    form = FORMATS[party.params.threat]
    opened = []
    for index, (slot, peer) in enumerate(zip(np.flatnonzero(present).tolist(), neighbours.tolist(), strict=True)):
        key = state.opening_keys[CHANNEL_KEY_BYTES * slot : CHANNEL_KEY_BYTES * (slot + 1)]
        aad = share_aad(state.session_id, Kind.ENCRYPTED_SHARES, peer, state.position)
        dealt, dealer_id = relay.sealed[index].tobytes(), int(ids[index])
        try:
            records = open_once(key, dealt[: form.sealed_bytes], aad)
            if directory is not None:
                committed = dealt[form.sealed_bytes :]
                commitments.check_dealt(
                    directory, dealer_id, state.session_id, peer, state.position, records, committed
                )
        except DecodeError as problem:
            raise PeerFault(dealer_id, f"the shares it sealed for this client are refused: {problem}") from None
        opened.append(records)
    shares = np.frombuffer(b"".join(opened), dtype=np.uint8).reshape(-1, 2, form.release_bytes)
    _check_canonical(shares, ids)
    publics = np.frombuffer(state.mask_publics, dtype=np.uint8).reshape(-1, PUBLIC_BYTES)
    return Ready(
        place=replace(state.place, neighbours=neighbours),
        shared=relay.shared,
        accepted=b"" if directory is None else accepted_digest(state.session_id, state.beacon, relay.encode()),
        mask_publics=publics[present].tobytes(),
        mask_secret=state.mask_secret,
        seed=state.seed,
        shares=shares,
    )


def mask_input(
    party: Party,
    state: Ready,
    vector: NDArray[np.floating],
    weight: SupportsIndex,
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
    for index, peer in enumerate(state.neighbours.tolist()):
        public = state.mask_publics[PUBLIC_BYTES * index : PUBLIC_BYTES * (index + 1)]
        secret = _agree(mask_key, public, int(state.ids[peer]))
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
    masked = Masked(place=state.place, shared=state.shared, shares=state.shares)
    return masked, payload, clipped


def _own_position(party: Party, state: Advertised, roster: Roster) -> int:
    position = int(np.searchsorted(roster.ids, np.uint64(party.client_id)))
    if position == len(roster.ids) or int(roster.ids[position]) != party.client_id or not roster.advertised[position]:
        raise ServerFault("the roster does not hold this client")
    row = int(roster.advertised[:position].sum())
    if not hmac.compare_digest(roster.entries[row, :ADVERTISEMENT_BYTES].tobytes(), state.advertisement):
        raise ServerFault("the roster alters this client's entry")
    publics = np.ascontiguousarray(roster.entries[:, : 2 * PUBLIC_BYTES]).reshape(-1, PUBLIC_BYTES)
    if not _are_canonical(publics):
        raise ServerFault("the roster holds a key in a form that no honest client sends")
    own = KeyAdvertisement.decode(memoryview(state.advertisement))
    for key in (own.channel_public, own.mask_public):
        if int((publics == np.frombuffer(key, dtype=np.uint8)).all(axis=1).sum()) != 1:
            raise ServerFault("the roster holds this client's keys more than once")
    return position


def _check_advertisements(
    directory: Directory, round_identifier: bytes, entries: Bytes, ids: NDArray[np.uint64]
) -> None:
    for entry, client_id in zip(entries, ids.tolist(), strict=True):
        header = Header(kind=Kind.KEY_ADVERTISEMENT, sender=client_id, session=round_identifier)
        signed = entry.tobytes()
        try:
            directory.check(client_id, header, signed[:ADVERTISEMENT_BYTES], signed[ADVERTISEMENT_BYTES:])
        except DecodeError as problem:
            raise PeerFault(client_id, f"its advertisement in the roster is not authentic: {problem}") from None


def _are_canonical(publics: Bytes) -> bool:
    """Tell whether every X25519 key (uint8[m, 32]) is below 2**255 - 19, so that equal points have equal bytes."""
    high = publics[:, 31]
    wraps = (high == 0x7F) & (publics[:, 1:31] == 0xFF).all(axis=1) & (publics[:, 0] >= 0xED)
    return not (wraps | (high > 0x7F)).any()


def _check_canonical(shares: Bytes, ids: NDArray[np.uint64]) -> None:
    values = np.ascontiguousarray(shares[..., :SHARE_BYTES])
    try:
        check_shares(values)
    except DecodeError:
        for pair, client_id in zip(values, ids.tolist(), strict=True):
            try:
                check_shares(pair)
            except DecodeError:
                raise PeerFault(client_id, "the shares it sealed for this client are no shares") from None


def _agree(key: AgreementKey, public: bytes, client_id: int) -> bytes:
    try:
        return key.exchange(public)
    except DecodeError:
        raise PeerFault(client_id, "it advertised a key of low order") from None
