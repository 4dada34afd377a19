"""Coverage-guided fuzzing of both sides' sessions, with the body of ``adversarial_messages.py``.

Invariant: whatever bytes arrive, a session answers, or raises a SecAggError and stays as it was, and no round ends in a
wrong sum unseen.

Run: ``pip install atheris``, then ``python fuzz/fuzz_sessions.py -max_total_time=600``; libFuzzer's options apply.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Fuzz until libFuzzer's options say stop; 2 without atheris."""
    try:
        import atheris
    except ImportError:
        print(
            "fuzz_sessions.py needs atheris, which is not installed: pip install atheris. "
            "Without it: python fuzz/adversarial_messages.py runs the same body on generated messages.",
            file=sys.stderr,
        )
        return 2
    with atheris.instrument_imports(include=["secagg"]):
        from body import check_one_input

    def one_input(data: bytes) -> None:
        check_one_input(data)

    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
