"""Make a virtual environment for the interpreter that runs this, or see that the one there is of it.

Run: ``python tools/environment.py VENV``. The Makefile does so before it installs anything.

The environment keeps a record of the interpreter that made it. One with another record is made anew. One without a
record is somebody's own: it is used if it is of this interpreter, and never emptied.

This file runs on Pythons older than the library needs, to say so.
"""

import subprocess
import sys
import venv
from pathlib import Path

RECORD = ".interpreter"
OLDEST = (3, 11)


def interpreter():
    """Name the interpreter behind this process, with no environment between: version and path."""
    major, minor = sys.version_info[:2]
    return f"Python {major}.{minor} at {Path(sys.executable).resolve()}"


def interpreter_of(folder):
    """Name the interpreter of an environment that is there, or say None if it holds no working one with pip."""
    script = "import os, pip, sys; print('Python %d.%d at' % sys.version_info[:2], os.path.realpath(sys.executable))"
    command = [str(folder / "bin" / "python"), "-c", script]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode().strip()


def make(folder):
    """Make the environment, or make it anew, and write the record last: without one it is not taken for whole."""
    try:
        venv.EnvBuilder(clear=True, symlinks=True, with_pip=True).create(str(folder))
    except subprocess.CalledProcessError:
        major, minor = sys.version_info[:2]
        raise SystemExit(
            f"{sys.executable} cannot make environments: on Debian and Ubuntu, install python{major}.{minor}-venv"
        ) from None
    (folder / RECORD).write_text(interpreter() + "\n", encoding="utf-8")


def ensure(folder):
    """Leave ``folder`` an environment of this interpreter; exit with a reason where that would take somebody's own."""
    if sys.version_info[:2] < OLDEST:
        raise SystemExit(
            f"secagg needs Python {OLDEST[0]}.{OLDEST[1]} or newer, and this is {interpreter()}: "
            "name another, as in `make test PYTHON=python3.12`"
        )
    record = folder / RECORD
    made_by = record.read_text(encoding="utf-8").strip() if record.is_file() else None
    there = interpreter_of(folder) if folder.exists() else None
    if made_by:
        if made_by == interpreter() == there:
            return
        print(f"{folder} is of {made_by}: made anew by {interpreter()}", flush=True)
        make(folder)
    elif not folder.exists() or not any(folder.iterdir()):
        make(folder)
    elif there == interpreter():
        record.write_text(interpreter() + "\n", encoding="utf-8")
    else:
        raise SystemExit(
            f"{folder} is {f'an environment of {there}' if there else 'no working environment'} and was not made by "
            f"`make`, which wants {interpreter()}: remove that folder, or name another with VENV=..."
        )


if __name__ == "__main__":
    ensure(Path(sys.argv[1]))
