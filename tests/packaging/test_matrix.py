"""What the matrix tests where, and that nothing that fails in it is passed over."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import matrix  # noqa: E402

FOUND = {version: Path(f"/usr/bin/python{version}") for version in ("3.11", "3.12", "3.13")}


def test_every_pair_is_there_and_all_tests_run_at_both_ends():
    cells = matrix.plan(FOUND, whole=False)
    pairs = [f"{version}-{kind}" for version in FOUND for kind in ("lowest", "newest")]
    assert sorted(cell.name for cell in cells) == sorted(pairs)
    assert cells[0].name == "3.13-newest"  # the one that runs in the unpacked sdist
    assert {cell.name for cell in cells if cell.whole} == {"3.13-newest", "3.11-lowest"}
    assert all(cell.whole for cell in matrix.plan(FOUND, whole=True))


def test_the_part_that_runs_elsewhere_is_there():
    assert [path for path in matrix.PART if not (ROOT / path).exists()] == []


def test_a_step_that_fails_is_shown_and_noted_and_the_next_one_comes(capfd):
    failures: list[str] = []
    with matrix.step("first", failures):
        matrix.run(sys.executable, "-c", "print('why'); raise SystemExit(3)", quiet=True)
    with matrix.step("second", failures):
        matrix.run(sys.executable, "-c", "print('shown')")
    assert failures == ["first"]
    shown = capfd.readouterr().out
    assert "FAILED: first: exit code 3" in shown
    assert "why" in shown
    assert "shown" in shown


@pytest.mark.skipif(os.name == "nt", reason="the matrix's environments are POSIX's")
def test_a_cells_tests_are_counted_and_one_failure_fails_it(tmp_path, monkeypatch):
    monkeypatch.setattr(matrix, "OUT", tmp_path)
    (tmp_path / "test_x.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): assert 0\n@pytest.mark.skip\ndef test_c(): pass\n"
    )
    cell = matrix.Cell("3.11", Path(sys.executable), "lowest", whole=True)
    with pytest.raises(matrix.Failed, match="exit code 1"):
        matrix.test(cell, Path(sys.executable), tmp_path)
    assert (cell.counts, cell.outcome) == ({"passed": 1, "failed": 1, "skipped": 1}, "FAILED")
    (tmp_path / "test_x.py").write_text("def test_a(): pass\n")
    matrix.test(cell, Path(sys.executable), tmp_path)
    assert (cell.counts, cell.outcome) == ({"passed": 1, "failed": 0, "skipped": 0}, "passed")


def test_the_table_has_a_row_a_cell():
    cells = matrix.plan(FOUND, whole=False)
    cells[1].versions = dict.fromkeys(matrix.SHOWN, "2.5.5")
    cells[1].counts, cells[1].outcome = {"passed": 10, "failed": 0, "skipped": 2}, "passed"
    head, *rows = matrix.table(cells).splitlines()
    assert len(rows) == len(cells)
    assert head.split()[:3] == ["Python", "versions", "numpy"]
    assert rows[1].split() == ["3.12", "newest", *["2.5.5"] * len(matrix.SHOWN), "part", "10", "0", "2", "0", "passed"]
    assert rows[0].endswith("not run")
