"""What keeps a session's answers single: one thread at a time, one process, and no copies.

A session that is copied, pickled, forked or entered twice at once could answer one request in two ways, which is how a
client would give both shares of a peer away, or mask two vectors alike. The supported way to move one is ``save`` and
``restore``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

from secagg.errors import LocalProtocolError, SecAggError

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="Single")

_INSIDE = "inside"


class _Process:
    """Which process this is. Its number alone would not do: a child in a fresh namespace may have its parent's."""

    mark = object()

    @classmethod
    def renew(cls) -> None:
        cls.mark = object()

    @classmethod
    def current(cls) -> tuple[object, int]:
        return cls.mark, os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Process.renew)


class Entry:
    """The door of one object: one call at a time may be inside, in the process that opened it.

    Args:
        what: what the object is called in what is raised.
        instead: what a forked child is to do.
    """

    __slots__ = ("_inside", "_instead", "_opened_in", "_what")

    def __init__(self, what: str, *, instead: str = "hand it over with save() and restore()") -> None:
        self._what, self._instead = what, instead
        self._opened_in = _Process.current()
        self._inside: dict[str, object] = {}

    def check_process(self) -> None:
        """Check that this is the process that opened the object.

        Raises:
            LocalProtocolError: it is a forked child of it.
        """
        if self._opened_in != _Process.current():
            raise LocalProtocolError(
                f"this {self._what} was opened before this process was forked, and the parent may answer with it too: "
                f"use it there, or {self._instead}"
            )

    def enter(self, call: object) -> None:
        """Let a call in.

        Raises:
            LocalProtocolError: another call is inside, or this is a forked child.
        """
        self.check_process()
        # One step of the interpreter, so that no interruption falls between looking and taking
        if self._inside.setdefault(_INSIDE, call) is not call:
            raise LocalProtocolError(
                f"another thread is in this {self._what}, or this call is inside another: use it from one at a time"
            )

    def leave(self, call: object) -> None:
        """Let the next one in, if ``call`` is the one inside; else do nothing."""
        if self._inside.get(_INSIDE) is call:
            self._inside.clear()


class Single:
    """An object that one thread of one process may be in, and that refuses to be copied or pickled."""

    __slots__ = ()

    _entry: Entry

    @property
    def stage(self) -> str | None:
        """The stage that a session is in."""
        return None

    def __copy__(self) -> NoReturn:
        raise TypeError("a session is not copied: a copy could answer a second time; use save() and restore()")

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        self.__copy__()

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a session is not pickled: it holds secrets; use save() and restore()")


def exclusive(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Refuse a call that comes while another is inside or from a forked child, instead of letting both answer."""

    @functools.wraps(method)
    def guarded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        call = object()
        stage = None
        # Left twice: an exception that comes from outside (a signal's) may strike while the first is on its way
        try:
            try:
                self._entry.enter(call)
                stage = self.stage
                result = method(self, *args, **kwargs)
                # The caller's own code runs inside some calls (an iterator's), and may have forked there
                self._entry.check_process()
                return result
            except SecAggError as error:
                error.stage = stage
                raise
            finally:
                self._entry.leave(call)
        finally:
            self._entry.leave(call)

    return guarded


def in_own_process(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Refuse a call from a forked child; any number of threads may make it at once."""

    @functools.wraps(method)
    def guarded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        self._entry.check_process()
        return method(self, *args, **kwargs)

    return guarded
