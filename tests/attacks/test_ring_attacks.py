"""A lying server that knows the ring shows two arcs of it two pasts, and wants the sum of one arc.

It splits U2 when shares are relayed and U3 when survivors are announced; every neighbourhood agrees but for the seams,
where it declares as many dropped as the threshold leaves over. Signatures of neighbours do not stop it, a quorum does.
"""

from __future__ import annotations

import numpy as np
import pytest

from cohort import Cohort, plan
from secagg import FixedPoint, ParameterError, PeerFault, RoundParams, SecAggError, TooFewClients
from secagg.encoding.ring import lane_dtype, unpack_add
from secagg.pairwise.messages import Kind
from secagg.pairwise.recovery import unmask_sum
from secagg.pairwise.server_states import CollectingUnmask
from secagg.wire import HEADER_BYTES, SERVER, Header, encode_bitmap

CLIENTS, ARC = 400, 60


def ring_of(graph):
    """Walk the ring: the next is the unseen neighbour with the most neighbours in common."""
    order = [0]
    while len(order) < CLIENTS:
        here = set(graph.neighbours(order[-1]).tolist())
        ahead = sorted(here - set(order))
        order.append(max(ahead, key=lambda one: len(here & set(graph.neighbours(one).tolist()))))
    return order


def flags(members):
    marked = np.zeros(CLIENTS, dtype=bool)
    marked[list(members)] = True
    return marked


class LyingServer:
    """Plays the server by hand from the moment that everybody has dealt shares.

    ``lied_to`` picks who is shown the false past: the whole arc, or only its clients at the seams, who have neighbours
    beyond. Everybody else is shown that all shared keys and all but the dropped at the seams survived.
    """

    def __init__(self, params, lied_to):
        self.params = params
        self.codes = np.random.default_rng(0).integers(0, 256, (CLIENTS, 3))
        self.cohort = Cohort(self.params, self.codes - 127.5)
        self.cohort.run_stage()
        self.cohort.run_stage()
        self.state = self.cohort.server._state
        ring, window = ring_of(self.state.graph), self.params.neighbours // 2
        spare = self.params.threshold - window
        arc = ring[:ARC]
        self.arc = set(arc)
        self.gone = set(ring[ARC : ARC + spare]) | set(ring[-spare:])
        near = set(ring[ARC : ARC + window]) | set(ring[-window:])
        everybody = set(range(CLIENTS))
        seams = set(arc[: window - spare]) | set(arc[spare - window :])
        self.lied_to = self.arc if lied_to == "arc" else seams
        shared = {True: everybody - (near - self.gone), False: everybody}
        self.shared = {lie: flags(members) for lie, members in shared.items()}
        self.survivors = {lie: flags(members - self.gone) for lie, members in shared.items()}

    def message(self, kind, *parts):
        return Header(kind=kind, sender=SERVER, session=self.state.session_id).encode() + b"".join(parts)

    def collect_inputs(self):
        total = np.zeros(self.params.dimension + 1, dtype=lane_dtype(self.params.ring_bits))
        for one in range(CLIENTS):
            neighbours, slots = self.state.graph.neighbours(one), self.state.graph.slots(one)
            shared = self.shared[one in self.lied_to]
            present = shared[neighbours]
            rows = self.state.sealed[neighbours[present], slots[present]].tobytes()
            upload = self.cohort.answer(one, self.message(Kind.RELAYED_SHARES, encode_bitmap(shared), rows))
            if one in self.arc:
                unpack_add(np.frombuffer(upload[HEADER_BYTES:-96], np.uint8), total, self.params.ring_bits)
        return total

    def collect_signatures(self):
        replies = {}
        for one in sorted(set(range(CLIENTS)) - self.gone):
            survivors = self.survivors[one in self.lied_to]
            request = self.message(Kind.UNMASK_REQUEST, encode_bitmap(survivors))
            try:
                replies[one] = self.cohort.clients[one].receive(request).payload
            except SecAggError:
                continue
        return replies

    def collect_releases(self, replies):
        held = np.zeros((CLIENTS, self.params.neighbours, 40), np.uint8)
        released = set()
        for one in replies:
            alike = [other for other in sorted(replies) if (other in self.lied_to) == (one in self.lied_to)]
            signatures = b"".join(replies[other][-64:] for other in alike)
            request = self.message(Kind.RELAYED_SIGNATURES, encode_bitmap(flags(alike)), signatures)
            try:
                release = self.cohort.clients[one].receive(request).payload
            except SecAggError:
                continue
            present = self.shared[one in self.lied_to][self.state.graph.neighbours(one)]
            records = np.frombuffer(release[HEADER_BYTES:-64], np.uint8).reshape(-1, 56)
            held[one, present] = records[:, :40]
            released.add(one)
        return held, released

    def unmask_arc(self, total, held, released):
        state = CollectingUnmask(
            session=self.state.session,
            shared=flags(self.arc | self.gone),
            survivors=flags(self.arc),
            accumulator=total,
            asked=flags(self.arc),
            held=held,
            received=flags(released),
        )
        return unmask_sum(self.cohort.server._round, state, threads=1)[:-1].tolist()


def parameters(**overrides):
    shape = {
        "threat": "malicious-server",
        "protocol": "secagg+",
        "dropout": 0.05,
        "encoding": FixedPoint(clip=127.5, bits=8),
    }
    return plan(CLIENTS, 3, **(shape | overrides))


def attack(params, lied_to):
    server = LyingServer(params, lied_to)
    total = server.collect_inputs()
    held, released = server.collect_releases(server.collect_signatures())
    return server, total, held, released


@pytest.mark.parametrize("lied_to", ["arc", pytest.param("seams", marks=pytest.mark.slow)])
def test_03_split_view_an_arc_of_the_ring_that_was_shown_another_past_is_not_unmasked(lied_to):
    """Attack: cut the ring, showing an arc other sharers and survivors. Defence: no set but one finds a quorum."""
    server, total, held, released = attack(parameters(), lied_to)
    assert not released & server.lied_to
    with pytest.raises((TooFewClients, PeerFault)):
        server.unmask_arc(total, held, released)


@pytest.mark.slow
def test_03_split_view_the_cut_is_an_attack_where_no_quorum_is_asked_for(monkeypatch):
    """Attack: the same cut against clients without the defence, none but t neighbours' signatures: it gives the arc."""
    monkeypatch.setattr(RoundParams, "quorum", 1)
    server, total, held, released = attack(parameters(), "arc")
    assert server.unmask_arc(total, held, released) == server.codes[sorted(server.arc)].sum(axis=0).tolist()


def test_03_split_view_two_sets_never_both_reach_the_quorum():
    """Attack: the corrupt sign both sets. Defence: the quorum is more than half of all and the corrupt together."""
    for clients in (2, 5, 10, 41, 100):
        for corrupt in (0.0, 0.1, 0.3):
            try:
                params = plan(clients, 1, threat="malicious-server", corrupt=corrupt, protocol="secagg+")
            except ParameterError:
                continue
            honest = clients - params.corrupt_count
            # the corrupt sign both, every honest client one
            assert 2 * params.quorum > honest + 2 * params.corrupt_count
            assert params.quorum <= params.minimum_survivors


def test_03_split_view_rates_at_which_a_quorum_might_not_be_left_are_refused():
    """Attack: none; a round in which the defence could not be met must not begin, or it would be given up."""
    with pytest.raises(ParameterError, match="must vouch for the survivor set"):
        plan(100, 1, threat="malicious-server", corrupt=0.1, dropout=0.46, protocol="secagg+")
