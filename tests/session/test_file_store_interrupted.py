"""Calls on a slot that fail, or are cut off, anywhere: they are made again, or somebody else goes on."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import suppress

import pytest

from file_stores import (
    NAME,
    OS_CALLS,
    PUTS,
    SCENARIOS,
    check_left,
    names,
    put_back_beside_a_newer_state,
    take,
    take_after_giving_back,
)
from interruptions import Cut, run_cut
from secagg import FileStore, LocalProtocolError


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    # What is written need not outlive the machine
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class FailingDisk:
    """The system's calls, of which number ``at`` fails before, or after, it did what it should."""

    def __init__(self, patched, at, when):
        self.left, self.when = at, when
        for name in OS_CALLS:
            # An open that worked and failed would lose a descriptor
            if name != "open" or when == "before":
                patched.setattr(os, name, self.instead_of(getattr(os, name)))

    def instead_of(self, call):
        def instead(*args, **kwargs):
            self.left -= 1
            if self.left != -1:
                return call(*args, **kwargs)
            if self.when == "after":
                call(*args, **kwargs)
            raise OSError(errno.EIO, "input/output error")

        return instead


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_disk_that_fails_at_any_call_costs_the_call_alone(tmp_path, monkeypatch, scenario, when):
    at, failed = 0, True
    while failed:
        folder = tmp_path / str(at)
        _, act, _, after = scenario(FileStore(folder))
        with monkeypatch.context() as patched:
            disk = FailingDisk(patched, at, when)
            with suppress(OSError):
                act()
        failed = disk.left < 0
        act()
        if scenario in PUTS:
            assert names(folder) == [f"{NAME}.state"]
        check_left(folder, after)
        at += 1
    assert at > 3


def cuts(folder, scenario, opcodes, step):
    """Yield a scenario's slot, call and state after each line (or opcode) of the call that it may be cut off at."""
    _, act, *_ = scenario(FileStore(folder / "whole"))
    lines = run_cut(act, -1, opcodes=opcodes)
    for at in range(0, lines, step):
        one = folder / str(at)
        slot, act, before, after = scenario(FileStore(one))
        with pytest.raises(Cut):
            run_cut(act, at, opcodes=opcodes)
        yield one, slot, act, before, after


@pytest.mark.parametrize(("opcodes", "step"), [(False, 1), (True, 7)])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_call_that_is_cut_off_anywhere_is_made_again(tmp_path, scenario, opcodes, step):
    for folder, slot, act, _, after in cuts(tmp_path, scenario, opcodes, step):
        act()
        if scenario in PUTS:
            assert names(folder) == [f"{NAME}.state"]
            slot.put(b"next")
            check_left(folder, b"next")
        else:
            check_left(folder, after)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_call_that_is_cut_off_and_not_made_again_leaves_one_state(tmp_path, scenario):
    seen = set()
    for folder, *_, before, after in cuts(tmp_path, scenario, False, 1):
        FileStore(folder).recover()
        left = FileStore(folder).slot(NAME)
        state = left.take()
        assert state in (before, after)
        seen.add(state)
        left.put_back()
        check_left(folder, state)
    assert seen == {before, after}


@pytest.mark.parametrize("ends", ["holds", "puts", "drops", "puts back"])
@pytest.mark.parametrize("scenario", PUTS)
def test_a_put_that_is_cut_off_is_not_made_again_once_another_goes_on_from_its_state(tmp_path, scenario, ends):
    took = []
    for folder, _, act, before, after in cuts(tmp_path, scenario, False, 1):
        other = FileStore(folder).slot(NAME)
        state = other.take()
        assert state in (None, before, after)
        took.append(state)
        if state is None:
            act()
            check_left(folder, after)
            continue
        if ends == "puts back":
            # Nobody has gone on from it: its own slot may, or leaves that to who comes next
            other.put_back()
            try:
                act()
            except LocalProtocolError:
                check_left(folder, state)
            else:
                check_left(folder, after)
            continue
        if ends != "holds":
            other.put(b"theirs") if ends == "puts" else other.drop()
        with pytest.raises(LocalProtocolError):
            act()
        if ends == "holds":
            other.put(b"theirs")
        check_left(folder, None if ends == "drops" else b"theirs")
    assert None in took
    assert b"new" in took


def copied(folder, to):
    """Copy a folder as it is, names of one file together."""
    to.mkdir()
    first = {}
    for path in folder.iterdir():
        known = first.setdefault(path.stat().st_ino, to / path.name)
        if known == to / path.name:
            shutil.copy2(path, known)
        else:
            os.link(known, to / path.name)


# Nothing that they leave undone is harmful: what was taken lies under its name again when its process is gone
NOT_SYNCED = (take, take_after_giving_back, put_back_beside_a_newer_state)


@pytest.mark.skipif(not hasattr(os, "O_DIRECTORY"), reason="this system's folders cannot be synced")
@pytest.mark.parametrize("then", ["recovered", "dropped by another first"])
@pytest.mark.parametrize("scenario", [one for one in SCENARIOS if one not in NOT_SYNCED])
def test_what_was_done_when_a_call_returned_is_done_though_the_power_fails(tmp_path, monkeypatch, scenario, then):
    folder, disks = tmp_path / "states", []

    def sync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            disks.append(tmp_path / str(len(disks)))
            copied(folder, disks[-1])

    _, act, before, after = scenario(FileStore(folder))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", sync)
        act()
    # What was removed after the last sync is there again
    if then == "recovered":
        check_left(disks[-1], after)
    else:
        slot = FileStore(disks[-1]).slot(NAME)
        assert slot.take() == after
        slot.drop()
        check_left(disks[-1], None)
    for disk in disks[:-1]:
        FileStore(disk).recover()
        assert FileStore(disk).slot(NAME).take() in (before, after)
