"""The server's steps: ``fold_*`` takes one client's message in, ``close_*`` ends a stage with whoever answered.

A fold checks everything before it changes anything, so a message that raises was not counted. A masked input is added
to the one running accumulator and dropped: memory does not grow with the cohort. Source: CCS 2017 figure 4; CCS 2020
algorithm 2; SPEC "Server".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secagg.encoding.ring import lane_dtype, packed_bytes, padding_is_zero, unpack_add
from secagg.errors import DecodeError, PeerFault, TooFewClients
from secagg.pairwise.graph import CompleteGraph, HararyGraph, MaskingGraph, draw_ring
from secagg.pairwise.identifiers import session_id
from secagg.pairwise.messages import (
    ENTRY_BYTES,
    PUBLIC_BYTES,
    SEALED_SHARES_BYTES,
    Bytes,
    EncryptedShares,
    KeyAdvertisement,
    Members,
    RelayedShares,
    Roster,
    UnmaskRequest,
    UnmaskShares,
)
from secagg.params import RoundParams
from secagg.primitives.agreement import is_canonical, is_low_order
from secagg.primitives.randomness import Randomness
from secagg.primitives.shamir import SHARE_BYTES
from secagg.wire import expect_length


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Round:
    """What the server fixes before anybody answers. ``ids`` ascends strictly: uint64[n]."""

    params: RoundParams
    ids: NDArray[np.uint64]
    round_id: bytes
    nonce: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CollectingKeys:
    """Invitations are out. ``entries`` is uint8[n, 96], filled where ``received``."""

    entries: Bytes
    received: Members


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CollectingShares:
    """The roster is out. ``sealed`` is uint8[n, k, 96]: a sender's row runs over all its neighbours, ascending."""

    session_id: bytes
    roster: Roster
    graph: MaskingGraph
    sealed: Bytes
    received: Members


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CollectingInputs:
    """Shares are relayed. ``shared`` is U2; ``accumulator`` holds the sum of the masked inputs ``received``."""

    session_id: bytes
    roster: Roster
    graph: MaskingGraph
    sealed: Bytes
    shared: Members
    accumulator: NDArray[np.unsignedinteger]
    received: Members


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CollectingUnmask:
    """Survivors (U3) are announced. ``held`` is uint8[n, k, 40]: a holder's row runs over all its neighbours."""

    session_id: bytes
    roster: Roster
    graph: MaskingGraph
    shared: Members
    survivors: Members
    accumulator: NDArray[np.unsignedinteger]
    held: Bytes
    received: Members


Collecting = CollectingKeys | CollectingShares | CollectingInputs | CollectingUnmask


def open_round(current: Round) -> CollectingKeys:
    """Begin: nobody has answered."""
    clients = current.params.clients
    return CollectingKeys(
        entries=np.zeros((clients, ENTRY_BYTES), dtype=np.uint8), received=np.zeros(clients, dtype=np.bool_)
    )


def fold_advertisement(current: Round, state: CollectingKeys, position: int, body: memoryview) -> None:
    """Take in a client's keys.

    Raises:
        DecodeError: the body is not a key advertisement.
        PeerFault: a key is of low order or not canonical, serves both purposes, or is another client's.
    """
    message = KeyAdvertisement.decode(body)
    if is_low_order(message.channel_public) or is_low_order(message.mask_public):
        raise PeerFault(int(current.ids[position]), "it advertised a key of low order")
    if not (is_canonical(message.channel_public) and is_canonical(message.mask_public)):
        raise PeerFault(int(current.ids[position]), "it advertised a key in a form that no honest client sends")
    if message.channel_public == message.mask_public:
        raise PeerFault(int(current.ids[position]), "it advertised one key for both purposes")
    if _is_known(state, message.channel_public) or _is_known(state, message.mask_public):
        raise PeerFault(int(current.ids[position]), "it advertised a key that another client advertised")
    state.entries[position] = np.frombuffer(body, dtype=np.uint8)
    state.received[position] = True


def _is_known(state: CollectingKeys, public: bytes) -> bool:
    words = state.entries.view("<u8")
    key = np.frombuffer(public, dtype="<u8")
    columns = len(key)
    return any(bool((words[words[:, at] == key[0], at : at + columns] == key).all(axis=1).any()) for at in (0, columns))


def close_keys(current: Round, state: CollectingKeys, randomness: Randomness) -> CollectingShares:
    """Fix the roster and draw the graph, hidden from the clients but for their own neighbours.

    Raises:
        TooFewClients: fewer than S advertised.
    """
    check_enough(current, state)
    params, advertised = current.params, state.received.copy()
    graph: MaskingGraph
    if params.graph == "complete":
        graph = CompleteGraph(params.clients)
    else:
        graph = HararyGraph.of_ring(draw_ring(params.clients, randomness), params.neighbours)
    roster = Roster(ids=current.ids, advertised=advertised, entries=state.entries[advertised], neighbours=None)
    return CollectingShares(
        session_id=session_id(current.round_id, roster.encode_common()),
        roster=roster,
        graph=graph,
        sealed=np.zeros((params.clients, graph.degree, SEALED_SHARES_BYTES), dtype=np.uint8),
        received=np.zeros(params.clients, dtype=np.bool_),
    )


def roster_for(state: CollectingShares, position: int) -> Roster:
    """Return the roster as one client receives it, with its neighbours where the graph is sparse."""
    roster = state.roster
    sparse = isinstance(state.graph, HararyGraph)
    return Roster(
        ids=roster.ids,
        advertised=roster.advertised,
        entries=roster.entries,
        neighbours=state.graph.neighbours(position) if sparse else None,
    )


def fold_shares(current: Round, state: CollectingShares, position: int, body: memoryview) -> None:
    """Keep a client's sealed shares for the relay.

    Raises:
        DecodeError: the body does not hold one sealed pair for each neighbour in U1.
    """
    present = state.roster.advertised[state.graph.neighbours(position)]
    message = EncryptedShares.decode(body, count=int(present.sum()))
    state.sealed[position, present] = message.sealed
    state.received[position] = True


def close_shares(current: Round, state: CollectingShares) -> CollectingInputs:
    """Fix U2: those that shared keys and have t neighbours that did too.

    A client with a smaller neighbourhood would refuse to go on, and its secrets could never be rebuilt: it counts as
    dropped before anybody masks with it.

    Raises:
        TooFewClients: U2 is below S.
    """
    params = current.params
    check_enough(current, state)
    shared = _prune(params, state.graph, state.received)
    return CollectingInputs(
        session_id=state.session_id,
        roster=state.roster,
        graph=state.graph,
        sealed=state.sealed,
        shared=shared,
        accumulator=np.zeros(params.dimension + 1, dtype=lane_dtype(params.ring_bits)),
        received=np.zeros(params.clients, dtype=np.bool_),
    )


def relay_for(state: CollectingInputs, position: int) -> RelayedShares:
    """Return what the neighbours in U2 sealed for one client: a column of the senders' rows."""
    neighbours, slots = state.graph.neighbours(position), state.graph.slots(position)
    present = state.shared[neighbours]
    return RelayedShares(shared=state.shared, sealed=state.sealed[neighbours[present], slots[present]])


def fold_input(current: Round, state: CollectingInputs, position: int, body: memoryview) -> None:
    """Add a masked input to the accumulator.

    Raises:
        DecodeError: the body is not d + 1 values of b bits, or its padding is not zero.
    """
    params = current.params
    count = params.dimension + 1
    expect_length(body, packed_bytes(count, params.ring_bits), f"a masked input of {count} values")
    packed = np.frombuffer(body, dtype=np.uint8)
    if not padding_is_zero(packed, count, params.ring_bits):
        raise DecodeError("a padding bit of a masked input is set")
    unpack_add(packed, state.accumulator, params.ring_bits)
    state.received[position] = True


def close_inputs(current: Round, state: CollectingInputs) -> CollectingUnmask:
    """Fix U3, the survivors whose inputs are in the sum.

    Raises:
        TooFewClients: U3 is below S, or some client's secrets have fewer than t holders left.
    """
    params, survivors = current.params, state.received.copy()
    check_enough(current, state)
    return CollectingUnmask(
        session_id=state.session_id,
        roster=state.roster,
        graph=state.graph,
        shared=state.shared,
        survivors=survivors,
        accumulator=state.accumulator,
        held=np.zeros((params.clients, state.graph.degree, SHARE_BYTES), dtype=np.uint8),
        received=np.zeros(params.clients, dtype=np.bool_),
    )


def survivors_request(state: CollectingUnmask) -> UnmaskRequest:
    """Return the announcement of the survivors, the same for every client."""
    return UnmaskRequest(survivors=state.survivors)


def fold_unmask_shares(current: Round, state: CollectingUnmask, position: int, body: memoryview) -> None:
    """Keep a survivor's released shares.

    Raises:
        DecodeError: the body does not hold one canonical share for each neighbour in U2.
    """
    present = state.shared[state.graph.neighbours(position)]
    message = UnmaskShares.decode(body, count=int(present.sum()))
    state.held[position, present] = message.shares
    state.received[position] = True


def advertised_key(state: CollectingUnmask, position: int) -> bytes:
    """Return the mask public key that a client in U1 advertised."""
    return _entry(state, position)[PUBLIC_BYTES : 2 * PUBLIC_BYTES].tobytes()


def advertised_commitment(state: CollectingUnmask, position: int) -> bytes:
    """Return the commitment to its seed that a client in U1 advertised."""
    return _entry(state, position)[2 * PUBLIC_BYTES :].tobytes()


def check_enough(current: Round, state: Collecting) -> None:
    """Check that the stage may close with the answers at hand.

    Raises:
        TooFewClients: it may not; the first floor that is missed.
    """
    params = current.params
    if isinstance(state, CollectingKeys):
        _check_survivors(params, state.received, "clients that advertised keys")
    elif isinstance(state, CollectingShares):
        _check_survivors(params, state.received, "clients that shared keys")
        kept = _prune(params, state.graph, state.received)
        _check_survivors(params, kept, "clients that shared keys and have t neighbours that did")
    elif isinstance(state, CollectingInputs):
        _check_survivors(params, state.received, "survivors")
        _check_holders(params, state.graph, state.shared, state.received)
    else:
        _check_holders(params, state.graph, state.shared, state.received)


def _entry(state: CollectingUnmask, position: int) -> Bytes:
    row: Bytes = state.roster.entries[int(state.roster.advertised[:position].sum())]
    return row


def _check_survivors(params: RoundParams, members: Members, what: str) -> None:
    if (have := int(members.sum())) < params.minimum_survivors:
        raise TooFewClients(have, params.minimum_survivors, what)


def _present_neighbours(graph: MaskingGraph, members: Members) -> NDArray[np.int64]:
    """Count, for every position, its neighbours among ``members``."""
    if isinstance(graph, CompleteGraph):
        return int(members.sum()) - members.astype(np.int64)
    counts: NDArray[np.int64] = members[graph.rows].sum(axis=1, dtype=np.int64)
    return counts


def _check_holders(params: RoundParams, graph: MaskingGraph, owners: Members, holders: Members) -> None:
    """Check that t of ``holders`` neighbour each of ``owners``."""
    have = int(_present_neighbours(graph, holders)[owners].min())
    if have < params.threshold:
        raise TooFewClients(have, params.threshold, "holders left of some client's shares")


def _prune(params: RoundParams, graph: MaskingGraph, members: Members) -> Members:
    """Return the largest part of ``members`` in which everybody has t neighbours."""
    kept: Members = members.copy()
    while True:
        poor = kept & (_present_neighbours(graph, kept) < params.threshold)
        if not poor.any():
            return kept
        kept &= ~poor
