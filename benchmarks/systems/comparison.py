"""Run the systems in turn, in fresh processes, and take medians: one row a system."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.systems.catalogue import SYSTEMS, Setting
from benchmarks.systems.environments import Missing, environment_of, last_line, python_of

ROOT = Path(__file__).parents[2]
OURS = "secagg"
MEASURED = "measured"
FIGURES = (
    "client_cpu_seconds",
    "client_cpu_seconds_total",
    "server_cpu_seconds",
    "server_wall_seconds",
    "bytes_up",
    "bytes_down",
    "max_error",
)
"""What medians are taken of."""

Row = dict[str, Any]


def compare(
    setting: Setting,
    systems: Sequence[str],
    *,
    repeats: int,
    cache: Path,
    install: bool,
    timeout: float,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Return a row for every system, in their order; one that cannot run says why and has no figures.

    Each of the ``repeats`` rounds runs every system once, so that a slow spell of the machine meets them all.
    """
    runs: dict[str, list[Row]] = {name: [] for name in systems}
    absent: dict[str, Row] = {}
    for name in systems:
        try:
            absent |= _unable(name, setting)
            if name not in absent:
                progress(f"{SYSTEMS[name].title}: environment")
                python_of(SYSTEMS[name], cache, install=install)
        except Missing as missing:
            absent[name] = _row(name, "missing", str(missing))
    for repeat in range(repeats):
        for name in systems:
            if name in absent:
                continue
            progress(f"{SYSTEMS[name].title}: {repeat + 1} of {repeats}")
            run = run_once(name, setting, cache=cache, timeout=timeout)
            runs[name].append(run)
            if run["status"] != MEASURED:
                absent[name] = run
    rows = [absent[name] if name in absent else _median(runs[name]) for name in systems]
    _check_inputs(rows)
    _add_ratios(rows)
    return rows


def run_once(name: str, setting: Setting, *, cache: Path, timeout: float) -> Row:
    """Run a system's adapter in a process of its own; return its figures, or a row that says how it failed."""
    system = SYSTEMS[name]
    command = [str(python_of(system, cache, install=False)), "-m", f"{__package__}.{system.module}"]
    asked = json.dumps({"system": name, "setting": setting.as_dict()})
    try:
        done = subprocess.run(
            command,
            input=asked,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=ROOT,
            env=environment_of(system),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _row(name, "failed", f"not done after {timeout:.0f} s")
    if done.returncode:
        return _row(name, "failed", last_line(done.stderr))
    try:
        figures = json.loads(last_line(done.stdout))
    except json.JSONDecodeError:
        return _row(name, "failed", "its adapter printed no figures")
    row = _row(name, figures["status"], "") | figures
    if row["status"] != MEASURED:
        row["reason"] = f"its sum is off by {row['max_error']:.2g}, more than the {row['error_bound']:.2g} it may be"
    return row


def _row(name: str, status: str, reason: str) -> Row:
    row = SYSTEMS[name]
    return {
        "system": name,
        "title": row.title,
        "status": status,
        "reason": reason,
        "requirements": list(row.requirements),
        "traits": asdict(row.traits),
    }


def _unable(name: str, setting: Setting) -> dict[str, Row]:
    if setting.dropped and not SYSTEMS[name].traits.drop_outs:
        return {name: _row(name, "unable", "no sum comes out once a client has dropped out")}
    return {}


def _median(runs: list[Row]) -> Row:
    row = dict(runs[-1])
    for figure in FIGURES:
        row[figure] = statistics.median(run[figure] for run in runs)
    row["repeats"] = len(runs)
    row["runs"] = [{figure: run[figure] for figure in FIGURES} for run in runs]
    return row


def _check_inputs(rows: list[Row]) -> None:
    """Fail every system that summed other inputs than ours did (another NumPy may draw other numbers)."""
    known = next((row["inputs_digest"] for row in rows if row["status"] == MEASURED), None)
    for row in rows:
        if row["status"] == MEASURED and row["inputs_digest"] != known:
            row |= {"status": "wrong", "reason": "it was given other inputs"}


def _add_ratios(rows: list[Row]) -> None:
    ours = next((row for row in rows if row["system"] == OURS and row["status"] == MEASURED), None)
    for row in rows:
        if ours is not None and row["status"] == MEASURED:
            row["client_ratio"] = row["client_cpu_seconds"] / ours["client_cpu_seconds"]
            row["server_ratio"] = row["server_cpu_seconds"] / ours["server_cpu_seconds"]
