"""What a benchmark's numbers were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from secagg.primitives.prg import active_path


def machine_information() -> dict[str, object]:
    """Processor, cores, operating system, AES path and library versions."""
    import llvmlite.binding as llvm

    packages = {}
    for name in ("numpy", "numba", "cryptography", "pycryptodome"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "absent"
    return {
        "processor": llvm.get_host_cpu_name(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "aes_path": active_path(),
        "packages": packages,
    }
