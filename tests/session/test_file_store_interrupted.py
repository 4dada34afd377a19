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
    drop_after_put,
    drop_after_take,
    first_put,
    free_state,
    names,
    put_after_put,
    put_after_take,
    put_back,
    put_back_beside_a_newer_state,
    recovery,
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

    def __init__(self, patched, at, when, of=OS_CALLS):
        self.left, self.when = at, when
        for name in of:
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
        state = found(folder)
        assert state in (before, after)
        seen.add(state)
        check_left(folder, state)
    assert seen == {before, after}


@pytest.mark.parametrize("ends", ["holds", "puts", "drops", "puts back"])
@pytest.mark.parametrize("scenario", PUTS)
def test_a_put_that_is_cut_off_is_not_made_again_once_another_goes_on_from_its_state(tmp_path, scenario, ends):
    took = []
    for folder, _, act, before, after in cuts(tmp_path, scenario, False, 1):
        other = FileStore(folder).slot(NAME)
        state = free_state(other)
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


def test_a_put_back_that_is_cut_off_gives_a_state_back_once(tmp_path):
    took = set()
    for folder, _, act, *_ in cuts(tmp_path, put_back, False, 1):
        other = FileStore(folder).slot(NAME)
        state = free_state(other)
        took.add(state)
        act()
        if state is not None:
            with pytest.raises(LocalProtocolError, match="claimed by another slot"):
                FileStore(folder).slot(NAME).take()
            other.put(b"theirs")
        check_left(folder, b"old" if state is None else b"theirs")
    assert took == {None, b"old"}


def test_a_put_back_that_is_made_again_gives_nothing_to_a_third(tmp_path, monkeypatch):
    given, taken = 0, 0
    for folder, _, act, *_ in cuts(tmp_path, put_back, False, 1):
        other = FileStore(folder).slot(NAME)
        with monkeypatch.context() as patched:
            disk = FailingDisk(patched, 0, "before", of=("listdir",))
            with suppress(OSError):
                taken += free_state(other) is not None
        if disk.left < 0 and len(names(folder)) > 1:
            # It has both names of the state, and did not come to remove the claim that was put back
            given += 1
            act()
            assert names(folder)[-1] != f"{NAME}.state"
            assert other.take() == b"old"
    assert given
    assert taken


def takes(other):
    return free_state(other)


def takes_and_puts(other):
    state = free_state(other)
    if state is not None:
        other.put(b"theirs")
    return state


def takes_and_drops(other):
    state = free_state(other)
    other.drop()
    return state


def takes_and_puts_back(other):
    free_state(other)
    other.put_back()


def begins_anew(other):
    try:
        other.put(b"theirs", superseding=True)
    except LocalProtocolError:
        return None
    return b""


def wipes(other):
    other.wipe()


DEEDS = [takes, takes_and_puts, takes_and_drops, takes_and_puts_back, begins_anew, wipes]


class Intruder:
    """Another process, that does its deed just before call ``at`` of the system."""

    def __init__(self, patched, at, deed):
        self.left, self.deed, self.took = at, deed, None
        self.calls = {name: getattr(os, name) for name in OS_CALLS}
        for name in OS_CALLS:
            patched.setattr(os, name, self.instead_of(name))

    def instead_of(self, name):
        def instead(*args, **kwargs):
            self.left -= 1
            if self.left == -1:
                self.took = self.deed()
            return self.calls[name](*args, **kwargs)

        return instead


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("scenario", [*PUTS, put_back, drop_after_take, drop_after_put])
def test_another_process_comes_at_any_moment_of_a_call(tmp_path, monkeypatch, scenario, deed):
    at, came = 0, True
    while came:
        folder = tmp_path / str(at)
        slot, act, before, after = scenario(FileStore(folder))
        other, refused = FileStore(folder).slot(NAME), False
        with monkeypatch.context() as patched:
            intruder = Intruder(patched, at, lambda other=other: deed(other))
            try:
                act()
            except LocalProtocolError:
                refused = True
        came, took = intruder.left < 0, intruder.took
        left = after
        if deed is takes_and_puts_back and refused:
            left = found(folder)
            assert left in (before, after)
        elif took is not None:
            # Whoever took a state or put one goes on, and nobody else does
            if scenario in PUTS or (scenario is drop_after_put and deed is not begins_anew):
                assert refused or took == after
            if scenario in PUTS:
                with pytest.raises(LocalProtocolError):
                    slot.put(b"again")
            if deed is takes:
                other.put(b"theirs")
            left = None if deed is takes_and_drops else b"theirs"
            assert (f"{NAME}.state" in names(folder)) is (left is not None)
        elif deed is wipes and came:
            assert refused or scenario not in (put_after_take, put_after_put)
            left = after if scenario is first_put and not refused else None
        else:
            assert not refused
        check_left(folder, left)
        if took is not None and scenario in PUTS and (took == after or scenario is not first_put):
            with pytest.raises(LocalProtocolError):
                slot.put(b"again, when the other is done")
        at += 1
    assert at > 3


def test_a_state_that_was_put_while_claims_are_recovered_stays(tmp_path, monkeypatch):
    at, came, met = 0, True, 0
    while came:
        folder = tmp_path / str(at)
        _, act, *_ = recovery(FileStore(folder))
        with monkeypatch.context() as patched:
            intruder = Intruder(patched, at, lambda folder=folder: begins_anew(FileStore(folder).slot(NAME)))
            act()
        came = intruder.left < 0
        met += intruder.took is not None
        check_left(folder, b"old" if intruder.took is None else b"theirs")
        at += 1
    assert met > 1


def found(folder):
    """Recover, and return what is there without taking it away."""
    FileStore(folder).recover()
    slot = FileStore(folder).slot(NAME)
    state = slot.take()
    slot.put_back()
    return state


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
        assert found(disk) in (before, after)
