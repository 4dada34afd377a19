"""Named arrays of any shapes and float dtypes as one vector, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secagg.errors import InputError
from secagg.primitives.kdf import Label, digest

_FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each array lies in the vector: names, shapes and dtypes in order.

    Parties sum coordinate by coordinate, so they must flatten alike: put ``digest()`` into the round's context.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]

    @property
    def size(self) -> int:
        """How many coordinates the vector has."""
        return sum(math.prod(shape) for shape in self.shapes)

    def digest(self) -> bytes:
        """Return 32 bytes that differ wherever two layouts do."""
        parts = []
        for name, shape, dtype in zip(self.names, self.shapes, self.dtypes, strict=True):
            parts += [name.encode(), b"".join(length.to_bytes(8, "little") for length in shape), dtype.encode()]
        return digest(Label.LAYOUT, *parts)


def flatten(arrays: Mapping[str, NDArray[np.floating]]) -> tuple[NDArray[np.floating], Layout]:
    """Lay named arrays end to end, in the mapping's order, each in C order.

    Args:
        arrays: name -> float16, float32 or float64 array of any shape, scalars' included.

    Returns:
        The vector, float64 if any array is and float32 otherwise, and the layout that ``unflatten`` takes.

    Raises:
        InputError: an entry is not a float array; the text names it.
    """
    named = {}
    for name, value in arrays.items():
        if not isinstance(name, str):
            raise InputError(f"names must be text, got {type(name).__name__}")
        array = np.asarray(value)
        if array.dtype.name not in _FLOATS:
            raise InputError(f"array {name!r} must be of {', '.join(_FLOATS)}, got {array.dtype}")
        named[name] = array
    layout = Layout(
        names=tuple(named),
        shapes=tuple(array.shape for array in named.values()),
        dtypes=tuple(array.dtype.name for array in named.values()),
    )
    dtype = np.dtype(np.float64 if "float64" in layout.dtypes else np.float32)
    vector: NDArray[np.floating] = np.empty(layout.size, dtype=dtype)
    at = 0
    for array in named.values():
        vector[at : at + array.size] = array.ravel()
        at += array.size
    return vector, layout


def unflatten(vector: NDArray[np.floating], layout: Layout) -> dict[str, NDArray[np.floating]]:
    """Return the named arrays that a vector holds, in their shapes and dtypes; always copies.

    Raises:
        InputError: the vector is not one-dimensional or not as long as the layout says.
    """
    vector = np.asarray(vector)
    if vector.shape != (layout.size,):
        raise InputError(f"the layout takes a vector of shape ({layout.size},), got {vector.shape}")
    arrays, at = {}, 0
    for name, shape, dtype in zip(layout.names, layout.shapes, layout.dtypes, strict=True):
        size = math.prod(shape)
        arrays[name] = vector[at : at + size].astype(dtype, copy=True).reshape(shape)
        at += size
    return arrays
