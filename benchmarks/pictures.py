"""Draw what the other benchmarks have written.

Command: python benchmarks/pictures.py [--out build/bench]
Reads kernels.json, server_sum.json, papers.json and threat_models.json in the folder, and draws a picture of each that
is there into the same folder. scaling.png and systems.png are drawn by their own benchmarks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from secagg import picture
from secagg.pairwise.stages import MALICIOUS_STAGES

Bar = tuple[str, Sequence[tuple[float, Patch]], str]
"""A name, its parts with how each is drawn, and what is written behind it."""


def kernels(written: dict[str, Any]) -> Figure:
    """Draw rates in GB/s, the key streams and sums of masks alone."""
    kinds = {
        "masks": Patch(facecolor=picture.BLUE, label="masks added to a vector"),
        "key stream": Patch(facecolor=picture.ORANGE, hatch="////", label="a key stream alone"),
        "AES": Patch(facecolor="#AAAAAA", hatch="....", label="AES in registers"),
    }
    found = [(name, rate, kind) for name, rate in written["rates"].items() for kind in kinds if kind in name]
    rates: list[Bar] = [
        (name, [(rate, kinds[kind])], f"{rate:.3g} GB/s")
        for name, rate, kind in sorted(found, key=lambda one: one[1], reverse=True)
    ]
    return bars("How fast masks are added", rates, lambda rate, _: f"{rate:g} GB/s", columns=2)


def server_sum(written: dict[str, Any]) -> Figure:
    """Draw the server's seconds by stage beside NumPy's sum."""
    clear, drawn = Patch(facecolor="#AAAAAA", label="NumPy's float32 sum"), []
    for run in written["runs"]:
        shape = f"{run['clients']:,} clients, {run['dimension']:,} values, {run['dropout']:.0%} dropped"
        parts = [(sum(calls.values()), stage_patch(stage)) for stage, calls in run["stages"].items()]
        drawn.append((f"{shape}: the server", parts, picture.duration(sum(seconds for seconds, _ in parts))))
        drawn.append(("NumPy, in the clear", [(run["numpy_seconds"], clear)], picture.duration(run["numpy_seconds"])))
    return bars("The server's whole round beside a sum, 2 threads", drawn, picture.duration, columns=3)


def threat_models(written: dict[str, Any]) -> Figure:
    """Draw a client's milliseconds in both models."""
    models = {
        "semi-honest": Patch(facecolor=picture.BLUE, label="semi-honest"),
        "malicious-server": Patch(facecolor=picture.ORANGE, hatch="////", label="malicious-server"),
    }
    drawn: list[Bar] = [
        (
            f"{run['clients']:,} clients, {run['threat']}",
            [(run["client_seconds"], models[run["threat"]])],
            picture.duration(run["client_seconds"]),
        )
        for run in written["runs"]
    ]
    return bars("A client's CPU time in both threat models", drawn, picture.duration)


def papers(written: dict[str, Any]) -> Figure:
    """Draw CCS'17's table: the server's seconds against drop-outs."""
    rows, known, handles = written["ccs17"], written["ccs17_paper_seconds"], []
    with picture.look():
        figure = picture.blank(4.4)
        panel = figure.add_subplot()
        panel.set_title(f"The server's time, {rows[0]['clients']:,} clients, {rows[0]['dimension']:,} values")
        for protocol, colour, marker in (("secagg", picture.BLUE, "o"), ("secagg+", picture.VERMILLION, "s")):
            own = [(row["dropped"], sum(row["stages"].values())) for row in rows if row["protocol"] == protocol]
            handles += panel.plot(*zip(*own, strict=True), color=colour, marker=marker, label=protocol)
        label = "CCS'17 as published: 1,000 clients, 100,000 values"
        paper = [float(dropped) for dropped in known], list(known.values())
        handles += panel.plot(*paper, "--", color="#666666", marker="^", label=label)
        panel.set(xlabel="clients that dropped out before their upload", yscale="log")
        panel.set_xticks(paper[0], [picture.percent(dropped) for dropped in paper[0]])
        picture.log_ticks(panel.yaxis, picture.duration)
        picture.key_above(panel, handles, columns=1)
    return figure


def stage_patch(stage: str) -> Patch:
    """Return how a stage is drawn."""
    colour, hatch, _ = picture.stage_looks(MALICIOUS_STAGES, "masked_input")[stage]
    return Patch(facecolor=colour, hatch=hatch, label=stage)


def bars(title: str, drawn: Sequence[Bar], tick: Callable[[float, object], str], columns: int = 3) -> Figure:
    """Draw bars with their names above them, for names are long and phones narrow."""
    with picture.look():
        figure = picture.blank(1.2 + 0.46 * len(drawn))
        panel = figure.add_subplot()
        panel.set_title(title)
        keys = {}
        for place, (name, parts, text) in enumerate(drawn):
            panel.text(0, place - 0.36, name, transform=panel.get_yaxis_transform(), va="center")
            left = 0.0
            for value, patch in parts:
                style = {"color": patch.get_facecolor(), "hatch": patch.get_hatch(), "edgecolor": "white"}
                panel.barh(place, value, 0.34, left=left, linewidth=0, **style)
                left += value
                keys[patch.get_label()] = patch
            panel.annotate(text, (left, place), xytext=(4, 0), textcoords="offset points", va="center")
        finish_bars(panel, len(drawn), tick)
        for patch in keys.values():
            patch.set(edgecolor="white", linewidth=0)
        picture.key_above(panel, list(keys.values()), columns)
    return figure


def finish_bars(panel: Axes, count: int, tick: Callable[[float, object], str]) -> None:
    """Leave room for what is written behind bars, and label the axis."""
    from matplotlib.ticker import MaxNLocator

    panel.set(ylim=(count - 0.6, -0.7), yticks=[], xlim=(0, 1.18 * panel.get_xlim()[1]))
    panel.spines["left"].set_visible(False)
    panel.grid(visible=False, axis="y")
    panel.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    panel.xaxis.set_major_formatter(tick)


PICTURES = {"kernels": kernels, "server_sum": server_sum, "papers": papers, "threat_models": threat_models}


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    arguments = parser.parse_args()
    for name, draw in PICTURES.items():
        source = arguments.out / f"{name}.json"
        if not source.exists():
            print(f"{source} is not there: make bench-{name} writes it")
            continue
        picture.write(draw(json.loads(source.read_text())), arguments.out / f"{name}.png")
        print(f"drew {arguments.out / name}.png")


if __name__ == "__main__":
    main()
