"""Command line: ``secagg train``, ``plan``, ``warmup``, ``selftest``, ``identity``.

Only this package reads environment variables and prints. Exit codes: 0 done; 1 anything else, such as a missing
package, an unwritable file, or a plan that no protocol can carry; 2 the caller's parameters; 3 too few clients
survived; 130 interrupted. Heavy imports stay inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from secagg._version import __version__
from secagg.cli import identity, machine, plan, train
from secagg.cli.errors import EXIT_PARAMETER, PlainErrors

# Plain help: in boxes, names of options are cut on a narrow terminal
app = typer.Typer(
    name="secagg",
    cls=PlainErrors,
    help="Secure aggregation: learn the sum of many parties' vectors and nothing else about any of them.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command(short_help="Train across simulated hospitals.")(train.train)
app.command(short_help="Compare the protocols for a round.")(plan.plan)
app.command(short_help="Compile what a round runs.")(machine.warmup)
app.command(short_help="Check this machine.")(machine.selftest)
app.add_typer(identity.commands)


def main() -> None:
    """Run the command line; the installed script's entry point."""
    for stream in (sys.stdout, sys.stderr):
        # A file's name that the terminal's code page lacks must not end a command
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="secagg")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"secagg {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(EXIT_PARAMETER)
