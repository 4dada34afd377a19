"""``secagg train``: federated averaging over bundled records, every sum through the protocol."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from secagg.cli.errors import require
from secagg.cli.machine import kernels_text
from secagg.cli.options import FederationName, KeyHolderName, ThreatName, protocol_option
from secagg.cli.output import JsonFile, check_outputs, say_written, screen, write_json
from secagg.cohort import PLANNED_CORRUPT, PLANNED_DROPOUT
from secagg.errors import InputError, TooFewClients
from secagg.protocol import DEFAULT_PROTOCOL, protocol_named

if TYPE_CHECKING:
    from rich.progress import Progress

    from secagg.training.console import TrainingView
    from secagg.training.driver import Plan, Settings
    from secagg.training.federation import Federation
    from secagg.training.report import Outcome


def train(
    federation: Annotated[FederationName, typer.Option(help="Bundled records to split.")] = (
        FederationName.BREAST_CANCER
    ),
    clients: Annotated[int, typer.Option(help="Hospitals, or parties, that train together.")] = 10,
    rounds: Annotated[int, typer.Option(help="Rounds of federated averaging.")] = 20,
    dropout: Annotated[float, typer.Option(help="Planned share of clients that vanish in a round.")] = PLANNED_DROPOUT,
    actual_dropout: Annotated[
        float | None, typer.Option(help="Share that really vanishes, if not as planned; rounds may then fail.")
    ] = None,
    corrupt: Annotated[float, typer.Option(help="Planned share of clients that collude with the aggregator.")] = (
        PLANNED_CORRUPT
    ),
    protocol: Annotated[
        str, protocol_option("Complete graph, or sparse where safe; or homomorphic sums.")
    ] = DEFAULT_PROTOCOL,
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
    json_file: JsonFile = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the training there (.png, .svg, .pdf).")
    ] = None,
) -> None:
    """Train a model across simulated hospitals, every sum through the protocol, and compare with the clear."""
    require("sklearn", *protocol_named(protocol).packages)
    check_outputs(json_file, plot_file)
    from secagg.encoding.fixed_point import FixedPoint
    from secagg.training.driver import Settings
    from secagg.training.federation import load

    settings = Settings(
        rounds=rounds,
        seed=seed,
        dropout=dropout,
        actual_dropout=actual_dropout,
        corrupt=corrupt,
        protocol=protocol,
        threat=threat.value,
        key_holder=key_holder.value,
        encoding=FixedPoint(clip=clip, bits=bits),
        threads=threads,
    )
    _check_clients(federation.value, clients, settings)
    console = screen(json_file)
    outcome = _train(console, load(federation.value, clients=clients, seed=seed), settings)
    _write(outcome, console, json_file, plot_file)
    failed = outcome.comparison.rounds_failed
    if failed == rounds:
        raise TooFewClients(0, 1, f"none of {rounds} rounds gave a sum")


def _check_clients(federation: str, clients: int, settings: Settings) -> None:
    """Refuse a number of clients out of bounds, with the bounds as they are for these records and rates."""
    from secagg.training.driver import fewest_clients
    from secagg.training.federation import most_clients

    most = most_clients(federation)
    fewest = fewest_clients(settings, most)
    if fewest is not None and not fewest <= clients <= most:
        raise InputError(
            f"clients must be {fewest} to {most}, got {clients}: {federation} has {most} records to train on, and with "
            f"fewer than {fewest} clients no round is safe at these rates"
        )


def _train(console: Console, federation: Federation, settings: Settings) -> Outcome:
    """Train, print as it goes, and return everything that is known at the end."""
    from secagg.training import driver
    from secagg.training.console import TrainingView
    from secagg.training.report import Outcome

    view = TrainingView(console)
    plan = driver.plan(federation, settings)
    view.federation(federation)
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
        comparison=driver.compare_runs(scaled, settings, secure, plain),
        kernels_compiled=compiled,
    )
    view.result(outcome)
    return outcome


def _prepare_kernels(console: Console, view: TrainingView, plan: Plan) -> int:
    """Compile what both kinds of round need, and say so; return the number of kernels compiled afresh."""
    import secagg
    from secagg.readiness import kernel_cache

    start = time.perf_counter()
    with console.status("preparing kernels ...", spinner="line"):
        compiled = secagg.warmup(plan.statistics) + secagg.warmup(plan.training)
    view.kernels(kernels_text(compiled, time.perf_counter() - start, kernel_cache()))
    return compiled


def _progress(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _write(outcome: Outcome, console: Console, json_file: Path | None, plot_file: Path | None) -> None:
    from secagg.training.report import as_json

    if plot_file is not None:
        from secagg.training.plot import save

        save(outcome, plot_file)
        say_written(console, "plot", plot_file)
    write_json(console, json_file, as_json(outcome))
