"""How a command ends: an exit code, and one line on standard error that says what to do.

The exit codes are those that ``secagg.cli`` lists.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from secagg.errors import DecodeError, InputError, ParameterError, SecAggError, TooFewClients
from secagg.extras import EXTRAS, how_to_install

EXIT_FAILURE, EXIT_PARAMETER, EXIT_TOO_FEW, EXIT_INTERRUPTED = 1, 2, 3, 130

_ADVICE = {
    errno.EACCES: "permission denied: change its permissions, or name another file",
    errno.EPERM: "not permitted: change its permissions, or name another file",
    errno.EROFS: "it is on a read-only file system: name another file",
    errno.ENOSPC: "no space is left there: free some, or name another file",
    errno.EISDIR: "it is a directory: name a file in it",
    errno.ENOTDIR: "a part of its path is a file and no directory: check the path",
    errno.EEXIST: "it is there already: name another file",
    errno.ENAMETOOLONG: "its name is too long: name another file",
}


class Failure(Exception):
    """A command cannot go on, for a reason that no error of the library's names; the text says what to do."""


class PlainErrors(TyperGroup):
    """The commands, every error of which ends as one line; a fault of our own keeps its traceback."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; called as a program, end the process with its exit code."""
        run = functools.partial(super().main, args, prog_name, complete_var, False, windows_expand_args, **extra)
        if not standalone_mode:
            return run()
        try:
            # What was asked to end early returns its exit code here, all others None
            code = run() or 0
            if code == EXIT_INTERRUPTED:
                raise KeyboardInterrupt
            sys.stdout.flush()
        except BaseException as error:
            told = _told(error)
            if told is None:
                raise
            text, code = told
            if isinstance(error, BrokenPipeError):
                # Whoever read our output has left, as `head` does: nothing is said, also not when Python flushes
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            elif text:
                typer.echo(f"secagg: error: {' '.join(text.split())}", err=True)
        sys.exit(code)


def require(*modules: str) -> None:
    """Raise Failure unless all these packages are installed; called before any work is done.

    Args:
        modules: names as imported, of the optional packages.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise Failure(how_to_install(missing))


def _told(error: BaseException) -> tuple[str, int] | None:
    """Return what to say and the exit code; None for a fault of our own."""
    match error:
        case TooFewClients():
            return f"too few clients: {error}", EXIT_TOO_FEW
        case ParameterError() | InputError():
            return str(error), EXIT_PARAMETER
        case Failure() | DecodeError():
            return str(error), EXIT_FAILURE
        case SecAggError():
            return f"{type(error).__name__}: {error}", EXIT_FAILURE
        case ModuleNotFoundError():
            missing = (error.name or "").partition(".")[0]
            return (how_to_install([missing]), EXIT_FAILURE) if missing in EXTRAS else None
        case OSError():
            return os_error_text(error), EXIT_FAILURE
        case MemoryError():
            return "the memory does not suffice: fewer clients or coordinates, or more memory", EXIT_FAILURE
        case KeyboardInterrupt() | typer.Abort():
            return "interrupted", EXIT_INTERRUPTED
    return _usage(error)


def os_error_text(error: OSError) -> str:
    """Return what to do about what the operating system refused."""
    path = error.filename if isinstance(error.filename, str | os.PathLike) else None
    if error.errno == errno.ENOENT and path is not None:
        folder = Path(path).absolute().parent
        if not folder.is_dir():
            return f"{os.fspath(path)}: the directory {folder} does not exist: make it first, or check the path"
        return f"{os.fspath(path)}: there is no such file: check the path"
    reason = _ADVICE.get(error.errno or 0, (error.strerror or str(error)).lower())
    return reason if path is None else f"{os.fspath(path)}: {reason}"


def _usage(error: BaseException) -> tuple[str, int] | None:
    # By its form: typer has had click's classes for long, and now has copies of its own
    if not hasattr(error, "format_message"):
        return None
    text = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    if context is not None:
        text = f"{text} (see {context.command_path} --help)"
    return text, getattr(error, "exit_code", EXIT_PARAMETER)
