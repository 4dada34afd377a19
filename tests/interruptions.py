"""Exceptions from outside (a signal's, a timeout's) at every line of a call: what they leave behind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import secagg

T = TypeVar("T")

_PACKAGE = str(Path(secagg.__file__).parent)
# Pure functions of their arguments: where they are cut, no state is near
_WITHOUT_STATE = ("kernels", "primitives", "encoding", "planning")


class Cut(BaseException):
    """What strikes; no library may catch it as an error of its own."""


def _has_state(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return name.startswith(_PACKAGE) and Path(name).parent.name not in _WITHOUT_STATE


def run_cut(call: Callable[[], object], at: int, *, opcodes: bool = False, of: str | None = None) -> int:
    """Run a call, and strike at its line (or opcode) number ``at``; return how many there were if it was not reached.

    Lines of the package count where it keeps state; or those of the file that is named, alone.

    Raises:
        Cut: it struck.
    """
    seen = 0
    event_wanted = "opcode" if opcodes else "line"

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        if not (_has_state(frame) if of is None else frame.f_code.co_filename == of):
            return None
        frame.f_trace_opcodes = opcodes
        if event == event_wanted:
            seen += 1
            if seen - 1 == at:
                raise Cut
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return seen


def every_cut(
    prepare: Callable[[], T], act: Callable[[T], object], *, opcodes: bool = False, step: int = 1
) -> Iterator[T]:
    """Yield what ``prepare`` returned after ``act`` on it was cut off, once for each line of it."""
    whole = prepare()
    lines = run_cut(lambda: act(whole), -1, opcodes=opcodes)
    assert lines > 3, "the call has no lines to cut"
    for at in range(0, lines, step):
        one = prepare()
        try:
            run_cut(lambda one=one: act(one), at, opcodes=opcodes)
        except Cut:
            yield one
