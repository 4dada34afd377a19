"""``secagg plan``: what it prints, JSON, files, exit codes."""

from __future__ import annotations

import collections
import itertools
import json
import re

import pytest
from typer.testing import CliRunner

import secagg
from secagg import cli
from secagg.kernels import jit
from secagg.pairwise.stages import MALICIOUS_STAGES
from secagg.planning import calibration

SMALL = ("plan", "--clients", "100", "--dimension", "1000")
QUICK = (*SMALL, "--no-timing")


def invoke(*arguments: str):
    return CliRunner().invoke(cli.app, list(arguments))


def test_a_table_has_a_column_for_each_protocol_and_model():
    done = invoke(*QUICK)
    assert done.exit_code == 0, done.output
    assert done.stdout.isascii()
    lines = {line[:15].strip(): line[15:].split() for line in done.stdout.splitlines()}
    assert lines["k, neighbours"] == ["99", "28", "-", "-", "99", "52"]
    assert lines["exchanges"] == ["4", "4", "1", "1", "5", "5"]
    assert "client CPU" not in lines
    for stage in (*MALICIOUS_STAGES, "encrypted_input"):
        assert done.stdout.count(f"\n{stage} ") == 2, stage


@pytest.mark.parametrize("columns", [30, 60, 80, 113, 200])
def test_nothing_is_wider_than_the_terminal_and_nothing_is_lost(columns):
    whole = CliRunner().invoke(cli.app, QUICK, env={"COLUMNS": "1000"})
    done = CliRunner().invoke(cli.app, QUICK, env={"COLUMNS": str(columns)})
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= columns
    # Figures and words are the same; names of lines and columns stand again where a table is parted
    cells, wanted = (collections.Counter(one.stdout.replace(":", " ").split()) for one in (done, whole))
    for word, times in wanted.items():
        assert cells[word] >= times or word == "-", word


def test_a_pipe_gets_whole_lines():
    done = CliRunner().invoke(cli.app, QUICK, env={"COLUMNS": None})
    assert any(len(line) > 120 and line.endswith("goes to each client once.") for line in done.stdout.splitlines())


def test_sizes_are_for_people_on_the_terminal_and_exact_in_json():
    done = invoke(*QUICK, "--json", "-")
    assert re.findall(r"\d{4,} bytes", done.stderr) == []
    bfv = next(row for row in json.loads(done.stdout)["rows"] if row["protocol"] == "bfv")
    assert bfv["bytes_beside"]["uploads_passed_on"] == bfv["server"]["bytes_received"]
    assert "107 kB" in done.stderr or "106.6 kB" in done.stderr


def test_the_rates_are_the_librarys():
    workload = json.loads(invoke(*QUICK, "--json", "-").stdout)["workload"]
    planned = secagg.RoundParams.plan(clients=100, dimension=1000, encoding=secagg.FixedPoint(clip=1.0, bits=16))
    assert (workload["dropout"], workload["corrupt"]) == (planned.dropout, planned.corrupt)
    assert workload["max_weight"] == planned.max_weight


@pytest.mark.skipif(not jit.is_compiling(), reason="nothing is compiled")
def test_kernels_that_cannot_be_kept_are_told_of(monkeypatch):
    ticks = itertools.count()
    real = calibration.calibrate
    monkeypatch.setattr(calibration, "calibrate", lambda **asked: real(**asked, clock=lambda: next(ticks) * 1e-3))
    monkeypatch.setattr(jit, "cache_location", lambda: None)
    done = invoke(*SMALL)
    assert done.exit_code == 0, done.output
    assert "every process compiles anew" in done.stdout
    assert "NUMBA_CACHE_DIR" in done.stdout


def test_timing_adds_cpu_lines(monkeypatch):
    ticks = itertools.count()
    real = calibration.calibrate
    monkeypatch.setattr(calibration, "calibrate", lambda **asked: real(**asked, clock=lambda: next(ticks) * 1e-3))
    done = invoke(*SMALL, "--json", "-", "--threat", "semi-honest")
    assert done.exit_code == 0, done.output
    assert "client CPU" in done.stderr
    report = json.loads(done.stdout)
    assert report["machine"]["ring_bits"] == 23
    assert [row["threat"] for row in report["rows"]] == ["semi-honest"] * 4
    assert all(row["client"]["seconds"] > 0 and row["server"]["seconds"] > 0 for row in report["rows"])


def test_files_are_written(tmp_path):
    pytest.importorskip("matplotlib")
    figures, picture = tmp_path / "plan.json", tmp_path / "plan.svg"
    done = invoke(*QUICK, "--json", str(figures), "--plot", str(picture))
    assert done.exit_code == 0, done.output
    assert len(json.loads(figures.read_text(encoding="utf-8"))["rows"]) == 8
    assert "<svg" in picture.read_text(encoding="utf-8")
    assert str(picture) in done.stdout.replace("\n", "")


def test_one_protocol_is_enough():
    done = invoke("plan", "--clients", "5000", "--dimension", "10", "--no-timing", "--threat", "semi-honest")
    assert done.exit_code == 0, done.output
    assert "Not possible" in done.stdout
    assert "complete graph takes at most 4096" in done.stdout


def test_none_is_a_failure_with_the_reason_once():
    done = invoke(*QUICK, "--max-weight", str(10**18))
    assert done.exit_code == 1
    assert done.stderr.startswith("secagg: error: no protocol can carry this round: ")
    assert done.stderr.count("need a ring of") == 1
    assert done.stdout.count("need a ring of") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--bits", "40"), "bits must lie in"),
        (("--dropout", "nan"), "dropout must lie in"),
        (("--actual-dropout", "0.5"), "exceeds the planned"),
        (("--json", "missing/plan.json"), "cannot write"),
        (("--plot", "plan.docx"), "must end in one of"),
    ],
    ids=["bits", "rate", "actual", "directory", "format"],
)
def test_a_callers_slip_is_one_line_and_code_two(arguments, words):
    done = invoke(*QUICK, *arguments)
    assert done.exit_code == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
