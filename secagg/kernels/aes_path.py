"""Which AES instructions a kernel may use."""

from __future__ import annotations

import numba
from numba.core.registry import cpu_target

VAES512, VAES256, AESNI, PORTABLE = "vaes512", "vaes256", "aesni", "portable"


def compilable_paths() -> tuple[str, ...]:
    """List the paths that can be compiled here, fastest first; the last is always ``portable``.

    The answer comes from the code generator that numba will use, never from the CPU: the two differ under
    NUMBA_CPU_NAME and NUMBA_CPU_FEATURES, and an instruction that the generator does not know aborts the process.
    """
    if numba.config.DISABLE_JIT:
        return (PORTABLE,)
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    have = {feature[1:] for feature in features.split(",") if feature.startswith("+")}
    if not triple.startswith("x86_64"):
        return (PORTABLE,)
    needs = ((VAES512, {"vaes", "avx512f"}), (VAES256, {"vaes", "avx2"}), (AESNI, {"aes", "sse2"}))
    return (*(path for path, features_needed in needs if features_needed <= have), PORTABLE)


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
