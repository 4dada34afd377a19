"""What a training looks like on a terminal: the plan, a line a round, the result. ASCII, so any code page does.

Nothing is wider than the console, and nothing is cut: what does not fit on a line goes on below it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from secagg.he.messages import STAGES as HE_STAGES
from secagg.he.params import HEParams
from secagg.pairwise.params import RoundParams
from secagg.pairwise.transitions import MALICIOUS_STAGES, STAGES
from secagg.training.driver import Plan, RoundRecord, Traffic
from secagg.training.federation import Federation
from secagg.training.report import Outcome, total_seconds

STAGE_NAMES: Mapping[str, str] = {stage: stage for stage in (*MALICIOUS_STAGES, *HE_STAGES)}
"""What the stages are called everywhere: as in ``secagg.STAGES``."""

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
        self._stages: tuple[str, ...] = STAGES

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
        self._fact("threat", f"{params.threat}: {_promise(params)}")
        if isinstance(params, HEParams):
            self._homomorphic(params)
        else:
            self._fact("protocol", f"{params.protocol}, {_graph(params)}")
            self._fact("threshold", f"{params.threshold} of {params.neighbours} neighbours rebuild a secret (t of k)")
        self._fact(
            "drop-outs", f"up to {params.dropout_count} a round; at least {params.minimum_survivors} must survive"
        )
        self._fact("corrupt", f"up to {params.corrupt_count} may collude with the aggregator")
        self._fact("encoding", f"{params.encoding.bits} bits within +-{params.encoding.clip:g}")
        weights = f"weights up to {params.max_weight}"
        if params.protocol != "ckks":
            self._fact("ring", f"{params.ring_bits} bits ({weights}), {params.dimension} values")
        for note in params.notes:
            self._fact("note", note)

    def kernels(self, text: str) -> None:
        """Say whether kernels had to be compiled, and where they are kept."""
        self._fact("kernels", text)

    def statistics(self, traffic: Traffic, attempts: int) -> None:
        """Print round 0 and the header of the rounds' lines."""
        self._heading("Rounds")
        self._fact("round 0", f"pooled means and variances of the features, from {len(traffic.survivors)} clients")
        if attempts > 1:
            self._fact("", f"had too few survivors at first: attempt {attempts} gave the sum")
        self._fact("", f"dropped out before {_dropped(traffic)}" if traffic.dropped else "nobody dropped out")
        self._print(_FIGURES if self._narrow else f"{_FIGURES}{self._columns(self._stages)}{_GONE}", style="bold")

    def round(self, record: RoundRecord, rounds: int) -> None:
        """Print one round."""
        traffic = record.traffic
        line = f"{record.round:>3}/{rounds:<3}{record.loss:>9.4f}{record.accuracy:>10.1%}"
        if traffic.failure is not None:
            self._wrapped(f"{line}  ", f"no sum, model unchanged: {traffic.failure}", style="yellow")
            return
        line += f"{len(traffic.survivors):>8}{_size(traffic.bytes_up_total):>12}"
        gone = _dropped(traffic)
        seconds = [_duration(traffic.seconds.get(stage, 0.0)) for stage in self._stages]
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
        self._fact("time", f"{_duration(total_seconds(outcome.secure))} in all stages of all rounds, one process")

    def _homomorphic(self, params: HEParams) -> None:
        what = "exact" if params.protocol == "bfv" else f"approximate, {params.bits_left} bits left after flooding"
        self._fact("protocol", f"{params.protocol}, homomorphic, {what}")
        self._fact("key", f"held by the {params.key_holder}; releases {_count(params.releases, 'sum')} at most")
        self._fact("upload", f"{_count(params.ciphertexts, 'ciphertext')}, {_size(params.ciphertext_bytes)}")

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


def _promise(params: RoundParams | HEParams) -> str:
    if isinstance(params, HEParams) and params.key_holder == "decryptor":
        return "the aggregator may lie; the decryptor adds the signed uploads itself and works with no other party"
    if isinstance(params, HEParams) or params.threat == "semi-honest":
        return "the aggregator may be curious, and follows the protocol"
    return f"the aggregator may lie; {params.quorum} of {params.clients} clients vouch for who is in a sum"


def _graph(params: RoundParams) -> str:
    name = "complete graph" if params.graph == "complete" else "sparse (Harary) graph"
    return f"{name}, {params.neighbours} neighbours each"


def _dropped(traffic: Traffic) -> str:
    """Name the clients under the stage whose message they never sent: ``share_keys: 1 6; unmask: 5``."""
    by_stage = [
        (stage, [str(party) for party, gone in traffic.dropped.items() if gone == stage]) for stage in STAGE_NAMES
    ]
    return "; ".join(f"{stage}: {' '.join(parties)}" for stage, parties in by_stage if parties)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _size(count: int) -> str:
    return f"{count} B" if count < 1000 else f"{count / 1000:.1f} kB" if count < 10**6 else f"{count / 10**6:.2f} MB"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
