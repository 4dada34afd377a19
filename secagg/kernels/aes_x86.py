"""AES-128 in the instructions of x86-64, as code for ``secagg.kernels.aes_counter`` to put together.

A register holds ``lanes`` blocks: 4 (VAES with AVX-512), 2 (VAES with AVX2) or 1 (AES-NI). No table is indexed and
nothing branches by a key or a block, so the time taken is independent of both. Source: FIPS 197.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba.core import cgutils

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BLOCK, _WORDS = ir.VectorType(_I64, 2), ir.VectorType(_I32, 4)


def aes_instruction(module: ir.Module, name: str, lanes: int) -> ir.Function:
    """Declare ``aesenc`` or ``aesenclast`` on registers of ``lanes`` blocks."""
    register = ir.VectorType(_I64, 2 * lanes)
    suffix = {1: "", 2: ".256", 4: ".512"}[lanes]
    signature = ir.FunctionType(register, [register, register])
    return cgutils.get_or_insert_function(module, signature, f"llvm.x86.aesni.{name}{suffix}")


def encrypt(
    builder: ir.IRBuilder,
    block: ir.Value,
    differences: list[ir.Constant],
    round_key: Callable[[int], ir.Value],
    lanes: int,
) -> list[ir.Value]:
    """Emit the encryption of ``block`` exclusive-or each of ``differences``, every register through a round in turn.

    ``round_key`` emits round key 0 to 10, in every lane of a register.
    """
    middle = aes_instruction(builder.module, "aesenc", lanes)
    last = aes_instruction(builder.module, "aesenclast", lanes)
    whitened = builder.xor(block, round_key(0))
    state = [builder.xor(whitened, difference) for difference in differences]
    for i in range(1, 10):
        key = round_key(i)
        state = [builder.call(middle, [x, key]) for x in state]
    key = round_key(10)
    return [builder.call(last, [x, key]) for x in state]


def substituted_word(builder: ir.IRBuilder, key: ir.Value, constant: int) -> ir.Value:
    """Emit SubWord(RotWord(w)) xor ``constant``, w the last word of a round key <4 x i32>, in all four words."""
    signature = ir.FunctionType(_BLOCK, [_BLOCK, _I8])
    assist = cgutils.get_or_insert_function(builder.module, signature, "llvm.x86.aesni.aeskeygenassist")
    assisted = builder.bitcast(builder.call(assist, [builder.bitcast(key, _BLOCK), _I8(constant)]), _WORDS)
    return builder.shuffle_vector(assisted, ir.Constant(_WORDS, ir.Undefined), ir.Constant(_WORDS, [_I32(3)] * 4))
