"""What a saved state's fields may hold: each dataclass's annotations, turned into checks once, when its module loads.

An annotation that no check is known for is this library's own mistake. It is raised where the class is named, as
TypeError, and never while a caller's bytes are read.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

Check = Callable[[object], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldTypes:
    """A dataclass that may stand in a saved state.

    Attributes:
        kind: the class.
        checks: field -> whether a value is of its declared type; exactly the fields that the constructor takes.
    """

    kind: type
    checks: Mapping[str, Check]


def field_types(kind: type) -> FieldTypes:
    """Read a dataclass's annotations.

    Raises:
        TypeError: it is no dataclass, or an annotation is of a form that saved states do not hold.
    """
    hints = get_type_hints(kind)
    return FieldTypes(
        kind=kind,
        checks={one.name: check_of(hints[one.name]) for one in dataclasses.fields(kind) if one.init},
    )


def check_of(hint: Any) -> Check:
    """Return what tells whether a value is of an annotated type.

    Raises:
        TypeError: the annotation is none of None, bool, int, float, bytes, str, a literal, a class, ``tuple[T, ...]``,
            a NumPy array of one scalar type, or a union of these.
    """
    hint = _without_alias(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _any_of(tuple(check_of(one) for one in arguments))
    if origin is Literal:
        return lambda value: isinstance(value, str) and value in arguments
    if origin is np.ndarray:
        return _array_of(_scalar_of(arguments[1]))
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _tuple_of(check_of(arguments[0]))
    if hint is int:
        return lambda value: isinstance(value, int) and not isinstance(value, bool)
    if isinstance(hint, type) and origin is None and hint is not Any:
        return lambda value: isinstance(value, hint)
    raise TypeError(f"no check of saved states is known for the annotation {hint!r}")


def _without_alias(hint: Any) -> Any:
    """Return what a ``type`` alias stands for: from NumPy 2.5 on ``NDArray`` is one."""
    while hasattr(alias := get_origin(hint) or hint, "__value__"):
        arguments = get_args(hint)
        hint = alias.__value__[arguments] if arguments else alias.__value__
    return hint


def _scalar_of(dtype: Any) -> type[np.generic]:
    dtype = _without_alias(dtype)
    arguments = get_args(dtype)
    if not (get_origin(dtype) is np.dtype and isinstance(arguments[0], type) and issubclass(arguments[0], np.generic)):
        raise TypeError(f"no check of saved states is known for an array of {dtype!r}")
    scalar: type[np.generic] = arguments[0]
    return scalar


def _array_of(scalar: type[np.generic]) -> Check:
    return lambda value: isinstance(value, np.ndarray) and np.issubdtype(value.dtype, scalar)


def _tuple_of(item: Check) -> Check:
    return lambda value: isinstance(value, tuple) and all(map(item, value))


def _any_of(checks: tuple[Check, ...]) -> Check:
    return lambda value: any(check(value) for check in checks)
