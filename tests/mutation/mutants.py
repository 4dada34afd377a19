"""Each way in which one place of a module is changed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes
from cosmic_ray.mutating import mutate_code

from operators import operators


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """What names a mutant in the documentation: no line numbers, which every edit would change."""

    path: str
    scope: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"@@ {self.path} {self.scope}\n-{self.before}\n+{self.after}"


@dataclass(frozen=True, slots=True)
class Mutant:
    """A changed module."""

    change: Change
    line: int
    source: str


def mutants_of(root: Path, path: str) -> Iterator[Mutant]:
    """Yield the mutants of a module, no two of one text."""
    source = (root / path).read_text(encoding="utf-8")
    seen = {source}
    for operator in operators():
        for occurrence, node, line in _places(operator, source):
            if _is_noise(node):
                continue
            mutated = mutate_code(source, operator, occurrence)
            if mutated is None or mutated in seen or not _compiles(mutated):
                continue
            seen.add(mutated)
            before, after = _changed_lines(source, mutated)
            yield Mutant(Change(path, _scope(node), before, after), line, mutated)


def _places(operator: Any, source: str) -> Iterator[tuple[int, Any, int]]:
    occurrence = 0
    for node in ast_nodes(parso.parse(source)):
        for start, end in operator.mutation_positions(node):
            # The node at the place itself: an operator may have found it from its parent
            yield occurrence, _node_at(node, start, end), start[0]
            occurrence += 1


def _node_at(node: Any, start: tuple[int, int], end: tuple[int, int]) -> Any:
    for child in getattr(node, "children", ()):
        if child.start_pos <= start and end <= child.end_pos:
            return _node_at(child, start, end)
    return node


def _is_noise(node: Any) -> bool:
    """Tell whether a place says nothing of behaviour: annotations, decorators, texts, imports for a type checker."""
    if node.parent is not None and node.parent.get_code().strip().startswith("copy="):
        return True  # NumPy's: whether a copy is made where none is needed
    child, parent = node, node.parent
    while parent is not None:
        if parent.type in ("fstring", "fstring_expr", "decorator", "import_from", "import_name"):
            return True
        # name: annotation, the annotation of a return, and that of an assignment
        if parent.type in ("tfpdef", "annassign") and parent.children[1 if parent.type == "tfpdef" else 0] == ":":
            place = parent.children.index(child)
            if place == (2 if parent.type == "tfpdef" else 1):
                return True
        if parent.type == "funcdef" and child in parent.children[:-1] and child.type != "parameters":
            return True
        if parent.type == "if_stmt" and parent.children[1].get_code().strip() == "TYPE_CHECKING":
            return True
        child, parent = parent, parent.parent
    return False


def _scope(node: Any) -> str:
    names = []
    while node is not None:
        if node.type in ("funcdef", "classdef"):
            names.append(node.name.value)
        node = node.parent
    return ".".join(reversed(names)) or "(module)"


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


def _changed_lines(source: str, mutated: str) -> tuple[str, str]:
    one, other = source.splitlines(), mutated.splitlines()
    before: list[str] = []
    after: list[str] = []
    for kind, i, j, k, m in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if kind != "equal":
            before += one[i:j]
            after += other[k:m]
    return _on_one_line(before), _on_one_line(after)


def _on_one_line(lines: list[str]) -> str:
    return re.sub(r"(?<=[(\[]) ", "", " ".join(" ".join(lines).split()))
