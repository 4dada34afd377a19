"""``secagg selftest`` and ``secagg warmup``: what is checked and compiled, where it is kept, and where it cannot be."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import secagg
from secagg import cli, readiness
from secagg.cli.errors import EXIT_FAILURE, EXIT_PARAMETER
from secagg.cli.machine import kernels_text
from secagg.kernels import jit

compiled = pytest.mark.skipif(not jit.is_compiling(), reason="nothing is compiled")


def invoke(*arguments: str):
    return CliRunner().invoke(cli.app, list(arguments))


PACKS = """
import numpy as np
from secagg import readiness
from secagg.encoding import ring
ring.pack(np.zeros(1, np.uint16), 13)
cache = readiness.kernel_cache()
print(readiness.jit.compiled_afresh(), readiness.kernels_loaded(), cache.writable, cache.path)
"""
# A read-only install that is run without a home: numba may write nowhere
BLOCKED = """
from numba.core import caching
def refuse(*_, **__):
    raise OSError("read-only")
caching.tempfile.TemporaryFile = refuse
from secagg import readiness
print(readiness.kernel_cache().describe())
"""


def script(code: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_") and "COV" not in name}
    asked = {"PYTHONIOENCODING": "utf-8", **kept, **environment}
    done = subprocess.run([sys.executable, "-c", code], env=asked, capture_output=True, encoding="utf-8", check=True)
    return done.stdout.strip()


def test_selftest_names_the_path_and_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")  # the cache's path may be longer than a usual line, which is wrapped
    report = json.loads(invoke("selftest", "--json", "-").stdout)
    assert report["aes_path"]
    assert set(report) == set(readiness.SelfTest.__annotations__)
    shown = invoke("selftest", "--json", str(tmp_path / "report.json"))
    assert shown.exit_code == 0
    assert str(report["aes_path"]) in shown.stdout
    assert "selftest passed" in shown.stdout
    assert json.loads((tmp_path / "report.json").read_text())["ring_widths_checked"] == report["ring_widths_checked"]
    if jit.is_compiling() and report["cache_writable"]:
        assert f"kept in {report['cache_path']}" in shown.stdout


def test_a_failed_selftest_is_one_line(monkeypatch):
    def fail() -> None:
        raise secagg.SelfTestError("AES path vaes512 gave a wrong known answer")

    monkeypatch.setattr(secagg, "selftest", fail)
    done = invoke("selftest")
    assert done.exit_code == EXIT_FAILURE
    assert "vaes512" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@compiled
def test_a_cache_lies_where_it_is_told_to_and_beyond_ascii_too(tmp_path):
    folder = tmp_path / "Schlüssel-ключ-鍵"
    first, second = (script(PACKS, NUMBA_CACHE_DIR=str(folder)).split(" ", 3) for _ in range(2))
    assert int(first[0]) >= 1
    assert int(second[0]) == 0 < int(second[1])
    for _, _, writable, path in (first, second):
        assert writable == "True"
        assert path.startswith(str(folder))


@compiled
def test_where_nothing_can_be_written_a_line_says_what_it_costs_and_what_to_set(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    told = script(BLOCKED, NUMBA_CACHE_DIR=str(file), HOME=str(file), XDG_CACHE_HOME=str(file))
    assert told == (
        "kept nowhere: every process compiles anew, for 4 to 15 s; set NUMBA_CACHE_DIR to a directory that can be "
        f"written (NUMBA_CACHE_DIR is {file}, which cannot be written)"
    )


@compiled
def test_a_setting_that_cannot_be_written_is_told_though_another_place_can(tmp_path):
    (tmp_path / "file").write_text("")
    code = BLOCKED.replace("caching.tempfile.TemporaryFile = refuse", "")
    told = script(code, NUMBA_CACHE_DIR=str(tmp_path / "file"), HOME=str(tmp_path))
    assert told.startswith("kept in ")
    assert told.endswith(f"(NUMBA_CACHE_DIR is {tmp_path / 'file'}, which cannot be written)")


@compiled
def test_a_cache_that_is_taken_away_later_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(jit, "cache_location", lambda: tmp_path / "gone")
    found = readiness.kernel_cache()
    assert not found.writable
    assert f"no longer in {tmp_path / 'gone'}" in found.describe()


def test_texts_of_the_cache():
    kept = readiness.KernelCache(path="/cache", writable=True, passed_over=None, enabled=True)
    assert kernels_text(3, 1.25, kept) == "3 compiled in 1.2 s; kept in /cache"
    assert kernels_text(0, 0.1, kept) == "compiled before; kept in /cache"
    elsewhere = readiness.KernelCache(path="/cache", writable=True, passed_over="/full", enabled=True)
    assert elsewhere.describe() == "kept in /cache (NUMBA_CACHE_DIR is /full, which cannot be written)"
    off = readiness.KernelCache(path=None, writable=False, passed_over=None, enabled=False)
    assert "NUMBA_DISABLE_JIT" in kernels_text(0, 0.1, off)
    assert "NUMBA_DISABLE_JIT" in off.describe()


@pytest.mark.parametrize("arguments", [(), ("--all", "--clients", "10")])
def test_warmup_asks_which_rounds(arguments):
    done = invoke("warmup", *arguments)
    assert done.exit_code == EXIT_PARAMETER
    assert "--clients" in done.stderr
    assert "--all" in done.stderr


@pytest.mark.parametrize(
    "arguments", [("--protocol", "bfv", "--bits", "8"), ("--protocol", "ckks"), ("--threat", "malicious-server")]
)
def test_warmup_of_every_protocol(arguments):
    done = invoke("warmup", "--clients", "50", *arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("  kernels")


def test_all_rounds_are_all_widths(monkeypatch):
    asked = []
    monkeypatch.setattr(readiness, "compile_kernels", lambda width, dtypes: asked.append(width))
    assert invoke("warmup", "--all").exit_code == 0
    assert asked == list(range(1, 65))


def test_a_warmup_that_nothing_is_kept_of_is_a_failure(monkeypatch):
    nowhere = readiness.KernelCache(path=None, writable=False, passed_over=None, enabled=True)
    monkeypatch.setattr(readiness, "kernel_cache", lambda: nowhere)
    done = invoke("warmup", "--clients", "50")
    assert done.exit_code == EXIT_FAILURE
    assert "set NUMBA_CACHE_DIR" in done.stderr


def test_a_warmup_of_some_and_of_all_rounds_is_neither():
    done = invoke("warmup", "--clients", "50", "--all")
    assert done.exit_code == EXIT_PARAMETER
    assert "and not both" in done.stderr
