"""Draw what the other benchmarks have written.

Command: python benchmarks/pictures.py [--out build/bench]
Reads kernels.json, server_sum.json, papers.json and threat_models.json in the folder, and draws a picture of each that
is there into the same folder. scaling.png and systems.png are drawn by their own benchmarks.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes


def kernels(panel: Axes, written: dict[str, Any]) -> None:
    """Draw rates in GB/s, the key streams and sums of masks alone."""
    rates = {
        name: rate
        for name, rate in written["rates"].items()
        if "key stream" in name or "masks" in name or "AES" in name
    }
    names = sorted(rates, key=rates.__getitem__)
    colours = ["tab:blue" if "masks" in name else "tab:grey" if "registers" in name else "tab:orange" for name in names]
    panel.barh(names, [rates[name] for name in names], color=colours)
    panel.set(xlabel="GB/s of key stream", title="masks added to a vector, beside key streams alone")


def server_sum(panel: Axes, written: dict[str, Any]) -> None:
    """Draw the server's seconds by stage beside NumPy's sum."""
    runs = written["runs"]
    places = np.arange(len(runs))
    bottom = np.zeros(len(runs))
    for stage in runs[0]["stages"]:
        heights = np.array([sum(run["stages"][stage].values()) for run in runs])
        panel.bar(places, heights, 0.4, bottom=bottom, label=f"server, {stage}")
        bottom += heights
    panel.bar(places + 0.42, [run["numpy_seconds"] for run in runs], 0.4, color="tab:grey", label="NumPy's float32 sum")
    shapes = [f"n={run['clients']}, d={run['dimension']:,}\n{run['dropout']:.0%} dropped" for run in runs]
    panel.set_xticks(places + 0.2, shapes)
    panel.set(ylabel="wall seconds, 2 threads", title="the server's whole round beside the sum in the clear")
    panel.legend()


def papers(panel: Axes, written: dict[str, Any]) -> None:
    """Draw CCS'17's table: the server's seconds against drop-outs."""
    rows = written["ccs17"]
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        own = [row for row in rows if row["protocol"] == protocol]
        panel.plot([row["dropped"] for row in own], [sum(row["stages"].values()) for row in own], "o-", label=protocol)
    known = written["ccs17_paper_seconds"]
    panel.plot(
        [float(dropped) for dropped in known],
        list(known.values()),
        "s--",
        color="tab:grey",
        label="CCS'17, as published",
    )
    panel.set(xlabel="part that dropped", ylabel="server's wall seconds", yscale="log", title="n = 1000, d = 100,000")
    panel.legend()


def threat_models(panel: Axes, written: dict[str, Any]) -> None:
    """Draw a client's milliseconds in both models."""
    runs = written["runs"]
    names = [f"n={run['clients']}\n{run['threat']}" for run in runs]
    panel.bar(names, [1e3 * run["client_seconds"] for run in runs], color="tab:blue")
    panel.set(ylabel="a client's ms in all", title="the price of the malicious-server model")


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
        figure, panel = plt.subplots(figsize=(9, 5), layout="constrained")
        draw(panel, json.loads(source.read_text()))
        figure.savefig(arguments.out / f"{name}.png", dpi=110)
        plt.close(figure)
        print(f"drew {arguments.out / name}.png")


if __name__ == "__main__":
    main()
