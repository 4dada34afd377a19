"""Print the lowest allowed version of everything that pyproject.toml asks for, as constraints for pip.

Run: ``python tools/lowest.py --python 3.11 > lowest.txt``, then ``pip install -c lowest.txt ".[test]"``.

Needs ``packaging``. pyproject.toml is the only place where the bounds stand; its markers are evaluated for the Python
that is asked for, on the platform that this runs on. What those packages need themselves is left to pip.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def requirements(pyproject: Path = PYPROJECT) -> Iterator[Requirement]:
    """Everything that the library, its extras and its build ask for, but for itself."""
    document = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    project = document["project"]
    for line in (
        *document["build-system"]["requires"],
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ):
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) != project["name"]:
            yield requirement


def lower_bound(requirement: Requirement) -> Version:
    """Give the one lower bound of a requirement; without one nothing says what was tested."""
    bounds = [Version(one.version) for one in requirement.specifier if one.operator in (">=", "==", "~=")]
    if len(bounds) != 1:
        sys.exit(f"{requirement}: one lower bound is needed, found {len(bounds)}")
    return bounds[0]


def lowest(python: str, pyproject: Path = PYPROJECT) -> dict[str, Version]:
    """The lowest allowed version of each package on a Python, as in ``3.11``."""
    found: dict[str, Version] = {}
    for requirement in requirements(pyproject):
        marker = requirement.marker
        if marker is None or marker.evaluate({"python_version": python, "python_full_version": f"{python}.0"}):
            name, bound = canonicalize_name(requirement.name), lower_bound(requirement)
            found[name] = max(bound, found.get(name, bound))
    return found


def main() -> None:
    """Print one constraint a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, metavar="3.X", help="the Python that the markers are evaluated for")
    for name, version in sorted(lowest(parser.parse_args().python).items()):
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
