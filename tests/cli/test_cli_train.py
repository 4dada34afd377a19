"""The command line: what it prints, the JSON on standard output, files, exit codes, and one-line errors."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import secagg
from secagg import cli
from secagg._version import __version__
from secagg.cli.errors import EXIT_FAILURE, EXIT_PARAMETER, EXIT_TOO_FEW
from secagg.pairwise.stages import SEMI_HONEST_STAGES

pytest.importorskip("sklearn")

QUICK = ("train", "--rounds", "3")


def secagg_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "secagg", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
        env={**os.environ, **environment},
    )


def invoke(*arguments: str, **environment: str):
    return CliRunner().invoke(cli.app, list(arguments), env=environment)


def one_error_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("secagg: error: ")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def strict_json(text: str):
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def piped() -> subprocess.CompletedProcess[str]:
    return secagg_process(*QUICK, "--json", "-", "--seed", "3")


def test_json_alone_is_on_standard_output(piped):
    assert piped.returncode == 0, piped.stderr
    report = strict_json(piped.stdout)
    assert report["version"] == __version__
    assert report["seed"] == 3
    assert report["federation"]["name"] == "breast-cancer"
    assert len(report["federation"]["clients"]) == 10
    assert report["parameters"]["graph"] == "complete"
    assert any("complete graph" in note for note in report["notes"])
    assert "Parameters" in piped.stderr
    assert "  3/3" in piped.stderr


def test_json_rounds_hold_what_is_promised(piped):
    rounds = strict_json(piped.stdout)["rounds"]
    assert [entry["round"] for entry in rounds] == [1, 2, 3]
    for entry in rounds:
        assert {"loss", "accuracy", "survivors", "dropped", "bytes_up", "seconds"} <= set(entry)
        assert 0 <= entry["accuracy"] <= 1
        assert set(entry["bytes_up"]) == set(entry["seconds"]) == set(SEMI_HONEST_STAGES)
        assert set(entry["dropped"].values()) <= set(SEMI_HONEST_STAGES)
        gone = {int(party) for party, stage in entry["dropped"].items() if stage != "unmask"}
        assert sorted(gone | set(entry["survivors"])) == list(range(10))


def test_json_final_holds_both_accuracies_and_the_bound(piped):
    final = strict_json(piped.stdout)["final"]
    assert abs(final["accuracy_secure"] - final["accuracy_plain"]) <= 0.005
    assert 0 < final["max_abs_difference"] <= final["distance"] <= final["bound"]


def test_a_readable_course_is_printed():
    done = invoke("train", "--rounds", "2")
    assert done.exit_code == 0, done.output
    for words in ("Federation", "threshold", "ring", "kernels", "  1/2", "  2/2", "secure", "in the clear", "bound"):
        assert words in done.stdout
    assert done.stdout.isascii()


@pytest.mark.parametrize("columns", [60, 80, 113, 200])
@pytest.mark.parametrize(
    "asked",
    [("--threat", "malicious-server"), ("--actual-dropout", "0.3"), ("--clients", "100"), ("--protocol", "ckks")],
    ids=lambda asked: asked[1],
)
def test_nothing_is_wider_than_the_terminal(asked, columns):
    if asked[1] == "ckks":
        pytest.importorskip("tenseal")
    done = invoke("train", "--rounds", "2", *asked, COLUMNS=str(columns))
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= columns
    for stage in ("encrypted_input",) if asked[1] == "ckks" else SEMI_HONEST_STAGES:
        assert any(stage in line for line in lines)
    rounds = [line for line in lines if line.startswith(("  1/2", "  2/2")) and "no sum" not in line]
    # Durations are columns where there is room, and stand below their round elsewhere
    assert {"ms" in line for line in rounds} <= {columns >= (113 if asked[1] == "ckks" else 200)}


def test_no_duration_is_parted_from_its_unit():
    done = invoke("train", "--rounds", "6", "--threat", "malicious-server", COLUMNS="113")
    assert not any(line.strip().startswith("ms") for line in done.stdout.splitlines())


def test_no_colour_codes_in_a_pipe(piped):
    assert "\x1b" not in piped.stderr
    assert "\x1b" not in piped.stdout


def test_files_are_written(tmp_path):
    pytest.importorskip("matplotlib")
    figures, plot = tmp_path / "run.json", tmp_path / "run.png"
    done = invoke(*QUICK, "--json", str(figures), "--plot", str(plot))
    assert done.exit_code == 0, done.output
    assert len(strict_json(figures.read_text(encoding="utf-8"))["rounds"]) == 3
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert plot.stat().st_size > 20_000
    assert str(figures) in done.stdout.replace("\n", "")


def test_the_plot_shows_failed_rounds_and_leaves_pyplot_alone(tmp_path):
    pytest.importorskip("matplotlib")
    plot = tmp_path / "run.svg"
    done = invoke("train", "--rounds", "8", "--actual-dropout", "0.25", "--seed", "3", "--plot", str(plot))
    assert done.exit_code == 0, done.output
    assert "no sum" in done.stdout
    assert "<svg" in plot.read_text(encoding="utf-8")


@pytest.mark.parametrize("federation", ["wine", "digits-even"])
def test_other_federations_train(federation):
    done = invoke(*QUICK, "--federation", federation, "--protocol", "secagg", "--json", "-")
    assert done.exit_code == 0, done.output
    final = strict_json(done.stdout)["final"]
    assert final["bound"] is not None
    assert final["distance"] <= final["bound"]


@pytest.mark.parametrize(("threat", "stages"), [("semi-honest", 4), ("malicious-server", 5)])
def test_the_threat_model_is_planned_shown_and_reported(threat, stages, tmp_path):
    figures = tmp_path / "run.json"
    done = invoke("train", "--rounds", "6", "--threat", threat, "--json", str(figures))
    assert done.exit_code == 0, done.output
    assert f"threat     {threat}: the aggregator may" in done.stdout
    assert ("check_consistency" in done.stdout) == (stages == 5)
    report = strict_json(figures.read_text(encoding="utf-8"))
    assert report["parameters"]["threat"] == report["statistics_round"]["parameters"]["threat"] == threat
    for entry in (report["statistics_round"], *report["rounds"]):
        assert len(entry["bytes_up"]) == len(entry["seconds"]) == stages
        assert set(entry["dropped"].values()) <= set(entry["bytes_up"])
    assert report["final"]["rounds_failed"] == 0
    assert report["final"]["distance"] <= report["final"]["bound"]


@pytest.mark.parametrize("protocol", ["bfv", "ckks"])
def test_homomorphic_sums_train_are_shown_and_plotted(protocol, tmp_path):
    picture = tmp_path / "training.svg"
    asked = ("train", "--rounds", "2", "--protocol", protocol, "--key-holder", "clients")
    done = invoke(*asked, "--json", "-", "--plot", str(picture))
    assert done.exit_code == 0, done.output
    report = strict_json(done.stdout)
    shown = report["parameters"]
    assert (shown["protocol"], shown["key_holder"], shown["threat"]) == (protocol, "clients", "semi-honest")
    assert set(report["rounds"][0]["bytes_up"]) == {"encrypted_input", "release"}
    assert report["final"]["distance"] <= report["final"]["bound"]
    assert "any one of them together with the aggregator" in " ".join(done.stderr.split())
    assert "encrypted_input" in done.stderr
    assert "key held by the clients" in picture.read_text(encoding="utf-8")


def test_a_malicious_servers_training_is_plotted_and_fits_narrow_terminals(tmp_path):
    pytest.importorskip("matplotlib")
    plot = tmp_path / "run.svg"
    done = invoke(*QUICK, "--threat", "malicious-server", "--plot", str(plot), COLUMNS="112")
    assert done.exit_code == 0, done.output
    assert "check_consistency " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 112
    assert "malicious-server" in plot.read_text(encoding="utf-8")


def test_a_hundred_clients_use_the_sparse_graph():
    done = invoke("train", "--clients", "100", "--rounds", "2", "--json", "-")
    assert done.exit_code == 0, done.output
    report = strict_json(done.stdout)
    assert report["parameters"]["graph"] == "harary"
    assert report["parameters"]["neighbours"] < 99
    assert report["final"]["distance"] <= report["final"]["bound"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--clients", "1"), "clients must be 4 to 398, got 1"),
        (("--clients", "3"), "clients must be 4 to 398, got 3"),
        (("--clients", "399"), "clients must be 4 to 398, got 399"),
        (("--clients", "-5"), "clients must be 4 to 398, got -5"),
        (("--clients", "2", "--dropout", "0", "--threat", "malicious-server"), "3 to 398, got 2"),
        (("--clients", "125", "--federation", "wine"), "4 to 124, got 125"),
        (("--clients", "ten"), "--clients"),
        (("--protocol", "secagg2"), "--protocol"),
        (("--json",), "--json"),
        (("--json", "."), "directory"),
        (("--colour",), "--colour"),
        (("--rounds", "0"), "rounds"),
        (("--seed", "-1"), "seed"),
        (("--threads", "0"), "threads"),
        (("--bits", "0"), "bits"),
        (("--bits", "64"), "bits"),
        (("--clip", "0"), "clip"),
        (("--clip", "nan"), "clip"),
        (("--clip", "-1"), "clip"),
        (("--dropout", "1"), "dropout"),
        (("--dropout", "0.95"), "vanish"),
        (("--corrupt", "-0.1"), "corrupt"),
        (("--federation", "no-such"), "breast-cancer"),
        (("--threat", "malicious-server", "--dropout", "0.5"), "vouch for the survivor set"),
        (
            ("--threat", "malicious-server", "--clients", "5", "--dropout", "0.25", "--corrupt", "0"),
            "no threshold is safe",
        ),
        (("--json", "no/such/directory/out.json"), "directory"),
        (("--plot", "plot.xyz"), "xyz"),
    ],
)
def test_bad_parameters_exit_with_2_and_one_line(arguments, words):
    done = invoke("train", *arguments)
    assert done.exit_code == EXIT_PARAMETER, done.output
    assert words in one_error_line(done.stderr)
    assert done.stdout == ""


def test_a_parameter_error_in_a_process_prints_no_traceback():
    done = secagg_process("train", "--clip", "0")
    assert done.returncode == EXIT_PARAMETER
    assert done.stdout == ""
    assert "clip" in one_error_line(done.stderr)


def test_too_few_clients_exits_with_3():
    done = invoke(*QUICK, "--actual-dropout", "1")
    assert done.exit_code == EXIT_TOO_FEW
    assert "too few clients" in one_error_line(done.stderr)


@pytest.mark.parametrize(
    ("module", "arguments", "package", "extra"),
    [
        ("sklearn", (), "scikit-learn", "demo"),
        ("matplotlib", ("--plot", "run.png"), "matplotlib", "plot"),
        ("tenseal", ("--protocol", "bfv"), "TenSEAL", "he"),
        ("zstandard", ("--protocol", "ckks"), "zstandard", "he"),
    ],
)
def test_a_missing_package_is_noticed_before_any_work(module, arguments, package, extra, monkeypatch):
    def never(*_):
        raise AssertionError("work was begun")

    if extra == "he":
        pytest.importorskip("tenseal")
        pytest.importorskip("zstandard")
    monkeypatch.setattr("secagg.cli.train._train", never)
    monkeypatch.setitem(sys.modules, module, None)
    done = invoke(*QUICK, *arguments)
    assert done.exit_code == EXIT_FAILURE
    said = one_error_line(done.stderr)
    assert f"this needs {package}, which is not installed" in said
    assert f'in secagg\'s checkout, run: pip install ".[{extra}]"' in said
    assert done.stdout == ""


def test_a_package_that_turns_out_to_miss_is_named_too(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    done = invoke(*QUICK)
    assert done.exit_code == EXIT_FAILURE
    assert 'pip install ".[demo]"' in one_error_line(done.stderr)


def test_the_environment_sets_the_threads(monkeypatch):
    done = invoke(*QUICK, "--json", "-", SECAGG_THREADS="2")
    assert done.exit_code == 0, done.output
    assert strict_json(done.stdout)["settings"]["threads"] == 2


def test_few_bits_train_within_a_wide_bound():
    done = invoke(*QUICK, "--bits", "1", "--json", "-")
    assert done.exit_code == 0, done.output
    final = strict_json(done.stdout)["final"]
    assert final["distance"] <= final["bound"]
    assert all(math.isfinite(value) for value in final.values() if isinstance(value, float))


def test_a_tight_clip_states_no_bound():
    done = invoke(*QUICK, "--clip", "0.001", "--json", "-")
    assert done.exit_code == 0, done.output
    report = strict_json(done.stdout)
    assert report["final"]["bound"] is None
    assert any("clipped" in note for note in report["notes"])


def test_version_and_help():
    assert invoke("--version").stdout.strip() == f"secagg {__version__}"
    shown = invoke("--help")
    assert shown.exit_code == 0
    for command in ("train", "plan", "warmup", "selftest", "identity"):
        assert f"  {command}" in shown.stdout


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from secagg.cli import app; from typer.testing import CliRunner; "
        "assert CliRunner().invoke(app, ['train', '--help']).exit_code == 0; "
        "print([n for n in ('numba', 'sklearn', 'matplotlib', 'scipy', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_is_left_behind(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "secagg", *QUICK],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [*os.environ.get("PYTHONPATH", "").split(os.pathsep), str(Path(secagg.__file__).parents[1])]
            ),
        },
        capture_output=True,
        timeout=300,
        check=True,
    )
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []
