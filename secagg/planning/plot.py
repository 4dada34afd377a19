"""Where the protocols cross: what a client, the network and the server bear, against the number of clients."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.picture import INK, STYLE, check_suffix
from secagg.planning.comparison import Comparison, cohorts_around, compare
from secagg.planning.console import THREAT_NAMES
from secagg.planning.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe-Ito: told apart by readers who do not see all colours; a protocol keeps its colour in both models
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_LINES = {"semi-honest": "-", "malicious-server": "--"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One cost against the number of clients."""

    title: str
    unit: str
    cost: Callable[[Row], float | None]


_PANELS = (
    Panel(
        title="A client's bytes, up and down",
        unit="bytes",
        cost=lambda row: row.traffic.client_up + row.traffic.client_down,
    ),
    Panel(title="A client's CPU", unit="seconds", cost=lambda row: _total(row.client_seconds)),
    Panel(title="The server's CPU", unit="seconds", cost=lambda row: _total(row.server_seconds)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A protocol in one model: its rows at the numbers of clients that it can carry."""

    protocol: str
    threat: str
    clients: tuple[int, ...]
    rows: tuple[Row, ...]


def curves(comparison: Comparison, sizes: Sequence[int] | None = None) -> tuple[Curve, ...]:
    """Ask the protocols and models of a comparison again among other numbers of clients, rates unchanged."""
    asked = comparison.workload
    threats = tuple(dict.fromkeys(answer.threat for answer in comparison.answers))
    found: dict[tuple[str, str], dict[int, Row]] = {}
    for clients in sizes or cohorts_around(asked.clients):
        for row in compare(asked.at(clients), threats=threats, machine=comparison.machine).rows:
            found.setdefault((row.protocol, row.threat), {})[clients] = row
    return tuple(
        Curve(protocol=protocol, threat=threat, clients=tuple(rows), rows=tuple(rows.values()))
        for (protocol, threat), rows in found.items()
    )


def save(comparison: Comparison, path: Path) -> None:
    """Draw every cost against the number of clients to ``path``; the ending chooses the format (png, svg, pdf).

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
        panels = _PANELS if comparison.machine is not None else _PANELS[:1]
        figure = Figure(figsize=(1.5 + 4.2 * len(panels), 4.8), layout="constrained")
        _draw(figure, comparison, panels, curves(comparison))
        figure.savefig(path, dpi=150)


def _draw(figure: Figure, comparison: Comparison, panels: Sequence[Panel], drawn: Sequence[Curve]) -> None:
    asked = comparison.workload
    figure.suptitle(
        f"{asked.dimension:,} values of {asked.encoding.bits} bits, {asked.dropout:.0%} may vanish, "
        f"{asked.corrupt:.0%} be corrupt",
        fontsize=12,
        fontweight="bold",
        color=INK,
    )
    protocols = list(dict.fromkeys(curve.protocol for curve in drawn))
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), place + 1)
        for curve in drawn:
            index = protocols.index(curve.protocol)
            axes.plot(
                curve.clients,
                [panel.cost(row) for row in curve.rows],  # type: ignore[arg-type]
                color=_COLOURS[index % len(_COLOURS)],
                linestyle=_LINES[curve.threat],
                linewidth=max(3.0 - 1.6 * index, 1.4),  # so that equal curves are both seen
                label=f"{curve.protocol}, {THREAT_NAMES[curve.threat]}",
            )
        points = crossings(panel, drawn)
        label = "from here on another protocol is cheapest"
        if points:
            axes.plot(*zip(*points, strict=True), "o", color=INK, fillstyle="none", label=label)
        _finish(axes, panel, asked.clients)
    handles = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3)


def crossings(panel: Panel, drawn: Sequence[Curve]) -> list[tuple[int, float]]:
    """Return, in each model, the drawn numbers of clients from which another protocol is cheapest, and its cost."""
    points = []
    for threat in dict.fromkeys(curve.threat for curve in drawn):
        costs: dict[int, dict[str, float]] = {}
        for curve in drawn:
            for clients, row in zip(curve.clients, curve.rows, strict=True):
                if curve.threat == threat and (cost := panel.cost(row)) is not None:
                    costs.setdefault(clients, {})[curve.protocol] = cost
        cheapest = [(clients, min(by, key=by.__getitem__)) for clients, by in sorted(costs.items())]
        for (_, before), (clients, after) in itertools.pairwise(cheapest):
            if before != after:
                points.append((clients, costs[clients][after]))
    return points


def _finish(axes: Axes, panel: Panel, clients: int) -> None:
    axes.set(xscale="log", yscale="log", title=panel.title, xlabel="clients", ylabel=panel.unit)
    axes.axvline(clients, color="#888888", linewidth=0.8, linestyle=":")
    axes.annotate(
        f"n = {clients:,}",
        (clients, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-3, -2),
        textcoords="offset points",
        rotation=90,
        va="top",
        ha="right",
        fontsize=8,
        color=INK,
    )


def _total(seconds: Any) -> float | None:
    return None if seconds is None else sum(seconds.values())
