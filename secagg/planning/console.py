"""What a comparison looks like on a terminal: a column for each protocol, a line for each cost. ASCII throughout.

Nothing is wider than the console, and nothing is cut: tables are parted between columns, sentences between words.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from secagg.planning.comparison import Comparison
from secagg.planning.rows import Refusal, Row
from secagg.planning.traffic import StageTraffic
from secagg.protocol import every_stage

THREAT_NAMES: Mapping[str, str] = {"semi-honest": "semi-honest", "malicious-server": "malicious"}
"""Short names of the threat models, for columns and labels."""
BOTH = "both"
"""The name of all models together, where a protocol is the same in all."""
_LINES: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("graph", lambda row: row.graph or "-"),
    ("k, neighbours", lambda row: _number(row.neighbours)),
    ("t, threshold", lambda row: _number(row.threshold)),
    ("ring bits", lambda row: _number(row.ring_bits)),
    ("exchanges", lambda row: str(row.exchanges)),
    ("client sends", lambda row: decimal(row.traffic.client_up)),
    ("  over its codes", lambda row: "-" if row.expansion is None else f"{row.expansion:.3g}x"),
    ("client is sent", lambda row: decimal(row.traffic.client_down)),
    ("client CPU", lambda row: _total(row.client_seconds)),
    ("client memory", lambda row: decimal(row.client_memory)),
    ("server is sent", lambda row: decimal(row.traffic.server_received)),
    ("server sends", lambda row: decimal(row.traffic.server_sent)),
    ("server CPU", lambda row: _total(row.server_seconds)),
    ("server memory", lambda row: decimal(row.server_memory)),
)


def show(comparison: Comparison, console: Console) -> None:
    """Print the round that was asked for, the protocols that carry it, and why others do not."""
    _workload(comparison, console)
    columns = _columns(comparison.rows)
    rows = tuple(row for row, _ in columns)
    if rows:
        _heading(console, "Protocols")
        told = [line for line in _LINES if comparison.machine is not None or not line[0].endswith("CPU")]
        _table(console, columns, [(name, [text(row) for row in rows]) for name, text in told])
        _heading(console, "A client sends, by stage")
        _table(console, columns, _stages(rows, lambda stage: stage.up))
        _heading(console, "A client is sent, by stage")
        _table(console, columns, _stages(rows, lambda stage: stage.down))
    if comparison.refusals:
        _heading(console, "Not possible")
        named = [(_name(answer), answer.reason) for answer in comparison.refusals]
        _sentences(console, named, len(comparison.answers))
    if notes := [(_name(row, model), note) for row, model in columns for note in row.notes]:
        _heading(console, "Notes")
        _sentences(console, notes, len(rows))


def _columns(rows: Sequence[Row]) -> list[tuple[Row, str]]:
    """Return the rows with the models that they are for; a protocol that is the same in all has one column."""
    threats = {row.threat for row in rows}
    shown: list[tuple[Row, str]] = []
    for row in rows:
        alike = [other for other in rows if dataclasses.replace(other, threat=row.threat) == row]
        if len(alike) == len(threats) > 1:
            if alike[0] is row:
                shown.append((row, BOTH))
        else:
            shown.append((row, THREAT_NAMES[row.threat]))
    return shown


def _name(answer: Row | Refusal, model: str | None = None) -> str:
    model = THREAT_NAMES[answer.threat] if model is None else model
    return answer.protocol if model == BOTH else f"{answer.protocol} {model}"


def _workload(comparison: Comparison, console: Console) -> None:
    asked = comparison.workload
    _heading(console, "Round")
    encoding = f"{asked.encoding.bits} bits within +-{asked.encoding.clip:g}"
    rates = f"{100 * asked.dropout:g}% may vanish, {100 * asked.corrupt:g}% may collude with the server"
    _fact(console, "clients", f"{asked.clients:,}, of which {rates}")
    _fact(console, "vector", f"{asked.dimension:,} values of {encoding}, weights up to {asked.max_weight:,}")
    gone = f"{_clients(asked.dropped)} before their upload" if asked.dropped else "nobody vanishes"
    _fact(console, "counted for", f"{gone}; others stay to the end")
    if comparison.machine is not None:
        taken = comparison.machine.seconds
        _fact(console, "CPU", f"expected on this machine, one thread, from {taken:.1f} s of timing its operations")


def _stages(rows: Sequence[Row], size: Callable[[StageTraffic], int]) -> list[tuple[str, list[str]]]:
    lines = []
    for name in every_stage():
        found = [next((stage for stage in row.traffic.stages if stage.stage == name), None) for row in rows]
        if any(found):
            lines.append((name, ["-" if stage is None else decimal(size(stage)) for stage in found]))
    return lines


def _table(console: Console, columns: Sequence[tuple[Row, str]], lines: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Print a column for each protocol; what does not fit beside each other stands below, with the names again."""
    names = max(len(name) for name, _ in lines)
    widths = [
        max(len(row.protocol), *map(len, model.split("-")), *(len(cells[at]) for _, cells in lines))
        for at, (row, model) in enumerate(columns)
    ]
    for first, last in _blocks(widths, console.width - names):
        if first:
            console.print()
        table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 0, 0, 1))
        table.add_column("", overflow="fold")
        for row, model in columns[first:last]:
            # A model's name on two lines: six columns are to fit 80 characters
            heading = "\n".join((row.protocol, model.replace("-", "-\n")))
            table.add_column(heading, justify="right", overflow="fold")
        for name, cells in lines:
            if any(cell != "-" for cell in cells[first:last]):
                table.add_row(name, *cells[first:last])
        console.print(table)


def _blocks(widths: Sequence[int], room: int) -> Iterator[tuple[int, int]]:
    """Yield which columns, each with a space before it, stand beside each other: as many as there is room for."""
    first, taken = 0, 0
    for at, width in enumerate(widths):
        if at > first and taken + 1 + width > room:
            yield first, at
            first, taken = at, 0
        taken += 1 + width
    yield first, len(widths)


def _sentences(console: Console, said: Sequence[tuple[str, str]], everybody: int) -> None:
    """Print each sentence once, behind the protocols that it is about."""
    about: dict[str, list[str]] = {}
    for name, sentence in said:
        about.setdefault(sentence, []).append(name)
    for sentence, names in about.items():
        _fact(console, "all" if len(names) == everybody else ", ".join(names), sentence)


def _heading(console: Console, text: str) -> None:
    console.print(Text(f"\n{text}", style="bold cyan"))


def _fact(console: Console, name: str, text: str) -> None:
    lead = f"  {name:<11}  "
    if len(lead) > console.width // 2:
        lead = "  "
        text = f"{name}: {text}"
    room = max(console.width - len(lead), 16)
    # Text: no markup or highlighting of digits
    console.print(Text(lead + f"\n{' ' * len(lead)}".join(textwrap.wrap(text, room))))


def _clients(count: int) -> str:
    return "1 client vanishes" if count == 1 else f"{count:,} clients vanish"


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _total(seconds: Mapping[str, float] | None) -> str:
    if seconds is None:
        return "-"
    total = sum(seconds.values())
    if total < 1:
        return f"{1000 * total:.3g} ms"
    return f"{total:.3g} s" if total < 1000 else f"{total:.0f} s"
