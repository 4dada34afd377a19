"""One slot of a ``FileStore``: what each call does to its files, and what it does about a call that was cut off.

Two rules keep a state single. A state's own name is given by a hard link alone, which replaces no file, and taken away
by renaming alone, which one process can do. And a file's mark names the claim that it supersedes and the fresh name
that it was written under: whoever takes a state removes both before anything else, so that what a killed process left
behind is never given back after what came later.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn, Protocol

from secagg.errors import InputError, LocalProtocolError
from secagg.session.guard import Entry, Single, exclusive
from secagg.session.slot_files import SlotFiles, is_claim, mark_of, names_of, new_mark, remove
from secagg.wire import Buffer


class Buffered(Protocol):
    """A state that yields the buffers that it consists of, to be written in turn."""

    def buffers(self) -> Iterable[Buffer]:
        """Yield the buffers; the store is done with each when it asks for the next."""


@dataclass(frozen=True, slots=True)
class _Memory:
    """What a slot knows of its files; replaced as a whole, so that an interruption leaves one or the other.

    Attributes:
        mark: of the claim that is held or being made, and of the state that is put next.
        held: whether the claim's state was handed out.
        last: the mark of what was put last and not taken since by this slot.
        step: what was begun and must be settled before anything else.
        lost: why nothing may be put until a state is taken.
    """

    mark: bytes | None = None
    held: bool = False
    last: bytes | None = None
    step: Literal["writing", "linking", "linked", "returning", "dropping", "losing"] | None = None
    lost: str | None = None


class Slot(Single):
    """The place of one state in a ``FileStore``, as one session uses it; ``FileStore.slot`` makes it.

    Two slots of one name, in one process or in several, see the same state, and of two that take it one gets it. One
    thread at a time may use a slot; open another for the next session. What a method was doing when it raised is
    settled by the next call, so a ``put`` that raised is made again as it was.
    """

    __slots__ = ("_entry", "_files", "_memory")

    def __init__(self, files: SlotFiles) -> None:
        self._entry = Entry("slot", instead="open another with store.slot(...)")
        self._files = files
        self._memory = _Memory()

    def __repr__(self) -> str:
        return f"<Slot {self._files.name!r}>"

    def __copy__(self) -> NoReturn:
        raise TypeError("a slot is not copied: open another with store.slot(...)")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a slot is not pickled: open one with store.slot(...) where it is used")

    @exclusive
    def take(self) -> bytes | None:
        """Claim the state and return it: until ``put``, ``put_back`` or ``drop`` nobody else gets it.

        A claim outlives its process: only ``FileStore.recover`` gives it back. If this raised, call it again, or
        ``put_back`` or ``drop``.

        Returns:
            the state's bytes as they were put; None if there is none.

        Raises:
            LocalProtocolError: somebody else holds the state, or a process that died had claimed it; or this slot holds
                a state already, or the state was wiped while it was read.
            DecodeError: the file is none that ``put`` wrote; it stays claimed until ``drop``.
            OSError: the file cannot be renamed or read.
        """
        self._settle()
        memory = self._memory
        if memory.held:
            raise LocalProtocolError(
                f"the slot {self._files.name!r} has handed its state out: put the next one, put it back or drop it"
            )
        # Known before the file has its name: an interruption anywhere finds what to go on with
        mark = memory.mark or new_mark()
        self._memory = replace(memory, mark=mark)
        claim = self._files.claim(mark)
        if not names_of(claim) and not self._files.claim_state(mark):
            self._memory = memory
            self._check_unclaimed()
            return None
        try:
            own, state = self._files.read(claim)
        except FileNotFoundError:
            self._lose(self._gone())
        # What a killed put or put_back left of this state or the one before must not come back after it
        remove(self._files.claim(own))
        self._files.remove_twins(claim)
        self._memory = _Memory(mark=mark, held=True)
        return state

    @exclusive
    def put(self, state: Buffered | bytes | bytearray | memoryview, *, superseding: bool = False) -> None:
        """Make the next state durable, in the place of what this slot took or put last; then it lies unclaimed.

        If this raised an OSError or was interrupted, call it again with the same state.

        Args:
            state: bytes, or an object whose ``buffers()`` yields buffers; they are written in turn and not joined.
            superseding: whether a slot that took nothing may begin anew though another holds a claim: whatever that one
                puts next is refused. For whoever knows that the round before is given up.

        Raises:
            InputError: ``state`` is neither, or the folder's file system has no hard links.
            LocalProtocolError: somebody else took, replaced or wiped what this slot took or put last, and it is theirs
                to go on from; or this slot holds nothing and there is a state already, or a claim. Theirs is left as it
                is.
            OSError: the disk is full, or fails.
        """
        buffers = _buffers_of(state)
        self._settle()
        self._check_may_put(superseding)
        mark = self._memory.mark or new_mark()
        self._memory = replace(self._memory, mark=mark, step="writing")
        try:
            self._files.write(mark, buffers)
            # From here on a wipe sees the fresh file, or the state that it is linked to; before, it took the claim
            if self._memory.last is not None:
                self._reclaim(mark, self._memory.last)
            elif self._memory.held and not names_of(self._files.claim(mark)):
                self._lose(self._gone())
            elif not (self._memory.held or superseding):
                self._check_unclaimed()  # somebody may have come while this was written
            self._memory = replace(self._memory, step="linking")
            self._link_fresh(mark)
            self._complete(mark)
        except BaseException:
            with suppress(OSError):
                self._discard_unlinked()
            raise

    @exclusive
    def put_back(self) -> None:
        """Let go of what is claimed, unchanged: nothing was answered with it. Where a newer state lies, that stays.

        Nothing can be put through this slot afterwards until it takes a state. Without a claim this does nothing.

        Raises:
            OSError: the folder cannot be changed; call it again.
        """
        self._settle()
        memory = self._memory
        lost = self._given_back() if memory.held else memory.lost
        if memory.mark is not None and names_of(self._files.claim(memory.mark)):
            self._memory = _Memory(mark=memory.mark, last=memory.last, lost=lost, step="returning")
            self._give_back(again=False)
        else:
            self._memory = _Memory(last=memory.last, lost=lost)

    @exclusive
    def drop(self) -> None:
        """Remove what this slot holds, or put last: its round is over. Without either this does nothing.

        Raises:
            LocalProtocolError: somebody else took, replaced or wiped it; theirs is left as it is.
            OSError: the folder cannot be changed; call it again.
        """
        self._settle()
        memory = self._memory
        if memory.lost is not None:
            raise LocalProtocolError(memory.lost)
        if memory.mark is None and memory.last is None:
            return
        mark = memory.mark or new_mark()
        if memory.last is not None:
            self._memory = replace(memory, mark=mark)
            self._reclaim(mark, memory.last)
        elif memory.held and not names_of(self._files.claim(mark)):
            self._lose(self._gone())
        self._memory = replace(self._memory, step="dropping")
        if not self._drop(mark) and memory.held:
            self._lose(self._gone())

    @exclusive
    def wipe(self) -> None:
        """Remove every state of this name, those that others have claimed as well: what they put next is refused.

        Raises:
            OSError: the folder cannot be changed; call it again.
        """
        nothing_seen = 0
        # Twice: a file that is renamed while a folder is read may be seen under neither name
        while nothing_seen < 2:
            paths = self._files.all()
            for path in paths:
                remove(path)
            nothing_seen = 0 if paths else nothing_seen + 1
        self._files.sync()
        self._memory = _Memory()

    def _check_may_put(self, superseding: bool) -> None:
        """Refuse what is sure to be refused before anything is written; whether it holds is seen again later."""
        memory, files = self._memory, self._files
        if memory.lost is not None:
            raise LocalProtocolError(memory.lost)
        claimed = memory.mark is not None and names_of(files.claim(memory.mark)) > 0
        if memory.held and not claimed:
            self._lose(self._gone())
        if memory.held or memory.last is not None:
            return
        if claimed:
            raise LocalProtocolError(f"take() on the slot {files.name!r} was cut off: call it again, put_back or drop")
        if names_of(files.state):
            raise self._take_it_first()
        if not superseding:
            self._check_unclaimed()

    def _check_unclaimed(self) -> None:
        """Refuse to begin anew where a state is claimed: whoever claimed it may go on from it."""
        # Twice: a file that is renamed while a folder is read may be seen under neither name
        if any(is_claim(path) for _ in range(2) for path in self._files.all()):
            raise LocalProtocolError(
                f"the state under {self._files.name!r} is claimed by another slot, which may go on from it; if its "
                "process is dead, recover() gives it back once nothing else uses the store"
            )

    def _reclaim(self, mark: bytes, last: bytes) -> None:
        """Claim what this slot put last, and that alone."""
        claim = self._files.claim(mark)
        if not names_of(claim) and (mark_of(self._files.state) != last or not self._files.claim_state(mark)):
            self._lose(self._taken())
        if mark_of(claim) != last:
            # Somebody put it between the look and the renaming
            self._memory = _Memory(mark=mark, step="returning", lost=self._taken())
            self._give_back(again=False)
            raise LocalProtocolError(self._taken())

    def _link_fresh(self, mark: bytes) -> None:
        try:
            self._files.link(self._files.fresh(mark))
        except FileExistsError:
            if self._memory.held or self._memory.last is not None:
                self._lose(self._replaced())
            raise self._take_it_first() from None
        except FileNotFoundError:
            self._lose(self._gone())

    def _complete(self, mark: bytes) -> None:
        """Finish a put whose state has its name."""
        self._files.sync()
        remove(self._files.claim(mark))
        self._memory = _Memory(mark=mark, last=mark, step="linked")
        if not remove(self._files.fresh(mark)):
            self._lose(self._gone())
        self._memory = _Memory(last=mark)

    def _discard_unlinked(self) -> None:
        """Remove what a put wrote, if it surely has not the state's name."""
        memory = self._memory
        if memory.mark is None:
            return
        if memory.step == "writing" or (memory.step == "linking" and names_of(self._files.fresh(memory.mark)) == 1):
            self._settle()

    def _give_back(self, *, again: bool) -> None:
        """Give a claim its old name; ``again`` if an earlier try may have done so, and somebody may have taken it."""
        memory = self._memory
        assert memory.mark is not None  # noqa: S101 - for the type checker
        claim = self._files.claim(memory.mark)
        if not (again and names_of(claim) > 1):
            with suppress(FileExistsError, FileNotFoundError):  # a newer state lies there, or it was wiped
                self._files.link(claim)
        self._files.sync()
        remove(claim)
        remove(self._files.fresh(memory.mark))
        self._memory = _Memory(last=memory.last, lost=memory.lost)

    def _drop(self, mark: bytes) -> bool:
        there = remove(self._files.claim(mark))
        self._files.sync()
        self._memory = _Memory()
        return there

    def _settle(self) -> None:
        """Finish, or undo, what an earlier call had begun when it was cut off."""
        memory, files = self._memory, self._files
        if memory.mark is None:
            return
        fresh = files.fresh(memory.mark)
        if memory.step == "returning":
            self._give_back(again=True)
        elif memory.step == "dropping":
            self._drop(memory.mark)
        elif memory.step == "losing":
            remove(files.claim(memory.mark))
            remove(fresh)
            self._memory = _Memory(lost=memory.lost)
        elif memory.step == "linked":
            remove(fresh)
            self._memory = _Memory(last=memory.last)
        elif memory.step == "linking" and names_of(fresh) != 1:
            # It has the state's name too, or had it: whoever takes the state removes its fresh name before all else
            self._complete(memory.mark)
        elif memory.step is not None:
            remove(fresh)
            self._memory = replace(memory, step=None)

    def _lose(self, why: str) -> NoReturn:
        mark = self._memory.mark
        self._memory = _Memory(mark=mark, step=None if mark is None else "losing", lost=why)
        self._settle()
        raise LocalProtocolError(why)

    def _take_it_first(self) -> LocalProtocolError:
        return LocalProtocolError(
            f"the slot {self._files.name!r} has a state already, which this one did not take: take() it first"
        )

    def _taken(self) -> str:
        return (
            f"what was last put through this slot no longer lies under {self._files.name!r}: another process took it "
            "and goes on from it, or it was replaced or wiped. Let this session go: two must not go on from one state"
        )

    def _replaced(self) -> str:
        return (
            f"another state was put under {self._files.name!r} while this slot held the one before: whoever put it "
            "goes on. Let this session go"
        )

    def _gone(self) -> str:
        return (
            f"what this slot held under {self._files.name!r} is gone: it was wiped, or another process took it after "
            "recover() gave it back or it was put. Let this session go"
        )

    def _given_back(self) -> str:
        return f"this slot gave its state under {self._files.name!r} back: take() it again before going on from it"


def _buffers_of(state: object) -> Iterable[Buffer]:
    if isinstance(state, bytes | bytearray | memoryview):
        return (state,)
    buffers = getattr(state, "buffers", None)
    if not callable(buffers):
        raise InputError(f"a state is bytes, or yields buffers of them by buffers(), got {type(state).__name__}")
    found: Iterable[Buffer] = buffers()
    return found
