"""Where secret random bytes come from: a function that the caller may replace, so that every step can be replayed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

from secagg.errors import LocalProtocolError

Randomness: TypeAlias = Callable[[int], bytes]
"""A function that returns the number of bytes asked for, uniform, independent and never returned to anyone else."""

system_randomness: Randomness = os.urandom
"""The operating system's generator, the default everywhere."""


def draw(randomness: Randomness, length: int) -> bytes:
    """Draw ``length`` bytes.

    Raises:
        LocalProtocolError: ``randomness`` returned another number of bytes, or no bytes object.
    """
    drawn = randomness(length)
    if not isinstance(drawn, bytes) or len(drawn) != length:
        raise LocalProtocolError(f"the randomness did not return the {length} bytes that it was asked for")
    return drawn
