"""AES-128 key schedules, and counter mode that adds its key stream in place, with the AES instructions of x86-64.

One generator serves three register widths; ``lanes`` is the AES blocks a register holds: 4 (VAES with AVX-512),
2 (VAES with AVX2), 1 (AES-NI). No table is indexed and nothing branches by a key or a word, so the time taken
is independent of both. Sources: FIPS 197; NIST SP 800-38A section 6.5.

Key stream ``j``: block ``i`` is AES under key ``j`` of nonce ``j`` (8 bytes) followed by ``i`` (8 bytes, big-endian);
the bytes are read as little-endian words of the lane type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from secagg.kernels.jit import kernel

ROUND_KEYS = 11
KEY_BYTES, NONCE_BYTES, BLOCK_BYTES = 16, 8, 16

# Registers in flight: enough independent chains to hide the latency of one AES instruction without spilling any.
_REGISTERS = 8
_ROUND_CONSTANTS = (0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x1B, 0x36)
_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BLOCK = ir.VectorType(_I64, 2)

AccumulateKernel = Callable[
    [NDArray[Any], NDArray[np.uint8], NDArray[np.uint64], NDArray[np.bool_], np.uint64, int], None
]


def group_bytes(lanes: int) -> int:
    """Bytes of key stream that one step makes; a step begins at a multiple of this many bytes of the stream."""
    return _REGISTERS * lanes * BLOCK_BYTES


# ---------------------------------------------------------------------------------------------------- code generation


def _aes_instruction(module: ir.Module, name: str, lanes: int) -> ir.Function:
    """Declare ``aesenc`` or ``aesenclast`` on registers of ``lanes`` blocks."""
    register = ir.VectorType(_I64, 2 * lanes)
    suffix = {1: "", 2: ".256", 4: ".512"}[lanes]
    signature = ir.FunctionType(register, [register, register])
    return cgutils.get_or_insert_function(module, signature, f"llvm.x86.aesni.{name}{suffix}")


def _address(context: Any, builder: ir.IRBuilder, array_type: Any, array: ir.Value, offset: ir.Value) -> ir.Value:
    """Address of byte ``offset`` of an array, as an integer."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.add(builder.ptrtoint(data, _I64), offset)


def _load(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type, align: int) -> ir.Value:
    value = builder.load(builder.inttoptr(address, kind.as_pointer()))
    value.align = align
    return value


def _store(builder: ir.IRBuilder, value: ir.Value, address: ir.Value, align: int) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = align


def _repeat(builder: ir.IRBuilder, block: ir.Value, lanes: int) -> ir.Value:
    """Fill a register with one block."""
    pattern = ir.Constant(ir.VectorType(_I32, 2 * lanes), [ir.Constant(_I32, i % 2) for i in range(2 * lanes)])
    return builder.shuffle_vector(block, ir.Constant(_BLOCK, ir.Undefined), pattern)


def _counter_register(builder: ir.IRBuilder, nonce: ir.Value, block: ir.Value, lanes: int) -> ir.Value:
    """The first counter block of a step, in every lane of a register."""
    big_endian = builder.bswap(block)
    counter = builder.insert_element(ir.Constant(_BLOCK, ir.Undefined), nonce, ir.Constant(_I32, 0))
    return _repeat(builder, builder.insert_element(counter, big_endian, ir.Constant(_I32, 1)), lanes)


def _lane_offsets(lanes: int, register: int) -> ir.Constant:
    """What tells the counter blocks of one register from the step's first.

    A step begins at a multiple of its own number of blocks, so the low bits of its first index are zero and the
    big-endian sum is an exclusive or with a constant in the last byte.
    """
    last_byte = [((lanes * register + i // 2) << 56) if i % 2 else 0 for i in range(2 * lanes)]
    return ir.Constant(ir.VectorType(_I64, 2 * lanes), [ir.Constant(_I64, value) for value in last_byte])


def _emit_key_stream(
    builder: ir.IRBuilder, keys: ir.Value, nonce: ir.Value, block: ir.Value, lanes: int
) -> list[ir.Value]:
    """Emit one step's key stream, in registers."""
    aesenc = _aes_instruction(builder.module, "aesenc", lanes)
    aesenclast = _aes_instruction(builder.module, "aesenclast", lanes)

    def round_key(i: int) -> ir.Value:
        address = builder.add(keys, ir.Constant(_I64, BLOCK_BYTES * i))
        return _repeat(builder, _load(builder, address, _BLOCK, 1), lanes)

    whitened = builder.xor(_counter_register(builder, nonce, block, lanes), round_key(0))
    state = [builder.xor(whitened, _lane_offsets(lanes, r)) for r in range(_REGISTERS)]
    for i in range(1, ROUND_KEYS - 1):
        key = round_key(i)
        state = [builder.call(aesenc, [x, key]) for x in state]
    key = round_key(ROUND_KEYS - 1)
    return [builder.call(aesenclast, [x, key]) for x in state]


def _emit_step(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
    lanes_type, subtract_type, words_type, _, keys_type, nonces_type, *_ = signature.args
    _, _, words, word, keys, nonces, mask, block = args
    lanes, word_bytes = lanes_type.literal_value, words_type.dtype.bitwidth // 8
    combine = builder.sub if subtract_type.literal_value else builder.add
    key_offset = builder.mul(mask, ir.Constant(_I64, ROUND_KEYS * BLOCK_BYTES))
    nonce_offset = builder.mul(mask, ir.Constant(_I64, NONCE_BYTES))
    nonce = _load(builder, _address(context, builder, nonces_type, nonces, nonce_offset), _I64, 8)
    stream = _emit_key_stream(builder, _address(context, builder, keys_type, keys, key_offset), nonce, block, lanes)
    word_offset = builder.mul(word, ir.Constant(_I64, word_bytes))
    start = _address(context, builder, words_type, words, word_offset)
    vector = ir.VectorType(ir.IntType(8 * word_bytes), BLOCK_BYTES * lanes // word_bytes)
    for r, register in enumerate(stream):
        address = builder.add(start, ir.Constant(_I64, BLOCK_BYTES * lanes * r))
        old = _load(builder, address, vector, word_bytes)
        _store(builder, combine(old, builder.bitcast(register, vector)), address, word_bytes)
    return context.get_dummy_value()


@intrinsic(prefer_literal=True)
def _step(typing_context, lanes, subtract, words, word, round_keys, nonces, mask, block):  # type: ignore[no-untyped-def]
    """Add one step of key stream ``mask``, from index ``block``, to the words from ``word``; or subtract it.

    ``lanes`` and ``subtract`` (0 or 1) are constants: to choose in here would interleave the chains badly.
    """
    return types.void(lanes, subtract, words, types.int64, round_keys, nonces, types.int64, types.uint64), _emit_step


@intrinsic
def _expand_key(typing_context, keys, mask, round_keys):  # type: ignore[no-untyped-def]
    """Write the eleven round keys of key ``mask``."""
    return types.void(keys, types.int64, round_keys), _emit_key_schedule


def _emit_key_schedule(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
    keys, mask, round_keys = args
    words = ir.VectorType(_I32, 4)
    zero = ir.Constant(words, [ir.Constant(_I32, 0)] * 4)
    assist = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_BLOCK, [_BLOCK, _I8]), "llvm.x86.aesni.aeskeygenassist"
    )

    def shuffle(x: ir.Value, *order: int) -> ir.Value:  # 4 stands for a zero word
        return builder.shuffle_vector(x, zero, ir.Constant(words, [ir.Constant(_I32, i) for i in order]))

    source = builder.mul(mask, ir.Constant(_I64, KEY_BYTES + NONCE_BYTES))
    target = builder.mul(mask, ir.Constant(_I64, ROUND_KEYS * BLOCK_BYTES))
    key = _load(builder, _address(context, builder, signature.args[0], keys, source), _BLOCK, 1)
    out = _address(context, builder, signature.args[2], round_keys, target)
    _store(builder, key, out, 1)
    for i, constant in enumerate(_ROUND_CONSTANTS, start=1):
        assisted = builder.bitcast(builder.call(assist, [key, ir.Constant(_I8, constant)]), words)
        x = builder.bitcast(key, words)
        x = builder.xor(x, shuffle(x, 4, 0, 1, 2))  # running exclusive or over the four words, in two steps
        x = builder.xor(x, shuffle(x, 4, 4, 0, 1))
        key = builder.bitcast(builder.xor(x, shuffle(assisted, 3, 3, 3, 3)), _BLOCK)
        _store(builder, key, builder.add(out, ir.Constant(_I64, BLOCK_BYTES * i)), 1)
    return context.get_dummy_value()


# ------------------------------------------------------------------------------------------------------------ kernels


@kernel
def expand_keys(keys: NDArray[np.uint8], round_keys: NDArray[np.uint8]) -> None:
    """Expand keys, the first 16 bytes of each row of ``keys`` uint8[m, 24], to ``round_keys`` uint8[m, 11, 16]."""
    for mask in range(keys.shape[0]):
        _expand_key(keys, mask, round_keys)


@kernel
def _add_or_subtract(
    words: NDArray[Any], first: int, stream: NDArray[Any], skip: int, count: int, subtract: np.bool_
) -> None:
    """Combine ``count`` words from ``first`` with those of ``stream`` from ``skip``."""
    for i in range(count):
        if subtract:
            words[first + i] -= stream[skip + i]
        else:
            words[first + i] += stream[skip + i]


def _accumulate_kernel(lanes: int) -> AccumulateKernel:
    step_bytes = group_bytes(lanes)
    step_blocks = step_bytes // BLOCK_BYTES

    @kernel
    def accumulate(
        words: NDArray[Any],
        round_keys: NDArray[np.uint8],
        nonces: NDArray[np.uint64],
        subtract: NDArray[np.bool_],
        first_block: np.uint64,
        first_word: int,
    ) -> None:
        blocks = np.uint64(step_blocks)
        per_block = BLOCK_BYTES // words.itemsize
        per_step = step_blocks * per_block
        # Steps begin at multiples of their own size; the first is entered ``skip`` words late.
        entered = first_block - first_block % blocks
        skip: Any = np.int64(first_block % blocks) * per_block + first_word
        head = min(words.size, per_step - skip) if skip else 0
        steps = (words.size - head) // per_step
        tail = words.size - head - steps * per_step
        after_head = entered + blocks if head else entered
        scratch = np.empty(per_step, words.dtype)
        for mask in range(nonces.size):
            if head:
                scratch[:] = 0
                _step(lanes, 0, scratch, 0, round_keys, nonces, mask, entered)
                _add_or_subtract(words, 0, scratch, skip, head, subtract[mask])
            if subtract[mask]:
                for step in range(steps):
                    block = after_head + np.uint64(step) * blocks
                    _step(lanes, 1, words, head + step * per_step, round_keys, nonces, mask, block)
            else:
                for step in range(steps):
                    block = after_head + np.uint64(step) * blocks
                    _step(lanes, 0, words, head + step * per_step, round_keys, nonces, mask, block)
            if tail:
                scratch[:] = 0
                _step(lanes, 0, scratch, 0, round_keys, nonces, mask, after_head + np.uint64(steps) * blocks)
                _add_or_subtract(words, words.size - tail, scratch, 0, tail, subtract[mask])

    return accumulate


# Each adds to ``words`` (uint16, uint32 or uint64 [n]), or subtracts where ``subtract`` bool[m] says so, the m key
# streams of ``round_keys`` uint8[m, 11, 16] and ``nonces`` uint64[m] (the 8 bytes as they lie in memory), from word
# ``first_word`` (less than a block's number of words) of block ``first_block`` on.
accumulate_512 = _accumulate_kernel(4)
accumulate_256 = _accumulate_kernel(2)
accumulate_128 = _accumulate_kernel(1)
