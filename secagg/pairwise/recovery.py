"""Unmasking: rebuild the secrets that the survivors' shares hold, check each, and take its masks off the sum.

Source: CCS 2017 figure 4, round 4; SPEC "Unmasking".
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from secagg.errors import DecodeError, InconsistentSum, PeerFault
from secagg.pairwise.evidence import ContradictoryDealer
from secagg.pairwise.graph import CompleteGraph
from secagg.pairwise.identifiers import pairwise_mask_key, seed_commitment, self_mask_key
from secagg.pairwise.messages import ADVERTISEMENT_BYTES, MASK_KEY_SHARE, PUBLIC_BYTES, SEED_SHARE, Members
from secagg.pairwise.server_states import CollectingUnmask, Round
from secagg.pairwise.server_steps import check_enough
from secagg.primitives.agreement import AgreementKey, parse_public
from secagg.primitives.prg import MASK_KEY_BYTES, accumulate_batches
from secagg.primitives.shamir import SHARE_BYTES, reconstruct, reconstruct_each, reconstruct_without

MASKS_AT_ONCE = 256
"""How many masks are added together: the fewer, the sooner a second thread has work; the more, the fewer passes."""

SECRETS_AT_ONCE = 256
"""How many secrets are rebuilt together; in the complete graph they share their holders, and so most of the work."""

# Where an advertisement holds what is checked
_MASK_PUBLIC = slice(PUBLIC_BYTES, 2 * PUBLIC_BYTES)
_COMMITMENT = slice(2 * PUBLIC_BYTES, ADVERTISEMENT_BYTES)


def unmask_sum(current: Round, state: CollectingUnmask, *, threads: int) -> NDArray[np.unsignedinteger]:
    """Return the sum in the clear, b bits a value, weight last; the state keeps its masked sum.

    Raises:
        TooFewClients: fewer than t shares of some secret are here.
        PeerFault: a client's shares rebuild something else than it advertised.
        InconsistentSum: the values cannot be the sum of inputs in range.
    """
    check_enough(current, state)
    params = current.params
    words = state.accumulator.copy()
    accumulate_batches(words, _batches(_masks(current, state)), threads=threads)
    words &= words.dtype.type((1 << params.ring_bits) - 1)
    _check_range(current, state, words)
    return words


def _check_range(current: Round, state: CollectingUnmask, words: NDArray[np.unsignedinteger]) -> None:
    params, survivors = current.params, int(state.survivors.sum())
    weight = int(words[-1])
    largest = int(words[:-1].max(initial=0))
    if not survivors <= weight <= survivors * params.max_weight or largest > weight * params.encoding.largest_code:
        raise InconsistentSum("the sum is out of range: some survivor's upload was not formed as agreed")


def _masks(current: Round, state: CollectingUnmask) -> Iterator[tuple[bytes, bool]]:
    """Yield the key of every mask still in the sum, and whether taking it off means subtracting."""
    params, session = current.params, state.session_id
    # Each key is parsed once, though every neighbour of it that dropped is agreed with
    publics = {one: parse_public(entry[_MASK_PUBLIC]) for one, entry in _advertised(state, state.survivors)}
    for position, secret in _secrets(current, state):
        if isinstance(secret, bytes):
            yield self_mask_key(secret, session, params, position, MASK_KEY_BYTES), True
            continue
        neighbours = state.graph.neighbours(position)
        for peer in neighbours[state.survivors[neighbours]].tolist():
            shared = secret.exchange(publics[peer])
            yield pairwise_mask_key(shared, session, params, peer, position, MASK_KEY_BYTES), peer < position


def _advertised(state: CollectingUnmask, members: Members) -> Iterator[tuple[int, bytes]]:
    """Yield the position and the advertisement of each of ``members``, all of them in U1."""
    rows = state.roster.entries[members[state.roster.advertised], :ADVERTISEMENT_BYTES]
    for position, row in zip(np.flatnonzero(members).tolist(), rows, strict=True):
        yield position, row.tobytes()


def _secrets(current: Round, state: CollectingUnmask) -> Iterator[tuple[int, bytes | AgreementKey]]:
    """Rebuild and check one secret of everybody in U2: a survivor's seed, or the mask key of one that dropped."""
    entries = _advertised(state, state.shared)
    owners = np.flatnonzero(state.shared)
    for first in range(0, len(owners), SECRETS_AT_ONCE):
        batch = owners[first : first + SECRETS_AT_ONCE]
        try:
            secrets = _rebuild(current, state, batch)
        except DecodeError:
            # Some owner's shares belong to no secret at all: one at a time shows whose
            secrets = [_rebuild_or_nothing(current, state, batch[i : i + 1]) for i in range(len(batch))]
        for secret, (position, entry) in zip(secrets, entries, strict=False):
            checked = _checked(current, state, position, secret, entry)
            if checked is None:
                # Where every release opens its dealer's commitment, nobody but the dealer can have caused this
                proved = current.params.threat == "malicious-server"
                who = "" if proved else ": it dealt wrong ones, or a holder released one"
                reason = f"its shares do not rebuild what it advertised{who}"
                evidence = _contradiction(current, state, position) if proved else None
                raise PeerFault(int(current.ids[position]), reason, proof=proved, evidence=evidence)
            yield position, checked


def _contradiction(current: Round, state: CollectingUnmask, dealer: int) -> ContradictoryDealer:
    """Gather the dealer's own signed commitments and the records that open them but rebuild something else."""
    neighbours, slots = state.graph.neighbours(dealer), state.graph.slots(dealer)
    holding = np.flatnonzero(state.received[neighbours])[: current.params.threshold]
    holders = neighbours[holding]
    return ContradictoryDealer(
        dealer=dealer,
        kind=SEED_SHARE if state.survivors[dealer] else MASK_KEY_SHARE,
        dealt=state.sealed[dealer, state.roster.advertised[neighbours]].tobytes(),
        signature=state.signed.shares[dealer].tobytes(),
        holders=tuple(holders.tolist()),
        records=state.held[holders, slots[holding]].tobytes(),
    )


def _rebuild_or_nothing(current: Round, state: CollectingUnmask, owner: NDArray[np.intp]) -> bytes:
    try:
        (secret,) = _rebuild(current, state, owner)
    except DecodeError:
        return b""
    return secret


def _rebuild(current: Round, state: CollectingUnmask, owners: NDArray[np.intp]) -> list[bytes]:
    threshold, graph = current.params.threshold, state.graph
    if isinstance(graph, CompleteGraph):
        return _rebuild_complete(threshold, graph, state, owners)
    # The first t holders in each owner's row: a stable sort puts those that answered before all others
    holding = np.argsort(~state.received[graph.rows[owners]], axis=1, kind="stable")[:, :threshold]
    holders = np.take_along_axis(graph.rows[owners], holding, axis=1)
    slots = np.take_along_axis(graph.reverse[owners], holding, axis=1)
    return reconstruct_each(_points(holders), state.held[holders, slots, :SHARE_BYTES])


def _rebuild_complete(
    threshold: int, graph: CompleteGraph, state: CollectingUnmask, owners: NDArray[np.intp]
) -> list[bytes]:
    """Rebuild from the same t + 1 holders for everybody: an owner among them misses its own share only."""
    holders = np.flatnonzero(state.received)[: threshold + 1]
    own = holders[:, None] == owners
    # In place of a share that is missing any other stands, and is ignored
    shares = state.held[holders[:, None], np.where(own, 0, graph.slot_of(holders[:, None], owners)), :SHARE_BYTES]
    among = own.any(axis=0)
    secrets = np.empty(len(owners), dtype=object)
    if among.any():
        missing = own[:, among].argmax(axis=0)
        secrets[among] = reconstruct_without(_points(holders), shares[:, among], missing)
    if not among.all():
        secrets[~among] = reconstruct(_points(holders[:threshold]), shares[:threshold, ~among])
    rebuilt: list[bytes] = secrets.tolist()
    return rebuilt


def _points(positions: NDArray[np.integer]) -> NDArray[np.uint64]:
    return positions.astype(np.uint64) + np.uint64(1)


def _checked(
    current: Round, state: CollectingUnmask, position: int, secret: bytes, entry: bytes
) -> bytes | AgreementKey | None:
    """Return a survivor's seed, or the key pair of one that dropped, if it is what ``entry`` advertised; else None."""
    if not secret:
        return None
    if state.survivors[position]:
        rebuilt = seed_commitment(current.round_id, int(current.ids[position]), secret)
        return secret if hmac.compare_digest(rebuilt, entry[_COMMITMENT]) else None
    key = AgreementKey.from_bytes(secret)
    return key if hmac.compare_digest(key.public, entry[_MASK_PUBLIC]) else None


def _batches(masks: Iterator[tuple[bytes, bool]]) -> Iterator[tuple[bytes, NDArray[np.bool_]]]:
    keys, subtract = [], []
    for key, minus in masks:
        keys.append(key)
        subtract.append(minus)
        if len(keys) == MASKS_AT_ONCE:
            yield b"".join(keys), np.array(subtract)
            keys, subtract = [], []
    if keys:
        yield b"".join(keys), np.array(subtract)
