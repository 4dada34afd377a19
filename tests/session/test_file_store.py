"""A store hands each state out once, says who holds it, and loses none to a full disk or an interruption."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import threading
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import secagg
from children import all_refused, in_child, needs_fork
from file_stores import NAME, check_left, names
from secagg import DecodeError, FileStore, InputError, LocalProtocolError

POSIX = pytest.mark.skipif(os.name != "posix", reason="file modes and limits are POSIX's")


class Saved:
    """What a session offers its store: buffers, to be written in turn."""

    def __init__(self, *parts):
        self.parts = parts

    def buffers(self):
        yield from self.parts


def taken(folder):
    return FileStore(folder).slot(NAME).take()


@pytest.fixture
def store(tmp_path):
    return FileStore(tmp_path)


@pytest.mark.parametrize(
    "state",
    [
        b"state",
        bytearray(b"state"),
        memoryview(b"state"),
        memoryview(np.frombuffer(b"state", dtype=np.uint8)),
        Saved(b"st", b"", bytearray(b"at"), memoryview(b"e")),
        Saved(np.frombuffer(b"stat", dtype="<u4"), np.zeros(0, dtype="<u8"), b"e"),
    ],
)
def test_what_was_put_is_taken(store, tmp_path, state):
    store.slot(NAME).put(state)
    assert names(tmp_path) == [f"{NAME}.state"]
    assert store.slot(NAME).take() == b"state"


def test_an_empty_state_is_a_state(store):
    store.slot(NAME).put(b"")
    assert store.slot(NAME).take() == b""


def test_a_long_lived_slot_puts_again_and_again(store, tmp_path):
    slot = store.slot(NAME)
    assert slot.take() is None
    for number in range(5):
        slot.put(b"%d" % number)
        assert names(tmp_path) == [f"{NAME}.state"]
    assert taken(tmp_path) == b"4"


def test_each_state_is_handed_out_once(store):
    store.slot(NAME).put(b"state")
    one, other = store.slot(NAME), store.slot(NAME)
    assert one.take() == b"state"
    with pytest.raises(LocalProtocolError, match="claimed by another slot"):
        other.take()
    with pytest.raises(LocalProtocolError, match="has handed its state out"):
        one.take()
    one.put_back()
    assert other.take() == b"state"
    with pytest.raises(LocalProtocolError, match="claimed by another slot"):
        one.take()


def test_a_state_may_be_taken_and_superseded(store, tmp_path):
    store.slot(NAME).put(b"one")
    slot = store.slot(NAME)
    slot.take()
    slot.put(b"two")
    slot.put(b"three")
    assert names(tmp_path) == [f"{NAME}.state"]
    slot.drop()
    assert names(tmp_path) == []


def unread():
    state = Saved()
    state.buffers = iter(lambda: pytest.fail("it was read"), None).__iter__
    return state


def test_what_is_there_must_be_taken_before_it_is_superseded(store, tmp_path):
    store.slot(NAME).put(b"state")
    slot = store.slot(NAME)
    for state in (b"another", unread()):
        with pytest.raises(LocalProtocolError, match="take\\(\\) it first"):
            slot.put(state)
    assert slot.take() == b"state"
    slot.put(b"another")
    assert taken(tmp_path) == b"another"


def go_on(other):
    other.put(b"other")


def finish(other):
    other.drop()


def hold(other):
    pass


@pytest.mark.parametrize("then", [go_on, finish, hold])
def test_a_state_that_another_has_taken_is_not_gone_on_from(store, tmp_path, then):
    mine, other = store.slot(NAME), store.slot(NAME)
    mine.put(b"mine")
    assert other.take() == b"mine"
    then(other)
    before = names(tmp_path)
    for _ in range(2):
        with pytest.raises(LocalProtocolError, match="another process took it and goes on from it"):
            mine.put(b"mine too")
    with pytest.raises(LocalProtocolError, match="another process took it"):
        mine.drop()
    mine.put_back()
    assert names(tmp_path) == before
    if then is hold:
        other.put(b"other")
    assert taken(tmp_path) == (None if then is finish else b"other")


def test_another_s_state_is_not_even_touched(store, monkeypatch):
    mine, other = store.slot(NAME), store.slot(NAME)
    mine.put(b"mine")
    other.take()
    other.put(b"other")
    monkeypatch.setattr(os, "rename", lambda *paths: pytest.fail("it was renamed"))
    with pytest.raises(LocalProtocolError, match="another process took it"):
        mine.put(b"mine too")


def test_a_claim_that_is_gone_is_seen_before_anything_is_written(store):
    store.slot(NAME).put(b"state")
    slot = store.slot(NAME)
    slot.take()
    store.slot(NAME).wipe()
    with pytest.raises(LocalProtocolError, match="wiped"):
        slot.put(unread())


def test_a_wipe_sees_what_is_renamed_while_it_looks(store, tmp_path, monkeypatch):
    looks, look = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: looks.append(folder) or look(folder) * (len(looks) > 1))
    store.slot(NAME).put(b"state")
    store.slot(NAME).wipe()
    assert names(tmp_path) == []


def test_a_wipe_that_failed_leaves_a_slot_what_it_had(store, tmp_path, monkeypatch):
    def unlink(path):
        raise PermissionError(errno.EACCES, "somebody reads it")

    slot = store.slot(NAME)
    slot.put(b"one")
    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", unlink)
        with pytest.raises(PermissionError):
            slot.wipe()
    slot.put(b"two")
    assert taken(tmp_path) == b"two"


def test_a_state_that_is_wiped_while_it_is_dropped_was_not_dropped(store, monkeypatch):
    store.slot(NAME).put(b"state")
    slot, unlink = store.slot(NAME), os.unlink
    slot.take()

    def wiped_first(path):
        monkeypatch.setattr(os, "unlink", unlink)
        store.slot(NAME).wipe()
        unlink(path)

    monkeypatch.setattr(os, "unlink", wiped_first)
    with pytest.raises(LocalProtocolError, match="wiped"):
        slot.drop()


def test_a_wiped_state_is_not_put_again(store, tmp_path):
    idle, holding = store.slot(NAME), store.slot("other")
    idle.put(b"1")
    store.slot("other").put(b"2")
    holding.take()
    for name in (NAME, "other"):
        store.slot(name).wipe()
    for slot in (idle, holding):
        for call in (lambda slot=slot: slot.put(b"3"), slot.drop):
            with pytest.raises(LocalProtocolError, match="wiped"):
                call()
        slot.put_back()
        with pytest.raises(LocalProtocolError):
            slot.put(b"3")
    assert names(tmp_path) == []


def test_a_newer_state_is_left_where_it_is(store, tmp_path):
    for end in ("put", "put_back", "drop"):
        store.slot(NAME).put(b"old")
        late = store.slot(NAME)
        late.take()
        store.slot(NAME).put(b"new", superseding=True)
        if end == "put":
            with pytest.raises(LocalProtocolError, match="another state was put"):
                late.put(b"late")
        else:
            getattr(late, end)()
        assert names(tmp_path) == [f"{NAME}.state"]
        newer = store.slot(NAME)
        assert newer.take() == b"new"
        newer.drop()


def test_what_was_given_back_is_taken_again_before_it_is_gone_on_from(store):
    store.slot(NAME).put(b"state")
    slot = store.slot(NAME)
    slot.take()
    slot.put_back()
    with pytest.raises(LocalProtocolError, match="gave its state"):
        slot.put(b"next")
    assert slot.take() == b"state"
    slot.put(b"next")
    # What lies there since it was put is no claim, and stays
    slot.put_back()
    slot.put(b"and next")


def test_nothing_is_dropped_by_who_holds_nothing(store):
    store.slot(NAME).put(b"state")
    slot = store.slot(NAME)
    slot.drop()
    slot.put_back()
    assert slot.take() == b"state"


def test_a_slot_that_was_dropped_or_wiped_begins_anew(store, tmp_path):
    slot = store.slot(NAME)
    for end in (slot.drop, slot.wipe):
        slot.put(b"one")
        end()
        assert names(tmp_path) == []
        slot.put(b"two")
        end()


def test_claims_are_given_back_when_their_processes_are_gone(store, tmp_path):
    for name in ("a", "b", "c"):
        store.slot(name).put(name.encode())
    store.slot("a").take()
    store.slot("b").take()
    store.slot("b").put(b"newer", superseding=True)
    (tmp_path / "notes.txt").write_text("not the store's")
    (tmp_path / f"A.fresh-{'0' * 32}").write_text("not the store's")
    kept = [f"A.fresh-{'0' * 32}", "a.state", "b.state", "c.state", "notes.txt"]
    assert FileStore(tmp_path).recover() == ("a",)
    assert names(tmp_path) == kept
    assert FileStore(tmp_path).recover() == ()
    assert names(tmp_path) == kept
    assert [store.slot(name).take() for name in ("a", "b", "c")] == [b"a", b"newer", b"c"]


def test_a_claim_that_nobody_went_on_from_outlives_a_session_that_came_and_went(store, tmp_path):
    store.slot(NAME).put(b"first")
    store.slot(NAME).take()
    newer = store.slot(NAME)
    newer.put(b"second", superseding=True)
    newer.drop()
    assert store.recover() == (NAME,)
    assert taken(tmp_path) == b"first"


@pytest.mark.parametrize("newest", [0, 1, 2])
def test_of_several_claims_the_one_that_was_written_last_is_given_back(store, tmp_path, newest):
    for number in range(3):
        store.slot(NAME).put(b"%d" % number, superseding=True)
        os.utime(tmp_path / f"{NAME}.state", ns=(0, number + 10 * (number == newest)))
        store.slot(NAME).take()
    assert len(names(tmp_path)) == 3
    assert store.recover() == (NAME,)
    assert names(tmp_path) == [f"{NAME}.state"]
    assert taken(tmp_path) == b"%d" % newest


def test_a_damaged_file_is_refused_and_dropped(store, tmp_path):
    for damaged in (b"", b"SFil\x01", b"SFil\x02" + bytes(40), bytes(60)):
        (tmp_path / f"{NAME}.state").write_bytes(damaged)
        slot = store.slot(NAME)
        for _ in range(2):
            with pytest.raises(DecodeError, match="no state that this version stored"):
                slot.take()
        with pytest.raises(LocalProtocolError, match="cut off"):
            slot.put(b"state")
        slot.drop()
        assert names(tmp_path) == []


def test_a_wipe_takes_this_slots_files_alone(store, tmp_path):
    others = ["a.b", "a-b", "a.state", f"a.claimed-{'0' * 32}", "aa"]
    for name in ["a", *others]:
        store.slot(name).put(b"state")
    store.slot("a").take()
    store.slot("a").put(b"another", superseding=True)
    store.slot("a").wipe()
    assert names(tmp_path) == sorted(f"{name}.state" for name in others)


@pytest.mark.parametrize("name", ["a", "0", "_", "client-3", "a.b", "node_7.example", "con-1", "com10", "x" * 100])
def test_names_that_every_file_system_holds(store, name):
    store.slot(name).put(b"state")
    assert store.slot(name).take() == b"state"


BAD_NAMES = ["", ".", "..", "a/b", "a\\b", "../a", "A", "ä", "a b", "a\n", "a:b", ".a", "-a", "con", "nul.x", "com1"]


@pytest.mark.parametrize("name", [*BAD_NAMES, "x" * 101, b"a", 3, None, Path("a")])
def test_names_that_no_slot_has(store, tmp_path, name):
    with pytest.raises(InputError, match="slot's name"):
        store.slot(name)
    assert names(tmp_path) == []


@pytest.mark.parametrize("state", [None, "text", 3, [b"a"], np.zeros(3), Saved("text"), Saved(b"a", 3), Saved([1])])
@pytest.mark.parametrize("before", [None, b"state"])
def test_what_is_no_state_costs_none(store, tmp_path, state, before):
    slot = store.slot(NAME)
    if before:
        slot.put(before)
    with pytest.raises(InputError, match="buffers"):
        slot.put(state)
    assert names(tmp_path) == [f"{NAME}.state"] * bool(before)
    slot.put(b"next")
    assert taken(tmp_path) == b"next"


def test_a_folder_is_a_path():
    with pytest.raises(InputError, match="path"):
        FileStore(3)


def test_buffers_are_written_in_turn_and_not_joined(store, tmp_path):
    chunk = bytes(1 << 20)

    def chunks():
        for _ in range(32):
            yield chunk

    state = Saved()
    state.buffers = chunks
    tracemalloc.start()
    store.slot(NAME).put(state)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < len(chunk) // 2
    assert (tmp_path / f"{NAME}.state").stat().st_size == 32 * len(chunk) + 21


@POSIX
def test_files_are_for_their_user_alone(tmp_path):
    store = FileStore(tmp_path / "deep" / "states")
    store.slot(NAME).put(b"state")
    assert (tmp_path / "deep" / "states").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "deep" / "states" / f"{NAME}.state").stat().st_mode & 0o777 == 0o600


def test_a_store_stays_where_it_was_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = FileStore("states")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.slot(NAME).put(b"state")
    assert names(tmp_path / "states") == [f"{NAME}.state"]


def test_neither_states_nor_paths_are_shown(store, tmp_path):
    slot = store.slot(NAME)
    slot.put(b"secret")
    store.slot(NAME).wipe()
    with pytest.raises(LocalProtocolError) as refused:
        slot.put(b"secret")
    for shown in (repr(slot), str(refused.value)):
        assert NAME in shown
        assert "secret" not in shown
        assert str(tmp_path) not in shown


def test_slots_are_not_copied(store):
    slot = store.slot(NAME)
    for copying in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"store\.slot"):
            copying(slot)


@needs_fork
def test_a_child_can_use_no_slot_of_its_parent(store, tmp_path):
    slot = store.slot(NAME)
    slot.put(b"state")
    all_refused(slot.take, lambda: slot.put(b"child"), slot.put_back, slot.drop, slot.wipe)
    assert in_child(lambda: store.slot(NAME).take()) == ["answered"]
    with pytest.raises(LocalProtocolError, match="another process took it"):
        slot.put(b"parent")


def test_a_slot_in_use_refuses_every_other_call(store, tmp_path):
    slot, refused = store.slot(NAME), []

    def buffers():
        yield b"one"
        for call in (slot.take, lambda: slot.put(b"two"), slot.put_back, slot.drop, slot.wipe):
            with pytest.raises(LocalProtocolError, match="another thread"):
                call()
            refused.append(call)

    state = Saved()
    state.buffers = buffers
    slot.put(state)
    assert len(refused) == 5
    assert taken(tmp_path) == b"one"


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL, None])
def test_a_folder_without_hard_links_is_refused_in_words(store, tmp_path, monkeypatch, refusal):
    def link(*paths):
        raise OSError(refusal, "refused")

    slot = store.slot(NAME)
    with monkeypatch.context() as patched:
        if refusal is None:
            patched.delattr(os, "link")
        else:
            patched.setattr(os, "link", link)
        with pytest.raises(InputError, match=r"hard links.*ext4") as refused:
            slot.put(b"state")
    assert str(tmp_path) not in str(refused.value)
    assert names(tmp_path) == []
    slot.put(b"state")
    assert taken(tmp_path) == b"state"


def test_a_system_whose_folders_cannot_be_opened_keeps_states_too(store, tmp_path, monkeypatch):
    monkeypatch.delattr(os, "O_DIRECTORY", raising=False)
    slot = store.slot(NAME)
    slot.put(b"one")
    slot.put(b"two")
    assert store.recover() == ()
    assert taken(tmp_path) == b"two"


def test_a_state_is_on_the_disk_before_it_has_its_name_and_the_name_before_put_returns(store, monkeypatch):
    order, slot = [], store.slot(NAME)
    for name in ("write", "fsync", "rename", "link", "unlink"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, call=call: (order.append(name), call(*args))[1])
    slot.put(b"one")
    assert order == ["write", "write", "fsync", "link", "fsync", "unlink", "unlink"]
    order.clear()
    slot.put(b"two")
    assert order == ["write", "write", "fsync", "rename", "link", "fsync", "unlink", "unlink"]
    order.clear()
    slot.drop()
    assert order == ["rename", "unlink", "fsync"]
    slot.put(b"three")
    store.slot(NAME).take()
    order.clear()
    store.recover()
    assert order == ["link", "fsync", "unlink"]


def test_every_descriptor_is_closed(store, monkeypatch):
    opened, closed = [], []
    for name, seen in (("open", opened), ("close", closed)):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, call=call, seen=seen: (seen.append(1), call(*args))[1])
    slot = store.slot(NAME)
    slot.put(b"one")
    with pytest.raises(InputError):
        slot.put(Saved(b"two", None))
    slot.put(b"three")
    slot.drop()
    assert len(opened) == len(closed) > 5


@POSIX
@needs_fork
def test_a_disk_that_is_full_costs_a_call_and_not_the_state(store, tmp_path):
    def full_then_not():
        resource = pytest.importorskip("resource")
        slot = FileStore(tmp_path).slot(NAME)
        slot.put(b"small")
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
        for _ in range(2):
            with pytest.raises(OSError, match="too large"):
                slot.put(Saved(bytes(3000), bytes(3000)))
            assert names(tmp_path) == [f"{NAME}.state"]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        slot.put(Saved(bytes(3000), bytes(3000)))

    assert in_child(full_then_not) == ["answered"]
    assert taken(tmp_path) == bytes(6000)


def test_of_many_threads_one_gets_a_state(tmp_path):
    store, rounds, threads = FileStore(tmp_path), 40, 8
    got, barrier = [], threading.Barrier(threads)

    def race():
        for number in range(rounds):
            slot = store.slot(f"n{number}")
            barrier.wait()
            with suppress(LocalProtocolError):  # another got it
                got.append(slot.take())

    for number in range(rounds):
        store.slot(f"n{number}").put(b"%d" % number)
    running = [threading.Thread(target=race) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert sorted(got) == sorted(b"%d" % number for number in range(rounds))


def test_of_many_threads_that_take_and_put_each_goes_on_from_what_it_took(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    store = FileStore(tmp_path)
    store.slot(NAME).put(b"0")
    seen, given_up = [], time.monotonic() + 60

    def count():
        while len(seen) < 100 and time.monotonic() < given_up:
            slot = store.slot(NAME)
            state = None
            with suppress(LocalProtocolError):  # another holds it
                state = slot.take()
            if state is not None:
                seen.append(int(state))
                # Whoever is so fast as to take what is put before put() returns is the one that goes on
                with suppress(LocalProtocolError):
                    slot.put(b"%d" % (int(state) + 1))

    running = [threading.Thread(target=count) for _ in range(4)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert len(seen) >= 100
    assert sorted(seen) == list(range(len(seen)))
    check_left(tmp_path, b"%d" % len(seen))


def test_nothing_begins_beside_a_claim_unless_it_says_so(store, tmp_path):
    store.slot(NAME).put(b"old")
    holding, other = store.slot(NAME), store.slot(NAME)
    holding.take()
    with pytest.raises(LocalProtocolError, match="claimed by another slot"):
        other.put(unread())
    other.put(b"new", superseding=True)
    with pytest.raises(LocalProtocolError, match="another state was put"):
        holding.put(b"late")
    assert taken(tmp_path) == b"new"


def test_a_session_is_not_begun_a_second_time_while_its_state_is_claimed(store, tmp_path):
    store.slot(NAME).put(b"begun")
    holding, begun = store.slot(NAME), []
    holding.take()

    def answer():
        for _ in range(50):
            slot = store.slot(NAME)
            with suppress(LocalProtocolError):
                slot.take()
                slot.put(b"begun again")
                begun.append(slot)

    running = [threading.Thread(target=answer) for _ in range(2)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert not begun
    holding.put(b"next")
    assert taken(tmp_path) == b"next"


def test_the_public_name_is_this_store():
    assert secagg.FileStore is FileStore
