"""Numbers as callers pass them: checked for their kind and range, and named in what is raised."""

from __future__ import annotations

import operator

from secagg.errors import InputError, ParameterError


def checked_integer(name: str, value: object, low: int, high: int) -> int:
    """Return an integer of any type but bool; raise ParameterError if it is none or lies outside [low, high]."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ParameterError(f"{name} must be an integer, got {type(value).__name__}") from None
    if isinstance(value, bool):
        raise ParameterError(f"{name} must be an integer, got bool")
    if not low <= number <= high:
        raise ParameterError(f"{name} must lie in [{low}, {high}], got {number}")
    return int(number)


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ParameterError if a value is none of ``choices``."""
    # The type first: an array compares to no one truth value
    if not isinstance(value, str) or value not in choices:
        raise ParameterError(f"{name} must be one of {choices}, got {value!r}")


def checked_real(name: str, value: object) -> float:
    """Return a real number as a float; raise ParameterError if it is none or too large."""
    if isinstance(value, bool) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise ParameterError(f"{name} must be a real number, got {type(value).__name__}")
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ParameterError(f"{name} must be a real number, got {value!r}") from None


def checked_rate(name: str, value: object) -> float:
    """Return a fraction as a float; raise ParameterError if it is no real number or lies outside [0, 1)."""
    rate = checked_real(name, value)
    if not 0 <= rate < 1:
        raise ParameterError(f"{name} must lie in [0, 1), got {value!r}")
    return rate + 0.0  # minus zero is zero, so that equal parameters encode equally


def check_threads(threads: int) -> None:
    """Check a number of threads.

    Raises:
        InputError: it is not a positive integer.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise InputError(f"threads must be a positive integer, got {threads!r}")
