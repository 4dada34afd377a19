"""The list of survivors that ``docs/mutation.md`` explains, in its blocks that begin with ```` ```diff ````."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from mutants import Change

_BLOCK = re.compile(r"^```diff\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ENTRY = re.compile(r"^@@ (\S+) (\S+)\n-(.*)\n\+(.*)\n", re.MULTILINE)


def explained(document: Path) -> Counter[Change]:
    """Return how many mutants of each name the document explains.

    Raises:
        ValueError: a block holds a line that is no part of an entry.
    """
    found: Counter[Change] = Counter()
    for block in _BLOCK.findall(document.read_text(encoding="utf-8")):
        if rest := _ENTRY.sub("", block).strip():
            raise ValueError(f"{document.name}: no entry of a survivor: {rest.splitlines()[0]!r}")
        found.update(Change(*entry) for entry in _ENTRY.findall(block))
    return found
