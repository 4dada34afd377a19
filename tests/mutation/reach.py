"""Which tests reach which function of a module, so that a mutant is tried by those alone, the cheapest first."""

from __future__ import annotations

import ast
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import coverage
import pytest


class Recorder:
    """A pytest plugin: the lines of one file that each test executes, and how long it takes."""

    def __init__(self, file: Path) -> None:
        self._file = str(file)
        self._coverage: Any = coverage.Coverage(data_file=None, include=[self._file], config_file=False)
        self._seconds: dict[str, float] = defaultdict(float)
        self._coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._coverage.switch_context(item.nodeid)
        result = yield
        self._coverage.switch_context("")
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration

    def write(self, to: Path) -> None:
        """Write ``{test: [seconds, [line, ...]]}``; what ran outside of tests stands under the name of none."""
        self._coverage.stop()
        contexts = self._coverage.get_data().contexts_by_lineno(self._file)
        lines: dict[str, list[int]] = {test: [] for test in ("", *self._seconds)}
        for line, tests in contexts.items():
            for test in tests:
                lines.get(test, []).append(line)
        to.write_text(json.dumps({test: [self._seconds.get(test, 0.0), lines[test]] for test in lines}))


@dataclass(slots=True)
class Reach:
    """What the unchanged module's tests reached."""

    functions: list[tuple[int, int]]
    lines: dict[str, set[int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, source: str, record: Path) -> Reach:
        """Read what a ``Recorder`` wrote for a module of this text."""
        reach = cls(functions=[_body(node) for node in ast.walk(ast.parse(source)) if _is_function(node)])
        for test, (seconds, lines) in json.loads(record.read_text()).items():
            reach.seconds[test], reach.lines[test] = seconds, set(lines)
        return reach

    def unused_seconds(self, tests: list[list[str]]) -> float:
        """Return how long all tests but these took."""
        return sum(self.seconds.values()) - sum(self.seconds[test] for file in tests for test in file)

    def tests(self, line: int) -> list[list[str]] | None:
        """Return the tests that run the function around a line, by file, or None where every test may notice.

        That is so of what stands outside of a function's body, and of functions that run while modules are loaded.
        """
        around = [(first, last) for first, last in self.functions if first <= line <= last]
        if not around:
            return None
        first, last = max(around)  # the innermost
        body = set(range(first, last + 1))
        if self.lines[""] & body:
            return None
        files: dict[str, list[str]] = defaultdict(list)
        for test, lines in self.lines.items():
            if test and lines & body:
                files[test.split("::")[0]].append(test)
        chosen = [sorted(tests, key=self.seconds.__getitem__) for tests in files.values()]
        return sorted(chosen, key=lambda tests: self.seconds[tests[0]])


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def _body(node: Any) -> tuple[int, int]:
    return node.body[0].lineno, node.end_lineno
