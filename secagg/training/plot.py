"""A training in one picture: accuracy and loss, secure against plain, drop-outs, and bytes and seconds by stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secagg.he.params import HEParams
from secagg.picture import INK, STYLE, check_suffix
from secagg.training.console import STAGE_NAMES
from secagg.training.report import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

# Okabe-Ito: told apart by readers who do not see all colours
_STAGE_COLOURS = {
    "advertise_keys": "#56B4E9",
    "share_keys": "#0072B2",
    "masked_input": "#E69F00",
    "check_consistency": "#009E73",
    "unmask": "#CC79A7",
    "encrypted_input": "#E69F00",
    "release": "#CC79A7",
}
_SECURE, _PLAIN = "#0072B2", "#D55E00"


def save(outcome: Outcome, path: Path) -> None:
    """Draw the training and write it to ``path``; the ending chooses the format (``.png``, ``.svg``, ``.pdf``).

    Needs no display and leaves matplotlib's global state alone.

    Raises:
        InputError: the ending is not one that matplotlib writes.
        ModuleNotFoundError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    check_suffix(path)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 9.5), layout="constrained")
        _draw(figure, outcome)
        figure.savefig(path, dpi=150)


def _draw(figure: Figure, outcome: Outcome) -> None:
    params, schema = outcome.plan.training, outcome.federation.schema
    if isinstance(params, HEParams):
        how = f"key held by the {params.key_holder}, {params.chain.degree}/{params.chain.total_bits} bits"
    else:
        how = f"{params.threat}, {params.graph} graph, k = {params.neighbours}, t = {params.threshold}"
    figure.suptitle(
        f"{schema.name}: {params.clients} clients, {len(outcome.secure)} rounds, {params.protocol} ({how})",
        fontsize=13,
        fontweight="bold",
        color=INK,
    )
    grid = figure.add_gridspec(3, 2, height_ratios=(1.0, 1.15, 0.9))
    _curves(figure.add_subplot(grid[0, 0]), outcome, "accuracy", "Accuracy on held-out records")
    _curves(figure.add_subplot(grid[0, 1]), outcome, "loss", "Loss on held-out records")
    _dropouts(figure.add_subplot(grid[1, :]), outcome)
    _bytes(figure.add_subplot(grid[2, 0]), outcome)
    _seconds(figure.add_subplot(grid[2, 1]), outcome)


def _curves(axes: Axes, outcome: Outcome, field: str, title: str) -> None:
    rounds = [record.round for record in outcome.secure]
    factor = 100 if field == "accuracy" else 1
    plain = [factor * getattr(record, field) for record in outcome.plain]
    secure = [factor * getattr(record, field) for record in outcome.secure]
    axes.plot(rounds, plain, color=_PLAIN, linewidth=5, alpha=0.35, label="in the clear", solid_capstyle="round")
    axes.plot(rounds, secure, color=_SECURE, linewidth=1.4, marker="o", markersize=3, label="secure")
    axes.set(title=title, xlabel="round", ylabel="%" if field == "accuracy" else "nats")
    _whole_rounds(axes, outcome)
    axes.legend(loc="lower right" if field == "accuracy" else "upper right")


def _dropouts(axes: Axes, outcome: Outcome) -> None:
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    clients, rounds = outcome.plan.training.clients, len(outcome.secure)
    cells = np.full((clients, rounds), np.nan)
    for column, record in enumerate(outcome.secure):
        for party, stage in record.traffic.dropped.items():
            cells[party, column] = outcome.stages.index(stage)
        if record.traffic.failure is not None:
            axes.axvspan(record.round - 0.5, record.round + 0.5, color=_PLAIN, alpha=0.15, linewidth=0)
    edges = np.arange(rounds + 1) + 0.5, np.arange(clients + 1) - 0.5
    gap = 1.5 if clients <= 40 else 0.0
    colours = ListedColormap([_STAGE_COLOURS[stage] for stage in outcome.stages])
    last = len(outcome.stages) - 0.5
    axes.pcolormesh(*edges, cells, cmap=colours, vmin=-0.5, vmax=last, edgecolors="white", linewidth=gap)
    failed = any(record.traffic.failure is not None for record in outcome.secure)
    title = "Who dropped out before which message" + (" (shaded: no sum)" if failed else "")
    axes.set(title=title, xlabel="round", ylabel="client", ylim=(clients - 0.5, -0.5))
    axes.grid(visible=False)
    _whole_numbers(axes.yaxis)
    _whole_rounds(axes, outcome)
    _legend_above(axes, [Patch(color=_STAGE_COLOURS[one], label=STAGE_NAMES[one]) for one in outcome.stages])


def _bytes(axes: Axes, outcome: Outcome) -> None:
    stages = outcome.stages
    places = np.arange(len(stages))
    for offset, field, colour, label in ((-0.2, "bytes_up", _SECURE, "up"), (0.2, "bytes_down", "#9CC7E4", "down")):
        sizes = [max((getattr(r.traffic, field).get(s, 0) for r in outcome.secure), default=0) for s in stages]
        bars = axes.barh(places + offset, sizes, height=0.38, color=colour, label=label)
        axes.bar_label(bars, labels=[f"{size:,}" for size in sizes], padding=3, fontsize=8, color=INK)
    axes.set(title="Bytes of one client, by stage", xlabel="bytes (the most in any round)")
    axes.set_yticks(places, [STAGE_NAMES[stage] for stage in stages])
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.grid(visible=False, axis="y")
    _legend_above(axes)


def _seconds(axes: Axes, outcome: Outcome) -> None:
    rounds = np.array([record.round for record in outcome.secure])
    floor = np.zeros(len(rounds))
    for stage in outcome.stages:
        height = 1000 * np.array([record.traffic.seconds.get(stage, 0.0) for record in outcome.secure])
        axes.bar(rounds, height, bottom=floor, color=_STAGE_COLOURS[stage], label=STAGE_NAMES[stage], width=0.8)
        floor += height
    axes.set(title="Time", xlabel="round", ylabel="ms, all clients in one process")
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.05)
    _whole_rounds(axes, outcome)
    _legend_above(axes)


def _legend_above(axes: Axes, handles: list[Patch] | None = None) -> None:
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.985), "borderaxespad": 0.0}
    compact: dict[str, Any] = {"ncols": 5, "handlelength": 1.0, "columnspacing": 1.0}
    axes.legend(**({"handles": handles} if handles else {}), **place, **compact, handletextpad=0.4)


def _whole_rounds(axes: Axes, outcome: Outcome) -> None:
    _whole_numbers(axes.xaxis)
    axes.set_xlim(0.4, len(outcome.secure) + 0.6)


def _whole_numbers(axis: Axis) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=10, steps=[1, 2, 5, 10], integer=True))
