"""Where a command's output goes: a terminal at its width, a file or standard output for JSON, a file for a picture."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from secagg.cli.errors import require
from secagg.errors import InputError

JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write all figures there; - is standard output.")
]
"""The one meaning of ``--json``."""

_PIPE_WIDTH = 10_000


def is_standard_output(path: Path | None) -> bool:
    """Tell whether JSON goes to standard output, and all else must not."""
    return path is not None and str(path) == "-"


def screen(json_file: Path | None = None) -> Console:
    """Return the console for people: standard output, or standard error where JSON takes that.

    A pipe gets whole lines, whatever their length, unless COLUMNS says how wide it is.
    """
    console = Console(stderr=is_standard_output(json_file), highlight=False)
    if not console.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
        console.width = _PIPE_WIDTH
    return console


def check_outputs(json_file: Path | None, plot_file: Path | None = None) -> None:
    """Refuse, before any work is done, what could not be written at the end."""
    if plot_file is not None:
        require("matplotlib")
        from secagg.picture import check_suffix

        check_suffix(plot_file)
    files = [one for one in (json_file, plot_file) if one is not None and not is_standard_output(one)]
    for path in files:
        folder = path.absolute().parent
        if path.is_dir():
            raise InputError(f"cannot write {path}: it is a directory: name a file in it")
        if not folder.is_dir():
            raise InputError(f"cannot write {path}: the directory {folder} does not exist: make it first")
        if not os.access(path if path.exists() else folder, os.W_OK):
            raise InputError(f"cannot write {path}: permission denied: name a file that you may write")
    if len({path.absolute() for path in files}) < len(files):
        raise InputError("--json and --plot name one file: name two")


def write_json(console: Console, json_file: Path | None, text: str) -> None:
    """Write a report to its file, or to standard output; nothing where no file was named."""
    if json_file is None:
        return
    if is_standard_output(json_file):
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    try:
        json_file.write_text(text, encoding="utf-8")
    except OSError as error:
        error.filename = error.filename or str(json_file)  # a full disk names no file
        raise
    say_written(console, "figures", json_file)


def as_json(report: Mapping[str, Any]) -> str:
    """Return a report as indented JSON that ends in a line feed."""
    return json.dumps(report, indent=2, allow_nan=False) + "\n"


def say_written(console: Console, what: str, path: Path) -> None:
    """Tell where a file went."""
    say(console, what, str(path))


def say(console: Console, name: str, text: str) -> None:
    """Print a fact behind its name."""
    console.print(f"  {name:<11}{text}", markup=False, highlight=False, soft_wrap=True)
