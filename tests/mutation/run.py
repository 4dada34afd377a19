"""Change the library in one place at a time and see which changes no test notices.

``python tests/mutation/run.py`` runs all modules of ``targets.py``; parts of paths choose others. It prints the
survivors and a score, and fails if ``docs/mutation.md`` does not explain a survivor, or explains one that is gone.
POSIX only: a mutant runs in a forked process.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
os.environ["HYPOTHESIS_PROFILE"] = "mutation"
sys.path.insert(0, str(ROOT))

from forks import Outcome, load_once, poll, start, wait  # noqa: E402
from mutants import Change, Mutant, mutants_of  # noqa: E402
from reach import Reach  # noqa: E402
from survivors import explained  # noqa: E402
from targets import TARGETS  # noqa: E402

DOCUMENT = ROOT / "docs" / "mutation.md"


@dataclass(slots=True)
class Score:
    """What became of one module's mutants."""

    made: Counter[Change] = field(default_factory=Counter)
    survivors: list[Mutant] = field(default_factory=list)
    timeouts: int = 0
    seconds: float = 0.0

    @property
    def total(self) -> int:
        return self.made.total()


def baseline(path: str, tests: list[list[str]]) -> tuple[float, Reach]:
    """Return how long the tests take without a mutation and what they reach; end the run if they fail."""
    source = (ROOT / path).read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "reach.json"
        began = time.monotonic()
        if wait(start(ROOT, path, source, tests, 900.0, record=record)) is not Outcome.PASSED:
            wait(start(ROOT, path, source, tests, 900.0, show=True))
            sys.exit(f"{path}: its tests fail without a mutation")
        return time.monotonic() - began, Reach.of(source, record)


def run(path: str, tests: list[list[str]], scope: str, jobs: int) -> Score:
    """Run every mutant of a module, ``jobs`` at a time."""
    began, score = time.monotonic(), Score()
    took, reach = baseline(path, tests)
    waiting = (mutant for mutant in mutants_of(ROOT, path) if scope in mutant.change.scope)
    running: list[tuple[Mutant, object]] = []
    exhausted = False
    while running or not exhausted:
        while len(running) < jobs and not exhausted:
            mutant = next(waiting, None)
            if mutant is None:
                exhausted = True
                break
            score.made[mutant.change] += 1
            chosen = reach.tests(mutant.line)
            expected = took if chosen is None else took - reach.unused_seconds(chosen)
            child = start(ROOT, path, mutant.source, tests if chosen is None else chosen, 10 + 5 * expected)
            running.append((mutant, child))
        still = []
        for mutant, child in running:
            outcome = poll(child)
            if outcome is None:
                still.append((mutant, child))
            elif outcome is Outcome.PASSED:
                score.survivors.append(mutant)
                print(mutant.change, flush=True)
            score.timeouts += outcome is Outcome.TIMEOUT
        running = still
        time.sleep(0.003)
    score.seconds = time.monotonic() - began
    return score


def report(scores: dict[str, Score], whole: bool) -> bool:
    """Print survivors, scores and what the document lacks; tell whether it lacks nothing."""
    known = explained(DOCUMENT)
    left = Counter(mutant.change for score in scores.values() for mutant in score.survivors)
    unexplained = left - known
    print("\n| module | mutants | killed | of them by a time limit | survivors | score |")
    print("|---|---:|---:|---:|---:|---:|")
    for path, score in scores.items():
        killed = score.total - len(score.survivors)
        share = killed / max(score.total, 1)
        print(f"| `{path}` | {score.total} | {killed} | {score.timeouts} | {len(score.survivors)} | {share:.1%} |")
    total = sum(score.total for score in scores.values())
    killed = total - left.total()
    timeouts = sum(score.timeouts for score in scores.values())
    print(f"| all | {total} | {killed} | {timeouts} | {left.total()} | {killed / max(total, 1):.1%} |")
    print(f"\n{left.total()} survivors, {unexplained.total()} of them not explained in docs/{DOCUMENT.name}")
    for change in sorted(unexplained):
        print(change)
    gone: Counter[Change] = Counter()
    if whole:
        made = sum((score.made for score in scores.values()), Counter())
        gone = Counter({change: count for change, count in known.items() if change.path in scores}) - made
        for change in sorted(gone):
            print(f"docs/{DOCUMENT.name} explains a mutant that there is not:\n{change}")
        for change in sorted((known - left) - gone):
            if change.path in scores:
                print(f"killed, though docs/{DOCUMENT.name} explains its survival:\n{change}")
    return not (unexplained or gone)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("modules", nargs="*", help="parts of the modules' paths; all if none")
    parser.add_argument("--scope", default="", help="part of the name of the function or class to change")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    chosen = {path: tests for path, tests in TARGETS.items() if any(part in path for part in options.modules or [""])}
    os.chdir(ROOT)
    load_once()
    scores = {}
    for path, tests in chosen.items():
        scores[path] = score = run(path, [shlex.split(test) for test in tests], options.scope, options.jobs)
        print(f"{path}: {score.total} mutants, {len(score.survivors)} survive, {score.seconds:.0f} s", flush=True)
    if not report(scores, whole=not options.scope):
        sys.exit(1)


if __name__ == "__main__":
    main()
