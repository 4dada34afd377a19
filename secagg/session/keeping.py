"""What makes a state durable before anything leaves that follows from it.

Every party that answers takes ``keep``, as it takes randomness: a function of one ``SavedState``, which it calls with
the state behind a step and which has returned before the step's reply, requests or release exist. So no caller can
send first and save later. Where ``keep`` raises, the step is held: nothing left, the session is where it was, and the
same call offers the same bytes again.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar
from weakref import WeakSet

from secagg.errors import InputError, LocalProtocolError, SecAggError
from secagg.primitives.randomness import Randomness
from secagg.session.guard import Entry, Single, exclusive
from secagg.snapshot import SavedState, check_seal_key

A = TypeVar("A")
B = TypeVar("B")


class Keeping(enum.Enum):
    """The two ways of ``keep`` that are no function; see ``IN_MEMORY`` and ``DEFERRED``."""

    IN_MEMORY = "IN_MEMORY"
    DEFERRED = "DEFERRED"

    def __repr__(self) -> str:
        return f"secagg.{self.value}"


class Unset(enum.Enum):
    """What an argument is that was not given, where None says something."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return "not given"


IN_MEMORY: Final = Keeping.IN_MEMORY
"""Keep nothing: the state dies with the process, and with it this party's part in the round."""
DEFERRED: Final = Keeping.DEFERRED
"""Have each step return a ``Pending``: its state is made durable by the caller, who awaits that, say."""
UNSET: Final = Unset.UNSET

Keep = Callable[[SavedState], object] | Keeping
"""Makes a state durable: ``FileStore.slot(name).put``, a function of your own, or one of the two above."""
SealKey = bytes | None | Unset


class Held(Generic[A]):
    """A step whose state is not durable yet.

    Attributes:
        call: what the call was, so that the same one goes on with it.
        after: where the party is once the state is durable.
        answer: what may leave then.
        state: what must be durable.
    """

    __slots__ = ("after", "answer", "call", "state")

    def __init__(self, call: object, after: Any, answer: A, state: SavedState) -> None:
        self.call, self.after, self.answer, self.state = call, after, answer, state


class Pending(Generic[A]):
    """A step that waits for its state to be durable: write ``state``, then take from ``kept()`` what may leave.

    Where a session's step takes a key's as well, ``kept()`` of the key's returns the ``Pending`` of the session's.

    Attributes:
        state: what must be durable first.
        party: the session or key whose state it is.
    """

    __slots__ = ("_go_on", "_held", "party", "state")

    def __init__(self, party: Keeper, held: Held[Any], go_on: Callable[[Any], A] | None = None) -> None:
        self.party, self.state, self._held, self._go_on = party, held.state, held, go_on

    def __repr__(self) -> str:
        return f"<Pending until {len(self.state)} bytes of state are durable>"

    def kept(self) -> A:
        """Say that ``state`` is durable, and return what may leave: what the call returns to others.

        Raises:
            LocalProtocolError: the party has gone on from another step; or another thread is in it, or this is a forked
                child.
        """
        out: A = self.party._let_out(self._held)
        return out if self._go_on is None else self._go_on(out)

    def then(self, go_on: Callable[[A], B]) -> Pending[B]:
        """Return a ``Pending`` of the same state that lets out what ``go_on`` makes of this one's."""
        before = self._go_on
        return Pending(self.party, self._held, go_on if before is None else lambda out: go_on(before(out)))


class Keeper(Single):
    """A party, session or key, that keeps its state before it answers.

    What it knows is one object, ``_at``, that is replaced and never changed: the state and what goes with it change in
    one assignment, together with the step that is held.
    """

    _what = "session"

    def _begin(self, at: Any, keep: Keep, seal_key: SealKey, randomness: Randomness) -> None:
        """Set up; ``at`` is where the party is.

        Raises:
            InputError: ``keep`` is nothing to call, or no key was named though states may lie on a disk.
        """
        if inspect.iscoroutinefunction(keep):
            raise InputError("keep must have made a state durable when it returns: for an awaited store use DEFERRED")
        if not isinstance(keep, Keeping) and not callable(keep):
            raise InputError(
                f"keep must be a function of one saved state, IN_MEMORY or DEFERRED, got {type(keep).__name__}"
            )
        if seal_key is UNSET and keep is not IN_MEMORY:
            raise InputError(
                "states hold secrets, and are kept: pass a seal_key of 32 bytes, or seal_key=None for the clear"
            )
        given_key(seal_key)
        self._keep, self._seal_key, self._randomness = keep, seal_key, randomness
        self._line: tuple[Any, Held[Any] | None] = (at, None)
        # Of a state that nobody holds any more nothing can be shown, and no secret stays here
        self._shown: WeakSet[SavedState] = WeakSet()
        self._entry = Entry(self._what)

    @property
    def _at(self) -> Any:
        return self._line[0]

    @_at.setter
    def _at(self, at: Any) -> None:
        self._line = (at, None)

    def _state_of(self, at: Any, seal_key: bytes | None) -> SavedState:
        """Return ``at`` as a state to write."""
        raise NotImplementedError

    def _check_free(self) -> None:
        """Check that no step is held.

        Raises:
            LocalProtocolError: one is.
        """
        if self._line[1] is not None:
            raise LocalProtocolError(
                f"a step of this {self._what} waits for its state to be kept: make the same call again first"
            )

    def _change(self) -> None:
        """Check that no step is held, before what a state looks into is changed in place; it shows nothing any more.

        Raises:
            LocalProtocolError: one is.
        """
        self._check_free()
        for state in self._shown:
            state.close()
        self._shown.clear()

    def _held_step(self, call: Callable[[], object]) -> Held[Any] | None:
        """Return the step that is held, if the same call made it; None if none is held.

        Raises:
            LocalProtocolError: another call made it.
        """
        held = self._line[1]
        if held is not None and held.call != call():
            self._check_free()
        return held

    def _step(self, call: Callable[[], object], after: Any, answer: A) -> A:
        """Go on to ``after``, once that is durable; return the answer that may leave then, or raise it, if an error."""
        if self._keep is IN_MEMORY:
            self._at = after
            return _given(answer)
        state = self._state_of(after, given_key(self._seal_key))
        held: Held[A] = Held(call(), after, answer, state)
        self._shown.add(state)
        self._line = (self._at, held)
        settled: A = self._settle(held)
        return settled

    def _settle(self, held: Held[Any]) -> Any:
        """Have a held step's state kept, and let its answer out; with DEFERRED the answer is a ``Pending``."""
        if self._keep is DEFERRED:
            return Pending(self, held)
        if not isinstance(self._keep, Keeping):
            told = self._keep(held.state)
            if inspect.isawaitable(told) or inspect.isgenerator(told):
                if inspect.iscoroutine(told):
                    told.close()
                raise InputError(
                    f"keep returned {type(told).__name__}, so nothing is durable yet: for an awaited store use DEFERRED"
                )
        self._line = (held.after, None)
        return _given(held.answer)

    @exclusive
    def _let_out(self, held: Held[A]) -> A:
        at, now = self._line
        if now is held:
            self._line = (held.after, None)
        elif at is not held.after:
            raise LocalProtocolError(f"this {self._what} has gone on from another step")
        return _given(held.answer)

    @exclusive
    def save(self, *, seal_key: SealKey = UNSET) -> bytes:
        """Return what this holds as bytes, secrets included, to move it elsewhere: ``keep`` is what makes it durable.

        Whoever restores it goes on in its place: use this object no more, and drop what a store still holds of it. What
        is saved is the caller's to make durable: a restored party keeps nothing before its next step.

        Args:
            seal_key: 32 bytes to seal it under, or None for the clear; by default what the object was built with.

        Raises:
            InputError: no seal_key was named, here or when it was built; or it is not 32 bytes.
            LocalProtocolError: a step is held.
        """
        self._check_free()
        key = self._seal_key if seal_key is UNSET else seal_key
        if key is UNSET:
            raise InputError("what is saved holds secrets: pass a seal_key of 32 bytes, or None for the clear")
        return bytes(self._state_of(self._at, given_key(key)))


def given_key(seal_key: SealKey) -> bytes | None:
    """Return the key that states are sealed under, if any.

    Raises:
        InputError: it is not 32 bytes.
    """
    if seal_key is None or seal_key is UNSET:
        return None
    check_seal_key(seal_key)
    return seal_key


def _given(answer: A | SecAggError) -> A:
    if isinstance(answer, SecAggError):
        raise answer
    return answer
