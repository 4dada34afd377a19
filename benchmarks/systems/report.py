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
    from secagg import picture

    folder.mkdir(parents=True, exist_ok=True)
    picture.write(figure_of(comparisons), folder / "systems.png")
    return folder / "systems.png"


def figure_of(comparisons: Mapping[str, Row]) -> Any:
    """Return that picture: a panel for each preset."""
    from secagg import picture

    lines = [sum(3 if row["status"] == MEASURED else 1 for row in one["rows"]) for one in comparisons.values()]
    heights = [1.0 + 0.19 * count for count in lines]
    with picture.look():
        figure = picture.blank(0.1 + sum(heights))
        grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
        for place, (preset, comparison) in enumerate(comparisons.items()):
            axes = figure.add_subplot(grid[place, 0])
            axes.set_title(f"{preset}: CPU time")
            _draw_systems(axes, comparison["rows"])
    return figure


def _draw_systems(axes: Any, rows: list[Row]) -> None:
    """Draw a name for each system, and below it a line for a client and one for the server."""
    from secagg import picture

    sides = (
        ("a client", "client_cpu_seconds", picture.BLUE, "o"),
        ("the server", "server_cpu_seconds", picture.VERMILLION, "s"),
    )
    left = min((value for row in rows for _, name, *_ in sides if (value := row.get(name))), default=1e-3) / 2
    line, handles = 0, {}
    for row in rows:
        missing = "" if row["status"] == MEASURED else f": {row['status']}"
        weight = "bold" if row["system"].startswith(OURS) else "normal"
        axes.text(0, line, f"{row['title']}{missing}", transform=axes.get_yaxis_transform(), va="center", weight=weight)
        line += 1
        for side, name, colour, marker in () if missing else sides:
            value = max(row[name], left)
            axes.hlines(line, left, value, color=colour, linewidth=2)
            [handles[side]] = axes.plot(value, line, marker, color=colour, label=side)
            axes.annotate(
                picture.duration(row[name]), (value, line), xytext=(7, 0), textcoords="offset points", va="center"
            )
            line += 1
    axes.set(xscale="log", xlim=(left, None), ylim=(line - 0.3, -0.7), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False, axis="y")
    picture.log_ticks(axes.xaxis, picture.duration, most=7)
    picture.key_above(axes, list(handles.values()))


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


def _machine(machine: Mapping[str, Any]) -> str:
    return f"{machine['processor']} ({machine['aes_path']}), Python {machine['python']}, one core for each system"


def _markdown_table(columns: tuple[str, ...], rows: list[tuple[str, ...]], *, numbers: bool) -> list[str]:
    rule = ["---", *["--:" if numbers else "---"] * (len(columns) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (columns, rule, *rows)]
