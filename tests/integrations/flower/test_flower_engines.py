"""The example in both of Flower's engines, as its make targets run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "flower"


def run(script, tmp_path, *arguments, timeout):
    figures = tmp_path / "figures.json"
    with subprocess.Popen(
        [sys.executable, EXAMPLE / script, "--json", figures, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            shown, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.terminate()  # not killed: it has processes of its own to stop
            raise
    assert process.returncode == 0, shown + errors[-5000:]
    assert "NOT equal" not in shown
    return json.loads(figures.read_text()), shown


@pytest.mark.parametrize("threat", ["semi-honest", "malicious-server"])
def test_the_simulation_engine_ends_where_plain_averaging_does(tmp_path, threat):
    outcomes, _ = run("simulate.py", tmp_path, "--rounds", "2", "--threat", threat, timeout=900)
    exchanges = {"semi-honest": 4, "malicious-server": 5}[threat]
    assert [len(one["seconds"]) for one in outcomes["secure"]["rounds"]] == [exchanges] * 2
    assert [one["survivors"] for one in outcomes["secure"]["rounds"]] == [[0, 1, 2, 3, 4]] * 2
    assert [one["survivors"] for one in outcomes["one fails"]["rounds"]] == [[0, 1, 2, 3, 4], [0, 1, 2, 3]]


def test_the_simulation_engine_sums_homomorphically_in_one_exchange(tmp_path):
    pytest.importorskip("tenseal", reason="homomorphic sums need the extra he")
    outcomes, _ = run("simulate.py", tmp_path, "--rounds", "2", "--protocol", "bfv", timeout=900)
    assert [list(one["seconds"]) for one in outcomes["secure"]["rounds"]] == [["encrypted_input"]] * 2
    assert [list(one["party_seconds"]) for one in outcomes["secure"]["rounds"]] == [["decryptor"]] * 2
    assert [one["survivors"] for one in outcomes["one fails"]["rounds"]] == [[0, 1, 2, 3, 4], [0, 1, 2, 3]]


@pytest.mark.slow
@pytest.mark.parametrize("threat", ["semi-honest", "malicious-server"])
def test_a_node_killed_mid_round_costs_its_own_part_alone(tmp_path, threat):
    outcome, shown = run("deploy.py", tmp_path, "--rounds", "2", "--threat", threat, timeout=900)
    assert "killing the SuperNode of hospital 4" in shown
    assert [one["survivors"] for one in outcome["rounds"]] == [[0, 1, 2, 3, 4], [0, 1, 2, 3]]
    assert [one["failure"] for one in outcome["rounds"]] == [None, None]
