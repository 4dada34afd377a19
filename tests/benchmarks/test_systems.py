"""The benchmark across systems: right sums, missing peers said to be missing, and the fields that its page explains."""

import functools
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import typer

from benchmarks.systems import comparison, plain_numpy, report, run, secagg_sessions
from benchmarks.systems.catalogue import PRESETS, SYSTEMS, System
from benchmarks.systems.comparison import FIGURES, ROOT, compare
from benchmarks.systems.environments import Missing, python_of
from benchmarks.systems.measurement import Meter, Outcome, inputs_of, measure

PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
THREATS = {"secagg": "semi-honest", "secagg-malicious": "malicious-server"}
OURS = {name: functools.partial(secagg_sessions.run, threat=threat) for name, threat in THREATS.items()}


@pytest.mark.parametrize("preset", ["quick", "quick-dropped"])
@pytest.mark.parametrize("system", ["secagg", "secagg-malicious", "numpy"])
def test_sum_is_right_and_everything_is_counted(system, preset):
    setting = PRESETS[preset]
    row = measure(system, setting, {**OURS, "numpy": plain_numpy.run}[system])
    assert row["status"] == "measured", row
    assert row["max_error"] <= row["error_bound"] < 1e-3
    assert row["survivors"] == setting.clients - setting.dropped
    assert row["bytes_up"] >= setting.dimension * 2
    assert row["client_cpu_seconds"] > 0
    assert row["server_cpu_seconds"] > 0


def test_sum_that_leaves_one_client_out_is_wrong():
    def forgetful(setting, vectors, meter):
        return Outcome(total=np.sum(vectors[1:], axis=0, dtype=float), error_bound=1e-3, version="0")

    assert measure("numpy", PRESETS["quick"], forgetful)["status"] == "wrong"


@pytest.mark.parametrize("threat", THREATS.values())
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_safe_parameters_in_both_models(preset, threat):
    setting = PRESETS[preset]
    params = secagg_sessions.parameters(setting, threat)
    assert (params.neighbours, params.threshold) == (setting.neighbours, setting.threshold)
    assert params.minimum_survivors <= setting.clients - setting.dropped


def test_inputs_differ_by_client_and_stay_within_the_clip():
    vectors = inputs_of(PRESETS["quick"])
    assert len({vector.tobytes() for vector in vectors}) == PRESETS["quick"].clients
    assert all(np.abs(vector).max() <= PRESETS["quick"].clip for vector in vectors)


def test_meter_takes_a_client_out_of_the_server_that_calls_it():
    meter = Meter(1)
    with meter.server(), meter.not_the_server(), meter.client(0):
        sum(range(2_000_000))
    assert meter.client_cpu[0] > 0
    assert abs(meter.server_cpu) < meter.client_cpu[0] / 4
    before = meter.client_cpu[0]
    with meter.client(0), meter.not_the_client(0):
        sum(range(2_000_000))
    assert abs(meter.client_cpu[0] - before) < before / 4


def test_rows_of_processes_missing_and_unable_systems(tmp_path):
    rows = compare(
        PRESETS["quick-dropped"],
        ["secagg", "numpy", "flower", "declearn"],
        repeats=1,
        cache=tmp_path,
        install=False,
        timeout=120,
    )
    assert [row["status"] for row in rows] == ["measured", "measured", "missing", "unable"], rows
    ours, numpy, flower, declearn = rows
    assert "flwr==1.41.0 is not installed" in flower["reason"]
    assert "dropped out" in declearn["reason"]
    assert ours["inputs_digest"] == numpy["inputs_digest"]
    assert ours["client_ratio"] == ours["server_ratio"] == 1
    assert not any(tmp_path.iterdir())


PIP_OFFLINE = "WARNING: Retrying\nERROR: No matching distribution found for flwr==1.41.0\n\nNotice: a new pip\n"


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (subprocess.CompletedProcess([], 1, stdout="", stderr=PIP_OFFLINE), "ERROR: No matching distribution"),
        (subprocess.TimeoutExpired([], 1), "not done after"),
        (FileNotFoundError(2, "No such file or directory"), "No such file or directory"),
    ],
)
def test_peer_that_cannot_be_installed_is_missing_with_the_reason(tmp_path, monkeypatch, outcome, reason):
    def stand_in(*args, **kwargs):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(subprocess, "run", stand_in)
    with pytest.raises(Missing, match=rf"^cannot install flwr==1\.41\.0: {reason}"):
        python_of(SYSTEMS["flower"], tmp_path, install=True)


@pytest.mark.slow
def test_peer_is_missing_where_there_is_no_package_index(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for install, reason in ((True, "cannot install .* ERROR: "), (False, "installs nothing")):
        with pytest.raises(Missing, match=reason):
            python_of(SYSTEMS["flower"], tmp_path, install=install)


def test_system_that_summed_other_inputs_is_wrong(tmp_path, monkeypatch):
    def other_inputs(name, setting, **_):
        figures = dict.fromkeys(FIGURES, 1.0)
        return figures | {"system": name, "status": "measured", "reason": "", "inputs_digest": name}

    monkeypatch.setattr(comparison, "run_once", other_inputs)
    ours, other = compare(PRESETS["quick"], ["secagg", "numpy"], repeats=1, cache=tmp_path, install=False, timeout=1)
    assert (ours["status"], other["status"], other["reason"]) == ("measured", "wrong", "it was given other inputs")
    assert "client_ratio" not in other


def test_medians_are_taken_over_rounds_in_which_systems_take_turns(tmp_path, monkeypatch):
    order = []

    def growing(name, setting, **_):
        order.append(name)
        return dict.fromkeys(FIGURES, len(order)) | {"system": name, "status": "measured", "inputs_digest": ""}

    monkeypatch.setattr(comparison, "run_once", growing)
    ours, other = compare(PRESETS["quick"], ["secagg", "numpy"], repeats=3, cache=tmp_path, install=False, timeout=1)
    assert order == ["secagg", "numpy"] * 3
    assert (ours["server_cpu_seconds"], other["server_cpu_seconds"], other["client_ratio"]) == (3, 4, 4 / 3)


def test_adapter_that_crashes_or_takes_too_long_is_reported(tmp_path, monkeypatch):
    traits = SYSTEMS["numpy"].traits
    monkeypatch.setitem(SYSTEMS, "none", System(title="none", module="no_such_adapter", traits=traits))
    [row] = compare(PRESETS["quick"], ["none"], repeats=1, cache=tmp_path, install=False, timeout=60)
    assert row["status"] == "failed"
    assert "no_such_adapter" in row["reason"]
    [row] = compare(PRESETS["quick"], ["numpy"], repeats=1, cache=tmp_path, install=False, timeout=0.01)
    assert (row["status"], row["reason"]) == ("failed", "not done after 0 s")


def test_document_table_and_picture(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", encoding="utf-8")
    with pytest.raises(typer.Exit) as ended:
        run.main(
            preset=["quick"],
            system=["secagg", "numpy", "fate"],
            repeats=2,
            installed_only=True,
            cache=tmp_path / "peers",
            timeout=120,
            json_file=tmp_path / "new" / "figures.json",
            plot=tmp_path / "plots",
            markdown=page,
            reuse=None,
        )
    assert ended.value.exit_code == 0
    document = json.loads((tmp_path / "new" / "figures.json").read_text(encoding="utf-8"))
    assert {"machine", "command", "presets"} == set(document)
    shown = " ".join(f"--system {name}" for name in ("secagg", "numpy", "fate"))
    assert document["command"] == f"python -m benchmarks.systems.run --repeats 2 --preset quick {shown}"
    measured, _, missing = document["presets"]["quick"]["rows"]
    assert missing["status"] == "missing"
    assert set(FIGURES) <= set(measured)
    assert len(measured["runs"]) == 2
    for name in {*measured, *document["presets"]["quick"], *measured["traits"]}:
        assert f"`{name}`" in PAGE, f"docs/benchmarks.md does not explain {name}"
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| numpy, in the clear (" in text
    assert re.search(r"- FATE's Rust kernels: fate_utils==0\.1\.0 .* is not installed", text)
    assert (tmp_path / "plots" / "systems.png").stat().st_size > 1000


def test_markdown_needs_its_marks(tmp_path):
    with pytest.raises(report.MarksMissing):
        report.write_markdown(tmp_path / "none.md", {}, {}, "")


@pytest.mark.parametrize("option", ["preset", "system"])
def test_unknown_names_are_refused(option):
    names = {"preset": ["quick"], "system": ["numpy"]} | {option: ["nope"]}
    with pytest.raises(typer.BadParameter, match=f"no {option} 'nope'"):
        run.main(**names)


def test_every_adapter_is_there_and_pins_what_it_needs():
    for system in SYSTEMS.values():
        assert (Path(report.__file__).parent / f"{system.module}.py").is_file()
        assert bool(system.environment) == bool(system.requirements)
        assert not system.requirements or "==" in system.requirements[0]
