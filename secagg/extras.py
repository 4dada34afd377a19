"""Packages that only a part of the library needs: loaded when it is used, named with their extra when missing."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType

EXTRAS = {
    "sklearn": ("scikit-learn", "demo"),
    "matplotlib": ("matplotlib", "plot"),
    "tenseal": ("TenSEAL", "he"),
    "zstandard": ("zstandard", "he"),
    "flwr": ("Flower", "flower"),
}
"""Module -> its package's name and the extra that installs it."""


def load(module: str) -> ModuleType:
    """Import a module of ``EXTRAS``.

    Raises:
        ModuleNotFoundError: it is not installed; the text says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name != top:
            raise
        raise ModuleNotFoundError(how_to_install([top]), name=top) from None


def how_to_install(missing: Sequence[str]) -> str:
    """Return a sentence about modules that are not installed: those of ``EXTRAS``, or what another package needs."""
    foreign = [module for module in missing if module not in EXTRAS]
    if foreign:
        return f"this needs {' and '.join(foreign)}, which its protocol's package should have installed"
    packages = " and ".join(EXTRAS[module][0] for module in missing)
    extras = ",".join(dict.fromkeys(EXTRAS[module][1] for module in missing))
    verb = "is" if len(missing) == 1 else "are"
    return f'this needs {packages}, which {verb} not installed: in secagg\'s checkout, run: pip install ".[{extras}]"'
