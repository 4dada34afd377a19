"""The README's claims that a machine can check."""

import doctest
import re
from pathlib import Path

import secagg

README = Path(secagg.__file__).parents[1] / "README.md"


def test_the_round_in_the_readme_runs_as_shown():
    outcome = doctest.testfile(str(README), module_relative=False)
    assert outcome.attempted >= 7
    assert outcome.failed == 0


def test_commands_stand_in_the_first_screen():
    first_screen = README.read_text().splitlines()[:24]
    for command in ("make train", "make test", "-m secagg train", "-m pytest"):
        assert any(command in line for line in first_screen), command


def test_names_of_the_library_in_the_readme_exist():
    for name in set(re.findall(r"secagg\.([A-Za-z_]+)", README.read_text())) - {"md", "integrations"}:
        assert name in secagg.__all__, name
