"""The code of docs/homomorphic.md, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import secagg

GUIDE = Path(__file__).parents[1] / "docs" / "homomorphic.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_guides_sum_is_that_of_those_that_sent_and_its_key_releases_no_other():
    names: dict[str, object] = {}
    exec("\n".join(BLOCKS), names)  # noqa: S102 - our own documentation
    result, vectors = names["server"].result, names["vectors"]
    assert result.survivors == (0, 1, 2, 4)
    assert np.abs(result.mean - vectors[[0, 1, 2, 4]].mean(axis=0)).max() < names["params"].encoding.step
    key, session = names["start_decryptor_again"]()
    assert key.released == 1
    assert session.stage is None
    with pytest.raises(secagg.StaleMessage):
        names["add_at_decryptor"](0, b"")
