"""What a publisher would build: the contents of wheel and sdist, the metadata, the index page, the files about it."""

from __future__ import annotations

import email
import re
import sys
import tarfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from secagg._version import __version__

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import artefacts  # noqa: E402
import interpreters  # noqa: E402

RELATIVE_LINK = re.compile(r"\]\((?!https?://|mailto:|#)[^)]*\)")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    there = set(ROOT.iterdir())
    both = artefacts.build(tmp_path_factory.mktemp("dist"))
    assert set(ROOT.iterdir()) == there, "a build leaves nothing in the source folder"
    return both


@pytest.fixture(scope="module")
def wheel(built) -> dict[str, bytes]:
    with zipfile.ZipFile(built[1]) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def sdist(built) -> set[str]:
    with tarfile.open(built[0]) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


@pytest.fixture(scope="module")
def metadata(wheel) -> Message:
    (name,) = (name for name in wheel if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel[name])


def source_files(folder: str) -> set[str]:
    paths = (path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file())
    left_by_work = re.compile(r"(^|/)(__pycache__|\.)")
    return {path.as_posix() for path in paths if not left_by_work.search(path.as_posix())}


def test_the_wheel_holds_the_library_and_nothing_else(wheel):
    assert "secagg/py.typed" in wheel
    assert {name for name in wheel if name.endswith(".py")} == {
        name for name in source_files("secagg") if name.endswith(".py")
    }
    folders = {name.split("/")[0] for name in wheel}
    assert folders == {"secagg", f"secagg-{__version__}.dist-info"}


def test_the_wheel_carries_the_licence(wheel):
    (name,) = (name for name in wheel if name.endswith("licenses/LICENSE"))
    assert wheel[name] == (ROOT / "LICENSE").read_bytes()
    assert b"Apache License" in wheel[name]


def test_the_metadata_say_what_it_is(metadata):
    assert metadata["Name"] == "secagg"
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License"] is None
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Author"] == "The secagg authors"
    assert not [line for line in metadata.get_all("Classifier") if line.startswith("License")]
    assert {url.split(", ")[0] for url in metadata.get_all("Project-URL")} >= {"Source", "Changelog"}


def test_only_pythons_that_the_matrix_looks_for_are_claimed(metadata):
    claimed = {line.rpartition(" ")[2] for line in metadata.get_all("Classifier") if re.search(r":: 3\.\d+$", line)}
    assert claimed
    assert claimed <= set(interpreters.VERSIONS)


def test_the_index_page_has_no_link_that_leads_nowhere(metadata):
    page = metadata.get_payload()
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert page.lstrip().startswith("# secagg")
    assert "make train" in page
    assert not RELATIVE_LINK.findall(page)
    assert RELATIVE_LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))  # so that there was something to do


def test_links_lead_into_the_source_once_it_is_published(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from setup import index_page

    text = "[SPEC.md](SPEC.md), [a page](https://there.test/x), [below](#below)"
    kept = "[a page](https://there.test/x), [below](#below)"
    assert index_page(text, "https://host.test/secagg/") == f"[SPEC.md](https://host.test/secagg/SPEC.md), {kept}"
    assert index_page(text, "https://secagg.example/source") == f"SPEC.md, {kept}"


@pytest.mark.parametrize("folder", ["secagg", "tests", "docs", "examples", "benchmarks", "fuzz", "tools"])
def test_the_sdist_holds_every_source_file(sdist, folder):
    assert source_files(folder) <= sdist


def test_the_sdist_holds_what_its_tests_and_targets_need(sdist):
    at_the_top = {"README.md", "SPEC.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE"}
    assert {f"docs/spec/{document}.md" for document in ("common", "pairwise", "homomorphic")} <= sdist
    assert at_the_top | {"Makefile", "MANIFEST.in", "pyproject.toml", "setup.py", ".ci/run"} <= sdist
    assert not [name for name in sdist if re.search(r"__pycache__|\.pyc$|\.venv|^build/|^dist/|\.hypothesis", name)]


def test_the_citation_is_of_this_version():
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert "cff-version: 1.2.0" in lines
    assert f"version: {__version__}" in lines
    assert "license: Apache-2.0" in lines


def test_the_changelog_keeps_its_form():
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    versions = [line for line in lines if line.startswith("## ")]
    assert versions[0] == "## [Unreleased]"
    assert all(re.fullmatch(r"## \[\d+\.\d+\.\d+\S*\] - \d{4}-\d\d-\d\d", line) for line in versions[1:])
    groups = [line.removeprefix("### ") for line in lines if line.startswith("### ")]
    assert set(groups) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{page.name}" for page in ROOT.glob("docs/*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_install_commands_work_from_a_checkout(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    # On no index yet: what is installed is a path or a dot, never the bare name
    assert not re.findall(r"pip install(?: -\S+)* [\"']?secagg\b", text)
