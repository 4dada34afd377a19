"""Command line: ``secagg train``, ``secagg plan``, ``secagg selftest``, ``secagg identity``.

Only this module reads environment variables and prints. Exit codes: 0 done; 1 anything else, such as a missing package,
an unwritable file, or a plan that no protocol can carry; 2 the caller's parameters; 3 too few clients survived. Heavy
imports stay inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import enum
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from secagg._version import __version__
from secagg.cli_identity import identity
from secagg.errors import InputError, ParameterError, SecAggError, TooFewClients

if TYPE_CHECKING:
    from rich.progress import Progress

    from secagg.planning.comparison import Comparison
    from secagg.planning.workload import Workload
    from secagg.training.console import TrainingView
    from secagg.training.driver import Plan, Settings
    from secagg.training.federation import Federation
    from secagg.training.report import Outcome

EXIT_FAILURE, EXIT_PARAMETER, EXIT_TOO_FEW = 1, 2, 3

_EXTRAS = {
    "sklearn": ("scikit-learn", "demo"),
    "matplotlib": ("matplotlib", "plot"),
    "tenseal": ("TenSEAL", "he"),
    "zstandard": ("zstandard", "he"),
}

app = typer.Typer(
    name="secagg",
    help="Secure aggregation: learn the sum of many parties' vectors and nothing else about any of them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(identity)


class ProtocolName(enum.StrEnum):
    """The values of ``--protocol``."""

    SECAGG = "secagg"
    SECAGG_PLUS = "secagg+"
    BFV = "bfv"
    CKKS = "ckks"


class KeyHolderName(enum.StrEnum):
    """The values of ``--key-holder``."""

    DECRYPTOR = "decryptor"
    CLIENTS = "clients"


class ThreatName(enum.StrEnum):
    """The values of ``--threat``."""

    SEMI_HONEST = "semi-honest"
    MALICIOUS_SERVER = "malicious-server"


class PlannedThreat(enum.StrEnum):
    """The values of ``--threat`` where one round may be planned in several models."""

    SEMI_HONEST = "semi-honest"
    MALICIOUS_SERVER = "malicious-server"
    BOTH = "both"


def main() -> None:
    """Run the command line; the installed script's entry point."""
    app(prog_name="secagg")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"secagg {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def train(
    federation: Annotated[
        str, typer.Option(help="Bundled records to split: breast-cancer, wine or digits-even.")
    ] = "breast-cancer",
    clients: Annotated[int, typer.Option(help="Hospitals, or parties, that train together.")] = 10,
    rounds: Annotated[int, typer.Option(help="Rounds of federated averaging.")] = 20,
    dropout: Annotated[float, typer.Option(help="Planned share of clients that vanish in a round.")] = 0.2,
    actual_dropout: Annotated[
        float | None, typer.Option(help="Share that really vanishes, if not as planned; rounds may then fail.")
    ] = None,
    corrupt: Annotated[float, typer.Option(help="Planned share of clients that collude with the aggregator.")] = 0.1,
    protocol: Annotated[
        ProtocolName,
        typer.Option(help="Complete graph, or sparse where safe; or homomorphic sums."),
    ] = ProtocolName.SECAGG_PLUS,
    key_holder: Annotated[
        KeyHolderName,
        typer.Option(help="Who decrypts homomorphic sums; any one of 'clients' with the aggregator reads everybody."),
    ] = KeyHolderName.DECRYPTOR,
    threat: Annotated[ThreatName, typer.Option(help="Whether the aggregator may deviate from the protocol.")] = (
        ThreatName.SEMI_HONEST
    ),
    bits: Annotated[int, typer.Option(help="Bits of one coordinate.")] = 16,
    clip: Annotated[float, typer.Option(help="Largest magnitude of a coordinate of an update.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Fixes the split and the drop-outs; never keys, masks or rounding.")] = 1,
    threads: Annotated[int, typer.Option(envvar="SECAGG_THREADS", help="Threads of the masking kernels.")] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures there; - is standard output.")
    ] = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the training there (.png, .svg, .pdf).")
    ] = None,
) -> None:
    """Train a model across simulated hospitals, every sum through the protocol, and compare with the clear."""
    piped_json = json_file is not None and str(json_file) == "-"
    with plain_errors():
        _check_outputs(None if piped_json else json_file, plot_file)
        from secagg.params import FixedPoint
        from secagg.training.driver import Settings
        from secagg.training.federation import load

        settings = Settings(
            rounds=rounds,
            seed=seed,
            dropout=dropout,
            actual_dropout=actual_dropout,
            corrupt=corrupt,
            protocol=protocol.value,
            threat=threat.value,
            key_holder=key_holder.value,
            encoding=FixedPoint(clip=clip, bits=bits),
            threads=threads,
        )
        console = Console(stderr=piped_json)
        outcome = _train(console, load(federation, clients=clients, seed=seed), settings)
        _write(outcome, console, json_file, plot_file, piped_json=piped_json)
        failed = outcome.comparison.rounds_failed
        if failed == rounds:
            raise TooFewClients(0, 1, f"none of {rounds} rounds gave a sum")


@app.command()
def plan(
    clients: Annotated[int, typer.Option(help="Clients invited to a round.")],
    dimension: Annotated[int, typer.Option(help="Coordinates of a vector.")],
    bits: Annotated[int, typer.Option(help="Bits of one coordinate.")] = 16,
    clip: Annotated[float, typer.Option(help="Largest magnitude of a coordinate; costs do not depend on it.")] = 1.0,
    max_weight: Annotated[int, typer.Option(help="Largest weight that a client may give its vector.")] = 1,
    dropout: Annotated[float, typer.Option(help="Planned share of clients that vanish in a round.")] = 0.1,
    actual_dropout: Annotated[
        float | None, typer.Option(help="Share that really vanishes, if not as planned; costs are counted for it.")
    ] = None,
    corrupt: Annotated[float, typer.Option(help="Planned share of clients that collude with the server.")] = 0.05,
    threat: Annotated[PlannedThreat, typer.Option(help="What the server may do: look, or lie.")] = PlannedThreat.BOTH,
    timing: Annotated[bool, typer.Option(help="Time this machine for a second, so that CPU time can be told.")] = True,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures there; - is standard output.")
    ] = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw costs against clients there (.png, .svg, .pdf).")
    ] = None,
) -> None:
    """Compare the protocols for a round before it is built: parameters, exact bytes, expected CPU time, memory."""
    piped_json = json_file is not None and str(json_file) == "-"
    with plain_errors():
        from secagg.params import FixedPoint
        from secagg.planning.workload import Workload

        _check_outputs(None if piped_json else json_file, plot_file)
        workload = Workload(
            clients=clients,
            dimension=dimension,
            encoding=FixedPoint(clip=clip, bits=bits),
            max_weight=max_weight,
            dropout=dropout,
            corrupt=corrupt,
            actual_dropout=actual_dropout,
        )
        console = Console(stderr=piped_json)
        comparison = _compare(console, workload, threat, timing=timing)
        from secagg.planning.console import show

        show(comparison, console)
        _write_plan(comparison, console, json_file, plot_file, piped_json=piped_json)
    if not comparison.rows:
        reasons = dict.fromkeys(answer.reason for answer in comparison.refusals)
        _fail(f"no protocol can carry this round: {'; '.join(reasons)}", EXIT_FAILURE, None)


@app.command()
def selftest(
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check the AES paths of this machine against known answers and say which one runs."""
    with plain_errors():
        import secagg

        report = dict(secagg.selftest())
        if as_json:
            typer.echo(json.dumps(report, indent=2, default=str))
            return
        for name, value in report.items():
            text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            typer.echo(f"{name.replace('_', ' ')}: {text}")
        typer.echo("selftest passed")


def _compare(console: Console, workload: Workload, threat: PlannedThreat, *, timing: bool) -> Comparison:
    """Ask every protocol; time this machine if that is wanted and any protocol can carry the round."""
    from secagg.encoding.ring import compile_kernels
    from secagg.planning.calibration import calibrate
    from secagg.planning.comparison import THREATS, compare

    threats = [name for name in THREATS if threat is PlannedThreat.BOTH or name == threat.value]
    comparison = compare(workload, threats=threats)
    widths = [row.ring_bits for row in comparison.rows if row.ring_bits is not None]
    if not timing or not widths:
        return comparison
    with console.status("timing this machine (kernels are compiled once) ...", spinner="line"):
        compile_kernels(widths[0])
        machine = calibrate(ring_bits=widths[0], encoding=workload.encoding)
    return compare(workload, threats=threats, machine=machine)


def _train(console: Console, federation: Federation, settings: Settings) -> Outcome:
    """Train, print as it goes, and return everything that is known at the end."""
    from secagg.training import driver
    from secagg.training.console import TrainingView
    from secagg.training.report import Outcome

    view = TrainingView(console)
    view.federation(federation)
    plan = driver.plan(federation, settings)
    view.plan(plan)
    compiled = _prepare_kernels(console, view, plan)
    scaled = driver.agree_scaling(federation, settings, plan.statistics)
    view.statistics(scaled.traffic, scaled.attempts)
    secure = []
    with _progress(console) as progress:
        task = progress.add_task("training", total=settings.rounds)
        for record in driver.train(scaled, settings, plan.training):
            secure.append(record)
            view.round(record, settings.rounds)
            progress.advance(task)
    plain = tuple(driver.train_in_clear(scaled, settings.local, [record.traffic.survivors for record in secure]))
    outcome = Outcome(
        federation=federation,
        settings=settings,
        plan=plan,
        scaled=scaled,
        secure=tuple(secure),
        plain=plain,
        comparison=driver.compare(scaled, settings, secure, plain),
        kernels_compiled=compiled,
    )
    view.result(outcome)
    return outcome


def _prepare_kernels(console: Console, view: TrainingView, plan: Plan) -> int:
    """Compile what both kinds of round need, and say so; return the number of kernels compiled afresh."""
    import secagg

    start = time.perf_counter()
    with console.status("preparing kernels (compiled once per machine) ...", spinner="line"):
        compiled = secagg.warmup(plan.statistics) + secagg.warmup(plan.training)
    view.kernels(compiled, time.perf_counter() - start)
    return compiled


def _progress(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _check_outputs(json_file: Path | None, plot_file: Path | None) -> None:
    """Refuse, before any work is done, a file that could not be written at the end."""
    for path in (json_file, plot_file):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise InputError(f"cannot write {path}: it is a directory, or its directory does not exist")
    if plot_file is not None:
        from secagg.picture import check_suffix

        check_suffix(plot_file)


def _write(
    outcome: Outcome, console: Console, json_file: Path | None, plot_file: Path | None, *, piped_json: bool
) -> None:
    from secagg.training.report import as_json

    if plot_file is not None:
        from secagg.training.plot import save

        save(outcome, plot_file)
        _say_written(console, "plot", plot_file)
    _write_json(as_json(outcome), console, json_file, piped_json=piped_json)


def _write_plan(
    comparison: Comparison, console: Console, json_file: Path | None, plot_file: Path | None, *, piped_json: bool
) -> None:
    from secagg.planning.report import as_json

    if plot_file is not None and comparison.rows:
        from secagg.planning.plot import save

        save(comparison, plot_file)
        _say_written(console, "plot", plot_file)
    _write_json(as_json(comparison), console, json_file, piped_json=piped_json)


def _write_json(text: str, console: Console, json_file: Path | None, *, piped_json: bool) -> None:
    if json_file is None:
        return
    if piped_json:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    json_file.write_text(text, encoding="utf-8")
    _say_written(console, "figures", json_file)


def _say_written(console: Console, what: str, path: Path) -> None:
    console.print(f"  {what:<11}{path}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn errors that a user can act on into one line on standard error and an exit code."""
    try:
        yield
    except (ParameterError, InputError) as error:
        _fail(str(error), EXIT_PARAMETER, error)
    except TooFewClients as error:
        _fail(f"too few clients: {error}", EXIT_TOO_FEW, error)
    except SecAggError as error:
        _fail(f"{type(error).__name__}: {error}", EXIT_FAILURE, error)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRAS:
            raise
        package, extra = _EXTRAS[missing]
        _fail(f'this needs {package}, which is not installed: pip install "secagg[{extra}]"', EXIT_FAILURE, error)
    except OSError as error:
        _fail(str(error), EXIT_FAILURE, error)


def _fail(message: str, code: int, cause: Exception | None) -> NoReturn:
    typer.echo(f"secagg: error: {' '.join(message.split())}", err=True)
    raise typer.Exit(code) from cause
