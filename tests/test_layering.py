"""What may know what: imports make no circle, wings know nothing of each other, and what serves all names none."""

from __future__ import annotations

import ast
import functools
import graphlib
import inspect
import itertools
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import secagg
from secagg import protocol

ROOT = Path(secagg.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
LAYERS = [
    ["errors", "_version"],
    ["arguments", "cohort", "extras", "quantities"],
    ["kernels"],
    ["primitives"],
    ["encoding"],
    ["wire"],
    ["identity"],
    ["identity_files"],
    ["field_types"],
    ["snapshot"],
    ["protocol"],
    ["session"],
    ["simulation"],
    ["picture"],
    ["planning"],
    ["pairwise", "he"],
    ["stages", "readiness"],
    ["training"],
    ["integrations"],
    ["cli", "__main__"],
]
"""Each imports, when it is loaded, from those before it and from itself."""
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
WINGS = {home.module.split(".")[1] for home in protocol.WINGS.values()}
HEAVY = ("numba", "llvmlite", "tenseal", "scipy", "sklearn", "matplotlib", "numpy", "cryptography", "Crypto", "rich")


def module_of(path: Path) -> str:
    return ".".join((ROOT.name, *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def statements(body: list[ast.stmt], *, deferred: bool) -> Iterator[ast.stmt]:
    """Yield what runs when a module is loaded; and, if ``deferred``, what runs later or is there for types alone."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from statements(node.body if deferred else node.orelse, deferred=deferred)
        elif deferred or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for inner in ("body", "orelse", "finalbody"):
                yield from statements(getattr(node, inner, None) or [], deferred=deferred)
            for handler in getattr(node, "handlers", []):
                yield from statements(handler.body, deferred=deferred)


def imported(path: Path, *, deferred: bool = False) -> set[str]:
    """Return the package's modules that a file imports, each with the packages that Python loads on the way."""
    found = set()
    for node in statements(tree_of(path).body, deferred=deferred):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    own, found = module_of(path), found & MODULES.keys()
    ways = {one.rpartition(".")[0] for one in found} - {ROOT.name, ""}
    return {one for one in found | ways if one != own and not own.startswith(f"{one}.")}


def layer_of(module: str) -> str:
    return f"{module}.__init__".split(".")[1]


def test_imports_make_no_circle():
    order = graphlib.TopologicalSorter({module: imported(path) for module, path in MODULES.items()})
    assert set(order.static_order()) >= MODULES.keys()  # raises CycleError, which names the circle


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_only_from_layers_above(module):
    own = layer_of(module)
    for layer in map(layer_of, imported(MODULES[module])):
        assert layer == "__init__" or own == "__init__" or RANK[layer] <= RANK[own], f"{own} imports {layer}"


def test_wings_do_not_know_each_other():
    for wing in WINGS:
        for path in (ROOT / wing).rglob("*.py"):
            known = {layer_of(one) for one in imported(path, deferred=True)}
            assert not known & (WINGS - {wing}), path


# What serves all protocols. A line here is a debt, with its reason; a third protocol has to pay it
KNOWN_WINGS = {
    "secagg": "the names that the package exports, for type checkers",
}
KNOWN_NAMES = {
    ("secagg.protocol", None): "the registry's own table",
    ("secagg.cli", "secagg"): "what the program is called",
    ("secagg.integrations.flower.envelope", "secagg"): "the key of its records in a message",
}


@pytest.mark.parametrize("module", [module for module in MODULES if layer_of(module) not in WINGS])
def test_what_serves_all_protocols_knows_none(module):
    path = MODULES[module]
    known = {layer_of(one) for one in imported(path, deferred=True)} & WINGS
    assert not known or module in KNOWN_WINGS, f"{module} imports {known}"
    names = {name for home in protocol.WINGS.values() for name in home.names} | protocol.WINGS.keys()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names:
            reasoned = {(module, None), (module, node.value)} & KNOWN_NAMES.keys()
            assert reasoned, f"{module}, line {node.lineno}: names the protocol {node.value}"


def test_the_registrys_table_says_what_its_wings_say():
    for family, home in protocol.WINGS.items():
        wing = protocol._Registry().wing(family)
        assert (wing.family, wing.names) == (family, home.names)
        for side in (wing.client_session, wing.server_session):
            assert side.__module__.startswith(home.module.rpartition(".")[0])


def test_kernels_know_no_library_type():
    for path in (ROOT / "kernels").glob("*.py"):
        assert {layer_of(one) for one in imported(path, deferred=True)} <= {"kernels", "errors"}


BANNED = {"time", "datetime", "socket", "logging", "asyncio", "random", "pickle", "secrets", "os", "pathlib"}
TOUCHES_THE_SYSTEM = {
    "session/file_store.py": "is a folder of states",
    "session/slot_files.py": "the same",
    "session/guard.py": "tells a forked child by its process",
    "pairwise/masking.py": "asks how many processors there are",
    "pairwise/uploads.py": "the same",
    "primitives/randomness.py": "is the operating system's randomness",
    "kernels/jit.py": "is where compiled kernels are kept",
}


@pytest.mark.parametrize("layer", ["pairwise", "session", "he", "primitives", "encoding", "kernels"])
def test_protocol_code_has_no_clock_socket_log_or_file(layer):
    for path in (ROOT / layer).rglob("*.py"):
        allowed = {"os", "pathlib"} if path.relative_to(ROOT).as_posix() in TOUCHES_THE_SYSTEM else set()
        for node in ast.walk(tree_of(path)):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not (BANNED - allowed) & {name.split(".")[0] for name in names}, path


@pytest.mark.parametrize(
    "used",
    ["secagg", "secagg.protocol", "secagg.cli; secagg.protocol.protocol_names"],
    ids=["import", "registry", "cli"],
)
def test_importing_secagg_loads_nothing_heavy(used):
    heavy = [name for name in HEAVY if name != "rich" or "cli" not in used]  # the command line prints
    script = f"import sys, {used}; print([name for name in {heavy!r} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_every_public_name_loads_and_has_a_docstring():
    for name in secagg.__all__:
        value = getattr(secagg, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert value.__doc__, name
        elif name != "__version__":
            assert has_text_below(MODULES[secagg._HOME_OF[name]], name), name
    assert set(secagg.__all__) <= set(dir(secagg))
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        _ = secagg.missing


def has_text_below(path: Path, name: str) -> bool:
    """Tell whether a constant's assignment is followed by a text that says what it is."""
    body = tree_of(path).body
    for node, after in itertools.pairwise(body):
        if name in assigned(node):
            return isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    return False


def assigned(node: ast.stmt) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def test_files_stay_readable():
    for path in FILES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 420, path


A_WINGS = "each wing's own, in the file of the same name in either"
A_REPORTS = "the same of a plan and of a training, called through its module"
A_LAYERS = "a kernel and its checked wrapper, or a command and what it runs"
TWICE = {
    "Idle": A_WINGS,
    "PROTOCOL": A_WINGS,
    "Turn": A_WINGS,
    "client_bytes": A_WINGS,
    "client_credentials": A_WINGS,
    "client_table": A_WINGS,
    "server_bytes": A_WINGS,
    "FAILURE_BITS": A_WINGS,
    "SEMI_HONEST": "a client's rows and a server's",
    "MALICIOUS_COMPLETE": "a client's rows and a server's",
    "MALICIOUS_SPARSE": "a client's rows and a server's",
    "Residues": "an alias of one array type",
    "Floats": "an alias of one array type",
    "P": "a type variable",
    "R": "a type variable",
    "Beacon": "an alias of one type of callable",
    "KEY_BYTES": "of each primitive's own key, called through its module",
    "VERSION": "of the wire format, and of the records around it in Flower",
    "SCHEMA": A_REPORTS,
    "as_dict": A_REPORTS,
    "as_json": A_REPORTS,
    "draw": A_REPORTS,
    "save": A_REPORTS,
    "show": A_REPORTS,
    "load": "of a package, of a saved state, of a federation: called through its module",
    "MODULUS": A_LAYERS,
    "accumulate": A_LAYERS,
    "lagrange_weights": A_LAYERS,
    "pack": A_LAYERS,
    "padding_is_zero": A_LAYERS,
    "share": A_LAYERS,
    "unpack_add": A_LAYERS,
    "weights_without": A_LAYERS,
    "plan": A_LAYERS,
    "train": A_LAYERS,
    "selftest": A_LAYERS,
    "warmup": A_LAYERS,
    "self_test": "of each primitive against known answers, called through its module",
    "encrypt": "the same instruction's on two processors",
    "substituted_word": "the same instruction's on two processors",
}
"""Public names that stand at the top of more than one file, and why that misleads nobody."""
FILES_TWICE = {
    **dict.fromkeys(("client_session", "client_table", "costs", "credentials", "messages", "params"), A_WINGS),
    **dict.fromkeys(("protocol", "result", "server_session"), A_WINGS),
    **dict.fromkeys(("console", "plot", "report"), A_REPORTS),
    **dict.fromkeys(("errors", "identity"), "the library's, and the command of the same name"),
    **dict.fromkeys(("client", "server", "agreement"), "the library's, and Flower's part of the same name"),
    "simulation": "the loop, and the parties that a wing brings to it",
    "stages": "of all protocols, and of a wing",
}


def test_no_public_name_says_two_things():
    homes: dict[str, set[str]] = defaultdict(set)
    for module, path in MODULES.items():
        for node in tree_of(path).body:
            named = {node.name} if isinstance(node, ast.ClassDef | ast.FunctionDef) else assigned(node)
            for name in named:
                if not name.startswith("_"):
                    homes[name].add(module)
    twice = {name: modules for name, modules in homes.items() if len(modules) > 1}
    assert twice.keys() == TWICE.keys(), twice.keys() ^ TWICE.keys()


def test_no_file_name_says_two_things():
    homes: dict[str, set[str]] = defaultdict(set)
    for path in FILES:
        homes[path.stem].add(str(path.relative_to(ROOT)))
    twice = {name: files for name, files in homes.items() if len(files) > 1 and not name.startswith("__")}
    assert twice.keys() == FILES_TWICE.keys(), twice.keys() ^ FILES_TWICE.keys()
