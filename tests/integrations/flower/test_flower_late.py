"""A process that answers late, when its round was dismissed or another was begun on its node."""

from __future__ import annotations

import os
import threading

import pytest
from flwr.clientapp import ClientApp

from cohorts import NODES, start
from memory_grid import MemoryGrid, train
from secagg.errors import DecodeError, LocalProtocolError
from secagg.integrations.flower import SecAggGrid, secagg_mod
from secagg.integrations.flower.state import Kept, SlotStore


def kept(session):
    return Kept(invitation=bytes(32), content=bytes(32), params=b"params", session=session)


def store(folder):
    return SlotStore(folder, run_id=1, node_id=1)


@pytest.fixture
def late(tmp_path):
    """Return the store of a process that claimed the first round's state."""
    store(tmp_path).put(kept(b"first"))
    claiming = store(tmp_path)
    assert claiming.take() == kept(b"first")
    return claiming


def begin_anew(folder):
    newer = store(folder)
    assert newer.take() is None
    newer.put(kept(b"second"))


def test_a_late_state_does_not_replace_a_newer_rounds(late, tmp_path):
    begin_anew(tmp_path)
    with pytest.raises(LocalProtocolError, match="another round was begun"):
        late.put(kept(b"first, trained"))
    assert [path.name for path in tmp_path.iterdir()] == ["secagg-1-1.state"]
    assert store(tmp_path).take() == kept(b"second")


def test_a_late_refusal_does_not_replace_a_newer_rounds_state(late, tmp_path):
    begin_anew(tmp_path)
    late.put_back()
    assert [path.name for path in tmp_path.iterdir()] == ["secagg-1-1.state"]
    assert store(tmp_path).take() == kept(b"second")


def test_a_late_end_leaves_a_newer_rounds_state(late, tmp_path):
    begin_anew(tmp_path)
    late.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["secagg-1-1.state"]


def test_a_dismissed_round_does_not_come_back(late, tmp_path):
    store(tmp_path).wipe()
    with pytest.raises(LocalProtocolError, match="dismissed"):
        late.put(kept(b"first, trained"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", ["finish", "put_back"])
def test_a_dismissed_round_is_not_ended_nor_taken_up_again(late, tmp_path, end):
    store(tmp_path).wipe()
    if end == "finish":
        with pytest.raises(LocalProtocolError, match="dismissed"):
            late.finish()
    late.put_back()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("ends", ["put", "put_back"])
def test_a_dismissal_while_a_state_is_put_takes_it_along(late, tmp_path, monkeypatch, when, ends):
    link = os.link

    def dismissed(*paths):
        if when == "before":
            store(tmp_path).wipe()
        link(*paths)
        if when == "after":
            store(tmp_path).wipe()

    monkeypatch.setattr(os, "link", dismissed)
    if ends == "put":
        with pytest.raises(LocalProtocolError, match="dismissed"):
            late.put(kept(b"first, trained"))
    else:
        late.put_back()
    assert list(tmp_path.iterdir()) == []


def test_of_two_first_states_one_is_put(tmp_path):
    one, other = store(tmp_path), store(tmp_path)
    assert one.take() is other.take() is None
    one.put(kept(b"one"))
    with pytest.raises(LocalProtocolError):
        other.put(kept(b"other"))
    assert store(tmp_path).take() == kept(b"one")


def test_a_damaged_file_does_not_stay(tmp_path):
    (tmp_path / "secagg-1-1.state").write_bytes(b"damaged")
    with pytest.raises(DecodeError):
        store(tmp_path).take()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fails", [False, True])
def test_a_straggler_that_trains_into_the_next_round_takes_part_in_it(tmp_path, fails):
    started, goes_on, late, answers = threading.Event(), threading.Event(), [], []

    def app(node):
        made = ClientApp(mods=[secagg_mod()])

        @made.train()
        def _train(message, context):
            if context.node_id == 13 and message.content["config"]["server-round"] == 1:
                started.set()
                goes_on.wait(20)
                if fails:
                    raise ValueError
            return train(message, context.node_id)

        return made

    def script(delivery):
        if (delivery.node, delivery.kind) == (13, "RELAYED_SHARES") and not late:
            late.append(threading.Thread(target=lambda: answers.append(delivery.answer())))
            late[0].start()
            started.wait(5)
            return []
        if delivery.kind == "ROSTER" and len(grid.rounds) == 1 and not goes_on.is_set():
            # The second invitation is answered; now the first round's training ends
            goes_on.set()
            late[0].join()
        return [delivery.answer()]

    folder = tmp_path / "states"
    configs = {node: {"secagg-state": str(folder)} for node in NODES}
    inner = MemoryGrid(app, NODES, script=script, node_configs=configs)
    grid = SecAggGrid(inner)
    start(grid, rounds=2)
    assert [len(report.survivors) for report in grid.rounds] == [4, 5]
    assert ("train function raised ValueError" if fails else "dismissed") in answers[0].error.reason
    assert list(folder.iterdir()) == []
