"""Three slots of one name, that take, put, crash and are cut off in any order, beside a model of who holds what."""

from __future__ import annotations

import itertools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from file_stores import NAME
from interruptions import Cut, run_cut
from secagg import FileStore, LocalProtocolError
from secagg.session.slot import Slot

SLOTS = st.integers(0, 2)
CUTS = st.none() | st.integers(0, 120)


@dataclass
class Holder:
    """A slot, and what it should hold."""

    slot: Slot
    held: bytes | None = None
    wiped: bool = False
    last: bytes | None = None
    lost: bool = False


class StoreMachine(RuleBasedStateMachine):
    """Each call does what the model says, whether it is cut off and made again or not."""

    @initialize()
    def open(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        self.store = FileStore(self.path)
        self.under = None
        self.orphans = set()
        self.holders = [Holder(self.store.slot(NAME)) for _ in range(3)]
        self.numbers = itertools.count()

    def teardown(self):
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def run(self, call, cut, settle=None):
        """Make a call; if it is cut off, make it again."""
        if cut is None:
            return call()
        result = []
        try:
            run_cut(lambda: result.append(call()), cut)
        except Cut:
            return (settle or call)()
        return result[0]

    def refused(self, holder, call, cut):
        with pytest.raises(LocalProtocolError):
            self.run(call, cut)

    @rule(number=SLOTS, cut=CUTS)
    def take(self, number, cut):
        holder = self.holders[number]
        if holder.held is not None or (self.under is None and self.claims()):
            return self.refused(holder, holder.slot.take, cut)

        def again():
            try:
                return holder.slot.take()
            except LocalProtocolError:
                holder.slot.put_back()
                return holder.slot.take()

        assert self.run(holder.slot.take, cut, again) == self.under
        if self.under is not None:
            holder.held, holder.last, holder.lost, self.under = self.under, None, False, None
        return None

    def claims(self):
        return len(self.orphans) + sum(one.held is not None and not one.wiped for one in self.holders)

    @rule(number=SLOTS, cut=CUTS, superseding=st.booleans())
    def put(self, number, cut, superseding):
        holder, state = self.holders[number], b"%d" % next(self.numbers)
        allowed = self.under is None and (superseding or holder.held is not None or not self.claims())
        if holder.last is not None:
            allowed = self.under == holder.last
        if holder.lost or holder.wiped or not allowed:
            self.refused(holder, lambda: holder.slot.put(state, superseding=superseding), cut)
            holder.lost = holder.lost or holder.held is not None or holder.last is not None
            holder.held, holder.last, holder.wiped = None, None, False
        else:
            self.run(lambda: holder.slot.put(state, superseding=superseding), cut)
            self.under = holder.last = state
            holder.held = None
            os.utime(self.path / f"{NAME}.state", ns=(0, int(state)))

    @rule(number=SLOTS, cut=CUTS)
    def put_back(self, number, cut):
        holder = self.holders[number]
        self.run(holder.slot.put_back, cut)
        if holder.held is not None:
            if self.under is None and not holder.wiped:
                self.under = holder.held
            holder.held, holder.lost, holder.wiped = None, True, False

    @rule(number=SLOTS, cut=CUTS)
    def drop(self, number, cut):
        holder = self.holders[number]
        if holder.lost or holder.wiped or (holder.last is not None and holder.last != self.under):
            self.refused(holder, holder.slot.drop, cut)
            holder.lost = True
        else:
            self.run(holder.slot.drop, cut)
            if holder.last is not None:
                self.under = None
        holder.held, holder.last, holder.wiped = None, None, False

    @rule(number=SLOTS, cut=CUTS)
    def wipe(self, number, cut):
        self.run(self.holders[number].slot.wipe, cut)
        self.under = None
        self.orphans = set()
        for holder in self.holders:
            holder.wiped = holder.held is not None
        self.holders[number] = Holder(self.holders[number].slot)

    @rule(number=SLOTS)
    def crash(self, number):
        holder = self.holders[number]
        if holder.held is not None and not holder.wiped:
            self.orphans.add(holder.held)
        self.holders[number] = Holder(self.store.slot(NAME))

    @rule(cut=CUTS)
    def start_the_service_again(self, cut):
        for number in range(3):
            self.crash(number)
        self.run(self.store.recover, cut)
        if self.under is None and self.orphans:
            self.under = max(self.orphans, key=int)
        self.orphans = set()

    @invariant()
    def files_are_what_the_model_says(self):
        if not hasattr(self, "folder"):
            return
        found = sorted(path.name.partition("-3.")[2].partition("-")[0] for path in self.path.iterdir())
        assert found == ["claimed"] * self.claims() + ["state"] * (self.under is not None)


StoreMachine.TestCase.settings = settings(stateful_step_count=40, max_examples=60)
TestStore = StoreMachine.TestCase
