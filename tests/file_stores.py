"""Calls on a slot that may be cut off, and what must be there afterwards, whoever goes on."""

from __future__ import annotations

from secagg import FileStore, LocalProtocolError

NAME = "client-3"
OS_CALLS = ("open", "write", "fsync", "rename", "link", "unlink", "stat", "read", "listdir")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def free_state(slot):
    """Take the state; None too where another holds it."""
    try:
        return slot.take()
    except LocalProtocolError:
        return None


# Each returns a slot, the call on it that may be cut off, and the state before and after that
def first_put(store):
    slot = store.slot(NAME)
    return slot, lambda: slot.put(b"new"), None, b"new"


def put_after_take(store):
    store.slot(NAME).put(b"old")
    slot = store.slot(NAME)
    slot.take()
    return slot, lambda: slot.put(b"new"), b"old", b"new"


def put_after_put(store):
    slot = store.slot(NAME)
    slot.put(b"old")
    return slot, lambda: slot.put(b"new"), b"old", b"new"


def take(store):
    store.slot(NAME).put(b"old")
    slot = store.slot(NAME)

    def act():
        try:
            assert slot.take() == b"old"
        except LocalProtocolError:
            # It was handed out, but the interruption kept it from the caller
            slot.put_back()
            assert slot.take() == b"old"

    return slot, act, b"old", b"old"


def take_after_giving_back(store):
    slot, act, *_ = take(store)
    slot.take()
    slot.put_back()
    return slot, act, b"old", b"old"


def put_back(store):
    store.slot(NAME).put(b"old")
    slot = store.slot(NAME)
    slot.take()
    return slot, slot.put_back, b"old", b"old"


def put_back_beside_a_newer_state(store):
    slot, act, *_ = put_back(store)
    store.slot(NAME).put(b"new", superseding=True)
    return slot, act, b"new", b"new"


def drop_after_take(store):
    store.slot(NAME).put(b"old")
    slot = store.slot(NAME)
    slot.take()
    return slot, slot.drop, b"old", None


def drop_after_put(store):
    slot = store.slot(NAME)
    slot.put(b"old")
    return slot, slot.drop, b"old", None


def wipe(store):
    slot, *_ = put_after_put(store)
    return slot, slot.wipe, b"old", None


def recovery(store):
    slot, *_ = put_back(store)
    return slot, store.recover, b"old", b"old"


PUTS = [first_put, put_after_take, put_after_put]
SCENARIOS = [
    *PUTS,
    take,
    take_after_giving_back,
    put_back,
    put_back_beside_a_newer_state,
    drop_after_take,
    drop_after_put,
    wipe,
    recovery,
]


def check_left(folder, wanted):
    """Recover, and check that exactly the state that is wanted is there, and comes once."""
    FileStore(folder).recover()
    assert names(folder) == [f"{NAME}.state"] * (wanted is not None)
    slot = FileStore(folder).slot(NAME)
    assert slot.take() == wanted
    slot.drop()
    assert names(folder) == []
