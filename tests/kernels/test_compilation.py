"""What is compiled: which path, how often, and what happens where nothing can be written."""

from __future__ import annotations

import os
import subprocess
import sys
import types

import numba
import pytest

from secagg.kernels import aes_path, jit


def run(code: str, **env: str) -> list[str]:
    """Standard output's words of a fresh process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_") and "COV" not in name}
    done = subprocess.run([sys.executable, "-c", code], env={**kept, **env}, capture_output=True, text=True, check=True)
    return done.stdout.split()


TWO_ROUNDS = """
import numpy as np
from secagg.encoding import ring
from secagg.kernels import jit
from secagg.primitives import prg
for bits, dtype in ((26, np.float32), (13, np.float64)):
    ring.compile_kernels(bits, [dtype])
prg.stream(bytes(24), 5000, np.uint16)
print(jit.compiled_afresh(), jit.loaded_from_cache())
"""


def test_a_second_process_compiles_nothing(tmp_path):
    first, none = map(int, run(TWO_ROUNDS, NUMBA_CACHE_DIR=str(tmp_path)))
    assert none == 0
    # At the least: packing and unpacking at two widths, with the generic kernels inside them, and quantising twice.
    assert first >= 6
    compiled, loaded = map(int, run(TWO_ROUNDS, NUMBA_CACHE_DIR=str(tmp_path)))
    assert compiled == 0
    assert 6 <= loaded <= first


def test_importing_the_package_loads_no_compiler():
    assert run("import sys, secagg; print('numba' in sys.modules)") == ["False"]


@pytest.mark.skipif(not jit.is_compiling(), reason="nothing is compiled")
def test_without_a_place_for_the_cache_kernels_are_compiled_uncached(monkeypatch):
    from numba.core import caching

    # The class lost its underscore in a later numba.
    implementation = getattr(caching, "CacheImpl", None) or caching._CacheImpl
    monkeypatch.setattr(implementation, "_locator_classes", [])

    def double(x: int) -> int:
        return 2 * x

    with pytest.raises(RuntimeError):
        numba.njit(cache=True)(double)
    before = jit.compiled_afresh()
    assert jit.kernel(double)(21) == 42
    assert jit.compiled_afresh() == before + 1


def test_a_source_number_follows_the_text(tmp_path):
    module = types.ModuleType("emitter")
    module.__file__ = str(tmp_path / "emitter.py")
    assert jit.source_number(module) == 0
    numbers = set()
    for text in ("x = 1", "x = 2", "x = 1"):
        (tmp_path / "emitter.py").write_text(text)
        numbers.add(jit.source_number(module))
    assert len(numbers) == 2
    assert 0 not in numbers


@pytest.mark.skipif(not jit.is_compiling(), reason="nothing is compiled")
def test_mask_kernels_close_over_the_text_of_their_emitters():
    from secagg.kernels import aes_arm, aes_counter, aes_x86

    number = jit.source_number(aes_arm, aes_x86)
    for kernel in (aes_counter.accumulate_512, aes_counter.accumulate_arm, aes_counter.expand_keys_x86):
        assert number in [cell.cell_contents for cell in kernel.py_func.__closure__]


@pytest.mark.skipif(not jit.is_compiling(), reason="nothing is compiled")
def test_kernels_hold_no_interpreter_lock_and_divide_like_numpy():
    @jit.kernel
    def ratio(a: float, b: float) -> float:
        return a / b

    assert ratio(1.0, 0.0) == float("inf")
    assert ratio.targetoptions["nogil"]


PATH = "from secagg.kernels import aes_path; print(*aes_path.compilable_paths())"
X86 = os.uname().machine == "x86_64"


@pytest.mark.skipif(not X86, reason="features of x86-64")
@pytest.mark.parametrize(
    ("env", "paths"),
    [
        ({"NUMBA_CPU_NAME": "generic"}, "portable"),
        ({"NUMBA_CPU_NAME": "znver2", "NUMBA_CPU_FEATURES": "+sse2,+avx2,-aes"}, "portable"),
        ({"NUMBA_CPU_NAME": "znver2", "NUMBA_CPU_FEATURES": "+sse2,+avx2,+aes"}, "aesni portable"),
        ({"NUMBA_CPU_NAME": "znver3", "NUMBA_CPU_FEATURES": "+sse2,+avx2,+aes,+vaes"}, "vaes256 aesni portable"),
        (
            {"NUMBA_CPU_NAME": "znver4", "NUMBA_CPU_FEATURES": "+sse2,+avx2,+aes,+vaes,+avx512f"},
            "vaes512 vaes256 aesni portable",
        ),
        ({"NUMBA_DISABLE_JIT": "1"}, "portable"),
    ],
)
def test_the_code_generator_decides_the_path(env, paths):
    assert run(PATH, **env) == paths.split()


def test_masks_work_for_a_generic_cpu_and_without_a_compiler(tmp_path):
    code = (
        "from secagg.primitives import prg; from secagg.encoding import ring; import numpy as np; prg.self_test();"
        "w = np.arange(100, dtype=np.uint32); a = np.zeros(100, np.uint32);"
        "ring.unpack_add(ring.pack(w, 26), a, 26); print(prg.active_path(), (a == w).all())"
    )
    for env in ({"NUMBA_CPU_NAME": "generic", "NUMBA_CACHE_DIR": str(tmp_path)}, {"NUMBA_DISABLE_JIT": "1"}):
        assert run(code, **env) == ["portable", "True"]


def test_a_path_that_cannot_be_compiled_is_refused():
    assert aes_path.aes_path("portable") == "portable"
    with pytest.raises(ValueError, match="cannot be compiled here"):
        aes_path.aes_path("vaes1024")


@pytest.mark.skipif(not jit.is_compiling(), reason="nothing is compiled")
def test_after_warmup_a_round_compiles_nothing(tmp_path):
    script = """
import numpy as np, secagg
from secagg.kernels import jit
for clients, protocol in ((5, "secagg"), (44, "secagg+")):
    params = secagg.RoundParams.plan(clients=clients, dimension=40, dropout=0.2, corrupt=0, protocol=protocol,
                                     encoding=secagg.FixedPoint(clip=1.0, bits=16))
    secagg.warmup(params)
    before = jit.compiled_afresh()
    for dtype in (np.float32, np.float64):
        secagg.simulate(np.zeros((clients, 40), dtype), params=params, faults={1: "masked_input"})
    print(jit.compiled_afresh() - before)
"""
    shown = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.split() == ["0", "0"]
