"""Run a mutant's tests in a process forked from one that has loaded everything slow.

What is slow is not under test here: numpy, numba, the kernels with their compiled code, pytest, hypothesis. The library
itself and the tests are loaded in each child, so that every name in them is bound to the mutant.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from reach import Recorder

_MEMORY_BYTES = 8 << 30
_QUIET = ("-x", "-q", "--disable-warnings", "-p", "no:cacheprovider")
# Neither asserts rewritten nor garbage collected: both only serve who reads of the failures
_FAST = ("--assert=plain", "-p", "no:unraisableexception", "-p", "no:threadexception")
_LOADED_ONCE = (
    "hypothesis.extra.numpy",
    "hypothesis.stateful",
    "jsonschema",
    "Crypto.PublicKey.ECC",
)


class Outcome(Enum):
    """How the tests ended."""

    PASSED = "passed"
    FAILED = "failed"
    TIMEOUT = "timed out"


@dataclass(frozen=True, slots=True)
class Running:
    """A child at work on a mutant."""

    process: int
    started: float
    limit: float


class _Mutated(importlib.machinery.SourceFileLoader):
    """Load a module's changed text in place of its file, and no compiled file of either."""

    source: str = ""

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, name: str, path: Path, source: str) -> None:
        self._name, self._path, self._source = name, path, source

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname != self._name:
            return None
        loader = _Mutated(fullname, str(self._path))
        loader.source = self._source
        return importlib.util.spec_from_file_location(fullname, self._path, loader=loader)


def load_once() -> None:
    """Load what all children share, and compile the kernels; forget the rest of the library again."""
    # Compiled files of the library and its tests, for these processes alone
    sys.dont_write_bytecode, sys.pycache_prefix = False, tempfile.mkdtemp(prefix="secagg-mutation-")
    atexit.register(shutil.rmtree, sys.pycache_prefix, ignore_errors=True)
    for name in _LOADED_ONCE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    importlib.import_module("secagg.readiness").selftest()
    for name in [name for name in sys.modules if name.split(".")[0] == "secagg"]:
        if not name.startswith("secagg.kernels"):
            del sys.modules[name]
    gc.collect()
    gc.freeze()


def start(
    root: Path,
    path: str,
    source: str,
    tests: Sequence[Sequence[str]],
    limit: float,
    *,
    show: bool = False,
    record: Path | None = None,
) -> Running:
    """Fork a child that runs ``tests`` with ``source`` in place of the module at ``path``.

    ``tests`` are pytest's arguments, each entry a run of its own; ``record`` is where ``reach.Recorder`` writes.
    """
    process = os.fork()
    if process:
        return Running(process, time.monotonic(), limit)
    code = 3
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        if not show:
            silence = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(silence, stream)
        name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        sys.meta_path.insert(0, _Finder(name, root / path, source))
        gc.disable()
        code = _run_recorded(tests, root / path, record) if record else _run_files(tests, show)
    finally:
        os._exit(code)


class _EndAtFailure:
    """End the process with the first failure: nothing is left to clear up."""

    @staticmethod
    def pytest_runtest_logreport(report: pytest.TestReport) -> None:
        if report.failed:
            os._exit(1)


def _run_files(tests: Sequence[Sequence[str]], show: bool) -> int:
    # One after the other, so that a mutant which the first kills never loads the next
    for file in tests:
        if show:
            code = int(pytest.main([*_QUIET, *file]))
        else:
            code = int(pytest.main([*_QUIET, *_FAST, *file], plugins=[_EndAtFailure()]))
        if code:
            return code
    return 0


def _run_recorded(tests: Sequence[Sequence[str]], file: Path, record: Path) -> int:
    recorder = Recorder(file)
    for arguments in tests:
        code = int(pytest.main([*_QUIET, *_FAST, *arguments], plugins=[recorder]))
        if code:
            return code
    recorder.write(record)
    return 0


def poll(running: Running) -> Outcome | None:
    """Return how a child ended, or None while it runs; one that runs beyond its limit is ended.

    Raises:
        RuntimeError: pytest found no tests.
    """
    process, status = os.waitpid(running.process, os.WNOHANG)
    if not process:
        if time.monotonic() - running.started < running.limit:
            return None
        os.killpg(running.process, signal.SIGKILL)
        os.waitpid(running.process, 0)
        return Outcome.TIMEOUT
    code = os.waitstatus_to_exitcode(status)
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise RuntimeError("pytest found no tests to run")
    return Outcome.PASSED if code == 0 else Outcome.FAILED


def wait(running: Running) -> Outcome:
    """Return how a child ended."""
    while (outcome := poll(running)) is None:
        time.sleep(0.005)
    return outcome
