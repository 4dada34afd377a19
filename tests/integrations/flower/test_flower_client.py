"""What a client refuses, what it keeps and for how long, and what it never tells."""

from __future__ import annotations

import copy
import os
import threading

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from memory_grid import MemoryGrid, client_app, identities, initial_arrays, over_the_wire, train
from secagg.errors import DecodeError, InputError, ParameterError
from secagg.identity import Directory
from secagg.identity_files import new_seal_key, new_signing_key, read_seal_key
from secagg.integrations.flower import NodeSecrets, SecAggGrid, node_from_config, secagg_mod
from secagg.integrations.flower.envelope import Envelope, content_digest
from secagg.integrations.flower.state import ContextStore, FileStore, Kept
from secagg.primitives.signature import SigningKey

NODES = (11, 12, 13, 14, 15)


def start(grid, rounds=1):
    return FedAvg(fraction_evaluate=0.0).start(grid, initial_arrays(), num_rounds=rounds, timeout=5)


def faults_of(script=None, *, mod=None, app=None, **grid_terms):
    inner = MemoryGrid(app or client_app(mod or secagg_mod()), NODES, script=script)
    grid = SecAggGrid(inner, **grid_terms)
    start(grid)
    return grid.rounds[0].faults


def malicious(tmp_path, script=None, *, run_directory=None, mod=None, **changes):
    configs, directory = identities(tmp_path, NODES)
    for node, change in changes.items():
        configs[int(node[1:])] |= change
    run_config = {"secagg-directory": run_directory or directory}
    inner = MemoryGrid(
        client_app(mod or secagg_mod()), NODES, script=script, node_configs=configs, run_config=run_config
    )
    return inner, SecAggGrid(inner, threat="malicious-server", directory=directory)


# What a server may not do


def test_a_plain_train_message_is_refused():
    inner = MemoryGrid(client_app(secagg_mod()), NODES)
    asked = [Message(RecordDict({"arrays": initial_arrays(), "config": ConfigRecord()}), 11, "train")]
    (reply,) = inner.send_and_receive(asked)
    assert "within secure sums alone" in reply.error.reason
    assert not inner.nodes[11].trained


@pytest.mark.parametrize("threat", ["semi-honest", "malicious-server"])
@pytest.mark.parametrize("what", ["arrays", "config", "more"])
def test_a_model_or_configuration_of_ones_own_is_not_trained_on(tmp_path, threat, what):
    def script(delivery):
        if delivery.kind == "RELAYED_SHARES" and delivery.node == 13:
            content = delivery.message.content
            if what == "arrays":
                content["arrays"] = ArrayRecord(
                    {name: Array(np.asarray(array.numpy() + 1)) for name, array in content["arrays"].items()}
                )
            elif what == "config":
                content["config"]["lr"] = 0.5
            else:
                content["more"] = ConfigRecord()
        return [delivery.answer()]

    if threat == "malicious-server":
        inner, grid = malicious(tmp_path, script)
    else:
        inner = MemoryGrid(client_app(secagg_mod()), NODES, script=script)
        grid = SecAggGrid(inner)
    start(grid)
    assert "not the one that this round was begun for" in grid.rounds[0].faults[13]
    assert not inner.nodes[13].trained
    assert len(grid.rounds[0].survivors) == 4


@pytest.mark.parametrize(
    ("terms", "named"),
    [
        ({"clip": 1.0}, "encoding"),
        ({"bits": 8}, "encoding"),
        ({"max_weight": 10}, "max_weight"),
        ({"dropout": 0.1, "corrupt": 0.3}, "dropout"),
        ({"protocol": "secagg"}, "protocol"),
        ({"metrics": {"loss": 1.0}}, "same metrics and weighted_by"),
        ({"weighted_by": "records"}, "same metrics and weighted_by"),
    ],
)
def test_other_terms_than_the_clients_own_are_refused(terms, named):
    faults = faults_of(**terms)
    assert set(faults) == set(NODES)
    assert all("ServerFault" in text and named in text for text in faults.values())


def test_terms_that_the_parameters_do_not_hold_are_agreed_on_too():
    faults = faults_of(mod=secagg_mod(metrics={"loss": 8.0}), metrics={"loss": 4.0})
    assert all("same metrics and weighted_by" in text for text in faults.values())
    faults = faults_of(mod=secagg_mod(min_clients=6))
    assert all("at least 6" in text for text in faults.values())


def test_a_client_with_an_identity_is_not_talked_into_the_weaker_model(tmp_path):
    inner, _ = malicious(tmp_path)
    grid = SecAggGrid(inner)
    start(grid)
    wanted = "the server proposes threat semi-honest, this client agreed to malicious-server"
    assert all(wanted in text for text in grid.rounds[0].faults.values())
    assert not grid.rounds[0].survivors


def test_a_client_without_an_identity_cannot_join_a_malicious_server_round(tmp_path):
    _, directory = identities(tmp_path, NODES)
    faults = faults_of(threat="malicious-server", directory=directory)
    assert all("threat" in text for text in faults.values())


def test_a_second_survivor_set_is_not_answered(tmp_path):
    """Two different unmask requests at once: only one process gets the state, and it answers once."""
    answers = []

    def script(delivery):
        if delivery.kind == "UNMASK_REQUEST" and delivery.node == 13:
            other = copy.deepcopy(delivery.message)
            payload = other.content["secagg.payload"]["payload"]
            payload.data = payload.data[:-1] + bytes([payload.data[-1] & 0b11101])
            answers.append(delivery.answer())
            answers.append(grid_of[0].handle(13, other))
            return [answers[0]]
        return [delivery.answer()]

    inner, grid = malicious(tmp_path, script)
    grid_of = [inner]
    start(grid)
    assert not answers[0].has_error()
    assert "second, different" in answers[1].error.reason
    assert len(grid.rounds[0].survivors) == 5


def test_the_beacon_is_not_used_before_the_roster_is_durable(tmp_path):
    nodes = range(100, 140)

    def script(delivery):
        if delivery.kind == "ROSTER" and delivery.node == 101:
            delivery.message.content["secagg"]["step"] = "draw"
        return [delivery.answer()]

    configs, directory = identities(tmp_path, nodes)
    terms = {"beacon": lambda session: b"0123456789abcdef", "dropout": 0.05, "corrupt": 0.05}
    inner = MemoryGrid(
        client_app(secagg_mod(**terms)),
        nodes,
        script=script,
        node_configs=configs,
        run_config={"secagg-directory": directory},
    )
    grid = SecAggGrid(inner, threat="malicious-server", directory=directory, **terms)
    start(grid)
    assert "has not fixed" in grid.rounds[0].faults[101]
    assert len(grid.rounds[0].survivors) == 39


# Who is who


def test_a_directory_that_the_node_does_not_pin_is_refused(tmp_path):
    foreign = Directory({one: SigningKey.generate().public for one in range(5)})
    _, grid = malicious(tmp_path, run_directory=foreign.to_json())
    start(grid)
    assert all("not the one whose digest this node pins" in text for text in grid.rounds[0].faults.values())


def test_a_server_with_another_directory_gets_no_sum(tmp_path):
    inner, _ = malicious(tmp_path)
    foreign = Directory({one: SigningKey.generate().public for one in range(5)})
    grid = SecAggGrid(inner, threat="malicious-server", directory=foreign)
    start(grid)
    assert len(grid.rounds[0].survivors) == 0
    assert "TooFewClients" in grid.rounds[0].failure


def test_a_node_with_a_key_outside_the_directory_stays_out(tmp_path):
    new_signing_key(tmp_path / "stranger.key")
    _, grid = malicious(tmp_path, _13={"secagg-key": str(tmp_path / "stranger.key")})
    start(grid)
    assert "does not hold this node's key" in grid.rounds[0].faults[13]
    assert len(grid.rounds[0].survivors) == 4


def test_two_nodes_with_one_key_count_once(tmp_path):
    configs, directory = identities(tmp_path, NODES)
    configs[13]["secagg-key"] = configs[12]["secagg-key"]
    inner = MemoryGrid(
        client_app(secagg_mod()), NODES, node_configs=configs, run_config={"secagg-directory": directory}
    )
    grid = SecAggGrid(inner, threat="malicious-server", directory=directory)
    start(grid)
    assert len(grid.rounds[0].survivors) == 4
    assert "joined as this client" in "".join(grid.rounds[0].faults.values())


@pytest.mark.parametrize("missing", ["secagg-state", "secagg-directory-digest", "secagg-key"])
def test_a_half_configured_node_says_what_is_missing(tmp_path, missing):
    configs, directory = identities(tmp_path, NODES)
    del configs[13][missing]
    context = (
        MemoryGrid(client_app(), NODES, node_configs=configs, run_config={"secagg-directory": directory})
        .nodes[13]
        .context
    )
    with pytest.raises(InputError, match=missing):
        node_from_config(context)


def test_files_that_are_not_there_are_not_named(tmp_path):
    configs, _ = identities(tmp_path, NODES)
    configs[13]["secagg-key"] = str(tmp_path / "elsewhere")
    context = MemoryGrid(client_app(), NODES, node_configs=configs).nodes[13].context
    with pytest.raises(DecodeError) as caught:
        node_from_config(context)
    assert "elsewhere" not in str(caught.value)


# State between messages


def snoop(inner_states, seen):
    def script(delivery):
        reply = delivery.answer()
        seen.append({name: record["state"] for name, record in inner_states[delivery.node].items()})
        return [reply]

    return script


@pytest.mark.parametrize("sealed", [False, True])
def test_states_are_sealed_where_a_key_is_configured_and_wiped_at_the_end(tmp_path, sealed):
    new_seal_key(tmp_path / "seal")
    states, seen = {}, []
    config = {"secagg-seal-key": str(tmp_path / "seal")} if sealed else {}
    inner = MemoryGrid(
        client_app(secagg_mod()),
        NODES,
        script=snoop(states, seen),
        states=states,
        node_configs=dict.fromkeys(NODES, config),
    )
    start(SecAggGrid(inner))
    kept = [state for one in seen for state in one.values()]
    assert len(kept) == 3 * len(NODES)
    assert {Kept.decode(state).session[5] for state in kept} == {1 if sealed else 0}
    assert all((b"mask_secret" in state) is not sealed for state in kept[: len(NODES)])
    assert all(not state for state in states.values())


def test_files_hold_the_state_and_nothing_stays_in_the_context(tmp_path):
    seen = []

    def script(delivery):
        reply = delivery.answer()
        seen.append(sorted(path.name for path in (tmp_path / "states").iterdir()))
        return [reply]

    inner, grid = malicious(tmp_path, script)
    start(grid, rounds=2)
    assert all(name.endswith(".state") for names in seen for name in names)
    assert max(map(len, seen)) == len(NODES)
    assert list((tmp_path / "states").iterdir()) == []
    assert all(not state for state in inner.states.values())


def test_the_state_is_on_the_disk_before_the_reply(tmp_path, monkeypatch):
    order = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("durable"), replace(*paths))[1])
    monkeypatch.setattr(os, "fsync", lambda file: order.append("flushed"))

    def script(delivery):
        order.clear()
        reply = delivery.answer()
        if delivery.kind != "RELAYED_SIGNATURES":
            assert order == ["flushed", "durable", "flushed"]
        return [reply]

    _, grid = malicious(tmp_path, script)
    start(grid)
    assert len(grid.rounds[0].survivors) == 5


def test_a_round_that_is_given_up_leaves_nothing_on_the_nodes(tmp_path):
    def script(delivery):
        return [] if delivery.kind == "RELAYED_SHARES" and delivery.node > 12 else [delivery.answer()]

    inner, grid = malicious(tmp_path, script)
    start(grid)
    assert not grid.rounds[0].survivors
    assert list((tmp_path / "states").iterdir()) == []
    inner = MemoryGrid(client_app(secagg_mod()), NODES, script=script)
    start(SecAggGrid(inner))
    assert all(not state for state in inner.states.values())


def test_of_two_processes_one_gets_a_state(tmp_path):
    kept = Kept(invitation=bytes(32), content=bytes(32), session=b"session")
    FileStore(tmp_path, run_id=1, node_id=1).put(kept)
    taken, barrier = [], threading.Barrier(8)

    def take():
        store = FileStore(tmp_path, run_id=1, node_id=1)
        barrier.wait()
        taken.append(store.take())

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one for one in taken if one is not None] == [kept]


def test_a_process_that_dies_with_a_state_leaves_it_to_nobody(tmp_path):
    kept = Kept(invitation=bytes(32), content=bytes(32), session=b"session")
    FileStore(tmp_path, run_id=1, node_id=1).put(kept)
    assert FileStore(tmp_path, run_id=1, node_id=1).take() == kept
    other = FileStore(tmp_path, run_id=1, node_id=1)
    assert other.take() is None
    other.wipe()
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_answered_nothing_may_serve_again(tmp_path):
    kept = Kept(invitation=bytes(32), content=bytes(32), session=b"session", fixed=True)
    store = FileStore(tmp_path, run_id=1, node_id=1)
    store.put(kept)
    store.take()
    store.put_back()
    assert FileStore(tmp_path, run_id=1, node_id=1).take() == kept
    assert FileStore(tmp_path, run_id=1, node_id=2).take() is None


def test_a_message_that_is_refused_does_not_cost_the_state(tmp_path):
    refused = []

    def script(delivery):
        if delivery.kind == "ROSTER":
            forged = copy.deepcopy(delivery.message)
            forged.content["secagg.payload"]["payload"].data = b"SAgg" + bytes(99)
            refused.append(inner.handle(delivery.node, forged))
        return [delivery.answer()]

    inner, grid = malicious(tmp_path, script)
    start(grid)
    assert all("ServerFault" in reply.error.reason for reply in refused)
    assert len(grid.rounds[0].survivors) == 5


@pytest.mark.parametrize("data", [b"", b"SFst\x01", b"SFst\x02" + bytes(80), b"SFst\x01" + bytes(64) + b"\x04session"])
def test_a_damaged_state_is_refused(data):
    with pytest.raises(DecodeError):
        Kept.decode(data)


def test_a_node_that_lost_its_state_says_so(tmp_path):
    def script(delivery):
        if delivery.kind == "RELAYED_SHARES" and delivery.node == 13:
            for path in (tmp_path / "states").glob("*-13.*"):
                path.unlink()
        return [delivery.answer()]

    inner, grid = malicious(tmp_path, script)
    start(grid)
    assert "no round is open on this node" in grid.rounds[0].faults[13]
    assert len(grid.rounds[0].survivors) == 4
    assert not inner.nodes[13].trained


def test_the_wrong_sealing_key_is_a_clear_error(tmp_path):
    new_seal_key(tmp_path / "one")
    new_seal_key(tmp_path / "two")
    keys = {"INVITATION": "one"}

    def node(context):
        return NodeSecrets(seal_key=read_seal_key(tmp_path / keys["now"]))

    def script(delivery):
        keys["now"] = "two" if (delivery.node, delivery.kind) == (13, "ROSTER") else "one"
        return [delivery.answer()]

    faults = faults_of(script, mod=secagg_mod(node=node))
    assert faults == {13: f"share_keys: secagg: DecodeError: {faults[13].partition('DecodeError: ')[2]}"}


# What never leaves


RECORD = "patient Jane Roe, 4711"


@pytest.mark.parametrize("error", [ValueError(RECORD), KeyError(RECORD), SystemError(RECORD)])
def test_an_exception_of_the_app_is_told_by_its_type_alone(error):
    def app(node):
        made = ClientApp(mods=[secagg_mod()])

        @made.train()
        def _train(message, context):
            if context.node_id == 13:
                raise error
            return train(message, context.node_id)

        return made

    faults = faults_of(app=app)
    assert RECORD not in repr(faults)
    assert type(error).__name__ in faults[13]


def test_an_exception_of_our_own_is_told_by_its_type_alone(monkeypatch):
    def broken(self):
        raise RuntimeError(RECORD)

    monkeypatch.setattr(ContextStore, "take", broken)
    faults = faults_of()
    assert RECORD not in repr(faults)
    assert all("RuntimeError" in text for text in faults.values())


BAD_REPLIES = {
    "no metrics": (lambda content: content.pop("metrics"), "MetricRecord"),
    "two models": (lambda content: content.update({"more": ArrayRecord([np.zeros(1)])}), "ArrayRecord"),
    "no model": (lambda content: content.pop("arrays"), "ArrayRecord"),
    "no weight": (lambda content: content["metrics"].pop("num-examples"), "whole number"),
    "half a weight": (lambda content: content["metrics"].update({"num-examples": 1234.5}), "whole number"),
    "weights": (lambda content: content["metrics"].update({"num-examples": [1234, 1]}), "whole number"),
    "no examples": (lambda content: content["metrics"].update({"num-examples": 0}), "max_weight"),
    "below": (lambda content: content["metrics"].update({"num-examples": -1234}), "max_weight"),
    "too many": (lambda content: content["metrics"].update({"num-examples": 1234567}), "max_weight"),
    "not finite": (lambda content: content["arrays"].update({"bias": Array(np.array([np.nan, 1234.5]))}), "finite"),
    "infinite": (lambda content: content["arrays"].update({"bias": Array(np.array([np.inf, 1234.5]))}), "finite"),
    "integers": (lambda content: content["arrays"].update({"bias": Array(np.array([1234, 1]))}), "float"),
    "a shape": (lambda content: content["arrays"].update({"bias": Array(np.zeros(3))}), "shapes"),
    "a name": (lambda content: content["arrays"].update({"b": Array(np.zeros(2))}), "names"),
    "a tensor": (
        lambda content: content["arrays"].update({"bias": Array(dtype="f", shape=(2,), stype="torch", data=b"1234")}),
        "NumPy",
    ),
    "no loss": (lambda content: content["metrics"].pop("loss"), "'loss'"),
    "loss": (lambda content: content["metrics"].update({"loss": float("inf")}), "'loss'"),
    "losses": (lambda content: content["metrics"].update({"loss": [1234.5]}), "'loss'"),
}


@pytest.mark.parametrize("name", BAD_REPLIES)
def test_a_train_reply_that_does_not_fit_is_refused_without_its_values(name):
    spoil, named = BAD_REPLIES[name]

    def app(node):
        made = ClientApp(mods=[secagg_mod(metrics={"loss": 9.0})])

        @made.train()
        def _train(message, context):
            reply = train(message, context.node_id)
            if context.node_id == 13:
                spoil(reply.content)
            return reply

        return made

    faults = faults_of(app=app, metrics={"loss": 9.0})
    assert set(faults) == {13}
    assert named in faults[13]
    assert "1234" not in faults[13]


def test_what_a_client_sends_holds_neither_its_metrics_nor_its_weight(tmp_path):
    sent = {}

    def script(delivery):
        reply = delivery.answer()
        sent[delivery.node, delivery.kind] = reply
        return [reply]

    inner = MemoryGrid(client_app(secagg_mod()), NODES, script=script)
    start(SecAggGrid(inner))
    for reply in sent.values():
        assert set(reply.content) == {"secagg", "secagg.payload"}
        assert dict(reply.content["secagg"]) == {"version": 1, "step": "answer"}


def test_secrets_have_no_repr(tmp_path):
    new_seal_key(tmp_path / "seal")
    key = read_seal_key(tmp_path / "seal")
    shown = repr(NodeSecrets(seal_key=key)) + repr(Kept(invitation=bytes(32), content=bytes(32), session=key))
    assert key.hex() not in shown
    assert repr(key) not in shown


# What a server's own caller may not do


def test_train_messages_that_differ_are_refused():
    inner = MemoryGrid(client_app(secagg_mod()), NODES)
    asked = [
        Message(RecordDict({"arrays": initial_arrays(), "config": ConfigRecord({"node": node})}), node, "train")
        for node in NODES
    ]
    with pytest.raises(InputError, match="same train message"):
        SecAggGrid(inner).send_and_receive(asked)
    assert inner.exchanges == []


def test_mixed_repeated_and_pushed_train_messages_are_refused():
    grid = SecAggGrid(MemoryGrid(client_app(secagg_mod()), NODES))
    content = RecordDict({"arrays": initial_arrays()})
    training = [Message(content, node, "train") for node in NODES]
    with pytest.raises(InputError, match="together"):
        grid.send_and_receive([*training, Message(content, 11, "query")])
    with pytest.raises(InputError, match="twice"):
        grid.send_and_receive([*training, Message(content, 11, "train")])
    with pytest.raises(InputError, match="send_and_receive"):
        grid.push_messages(training)
    with pytest.raises(InputError, match="own"):
        grid.send_and_receive([Message(RecordDict({**content, "secagg": ConfigRecord()}), 11, "train")])
    with pytest.raises(InputError, match="one ArrayRecord"):
        grid.send_and_receive([Message(RecordDict(), 11, "train")])
    with pytest.raises(InputError, match="float"):
        grid.send_and_receive([Message(RecordDict({"arrays": ArrayRecord([np.arange(3)])}), 11, "train")])


def test_actions_of_a_train_function_are_kept():
    def app(node):
        made = ClientApp(mods=[secagg_mod()])

        @made.train("fine_tune")
        def _train(message, context):
            return train(message, context.node_id)

        return made

    content = RecordDict({"arrays": initial_arrays(), "config": ConfigRecord()})
    grid = SecAggGrid(MemoryGrid(app, NODES))
    replies = list(grid.send_and_receive([Message(content, node, "train.fine_tune") for node in NODES]))
    assert not any(reply.has_error() for reply in replies)
    assert {reply.metadata.message_type for reply in replies} == {"train.fine_tune"}
    assert set(content) == {"arrays", "config"}


@pytest.mark.parametrize(
    "terms",
    [
        {"clip": 0},
        {"bits": 0},
        {"min_clients": 1},
        {"metrics": {"loss": 0.0}},
        {"metrics": {"num-examples": 1.0}},
        {"metrics": ["loss"]},
        {"metrics": {"loss": "large"}},
    ],
)
def test_terms_are_checked_when_they_are_given(terms):
    with pytest.raises(ParameterError):
        secagg_mod(**terms)
    with pytest.raises(ParameterError):
        SecAggGrid(MemoryGrid(client_app(), NODES), **terms)


def test_an_empty_model_and_an_empty_array_are_summed():
    content = RecordDict({"arrays": ArrayRecord({"none": Array(np.zeros((0, 3)))}), "config": ConfigRecord()})
    grid = SecAggGrid(MemoryGrid(client_app(secagg_mod()), NODES))
    replies = list(grid.send_and_receive([Message(content, node, "train") for node in NODES]))
    assert all(reply.content["arrays"]["none"].numpy().shape == (0, 3) for reply in replies)


def test_an_envelope_is_read_as_it_was_written():
    for envelope in (
        Envelope(step="join", payload=b"p", params=b"q", content=bytes(32)),
        Envelope(step="answer", payload=b"p"),
        Envelope(step="fixed"),
    ):
        beside = RecordDict({"metrics": MetricRecord({"a": 1})})
        assert Envelope.take_from(envelope.put_into(beside)) == envelope
        assert set(beside) == {"metrics"}


def digest_of(records, *, run_id=1, message_type="train"):
    return content_digest(run_id, message_type, RecordDict(records))


def test_a_digest_tells_every_difference_of_a_message_and_no_order():
    array = np.arange(6, dtype=np.float32)
    base = {
        "arrays": ArrayRecord({"a": Array(array), "b": Array(array)}),
        "config": ConfigRecord({"x": 1, "y": [1, 2]}),
    }
    others = [
        base | {"arrays": ArrayRecord({"a": Array(array), "c": Array(array)})},
        base | {"arrays": ArrayRecord({"a": Array(array), "b": Array(array.reshape(2, 3))})},
        base | {"arrays": ArrayRecord({"a": Array(array), "b": Array(array.astype(np.float64))})},
        base | {"arrays": ArrayRecord({"a": Array(array), "b": Array(array + 1)})},
        base | {"config": ConfigRecord({"x": 1.0, "y": [1, 2]})},
        base | {"config": ConfigRecord({"x": True, "y": [1, 2]})},
        base | {"config": ConfigRecord({"x": "1", "y": [1, 2]})},
        base | {"config": ConfigRecord({"x": b"1", "y": [1, 2]})},
        base | {"config": ConfigRecord({"x": 1, "y": [2, 1]})},
        base | {"config": ConfigRecord({"x": 1, "z": [1, 2]})},
        {"arrays": base["arrays"], "configs": base["config"]},
        base | {"more": ConfigRecord()},
    ]
    digests = [digest_of(one) for one in (base, *others)]
    digests += [digest_of(base, run_id=2), digest_of(base, message_type="train.fine")]
    assert len(set(digests)) == len(digests)
    turned = {
        "config": ConfigRecord({"y": [1, 2], "x": 1}),
        "arrays": ArrayRecord({"b": Array(array), "a": Array(array)}),
    }
    assert digest_of(turned) == digests[0]


def test_a_digest_is_the_same_on_both_ends_of_the_wire():
    content = RecordDict({"config": ConfigRecord({"lr": np.float64(0.1), "n": [], "s": ["é"], "b": b"\x00"})})
    sent = over_the_wire(Message(content, 11, "train")).content
    assert content_digest(1, "train", sent) == content_digest(1, "train", content)
