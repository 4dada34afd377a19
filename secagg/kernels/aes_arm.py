"""AES-128 in the instructions of 64-bit Arm, as code for ``secagg.kernels.aes_counter`` to put together.

AESE is AddRoundKey, ShiftRows and SubBytes; AESMC is MixColumns. No table is indexed and nothing branches by a key or
a block. Sources: FIPS 197; Arm Architecture Reference Manual, A-profile, C7.2.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba.core import cgutils

_I8, _I32 = ir.IntType(8), ir.IntType(32)
_BYTES, _WORDS = ir.VectorType(_I8, 16), ir.VectorType(_I32, 4)


def _aes_instruction(module: ir.Module, name: str, arguments: int) -> ir.Function:
    signature = ir.FunctionType(_BYTES, [_BYTES] * arguments)
    return cgutils.get_or_insert_function(module, signature, f"llvm.aarch64.crypto.{name}")


def encrypt(
    builder: ir.IRBuilder,
    block: ir.Value,
    differences: list[ir.Constant],
    round_key: Callable[[int], ir.Value],
    lanes: int,
) -> list[ir.Value]:
    """Emit the encryption of ``block`` exclusive-or each of ``differences``, every register through a round in turn.

    ``round_key`` emits round key 0 to 10; ``lanes`` is 1.
    """
    aese, aesmc = _aes_instruction(builder.module, "aese", 2), _aes_instruction(builder.module, "aesmc", 1)
    state = [builder.bitcast(builder.xor(block, difference), _BYTES) for difference in differences]
    for i in range(9):
        key = builder.bitcast(round_key(i), _BYTES)
        state = [builder.call(aesmc, [builder.call(aese, [x, key])]) for x in state]
    before_last, last = (builder.bitcast(round_key(i), _BYTES) for i in (9, 10))
    return [builder.xor(builder.call(aese, [x, before_last]), last) for x in state]


def substituted_word(builder: ir.IRBuilder, key: ir.Value, constant: int) -> ir.Value:
    """Emit SubWord(RotWord(w)) xor ``constant``, w the last word of a round key <4 x i32>, in all four words.

    With one word in every column ShiftRows moves nothing, and AESE under a zero key is SubBytes alone.
    """
    aese = _aes_instruction(builder.module, "aese", 2)
    columns = builder.shuffle_vector(key, ir.Constant(_WORDS, ir.Undefined), ir.Constant(_WORDS, [_I32(3)] * 4))
    zero = ir.Constant(_BYTES, [_I8(0)] * 16)
    words = builder.bitcast(builder.call(aese, [builder.bitcast(columns, _BYTES), zero]), _WORDS)
    low, high = (ir.Constant(_WORDS, [_I32(bits)] * 4) for bits in (8, 24))
    rotated = builder.or_(builder.lshr(words, low), builder.shl(words, high))
    return builder.xor(rotated, ir.Constant(_WORDS, [_I32(constant)] * 4))
