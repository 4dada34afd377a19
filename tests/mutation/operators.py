"""What is changed in a module: cosmic-ray's operators, thinned, and those that it lacks.

Of the dozen replacements that cosmic-ray has for each sign, one or two are taken: the boundary and the negation of a
comparison, the opposite of an arithmetic sign. The others are killed by the same tests. It has no operator that leaves
out a statement or one condition of several, which is what a forgotten check looks like: those are here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import parso
from cosmic_ray.operators.boolean_replacer import AddNot
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.plugins import get_operator
from parso.python.tree import Keyword

_COMPARISONS = {
    "Lt": ("LtE", "GtE"),
    "LtE": ("Lt", "Gt"),
    "Gt": ("GtE", "LtE"),
    "GtE": ("Gt", "Lt"),
    "Eq": ("NotEq",),
    "NotEq": ("Eq",),
    "Is": ("IsNot",),
    "IsNot": ("Is",),
}
_ARITHMETIC = {
    "Add": "Sub",
    "Sub": "Add",
    "Mul": "FloorDiv",
    "Div": "Mul",
    "FloorDiv": "Mul",
    "Mod": "FloorDiv",
    "Pow": "Mul",
    "RShift": "LShift",
    "LShift": "RShift",
    "BitOr": "BitAnd",
    "BitAnd": "BitOr",
    "BitXor": "BitAnd",
}
_FROM_COSMIC_RAY = (
    *(f"ReplaceComparisonOperator_{sign}_{other}" for sign, others in _COMPARISONS.items() for other in others),
    *(f"ReplaceBinaryOperator_{sign}_{other}" for sign, other in _ARITHMETIC.items()),
    "ReplaceUnaryOperator_Delete_Not",
    "ReplaceUnaryOperator_Delete_USub",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "ExceptionReplacer",
    "NumberReplacer",
    "ZeroIterationForLoop",
)

Span = tuple[tuple[int, int], tuple[int, int]]


def _span(node: Any) -> Span:
    return node.start_pos, node.end_pos


class DeleteStatement(Operator):
    """Leave out a call, a raise, a return under a condition, or an assignment that other code does not need to run."""

    def mutation_positions(self, node: Any) -> Iterator[Span]:
        if node.type == "simple_stmt" and _is_deletable(node.children[0]):
            yield _span(node.children[0])

    def mutate(self, node: Any, index: int) -> Any:
        statement = node.children[0]
        prefix = statement.get_first_leaf().prefix
        node.children[0] = Keyword("pass", statement.start_pos, prefix)
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("check(x)\n", "pass\n"), Example("x = f(x)\n", "pass\n"))


def _is_deletable(statement: Any) -> bool:
    if statement.type in ("atom_expr", "raise_stmt", "del_stmt"):
        return True
    if statement.type == "return_stmt" or statement == "return":
        return any(_encloses(kind, statement) for kind in ("if_stmt", "for_stmt", "while_stmt"))
    if statement.type != "expr_stmt":
        return False
    target, sign = statement.children[0], statement.children[1]
    if sign.type == "annassign":
        return False
    if sign != "=" or target.type == "atom_expr":
        return True
    # A name that is bound anew from itself, as by a check that returns what it checked
    names = {leaf.value for leaf in _leaves(statement.children[-1]) if leaf.type == "name"}
    return target.type == "name" and target.value in names


def _encloses(kind: str, node: Any) -> bool:
    parent = node.parent
    while parent is not None and parent.type not in ("funcdef", "lambdef"):
        if parent.type == kind:
            return True
        parent = parent.parent
    return False


def _leaves(node: Any) -> Iterator[Any]:
    if hasattr(node, "children"):
        for child in node.children:
            yield from _leaves(child)
    else:
        yield node


class DropOperand(Operator):
    """Leave out one operand of ``and`` and ``or``: each alone must be seen to matter."""

    def mutation_positions(self, node: Any) -> Iterator[Span]:
        if node.type in ("or_test", "and_test"):
            for operand in node.children[::2]:
                yield _span(operand)

    def mutate(self, node: Any, index: int) -> Any:
        at = 2 * index
        del node.children[at : at + 2]
        if at == len(node.children) + 1:  # the last operand: the sign before it goes too
            del node.children[-1]
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("x or y", " y"), Example("x or y", "x", occurrence=1))


class ReplaceMembership(Operator):
    """Turn ``in`` into ``not in`` and back."""

    def mutation_positions(self, node: Any) -> Iterator[Span]:
        if node.type == "comparison":
            for sign in self._signs(node):
                yield _span(sign)

    def mutate(self, node: Any, index: int) -> Any:
        sign = self._signs(node)[index]
        other = " in" if sign.get_code().split() == ["not", "in"] else " not in"
        node.children[node.children.index(sign)] = parso.parse(other)
        return node

    @staticmethod
    def _signs(node: Any) -> list[Any]:
        return [sign for sign in node.children[1::2] if sign.get_code().split() in (["in"], ["not", "in"])]

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("x in y", "x not in y"), Example("x not in y", "x in y"))


class OneSidedSize(Operator):
    """Turn ``!=`` between sizes into ``<`` and into ``>``: too few and too many must each be seen to matter."""

    _SIGNS = ("<", ">")

    def mutation_positions(self, node: Any) -> Iterator[Span]:
        if node.type == "comparison" and any(size in node.get_code() for size in ("len(", ".size", ".ndim")):
            for sign in node.children[1::2]:
                if sign.get_code().strip() == "!=":
                    yield from [_span(sign)] * len(self._SIGNS)

    def mutate(self, node: Any, index: int) -> Any:
        signs = [sign for sign in node.children[1::2] if sign.get_code().strip() == "!="]
        sign = signs[index // len(self._SIGNS)]
        node.children[node.children.index(sign)] = parso.parse(" " + self._SIGNS[index % len(self._SIGNS)])
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("len(x) != 3", "len(x) < 3"), Example("len(x) != 3", "len(x) > 3", occurrence=1))


class NegateCondition(AddNot):
    """Negate a whole condition, but for those that another operator negates: comparisons and ``not``."""

    def mutation_positions(self, node: Any) -> Iterator[Span]:
        condition = _condition(node)
        if condition is not None and condition.type not in ("comparison", "not_test"):
            yield _span(condition)

    def mutate(self, node: Any, index: int) -> Any:
        condition = _condition(node)
        node.children[node.children.index(condition)] = parso.parse(f" not ({condition.get_code().strip()})")
        return node


def _condition(node: Any) -> Any:
    if node.type in ("if_stmt", "while_stmt", "comp_if", "sync_comp_if"):
        return node.children[1]
    return node.children[2] if node.type == "test" else None


def operators() -> list[Operator]:
    """Return all operators in use."""
    ours = [DeleteStatement(), DropOperand(), ReplaceMembership(), OneSidedSize(), NegateCondition()]
    return [get_operator(f"core/{name}")() for name in _FROM_COSMIC_RAY] + ours
