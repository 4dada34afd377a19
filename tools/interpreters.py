"""Find the Pythons that this machine has, of those that the library is tested on.

Run: ``python tools/interpreters.py`` lists them; ``--newest`` and ``--oldest`` print one path. Exit code 1, and what to
install, where fewer than ``--least`` are here.

A ``python3.12`` on PATH may be a shim that leads nowhere, or lack ``venv``, as Debian's does without its own package:
each candidate is run before it counts. PATH comes first, then pyenv's versions, newest first, then the rest of PATH.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13", "3.14")
_PROBE = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2]); print(sys.executable)"


def on_path(version: str) -> list[Path]:
    """Every ``python3.X`` in PATH's folders, in PATH's order."""
    folders = (Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder)
    return [folder / f"python{version}" for folder in folders if os.access(folder / f"python{version}", os.X_OK)]


def of_pyenv(version: str) -> list[Path]:
    """pyenv's interpreters of one version, the newest release first."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    releases = [folder for folder in root.glob(f"versions/{version}.*") if folder.name.replace(".", "").isdigit()]
    releases.sort(key=lambda folder: [int(part) for part in folder.name.split(".")], reverse=True)
    return [folder / "bin" / "python" for folder in releases if (folder / "bin" / "python").exists()]


def candidates(version: str) -> Iterator[Path]:
    """Where a version may be, the likeliest first."""
    first, *others = [*on_path(version), None]
    yield from [first] if first else []
    yield from of_pyenv(version)
    yield from (path for path in others if path)


def probe(path: Path, version: str) -> tuple[Path | None, str]:
    """Run a candidate: the interpreter that it starts, or None and what is wrong with it."""
    try:
        done = subprocess.run([path, "-c", _PROBE], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"{path}: does not run ({type(error).__name__})"
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["no reason given"]
        return None, f"{path}: does not do ({said[-1 if said[0].startswith('Traceback') else 0]})"
    found, executable = done.stdout.splitlines()[:2]
    return (Path(executable), "") if found == version else (None, f"{path}: is Python {found}")


def find(versions: Sequence[str] = VERSIONS) -> tuple[dict[str, Path], list[str]]:
    """The interpreter of each version that is here, oldest first, and why others that were met do not do."""
    found: dict[str, Path] = {}
    refused = []
    for version in versions:
        for path in candidates(version):
            executable, reason = probe(path, version)
            if executable is not None:
                found[version] = executable
                break
            refused.append(reason)
    return found, refused


def require(found: Mapping[str, Path], refused: Sequence[str], least: int) -> None:
    """Exit with what to install where fewer than ``least`` are here."""
    if len(found) >= least:
        return
    missing = [version for version in VERSIONS if version not in found]
    lines = [
        f"{least} of Python {', '.join(VERSIONS)} are needed, and here is {', '.join(found) or 'none'}.",
        *refused,
        f"Install another: `pyenv install {missing[-1]}`, or the packages python{missing[0]} and "
        f"python{missing[0]}-venv of Debian or Ubuntu.",
    ]
    sys.exit("\n".join(lines))


def main() -> None:
    """List what is here, or print one path."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--newest", action="store_true", help="print the newest one's path alone")
    which.add_argument("--oldest", action="store_true", help="print the oldest one's path alone")
    parser.add_argument("--least", type=int, default=1, help="how many must be here (default: 1)")
    chosen = parser.parse_args()
    found, refused = find()
    require(found, refused, least=chosen.least)
    paths = list(found.values())
    if chosen.newest or chosen.oldest:
        print(paths[-1 if chosen.newest else 0])
    else:
        print("\n".join([*(f"{version}  {path}" for version, path in found.items()), *refused]))


if __name__ == "__main__":
    main()
