"""What the command line's pictures share: their look, and which file names can hold one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secagg.errors import InputError

INK = "#333333"
STYLE: dict[str, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "legend.frameon": False,
    "font.size": 9,
    "xtick.color": INK,
    "ytick.color": INK,
}


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
