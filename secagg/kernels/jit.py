"""The one way a kernel is compiled, and what this process had to compile itself."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")

_OPTIONS = {"nogil": True, "error_model": "numpy"}
_dispatchers: list[Any] = []


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` at its first call with each set of types, without the GIL, and keep the code on disk.

    A kernel may close over integers, which it then sees as constants and which are part of its key on disk. It must not
    close over anything else: whatever does not pickle to the same bytes in the next process is compiled again there.
    For the same reason a kernel and all that it inlines stand in one file, whose date the disk cache compares; where
    other files emit a part of it, it closes over their ``source_number``.
    """
    try:
        compiled = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:
        # numba finds no directory it may write to: a read-only install run without a home.
        compiled = numba.njit(**_OPTIONS)(function)
    _dispatchers.append(compiled)
    return cast(Callable[P, R], compiled)


def source_number(*modules: ModuleType) -> int:
    """Return a number that changes with the text of ``modules``; zero where they have no files."""
    try:
        return zlib.crc32(b"".join(Path(str(module.__file__)).read_bytes() for module in modules))
    except OSError:
        return 0


def cache_location() -> Path | None:
    """Return the directory that compiled kernels are kept in; None if none could be written, or nothing is compiled.

    It is numba's choice, made as each kernel's module was imported: NUMBA_CACHE_DIR, else beside the source, else the
    user's cache directory; the first that can be written.
    """
    for dispatcher in _dispatchers:
        if getattr(dispatcher, "stats", None) and dispatcher.stats.cache_path:
            return Path(dispatcher.stats.cache_path)
    return None


def cache_is_writable() -> bool:
    """Tell whether a kernel that is compiled now would be kept: the directory may have changed since it was chosen."""
    location = cache_location()
    if location is None:
        return False
    try:
        tempfile.TemporaryFile(dir=location).close()
    except OSError:
        return False
    return True


def passed_over() -> str | None:
    """Return NUMBA_CACHE_DIR as it is set, where kernels are not kept under it: it could not be written; else None."""
    wanted, location = numba.config.CACHE_DIR, cache_location()
    if not wanted or (location is not None and location.is_relative_to(wanted)):
        return None
    return str(wanted)


def is_compiling() -> bool:
    """Tell whether kernels are compiled at all: not when NUMBA_DISABLE_JIT is set."""
    return not numba.config.DISABLE_JIT


def compiled_afresh() -> int:
    """Count the kernel specialisations that this process compiled because the disk cache did not hold them."""
    return sum(sum(d.stats.cache_misses.values()) for d in _dispatchers if hasattr(d, "stats"))


def loaded_from_cache() -> int:
    """Count the kernel specialisations that this process took from the disk cache."""
    return sum(sum(d.stats.cache_hits.values()) for d in _dispatchers if hasattr(d, "stats"))
