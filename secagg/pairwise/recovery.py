"""Unmasking: rebuild the secrets that the survivors' shares hold, check each, and take its masks off the sum.

Source: CCS 2017 figure 4, round 4; SPEC "Unmasking".
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from secagg.errors import DecodeError, InconsistentSum, PeerFault
from secagg.pairwise.graph import CompleteGraph
from secagg.pairwise.identifiers import pairwise_mask_key, seed_commitment, self_mask_key
from secagg.pairwise.messages import PUBLIC_BYTES
from secagg.pairwise.server import advertised_commitment, advertised_key, check_enough
from secagg.pairwise.server_states import CollectingUnmask, Round
from secagg.primitives.agreement import AgreementKey
from secagg.primitives.prg import MASK_KEY_BYTES, accumulate_batches
from secagg.primitives.shamir import reconstruct, reconstruct_without

MASKS_AT_ONCE = 256
"""How many masks are added together: the fewer, the sooner a second thread has work; the more, the fewer passes."""

SECRETS_AT_ONCE = 256
"""How many secrets are rebuilt together; in the complete graph they share their holders, and so most of the work."""


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
    params = current.params
    publics = _mask_publics(state)
    for position, secret in _secrets(current, state):
        if state.survivors[position]:
            yield self_mask_key(secret, state.session_id, params, position, MASK_KEY_BYTES), True
            continue
        key = AgreementKey.from_bytes(secret)
        neighbours = state.graph.neighbours(position)
        for peer in neighbours[state.survivors[neighbours]].tolist():
            shared = key.exchange(publics[peer])
            yield (
                pairwise_mask_key(shared, state.session_id, params, peer, position, MASK_KEY_BYTES),
                peer < position,
            )


def _mask_publics(state: CollectingUnmask) -> dict[int, bytes]:
    columns = state.roster.entries[:, PUBLIC_BYTES : 2 * PUBLIC_BYTES].tobytes()
    keys = [columns[at : at + PUBLIC_BYTES] for at in range(0, len(columns), PUBLIC_BYTES)]
    return dict(zip(np.flatnonzero(state.roster.advertised).tolist(), keys, strict=True))


def _secrets(current: Round, state: CollectingUnmask) -> Iterator[tuple[int, bytes]]:
    """Rebuild and check one secret of everybody in U2: a survivor's seed, or the mask key of one that dropped."""
    owners = np.flatnonzero(state.shared)
    for first in range(0, len(owners), SECRETS_AT_ONCE):
        batch = owners[first : first + SECRETS_AT_ONCE]
        try:
            secrets = _rebuild(current, state, batch)
        except DecodeError:
            # Some owner's shares belong to no secret at all: one at a time shows whose
            secrets = [_rebuild_or_nothing(current, state, batch[i : i + 1]) for i in range(len(batch))]
        for position, secret in zip(batch.tolist(), secrets, strict=True):
            if not _is_advertised(current, state, position, secret):
                # Where every release opens its dealer's commitment, nobody but the dealer can have caused this
                proved = current.params.threat == "malicious-server"
                who = "" if proved else ": it dealt wrong ones, or a holder released one"
                reason = f"its shares do not rebuild what it advertised{who}"
                raise PeerFault(int(current.ids[position]), reason, proof=proved)
            yield position, secret


def _rebuild_or_nothing(current: Round, state: CollectingUnmask, owner: NDArray[np.intp]) -> bytes:
    try:
        return _rebuild(current, state, owner)[0]
    except DecodeError:
        return b""


def _rebuild(current: Round, state: CollectingUnmask, owners: NDArray[np.intp]) -> list[bytes]:
    threshold, graph = current.params.threshold, state.graph
    if isinstance(graph, CompleteGraph):
        return _rebuild_complete(threshold, graph, state, owners)
    secrets = []
    for owner in owners.tolist():
        neighbours, slots = graph.neighbours(owner), graph.slots(owner)
        holding = np.flatnonzero(state.received[neighbours])[:threshold]
        shares = state.held[neighbours[holding], slots[holding]][:, None]
        secrets += reconstruct(_points(neighbours[holding]), shares)
    return secrets


def _rebuild_complete(
    threshold: int, graph: CompleteGraph, state: CollectingUnmask, owners: NDArray[np.intp]
) -> list[bytes]:
    """Rebuild from the same t + 1 holders for everybody: an owner among them misses its own share only."""
    holders = np.flatnonzero(state.received)[: threshold + 1]
    own = holders[:, None] == owners
    shares = state.held[holders[:, None], np.where(own, 0, graph.slot_of(holders[:, None], owners))]
    shares[own] = 0
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


def _is_advertised(current: Round, state: CollectingUnmask, position: int, secret: bytes) -> bool:
    if not secret:
        return False
    if state.survivors[position]:
        rebuilt = seed_commitment(current.round_id, int(current.ids[position]), secret)
        return hmac.compare_digest(rebuilt, advertised_commitment(state, position))
    return hmac.compare_digest(AgreementKey.from_bytes(secret).public, advertised_key(state, position))


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
