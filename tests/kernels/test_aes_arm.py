"""The code for 64-bit Arm, made on any machine, linked by a cross compiler and run under an emulator."""

from __future__ import annotations

import shutil
import subprocess

import llvmlite.binding as llvm
import numpy as np
import pytest
from Crypto.Cipher import AES
from llvmlite import ir

from secagg.kernels import aes_path

TRIPLE = "aarch64-unknown-linux-gnu"
COMPILER = shutil.which("aarch64-linux-gnu-gcc")
EMULATOR = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
LANES = {16: np.uint16, 32: np.uint32, 64: np.uint64}
MASK_KEY = bytes(range(7, 31))
STEPS, FIRST_STEP = 5, 30  # the counter's last byte wraps between steps 31 and 32

MAIN = """
#include <stdint.h>
#include <stdio.h>
static const uint8_t mask_key[24] = {%(key)s};
static uint8_t round_keys[176], words[%(size)d];
void expand(const uint8_t *, uint8_t *);
%(prototypes)s
int main(void) {
    expand(mask_key, round_keys);
    fwrite(round_keys, 1, sizeof round_keys, stdout);
    %(calls)s
    return 0;
}
"""
ONE_CALL = """
    for (unsigned i = 0; i < sizeof words; i++) words[i] = (uint8_t)(i * 7);
    %(name)s(words, round_keys, mask_key + 16, %(block)d, %(steps)d);
    fwrite(words, 1, sizeof words, stdout);
"""


def arm_module() -> ir.Module:
    """The very generator that numba calls, in plain functions."""
    from secagg.kernels import aes_counter

    module, i64 = ir.Module("arm"), ir.IntType(64)
    module.triple = TRIPLE
    expand = ir.Function(module, ir.FunctionType(ir.VoidType(), [i64, i64]), "expand")
    builder = ir.IRBuilder(expand.append_basic_block())
    aes_counter.emit_key_schedule(builder, aes_counter._ARM, *expand.args)
    builder.ret_void()
    for bits in LANES:
        for name in ("add", "sub"):
            function = ir.Function(module, ir.FunctionType(ir.VoidType(), [i64] * 5), f"{name}{bits}")
            builder = ir.IRBuilder(function.append_basic_block())
            words, keys, nonce, block, steps = function.args
            combine = getattr(builder, name)
            aes_counter.emit_steps(builder, aes_counter._ARM, combine, bits // 8, (words, keys, nonce), block, steps)
            builder.ret_void()
    return module


@pytest.fixture(scope="module")
def compiled() -> tuple[bytes, str]:
    """Object code and assembly."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    try:
        target = llvm.Target.from_triple(TRIPLE)
    except RuntimeError:
        pytest.skip("this llvmlite makes no code for Arm")
    machine = target.create_target_machine(cpu="generic", features="+neon,+aes", opt=3, reloc="static")
    module = llvm.parse_assembly(str(arm_module()))
    module.verify()
    return machine.emit_object(module), machine.emit_assembly(module)


def test_code_for_arm(compiled):
    """Each of the six loops sends eight blocks through ten rounds; the schedule takes one AESE a round key."""
    _, assembly = compiled
    instructions = [line.split()[0] for line in assembly.splitlines() if line.startswith("\t") and line.split()]
    assert instructions.count("aese") == 6 * 8 * 10 + 10
    assert instructions.count("aesmc") == 6 * 8 * 9


@pytest.mark.skipif(COMPILER is None, reason="needs aarch64-linux-gnu-gcc to link")
@pytest.mark.skipif(EMULATOR is None, reason="needs qemu-aarch64 to run")
def test_streams_on_arm_are_pycryptodomes(compiled, tmp_path):
    from secagg.kernels import aes_counter

    size = STEPS * aes_counter.step_bytes(1)
    block = FIRST_STEP * aes_counter.step_bytes(1) // 16
    names = [f"{name}{bits}" for bits in LANES for name in ("add", "sub")]
    calls = [ONE_CALL % {"name": name, "block": block, "steps": STEPS} for name in names]
    prototypes = [f"void {name}(uint8_t *, const uint8_t *, const uint8_t *, uint64_t, int64_t);" for name in names]
    source = MAIN % {
        "key": ", ".join(map(str, MASK_KEY)),
        "size": size,
        "prototypes": "\n".join(prototypes),
        "calls": "".join(calls),
    }
    main, kernel, program = tmp_path / "main.c", tmp_path / "kernel.o", tmp_path / "program"
    main.write_text(source)
    kernel.write_bytes(compiled[0])
    subprocess.run([COMPILER, "-static", "-O1", "-o", program, main, kernel], check=True)
    shown = subprocess.run([EMULATOR, program], capture_output=True, check=True, timeout=60).stdout
    round_keys, outputs = shown[:176], shown[176:]
    assert round_keys[:16] == MASK_KEY[:16]
    # Its last round key tells the whole schedule, by AES of one block
    stream = AES.new(MASK_KEY[:16], AES.MODE_CTR, nonce=MASK_KEY[16:], initial_value=block).encrypt(bytes(size))
    before = (np.arange(size) * 7).astype(np.uint8)
    assert len(outputs) == size * len(names)
    for i, name in enumerate(names):
        dtype = np.dtype(LANES[int(name[3:])]).newbyteorder("<")
        combine = {"add": np.add, "sub": np.subtract}[name[:3]]
        expected = combine(before.view(dtype), np.frombuffer(stream, dtype))
        assert outputs[size * i : size * (i + 1)] == expected.tobytes(), name


@pytest.mark.parametrize(
    ("triple", "cpu", "features", "paths"),
    [
        ("aarch64-unknown-linux-gnu", "neoverse-n1", "+neon,+aes,+sha2", ("arm", "portable")),
        ("aarch64-unknown-linux-gnu", "neoverse-n1", "+neon,+crypto", ("arm", "portable")),
        ("aarch64-unknown-linux-gnu", "cortex-a72", "+neon,-aes", ("portable",)),
        ("arm64-apple-darwin23.1.0", "apple-m1", "", ("arm", "portable")),
        ("arm64-apple-darwin23.1.0", "apple-m1", "-aes", ("portable",)),
        ("armv7-unknown-linux-gnueabihf", "cortex-a53", "+neon,+aes", ("portable",)),
        ("riscv64-unknown-linux-gnu", "generic", "+aes", ("portable",)),
    ],
)
def test_the_code_generator_decides_the_path_on_arm(triple, cpu, features, paths):
    assert aes_path.paths_of(triple, cpu, features) == paths
