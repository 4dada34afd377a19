"""How commands end: exit codes, one line on standard error, whatever the operating system or the caller does."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
import typer
from typer.testing import CliRunner

import secagg
from secagg import cli
from secagg.cli.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_PARAMETER, EXIT_TOO_FEW, PlainErrors, os_error_text

PLAN = ("plan", "--clients", "40", "--dimension", "1000", "--no-timing")


def ends(error: BaseException):
    app = typer.Typer(cls=PlainErrors, pretty_exceptions_enable=False)

    @app.command()
    def one():
        raise error

    @app.command()
    def other():
        """Make a group of them."""

    return CliRunner().invoke(app, ["one"])


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (secagg.TooFewClients(1, 3, "left"), EXIT_TOO_FEW, "too few clients: left: have 1, need 3"),
        (secagg.ParameterError("bits must\nlie"), EXIT_PARAMETER, "bits must lie"),
        (secagg.InputError("no such file"), EXIT_PARAMETER, "no such file"),
        (secagg.DecodeError("x is no key"), EXIT_FAILURE, "x is no key"),
        (secagg.ServerFault("it lies"), EXIT_FAILURE, "ServerFault: it lies"),
        (MemoryError(), EXIT_FAILURE, "memory"),
        (KeyboardInterrupt(), EXIT_INTERRUPTED, "interrupted"),
        (ModuleNotFoundError(name="tenseal.sealapi"), EXIT_FAILURE, 'pip install ".[he]"'),
        (OSError(errno.ENOSPC, "No space left on device"), EXIT_FAILURE, "no space is left"),
        (typer.BadParameter("wrong"), EXIT_PARAMETER, "wrong"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_is_one_line_and_a_code(error, code, words):
    done = ends(error)
    assert done.exit_code == code
    assert words in done.stderr
    assert done.stderr.startswith("secagg: error: ")
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("error", [ZeroDivisionError("ours"), ModuleNotFoundError(name="numpy"), AssertionError()])
def test_a_fault_of_our_own_keeps_its_traceback(error):
    assert ends(error).exception is error


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "permission denied: change its permissions"),
        (errno.EROFS, "read-only file system: name another file"),
        (errno.EISDIR, "name a file in it"),
        (errno.ENOTDIR, "check the path"),
        (errno.ENOSPC, "free some"),
        (errno.EIO, "input/output error"),
    ],
)
def test_what_the_system_refuses_is_told_without_a_number(number, words):
    text = os_error_text(OSError(number, os.strerror(number), "where.json"))
    assert text.startswith("where.json: ")
    assert words in text.lower()
    assert "Errno" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("identity", "new", "no/x"), "no does not exist: make it first"),
        (("identity", "sealing-key", "no/x"), "does not exist: make it first"),
        (("identity", "show", "missing.key"), "there is no such file"),
        (("identity", "show", "."), "it is a directory"),
        (("identity", "directory", "missing.pub", "--out", "cohort.json"), "missing.pub: there is no such file"),
        (("identity", "nope"), "No such command"),
        (("nope",), "No such command"),
        (("identity", "directory", "a.pub"), "--out"),
        ((*PLAN, "--json", "no/x.json"), "does not exist: make it first"),
        (("selftest", "--json", "no/x.json"), "does not exist: make it first"),
        (("warmup", "--clients", "1"), "too few clients"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="paths as POSIX has them")
def test_every_slip_is_one_line(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, list(arguments))
    assert done.exit_code in (EXIT_FAILURE, EXIT_PARAMETER), done.output
    assert words in done.stderr
    assert done.stderr.startswith("secagg: error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_is_told_with_the_files_name():
    done = CliRunner().invoke(cli.app, [*PLAN, "--json", "/dev/full"])
    assert done.exit_code == EXIT_FAILURE
    assert "/dev/full: no space is left there" in done.stderr


def test_one_file_for_figures_and_picture_is_refused(tmp_path):
    pytest.importorskip("matplotlib")
    file = str(tmp_path / "both.svg")
    done = CliRunner().invoke(cli.app, [*PLAN, "--json", file, "--plot", file])
    assert done.exit_code == EXIT_PARAMETER
    assert "name two" in done.stderr


@pytest.mark.parametrize("group", [(), ("identity",)])
def test_a_group_alone_shows_its_help(group):
    done = CliRunner().invoke(cli.app, list(group))
    assert done.exit_code == EXIT_PARAMETER
    assert "Commands:" in done.stdout


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("command", ["", "train", "plan", "warmup", "selftest", "identity", "identity directory"])
def test_help_fits_and_cuts_no_name(command, columns):
    asked = [sys.executable, "-m", "secagg", *command.split(), "--help"]
    done = subprocess.run(
        asked, env={**os.environ, "COLUMNS": str(columns)}, capture_output=True, text=True, check=True
    )
    assert max(map(len, done.stdout.splitlines())) <= columns
    for usual in ("[ARGS]...", "FILE...", "2 ...", "}..."):
        done.stdout = done.stdout.replace(usual, "")
    assert "..." not in done.stdout
    if command == "plan":
        for option in ("--max-weight", "--actual-dropout", "--no-timing"):
            assert option in done.stdout


def test_completion_is_shown():
    done = CliRunner().invoke(cli.app, ["--show-completion"], env={"SHELL": "/bin/bash"})
    assert done.exit_code in (0, 1), done.output
    words = {"COMP_WORDS": "secagg pl", "COMP_CWORD": "1", "_SECAGG_COMPLETE": "complete_bash"}
    shown = subprocess.run(
        [sys.executable, "-m", "secagg"], env={**os.environ, **words}, capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == ["plan"]


@pytest.mark.skipif(os.name == "nt", reason="pipes as POSIX has them")
def test_a_reader_that_leaves_is_no_error_to_tell():
    command = [sys.executable, "-m", "secagg", *PLAN]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    running.stdout.close()
    assert running.stderr.read() == ""
    assert running.wait(timeout=120) == EXIT_FAILURE
    running.stderr.close()


@pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")
def test_an_interrupt_is_one_line():
    pytest.importorskip("sklearn")
    # Whoever runs the tests in the background may have told them to ignore interrupts
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from secagg.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "train", "--rounds", "100000"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in running.stdout:
        if line.startswith("  2/"):
            break
    time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=120)
    assert told == "secagg: error: interrupted\n"
    assert running.returncode == EXIT_INTERRUPTED
