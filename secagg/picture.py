"""What all pictures share: one column that a phone can show, their look, units that people read, and file names.

A picture is ``WIDTH`` inches wide. A browser that shrinks it to 390 pixels draws 9 points, the smallest text, 8 pixels
high. Colours are Okabe and Ito's, which readers who do not see all colours tell apart; no picture relies on them alone.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secagg.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 6.0
"""Inches."""
SMALLEST = 9.0
"""Points of the smallest text."""

INK, PALE = "#333333", "#E6E6E6"
BLUE, SKY, ORANGE, VERMILLION, GREEN, PURPLE = "#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#009E73", "#CC79A7"

StageLook = tuple[str, str, str]
"""A stage's colour, hatch and marker: each tells it apart without the others."""

_INPUT_LOOK: StageLook = (ORANGE, "", "D")
_LAST_LOOK: StageLook = (PURPLE, "\\\\\\\\", "^")
_OTHER_LOOKS: tuple[StageLook, ...] = (
    (SKY, "", "o"),
    (BLUE, "////", "s"),
    (GREEN, "....", "P"),
    (VERMILLION, "xxxx", "X"),
)

_DOTS_AN_INCH = 160  # 960 pixels: two for each of a phone's
_MARGIN = 0.1  # inches around the picture and between its panels
_STYLE: dict[str, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": SMALLEST,
    "legend.borderpad": 0.0,
    "legend.borderaxespad": 0.0,
    "legend.columnspacing": 1.2,
    "legend.handletextpad": 0.5,
    "font.size": SMALLEST,
    "text.color": INK,
    "text.parse_math": False,  # a name may hold dollar signs
    "xtick.color": INK,
    "ytick.color": INK,
    "pdf.fonttype": 42,  # text that can be selected
}
_FEW_DECADES = 300
_BYTES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))
_SECONDS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))


def stage_looks(stages: Sequence[str], input_stage: str) -> Mapping[str, StageLook]:
    """Return how each stage of a protocol is drawn: inputs and the last stage alike in all protocols."""
    looks, others = {}, itertools.cycle(_OTHER_LOOKS)
    for stage in stages:
        last = stage == stages[-1]
        looks[stage] = _INPUT_LOOK if stage == input_stage else _LAST_LOOK if last else next(others)
    return looks


def check_suffix(path: Path) -> None:
    """Refuse a file name whose ending does not name a format.

    Raises:
        InputError: matplotlib does not write such files.
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    known = sorted(FigureCanvasAgg.get_supported_filetypes())
    if path.suffix.lower().removeprefix(".") not in known:
        raise InputError(f"cannot plot to {path.name!r}: the name must end in one of {', '.join(known)}")


def look() -> AbstractContextManager[None]:
    """Return a context in which matplotlib draws in the pictures' look, whatever its user has set up."""
    from matplotlib import style

    context: AbstractContextManager[None] = style.context(["default", _STYLE])
    return context


def blank(height: float) -> Figure:
    """Return an empty picture, ``height`` inches high; call it within ``look()``."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=_MARGIN, h_pad=_MARGIN, hspace=0.0)
    return Figure(figsize=(WIDTH, height), layout=layout)


def write(figure: Figure, path: Path) -> None:
    """Write a picture; the ending chooses the format (png, svg, pdf). Needs no display.

    Raises:
        OSError: the file cannot be written.
    """
    with look():
        figure.savefig(path, dpi=_DOTS_AN_INCH)


def wrapped(text: str, points: float, weight: str = "normal") -> str:
    """Break a text into lines that fit the picture's width."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font, room = FontProperties(size=points, weight=weight), 0.92 * 72 * WIDTH  # hinting widens letters
    for characters in range(len(text), 0, -1):
        lines = textwrap.wrap(text, characters)
        if all(text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] <= room for line in lines):
            return "\n".join(lines)
    return text


def key_above(axes: Axes, handles: Sequence[Any], columns: int = 3) -> None:
    """Put the legend between a panel and its title, which must be set already."""
    rows = -(-len(handles) // columns)
    columns = -(-len(handles) // rows)  # four are two and two
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.0, 1.02), ncols=columns, handlelength=1.6)
    axes.set_title(axes.get_title(loc="left"), pad=8.0 + 14.5 * rows)


def whole_numbers(axis: Any) -> None:
    """Put ticks on whole numbers alone."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=10, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def log_ticks(axis: Any, tick: Callable[[float, object], str], most: int = 12) -> None:
    """Label a logarithmic axis by ``tick``: its decades, and 2 and 5 times them where those alone would be too few."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0,) if high > _FEW_DECADES * low else (1.0, 2.0, 5.0), numticks=most))
    axis.set_major_formatter(tick)
    axis.set_minor_formatter(NullFormatter())


def size(count: float, _place: object = None) -> str:
    """Return a number of bytes as people write it: ``2.74 kB``. Ticks pass their place too."""
    return _in_units(count, _BYTES)


def duration(seconds: float, _place: object = None) -> str:
    """Return seconds as people write them: ``31.5 ms``. Ticks pass their place too."""
    return _in_units(seconds, _SECONDS)


def percent(share: float, _place: object = None) -> str:
    """Return a share as a percentage: ``97.5%``. Ticks pass their place too."""
    return f"{100 * share:.4g}%"


def _in_units(value: float, units: Sequence[tuple[str, float]]) -> str:
    # Half a unit of the third digit below the next unit rounds up to it: 999,600 B are 1 MB
    unit, factor = next(((unit, factor) for unit, factor in units if value >= 0.9995 * factor), units[-1])
    if value == 0:
        unit, factor = ("B", 1.0) if units is _BYTES else ("s", 1.0)
    scaled = value / factor
    return f"{scaled:,.0f} {unit}" if scaled >= 99.95 else f"{scaled:.3g} {unit}"
