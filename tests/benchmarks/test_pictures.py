"""The benchmarks' pictures, drawn from made-up figures: each is legible, and says what it was drawn from."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from benchmarks.systems import report
from benchmarks.systems.catalogue import PRESETS, SYSTEMS
from legible import check

pytest.importorskip("matplotlib")

BENCHMARKS = Path(report.__file__).parents[1]
STAGES = ("advertise_keys", "share_keys", "masked_input", "unmask")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


WRITTEN = {
    "kernels": {
        "rates": {"masks added, vaes512": 25.9, "OpenSSL key stream, 4 MiB pieces": 5.3, "AES in registers": 51.0}
    },
    "server_sum": {
        "runs": [
            {
                "clients": 1000,
                "dimension": 1_000_000,
                "dropout": dropout,
                "numpy_seconds": 0.5,
                "stages": {stage: {"receive": 0.1 * place, "advance": 0.2} for place, stage in enumerate(STAGES)},
            }
            for dropout in (0.0, 0.1)
        ]
    },
    "papers": {
        "ccs17_paper_seconds": {"0.0": 4.9, "0.1": 180.9, "0.3": 413.8},
        "ccs17": [
            {
                "protocol": protocol,
                "clients": 100,
                "dimension": 10_000,
                "dropped": dropped,
                "stages": {"unmask": 0.01 + dropped},
            }
            for protocol in ("secagg", "secagg+")
            for dropped in (0.0, 0.1, 0.3)
        ],
    },
    "threat_models": {
        "runs": [
            {"clients": clients, "threat": threat, "client_seconds": clients / 1e5}
            for clients in (100, 1000)
            for threat in ("semi-honest", "malicious-server")
        ]
    },
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_benchmarks_wrote_is_drawn(script, name):
    texts = check(script("pictures").PICTURES[name](WRITTEN[name]))
    if name == "papers":
        assert "The server's time, 100 clients, 10,000 values" in texts
    if name == "server_sum":
        assert texts.count("500 ms") >= 2


def test_scaling_names_the_stage_that_takes_most(script):
    def run(at: float) -> dict:
        seconds = {stage: (1 + place) * (at + 1) * 1e-3 for place, stage in enumerate(STAGES)}
        return {"at": at, "client_seconds": seconds, "server_seconds": seconds}

    series = {
        "clients": [run(n) for n in (50, 100, 200, 400, 800)],
        "dimension": [run(d) for d in (1_000, 10_000, 100_000, 1_000_000)],
        "neighbours": [run(k) for k in (24, 30, 36, 48, 60)],
        "dropout": [run(rate) for rate in (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)],
    }
    texts = check(script("scaling").draw(series, "malicious-server"))
    assert texts.count("the server, unmask") == 4
    assert {"800", "1,000,000", "60", "15%"} <= set(texts)


@pytest.mark.parametrize("largest", [0.01, 5e5])
def test_systems_are_drawn_beside_each_other_the_missing_by_name(largest):
    rows = [
        {
            "system": name,
            "title": system.title,
            "status": "measured",
            "client_cpu_seconds": 2e-6,
            "server_cpu_seconds": largest,
        }
        for name, system in SYSTEMS.items()
    ]
    rows[-1] = {"system": rows[-1]["system"], "title": rows[-1]["title"], "status": "missing"}
    texts = check(report.figure_of({preset: {"rows": rows} for preset in PRESETS}))
    assert texts.count("declearn's masking: missing") == len(PRESETS)
    assert texts.count("Flower SecAgg+") == len(PRESETS)
