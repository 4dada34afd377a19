"""``secagg plan``: what a round would take, before it is built."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from secagg.cli.errors import Failure
from secagg.cli.machine import kernels_text
from secagg.cli.options import PlannedThreat
from secagg.cli.output import JsonFile, check_outputs, say, say_written, screen, write_json
from secagg.cohort import PLANNED_CORRUPT, PLANNED_DROPOUT

if TYPE_CHECKING:
    from secagg.planning.comparison import Comparison
    from secagg.planning.workload import Workload


def plan(
    clients: Annotated[int, typer.Option(help="Clients invited to a round.")],
    dimension: Annotated[int, typer.Option(help="Coordinates of a vector.")],
    bits: Annotated[int, typer.Option(help="Bits of one coordinate.")] = 16,
    clip: Annotated[float, typer.Option(help="Largest magnitude of a coordinate; costs do not depend on it.")] = 1.0,
    max_weight: Annotated[int, typer.Option(help="Largest weight that a client may give its vector.")] = 1,
    dropout: Annotated[float, typer.Option(help="Planned share of clients that vanish in a round.")] = PLANNED_DROPOUT,
    actual_dropout: Annotated[
        float | None, typer.Option(help="Share that really vanishes, if not as planned; costs are counted for it.")
    ] = None,
    corrupt: Annotated[float, typer.Option(help="Planned share of clients that collude with the server.")] = (
        PLANNED_CORRUPT
    ),
    threat: Annotated[PlannedThreat, typer.Option(help="What the server may do: look, or lie.")] = PlannedThreat.BOTH,
    timing: Annotated[bool, typer.Option(help="Time this machine for a second, so that CPU time can be told.")] = True,
    json_file: JsonFile = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw costs against clients there (.png, .svg, .pdf).")
    ] = None,
) -> None:
    """Compare the protocols for a round before it is built: parameters, exact bytes, expected CPU time, memory."""
    check_outputs(json_file, plot_file)
    from secagg.encoding.fixed_point import FixedPoint
    from secagg.planning.workload import Workload

    workload = Workload(
        clients=clients,
        dimension=dimension,
        encoding=FixedPoint(clip=clip, bits=bits),
        max_weight=max_weight,
        dropout=dropout,
        corrupt=corrupt,
        actual_dropout=actual_dropout,
    )
    console = screen(json_file)
    comparison = _compare(console, workload, threat, timing=timing)
    from secagg.planning.console import show

    show(comparison, console)
    _write(comparison, console, json_file, plot_file)
    if not comparison.rows:
        reasons = dict.fromkeys(answer.reason for answer in comparison.refusals)
        raise Failure(f"no protocol can carry this round: {'; '.join(reasons)}")


def _compare(console: Console, workload: Workload, threat: PlannedThreat, *, timing: bool) -> Comparison:
    """Ask every protocol; time this machine if that is wanted and any protocol can carry the round."""
    from secagg.encoding.ring import compile_kernels
    from secagg.planning.calibration import calibrate
    from secagg.planning.comparison import THREATS, compare
    from secagg.readiness import kernel_cache

    threats = [name for name in THREATS if threat is PlannedThreat.BOTH or name == threat.value]
    comparison = compare(workload, threats=threats)
    widths = [row.ring_bits for row in comparison.rows if row.ring_bits is not None]
    if not timing or not widths:
        return comparison
    start = time.perf_counter()
    with console.status("preparing kernels ...", spinner="line"):
        compiled = compile_kernels(widths[0])
    if compiled or not kernel_cache().writable:
        say(console, "kernels", kernels_text(compiled, time.perf_counter() - start, kernel_cache()))
    with console.status("timing this machine ...", spinner="line"):
        machine = calibrate(ring_bits=widths[0], encoding=workload.encoding)
    return compare(workload, threats=threats, machine=machine)


def _write(comparison: Comparison, console: Console, json_file: Path | None, plot_file: Path | None) -> None:
    from secagg.planning.report import as_json

    if plot_file is not None and comparison.rows:
        from secagg.planning.plot import save

        save(comparison, plot_file)
        say_written(console, "plot", plot_file)
    write_json(console, json_file, as_json(comparison))
