"""Whatever names a section of the specification, or links to a heading anywhere, leads to one that is there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from generate_tables import DOCUMENTS, ROOT

FOLDERS = ["secagg", "tests", "docs", "examples", "benchmarks", "fuzz", "tools"]
# The changelog is not among those that name sections: what it says of an older version is of that version's text
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
NAMING = [path for path in [*PAGES, *SOURCES] if path.name != "CHANGELOG.md"]

NAMES = re.compile(r'\bSPEC(?:\.md)?\s+\(?((?:"[^"]+"(?:,? and\s+|,\s+)?)+)')
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")


def text_of(page: Path) -> str:
    """The page without what stands in code, where neither headings nor links are."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", lambda code: re.sub(r"[\[\]()#]", "", code[0]), text)


def headings(page: Path) -> list[str]:
    return re.findall(r"^#{1,6} (.+)$", text_of(page), re.MULTILINE)


def anchor(heading: str) -> str:
    """What GitHub makes of a heading: lower case, hyphens for spaces, punctuation left out."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    made = Counter[str]()
    result = set()
    for name in map(anchor, headings(page)):
        result.add(f"{name}-{made[name]}" if made[name] else name)
        made[name] += 1
    return result


SECTIONS = Counter(heading for document in DOCUMENTS for heading in headings(document))


def names_in(text: str) -> list[str]:
    return [" ".join(name.split()) for names in NAMES.findall(text) for name in re.findall(r'"([^"]+)"', names)]


def test_no_two_sections_share_a_name():
    assert len(DOCUMENTS) == 3
    assert [name for name, times in SECTIONS.items() if times > 1] == []


def test_names_are_found_in_every_form_in_which_they_are_written():
    spec = "SPEC"
    text = f'{spec} "A b", "C" and "D"; {spec}\n"E", RFC 1; {spec}.md ("F"); [{spec} "G"](there.md#g); {spec} says "no"'
    assert names_in(text) == ["A b", "C", "D", "E", "F", "G"]


@pytest.mark.parametrize("folder", ["secagg", "docs", "tests"])
def test_sections_are_named(folder):
    assert any(names_in(path.read_text(encoding="utf-8")) for path in NAMING if path.is_relative_to(ROOT / folder))


def test_sections_that_code_and_texts_name_stand_in_one_document():
    named = [(path, name) for path in NAMING for name in names_in(path.read_text(encoding="utf-8"))]
    assert [(str(path.relative_to(ROOT)), name) for path, name in named if SECTIONS[name] != 1] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.stem)
def test_the_documents_refer_to_each_other_by_links(document):
    quoted = re.findall(r'"([^"\n]+)"', text_of(document))
    assert [name for name in quoted if name in SECTIONS] == []


def test_the_entrance_leads_to_every_section():
    entrance = text_of(ROOT / "SPEC.md")
    assert entrance.count("\n") < 80
    listed = LINK.findall(entrance.partition("## Sections\n")[2].partition("\n## ")[0])
    assert [link for link in listed if link[2]] == [
        (heading, f"docs/spec/{stem}.md", anchor(heading))
        for stem in ("common", "pairwise", "homomorphic")
        for heading in headings(ROOT / "docs" / "spec" / f"{stem}.md")[1:]
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    broken = []
    for text, target, fragment in LINK.findall(text_of(page)):
        there = page.parent / target if target else page
        named = [anchor(name) for name in names_in(text)]
        lost = not there.exists() or (fragment and fragment not in anchors(there))
        if lost or named not in ([], [fragment]):
            broken.append(f"[{text}]({target}#{fragment})")
    assert broken == []
