"""Where the protocols cross: what a client, the network and the server bear, against the number of clients."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg import picture
from secagg.planning.comparison import Comparison, cohorts_around, compare
from secagg.planning.console import THREAT_NAMES
from secagg.planning.rows import Row
from secagg.protocol import protocol_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (picture.BLUE, picture.VERMILLION, picture.GREEN, picture.PURPLE, picture.SKY, picture.ORANGE)
_MARKERS = "osD^vP"
_DASHED = "malicious-server"
_ALIKE = 1e-9  # relative; costs nearer than that are one cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One cost against the number of clients.

    Attributes:
        title: what it costs whom.
        tick: how a value of the cost is written.
        cost: the cost of a row, or None where it is not known.
    """

    title: str
    tick: Callable[[float, object], str]
    cost: Callable[[Row], float | None]


_PANELS = (
    Panel(
        title="A client's bytes, up and down",
        tick=picture.size,
        cost=lambda row: row.traffic.client_up + row.traffic.client_down,
    ),
    Panel(title="A client's CPU time", tick=picture.duration, cost=lambda row: _total(row.client_seconds)),
    Panel(title="The server's CPU time", tick=picture.duration, cost=lambda row: _total(row.server_seconds)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A protocol in one model, or in both where it is the same in both: its rows at the cohorts that it can carry.

    Attributes:
        protocol: its name.
        threats: the models that it is drawn for.
        clients: numbers of clients, rising.
        rows: its answer at each of them.
    """

    protocol: str
    threats: tuple[str, ...]
    clients: tuple[int, ...]
    rows: tuple[Row, ...]

    @property
    def label(self) -> str:
        """Its name in the legend."""
        return f"{self.protocol}, {'both models' if len(self.threats) > 1 else THREAT_NAMES[self.threats[0]]}"


def curves(comparison: Comparison, sizes: Sequence[int] | None = None) -> tuple[Curve, ...]:
    """Ask the protocols and models of a comparison again among other numbers of clients, rates unchanged.

    A protocol that costs the same in all models asked for is one curve.
    """
    asked = comparison.workload
    threats = tuple(dict.fromkeys(answer.threat for answer in comparison.answers))
    found: dict[str, dict[str, dict[int, Row]]] = {}
    for clients in sizes or cohorts_around(asked.clients):
        for row in compare(asked.at(clients), threats=threats, machine=comparison.machine).rows:
            found.setdefault(row.protocol, {}).setdefault(row.threat, {})[clients] = row
    drawn = []
    for protocol in protocol_names():
        models = found.get(protocol, {})
        alike = len(models) == len(threats) and len({_costs(rows) for rows in models.values()}) == 1
        for threat, rows in itertools.islice(models.items(), 1 if alike else None):
            drawn.append(
                Curve(
                    protocol=protocol,
                    threats=threats if alike else (threat,),
                    clients=tuple(rows),
                    rows=tuple(rows.values()),
                )
            )
    return tuple(drawn)


def save(comparison: Comparison, path: Path) -> None:
    """Draw every cost against the number of clients to ``path``; the ending chooses the format (png, svg, pdf).

    Needs no display and leaves matplotlib's global state alone.

    Raises:
        InputError: the ending is not one that matplotlib writes.
        ModuleNotFoundError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    picture.check_suffix(path)
    picture.write(draw(comparison), path)


def draw(comparison: Comparison) -> Figure:
    """Return the picture: a panel for each cost that is known, one below the other, under one legend."""
    drawn = curves(comparison)
    panels = [panel for panel in _PANELS if any(panel.cost(row) is not None for curve in drawn for row in curve.rows)]
    with picture.look():
        figure = picture.blank(1.9 + 3.2 * len(panels))
        for place, panel in enumerate(panels):
            axes = figure.add_subplot(len(panels), 1, place + 1)
            for curve in drawn:
                _line(axes, panel, curve)
            if points := crossings(panel, drawn):
                style: dict[str, Any] = {
                    "color": picture.INK,
                    "fillstyle": "none",
                    "markersize": 11,
                    "markeredgewidth": 1.4,
                }
                axes.plot(*zip(*points, strict=True), "o", label="here the cheapest changes", zorder=5, **style)
            _finish(axes, panel, comparison.workload.clients)
        _legend(figure, comparison)
    return figure


def crossings(panel: Panel, drawn: Sequence[Curve]) -> list[tuple[float, float]]:
    """Return, for each model, where the cheapest protocol's curve is cut by that of the next cheapest: (n, cost).

    A curve that starts, ends or leaves another without having cut it crosses nothing.
    """
    points = []
    for threat in dict.fromkeys(threat for curve in drawn for threat in curve.threats):
        costs: dict[int, dict[str, float]] = {}
        for curve in drawn:
            for clients, row in zip(curve.clients, curve.rows, strict=True):
                if threat in curve.threats and (cost := panel.cost(row)) is not None:
                    costs.setdefault(clients, {})[curve.protocol] = cost
        leaders: set[str] = set()
        for (left, before), (right, after) in itertools.pairwise(sorted(costs.items())):
            leaders = (leaders & _cheapest(before)) or _cheapest(before)
            if not leaders & _cheapest(after):
                points += _cuts(left, right, before, after, leaders)
    return list(dict.fromkeys(points))


def _cuts(
    left: int, right: int, before: Mapping[str, float], after: Mapping[str, float], leaders: set[str]
) -> list[tuple[float, float]]:
    """Return where two lines cut each other that are straight on logarithmic axes: of an old leader and the new one."""
    old, new = min(leaders), min(_cheapest(after))
    if old not in after or new not in before:
        return []
    gap, lead = math.log(before[new] / before[old]), math.log(after[old] / after[new])
    part = gap / (gap + lead)
    return [(left * (right / left) ** part, before[old] * (after[old] / before[old]) ** part)]


def _cheapest(costs: Mapping[str, float]) -> set[str]:
    least = min(costs.values())
    return {protocol for protocol, cost in costs.items() if math.isclose(cost, least, rel_tol=_ALIKE)}


def _costs(rows: Mapping[int, Row]) -> tuple[Any, ...]:
    return tuple((clients, *(panel.cost(row) for panel in _PANELS)) for clients, row in rows.items())


def _line(axes: Axes, panel: Panel, curve: Curve) -> None:
    index = protocol_names().index(curve.protocol)  # a protocol keeps its colour and marker in all pictures
    costs = [(clients, panel.cost(row)) for clients, row in zip(curve.clients, curve.rows, strict=True)]
    known = [(clients, cost) for clients, cost in costs if cost is not None]
    if not known:
        return
    axes.plot(
        *zip(*known, strict=True),
        color=_COLOURS[index % len(_COLOURS)],
        linestyle="--" if curve.threats == (_DASHED,) else "-",
        linewidth=max(3.2 - 1.6 * index, 1.4),  # so that equal curves are both seen
        marker=_MARKERS[index % len(_MARKERS)],
        markersize=5.5,
        markevery=(min(2 * index, len(known) - 1), 8),
        label=curve.label,
    )


def _finish(axes: Axes, panel: Panel, clients: int) -> None:
    axes.set(xscale="log", yscale="log", title=panel.title, xlabel="clients")
    low, high = axes.get_ylim()
    if high < 10 * low:  # a flat line needs ticks to be read by
        middle = math.sqrt(low * high)
        axes.set_ylim(middle / 4, middle * 4)
    picture.log_ticks(axes.yaxis, panel.tick)
    picture.log_ticks(axes.xaxis, lambda count, _: f"{count:,.0f}")
    axes.axvline(clients, color="#666666", linewidth=1.2, linestyle=":", label=f"{clients:,} clients, as asked")


def _legend(figure: Figure, comparison: Comparison) -> None:
    asked = comparison.workload
    words = (
        f"What a round of {asked.dimension:,} values of {asked.encoding.bits} bits costs, "
        f"where {100 * asked.dropout:g}% of the clients may vanish and {100 * asked.corrupt:g}% be corrupt"
    )
    title: dict[str, Any] = {
        "title": picture.wrapped(words, 12, "bold"),
        "title_fontproperties": {"size": 12, "weight": "bold"},
    }
    found = [pair for axes in figure.axes for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    handles = {label: handle for handle, label in found}
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside upper left",
        ncols=2,
        alignment="left",
        handlelength=3,
        borderaxespad=0.9,
        **title,
    )


def _total(seconds: Mapping[str, float] | None) -> float | None:
    return None if seconds is None else sum(seconds.values())
