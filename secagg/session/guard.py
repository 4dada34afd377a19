"""What keeps a session's answers single: one thread at a time, and no copies.

A session that is copied, pickled or entered twice at once could answer one request in two ways, which is how a client
would give both shares of a peer away. The supported way to move one is ``save`` and ``restore``.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

from secagg.errors import LocalProtocolError, SecAggError

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="Single")


class Single:
    """A session that one thread may be in, and that refuses to be copied or pickled."""

    _lock: threading.Lock

    @property
    def stage(self) -> str | None:
        """The stage that the session is in."""
        raise NotImplementedError

    def __copy__(self) -> NoReturn:
        raise TypeError("a session is not copied: a copy could answer a second time; use save() and restore()")

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        self.__copy__()

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a session is not pickled: it holds secrets; use save() and restore()")


def exclusive(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Refuse a call that comes while another thread is in the session, instead of letting both answer."""

    @functools.wraps(method)
    def guarded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if not self._lock.acquire(blocking=False):
            raise LocalProtocolError("another thread is in this session: use it from one thread at a time")
        stage = self.stage
        try:
            return method(self, *args, **kwargs)
        except SecAggError as error:
            error.stage = stage
            raise
        finally:
            self._lock.release()

    return guarded
