"""Time secret sharing: ``python benchmarks/shamir.py [--json FILE]``. Best of several runs, one thread, two secrets."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from secagg.primitives import shamir

SIZES = [(24, 17), (68, 44), (100, 67), (1000, 667)]
MANY = 200


def best(function: Callable[[], object], runs: int = 25) -> float:
    """Give the shortest of several runs, in microseconds."""
    function()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times) * 1e6


def measure(n: int, t: int) -> dict[str, float]:
    points = np.arange(1, n + 1, dtype=np.uint64)
    secrets = [os.urandom(32) for _ in range(2)]
    shares = shamir.share(secrets, threshold=t, points=points)
    chosen = np.sort(np.random.default_rng(0).permutation(n)[: t + 1])
    holders, all_but_one = points[chosen[:t]], points[chosen]
    weights, more_weights = shamir.lagrange_weights(holders), shamir.lagrange_weights(all_but_one)
    held = np.ascontiguousarray(shares[chosen])
    many, removed = np.tile(held, (1, MANY // 2, 1)), np.arange(MANY) % (t + 1)
    assert shamir.reconstruct(holders, held[:t], weights=weights) == secrets
    assert shamir.reconstruct_without(all_but_one, many, removed) == secrets * (MANY // 2)
    return {
        "n": n,
        "t": t,
        "share_us": best(lambda: shamir.share(secrets, threshold=t, points=points)),
        "weights_us": best(lambda: shamir.lagrange_weights(holders)),
        "reconstruct_us": best(lambda: shamir.reconstruct(holders, held[:t], weights=weights)),
        f"reconstruct_{MANY}_us": best(lambda: shamir.reconstruct(holders, many[:t], weights=weights)),
        f"reconstruct_{MANY}_without_us": best(
            lambda: shamir.reconstruct_without(all_but_one, many, removed, weights=more_weights)
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to FILE")
    arguments = parser.parse_args()
    results = [measure(n, t) for n, t in SIZES]
    names = [name for name in results[0] if name.endswith("_us")]
    print(f"{'n':>5} {'t':>4} " + " ".join(f"{name.removesuffix('_us'):>23}" for name in names) + "  microseconds")
    for row in results:
        print(f"{row['n']:>5} {row['t']:>4} " + " ".join(f"{row[name]:>23.1f}" for name in names))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
