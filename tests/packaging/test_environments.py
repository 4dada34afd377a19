"""The Pythons that are found, and the environments that are made of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import environment  # noqa: E402
import interpreters  # noqa: E402

THIS = f"{sys.version_info.major}.{sys.version_info.minor}"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="make and its environments' bin/ are POSIX's")


def script(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose PATH and pyenv hold nothing yet."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'shims'}{os.pathsep}{tmp_path / 'usr'}")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return tmp_path


def test_a_shim_that_leads_nowhere_is_passed_over_for_pyenvs_newest(machine):
    script(machine / "shims" / f"python{THIS}", 'echo "pyenv: command not found" >&2', "exit 127")
    script(machine / "usr" / f"python{THIS}", f'exec {sys.executable} "$@"')
    for release in ("2", "10"):
        script(machine / "pyenv" / "versions" / f"{THIS}.{release}" / "bin" / "python", f'exec {sys.executable} "$@"')
    tried = list(interpreters.candidates(THIS))
    assert [path.relative_to(machine).parts[-3] for path in tried[1:3]] == [f"{THIS}.10", f"{THIS}.2"]
    assert tried[3] == machine / "usr" / f"python{THIS}"
    found, refused = interpreters.find([THIS])
    assert found == {THIS: Path(sys.executable)}
    assert refused == [f"{machine / 'shims' / f'python{THIS}'}: does not do (pyenv: command not found)"]


def test_a_python_of_another_version_does_not_count(machine):
    script(machine / "usr" / "python3.9", f'exec {sys.executable} "$@"')
    assert interpreters.find(["3.9"]) == ({}, [f"{machine / 'usr' / 'python3.9'}: is Python {THIS}"])


def test_too_few_pythons_end_it_with_what_to_install():
    with pytest.raises(SystemExit) as caught:
        interpreters.require({"3.11": Path("/usr/bin/python3.11")}, ["/x/python3.12: does not do (gone)"], least=2)
    shown = str(caught.value)
    assert "here is 3.11" in shown
    assert "/x/python3.12: does not do (gone)" in shown
    assert "pyenv install 3.14" in shown
    assert "python3.12-venv" in shown


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An environment that `make` made, of an interpreter that notes what it is asked for."""
    if shutil.which("make") is None:
        pytest.skip("make is not here")
    folder = tmp_path_factory.mktemp("made")
    python = script(folder / "python", f'echo asked "$@" >> {folder / "log"}', f'exec {sys.executable} "$@"')
    command = ["make", f"PYTHON={python}", f"VENV={folder / 'venv'}", f"{folder / 'venv'}/.interpreter"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of it; and an environment that is made anew is a copy too, since pip takes its seconds to install."""

    def create(builder, target):
        assert builder.clear
        shutil.rmtree(target)
        shutil.copytree(made / "venv", target, symlinks=True)

    monkeypatch.setattr(environment.venv.EnvBuilder, "create", create)
    return Path(shutil.copytree(made / "venv", tmp_path / "venv", symlinks=True))


def test_make_asks_the_interpreter_that_it_is_given(made):
    assert (made / "log").read_text() == f"asked tools/environment.py {made / 'venv'}\n"
    assert (made / "venv" / environment.RECORD).read_text().strip() == environment.interpreter()
    assert environment.interpreter_of(made / "venv") == environment.interpreter()


def test_an_environment_is_kept_while_its_interpreter_is_the_same(folder):
    (folder / "mine").touch()
    written = (folder / environment.RECORD).stat().st_mtime_ns
    environment.ensure(folder)
    assert (folder / "mine").exists()
    assert (folder / environment.RECORD).stat().st_mtime_ns == written


def test_an_environment_that_was_made_by_hand_is_taken_over(folder):
    (folder / "mine").touch()
    (folder / environment.RECORD).unlink()
    environment.ensure(folder)
    assert (folder / "mine").exists()
    assert (folder / environment.RECORD).read_text().strip() == environment.interpreter()


def test_an_environment_of_another_interpreter_is_made_anew(folder, capsys):
    (folder / "theirs").touch()
    (folder / environment.RECORD).write_text("Python 3.9 at /usr/bin/python3.9\n")
    environment.ensure(folder)
    assert "is of Python 3.9 at /usr/bin/python3.9: made anew by Python" in capsys.readouterr().out
    assert not (folder / "theirs").exists()
    assert (folder / environment.RECORD).read_text().strip() == environment.interpreter()


def test_an_environment_whose_interpreter_is_gone_is_made_anew(folder):
    (folder / "bin" / "python").unlink()
    environment.ensure(folder)
    assert environment.interpreter_of(folder) == environment.interpreter()


def test_a_folder_that_make_did_not_make_is_never_emptied(tmp_path):
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(SystemExit, match="no working environment and was not made by `make`"):
        environment.ensure(tmp_path)
    script(tmp_path / "bin" / "python", "echo Python 3.9 at /usr/bin/python3.9")
    with pytest.raises(SystemExit, match=r"an environment of Python 3.9 at /usr/bin/python3.9 and was not made"):
        environment.ensure(tmp_path)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_python_that_is_too_old_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "OLDEST", (9, 9))
    with pytest.raises(SystemExit, match=r"needs Python 9.9 or newer.*PYTHON="):
        environment.ensure(tmp_path / "venv")
    assert not (tmp_path / "venv").exists()
