"""Show a comparison: a table on the terminal, the same in Markdown between two marks, a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.systems.catalogue import SYSTEMS, Setting
from benchmarks.systems.comparison import MEASURED, OURS, Row

BEGIN, END = "<!-- systems: begin -->", "<!-- systems: end -->"
COLUMNS = (
    "system",
    "client CPU, ms",
    "x ours",
    "server CPU, ms",
    "x ours",
    "server wall, ms",
    "kB up",
    "kB down",
    "largest error",
)
TRAITS = ("survives drop-outs", "malicious server", "cryptographic masks", "what it does not do")


class MarksMissing(Exception):
    """The file has no two marks to write a table between."""


def print_comparison(console: Console, preset: str, setting: Setting, rows: list[Row]) -> None:
    """Print a preset's table."""
    table = Table(title=f"{preset}: {setting.describe()}", title_justify="left")
    for i, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*(escape(cell) for cell in _cells(row)))
    console.print(table)
    for row in rows:
        if row["status"] != MEASURED:
            console.print(f"{row['title']}: {row['status']}: {row['reason']}", markup=False)


def print_traits(console: Console, systems: list[str]) -> None:
    """Print what each system withstands."""
    table = Table(title="traits", title_justify="left")
    for column in ("system", *TRAITS):
        table.add_column(column)
    for name in systems:
        table.add_row(*(escape(cell) for cell in _trait_cells(name)))
    console.print(table)


def write_markdown(path: Path, comparisons: Mapping[str, Row], machine: Mapping[str, Any], command: str) -> None:
    """Replace what stands between the two marks in a file.

    Raises:
        MarksMissing: the file does not exist or lacks the marks.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise MarksMissing(f"{path} has no lines '{BEGIN}' and '{END}'")
    lines = [f"`{command}`, on {_machine(machine)}.", ""]
    for preset, comparison in comparisons.items():
        rounds = f"medians of {comparison['repeats']} rounds" if comparison["repeats"] > 1 else "a single round"
        lines += [f"**{preset}**: {comparison['description']}; {rounds}.", ""]
        lines += [*_markdown_table(COLUMNS, [_cells(row) for row in comparison["rows"]], numbers=True), ""]
        lines += [f"- {row['title']}: {row['reason']}." for row in comparison["rows"] if row["status"] != MEASURED]
        lines += [""]
    names = dict.fromkeys(row["system"] for comparison in comparisons.values() for row in comparison["rows"])
    lines += _markdown_table(("system", *TRAITS), [_trait_cells(name) for name in names], numbers=False)
    path.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n{END}{after}", encoding="utf-8")


def draw(folder: Path, comparisons: Mapping[str, Row]) -> Path:
    """Draw each preset's client and server seconds on logarithmic axes; return the picture's path."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(
        len(comparisons), 2, figsize=(11, 0.8 + 2.6 * len(comparisons)), squeeze=False, layout="constrained"
    )
    for pair, (preset, comparison) in zip(axes, comparisons.items(), strict=True):
        for axis, figure_name, side in zip(
            pair, ("client_cpu_seconds", "server_cpu_seconds"), ("a client", "the server"), strict=True
        ):
            _draw_bars(axis, comparison["rows"], figure_name)
            axis.set_title(f"{preset}: CPU of {side}", loc="left", fontsize=9)
        pair[1].set_yticklabels([])
    path = folder / "systems.png"
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def _draw_bars(axis: Any, rows: list[Row], figure: str) -> None:
    rows = rows[::-1]
    seconds = [row.get(figure) for row in rows]
    known = [value for value in seconds if value]
    left = min(known, default=1e-3) / 3
    for position, (row, value) in enumerate(zip(rows, seconds, strict=True)):
        if row["status"] == MEASURED:
            colour = "#0b6e4f" if row["system"].startswith(OURS) else "#9aa5b1"
            axis.barh(position, max(value, left) - left, left=left, color=colour)
            axis.text(max(value, left) * 1.1, position, _seconds(value), va="center", fontsize=8)
        else:
            axis.text(left * 1.1, position, row["status"], va="center", fontsize=8, style="italic", color="#666666")
    axis.set_xscale("log")
    axis.set_xlim(left, max(known, default=1.0) * 8)
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.set_yticks(range(len(rows)), [row["title"] for row in rows], fontsize=8)
    axis.tick_params(axis="x", labelsize=8)
    axis.set_xlabel("CPU seconds", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _cells(row: Row) -> tuple[str, ...]:
    if row["status"] != MEASURED:
        return (row["title"], row["status"], *[""] * (len(COLUMNS) - 2))
    version = f"{row['title']} ({row['version']})"
    return (
        version,
        _figure(1e3 * row["client_cpu_seconds"]),
        _figure(row.get("client_ratio")),
        _figure(1e3 * row["server_cpu_seconds"]),
        _figure(row.get("server_ratio")),
        _figure(1e3 * row["server_wall_seconds"]),
        f"{row['bytes_up'] / 1e3:.1f}",
        f"{row['bytes_down'] / 1e3:.1f}",
        f"{row['max_error']:.1e}",
    )


def _trait_cells(name: str) -> tuple[str, ...]:
    traits = SYSTEMS[name].traits
    flags = (traits.drop_outs, traits.malicious_server, traits.cryptographic_masks)
    return (SYSTEMS[name].title, *("yes" if flag else "no" for flag in flags), traits.lacks)


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


def _machine(machine: Mapping[str, Any]) -> str:
    return f"{machine['processor']} ({machine['aes_path']}), Python {machine['python']}, one core for each system"


def _markdown_table(columns: tuple[str, ...], rows: list[tuple[str, ...]], *, numbers: bool) -> list[str]:
    rule = ["---", *["--:" if numbers else "---"] * (len(columns) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (columns, rule, *rows)]
