"""One benchmark across systems for secure sums: the same inputs, each system in a process and environment of its own.

Run it with ``python -m benchmarks.systems.run``; ``docs/benchmarks.md`` says what is measured and what is not.
"""
