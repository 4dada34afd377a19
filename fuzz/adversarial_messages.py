"""Send adversarial messages to sessions of both models, both sides and every state, and count what becomes of them.

Fails on an exception that is no SecAggError, on a hang, on a call that raises and changes its session, on a round that
ends in a wrong sum unseen, and on memory that grows with what a message claims.

Run: ``python fuzz/adversarial_messages.py --messages 100000 --seed 1``.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import Counter

from rich.console import Console
from rich.progress import track
from rich.table import Table

from body import Failed, Outcome, check_one_input, seeds

MEMORY_MIB = 256
"""How much the process may grow while it runs; the longest message has 4 MiB."""


def run(messages: int, seed: int, console: Console) -> tuple[Counter[tuple[str, str, str, str]], list[str], Outcome]:
    """Send the messages; return the counts, the failures (each with the input that shows it) and the slowest."""
    counts: Counter[tuple[str, str, str, str]] = Counter()
    failures: list[str] = []
    slowest = Outcome("", "", "", "", 0.0)
    inputs = seeds(seed, messages)
    for data in track(inputs, "messages", total=messages, console=console, disable=not console.is_terminal):
        try:
            outcome = check_one_input(data)
        except Failed as failure:
            failures.append(f"{failure} [input {data.hex()}]")
            continue
        counts[outcome.model, outcome.side, outcome.state, outcome.result] += 1
        slowest = max(slowest, outcome, key=lambda one: one.seconds)
    return counts, failures, slowest


def table(counts: Counter[tuple[str, str, str, str]]) -> Table:
    """Lay the counts out: a row for each state, with the outcomes by falling count."""
    shown = Table(title="What became of adversarial messages")
    for heading in ("model", "side", "state"):
        shown.add_column(heading)
    shown.add_column("messages", justify="right")
    shown.add_column("outcomes")
    for model, side, state in sorted({key[:3] for key in counts}):
        outcomes = Counter({key[3]: count for key, count in counts.items() if key[:3] == (model, side, state)})
        text = ", ".join(f"{result} {count}" for result, count in outcomes.most_common())
        shown.add_row(model, side, state, str(outcomes.total()), text)
    return shown


def main() -> int:
    """Run and report; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description="Send adversarial messages to sessions and count what becomes of them")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    console = Console()
    next(iter(map(check_one_input, seeds(arguments.seed, 1))))
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts, failures, slowest = run(arguments.messages, arguments.seed, console)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if grown > MEMORY_MIB:
        failures.append(f"the process grew by {grown:.0f} MiB; {MEMORY_MIB} are allowed")
    console.print(table(counts))
    totals = Counter()
    for key, count in counts.items():
        totals[key[3]] += count
    console.print("Total: " + ", ".join(f"{result} {count}" for result, count in totals.most_common()))
    console.print(
        f"{counts.total()} messages in {time.perf_counter() - start:.0f} s; slowest {1000 * slowest.seconds:.0f} ms "
        f"({slowest.model}, {slowest.side}, {slowest.state}); memory grew by {grown:.0f} MiB; {len(failures)} failures"
    )
    for failure in failures[:20]:
        console.print(failure, style="red", markup=False)
    return 1 if failures or counts.total() < arguments.messages else 0


if __name__ == "__main__":
    raise SystemExit(main())
