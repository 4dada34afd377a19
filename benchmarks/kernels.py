"""The kernels beside what bounds them and what they replace: one run, the best of interleaved rounds.

Command: python benchmarks/kernels.py [--rounds N] [--json FILE]
One thread, but for the case that says two. The ceiling is the same steps with the key stream folded into one register
instead of added to memory: what the CPU's AES units give when nothing is read or written.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numba
import numpy as np
import typer
from Crypto.Cipher import AES
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from rich.console import Console
from rich.table import Table

from hardware import machine_information
from secagg.encoding import ring
from secagg.kernels import aes_counter, aes_path, fixed
from secagg.primitives import prg

DIMENSION = 1 << 20
MASK_WORDS = 1 << 20
MASKS = 128
RING_BITS = 26
UPLOADS = 64
MIB = 1 << 20
LARGE, SMALL = 4 * MIB, MIB // 4

OPENSSL_LARGE, OPENSSL_SMALL = "OpenSSL key stream, 4 MiB pieces", "OpenSSL key stream, 256 KiB pieces"
PYCRYPTODOME = "pycryptodome key stream, 4 MiB pieces"
TWO_THREADS = "masks added, two threads"
CEILING, TWO_CEILINGS = "AES in registers only", "AES in registers only, two threads"
NUMPY_COPY = "numpy copy, 4 MiB to 4 MiB"
NUMPY_ADD = "numpy float32 add in place"
UNPACK_ADD = f"unpack {RING_BITS} bits and add"

Case = tuple[Callable[[], Any], float, str]


_I64 = ir.IntType(64)


@intrinsic(prefer_literal=True)
def _register_steps(typing_context, instructions, round_keys, steps):  # type: ignore[no-untyped-def]
    """Encrypt ``steps`` steps of counter blocks and return the exclusive or of them all."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        emitter, lanes = aes_counter._INSTRUCTIONS[signature.args[0].literal_value]
        keys = aes_counter._address(context, builder, signature.args[1], args[1], _I64(0))
        register = ir.VectorType(_I64, 2 * lanes)

        def round_key(i: int) -> ir.Value:
            key = aes_counter._load(builder, builder.add(keys, _I64(16 * i)), aes_counter._BLOCK, 1)
            return aes_counter._repeat(builder, key, lanes)

        held = [round_key(i) for i in range(aes_counter.ROUND_KEYS)]
        total = cgutils.alloca_once_value(builder, ir.Constant(register, [_I64(0)] * (2 * lanes)))
        with cgutils.for_range(builder, args[2]) as loop:
            block = builder.insert_element(
                ir.Constant(aes_counter._BLOCK, [_I64(0)] * 2), loop.index, ir.IntType(32)(1)
            )
            counter = aes_counter._repeat(builder, block, lanes)
            folded = builder.load(total)
            for x in emitter.encrypt(builder, counter, aes_counter._differences(lanes), held.__getitem__, lanes):
                folded = builder.xor(folded, builder.bitcast(x, register))
            builder.store(folded, total)
        return builder.extract_element(builder.load(total), ir.IntType(32)(0))

    return types.uint64(instructions, round_keys, types.int64), emit


def _ceiling_kernel(instructions: int) -> Callable[[Any, int], Any]:
    @numba.njit(nogil=True)
    def in_registers(round_keys, steps):  # type: ignore[no-untyped-def]
        return _register_steps(instructions, round_keys, steps)

    return in_registers


def ceiling_cases() -> dict[str, Case]:
    """Key stream that is added to no memory, by the fastest compiled path, on one thread and on two."""
    numbers = {aes_path.VAES512: 4, aes_path.VAES256: 2, aes_path.AESNI: 1, aes_path.ARM: 0}
    if prg.active_path() not in numbers:
        return {}
    number = numbers[prg.active_path()]
    step = aes_counter.step_bytes(max(number, 1))
    keys = prg.MaskKeys.expand(bytes(prg.MASK_KEY_BYTES))._round_keys[0]
    run = _bind(_ceiling_kernel(number), keys, MASKS * MASK_WORDS * 4 // step)
    amount = MASKS * MASK_WORDS * 4 / 1e9
    return {CEILING: (run, amount, "GB/s"), TWO_CEILINGS: (_bind(_in_two_threads, run), 2 * amount, "GB/s")}


def _in_two_threads(run: Callable[[], Any]) -> None:
    other = threading.Thread(target=run)
    other.start()
    run()
    other.join()


def mask_cases() -> dict[str, Case]:
    """Masks over a vector of 2^20 words, and the libraries' key streams alone; in bytes of key stream."""
    rng = np.random.default_rng(0)
    words = np.zeros(MASK_WORDS, np.uint32)
    signs = np.arange(MASKS) % 2 == 0
    cases: dict[str, Case] = {}
    for path in aes_path.compilable_paths():
        prg.self_test(path)
        keys = prg.MaskKeys.expand(rng.bytes(MASKS * prg.MASK_KEY_BYTES), path=path)
        run = _bind(prg.accumulate_blocks, words, keys, signs)
        cases[_masks(path)] = (run, MASKS * words.nbytes / 1e9, "GB/s")
        if path == prg.active_path():
            both = _bind(_masks_in_two_threads, words, keys, signs)
            cases[TWO_THREADS] = (both, MASKS * words.nbytes / 1e9, "GB/s")
    zeros, out = bytes(LARGE), bytearray(LARGE + 16)
    encryptor = Cipher(algorithms.AES(rng.bytes(16)), modes.CTR(rng.bytes(16))).encryptor()
    pieces = [memoryview(zeros)[:SMALL]] * (LARGE // SMALL)
    cases[OPENSSL_LARGE] = (lambda: encryptor.update_into(zeros, out), LARGE / 1e9, "GB/s")
    cases[OPENSSL_SMALL] = (lambda: [encryptor.update_into(piece, out) for piece in pieces], LARGE / 1e9, "GB/s")
    cipher = AES.new(rng.bytes(16), AES.MODE_CTR, nonce=rng.bytes(8))
    cases[PYCRYPTODOME] = (lambda: cipher.encrypt(zeros, output=memoryview(out)[:LARGE]), LARGE / 1e9, "GB/s")
    return cases


def vector_cases() -> dict[str, Case]:
    """Packing, adding and quantising 2^20 values; uploads and summands are distinct, so they come from memory."""
    rng = np.random.default_rng(1)
    words = rng.integers(0, 1 << RING_BITS, DIMENSION, np.uint32)
    packed = ring.pack(words, RING_BITS)
    uploads = [packed.copy() for _ in range(UPLOADS)]
    floats = [rng.standard_normal(DIMENSION).astype(np.float32) for _ in range(UPLOADS)]
    acc, total = np.zeros(DIMENSION, np.uint32), np.zeros(DIMENSION, np.float32)
    copy = np.zeros_like(total)
    random, codes = rng.integers(0, 1 << 32, DIMENSION, np.uint32), np.zeros(DIMENSION, np.uint32)
    many, one = UPLOADS * DIMENSION / 1e9, DIMENSION / 1e9
    return {
        UNPACK_ADD: (lambda: [ring.unpack_add(body, acc, RING_BITS) for body in uploads], many, "G values/s"),
        NUMPY_COPY: (lambda: [np.copyto(copy, x) for x in floats], UPLOADS * copy.nbytes / 1e9, "GB/s"),
        NUMPY_ADD: (lambda: [np.add(total, x, out=total) for x in floats], many, "G values/s"),
        f"pack {RING_BITS} bits": (lambda: ring.pack_into(words, RING_BITS, packed), one, "G values/s"),
        "quantise float32": (
            lambda: fixed.quantise(floats[0], 3.0, 65535 / 6, 65535, 1, random, codes),
            one,
            "G values/s",
        ),
        "quantise float64": (
            _bind(fixed.quantise, floats[0].astype(np.float64), 3.0, 65535 / 6, 65535, 1, random, codes),
            one,
            "G values/s",
        ),
    }


def _masks_in_two_threads(words: Any, keys: prg.MaskKeys, signs: Any) -> None:
    prg.accumulate_blocks(words, keys, signs, threads=2)


def _bind(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    return lambda: function(*arguments)


def _masks(path: str) -> str:
    return f"masks added, {path}"


def measure(cases: dict[str, Case], rounds: int) -> dict[str, float]:
    """Return each case's best rate; every round runs every case once, so that a slow spell meets them all."""
    best = dict.fromkeys(cases, float("inf"))
    for run, *_ in cases.values():
        run()
    for _ in range(rounds):
        for name, (run, *_) in cases.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], time.perf_counter() - start)
    return {name: cases[name][1] / seconds for name, seconds in best.items()}


def ratios(rates: dict[str, float]) -> dict[str, float]:
    """Return how many times a kernel's rate is its rival's."""
    found, fastest = {}, _masks(prg.active_path())
    if CEILING in rates:
        found[f"{fastest} / {CEILING}"] = rates[fastest] / rates[CEILING]
        found[f"{TWO_CEILINGS} / {CEILING}"] = rates[TWO_CEILINGS] / rates[CEILING]
    found[f"{TWO_THREADS} / {fastest}"] = rates[TWO_THREADS] / rates[fastest]
    found[f"{fastest} / {NUMPY_COPY}"] = rates[fastest] / rates[NUMPY_COPY]
    for path in aes_path.compilable_paths():
        for rival in (OPENSSL_LARGE, OPENSSL_SMALL, PYCRYPTODOME):
            found[f"{_masks(path)} / {rival}"] = rates[_masks(path)] / rates[rival]
    found[f"{UNPACK_ADD} / {NUMPY_ADD}"] = rates[UNPACK_ADD] / rates[NUMPY_ADD]
    return found


def show(console: Console, title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def main(
    rounds: Annotated[int, typer.Option(help="Interleaved rounds; the best of each case counts.")] = 15,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rates and ratios to this file.")] = None,
) -> None:
    """Measure the kernels, what bounds them and what they replace."""
    ring.compile_kernels(RING_BITS, (np.float32, np.float64))
    cases = {**ceiling_cases(), **mask_cases(), **vector_cases()}
    rates = measure(cases, rounds)
    console, compared = Console(), ratios(rates)
    machine = f"{binding.get_host_cpu_name()}, numba {numba.__version__}, numpy {np.__version__}"
    show(console, machine, ("case", "rate", "unit"), [(n, f"{r:.2f}", cases[n][2]) for n, r in rates.items()])
    show(console, "ratios", ("kernel / rival", "times"), [(n, f"{r:.2f}") for n, r in compared.items()])
    if json_file is not None:
        document = {"machine": machine_information(), "rounds": rounds, "rates": rates, "ratios": compared}
        document["units"] = {name: case[2] for name, case in cases.items()}
        json_file.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
