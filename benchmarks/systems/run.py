"""secagg beside other systems' secure sums, on the same inputs.

Command: python -m benchmarks.systems.run [--preset NAME ...] [--system NAME ...] [--repeats 3] [--json FILE]
[--plot FOLDER] [--markdown FILE]. The first run installs each peer into its own environment under build/peers.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.hardware import machine_information
from benchmarks.systems import report
from benchmarks.systems.catalogue import PRESETS, SYSTEMS
from benchmarks.systems.comparison import ROOT, compare

DEFAULT_PRESETS = tuple(name for name in PRESETS if not name.startswith("quick"))


def main(
    preset: Annotated[list[str], typer.Option(help=f"Of {', '.join(PRESETS)}; repeatable.")] = list(DEFAULT_PRESETS),  # noqa: B006
    system: Annotated[list[str], typer.Option(help=f"Of {', '.join(SYSTEMS)}; repeatable.")] = list(SYSTEMS),  # noqa: B006
    repeats: Annotated[int, typer.Option(min=1, help="Times that every system runs; medians are shown.")] = 3,
    installed_only: Annotated[
        bool, typer.Option(help="Install nothing: a peer that is not there is reported as missing.")
    ] = False,
    cache: Annotated[Path, typer.Option(help="Folder of the peers' environments.")] = ROOT / "build" / "peers",
    timeout: Annotated[float, typer.Option(help="Seconds that one run of one system may take.")] = 1800,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw systems.png into this folder.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables between the marks of this file.")] = None,
    reuse: Annotated[Path | None, typer.Option(help="Measure nothing: show what --json wrote before.")] = None,
) -> None:
    """Compare secure sums on the same inputs, each system in processes of its own, in turn."""
    _check_names("preset", preset, PRESETS)
    _check_names("system", system, SYSTEMS)
    console, log = Console(width=180), Console(stderr=True)
    document = json.loads(reuse.read_text(encoding="utf-8")) if reuse else _new_document(preset, system, repeats)
    for name in [] if reuse else preset:
        rows = compare(
            PRESETS[name],
            system,
            repeats=repeats,
            cache=cache.resolve(),
            install=not installed_only,
            timeout=timeout,
            progress=lambda text, name=name: log.print(f"{name}: {text}", markup=False),
        )
        document["presets"][name] = {
            "description": PRESETS[name].describe(),
            "setting": PRESETS[name].as_dict(),
            "repeats": repeats,
            "rows": rows,
        }
    for name, comparison in document["presets"].items():
        report.print_comparison(console, name, PRESETS[name], comparison["rows"])
    report.print_traits(console, system)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if plot is not None:
        console.print(f"drew {report.draw(plot, document['presets'])}")
    if markdown is not None:
        try:
            report.write_markdown(markdown, document["presets"], document["machine"], document["command"])
        except report.MarksMissing as problem:
            raise typer.BadParameter(str(problem), param_hint="--markdown") from None
    failed = [
        row for one in document["presets"].values() for row in one["rows"] if row["status"] in ("wrong", "failed")
    ]
    raise typer.Exit(code=1 if failed else 0)


def _new_document(presets: list[str], systems: list[str], repeats: int) -> dict[str, Any]:
    # The command that measures the same again, wherever this run's files went
    command = ["python", "-m", "benchmarks.systems.run", "--repeats", str(repeats)]
    for option, names, default in (("--preset", presets, list(DEFAULT_PRESETS)), ("--system", systems, list(SYSTEMS))):
        command += [] if names == default else [word for name in names for word in (option, name)]
    return {"machine": machine_information(), "command": shlex.join(command), "presets": {}}


def _check_names(kind: str, names: list[str], known: dict[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"no {kind} '{name}'; there are {', '.join(known)}", param_hint=f"--{kind}")


if __name__ == "__main__":
    typer.run(main)
