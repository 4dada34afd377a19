"""What a training looks like on a terminal: the plan, a line a round, the result. ASCII, so any code page does.

Nothing is wider than the console, and nothing is cut: what does not fit on a line goes on below it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from secagg.protocol import protocol_of
from secagg.quantities import duration_text, size_text
from secagg.training.driver import Plan, SecureRecord, SumTraffic
from secagg.training.federation import Federation
from secagg.training.report import Outcome, total_seconds

_FIGURES = f"{'round':>7}{'loss':>9}{'accuracy':>10}{'in sum':>8}{'up/client':>12}"
_GONE = "  dropped out before"
_DURATION = 8  # characters of "123.4 ms"
_TIE = "\xa0"  # a space at which no line is broken; printed as any other


class TrainingView:
    """Prints a training as it goes on; a narrow terminal gets the same facts on two lines a round.

    Args:
        console: where to; its width decides the form.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stages: tuple[str, ...] = ()

    def federation(self, federation: Federation) -> None:
        """Print what is trained on, and how the records lie."""
        sizes = federation.sizes
        self._heading("Federation")
        self._fact("data", f"{federation.schema.name}, {len(federation.schema.features)} features")
        self._fact("task", federation.schema.task)
        self._fact("clients", f"{len(sizes)}, with {min(sizes)} to {max(sizes)} records each, {sum(sizes)} in all")
        self._fact("held out", f"{len(federation.held_out)} records that no client has")

    def plan(self, plan: Plan) -> None:
        """Print the parameters of a round."""
        params = plan.training
        self._stages = plan.stages
        self._heading("Parameters")
        for name, text in protocol_of(params).describe(params).items():
            self._fact(name, text)
        for note in params.notes:
            self._fact("note", note)

    def kernels(self, text: str) -> None:
        """Say whether kernels had to be compiled, and where they are kept."""
        self._fact("kernels", text)

    def statistics(self, traffic: SumTraffic, attempts: int) -> None:
        """Print round 0 and the header of the rounds' lines."""
        self._heading("Rounds")
        self._fact("round 0", f"pooled means and variances of the features, from {len(traffic.survivors)} clients")
        if attempts > 1:
            self._fact("", f"had too few survivors at first: attempt {attempts} gave the sum")
        self._fact("", f"dropped out before {self._dropped(traffic)}" if traffic.dropped else "nobody dropped out")
        self._print(_FIGURES if self._narrow else f"{_FIGURES}{self._columns(self._stages)}{_GONE}", style="bold")

    def round(self, record: SecureRecord, rounds: int) -> None:
        """Print one round."""
        traffic = record.traffic
        line = f"{record.round:>3}/{rounds:<3}{record.loss:>9.4f}{record.accuracy:>10.1%}"
        if traffic.failure is not None:
            self._wrapped(f"{line}  ", f"no sum, model unchanged: {traffic.failure}", style="yellow")
            return
        line += f"{len(traffic.survivors):>8}{size_text(traffic.bytes_up_total):>12}"
        gone = self._dropped(traffic)
        seconds = [duration_text(traffic.seconds.get(stage, 0.0)) for stage in self._stages]
        if not self._narrow:
            self._wrapped(f"{line}{self._columns(seconds)}  ", gone or "-")
            return
        self._print(line)
        named = zip(self._stages, seconds, strict=True)
        text = ", ".join(f"{stage} {taken.replace(' ', _TIE)}" for stage, taken in named)
        self._wrapped(" " * 9, text, style="dim")
        if gone:
            self._wrapped(" " * 9, f"dropped out before {gone}", style="dim")

    def result(self, outcome: Outcome) -> None:
        """Print both runs side by side and what quantisation changed."""
        end = outcome.comparison
        self._heading("Result")
        table = Table(box=None, pad_edge=False, show_edge=False, padding=(0, 3, 0, 0))
        for column, justify in (("", "left"), ("accuracy", "right"), ("loss", "right")):
            table.add_column(column, justify=justify)  # type: ignore[arg-type]
        table.add_row("secure", f"{end.accuracy_secure:.2%}", f"{end.loss_secure:.5f}")
        table.add_row("in the clear", f"{end.accuracy_plain:.2%}", f"{end.loss_plain:.5f}")
        self._console.print(table)
        bound = "not stated" if end.bound is None else f"{end.bound:.3g}"
        self._fact("difference", f"{end.max_abs_difference:.3g} at most, of any coefficient (bound: {bound})")
        self._fact("", end.bound_note)
        if end.rounds_failed:
            self._fact("failed", f"{end.rounds_failed} of {len(outcome.secure)} rounds; they changed no model")
        self._fact("time", f"{duration_text(total_seconds(outcome.secure))} in all stages of all rounds, one process")

    def _dropped(self, traffic: SumTraffic) -> str:
        """Name the clients under the stage whose message they never sent: ``share_keys: 1 6; unmask: 5``."""
        by_stage = [
            (stage, [str(party) for party, gone in traffic.dropped.items() if gone == stage]) for stage in self._stages
        ]
        return "; ".join(f"{stage}: {' '.join(parties)}" for stage, parties in by_stage if parties)

    def _columns(self, texts: Sequence[str]) -> str:
        """Return a text for each stage, under the stage's name or as that name."""
        pairs = zip(self._stages, texts, strict=True)
        return "".join(f"{text:>{max(len(stage), _DURATION) + 2}}" for stage, text in pairs)

    @property
    def _narrow(self) -> bool:
        return self._console.width < len(_FIGURES + self._columns(self._stages) + _GONE)

    def _heading(self, text: str) -> None:
        self._print(f"\n{text}", style="bold cyan")

    def _fact(self, name: str, text: str) -> None:
        self._wrapped(f"  {name:<11}", text)

    def _wrapped(self, lead: str, text: str, style: str = "") -> None:
        """Print ``text`` after ``lead``; further lines are indented by as much."""
        room = max(self._console.width - len(lead), 16)
        lines = textwrap.wrap(text, room) or [""]
        self._print(lead + f"\n{' ' * len(lead)}".join(lines).replace(_TIE, " "), style=style)

    def _print(self, text: str, style: str = "") -> None:
        # Text: no markup or highlighting of digits
        self._console.print(Text(text, style=style))
