"""What a comparison looks like on a terminal: a column for each protocol, a line for each cost. ASCII throughout."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from secagg.planning.comparison import Comparison
from secagg.planning.rows import Refusal, Row

THREAT_NAMES: Mapping[str, str] = {"semi-honest": "semi-honest", "malicious-server": "malicious"}
"""Short names of the threat models, for columns and labels."""
STAGE_NAMES: Mapping[str, str] = {
    "advertise_keys": "advertise",
    "share_keys": "share",
    "masked_input": "input",
    "check_consistency": "check",
    "unmask": "unmask",
    "encrypted_input": "encrypt",
}
"""Short names of the stages."""

_BOTH = "both"
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
        table = _table("", columns)
        for name, text in _LINES:
            if comparison.machine is None and name.endswith("CPU"):
                continue
            table.add_row(name, *(text(row) for row in rows))
        console.print(table, soft_wrap=not console.is_terminal)
        _heading(console, "A client's bytes by stage")
        console.print(_stages(columns), soft_wrap=not console.is_terminal)
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
                shown.append((row, _BOTH))
        else:
            shown.append((row, THREAT_NAMES[row.threat]))
    return shown


def _name(answer: Row | Refusal, model: str | None = None) -> str:
    model = THREAT_NAMES[answer.threat] if model is None else model
    return answer.protocol if model == _BOTH else f"{answer.protocol} {model}"


def _workload(comparison: Comparison, console: Console) -> None:
    asked = comparison.workload
    _heading(console, "Round")
    encoding = f"{asked.encoding.bits} bits within +-{asked.encoding.clip:g}"
    rates = f"{100 * asked.dropout:g}% may vanish, {100 * asked.corrupt:g}% may collude with the server"
    _fact(console, "clients", f"{asked.clients}, of which {rates}")
    _fact(console, "vector", f"{asked.dimension} values of {encoding}, weights up to {asked.max_weight}")
    gone = f"{asked.dropped} clients vanish before their upload" if asked.dropped else "nobody vanishes"
    _fact(console, "counted for", f"{gone}; others stay to the end")
    if comparison.machine is not None:
        taken = comparison.machine.seconds
        _fact(console, "CPU", f"expected on this machine, one thread, from {taken:.1f} s of timing its operations")


def _stages(columns: Sequence[tuple[Row, str]]) -> Table:
    table, rows = _table("", columns), [row for row, _ in columns]
    for stage, name in STAGE_NAMES.items():
        found = [next((s for s in row.traffic.stages if s.stage == stage), None) for row in rows]
        if any(found):
            table.add_row(f"{name}, up", *("-" if s is None else decimal(s.up) for s in found))
            table.add_row("  down", *("-" if s is None else decimal(s.down) for s in found))
    return table


def _table(corner: str, columns: Sequence[tuple[Row, str]]) -> Table:
    # Six columns are to fit 80 characters, which is what a pipe is taken for
    table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 3 if len(columns) <= 4 else 1, 0, 0))
    table.add_column(corner)
    for row, model in columns:
        model = model if len(columns) <= 4 else model.replace("-", "-\n")
        table.add_column(f"{row.protocol}\n{model}", justify="right")
    return table


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
    lines = textwrap.wrap(text, room) if console.is_terminal else [text]
    # Text: no markup or highlighting of digits; a pipe gets whole lines whatever width is assumed
    console.print(Text(lead + f"\n{' ' * len(lead)}".join(lines)), soft_wrap=not console.is_terminal)


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _total(seconds: Mapping[str, float] | None) -> str:
    if seconds is None:
        return "-"
    total = sum(seconds.values())
    if total < 1:
        return f"{1000 * total:.3g} ms"
    return f"{total:.3g} s" if total < 1000 else f"{total:.0f} s"
