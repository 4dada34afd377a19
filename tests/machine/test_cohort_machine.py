"""State machines over a whole cohort, in both threat models, checked after every step; see ``knowledge`` for how.

Rules deliver, drop, delay, duplicate, reorder, replay, restart; in the malicious-server model they also tamper and play
a server that lies. What must hold, whatever they do:

- a round that ends, ends with each survivor's own bucket exactly once, or in a typed error;
- no client sends two different messages of one kind, masks two vectors, or answers one request in two ways;
- no mask is used twice, and no holder lets both kinds of share of one dealer out;
- nobody releases unless a quorum of the cohort, in truth, signed the sets that it signed (malicious-server model);
- the server can compute at most one sum, over at least S inputs;
- a call that raises leaves its session as it was.

The long run: ``python -m pytest tests/machine -m slow``; HYPOTHESIS_PROFILE=thorough makes it longer still.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from lies import View, drawn_groups
from secagg import SecAggError
from secagg.pairwise.messages import Kind
from secagg.wire import HEADER_BYTES
from world import CUTTABLE, SMALL, SPARSE, World, parameters

FATES = ("silent", "late", "twice", "crash before saving", "crash after saving")


class Network(RuleBasedStateMachine):
    """Semi-honest: nothing is forged, but messages and parties suffer whatever a network and its machines can do."""

    threat, variants, fates = "semi-honest", SMALL, FATES

    @initialize(data=st.data())
    def start(self, data):
        self.params = parameters(self.threat, data.draw(st.sampled_from(self.variants), label="variant"))
        everybody = list(range(self.params.clients))
        corrupt = data.draw(st.permutations(everybody), label="corrupt")[: self.params.corrupt_count]
        self.world = World(self.params, corrupt)

    def one(self, data):
        return data.draw(st.integers(0, self.params.clients - 1), label="client")

    @rule(data=st.data())
    def stage(self, data):
        """A few clients meet with misfortune; the others answer, and the stage closes if it can."""
        clients = st.integers(0, self.params.clients - 1)
        fates = st.dictionaries(clients, st.sampled_from(self.fates), max_size=2 + self.params.dropout_count)
        self.world.stage(data.draw(fates, label="fates"), data.draw(st.integers(0, 1 << 16), label="noise"))

    @rule(data=st.data())
    def single_answer(self, data):
        """One client answers out of turn; the stage stays open."""
        one, requests = self.one(data), self.world.server.requests()
        if self.world.ids[one] in requests and not self.world.server.beacon_needed:
            reply = self.world.ask(one, requests[self.world.ids[one]])
            if isinstance(reply, bytes):
                self.world.give(one, reply)

    @rule(data=st.data())
    def late_reply(self, data):
        """Any message that any client ever sent in this round reaches the server, once more or at last."""
        if self.world.seen.replies:
            self.world.give(*data.draw(st.sampled_from(self.world.seen.replies), label="reply"))

    @rule(data=st.data())
    def repeated_request(self, data):
        """The server asks again what it asked before."""
        one = self.one(data)
        if sent := self.world.seen.requests.get(one):
            self.world.ask(one, data.draw(st.sampled_from(sent), label="request"))

    @rule(data=st.data())
    def another_survivor_set(self, data):
        """Who has answered the unmask request is asked with another set of survivors."""
        one = self.one(data)
        asked = [request for request in self.world.seen.requests.get(one, []) if request[6] == Kind.UNMASK_REQUEST]
        if asked:
            body = asked[0][HEADER_BYTES:]
            other = bytes([body[0] ^ data.draw(st.integers(1, (1 << min(8, self.params.clients)) - 1))]) + body[1:]
            assert isinstance(self.world.ask(one, asked[0][:HEADER_BYTES] + other), SecAggError)

    @rule(data=st.data())
    def replay(self, data):
        """A message of an earlier round reaches either side."""
        if self.world.old:
            payload, one = data.draw(st.sampled_from(self.world.old), label="old"), self.one(data)
            if isinstance(self.world.ask(one, payload), bytes):
                # A client that awaits an invitation cannot know which rounds are over, and goes to the older one
                assert payload[6] == Kind.INVITATION
            assert self.world.give(one, payload) is not None

    @rule(data=st.data())
    def restart(self, data):
        self.world.restart_client(self.one(data))
        self.world.restart_server()

    @rule(finished=st.booleans())
    def next_round(self, finished):
        if finished:
            self.world.finish()
        self.world.ledger.check()
        self.world.begin()

    @invariant()
    def nothing_is_learnt_but_the_sum(self):
        self.world.ledger.check()

    def teardown(self):
        if hasattr(self, "world"):
            self.world.finish()
            self.world.ledger.check()


class LyingServer(Network):
    """Malicious-server: on top of that, anything that can be forged is, and clients are shown different rounds."""

    threat, fates = "malicious-server", (*FATES, "damaged", "request damaged")

    @rule(data=st.data())
    def tamper(self, data):
        """Flip, cut, grow, splice or redirect any message, towards either side."""
        replies = [payload for _, payload in self.world.seen.replies]
        sent = [payload for one in self.world.seen.requests.values() for payload in one]
        pool = replies + sent + self.world.old + list(self.world.server.requests().values())
        if not pool:
            return
        payload, other = data.draw(st.sampled_from(pool)), data.draw(st.sampled_from(pool))
        damaged = data.draw(_damage(payload, other), label="damaged")
        one = self.one(data)
        if data.draw(st.booleans(), label="to the client"):
            self.world.ask(one, damaged)
        else:
            self.world.give(one, damaged)

    @rule(before=st.integers(0, 3), seed=st.integers(0, 1 << 32))
    def lie(self, before, seed):
        """Lead up to two groups through the rest of the round, each under a view of its own."""
        for _ in range(before):
            self.world.stage({})
        self.world.campaign(drawn_groups(self.params, random.Random(seed)))


def _damage(payload, other):
    last = len(payload) - 1
    flip = st.builds(
        lambda at, bit: payload[:at] + bytes([payload[at] ^ 1 << bit]) + payload[at + 1 :],
        st.integers(0, last),
        st.integers(0, 7),
    )
    cut = st.integers(0, last).map(lambda at: payload[:at])
    grow = st.binary(min_size=1, max_size=100).map(lambda more: payload + more)
    splice = st.integers(0, last).map(lambda at: payload[:at] + other[at:])
    relabel = st.just(payload[:HEADER_BYTES] + other[HEADER_BYTES:])
    return st.one_of(flip, cut, grow, splice, relabel, st.just(payload))


class SparseLyingServer(LyingServer):
    """The same over a sparse graph, whose ring the server cuts where it likes."""

    variants = SPARSE + CUTTABLE

    @rule(data=st.data())
    def cut(self, data):
        """Show each of two arcs of the ring itself, and as many of the other as the floor S asks for."""
        self.world.stage({})
        self.world.stage({})
        ring = self.world.ring()
        if ring is None:
            return
        n, floor = self.params.clients, self.params.minimum_survivors
        start, length = data.draw(st.integers(0, n - 1)), data.draw(st.integers(n // 4, 3 * n // 4))
        ring = ring[start:] + ring[:start]
        groups = []
        short = data.draw(st.integers(0, 3), label="short of S by")
        for arc, rest in ((ring[:length], ring[length:]), (ring[length:], ring[:length])):
            shown = frozenset(arc + rest[: max(0, floor - short - len(arc))])
            everybody = frozenset(range(n))
            groups.append((frozenset(arc), View(everybody, everybody, shown, everybody, data.draw(st.booleans()))))
        self.world.campaign(groups)


class SparseNetwork(Network):
    variants = SPARSE


def budget(examples, steps, shrink=True):
    phases = [Phase.generate, *([Phase.shrink] if shrink else [])]
    return settings(
        max_examples=examples,
        # The test command repeats itself; the long runs explore
        derandomize=examples <= 30,
        database=None,
        stateful_step_count=steps,
        phases=phases,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def test_semi_honest_cohorts():
    run_state_machine_as_test(Network, settings=budget(30, 12))


def test_cohorts_of_a_lying_server():
    run_state_machine_as_test(LyingServer, settings=budget(30, 12))


def test_sparse_semi_honest_cohorts():
    run_state_machine_as_test(SparseNetwork, settings=budget(3, 8, shrink=False))


def test_sparse_cohorts_of_a_lying_server():
    run_state_machine_as_test(SparseLyingServer, settings=budget(3, 6, shrink=False))


def campaign(variant, seed):
    """One round against a server that lies from some stage on, all of it drawn from a seed."""
    source, params = random.Random(seed), parameters("malicious-server", variant)
    world = World(params, source.sample(range(params.clients), params.corrupt_count))
    for _ in range(source.randint(0, 3)):
        world.stage({})
    world.campaign(drawn_groups(params, source))
    world.finish()
    world.ledger.check()


@pytest.mark.parametrize("variant", SMALL, ids=str)
def test_campaigns(variant):
    for seed in range(60):
        campaign(variant, seed)


@pytest.mark.slow
@pytest.mark.parametrize("variant", SMALL + SPARSE + CUTTABLE, ids=str)
def test_campaigns_at_length(variant):
    for seed in range(2000 if variant["clients"] < 40 else 60):
        campaign(variant, seed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("machine", "examples", "steps"),
    [(Network, 1500, 25), (LyingServer, 2500, 25), (SparseNetwork, 60, 12), (SparseLyingServer, 60, 10)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_at_length(machine, examples, steps):
    run_state_machine_as_test(machine, settings=budget(examples, steps, shrink=examples > 100))
