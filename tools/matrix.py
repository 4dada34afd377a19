"""Test each Python that is here with the lowest and with the newest dependencies, and what is built for a publisher.

Run: ``make matrix``, or ``python tools/matrix.py``; ``--help`` says what can be left out. Takes half an hour or more.

An sdist and a wheel are built and checked. Each goes into a fresh environment without extras and does the main job
there (``tools/main_job.py``); the wheel's then gets the extra ``demo`` and trains. Then come the tests: all of the fast
ones on the newest Python with the newest dependencies, from the unpacked sdist's folder, and on the oldest Python with
the lowest (``tools/lowest.py`` says which); of those on the other pairs, the part that meets other packages' types and
versions. A table of all pairs ends it. The exit code is 1 if anything failed, and the rest runs nonetheless.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import artefacts
import interpreters

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "matrix"
# What the table shows of an environment, besides its Python
SHOWN = ("numpy", "numba", "cryptography", "typer", "scikit-learn", "tenseal")
# Saved states, sessions, homomorphic sums, the code of README and docs, the command line, kernels, vectors: what broke
# before when a dependency moved, or could. The rest of the protocol is the same Python and NumPy over again, or slow
PART = (
    "tests/test_readme.py",
    "tests/test_integrating.py",
    "tests/test_deploying.py",
    "tests/test_homomorphic_guide.py",
    "tests/test_malicious_guide.py",
    "tests/test_toy_protocol.py",
    "tests/test_field_types.py",
    "tests/test_layering.py",
    "tests/session/test_file_store.py",
    "tests/session/test_forked.py",
    "tests/session/test_kept.py",
    "tests/session/test_restore.py",
    "tests/session/test_single.py",
    "tests/session/test_malicious_server.py",
    "tests/session/test_receive_all.py",
    "tests/he/test_he_params.py",
    "tests/he/test_he_keys.py",
    "tests/he/test_he_sums.py",
    "tests/he/test_he_hostile.py",
    "tests/he/test_he_spec.py",
    "tests/cli",
    "tests/kernels/test_aes_streams.py",
    "tests/kernels/test_field.py",
    "tests/kernels/test_packing_kernels.py",
    "tests/kernels/test_quantise_kernel.py",
    "tests/primitives",
    "tests/encoding",
    "tests/planning/test_planning_report.py",
    "tests/training",
    "tests/vectors",
    "tests/packaging",
)


class Failed(Exception):
    """A step that must succeed did not; the message says which."""


@dataclass
class Cell:
    """One environment of the table, and what its tests came to."""

    python: str
    interpreter: Path
    dependencies: str
    whole: bool
    versions: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    outcome: str = "not run"

    @property
    def name(self) -> str:
        """As in ``3.11-lowest``."""
        return f"{self.python}-{self.dependencies}"


def say(text: str) -> None:
    """Head what follows in the output."""
    print(f"\n=== {text}", flush=True)


def run(*command: str | Path, cwd: Path = ROOT, quiet: bool = False, **environment: str) -> str:
    """Run a command; what it prints is shown, or, if quiet, returned and shown only when it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        shown = f"\n{done.stdout}" if quiet else ""
        raise Failed(f"exit code {done.returncode} of {' '.join(str(word) for word in command)}{shown}")
    return done.stdout or ""


def environment(name: str, interpreter: Path, *packages: str | Path, constraints: Path | None = None) -> Path:
    """Make a fresh environment, install packages into it, give its Python."""
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    run(interpreter, "-m", "venv", folder, quiet=True)
    python = folder / "bin" / "python"
    if packages:
        install(python, *packages, constraints=constraints)
    return python


def install(python: Path, *packages: str | Path, constraints: Path | None = None, options: Sequence[str] = ()) -> None:
    """Install into an environment; the lowest versions as wheels alone, since old sources need old compilers."""
    bounds = ["--constraint", constraints, "--prefer-binary"] if constraints else []
    run(python, "-m", "pip", "--disable-pip-version-check", "install", *bounds, *options, *packages, quiet=True)


def build(python: Path, versions: Sequence[str]) -> tuple[Path, Path, dict[str, Path]]:
    """Build both artefacts and check how an index would show them; write each Python's lowest versions."""
    run(python, "tools/artefacts.py", OUT / "dist")
    (sdist,), (wheel,) = (list((OUT / "dist").glob(pattern)) for pattern in ("*.tar.gz", "*.whl"))
    run(python, "-m", "twine", "check", "--strict", sdist, wheel)
    constraints = {}
    for version in versions:
        constraints[version] = OUT / f"lowest-{version}.txt"
        constraints[version].write_text(run(python, "tools/lowest.py", "--python", version, quiet=True))
    return sdist, wheel, constraints


def main_job_of_wheel(interpreter: Path, wheel: Path) -> None:
    """Do the main job from the wheel alone, then train from it with the extra that this needs."""
    python = environment("wheel", interpreter, wheel)
    run(python, "-P", ROOT / "tools" / "main_job.py", ROOT / "README.md", cwd=OUT)
    secagg = python.parent / "secagg"
    bare = subprocess.run([secagg, "train"], cwd=OUT, capture_output=True, text=True, check=False)
    if bare.returncode != 1 or "demo" not in bare.stderr or "Traceback" in bare.stderr:
        raise Failed(f"`secagg train` without its extra should name it, but said:\n{bare.stdout}{bare.stderr}")
    install(python, f"{wheel}[demo]")
    run(secagg, "train", "--rounds", "2", cwd=OUT)


def main_job_of_sdist(interpreter: Path, sdist: Path, constraints: Path) -> None:
    """Do the main job from the sdist alone, built and run with the lowest versions."""
    python = environment("sdist", interpreter, "setuptools", constraints=constraints)
    install(python, sdist, constraints=constraints, options=["--no-build-isolation"])
    run(python, "-P", ROOT / "tools" / "main_job.py", ROOT / "README.md", cwd=OUT)


def fill(cell: Cell, wheel: Path, constraints: Mapping[str, Path]) -> Path:
    """Install what a cell's tests need, and note the versions that came."""
    lowest = constraints[cell.python] if cell.dependencies == "lowest" else None
    python = environment(cell.name, cell.interpreter, f"{wheel}[test]", constraints=lowest)
    asked = f"from importlib.metadata import version; print(*map(version, {SHOWN!r}))"
    cell.versions = dict(zip(SHOWN, run(python, "-c", asked, quiet=True).split(), strict=True))
    return python


def test(cell: Cell, python: Path, folder: Path) -> None:
    """Run a cell's tests and note what they came to."""
    report = OUT / f"{cell.name}.xml"
    cell.outcome = "FAILED"
    started = time.monotonic()
    try:
        run(
            python, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}", *(() if cell.whole else PART),
            cwd=folder, NUMBA_CACHE_DIR=str(OUT / f"{cell.name}-kernels"),
        )  # fmt: skip
        cell.outcome = "passed"
    finally:
        cell.seconds = time.monotonic() - started
        if report.exists():
            suite = next(ElementTree.parse(report).iter("testsuite"))  # noqa: S314 - pytest has just written it
            tests, skipped, *bad = (int(suite.get(key, "0")) for key in ("tests", "skipped", "failures", "errors"))
            cell.counts = {"passed": tests - skipped - sum(bad), "failed": sum(bad), "skipped": skipped}


def lint_with_lowest(python: Path, constraints: Path) -> None:
    """Lint and check types with the lowest mypy and ruff, against the newest of everything else."""
    pinned = [line for line in constraints.read_text().splitlines() if line.startswith(("mypy==", "ruff=="))]
    install(python, *pinned)
    run(python, "-m", "ruff", "check", "--no-cache", ".")
    run(python, "-m", "ruff", "format", "--no-cache", "--check", ".")
    run(python, "-m", "mypy", "--cache-dir", os.devnull)


def table(cells: Sequence[Cell]) -> str:
    """Lay the cells out as lines of columns."""
    counted = ("passed", "failed", "skipped")
    rows = [("Python", "versions", *SHOWN, "tests", *counted, "seconds", "outcome")]
    for cell in cells:
        versions = (cell.versions.get(name, "-") for name in SHOWN)
        counts = (str(cell.counts.get(name, "-")) for name in counted)
        extent = "all" if cell.whole else "part"
        rows.append((cell.python, cell.dependencies, *versions, extent, *counts, f"{cell.seconds:.0f}", cell.outcome))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


@contextmanager
def step(name: str, failures: list[str]) -> Iterator[None]:
    """Do one step: what fails in it is shown and noted, and the next one comes."""
    say(name)
    started = time.monotonic()
    try:
        yield
    except (Failed, OSError) as error:
        print(f"FAILED: {name}: {error}", flush=True)
        failures.append(name)
    else:
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)


def plan(found: Mapping[str, Path], *, whole: bool) -> list[Cell]:
    """Every Python with either set of versions; all tests on the newest of both, first, and on the oldest of both."""
    pairs = [(version, dependencies) for dependencies in ("newest", "lowest") for version in reversed(found)]
    ends = (pairs[0], pairs[-1])
    return [Cell(version, found[version], kind, whole or (version, kind) in ends) for version, kind in pairs]


def fill_the_table(
    cells: Sequence[Cell], wheel: Path, sdist: Path, constraints: Mapping[str, Path], *, keep: bool
) -> list[str]:
    """Run each cell's tests while the next one's environment is installed; give what failed."""
    failures: list[str] = []
    unpacked = artefacts.unpack(sdist, OUT / "unpacked")
    oldest = min(cells, key=lambda cell: [int(part) for part in cell.python.split(".")]).python
    with ThreadPoolExecutor(max_workers=1) as installer:
        filled = [installer.submit(fill, cell, wheel, constraints) for cell in cells]
        for cell, future in zip(cells, filled, strict=True):
            from_sdist = cell is cells[0]
            with step(f"tests on {cell.name}{', in the unpacked sdist' if from_sdist else ''}", failures):
                python = future.result()
                test(cell, python, unpacked if from_sdist else ROOT)
            if (cell.python, cell.dependencies) == (oldest, "newest") and cell.versions:
                with step(f"lint and types on {cell.name}, with the lowest ruff and mypy", failures):
                    lint_with_lowest(python, constraints[cell.python])
            if not keep:
                shutil.rmtree(OUT / cell.name, ignore_errors=True)
    return failures


def main() -> None:
    """Find the Pythons, build, install, test, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--python", nargs="+", metavar="3.X", default=interpreters.VERSIONS, help="these versions alone"
    )
    parser.add_argument("--least", type=int, default=2, help="fail where fewer Pythons are here (default: 2)")
    parser.add_argument("--whole", action="store_true", help="all fast tests on every pair")
    parser.add_argument("--keep", action="store_true", help="keep the environments, in build/matrix")
    asked = parser.parse_args()
    found, refused = interpreters.find(asked.python)
    interpreters.require(found, refused, least=asked.least)
    newest, oldest = list(found)[-1], next(iter(found))
    cells = plan(found, whole=asked.whole)
    failures: list[str] = []
    say("Pythons: " + ", ".join(f"{version} at {path}" for version, path in found.items()))
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    with step("sdist and wheel", failures):
        tools = environment("tools", found[newest], "twine", "setuptools", "packaging")
        sdist, wheel, constraints = build(tools, list(found))
    if failures:
        sys.exit("nothing could be built")
    with step(f"the main job from the wheel, Python {newest}", failures):
        main_job_of_wheel(found[newest], wheel)
    with step(f"the main job from the sdist, Python {oldest}, lowest versions", failures):
        main_job_of_sdist(found[oldest], sdist, constraints[oldest])
    failures += fill_the_table(cells, wheel, sdist, constraints, keep=asked.keep)
    say("Python x dependencies")
    print(table(cells), flush=True)
    if failures:
        sys.exit("FAILED: " + "; ".join(failures))
    print("matrix passed")


if __name__ == "__main__":
    main()
