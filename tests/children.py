"""Calls made in a forked child of the test's process, and what each of them gave there."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable

import pytest

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def fork() -> int:
    """Fork as ``os.fork`` does; Python's warning of threads stays out, since the child calls nothing of theirs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def in_child(*calls: Callable[[], object]) -> list[str]:
    """Return what each call gave in a forked child: the name of what it raised with its text, or ``answered``."""
    read, write = os.pipe()
    child = fork()
    if child == 0:
        told = []
        for call in calls:
            try:
                call()
                told.append("answered")
            except BaseException as problem:
                told.append(f"{type(problem).__name__}: {problem}")
        os.write(write, pickle.dumps(told))
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pickle.loads(pipe.read())  # noqa: S301 - our own child's
    os.waitpid(child, 0)
    return told


def all_refused(*calls: Callable[[], object]) -> None:
    told = in_child(*calls)
    assert len(told) == len(calls)
    for one in told:
        assert one.startswith("LocalProtocolError: this ")
        assert "forked" in one
