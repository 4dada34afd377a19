"""The lowest allowed versions: derived from pyproject.toml alone, for each Python by its markers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import interpreters  # noqa: E402
import lowest  # noqa: E402


def write(folder: Path, *lines: str) -> Path:
    file = folder / "pyproject.toml"
    file.write_text(
        '[build-system]\nrequires = ["setuptools>=77"]\n[project]\nname = "secagg"\n'
        f'dependencies = {list(lines)!r}\n[project.optional-dependencies]\nall = ["secagg[x]"]\nx = ["pytest>=8"]\n'
    )
    return file


def test_bounds_follow_the_markers(tmp_path):
    file = write(tmp_path, 'numpy>=2.0; python_version < "3.13"', 'numpy>=2.1; python_version >= "3.13"')
    older, newer = (lowest.lowest(python, file) for python in ("3.12", "3.13"))
    assert older == {"numpy": Version("2.0"), "setuptools": Version("77"), "pytest": Version("8")}
    assert newer == older | {"numpy": Version("2.1")}


def test_the_higher_of_two_bounds_counts(tmp_path):
    assert lowest.lowest("3.11", write(tmp_path, "pytest>=8.2"))["pytest"] == Version("8.2")


@pytest.mark.parametrize("line", ["numpy", "numpy<3", "numpy>=2,>=1"])
def test_a_requirement_without_one_lower_bound_is_refused(tmp_path, line):
    with pytest.raises(SystemExit, match="one lower bound is needed"):
        lowest.lowest("3.11", write(tmp_path, line))


@pytest.mark.parametrize("python", interpreters.VERSIONS)
def test_everything_that_the_library_asks_for_is_bounded_on_each_python(python):
    bounds = lowest.lowest(python)
    assert {one.name for one in lowest.requirements()} == set(bounds)


def test_nothing_is_bounded_from_above_but_what_flowers_tests_need():
    kinds = {one.name: {part.operator for part in one.specifier} for one in lowest.requirements()}
    assert {name for name, operators in kinds.items() if operators != {">="}} == {"flwr"}
