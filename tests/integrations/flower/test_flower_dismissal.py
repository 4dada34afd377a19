"""Who is told to forget a round when, so that no node keeps a state that nobody needs any more."""

from __future__ import annotations

import logging

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from cohorts import NODES, start
from memory_grid import MemoryGrid, client_app, initial_arrays, train
from secagg.integrations.flower import SecAggGrid, secagg_mod


def in_files(tmp_path, script=None, *, app=None, nodes=NODES, **terms):
    config = {"secagg-state": str(tmp_path / "states")}
    app = app or client_app(secagg_mod(**terms))
    inner = MemoryGrid(app, nodes, script=script, node_configs=dict.fromkeys(nodes, config))
    return inner, SecAggGrid(inner, **terms)


def left(tmp_path):
    return sorted(path.name for path in (tmp_path / "states").iterdir())


def dismissed(inner):
    return sorted(message.metadata.dst_node_id for message in inner.pushed)


def badly_trained(spoil):
    def app(node):
        made = ClientApp(mods=[secagg_mod()])

        @made.train()
        def _train(message, context):
            reply = train(message, context.node_id)
            if context.node_id == 13:
                spoil(reply)
            return reply

        return made

    return app


def raising(reply):
    raise ValueError


@pytest.mark.parametrize("spoil", [raising, lambda reply: reply.content["metrics"].update({"num-examples": 0})])
def test_a_client_whose_training_fails_keeps_no_state_of_a_round_that_succeeds(tmp_path, spoil):
    inner, grid = in_files(tmp_path, app=badly_trained(spoil))
    start(grid)
    assert len(grid.rounds[0].survivors) == 4
    assert left(tmp_path) == []
    assert dismissed(inner) == [13]


@pytest.mark.parametrize("kind", ["ROSTER", "RELAYED_SHARES", "UNMASK_REQUEST"])
@pytest.mark.parametrize("lost", ["request", "reply"])
def test_a_client_that_was_not_heard_keeps_no_state_of_a_round_that_succeeds(tmp_path, kind, lost):
    def script(delivery):
        if (delivery.node, delivery.kind) == (13, kind):
            if lost == "reply":
                delivery.answer()
            return []
        return [delivery.answer()]

    inner, grid = in_files(tmp_path, script)
    start(grid)
    assert grid.rounds[0].failure is None
    assert left(tmp_path) == []
    assert dismissed(inner) == [13]


def test_nobody_is_dismissed_who_ended_the_round(tmp_path):
    inner, grid = in_files(tmp_path)
    start(grid, rounds=2)
    assert inner.pushed == []


@pytest.mark.parametrize("kind", ["ROSTER", "UNMASK_REQUEST"])
def test_a_pipelined_round_that_cannot_follow_is_forgotten_by_all(tmp_path, kind):
    def script(delivery):
        return [] if (delivery.node, delivery.kind) == (13, kind) else [delivery.answer()]

    inner, grid = in_files(tmp_path, script, pipelined=True)
    start(grid)
    assert left(tmp_path) == []
    assert dismissed(inner) == list(NODES)


def test_a_node_that_is_not_asked_again_forgets_the_round_begun_ahead(tmp_path):
    inner, grid = in_files(tmp_path, nodes=(*NODES, 16), pipelined=True)
    content = RecordDict({"arrays": initial_arrays(), "config": ConfigRecord()})
    for nodes in (NODES, (*NODES[1:], 16)):
        grid.send_and_receive([Message(content, node, "train") for node in nodes], timeout=5)
    assert dismissed(inner) == [NODES[0]]
    assert left(tmp_path) == [f"secagg-1-{node}.state" for node in (*NODES[1:], 16)]


def test_too_few_nodes_to_begin_with_forget_the_round_begun_ahead(tmp_path):
    _, grid = in_files(tmp_path, pipelined=True)
    content = RecordDict({"arrays": initial_arrays(), "config": ConfigRecord()})
    for nodes in (NODES, NODES[:2]):
        grid.send_and_receive([Message(content, node, "train") for node in nodes], timeout=5)
    assert "at least 3" in grid.rounds[1].failure
    assert left(tmp_path) == []


def test_closing_the_grid_ends_what_the_last_round_began_ahead(tmp_path):
    inner, secure = in_files(tmp_path, pipelined=True)
    with secure as grid:
        start(grid, rounds=2)
        assert len(left(tmp_path)) == len(NODES)
        assert inner.pushed == []
    assert left(tmp_path) == []
    # It may go on, and closing what has nothing open sends nothing
    start(grid)
    assert grid.rounds[-1].exchanges == 4
    grid.close()
    asked = len(inner.exchanges)
    grid.close()
    assert len(inner.exchanges) == asked
    assert left(tmp_path) == []


@pytest.mark.parametrize("failure", ["silent", "error", "grid"])
def test_nodes_that_are_not_reached_at_closing_are_counted_in_the_log(tmp_path, caplog, monkeypatch, failure):
    def script(delivery):
        if delivery.kind != "dismiss":
            return [delivery.answer()]
        if failure == "grid":
            raise RuntimeError("the link is gone")
        if delivery.node != 13:
            return [delivery.answer()]
        lost = Message(Error(code=5, reason="Node unavailable"), reply_to=delivery.message)
        return [lost] if failure == "error" else []

    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    _, grid = in_files(tmp_path, script, pipelined=True)
    start(grid)
    grid.close()
    wanted = "nodes may keep a state: RuntimeError" if failure == "grid" else "1 of 5 nodes may keep a state"
    assert [wanted in message for message in caplog.messages if "keep a state" in message] == [True]


@pytest.mark.parametrize("error", [RuntimeError("the link is gone"), KeyboardInterrupt()])
@pytest.mark.parametrize("exchange", [2, 3, 4])
def test_a_grid_that_fails_leaves_a_report_and_no_state(tmp_path, error, exchange):
    class Failing(MemoryGrid):
        def send_and_receive(self, messages, *, timeout=None):
            if len(self.exchanges) == exchange - 1:
                raise error
            return super().send_and_receive(messages, timeout=timeout)

    config = {"secagg-state": str(tmp_path / "states")}
    inner = Failing(client_app(secagg_mod()), NODES, node_configs=dict.fromkeys(NODES, config))
    grid = SecAggGrid(inner)
    with pytest.raises(type(error)):
        start(grid)
    assert [report.failure for report in grid.rounds] == [type(error).__name__]
    assert left(tmp_path) == []
