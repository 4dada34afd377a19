"""Every attack in the table has a test that is named for it and says in a sentence what attack and defence are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROWS = {
    "01": "model inconsistency: clients are given different models",
    "02": "both kinds of share of one peer",
    "03": "split view of the survivors",
    "04": "key substitution, Sybil",
    "05": "replay, mask reuse",
    "06": "low-degree or biased graph",
    "07": "tiny cohort",
    "08": "differencing across rounds",
    "09": "share index 0, duplicate, out of range, not the roster's",
    "10": "forged share",
    "11": "wrap of the sum",
    "12": "biased reduction",
    "13": "weak mask generator",
    "14": "X25519 points of low order",
    "15": "ciphertext moved to another recipient, stage or session",
    "16": "malformed vectors",
    "17": "hostile sizes",
    "19a": "late or duplicate uploads",
    "21": "secrets in texts and in saved states",
    "22": "pickle",
    "23": "framing: an honest client is convicted by its own messages",
}
TESTS = [
    (path.name, node)
    for path in sorted(Path(__file__).parent.glob("test_*.py"))
    if path.name != Path(__file__).name
    for node in ast.parse(path.read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
]


def row_of(name: str) -> str:
    found = re.match(r"test_(\d\d[a-z]?)_", name)
    return found[1] if found else ""


@pytest.mark.parametrize("row", ROWS)
def test_the_attack_has_a_test(row):
    assert row in {row_of(node.name) for _, node in TESTS}


@pytest.mark.parametrize(("file", "node"), TESTS, ids=[node.name for _, node in TESTS])
def test_the_test_names_its_row_its_attack_and_its_defence(file, node):
    assert row_of(node.name) in ROWS, file
    told = ast.get_docstring(node) or ""
    assert told.startswith("Attack: "), f"{file}: {node.name}"
    assert "Defence: " in told or "none" in told or "without the defence" in told, f"{file}: {node.name}"
