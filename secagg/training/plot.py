"""A training in one picture: accuracy and loss, secure against plain, drop-outs, and seconds and bytes by stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secagg import picture
from secagg.protocol import protocol_of
from secagg.training.report import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

_LANES, _LANE_ROUNDS, _BARS = 20, 30, 40
"""The most clients and rounds for which each drop-out can be seen by itself at a phone's size; the most bars."""
_LONGEST_NAME = 80
_LEAST_SPAN = 0.02  # of an axis of accuracies or losses


def save(outcome: Outcome, path: Path) -> None:
    """Draw the training and write it to ``path``; the ending chooses the format (``.png``, ``.svg``, ``.pdf``).

    Needs no display and leaves matplotlib's global state alone.

    Raises:
        InputError: the ending is not one that matplotlib writes.
        ModuleNotFoundError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    picture.check_suffix(path)
    picture.write(draw(outcome), path)


def draw(outcome: Outcome) -> Figure:
    """Return the picture: panels one below the other, those left out that would be empty."""
    traffic = [record.traffic for record in outcome.secure]
    panels: list[tuple[float, Callable[[Axes, Outcome], None]]] = [(2.2, _accuracy), (2.2, _loss)]
    if any(one.dropped for one in traffic):
        few = outcome.plan.training.clients <= _LANES and len(traffic) <= _LANE_ROUNDS
        panels.append((1.1 + 0.16 * outcome.plan.training.clients, _lanes) if few else (2.6, _dropout_shares))
    if any(one.seconds for one in traffic):
        panels.append((2.6, _seconds))
    if stages := _stages_sent(outcome):
        panels.append((1.1 + 0.5 * len(stages), _bytes))
    title = _title(outcome)
    with picture.look():
        figure = picture.blank(0.3 + 0.22 * (title.count("\n") + 1) + sum(height for height, _ in panels))
        figure.suptitle(title, x=0.02, ha="left", fontsize=12, fontweight="bold")
        grid = figure.add_gridspec(len(panels), 1, height_ratios=[height for height, _ in panels])
        for place, (_, panel) in enumerate(panels):
            panel(figure.add_subplot(grid[place, 0]), outcome)
    return figure


def _title(outcome: Outcome) -> str:
    params, name, rounds = outcome.plan.training, outcome.federation.schema.name, len(outcome.secure)
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME - 3]}..."
    failed = sum(record.traffic.failure is not None for record in outcome.secure)
    happened = [f"{name}: {params.clients} clients, {rounds} round{'s' if rounds != 1 else ''}"]
    if failed:
        happened.append(f"{failed} without a sum")
    if not any(record.traffic.dropped for record in outcome.secure):
        happened.append("no drop-outs")
    lines = ", ".join(happened), protocol_of(params).headline(params)
    return "\n".join(picture.wrapped(line, 12, "bold") for line in lines)


def _looks(outcome: Outcome) -> Mapping[str, picture.StageLook]:
    params = outcome.plan.training
    protocol = protocol_of(params)
    return picture.stage_looks(protocol.every_stage, protocol.input_stage(params))


def _accuracy(axes: Axes, outcome: Outcome) -> None:
    axes.set_title("Accuracy on held-out records")
    _secure_and_plain(axes, outcome, "accuracy")
    axes.yaxis.set_major_formatter(picture.percent)


def _loss(axes: Axes, outcome: Outcome) -> None:
    axes.set_title("Loss on held-out records, in nats")
    _secure_and_plain(axes, outcome, "loss")
    axes.yaxis.set_major_formatter("{x:.3g}")


def _secure_and_plain(axes: Axes, outcome: Outcome, field: str) -> None:
    from matplotlib.ticker import MaxNLocator

    rounds = [record.round for record in outcome.secure]
    plain = [getattr(record, field) for record in outcome.plain]
    secure = [getattr(record, field) for record in outcome.secure]
    wide: dict[str, Any] = {"color": picture.ORANGE, "linewidth": 6, "alpha": 0.5, "marker": "o", "markersize": 8}
    handles = [
        *axes.plot(rounds, secure, color=picture.BLUE, linewidth=1.4, marker="o", markersize=3, label="secure"),
        *axes.plot(rounds, plain, **wide, markeredgewidth=0, label="in the clear", zorder=1.5),
    ]
    low, high = axes.get_ylim()
    spare = max(0.0, _LEAST_SPAN - (high - low)) / 2  # so that equal values lie on one line, not on rounding's
    axes.set_ylim(low - spare, high + spare)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    picture.key_above(axes, handles)
    _rounds_below(axes, outcome)


def _lanes(axes: Axes, outcome: Outcome) -> None:
    """A lane for each client, a mark where it dropped out."""
    axes.set_title("Drop-outs, by the first message that was not sent")
    clients = outcome.plan.training.clients
    handles, looks = [], _looks(outcome)
    for stage in _stages_dropped(outcome):
        colour, _, marker = looks[stage]
        gone = [(r.round, party) for r in outcome.secure for party, at in r.traffic.dropped.items() if at == stage]
        width = min(6.5, 170 / len(outcome.secure))
        style: dict[str, Any] = {"color": colour, "markersize": width, "label": stage}
        handles += axes.plot(*zip(*gone, strict=True), marker, **style)
    axes.set(ylabel="client", ylim=(clients - 0.4, -0.6))
    picture.whole_numbers(axes.yaxis)
    picture.key_above(axes, handles)
    _rounds_below(axes, outcome)


def _dropout_shares(axes: Axes, outcome: Outcome) -> None:
    """A stack a round: which share of the cohort dropped out at each stage, against the share that was planned for."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title("Share of the clients that dropped out, by message")
    params, stages = outcome.plan.training, _stages_dropped(outcome)
    shares = [[list(r.traffic.dropped.values()).count(stage) for r in outcome.secure] for stage in stages]
    handles = _stack(axes, outcome, stages, np.array(shares) / params.clients, np.ones(len(outcome.secure)))
    planned = params.dropout_count / params.clients
    axes.axhline(planned, color=picture.INK, linewidth=1.2, linestyle="--", zorder=3)
    axes.set_ylim(0, 1.05 * max(1.05 * planned, axes.get_ylim()[1] / 1.05))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(picture.percent)
    picture.key_above(axes, handles)
    _rounds_below(axes, outcome, "dashed: planned for", _bars_note(outcome))


def _seconds(axes: Axes, outcome: Outcome) -> None:
    axes.set_title("Time of all clients and the server in one process")
    seconds = {stage: [record.traffic.seconds.get(stage, 0.0) for record in outcome.secure] for stage in outcome.stages}
    stages = [stage for stage in outcome.stages if any(seconds[stage])]
    timed = np.array([float(bool(record.traffic.seconds)) for record in outcome.secure])
    handles = _stack(axes, outcome, stages, np.array([seconds[stage] for stage in stages]), timed)
    axes.yaxis.set_major_formatter(picture.duration)
    picture.key_above(axes, handles)
    _rounds_below(axes, outcome, _bars_note(outcome))


def _bytes(axes: Axes, outcome: Outcome) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title("Bytes of one client, the most in any round")
    stages = _stages_sent(outcome)
    places, handles = np.arange(len(stages)), []
    for offset, field, colour, hatch in ((-0.2, "bytes_up", picture.BLUE, ""), (0.2, "bytes_down", picture.SKY, "///")):
        sizes = [_most(outcome, field, stage) for stage in stages]
        label = field.removeprefix("bytes_")
        bars = axes.barh(places + offset, sizes, 0.38, color=colour, hatch=hatch, edgecolor="white", label=label)
        axes.bar_label(bars, labels=[picture.size(count) for count in sizes], padding=3)
        handles.append(bars)
    axes.set_yticks(places, stages)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(picture.size)
    axes.grid(visible=False, axis="y")
    picture.key_above(axes, handles)


def _stack(
    axes: Axes, outcome: Outcome, stages: Sequence[str], heights: np.ndarray, counted: np.ndarray
) -> list[Patch]:
    """Draw a bar for each round, the stages one upon the other; return what a legend shows, in the same order.

    Where rounds are too many for bars, a bar is the mean over a few rounds, of those that are ``counted`` (1, not 0).
    """
    from matplotlib.patches import Patch

    rounds, each = len(outcome.secure), _rounds_a_bar(outcome)
    starts = np.arange(0, rounds, each)
    widths = np.minimum(starts + each, rounds) - starts
    floor, over = np.zeros(len(starts)), np.maximum(np.add.reduceat(counted, starts), 1)
    handles, looks = [], _looks(outcome)
    for stage, height in zip(stages, heights, strict=True):
        colour, hatch, _ = looks[stage]
        look: dict[str, Any] = {"facecolor": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}
        tall = np.add.reduceat(height * counted, starts) / over
        axes.bar(starts + (widths + 1) / 2, tall, 0.8 * widths, bottom=floor, **look)
        handles.append(Patch(**look, label=stage))
        floor += tall
    axes.grid(visible=False, axis="x")
    return handles


def _rounds_a_bar(outcome: Outcome) -> int:
    return -(-len(outcome.secure) // _BARS)


def _bars_note(outcome: Outcome) -> str:
    each = _rounds_a_bar(outcome)
    return f"a bar: mean of {each}" if each > 1 else ""


def _rounds_below(axes: Axes, outcome: Outcome, *notes: str) -> None:
    """Finish an axis of rounds; those without a sum are grey in all panels."""
    failed = [record.round for record in outcome.secure if record.traffic.failure is not None]
    for one in failed:
        axes.axvspan(one - 0.5, one + 0.5, facecolor="#EBEBEB", zorder=0.5, linewidth=0)
    said = "; ".join(filter(None, (*notes, "grey: no sum" if failed else "")))
    axes.set(xlabel=f"round ({said})" if said else "round", xlim=(0.4, len(outcome.secure) + 0.6))
    picture.whole_numbers(axes.xaxis)


def _stages_dropped(outcome: Outcome) -> list[str]:
    gone = {stage for record in outcome.secure for stage in record.traffic.dropped.values()}
    return [stage for stage in outcome.stages if stage in gone]


def _stages_sent(outcome: Outcome) -> list[str]:
    fields = ("bytes_up", "bytes_down")
    return [stage for stage in outcome.stages if any(_most(outcome, field, stage) for field in fields)]


def _most(outcome: Outcome, field: str, stage: str) -> int:
    return max((getattr(record.traffic, field).get(stage, 0) for record in outcome.secure), default=0)
