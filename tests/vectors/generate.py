"""Write the test vectors, or with ``--check`` compare them with what the library does now.

    python tests/vectors/generate.py [--check] [--directory DIRECTORY]

The files follow from this folder's code and the library alone: no clock and no system randomness is read.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from vector_client_faults import client_vectors, malicious_client_vectors
from vector_rounds import PLANS, Round
from vector_server_faults import malicious_server_vectors, server_vectors

HERE = Path(__file__).parent
FAILING = {
    "failing-client.json": client_vectors,
    "failing-client-malicious-server.json": malicious_client_vectors,
    "failing-server.json": server_vectors,
    "failing-server-malicious-server.json": malicious_server_vectors,
}


@functools.cache
def documents() -> Mapping[str, str]:
    """Return every file's name and text."""
    rounds = {plan.name: Round(plan) for plan in PLANS}
    for round_ in rounds.values():
        round_.play()
    texts = {f"round-{name}.json": pretty(round_.document()) for name, round_ in rounds.items()}
    return texts | {name: pretty(make(rounds)) for name, make in FAILING.items()}


def pretty(value: object) -> str:
    """Return JSON with one item to a line, but numbers of one list on one line."""
    return _pretty(value, "\n") + "\n"


def _pretty(value: object, newline: str) -> str:
    inner = newline + " "
    if isinstance(value, dict) and value:
        items = [f"{json.dumps(key)}: {_pretty(item, inner)}" for key, item in value.items()]
        return "{" + inner + ("," + inner).join(items) + newline + "}"
    if isinstance(value, list) and any(isinstance(item, dict | list | str) for item in value):
        return "[" + inner + ("," + inner).join(_pretty(item, inner) for item in value) + newline + "]"
    return json.dumps(value, allow_nan=False)


def first_difference(directory: Path) -> str | None:
    """Return where the files in ``directory`` differ from what is generated now, or None."""
    expected = documents()
    present = {path.name for pattern in ("round-*.json", "failing-*.json") for path in directory.glob(pattern)}
    if stray := sorted(present ^ expected.keys()):
        return f"{stray[0]}: {'is not generated' if stray[0] in present else 'is missing'}"
    for name, text in expected.items():
        found = (directory / name).read_text(encoding="utf-8")
        if found != text:
            pairs = itertools.zip_longest(found.splitlines(), text.splitlines())
            numbered = enumerate(pairs, start=1)
            line, (old, new) = next((at, pair) for at, pair in numbered if pair[0] != pair[1])
            return f"{name}, line {line}:\n  in the file: {_shown(old)}\n  generated:   {_shown(new)}"
    return None


def _shown(line: str | None) -> str:
    return "nothing" if line is None else line.strip()[:160]


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description="write the test vectors, or check them")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the files differ")
    parser.add_argument("--directory", type=Path, default=HERE, help="where the files are")
    options = parser.parse_args(arguments)
    if options.check:
        difference = first_difference(options.directory)
        print(difference or f"{len(documents())} files are up to date")
        return 1 if difference else 0
    for name, text in documents().items():
        (options.directory / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
