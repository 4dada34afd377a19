"""Whether this machine is ready: kernels compiled ahead of a round, and checked against known answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from secagg import simulation
from secagg.encoding.ring import MAX_RING_BITS, compile_kernels, lane_dtype, pack, unpack_add
from secagg.errors import SelfTestError
from secagg.kernels import aes_path, jit
from secagg.primitives import prg, shamir
from secagg.protocol import protocol_of, protocols

_WIDTHS = (1, 13, 16, 17, 26, 32, 33, 57, 63, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCache:
    """Where this process keeps the kernels that it compiles, for the next one.

    Attributes:
        path: the directory; None where no directory could be written.
        writable: whether a kernel that is compiled now would be kept there.
        passed_over: NUMBA_CACHE_DIR, where that is set and could not be written; else None.
        enabled: whether kernels are compiled at all; not where NUMBA_DISABLE_JIT is set.
    """

    path: str | None
    writable: bool
    passed_over: str | None
    enabled: bool

    def describe(self) -> str:
        """Return a clause for people: where kernels are kept, or what it costs that they are not, and what to set."""
        if not self.enabled:
            return "nothing is compiled or kept, since NUMBA_DISABLE_JIT is set"
        unused = f" (NUMBA_CACHE_DIR is {self.passed_over}, which cannot be written)" if self.passed_over else ""
        if self.writable:
            return f"kept in {self.path}{unused}"
        where = "nowhere" if self.path is None else f"no longer in {self.path}, which cannot be written"
        return (
            f"kept {where}: every process compiles anew, for 4 to 15 s; "
            f"set NUMBA_CACHE_DIR to a directory that can be written{unused}"
        )


class SelfTest(TypedDict):
    """What ``selftest`` checked.

    Keys:
        aes_path: the instructions that masks take here: vaes512, vaes256, aesni, arm or portable.
        paths_checked: every path that runs on this machine, each checked against NIST's and pycryptodome's answers.
        ring_widths_checked: ring widths whose packing was checked against Python integers.
        rounds_checked: rounds with drop-outs that gave the exact sum, as their protocols call them: masks by graph.
        kernels_compiled: how many kernels this process had to compile.
        cache_path: the directory that they are kept in for the next process; None where none could be written.
        cache_writable: whether more would be kept.
    """

    aes_path: str
    paths_checked: list[str]
    ring_widths_checked: list[int]
    rounds_checked: list[str]
    kernels_compiled: int
    cache_path: str | None
    cache_writable: bool


def warmup(params: Any) -> int:
    """Compile every kernel that a round with ``params`` runs, or load it from the disk, so that no stage waits for it.

    Args:
        params: of any protocol.

    Returns:
        How many kernels were compiled afresh, about half a second each; 0 once a machine has them.

    Raises:
        InputError: ``params`` are no protocol's.
        SelfTestError: a mask kernel gives a wrong answer on this machine.
    """
    return protocol_of(params).warmup(params)


def warmup_all(begun: Callable[[int], None] = lambda width: None) -> int:
    """Do as ``warmup`` does for every round there is: nearly 300 kernels, which takes minutes where none is at hand.

    Args:
        begun: is called with each ring width, 1 to 64, before its kernels are compiled.

    Raises:
        SelfTestError: a mask kernel gives a wrong answer on this machine.
    """
    before = jit.compiled_afresh()
    for width in range(1, MAX_RING_BITS + 1):
        begun(width)
        compile_kernels(width, (np.float32, np.float64))
    for protocol in protocols():
        protocol.warmup(None)
    return jit.compiled_afresh() - before


def selftest() -> SelfTest:
    """Check every AES path that this machine runs, packing, secret sharing, and the whole rounds that protocols name.

    Raises:
        SelfTestError: an answer is wrong; the text says whose.
    """
    before = jit.compiled_afresh()
    paths = list(aes_path.compilable_paths())
    for path in paths:
        prg.self_test(path)
    for width in _WIDTHS:
        _check_packing(width)
    shamir.self_test()
    rounds = []
    for protocol in protocols():
        for name, params in protocol.checked_rounds().items():
            _check_round(name, params)
            rounds.append(name)
    return SelfTest(
        aes_path=prg.active_path(),
        paths_checked=paths,
        ring_widths_checked=list(_WIDTHS),
        rounds_checked=rounds,
        kernels_compiled=jit.compiled_afresh() - before,
        cache_path=kernel_cache().path,
        cache_writable=kernel_cache().writable,
    )


def kernel_cache() -> KernelCache:
    """Return where this process keeps compiled kernels, and whether it can."""
    location = jit.cache_location()
    return KernelCache(
        path=None if location is None else str(location),
        writable=jit.cache_is_writable(),
        passed_over=jit.passed_over(),
        enabled=jit.is_compiling(),
    )


def kernels_loaded() -> int:
    """Return how many kernels this process took from the disk."""
    return jit.loaded_from_cache()


def _check_packing(width: int) -> None:
    dtype = lane_dtype(width)
    count = 67
    values = [(0x9E3779B97F4A7C15 * (i + 1)) % (1 << width) for i in range(count)]
    words: NDArray[np.unsignedinteger] = np.array(values, dtype=dtype)
    packed = pack(words, width)
    expected = sum(value << (width * i) for i, value in enumerate(values)).to_bytes(len(packed), "little")
    back = np.zeros(count, dtype=dtype)
    unpack_add(packed, back, width)
    if packed.tobytes() != expected or back.tolist() != values:
        raise SelfTestError(f"packing {width}-bit values gives a wrong answer on this machine")


def _check_round(name: str, params: Any) -> None:
    protocol = protocol_of(params)
    first, last = protocol.input_stage(params), protocol.stages(params)[-1]
    codes = np.arange(params.clients * params.dimension).reshape(params.clients, -1) % 256
    result = simulation.simulate(codes - params.encoding.clip, params=params, faults={1: first, 4: last})
    expected = codes[list(result.survivors)].sum(axis=0)
    if 1 in result.survivors or not np.array_equal(result.total, expected.astype(np.uint64)):
        raise SelfTestError(f"a {name} round of {params.protocol} gives a wrong sum on this machine")
