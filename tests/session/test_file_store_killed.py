"""Processes of a store's that are killed before every call of the operating system, and what others find."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest

from children import fork, needs_fork
from file_stores import (
    NAME,
    OS_CALLS,
    PUTS,
    SCENARIOS,
    check_left,
    free_state,
    names,
    put_after_put,
    put_after_take,
    put_back,
    put_back_beside_a_newer_state,
)
from secagg import FileStore, LocalProtocolError

pytestmark = needs_fork


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    # What is written need not outlive the machine
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def killed_at(at: int, prepare: Callable[[], Callable[[], object]]) -> bool:
    """Run ``prepare``, and what it returns, in a process that is killed before that one's call ``at`` of the system."""
    child = fork()
    if child == 0:
        try:
            act = prepare()
            seen = 0

            def counted(call):
                def instead(*args, **kwargs):
                    nonlocal seen
                    seen += 1
                    if seen - 1 == at:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return call(*args, **kwargs)

                return instead

            for name in (*OS_CALLS, "close"):
                setattr(os, name, counted(getattr(os, name)))
            act()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def kills(tmp_path, scenario):
    """Yield a folder, and the state before and after, for each call that the process was killed at."""
    (tmp_path / "known").mkdir()
    _, _, before, after = scenario(FileStore(tmp_path / "known"))
    at, killed = 0, True
    while killed:
        folder = tmp_path / str(at)
        killed = killed_at(at, lambda folder=folder: scenario(FileStore(folder))[1])
        yield folder, before if killed else after, after
        at += 1
    assert at > 3


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_process_that_is_killed_anywhere_leaves_one_state(tmp_path, scenario):
    seen = []
    for folder, before, after in kills(tmp_path, scenario):
        FileStore(folder).recover()
        slot = FileStore(folder).slot(NAME)
        state = slot.take()
        assert state in (before, after)
        seen.append(state)
        slot.put_back()
        check_left(folder, state)
    assert seen[-1] == after
    # Once it is the state after, it stays that
    assert [state == after for state in seen] == sorted(state == after for state in seen)


# Of the one that is left out nobody went on from the older state: it may come back when the newer one's session is over
@pytest.mark.parametrize("ends", ["puts", "drops", "puts back"])
@pytest.mark.parametrize("scenario", [one for one in SCENARIOS if one is not put_back_beside_a_newer_state])
def test_what_a_killed_process_leaves_never_comes_after_what_others_went_on_from(tmp_path, scenario, ends):
    for folder, before, after in kills(tmp_path, scenario):
        slot = FileStore(folder).slot(NAME)
        try:
            state = slot.take()
        except LocalProtocolError:
            continue  # the killed process had claimed it
        if state is None:
            continue
        assert state in (before, after)
        if ends == "puts":
            slot.put(b"theirs")
            slot = FileStore(folder).slot(NAME)
            assert slot.take() == b"theirs"
            slot.put(b"theirs, finished")
            slot.drop()
        elif ends == "drops":
            slot.drop()
        else:
            slot.put_back()
        check_left(folder, state if ends == "puts back" else None)


@pytest.mark.parametrize("second", ["take", "recover"])
@pytest.mark.parametrize("first", [*PUTS, put_back])
def test_two_processes_that_are_killed_one_after_the_other_leave_one_state(tmp_path, first, second):
    at, killed = 0, True
    while killed:
        then, killed_too = 0, True
        while killed_too:
            folder = tmp_path / f"{at}-{then}"
            killed = killed_at(at, lambda folder=folder: first(FileStore(folder))[1])
            path = folder / f"{NAME}.state"
            wanted = path.read_bytes()[21:] if path.exists() else None
            store = FileStore(folder)
            call = partial(free_state, store.slot(NAME)) if second == "take" else store.recover
            killed_too = killed_at(then, lambda call=call: call)
            store.recover()
            slot = store.slot(NAME)
            state = slot.take()
            assert state == wanted if wanted is not None else state in (None, b"old")
            slot.drop()
            check_left(folder, None)
            then += 1
        at += 1


@pytest.mark.parametrize("scenario", [put_after_put, put_after_take])
def test_a_killed_claim_is_nobodys_until_it_is_recovered(tmp_path, scenario):
    claimed = 0
    for folder, before, _ in kills(tmp_path, scenario):
        if not (folder / f"{NAME}.state").exists():
            claimed += 1
            with pytest.raises(LocalProtocolError, match="claimed by another slot"):
                FileStore(folder).slot(NAME).take()
            assert FileStore(folder).recover() == (NAME,)
            check_left(folder, before)
    assert claimed


def test_of_many_processes_one_gets_a_state(tmp_path):
    store, rounds = FileStore(tmp_path), 30
    for number in range(rounds):
        store.slot(f"n{number}").put(b"%d" % number)
    (begin, go), (read, write) = os.pipe(), os.pipe()
    children = []
    for _ in range(4):
        child = fork()
        if child == 0:
            os.close(go)
            os.read(begin, 1)  # until the parent closes its end
            for number in range(rounds):
                with suppress(LocalProtocolError):  # another got it
                    os.write(write, b"%s\n" % FileStore(tmp_path).slot(f"n{number}").take())
            os._exit(0)
        children.append(child)
    os.close(write)
    os.close(go)
    os.close(begin)
    with os.fdopen(read, "rb") as pipe:
        got = pipe.read().split()
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    assert sorted(got) == sorted(b"%d" % number for number in range(rounds))
    assert len(names(tmp_path)) == rounds
