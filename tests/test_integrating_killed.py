"""The loops of docs/integrating.md and docs/homomorphic.md, killed before and after all that they store or send."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import guides
from children import needs_fork

HERE = Path(__file__).parent
# Protocol, who is killed, every which of its events in the fast suite, and how many events it has at least
VICTIMS = [
    ("semi-honest", "client", 3, 16),
    ("semi-honest", "server", 7, 34),
    ("malicious complete", "client", 5, 20),
    ("malicious complete", "server", 11, 42),
    ("malicious sparse", "client", 15, 22),
    ("malicious sparse", "server", 237, 350),
    ("bfv", "client", 1, 4),
    ("bfv", "server", 7, 20),
    ("bfv", "decryptor", 5, 24),
]

MANY_EVENTS = ("malicious sparse", "server")


def rounds(folder: Path, protocol: str, victim: str, step: int) -> list[dict[str, object]]:
    """Run the rounds in a process without threads, which may fork."""
    done = subprocess.run(
        [sys.executable, str(HERE / "killed_loops.py"), str(folder), protocol, victim, str(step)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(told: list[dict[str, object]], protocol: str) -> None:
    params = guides.cohort(protocol).params
    for one in told:
        assert one["kills"] == 1
        survivors, error = one["result"]
        assert survivors == list(range(params.clients)), one
        assert error < params.encoding.step, one
        assert {what: count for what, count in one["left"].items() if count > 1} == {}, one


@needs_fork
@pytest.mark.parametrize(("protocol", "victim", "step", "_"), VICTIMS)
def test_some_kills_leave_the_sum_and_every_answer_as_it_was(tmp_path, protocol, victim, step, _):
    told = rounds(tmp_path, protocol, victim, step)
    assert told
    check(told, protocol)


@needs_fork
@pytest.mark.slow
@pytest.mark.parametrize(
    ("protocol", "victim", "least"),
    [(protocol, victim, least) for protocol, victim, _, least in VICTIMS if (protocol, victim) != MANY_EVENTS],
)
def test_every_kill_leaves_the_sum_and_every_answer_as_it_was(tmp_path, protocol, victim, least):
    told = rounds(tmp_path, protocol, victim, 1)
    assert len(told) >= least
    check(told, protocol)


@needs_fork
@pytest.mark.slow
def test_a_kill_at_every_ninth_event_of_a_sparse_rounds_server_leaves_the_sum(tmp_path):
    told = rounds(tmp_path, *MANY_EVENTS, 9)
    assert len(told) >= 350 // 9
    check(told, MANY_EVENTS[0])
