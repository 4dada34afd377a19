"""Nodes that vanish, repeat themselves, come late or answer nonsense, in both threat models."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_grid import MemoryGrid, client_app, expected, identities, initial_arrays
from secagg.identity import Identity
from secagg.identity_files import read_directory, read_signing_key
from secagg.integrations.flower import SecAggGrid, secagg_mod
from secagg.wire import SERVER, Header, open_message

NODES = (11, 12, 13, 14, 15)
STEP = 6 / 65535
KINDS = {
    "semi-honest": {
        "INVITATION": "advertise_keys",
        "ROSTER": "share_keys",
        "RELAYED_SHARES": "masked_input",
        "UNMASK_REQUEST": "unmask",
    },
    "malicious-server": {
        "INVITATION": "advertise_keys",
        "ROSTER": "share_keys",
        "RELAYED_SHARES": "masked_input",
        "UNMASK_REQUEST": "check_consistency",
        "RELAYED_SIGNATURES": "unmask",
    },
}
EVERY_KIND = [(threat, kind) for threat, kinds in KINDS.items() for kind in kinds]


@pytest.fixture
def federation(tmp_path):
    def make(threat="semi-honest", script=None, *, nodes=NODES, mod=None, grid_terms=None, **terms):
        configs, directory = identities(tmp_path, nodes) if threat == "malicious-server" else (None, None)
        run_config = {} if directory is None else {"secagg-directory": directory}
        app = client_app(mod or secagg_mod(**terms))
        inner = MemoryGrid(app, nodes, script=script, node_configs=configs, run_config=run_config)
        return inner, SecAggGrid(inner, threat=threat, directory=directory, **(terms | (grid_terms or {})))

    return make


def start(grid, rounds=1, strategy=None):
    return (strategy or FedAvg(fraction_evaluate=0.0)).start(grid, initial_arrays(), num_rounds=rounds, timeout=5)


def check(result, survivors):
    wanted = expected(initial_arrays(), survivors)
    for name, array in result.arrays.items():
        assert np.abs(array.numpy() - wanted[name]).max(initial=0.0) < STEP + 1e-6


@pytest.mark.parametrize("threat", KINDS)
def test_a_round_with_everybody(federation, threat):
    inner, grid = federation(threat)
    check(start(grid), NODES)
    assert inner.exchanges == list(KINDS[threat])
    assert len(grid.rounds[0].survivors) == 5


@pytest.mark.parametrize(("threat", "kind"), EVERY_KIND)
def test_a_node_that_vanishes_costs_its_own_part_alone(federation, threat, kind):
    gone = set()

    def script(delivery):
        if delivery.kind == kind and delivery.node == 13:
            gone.add(13)
        return [] if delivery.node in gone else [delivery.answer()]

    _, grid = federation(threat, script)
    result = start(grid)
    uploaded = list(KINDS[threat]).index(kind) > list(KINDS[threat]).index("RELAYED_SHARES")
    check(result, NODES if uploaded else set(NODES) - {13})
    assert grid.rounds[0].faults[13] == f"{KINDS[threat][kind]}: silent"


@pytest.mark.parametrize(("threat", "kind"), EVERY_KIND)
def test_an_error_that_names_the_server_as_its_source_is_the_nodes(federation, threat, kind):
    def script(delivery):
        if delivery.kind != kind or delivery.node != 13:
            return [delivery.answer()]
        reply = Message(Error(code=5, reason="Node unavailable"), reply_to=delivery.message)
        reply.metadata.__dict__["_src_node_id"] = 1
        return [reply]

    _, grid = federation(threat, script)
    start(grid)
    assert grid.rounds[0].faults == {13: f"{KINDS[threat][kind]}: Node unavailable"}


@pytest.mark.parametrize(("threat", "kind"), EVERY_KIND)
def test_a_message_delivered_twice_is_answered_alike_or_not_at_all(federation, threat, kind):
    seen = []

    def script(delivery):
        replies = [delivery.answer()]
        if delivery.kind == kind:
            again = delivery.answer()
            seen.append((replies[0], again))
            replies = [*replies, again, replies[0]]
        return replies

    inner, grid = federation(threat, script)
    check(start(grid), NODES)
    for first, again in seen:
        if kind == list(KINDS[threat])[-1]:
            # The state was wiped with the last reply
            assert again.has_error()
        else:
            assert first.content["secagg.payload"]["payload"].data == again.content["secagg.payload"]["payload"].data
    assert all(len(node.trained) == 1 for node in inner.nodes.values())


@pytest.mark.parametrize("threat", KINDS)
def test_replies_of_earlier_exchanges_do_not_count_again(federation, threat):
    kept = []

    def script(delivery):
        late = list(kept)
        kept.append(delivery.answer())
        return [kept[-1], *late]

    _, grid = federation(threat, script)
    check(start(grid), NODES)
    assert grid.rounds[0].faults == {}


@pytest.mark.parametrize("strategy", [FedAvg, FedAdam])
@pytest.mark.parametrize(("threat", "kind"), EVERY_KIND)
def test_too_few_nodes_fail_clearly_and_the_next_round_goes_on(federation, threat, kind, strategy):
    rounds, gone = [], set()

    def script(delivery):
        if delivery.kind == "INVITATION" and delivery.node == 11:
            rounds.append(delivery)
            gone.clear()
        if delivery.kind == kind and len(rounds) == 1:
            gone.update({13, 14, 15})
        return [] if delivery.node in gone else [delivery.answer()]

    inner, grid = federation(threat, script)
    arrays = initial_arrays()
    told = []

    class Telling(strategy):
        def configure_train(self, server_round, arrays, config, grid):
            return sorted(
                super().configure_train(server_round, arrays, config, grid), key=lambda m: m.metadata.dst_node_id
            )

        def aggregate_train(self, server_round, replies):
            told.append(list(replies))
            return super().aggregate_train(server_round, told[-1])

    seen = []
    Telling(fraction_evaluate=0.0).start(
        grid, arrays, num_rounds=2, timeout=5, evaluate_fn=lambda number, model: seen.append(model)
    )
    assert all(reply.has_error() and "TooFewClients" in reply.error.reason for reply in told[0])
    assert seen[1] is arrays
    assert not any(reply.has_error() for reply in told[1])
    assert [report.failure is None for report in grid.rounds] == [False, True]
    assert all(not state for state in inner.states.values())


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_nodes_than_agreed_on_are_not_even_asked(federation, count):
    inner, grid = federation(nodes=NODES[:count])
    messages = [Message(RecordDict({"arrays": initial_arrays()}), node, "train") for node in inner.nodes]
    replies = list(grid.send_and_receive(messages))
    assert all(f"{count} clients are invited, and at least 3" in reply.error.reason for reply in replies)
    assert inner.exchanges == []


def test_two_nodes_that_trust_each_other_may_sum():
    terms = {"min_clients": 2, "dropout": 0.0, "corrupt": 0.0}
    inner = MemoryGrid(client_app(secagg_mod(**terms)), (11, 12))
    check(start(SecAggGrid(inner, **terms)), (11, 12))


def payload_of(data):
    return ArrayRecord({"payload": Array(dtype="uint8", shape=(len(data),), stype="bytes", data=data)})


NONSENSE = {
    "nothing": RecordDict(),
    "no payload": RecordDict({"secagg": ConfigRecord({"version": 1, "step": "answer"})}),
    "another version": RecordDict({"secagg": ConfigRecord({"version": 2, "step": "answer"})}),
    "no step": RecordDict({"secagg": ConfigRecord({"version": 1})}),
    "a list": RecordDict({"secagg": ConfigRecord({"version": [1], "step": ["answer"]})}),
    "metrics instead": RecordDict({"secagg": MetricRecord({"version": 1})}),
    "short": RecordDict(
        {"secagg": ConfigRecord({"version": 1, "step": "answer"}), "secagg.payload": payload_of(b"SAgg")}
    ),
    "random": RecordDict(
        {"secagg": ConfigRecord({"version": 1, "step": "answer"}), "secagg.payload": payload_of(bytes(range(256)) * 9)}
    ),
    "from the server": RecordDict(
        {
            "secagg": ConfigRecord({"version": 1, "step": "answer"}),
            "secagg.payload": payload_of(Header(kind=1, sender=SERVER, session=bytes(32)).encode() + bytes(160)),
        }
    ),
    "two arrays": RecordDict(
        {
            "secagg": ConfigRecord({"version": 1, "step": "answer"}),
            "secagg.payload": ArrayRecord({"payload": Array(np.zeros(1)), "more": Array(np.zeros(1))}),
        }
    ),
}


@pytest.mark.parametrize("name", NONSENSE)
@pytest.mark.parametrize(("threat", "kind"), EVERY_KIND)
def test_nonsense_costs_its_sender_alone(federation, threat, kind, name):
    def script(delivery):
        if delivery.kind == kind and delivery.node == 13:
            return [Message(NONSENSE[name], reply_to=delivery.message)]
        return [delivery.answer()]

    _, grid = federation(threat, script)
    result = start(grid)
    uploaded = list(KINDS[threat]).index(kind) > list(KINDS[threat]).index("RELAYED_SHARES")
    check(result, NODES if uploaded else set(NODES) - {13})
    assert 13 in grid.rounds[0].faults


@given(kind=st.sampled_from(list(KINDS["malicious-server"])), data=st.data())
@settings(max_examples=25)
def test_altered_replies_cost_their_sender_alone(tmp_path_factory, kind, data):
    def script(delivery):
        reply = delivery.answer()
        if delivery.kind == kind and delivery.node == 13:
            array = reply.content["secagg.payload"]["payload"]
            at = data.draw(st.integers(0, len(array.data) - 1))
            changed = array.data[at] ^ data.draw(st.integers(1, 255))
            cut = data.draw(st.sampled_from([len(array.data), at]))
            array.data = (array.data[:at] + bytes([changed]) + array.data[at + 1 :])[:cut]
        return [reply]

    configs, directory = identities(tmp_path_factory.mktemp("keys"), NODES)
    inner = MemoryGrid(
        client_app(secagg_mod()),
        NODES,
        script=script,
        node_configs=configs,
        run_config={"secagg-directory": directory},
    )
    grid = SecAggGrid(inner, threat="malicious-server", directory=directory)
    result = start(grid)
    uploaded = list(KINDS["malicious-server"]).index(kind) > 2
    check(result, NODES if uploaded else set(NODES) - {13})
    assert 13 in grid.rounds[0].faults


def test_a_forged_share_leaves_evidence_and_the_sum_is_exact(federation, tmp_path):
    def script(delivery):
        reply = delivery.answer()
        if delivery.kind == "RELAYED_SIGNATURES" and delivery.node == 13:
            array = reply.content["secagg.payload"]["payload"]
            header, body = open_message(array.data)
            forged = bytes([body[0] ^ 1]) + bytes(body[1:-64])
            key = read_signing_key(tmp_path / "13.key")
            identity = Identity(key=key, directory=read_directory(tmp_path / "cohort.json"))
            array.data = header.encode() + forged + identity.sign(header, forged)
        return [reply]

    _, grid = federation("malicious-server", script)
    check(start(grid), NODES)
    report = grid.rounds[0]
    ((client_id, (evidence, transcript)),) = report.evidence.items()
    assert evidence.convict(transcript) == client_id == NODES.index(13)
    assert "unmask" in report.faults[13]
    assert "evidence" not in repr(report)


@pytest.mark.parametrize(("threat", "kind"), EVERY_KIND)
def test_another_nodes_reply_does_not_pass_for_ones_own(federation, threat, kind):
    replies = {}

    def script(delivery):
        if delivery.kind != kind:
            return [delivery.answer()]
        if delivery.node == 13:
            return [Message(replies[11], reply_to=delivery.message)]
        reply = delivery.answer()
        replies[delivery.node] = reply.content
        return [reply]

    _, grid = federation(threat, script)

    class InOrder(FedAvg):
        def configure_train(self, *arguments):
            return sorted(super().configure_train(*arguments), key=lambda m: m.metadata.dst_node_id)

    start(grid, strategy=InOrder(fraction_evaluate=0.0))
    assert 13 in grid.rounds[0].faults
    assert len(grid.rounds[0].survivors) in (4, 5)


def test_two_runs_at_once_on_the_same_nodes(federation):
    from flwr.supercore.task_identity import TaskIdentity

    states, results = {}, []
    other = MemoryGrid(client_app(secagg_mod()), NODES, run_id=2, states=states)

    def script(delivery):
        if delivery.kind == "ROSTER" and not results:
            TaskIdentity.run_id = 2
            results.append(start(SecAggGrid(other)))
            TaskIdentity.run_id = 1
        return [delivery.answer()]

    inner = MemoryGrid(client_app(secagg_mod()), NODES, script=script, states=states)
    results.append(start(SecAggGrid(inner)))
    for result in results:
        check(result, NODES)
    assert all(not state for state in states.values())


def test_forty_clients_against_a_malicious_server_use_a_beacon(federation):
    nodes, asked = range(100, 140), []

    def beacon(session_id):
        asked.append(session_id)
        return b"a later output of a public beacon"

    inner, grid = federation(
        "malicious-server",
        nodes=nodes,
        mod=secagg_mod(beacon=beacon, dropout=0.05, corrupt=0.05),
        grid_terms={"beacon": beacon, "dropout": 0.05, "corrupt": 0.05},
    )
    check(start(grid), nodes)
    assert inner.exchanges[:4] == ["INVITATION", "ROSTER", "draw", "RELAYED_SHARES"]
    assert len(asked) == 41
    assert len(set(asked)) == 1
