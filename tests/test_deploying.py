"""The code of docs/deploying.md, run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import guides
import secagg

PAGE = (Path(__file__).parents[1] / "docs" / "deploying.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
[SPAWN] = re.findall(r"^```python spawn\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_pages_round_in_an_event_loop_gives_the_mean_and_its_plan_the_memory(capsys):
    namespace: dict[str, object] = {}
    exec("\n".join(BLOCKS), namespace)  # noqa: S102 - our own documentation
    result, vectors = namespace["result"], namespace["vectors"]
    assert set(result.survivors) == set(range(10)) - {3}
    mean = vectors[list(result.survivors)].mean(axis=0)
    assert np.abs(result.mean - mean).max() < result.params.encoding.step
    printed = [line.split() for line in capsys.readouterr().out.splitlines()[-4:]]
    assert [line[0] for line in printed] == ["secagg", "secagg+", "bfv", "ckks"]
    assert all(int(number) > 10**6 for line in printed for number in line[1:])


def test_a_spawned_worker_goes_on_from_a_saved_state(tmp_path):
    script = tmp_path / "workers.py"
    script.write_text(SPAWN, encoding="utf-8")
    root = str(Path(secagg.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=root,
        env=os.environ | {"PYTHONPATH": root},
    )
    assert done.returncode == 0, done.stderr
    mean = [float(value) for value in done.stdout.strip("[]\n").split()]
    assert mean == pytest.approx([0.5] * 4, abs=secagg.FixedPoint(clip=1.0, bits=16).step)


def test_names_of_the_library_on_the_page_exist():
    guides.check_names("docs/deploying.md")
