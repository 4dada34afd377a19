"""What a client refuses of a server, and of a cohort that is not the one it pins."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from cohorts import NODES, faults_of, malicious, start
from memory_grid import MemoryGrid, client_app, identities, initial_arrays
from secagg.errors import DecodeError, InputError
from secagg.identity import Directory
from secagg.identity_files import new_signing_key
from secagg.integrations.flower import SecAggGrid, node_from_config, secagg_mod
from secagg.primitives.signature import SigningKey


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
        ({"clip": 1.0}, "proposes clip 1.0, this client agreed to 3.0"),
        ({"bits": 8}, "proposes bits 8, this client agreed to 16"),
        ({"max_weight": 10}, "max_weight 10, this client agreed to 65536"),
        (
            {"dropout": 0.1, "corrupt": 0.3},
            "dropout 0.1, this client agreed to 0.2; corrupt 0.3, this client agreed to 0.1",
        ),
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
    assert ["same metrics and weighted_by" in faults[node] for node in NODES] == [True] * 5
    faults = faults_of(mod=secagg_mod(min_clients=6))
    assert ["at least 6" in faults[node] for node in NODES] == [True] * 5


def test_a_client_with_an_identity_is_not_talked_into_the_weaker_model(tmp_path):
    inner, _ = malicious(tmp_path)
    grid = SecAggGrid(inner)
    start(grid)
    wanted = "the server proposes threat semi-honest, this client agreed to malicious-server"
    assert [wanted in grid.rounds[0].faults[node] for node in NODES] == [True] * 5
    assert not grid.rounds[0].survivors


def test_a_client_with_an_identity_is_not_talked_into_pipelining(tmp_path):
    _, grid = malicious(tmp_path, mod=secagg_mod(pipelined=True))
    start(grid)
    assert set(grid.rounds[0].faults) == set(NODES)
    assert all("malicious server would abuse" in text for text in grid.rounds[0].faults.values())


def test_a_client_without_an_identity_cannot_join_a_malicious_server_round(tmp_path):
    _, directory = identities(tmp_path, NODES)
    faults = faults_of(threat="malicious-server", directory=directory)
    assert ["threat" in faults[node] for node in NODES] == [True] * 5


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


@pytest.mark.parametrize(
    ("kind", "again"), [("ROSTER", "INVITATION"), ("ROSTER", "ROSTER"), ("draw", "ROSTER"), ("draw", "draw")]
)
def test_a_message_again_from_before_the_beacon_costs_nothing(tmp_path, kind, again):
    nodes, seen, answered = range(100, 140), {}, {}

    def script(delivery):
        reply = delivery.answer()
        if delivery.node == 101:
            seen[delivery.kind] = delivery.message
            answered[delivery.kind] = reply
            if delivery.kind == kind:
                answered["again"] = inner.handle(101, seen[again])
        return [reply]

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
    assert grid.rounds[0].faults == {}
    assert len(grid.rounds[0].survivors) == 40
    if (kind, again) == ("draw", "draw"):
        first, second = (answered[one].content["secagg.payload"]["payload"].data for one in ("draw", "again"))
        assert first == second


def test_a_directory_that_the_node_does_not_pin_is_refused(tmp_path):
    foreign = Directory({one: SigningKey.generate().public for one in range(5)})
    _, grid = malicious(tmp_path, run_directory=foreign.to_json())
    start(grid)
    wanted = "not the one whose digest is pinned"
    assert [wanted in grid.rounds[0].faults[node] for node in NODES] == [True] * 5


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


KEY = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("secagg-key", "zz"),
        ("secagg-directory", "zz"),
        ("secagg-directory", f'{{"0":"{KEY}","1":"{KEY}"}}'),
        ("secagg-directory", f'{{"0":"{bytes(32).hex()}"}}'),
        ("secagg-seal-key", "zz"),
    ],
)
def test_files_that_hold_something_else_are_not_named(tmp_path, setting, text):
    (tmp_path / "ward-7").write_text(text)
    _, grid = malicious(tmp_path, _13={setting: str(tmp_path / "ward-7")})
    start(grid)
    fault = grid.rounds[0].faults[13]
    assert f"the file that {setting} names does not hold what it should" in fault
    assert "ward-7" not in fault
    assert str(tmp_path) not in fault
