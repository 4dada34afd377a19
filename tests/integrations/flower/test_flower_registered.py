"""A protocol from outside the package goes through the grid: the integration knows none by name."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

import secagg
import toy_protocol
from cohorts import NODES, agree, start
from memory_grid import MemoryGrid, client_app, expected, initial_arrays
from secagg import ParameterError, protocol
from secagg.errors import InputError
from secagg.integrations import flower
from secagg.integrations.flower import Agreement, SecAggGrid, secagg_mod
from secagg.integrations.flower.state import Kept, RoundRecord

STEP = 6 / 65535


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(protocol, "_registry", protocol._Registry())
    secagg.register_protocol(toy_protocol.PROTOCOL)


def in_files(tmp_path, script=None, **terms):
    config = {"secagg-state": str(tmp_path / "states")}
    inner = MemoryGrid(
        client_app(secagg_mod(protocol="toy", **terms)), NODES, script=script, node_configs=dict.fromkeys(NODES, config)
    )
    return inner, SecAggGrid(inner, protocol="toy", **terms)


@pytest.mark.parametrize("files", [True, False])
def test_a_toys_rounds_go_through_the_grid_with_drop_outs(tmp_path, files):
    def script(delivery):
        if delivery.kind == "dismiss":
            return [delivery.answer()]
        if grid.rounds and delivery.node == 13:
            return []
        first, again = delivery.answer(), delivery.answer()
        assert first.content["secagg.payload"]["payload"].data == again.content["secagg.payload"]["payload"].data
        return [first, again]

    if files:
        inner, grid = in_files(tmp_path, script)
    else:
        inner = MemoryGrid(client_app(secagg_mod(protocol="toy")), NODES, script=script)
        grid = SecAggGrid(inner, protocol="toy")
    result = start(grid)
    for name, wanted in expected(initial_arrays(), NODES).items():
        assert np.abs(result.arrays[name].numpy() - wanted).max(initial=0.0) < STEP + 1e-6
    start(grid)
    assert [report.survivors for report in grid.rounds] == [NODES, (11, 12, 14, 15)]
    assert grid.rounds[1].faults == {13: f"{toy_protocol.STAGE}: silent"}
    assert [report.exchanges for report in grid.rounds] == [1, 1]
    assert [len(node.trained) for node in inner.nodes.values()] == [2, 2, 1, 2, 2]
    grid.close()
    assert list((tmp_path / "states").iterdir() if files else []) == []
    assert all(not state for state in inner.states.values())


@pytest.mark.parametrize("name", ["secagg", "secagg+", "toy"])
def test_the_grid_and_simulate_agree_within_a_step(name):
    terms = {"protocol": name, "metrics": {"loss": 8.0}}
    agreement = Agreement(**terms)
    size = sum(array.numpy().size for array in initial_arrays().values())
    params = agreement.plan(clients=len(NODES), dimension=size, threat="semi-honest")
    stage = protocol.protocol_named(name).input_stage(params)
    inner = MemoryGrid(
        client_app(secagg_mod(**terms)),
        NODES,
        script=lambda delivery: (
            [] if delivery.node == 14 and "arrays" in delivery.message.content else [delivery.answer()]
        ),
    )
    agree(SecAggGrid(inner, **terms), agreement, params, absent=14, stage=stage)


def test_what_a_toy_cannot_do_is_refused(tmp_path):
    for terms, told in (
        ({"pipelined": True}, "no stage of keys before its inputs"),
        ({"protocol": "tou"}, "protocol must be one of secagg, secagg\\+, bfv, ckks, toy, got 'tou'"),
    ):
        with pytest.raises(ParameterError, match=told):
            secagg_mod(**{"protocol": "toy"} | terms)
    with pytest.raises(InputError, match="toy has no party 'decryptor'"):
        SecAggGrid(None, protocol="toy", parties={"decryptor": None})
    with pytest.raises(ParameterError, match="no malicious server"):
        Agreement(protocol="toy").plan(clients=5, dimension=1, threat="malicious-server")


def test_a_protocol_that_overstates_its_model_is_not_taken_at_its_word(monkeypatch):
    plan = toy_protocol.Toy.plan
    monkeypatch.setattr(toy_protocol.Toy, "plan", lambda self, name, threat, **asked: plan(self, name, **asked))
    with pytest.raises(ParameterError, match="toy withstands no malicious server"):
        Agreement(protocol="toy").plan(clients=5, dimension=1, threat="malicious-server")


def test_a_protocol_whose_first_requests_differ_is_refused_before_anything_is_sent(tmp_path, monkeypatch):
    requests = toy_protocol.ToyServerSession._requests
    monkeypatch.setattr(
        toy_protocol.ToyServerSession,
        "_requests",
        lambda self, state: {one: payload + bytes([one]) for one, payload in requests(self, state).items()},
    )
    inner, grid = in_files(tmp_path)
    content = RecordDict({"arrays": initial_arrays(), "config": ConfigRecord()})
    replies = grid.send_and_receive([Message(content, node, "train") for node in NODES])
    assert all("first requests differ by client" in reply.error.reason for reply in replies)
    assert inner.exchanges == []


def test_no_module_names_a_protocol_its_messages_or_its_stages():
    names = {*protocol.protocol_names(), *protocol.every_stage(), *(one.family for one in protocol.protocols())}
    for path in Path(flower.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in names:
                # The prefix of its own records and settings
                assert (path.name, node.value) == ("envelope.py", "secagg"), f"{path.name}, line {node.lineno}"
            if isinstance(node, ast.ImportFrom):
                assert not str(node.module).startswith(("secagg.pairwise", "secagg.he")), path.name


def test_a_record_is_written_in_turn_with_no_second_copy_of_the_state():
    pieces = [b"one", memoryview(b"two")]

    class State(secagg.SavedState):
        def __init__(self):
            pass

        def buffers(self):
            yield from pieces

    class Store:
        def put(self, kept):
            self.kept = kept

    store = Store()
    head = Kept(invitation=b"i" * 32, content=b"c" * 32, params=b"params", fixed=True, ahead=True)
    RoundRecord(store, head).keep(State())
    first, *rest = store.kept.buffers()
    assert [one is other for one, other in zip(rest, pieces, strict=True)] == [True, True]
    read = Kept.decode(store.kept.encode())
    assert first + b"onetwo" == store.kept.encode()
    assert read == Kept(
        invitation=head.invitation, content=head.content, params=b"params", session=b"onetwo", fixed=True, ahead=True
    )
