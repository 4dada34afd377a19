"""The code of docs/integrating.md, run as it stands there."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

GUIDE = Path(__file__).parents[1] / "docs" / "integrating.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_guides_round_gives_the_mean_of_those_that_stayed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # A round that fails leaves its clients waiting, which should not keep the tests from ending
    monkeypatch.setattr(threading, "Thread", functools.partial(threading.Thread, daemon=True))
    namespace: dict[str, object] = {}
    exec("\n".join(BLOCKS), namespace)  # noqa: S102 - our own documentation
    result, updates = namespace["result"], namespace["updates"]
    assert result.dropped == {3: "share_keys"}
    present = list(result.survivors)
    mean = np.average(updates[present], axis=0, weights=[10 * (one + 1) for one in present])
    assert np.abs(result.mean - mean).max() < result.params.encoding.step
    assert not any(thread.join(timeout=5) or thread.is_alive() for thread in namespace["threads"])


def test_the_guides_round_stands_where_no_kernel_is_compiled_yet(tmp_path):
    fresh = {"NUMBA_CACHE_DIR": str(tmp_path / "kernels"), "TMPDIR": str(tmp_path), "PYTHONPATH": str(GUIDE.parents[1])}
    command = [sys.executable, "-c", "\n".join(BLOCKS)]
    done = subprocess.run(
        command, env={**os.environ, **fresh}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(0, 1, 2, 4) {3: 'share_keys'}")


def test_the_integration_itself_is_under_sixty_lines():
    lines = [line for block in BLOCKS[:3] for line in block.splitlines() if line.strip()]
    assert len(BLOCKS) == 4
    assert len(lines) < 60
