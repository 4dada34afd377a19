"""The specification says what the code does, where a machine can tell."""

from __future__ import annotations

import re
from itertools import accumulate

import pytest

from cohort import plan
from generate_tables import BLOCKS, DOCUMENTS, marked, shown, updated
from secagg import FixedPoint, HEParams
from secagg.primitives.kdf import Label


def he_plan() -> HEParams:
    return HEParams.plan(clients=9, dimension=1, encoding=FixedPoint(clip=1.0, bits=8))


TEXT = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)


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
    assert marked(TEXT) == re.findall(r"<!-- end: (\S+) -->", TEXT)
    assert sorted(marked(TEXT)) == sorted(BLOCKS)


def test_every_label_stands_in_one_table():
    rows = re.findall(r"^\| `(secagg/v1/[a-z-]+)` \| `", TEXT, re.MULTILINE)
    assert sorted(rows) == sorted(label.value.decode() for label in Label)


@pytest.mark.parametrize(
    ("marker", "length"),
    [("n, u32", len(plan().encode())), ("n, u32 (clients)", len(he_plan().encode())), ('`53 41 67 67` ("SAgg")', 48)],
)
def test_layouts_have_no_gap_and_the_right_length(marker, length):
    rows, *_ = [block for block in TEXT.split("\n\n") if f"| {marker} |" in block]
    fields = [(int(at), int(size)) for at, size in re.findall(r"^\| (\d+) \| (\d+) \|", rows, re.MULTILINE)]
    assert [at for at, _ in fields] == [0, *accumulate(size for _, size in fields)][:-1]
    assert sum(size for _, size in fields) == length
