"""An environment for each peer, made on demand under a folder outside of version control."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.systems.catalogue import System

INSTALL_SECONDS = 900
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


class Missing(Exception):
    """A peer that cannot run here; the text says why."""


def python_of(system: System, cache: Path, *, install: bool) -> Path:
    """Return the interpreter that a system runs in; make its environment if it is not there and ``install`` allows.

    Raises:
        Missing: it is not installed, or cannot be.
    """
    if not system.requirements:
        return Path(sys.executable)
    folder = cache / system.environment
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / ".installed"
    wanted = " ".join((*system.requirements, f"python=={sys.version_info.major}.{sys.version_info.minor}"))
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted and python.exists():
        return python
    if not install:
        raise Missing(f"{' '.join(system.requirements)} is not installed, and this run installs nothing")
    _run([sys.executable, "-m", "venv", "--clear", str(folder)], system)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    _run([*pip, *system.requirements], system)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def environment_of(system: System) -> dict[str, str]:
    """Return the variables that a system runs with: one thread, and nothing of ours on a peer's path."""
    variables = os.environ | ONE_THREAD
    if system.requirements:
        variables.pop("PYTHONPATH", None)
    return variables


def last_line(text: str, *, containing: str = "") -> str:
    """Return the last line that says something, preferring one with a word in it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ([line for line in lines if containing in line] or lines or ["no output"])[-1]


def _run(command: list[str], system: System) -> None:
    what = f"cannot install {' '.join(system.requirements)}"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_SECONDS, env=environment_of(system), check=False
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"{what}: not done after {INSTALL_SECONDS} s") from None
    except OSError as problem:
        raise Missing(f"{what}: {problem.strerror}") from None
    if done.returncode:
        raise Missing(f"{what}: {last_line(done.stderr + done.stdout, containing='ERROR')}")
