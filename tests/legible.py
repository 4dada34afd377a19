"""What makes a picture legible, as matplotlib draws it: no text is cut off, overlaps another or is tiny."""

from __future__ import annotations

import itertools
from typing import Any

PHONE = 390  # pixels across
SMALLEST = 8.0  # pixels that a text's size must keep on a phone
SLACK = 1.0  # pixels by which the boxes of two texts may touch


def check(figure: Any) -> list[str]:
    """Draw a figure, check every text in it, and return the texts."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    width, height = figure.bbox.size
    boxes = []
    for text in drawn_texts(figure):
        box = text.get_window_extent(renderer)
        assert box.x0 >= 2, text
        assert box.y0 >= 2, text
        assert box.x1 <= width - 2, text
        assert box.y1 <= height - 2, text
        assert text.get_fontsize() / 72 / figure.get_figwidth() * PHONE >= SMALLEST, text
        boxes.append((text.get_text(), box))
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        across, down = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across <= SLACK or down <= SLACK, f"{one!r} and {other!r} overlap"
    assert figure.get_facecolor()[:3] == (1, 1, 1)
    return [text for text, _ in boxes]


def drawn_texts(figure: Any) -> list[Any]:
    """Return the texts that are seen: of ticks, those alone that lie on their axis."""
    from matplotlib.text import Text

    labels = {
        label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in tick_labels(axis, all_=True)
    }
    seen = {label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in tick_labels(axis)}
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    return [text for text in texts if text not in labels or text in seen]


def tick_labels(axis: Any, all_: bool = False) -> list[Any]:
    low, high = sorted(axis.get_view_interval())
    ticks = axis.get_major_ticks() + axis.get_minor_ticks()
    if all_:
        return [label for tick in ticks for label in (tick.label1, tick.label2)]
    return [tick.label1 for tick in ticks if low * (1 - 1e-9) <= tick.get_loc() <= high * (1 + 1e-9)]


def legends(figure: Any) -> list[list[str]]:
    """Return the texts of every legend, the figure's own first."""
    found = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    return [[text.get_text() for text in one.get_texts()] for one in found if one is not None]
