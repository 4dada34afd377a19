"""How a client's and the server's time and bytes grow with the cohort, the vector, the neighbours and the drop-outs.

Command: python benchmarks/scaling.py [--quick] [--threat semi-honest|malicious-server] [--out build/bench]
Whole rounds in one process; a client's seconds are the cohort's, divided by those that took part. An exponent is the
slope of a least-squares line through the logarithms: time grows as x to that power over the range that is shown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

import secagg
from hardware import machine_information
from secagg import FixedPoint, RoundParams, picture
from secagg.pairwise.graph_parameters import recovery_limit, secrecy_limit

ENCODING = FixedPoint(clip=1.0, bits=16)
AXES = {
    "clients": ("clients n (secagg+, d = 10,000, 10% dropped)", True),
    "dimension": ("coordinates d (n = 50, 10% dropped)", True),
    "neighbours": ("neighbours k (n = 200, d = 10,000, 10% dropped)", True),
    "dropout": ("part that dropped before its upload (n = 200, d = 10,000)", False),
}
Point = tuple[float, RoundParams, float]
"""Where on the axis, the parameters, and the part of the cohort that really drops out."""


def points(axis: str, *, threat: str, quick: bool) -> Iterator[Point]:
    """Yield an axis' points."""

    def plan(clients: int = 200, dimension: int = 10_000, dropout: float = 0.1) -> RoundParams:
        return RoundParams.plan(clients=clients, dimension=dimension, dropout=dropout, encoding=ENCODING, threat=threat)

    if axis == "clients":
        for clients in (50, 100, 200) if quick else (50, 100, 200, 400, 800):
            yield clients, plan(clients), 0.1
    elif axis == "dimension":
        for dimension in (1_000, 10_000, 100_000) if quick else (1_000, 10_000, 100_000, 1_000_000):
            yield dimension, plan(50, dimension), 0.1
    elif axis == "neighbours":
        least = plan()
        for factor in (1, 1.5, 2) if quick else (1, 1.25, 1.5, 2, 2.5):
            degree = 2 * round(least.neighbours * factor / 2)
            low = secrecy_limit(least.cohort, degree, malicious_server=threat == "malicious-server")
            threshold = max(low + 1, recovery_limit(least.cohort, degree) * 3 // 4)
            yield degree, replace(least, neighbours=degree, threshold=threshold), 0.1
    else:
        for dropout in (0.0, 0.1, 0.3) if quick else (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3):
            yield dropout, plan(dropout=0.3), dropout


def measure(params: RoundParams, dropped: float, threads: int) -> dict[str, Any]:
    """Run a round; return seconds and bytes by stage, a client's and the server's."""
    gone = dict.fromkeys(range(round(dropped * params.clients)), "masked_input")
    vector = np.random.default_rng(0).uniform(-1, 1, params.dimension).astype(np.float32)
    result = secagg.simulate((vector for _ in range(params.clients)), params=params, faults=gone, threads=threads)
    client = {
        stage: (result.seconds[stage] - result.server_seconds[stage]) / params.clients for stage in result.seconds
    }
    return {
        "neighbours": params.neighbours,
        "threshold": params.threshold,
        "client_seconds": client,
        "server_seconds": dict(result.server_seconds),
        "bytes_up": dict(result.bytes_up),
        "bytes_down": dict(result.bytes_down),
    }


def total(run: dict[str, Any], what: str) -> float:
    """Return the sum over the stages."""
    return sum(run[what].values())


def exponent(places: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of a line through the logarithms."""
    return float(np.polyfit(np.log(places), np.log(values), 1)[0])


def show(console: Console, axis: str, runs: list[dict[str, Any]]) -> dict[str, float]:
    """Print an axis' table; return the fitted exponents."""
    title, fitted = AXES[axis]
    stages = list(runs[0]["client_seconds"])
    table = Table(title=title)
    for column in (
        axis,
        "k",
        "t",
        *(f"client {stage} ms" for stage in stages),
        "client ms",
        "server s",
        "kB up",
        "kB down",
    ):
        table.add_column(column, justify="right")
    for run in runs:
        table.add_row(
            f"{run['at']:g}",
            str(run["neighbours"]),
            str(run["threshold"]),
            *(f"{1e3 * run['client_seconds'][stage]:.2f}" for stage in stages),
            f"{1e3 * total(run, 'client_seconds'):.2f}",
            f"{total(run, 'server_seconds'):.3f}",
            f"{total(run, 'bytes_up') / 1e3:.1f}",
            f"{total(run, 'bytes_down') / 1e3:.1f}",
        )
    console.print(table)
    if not fitted:
        return {}
    places = [run["at"] for run in runs]
    slopes = {
        what: exponent(places, [total(run, what) for run in runs])
        for what in ("client_seconds", "server_seconds", "bytes_up", "bytes_down")
    }
    console.print("grows as the power: " + ", ".join(f"{what} {slope:.2f}" for what, slope in slopes.items()))
    return slopes


def draw(series: dict[str, list[dict[str, Any]]], threat: str) -> Figure:
    """Draw a panel for each axis: a client's and the server's seconds, in all and in the stage that takes most."""
    with picture.look():
        figure = picture.blank(0.4 + 3.3 * len(series))
        figure.suptitle(f"How a round's time grows, {threat}", x=0.02, ha="left", fontsize=12, fontweight="bold")
        for place, (axis, runs) in enumerate(series.items()):
            draw_axis(figure.add_subplot(len(series), 1, place + 1), axis, runs)
    return figure


def draw_axis(panel: Axes, axis: str, runs: list[dict[str, Any]]) -> None:
    """Draw one panel."""
    (label, fitted), places, handles = AXES[axis], [run["at"] for run in runs], []
    sides = (
        ("a client", "client_seconds", picture.BLUE, "o"),
        ("the server", "server_seconds", picture.VERMILLION, "s"),
    )
    for side, what, colour, marker in sides:
        dearest = max(runs[-1][what], key=runs[-1][what].__getitem__)
        whole, stage = [total(run, what) for run in runs], [run[what][dearest] for run in runs]
        handles += panel.plot(places, whole, color=colour, marker=marker, label=f"{side}, in all")
        handles += panel.plot(places, stage, ":", color=colour, marker=marker, mfc="white", label=f"{side}, {dearest}")
    panel.set(title=f"By {axis}", xlabel=label, yscale="log", xscale="log" if fitted else "linear")
    panel.set_xticks(places, [f"{at:,}" if fitted else picture.percent(at) for at in places])
    panel.minorticks_off()
    picture.log_ticks(panel.yaxis, picture.duration)
    picture.key_above(panel, handles, columns=2)


def main() -> None:
    """Measure, print, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer points, all of them small")
    parser.add_argument("--threat", default="semi-honest")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    arguments = parser.parse_args()
    console, series, slopes = Console(width=160), {}, {}
    for axis in AXES:
        runs = []
        for at, params, dropped in points(axis, threat=arguments.threat, quick=arguments.quick):
            secagg.warmup(params)
            runs.append({"at": at} | measure(params, dropped, arguments.threads))
        series[axis], slopes[axis] = runs, show(console, axis, runs)
    arguments.out.mkdir(parents=True, exist_ok=True)
    written = {"machine": machine_information(), "threat": arguments.threat, "series": series, "exponents": slopes}
    (arguments.out / "scaling.json").write_text(json.dumps(written, indent=1) + "\n")
    picture.write(draw(series, arguments.threat), arguments.out / "scaling.png")
    console.print(f"wrote {arguments.out / 'scaling.json'} and scaling.png")


if __name__ == "__main__":
    main()
