"""SPEC.md says what the code does, where a machine can tell."""

from __future__ import annotations

import re
from itertools import accumulate

import pytest

from cohort import plan
from generate_tables import BLOCKS, ROOT, SPEC, shown, updated
from secagg import FixedPoint, HEParams


def he_plan() -> HEParams:
    return HEParams.plan(clients=9, dimension=1, encoding=FixedPoint(clip=1.0, bits=8))


TEXT = SPEC.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", BLOCKS)
def test_the_generated_part_is_what_the_code_gives(name):
    assert shown(TEXT, name) == BLOCKS[name](), "run: python tests/spec/generate_tables.py --write"


def test_a_changed_table_is_noticed_and_mended():
    row = "| Idle | INVITATION | KEY_ADVERTISEMENT | Advertised | advertise_keys |"
    broken = TEXT.replace(row, row.replace("INVITATION", "ROSTER"))
    assert broken != TEXT
    assert shown(broken, "client-states") != BLOCKS["client-states"]()
    assert updated(broken) == TEXT


def test_marks_are_those_that_are_generated():
    assert re.findall(r"<!-- generated: (\S+) -->", TEXT) == re.findall(r"<!-- end: (\S+) -->", TEXT)
    assert set(re.findall(r"<!-- generated: (\S+) -->", TEXT)) == set(BLOCKS)


def test_sections_that_the_code_names_exist():
    headings = set(re.findall(r"^## (.+)$", TEXT, re.MULTILINE))
    source = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "secagg").rglob("*.py"))
    named = set(re.findall(r'SPEC\s+"([^"]+)"', source))
    assert named
    assert named <= headings


@pytest.mark.parametrize(
    ("marker", "length"),
    [("n, u32", len(plan().encode())), ("n, u32 (clients)", len(he_plan().encode())), ('`53 41 67 67` ("SAgg")', 48)],
)
def test_layouts_have_no_gap_and_the_right_length(marker, length):
    rows, *_ = [block for block in TEXT.split("\n\n") if f"| {marker} |" in block]
    fields = [(int(at), int(size)) for at, size in re.findall(r"^\| (\d+) \| (\d+) \|", rows, re.MULTILINE)]
    assert [at for at, _ in fields] == [0, *accumulate(size for _, size in fields)][:-1]
    assert sum(size for _, size in fields) == length
