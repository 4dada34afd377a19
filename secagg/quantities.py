"""Numbers with what they count, as people read them on a terminal. ASCII throughout."""

from __future__ import annotations


def counted(number: int, what: str) -> str:
    """Return a number of things: ``1 sum``, ``2 sums``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def size_text(count: int) -> str:
    """Return a number of bytes: ``999 B``, ``1.0 kB``, ``2.74 MB``."""
    return f"{count} B" if count < 1000 else f"{count / 1000:.1f} kB" if count < 10**6 else f"{count / 10**6:.2f} MB"


def duration_text(seconds: float) -> str:
    """Return seconds: ``31.5 ms``, ``2.74 s``."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
