"""The server's steps: ``fold_*`` takes one client's message in, ``close_*`` ends a stage with whoever answered.

A fold checks everything before it changes anything, and counts the message last: one that raises, or is interrupted,
was not counted and may come again. Masked inputs have a module of their own, ``uploads``. Source: CCS 2017 figure 4;
CCS 2020 algorithm 2; SPEC "Server".
"""

from __future__ import annotations

import hmac
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from secagg.encoding.ring import lane_dtype
from secagg.errors import LocalProtocolError, PeerFault, TooFewClients
from secagg.pairwise import commitments
from secagg.pairwise.evidence import ForgedRelease
from secagg.pairwise.graph import CompleteGraph, MaskingGraph, beacon_graph
from secagg.pairwise.identifiers import beacon_digest, consistency_digest, session_id
from secagg.pairwise.messages import (
    FORMATS,
    MASK_KEY_SHARE,
    PUBLIC_BYTES,
    SEED_SHARE,
    Consistency,
    EncryptedShares,
    KeyAdvertisement,
    Members,
    RelayedShares,
    RelayedSignatures,
    Roster,
    UnmaskRequest,
    UnmaskShares,
)
from secagg.pairwise.params import RoundParams
from secagg.pairwise.server_states import (
    Collecting,
    CollectingConsistency,
    CollectingInputs,
    CollectingKeys,
    CollectingShares,
    CollectingUnmask,
    Finished,
    Round,
    Session,
    Signed,
)
from secagg.primitives.agreement import is_canonical, is_low_order
from secagg.primitives.shamir import SHARE_BYTES
from secagg.wire import encode_bitmap


def open_round(current: Round) -> CollectingKeys:
    """Begin: nobody has answered."""
    clients, form = current.params.clients, FORMATS[current.params.threat]
    return CollectingKeys(
        entries=np.zeros((clients, form.entry_bytes), dtype=np.uint8), received=np.zeros(clients, dtype=np.bool_)
    )


def fold_advertisement(
    current: Round, state: CollectingKeys, position: int, body: memoryview, signature: bytes, known: dict[bytes, int]
) -> None:
    """Take in a client's keys, and its signature for the neighbours to check; ``known`` tells whose a key is so far.

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
    keys = (message.channel_public, message.mask_public)
    if any(known.get(key, position) != position for key in keys):
        raise PeerFault(int(current.ids[position]), "it advertised a key that another client advertised")
    state.entries[position] = np.frombuffer(bytes(body) + signature, dtype=np.uint8)
    known |= dict.fromkeys(keys, position)
    state.received[position] = True


def known_keys(state: CollectingKeys) -> dict[bytes, int]:
    """Return whose every advertised public key is, by position, for ``fold_advertisement`` to refuse it to others."""
    entries = np.ascontiguousarray(state.entries[:, : 2 * PUBLIC_BYTES])
    known: dict[bytes, int] = {}
    for position in np.flatnonzero(state.received).tolist():
        pair = entries[position].tobytes()
        known |= {pair[:PUBLIC_BYTES]: position, pair[PUBLIC_BYTES:]: position}
    return known


def close_keys(current: Round, state: CollectingKeys, *, drawn: bool) -> CollectingShares:
    """Fix the roster; an honest-but-curious server draws the graph, hidden but for each client's own neighbours.

    Args:
        current: the round.
        state: the keys.
        drawn: whether the graph is drawn now; else a beacon that is not known yet draws it.

    Raises:
        TooFewClients: fewer than S advertised.
    """
    check_enough(current, state)
    params, advertised = current.params, state.received.copy()
    roster = Roster(ids=current.ids, advertised=advertised, entries=state.entries[advertised], neighbours=None)
    session = session_id(current.round_id, roster.encode_common(), current.directory)
    graph: MaskingGraph | None = None
    if drawn and params.graph == "complete":
        graph = CompleteGraph(params.clients)
    elif drawn:
        graph = beacon_graph(params.clients, params.neighbours, session, current.ring_seed)
    return CollectingShares(
        session=Session(
            session_id=session,
            roster=roster,
            beacon=None,
            graph=graph,
            sealed=np.zeros((params.clients, params.neighbours, FORMATS[params.threat].dealt_bytes), dtype=np.uint8),
            signed=Signed.empty(params),
        ),
        received=np.zeros(params.clients, dtype=np.bool_),
    )


def use_beacon(current: Round, state: CollectingShares, beacon: bytes) -> CollectingShares:
    """Draw the graph that the beacon fixes.

    Raises:
        LocalProtocolError: no beacon is awaited.
    """
    if state.session.graph is not None:
        raise LocalProtocolError("no beacon is awaited: the graph is drawn already")
    params = current.params
    graph = beacon_graph(params.clients, params.neighbours, state.session_id, beacon)
    return replace(state, session=replace(state.session, beacon=beacon, graph=graph))


def own_neighbours(current: Round, state: CollectingShares, position: int) -> bytes:
    """Return what one client's roster holds behind the common part: its neighbours, where the server drew the graph."""
    if current.params.graph == "complete" or current.params.threat != "semi-honest":
        return b""
    return state.graph.neighbours(position).astype("<u4").tobytes()


def signed_beacon(state: Collecting) -> bytes:
    """Return what the open stage's messages are signed with besides header and body: a ``beacon_digest`` or nothing.

    Raises:
        LocalProtocolError: the beacon that draws the graph is still awaited.
    """
    if not isinstance(state, CollectingShares):
        return b""
    _ = state.graph  # which must be drawn
    return beacon_digest(state.beacon)


def fold_shares(
    current: Round, state: CollectingShares, position: int, body: memoryview, signature: bytes = b""
) -> None:
    """Keep a client's sealed shares for the relay, and its signature of them for blame.

    Raises:
        DecodeError: the body does not hold one sealed pair for each neighbour in U1.
        LocalProtocolError: the beacon that draws the graph is still awaited.
    """
    present = state.roster.advertised[state.graph.neighbours(position)]
    dealt_bytes = FORMATS[current.params.threat].dealt_bytes
    message = EncryptedShares.decode(body, count=int(present.sum()), dealt_bytes=dealt_bytes)
    state.sealed[position, present] = message.sealed
    if signature:
        state.signed.shares[position] = np.frombuffer(signature, dtype=np.uint8)
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
        session=state.session,
        shared=shared,
        accumulator=np.zeros(params.dimension + 1, dtype=lane_dtype(params.ring_bits)),
        received=np.zeros(params.clients, dtype=np.bool_),
    )


def relay_for(state: CollectingInputs | CollectingUnmask, position: int) -> RelayedShares:
    """Return what the neighbours in U2 sealed for one client: a column of the senders' rows."""
    neighbours, slots = state.graph.neighbours(position), state.graph.slots(position)
    present = state.shared[neighbours]
    return RelayedShares(shared=state.shared, sealed=state.sealed[neighbours[present], slots[present]])


def close_inputs(current: Round, state: CollectingInputs) -> CollectingUnmask:
    """Fix U3, the survivors whose inputs are in the sum, and ask them for shares.

    Raises:
        TooFewClients: U3 is below S, or some client's secrets have fewer than t holders left.
    """
    check_enough(current, state)
    clients, survivors = current.params.clients, state.received.copy()
    return CollectingUnmask(
        session=replace(state.session, sealed=np.zeros((0, 0, 0), dtype=np.uint8)),
        shared=state.shared,
        survivors=survivors,
        accumulator=state.accumulator,
        asked=survivors,
        held=np.zeros((clients, state.graph.degree, SHARE_BYTES), dtype=np.uint8),
        received=np.zeros(clients, dtype=np.bool_),
    )


def close_inputs_checked(current: Round, state: CollectingInputs) -> CollectingConsistency:
    """Fix U3 and ask its members to vouch for it, in the malicious-server model.

    Raises:
        TooFewClients: as for ``close_inputs``.
    """
    check_enough(current, state)
    return CollectingConsistency(
        session=state.session,
        shared=state.shared,
        survivors=state.received.copy(),
        accumulator=state.accumulator,
        received=np.zeros(current.params.clients, dtype=np.bool_),
    )


def survivors_request(state: CollectingConsistency | CollectingUnmask) -> UnmaskRequest:
    """Return the announcement of the survivors, the same for every client."""
    return UnmaskRequest(survivors=state.survivors)


def fold_consistency(
    current: Round, state: CollectingConsistency, position: int, body: memoryview, signature: bytes
) -> None:
    """Keep a survivor's signature of the survivor set.

    Raises:
        DecodeError: the body is no digest.
        PeerFault: the digest is of another set than was announced.
    """
    expected = consistency_digest(state.session_id, state.shared, state.survivors)
    if not hmac.compare_digest(Consistency.decode(body).digest, expected):
        raise PeerFault(int(current.ids[position]), "it signed another survivor set than was announced")
    state.signed.consistency[position] = np.frombuffer(signature, dtype=np.uint8)
    state.received[position] = True


def close_consistency(current: Round, state: CollectingConsistency) -> CollectingUnmask:
    """Fix U4, the survivors that signed.

    Raises:
        TooFewClients: fewer than the quorum signed, or some client's secrets have fewer than t holders left.
    """
    check_enough(current, state)
    clients, record_bytes = current.params.clients, FORMATS[current.params.threat].release_bytes
    return CollectingUnmask(
        session=state.session,
        shared=state.shared,
        survivors=state.survivors,
        accumulator=state.accumulator,
        asked=state.received.copy(),
        held=np.zeros((clients, state.graph.degree, record_bytes), dtype=np.uint8),
        received=np.zeros(clients, dtype=np.bool_),
    )


def relayed_signatures(state: CollectingUnmask) -> RelayedSignatures:
    """Return what U4 signed, the same for every client."""
    return RelayedSignatures(signed=state.asked, signatures=state.signed.consistency[state.asked])


def fold_unmask_shares(
    current: Round, state: CollectingUnmask, position: int, body: memoryview, signature: bytes = b""
) -> None:
    """Keep a survivor's released shares, and in the malicious-server model their salts.

    Raises:
        DecodeError: the body does not hold one canonical share for each neighbour in U2.
        PeerFault: a share is not the one that its dealer committed to; a proof where the release is signed.
    """
    neighbours = state.graph.neighbours(position)
    present = state.shared[neighbours]
    release_bytes = FORMATS[current.params.threat].release_bytes
    message = UnmaskShares.decode(body, count=int(present.sum()), release_bytes=release_bytes)
    if current.params.threat == "malicious-server":
        _check_release(current, state, position, message, signature)
    state.held[position, present] = message.shares
    state.received[position] = True


def _check_release(
    current: Round, state: CollectingUnmask, holder: int, message: UnmaskShares, signature: bytes
) -> None:
    neighbours = state.graph.neighbours(holder)
    present = state.shared[neighbours]
    dealers, slots = neighbours[present].tolist(), state.graph.slots(holder)[present].tolist()
    start = FORMATS[current.params.threat].sealed_bytes
    for dealer, slot, record in zip(dealers, slots, message.shares, strict=True):
        kind = SEED_SHARE if state.survivors[dealer] else MASK_KEY_SHARE
        committed = state.sealed[dealer, slot, start:].tobytes()
        if not commitments.opens(state.session_id, dealer, holder, kind, record.tobytes(), committed):
            raise PeerFault(
                int(current.ids[holder]),
                f"its share of client {int(current.ids[dealer])} is not the one committed to",
                proof=True,
                evidence=ForgedRelease(
                    dealer=dealer,
                    holder=holder,
                    upload=state.signed.uploads[holder].tobytes(),
                    relayed=relay_for(state, holder).encode(),
                    survivors=encode_bitmap(state.survivors),
                    consistency=state.signed.consistency[holder].tobytes(),
                    release=message.encode(),
                    signature=signature,
                ),
            )


def finish(state: CollectingUnmask, words: NDArray[np.unsignedinteger]) -> Finished:
    """End the round with its sum, which nobody writes to from here on."""
    words.flags.writeable = False
    return Finished(
        advertised=state.roster.advertised,
        shared=state.shared,
        survivors=state.survivors,
        asked=state.asked,
        answered=state.received,
        words=words,
    )


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
        if isinstance(state, CollectingConsistency) and (have := int(state.received.sum())) < params.quorum:
            raise TooFewClients(have, params.quorum, "clients that signed the survivor set")
        _check_holders(params, state.graph, state.shared, state.received)


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
