"""The layers of the library: each module imports from those above it in this list only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import secagg

ROOT = Path(secagg.__file__).parent
LAYERS = [
    ["errors", "_version"],
    ["arguments", "cohort", "extras"],
    ["kernels"],
    ["primitives"],
    ["encoding"],
    ["wire"],
    ["identity"],
    ["identity_files"],
    ["field_types"],
    ["snapshot"],
    ["session"],
    ["pairwise", "he"],
    ["simulation"],
    ["readiness"],
    ["picture"],
    ["planning"],
    ["training"],
    ["integrations"],
    ["cli", "__main__"],
    ["__init__"],
]
WINGS = {"pairwise", "he"}
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
HEAVY = ("numba", "llvmlite", "tenseal", "scipy", "sklearn", "matplotlib", "numpy", "cryptography", "Crypto", "rich")


def layer_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_layers(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "secagg":
            rest = node.module.split(".")[1:]
            found |= {rest[0]} if rest else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.split(".")[1] for name in (a.name for a in node.names) if name.startswith("secagg.")}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_import_only_from_layers_above(path):
    own = layer_of(path)
    for layer in imported_layers(path):
        if layer in RANK:
            assert RANK[layer] <= RANK[own], f"{own} imports {layer}"
        else:
            assert own in ("training", "cli", "readiness"), f"{own} imports secagg's top level"


def test_wings_do_not_know_each_other():
    for wing in WINGS:
        for path in (ROOT / wing).rglob("*.py"):
            assert not imported_layers(path) & (WINGS - {wing}), path


def test_kernels_know_no_library_type():
    for path in (ROOT / "kernels").glob("*.py"):
        assert imported_layers(path) <= {"kernels", "errors"}


@pytest.mark.parametrize("layer", ["pairwise", "session", "he", "primitives", "encoding", "kernels"])
def test_protocol_code_has_no_clock_socket_or_log(layer):
    banned = {"time", "datetime", "socket", "logging", "asyncio", "random", "pickle", "secrets"}
    for path in (ROOT / layer).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not banned & {name.split(".")[0] for name in names}, path


def test_importing_secagg_loads_nothing_heavy():
    script = f"import sys, secagg; print([name for name in {HEAVY!r} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_every_public_name_loads_and_has_a_docstring():
    for name in secagg.__all__:
        value = getattr(secagg, name)
        if name not in ("__version__", "STAGES"):
            assert value.__doc__, name
    assert set(secagg.__all__) <= set(dir(secagg))
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        _ = secagg.missing


def test_files_stay_readable():
    for path in ROOT.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 420, path
