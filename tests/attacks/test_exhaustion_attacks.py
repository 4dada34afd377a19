"""What a few bytes may cost whoever decodes them: no memory and no work that they name, and a typed error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from limits import needs_limits

TESTS = Path(__file__).parents[1]


@needs_limits
def test_17_bytes_that_exhaust_whoever_decodes_them():
    """Attack: a few bytes name sizes whose proof, array or nesting takes all memory. Defence: bounds come before work.

    One child goes through all inputs with 200 MB to spare; a loop without end would meet the time limit.
    """
    path = os.pathsep.join([str(TESTS.parent), str(TESTS), *sys.path])
    child = subprocess.run(
        [sys.executable, str(TESTS / "attacks" / "exhaustion.py")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert child.returncode == 0, child.stdout + child.stderr
    assert int(child.stdout.split()[0]) > 3000
