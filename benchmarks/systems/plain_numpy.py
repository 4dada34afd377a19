"""The floor: float32 vectors added in the clear."""

from __future__ import annotations

import numpy as np

from benchmarks.systems.catalogue import Setting
from benchmarks.systems.measurement import Meter, Outcome, main, survivors_of


def run(setting: Setting, vectors: list[np.ndarray], meter: Meter) -> Outcome:
    """Each client sends its vector's bytes; the server adds them up as they come."""
    total = np.zeros(setting.dimension, dtype=np.float32)
    for one in survivors_of(setting):
        with meter.client(one):
            payload = vectors[one].tobytes()
        meter.up[one] += len(payload)
        with meter.server():
            total += np.frombuffer(payload, dtype=np.float32)
    # n additions, each wrong by at most half a unit in the last place of a sum below n * clip
    bound = setting.clients**2 * setting.clip * float(np.finfo(np.float32).eps)
    return Outcome(total=total.astype(np.float64), error_bound=bound, version=np.__version__)


if __name__ == "__main__":
    main({"numpy": run})
