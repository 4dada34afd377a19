"""What a client keeps between messages, for how long, and who gets it."""

from __future__ import annotations

import copy
import errno
import os
import threading

import pytest
from flwr.app import ConfigRecord, RecordDict

from cohorts import NODES, faults_of, malicious, start
from memory_grid import MemoryGrid, client_app
from secagg.errors import DecodeError
from secagg.identity_files import new_seal_key, read_seal_key
from secagg.integrations.flower import NodeSecrets, SecAggGrid, secagg_mod
from secagg.integrations.flower.state import Kept, RoundRecord, SlotStore


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
    link = os.link
    monkeypatch.setattr(os, "link", lambda *paths: (order.append("durable"), link(*paths))[1])
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
    kept = Kept(invitation=bytes(32), content=bytes(32), params=b"params", session=b"session")
    SlotStore(tmp_path, run_id=1, node_id=1).put(kept)
    taken, barrier = [], threading.Barrier(8)

    def take():
        store = SlotStore(tmp_path, run_id=1, node_id=1)
        barrier.wait()
        taken.append(store.take())

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one for one in taken if one is not None] == [kept]


def test_a_process_that_dies_with_a_state_leaves_it_to_nobody(tmp_path):
    kept = Kept(invitation=bytes(32), content=bytes(32), params=b"params", session=b"session")
    SlotStore(tmp_path, run_id=1, node_id=1).put(kept)
    assert SlotStore(tmp_path, run_id=1, node_id=1).take() == kept
    other = SlotStore(tmp_path, run_id=1, node_id=1)
    assert other.take() is None
    other.wipe()
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_answered_nothing_may_serve_again(tmp_path):
    kept = Kept(invitation=bytes(32), content=bytes(32), params=b"params", session=b"session", fixed=True)
    store = SlotStore(tmp_path, run_id=1, node_id=1)
    store.put(kept)
    store.take()
    store.put_back()
    assert SlotStore(tmp_path, run_id=1, node_id=1).take() == kept
    assert SlotStore(tmp_path, run_id=1, node_id=2).take() is None


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


@pytest.mark.parametrize("kind", ["ROSTER", "RELAYED_SHARES", "UNMASK_REQUEST"])
def test_a_full_disk_costs_an_answer_and_not_the_state(tmp_path, monkeypatch, kind):
    sync, failed = os.fsync, []

    def full(descriptor):
        raise OSError(errno.ENOSPC, "no space left on device")

    def script(delivery):
        if (delivery.kind, delivery.node) == (kind, 13):
            with monkeypatch.context() as patched:
                patched.setattr(os, "fsync", full)
                failed.append(delivery.answer())
            assert os.fsync is sync
        return [delivery.answer()]

    _, grid = malicious(tmp_path, script)
    start(grid)
    assert [reply.has_error() for reply in failed] == [True]
    assert len(grid.rounds[0].survivors) == 5
    assert not grid.rounds[0].faults


@pytest.mark.parametrize("nth", [1, 2])
def test_a_last_reply_that_also_begins_the_next_round_may_be_asked_for_again(tmp_path, monkeypatch, nth):
    """The disk is full when the round's last state is put, or when the next round's first one is."""
    config, kept, failed = {"secagg-state": str(tmp_path / "states")}, [], []
    keep = RoundRecord.keep

    def full(self, state):
        kept.append(state)
        if len(kept) == nth:
            raise OSError(errno.ENOSPC, "no space left on device")
        keep(self, state)

    def script(delivery):
        if (delivery.node, delivery.kind) == (13, "UNMASK_REQUEST") and not failed:
            with monkeypatch.context() as patched:
                patched.setattr(RoundRecord, "keep", full)
                failed.append(delivery.answer())
        return [delivery.answer()]

    inner = MemoryGrid(
        client_app(secagg_mod(pipelined=True)), NODES, script=script, node_configs=dict.fromkeys(NODES, config)
    )
    with SecAggGrid(inner, pipelined=True) as grid:
        start(grid, rounds=2)
    assert (len(kept), [reply.has_error() for reply in failed]) == (nth, [True])
    assert [(report.exchanges, report.faults) for report in grid.rounds] == [(4, {}), (3, {})]
    assert list((tmp_path / "states").iterdir()) == []


@pytest.mark.parametrize("name", ["rename", "open"])
def test_a_disk_that_fails_while_a_state_is_claimed_costs_an_answer_and_not_the_state(tmp_path, monkeypatch, name):
    failed = []

    def broken(*_):
        raise OSError(errno.EIO, "input/output error")

    def script(delivery):
        if (delivery.kind, delivery.node) == ("RELAYED_SHARES", 13):
            with monkeypatch.context() as patched:
                patched.setattr(os, name, broken)
                failed.append(delivery.answer())
        return [delivery.answer()]

    _, grid = malicious(tmp_path, script)
    start(grid)
    assert [reply.has_error() for reply in failed] == [True]
    assert len(grid.rounds[0].survivors) == 5


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SFst\x02",
        b"SFst\x01" + bytes(80),
        b"SFst\x02" + bytes(64) + b"\x04" + bytes(4) + b"session",
        b"SFst\x02" + bytes(65) + b"\x07\0\0\0" + b"session",
    ],
)
def test_a_damaged_state_is_refused(data):
    with pytest.raises(DecodeError):
        Kept.decode(data)


def test_a_damaged_state_does_not_stand_in_the_way_of_the_next_round():
    states = {node: RecordDict({"secagg.1": ConfigRecord({"state": b"damaged"})}) for node in NODES[:1]}
    inner = MemoryGrid(client_app(secagg_mod()), NODES, states=states)
    grid = SecAggGrid(inner)
    start(grid, rounds=2)
    assert [len(report.survivors) for report in grid.rounds] == [4, 5]


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
