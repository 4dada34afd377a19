"""Which AES instructions a kernel may use."""

from __future__ import annotations

import numba
from numba.core.registry import cpu_target

VAES512, VAES256, AESNI, ARM, PORTABLE = "vaes512", "vaes256", "aesni", "arm", "portable"

# What LLVM calls the machine, and the features that a path's instructions belong to.
_X86_64, _ARM_64 = ("x86_64",), ("aarch64", "arm64")
_NEEDS = (
    (VAES512, _X86_64, {"vaes", "avx512f"}),
    (VAES256, _X86_64, {"vaes", "avx2"}),
    (AESNI, _X86_64, {"aes", "sse2"}),
    (ARM, _ARM_64, {"aes", "neon"}),
)


def compilable_paths() -> tuple[str, ...]:
    """List the paths that can be compiled here, fastest first; the last is always ``portable``.

    The answer comes from the code generator that numba will use, never from the CPU: the two differ under
    NUMBA_CPU_NAME and NUMBA_CPU_FEATURES, and an instruction that the generator does not know aborts the process.
    """
    if numba.config.DISABLE_JIT:
        return (PORTABLE,)
    return paths_of(*cpu_target.target_context.codegen().magic_tuple())


def paths_of(triple: str, cpu: str, features: str) -> tuple[str, ...]:
    """List the paths for which a code generator of this triple, CPU name and feature list can make code."""
    listed = features.split(",")
    have = {feature[1:] for feature in listed if feature.startswith("+")}
    # Older LLVMs say "crypto" for all of Arm's cryptography. Under macOS LLVM detects nothing, but its models of
    # Apple's 64-bit CPUs all have AES
    if "crypto" in have or (cpu.startswith("apple-") and "-aes" not in listed):
        have |= {"aes", "neon"}
    machine = triple.split("-")[0]
    return (*(path for path, machines, needed in _NEEDS if machine in machines and needed <= have), PORTABLE)


def aes_path(override: str | None = None) -> str:
    """Name the path to use: the fastest that can be compiled, or ``override`` if that can be.

    Raises:
        ValueError: ``override`` cannot be compiled here.
    """
    paths = compilable_paths()
    if override is None:
        return paths[0]
    if override not in paths:
        raise ValueError(f"AES path {override!r} cannot be compiled here; these can: {', '.join(paths)}")
    return override
