"""The README's claims that a machine can check, and those of the pages that it leads to."""

import doctest
import re
from pathlib import Path

import pytest
import typer

import guides
import secagg
from secagg.cli import app

ROOT = Path(secagg.__file__).parents[1]
README = ROOT / "README.md"
PAGES = ["README.md", "SECURITY.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in guides.DOCS.glob("*.md"))]
COMMANDS = list(typer.main.get_command(app).commands)


def test_the_round_in_the_readme_runs_as_shown():
    outcome = doctest.testfile(str(README), module_relative=False)
    assert outcome.attempted >= 7
    assert outcome.failed == 0


def test_commands_stand_in_the_first_screen():
    first_screen = README.read_text(encoding="utf-8").splitlines()[:24]
    for command in ("make train", "make test", "-m secagg train", "-m pytest"):
        assert any(command in line for line in first_screen), command


def test_the_readme_is_read_in_minutes():
    """About 700 words: code and the bars of tables left out. What is more belongs into docs."""
    text = re.sub(r"```.*?```", "", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(text.replace("|", " ").split()) <= 700
    measured = text[text.index("## Measured") : text.index("## Where")]
    assert len([line for line in measured.splitlines() if line.startswith("|")]) - 2 <= 6


@pytest.mark.parametrize("page", PAGES)
def test_names_of_the_library_on_a_page_exist(page):
    guides.check_names(page)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    text = re.sub(r"```.*?```|`[^`]*`", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)]+)\)", text):
        path, _, heading = target.partition("#")
        linked = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert linked.exists(), target
        if heading:
            lines = linked.read_text(encoding="utf-8").splitlines()
            headings = [line.lstrip("#").strip().lower() for line in lines if line.startswith("#")]
            assert heading in [re.sub(r"[^\w -]", "", one).replace(" ", "-") for one in headings], target


@pytest.mark.parametrize("page", PAGES)
def test_targets_and_commands_on_a_page_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    benchmarks = re.search(r"^BENCHMARKS := (.*)$", makefile, re.MULTILINE).group(1).split()
    targets = {f"bench-{one}" for one in benchmarks} | set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for target in set(re.findall(r"(?:^|`)make ([a-z][a-z_-]+)", text, re.MULTILINE)):
        assert target in targets, target
    code = re.findall(r"`secagg ([a-z]+)", text)
    for block in re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        code += re.findall(r"^secagg ([a-z]+)", block, re.MULTILINE)
    for command in set(code):
        assert command in COMMANDS, command


def test_the_command_line_has_its_page():
    page = (guides.DOCS / "command-line.md").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert f"`secagg {command}" in page, command
