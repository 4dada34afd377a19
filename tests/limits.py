"""A limit of a process's memory, for tests that run hostile input in a child."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

needs_limits = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux both tells and limits a process's address space"
)


def limit_memory(megabytes: int) -> None:
    """Let this process take so much more address space than it has; what asks for more gets a MemoryError."""
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
