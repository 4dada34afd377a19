"""AES-128 key schedules, and counter mode that adds its key stream in place, in the CPU's own AES instructions.

One generator serves every instruction set; what an instruction set has of its own is in ``aes_x86`` and ``aes_arm``.
No table is indexed and nothing branches by a key or a word, so the time taken is independent of both. Sources:
FIPS 197; NIST SP 800-38A section 6.5.

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

from secagg.kernels import aes_arm, aes_x86
from secagg.kernels.jit import kernel, source_number

ROUND_KEYS = 11
KEY_BYTES, NONCE_BYTES, BLOCK_BYTES = 16, 8, 16

# Instruction sets by the number that a kernel closes over: the emitting module, and the blocks a register holds.
_ARM, _X86_128, _X86_256, _X86_512 = 0, 1, 2, 4
_INSTRUCTIONS = {_ARM: (aes_arm, 1), _X86_128: (aes_x86, 1), _X86_256: (aes_x86, 2), _X86_512: (aes_x86, 4)}
# Where all eleven round keys stay in registers through a loop; elsewhere they would be spilled, and are loaded anew.
_THIRTY_TWO_REGISTERS = {_ARM, _X86_512}
# Registers in flight: enough independent chains to hide the latency of one AES instruction without spilling any.
_REGISTERS = 8
_ROUND_CONSTANTS = (0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x1B, 0x36)
_I32, _I64 = ir.IntType(32), ir.IntType(64)
_BLOCK, _WORDS = ir.VectorType(_I64, 2), ir.VectorType(_I32, 4)
# The disk cache compares the date of this file alone; this number tells it of edits to the emitting ones.
_EMITTERS = source_number(aes_arm, aes_x86)

AccumulateKernel = Callable[..., None]
ExpandKernel = Callable[[NDArray[np.uint8], NDArray[np.uint8]], None]


def step_bytes(lanes: int) -> int:
    """Bytes of key stream that one step makes; a step begins at a multiple of this many bytes of the stream."""
    return _REGISTERS * lanes * BLOCK_BYTES


# ---------------------------------------------------------------------------------------------------- code generation


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


def _differences(lanes: int) -> list[ir.Constant]:
    """What tells the counter blocks of each register of a step from the step's first.

    A step begins at a multiple of its own number of blocks, so the low bits of its first index are zero and the
    big-endian sum is an exclusive or with a constant in the last byte.
    """
    kind = ir.VectorType(_I64, 2 * lanes)
    return [
        ir.Constant(kind, [_I64((lanes * r + i // 2) << 56 if i % 2 else 0) for i in range(2 * lanes)])
        for r in range(_REGISTERS)
    ]


def emit_steps(
    builder: ir.IRBuilder,
    instructions: int,
    combine: Callable[[ir.Value, ir.Value], ir.Value],
    word_bytes: int,
    addresses: tuple[ir.Value, ir.Value, ir.Value],
    block: ir.Value,
    steps: ir.Value,
) -> None:
    """Emit the loop that combines ``steps`` steps of a key stream, from index ``block``, with words in memory.

    ``addresses`` are those of the words, of the stream's eleven round keys and of its nonce.
    """
    emitter, lanes = _INSTRUCTIONS[instructions]
    words, keys, nonce_address = addresses

    def loaded(i: int) -> ir.Value:
        return _repeat(builder, _load(builder, builder.add(keys, _I64(BLOCK_BYTES * i)), _BLOCK, 1), lanes)

    round_key: Callable[[int], ir.Value] = loaded
    if instructions in _THIRTY_TWO_REGISTERS:
        round_key = [loaded(i) for i in range(ROUND_KEYS)].__getitem__
    nonce = _load(builder, nonce_address, _I64, 1)
    head = builder.insert_element(ir.Constant(_BLOCK, ir.Undefined), nonce, _I32(0))
    vector = ir.VectorType(ir.IntType(8 * word_bytes), BLOCK_BYTES * lanes // word_bytes)
    with cgutils.for_range(builder, steps) as loop:
        index = builder.bswap(builder.add(block, builder.mul(loop.index, _I64(_REGISTERS * lanes))))
        counter = _repeat(builder, builder.insert_element(head, index, _I32(1)), lanes)
        start = builder.add(words, builder.mul(loop.index, _I64(step_bytes(lanes))))
        stream = emitter.encrypt(builder, counter, _differences(lanes), round_key, lanes)
        for r, register in enumerate(stream):
            address = builder.add(start, _I64(BLOCK_BYTES * lanes * r))
            old = _load(builder, address, vector, word_bytes)
            _store(builder, combine(old, builder.bitcast(register, vector)), address, word_bytes)


def emit_key_schedule(builder: ir.IRBuilder, instructions: int, key: ir.Value, round_keys: ir.Value) -> None:
    """Emit the expansion of the key at address ``key`` to the eleven round keys at ``round_keys``."""
    emitter, _ = _INSTRUCTIONS[instructions]
    zero = ir.Constant(_WORDS, [_I32(0)] * 4)

    def shifted(x: ir.Value, *order: int) -> ir.Value:  # 4 stands for a zero word
        return builder.shuffle_vector(x, zero, ir.Constant(_WORDS, [_I32(i) for i in order]))

    x = _load(builder, key, _WORDS, 1)
    _store(builder, x, round_keys, 1)
    for i, constant in enumerate(_ROUND_CONSTANTS, start=1):
        substituted = emitter.substituted_word(builder, x, constant)
        x = builder.xor(x, shifted(x, 4, 0, 1, 2))  # running exclusive or over the four words, in two steps
        x = builder.xor(x, shifted(x, 4, 4, 0, 1))
        x = builder.xor(x, substituted)
        _store(builder, x, builder.add(round_keys, _I64(BLOCK_BYTES * i)), 1)


def _emit_steps(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
    instructions, _, subtract, words_type, _, keys_type, nonces_type, *_ = signature.args
    _, _, _, words, word, keys, nonces, mask, block, steps = args
    word_bytes = words_type.dtype.bitwidth // 8
    addresses = (
        _address(context, builder, words_type, words, builder.mul(word, _I64(word_bytes))),
        _address(context, builder, keys_type, keys, builder.mul(mask, _I64(ROUND_KEYS * BLOCK_BYTES))),
        _address(context, builder, nonces_type, nonces, builder.mul(mask, _I64(NONCE_BYTES))),
    )
    combine = builder.sub if subtract.literal_value else builder.add
    emit_steps(builder, instructions.literal_value, combine, word_bytes, addresses, block, steps)
    return context.get_dummy_value()


@intrinsic(prefer_literal=True)
def _steps(  # type: ignore[no-untyped-def]
    typing_context, instructions, emitters, subtract, words, word, round_keys, nonces, mask, block, steps
):
    """Add ``steps`` steps of key stream ``mask``, from index ``block``, to the words from ``word``; or subtract them.

    ``instructions`` and ``subtract`` (0 or 1) are constants: to choose in here would interleave the chains badly.
    ``emitters`` is ``_EMITTERS``, which is in the kernel's key on disk by being mentioned.
    """
    numbers = (types.int64, types.uint64, types.int64)
    signature = types.void(instructions, types.int64, subtract, words, types.int64, round_keys, nonces, *numbers)
    return signature, _emit_steps


def _emit_expand(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
    instructions, _, keys_type, _, round_keys_type = signature.args
    _, _, keys, mask, round_keys = args
    key = _address(context, builder, keys_type, keys, builder.mul(mask, _I64(KEY_BYTES + NONCE_BYTES)))
    offset = builder.mul(mask, _I64(ROUND_KEYS * BLOCK_BYTES))
    out = _address(context, builder, round_keys_type, round_keys, offset)
    emit_key_schedule(builder, instructions.literal_value, key, out)
    return context.get_dummy_value()


@intrinsic(prefer_literal=True)
def _expand(typing_context, instructions, emitters, keys, mask, round_keys):  # type: ignore[no-untyped-def]
    """Write the eleven round keys of key ``mask``."""
    return types.void(instructions, types.int64, keys, types.int64, round_keys), _emit_expand


@intrinsic
def _take(typing_context, taken):  # type: ignore[no-untyped-def]
    """Return ``taken[0]`` and add one to it, as one step that no other thread comes between."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        pointer = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", pointer, _I64(1), "monotonic")

    return types.int64(taken), emit


# ------------------------------------------------------------------------------------------------------------ kernels


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


def _expand_kernel(instructions: int) -> ExpandKernel:
    emitters = _EMITTERS

    @kernel
    def expand_keys(keys: NDArray[np.uint8], round_keys: NDArray[np.uint8]) -> None:
        for mask in range(keys.shape[0]):
            _expand(instructions, emitters, keys, mask, round_keys)

    return expand_keys


def _accumulate_kernel(instructions: int) -> AccumulateKernel:
    emitters = _EMITTERS
    step_blocks = step_bytes(_INSTRUCTIONS[instructions][1]) // BLOCK_BYTES

    @kernel
    def accumulate(
        words: NDArray[Any],
        round_keys: NDArray[np.uint8],
        nonces: NDArray[np.uint64],
        subtract: NDArray[np.bool_],
        first_block: np.uint64,
        first_word: int,
        tile_words: int,
        scratch: NDArray[Any],
        taken: NDArray[np.int64],
    ) -> None:
        blocks = np.uint64(step_blocks)
        per_block = BLOCK_BYTES // words.itemsize
        per_step = step_blocks * per_block
        # Steps begin at multiples of their own size; the first is entered ``skip`` words late.
        entered = first_block - first_block % blocks
        skip: Any = np.int64(first_block % blocks) * per_block + first_word
        tile_steps = max(1, tile_words // per_step)
        tile_size = tile_steps * per_step
        tiles = (skip + words.size + tile_size - 1) // tile_size if words.size else 0
        tile: Any = _take(taken)
        while tile < tiles:
            start, end = max(tile * tile_size - skip, 0), min((tile + 1) * tile_size - skip, words.size)
            block = entered + np.uint64(tile * tile_steps) * blocks
            late = skip if tile == 0 else 0
            head = min(end - start, per_step - late) if late else 0
            steps = (end - start - head) // per_step
            tail = end - start - head - steps * per_step
            after_head = block + blocks if head else block
            last = after_head + np.uint64(steps) * blocks
            for mask in range(nonces.size):
                if head:
                    scratch[:] = 0
                    _steps(instructions, emitters, 0, scratch, 0, round_keys, nonces, mask, block, 1)
                    _add_or_subtract(words, start, scratch, late, head, subtract[mask])
                if subtract[mask]:
                    _steps(instructions, emitters, 1, words, start + head, round_keys, nonces, mask, after_head, steps)
                else:
                    _steps(instructions, emitters, 0, words, start + head, round_keys, nonces, mask, after_head, steps)
                if tail:
                    scratch[:] = 0
                    _steps(instructions, emitters, 0, scratch, 0, round_keys, nonces, mask, last, 1)
                    _add_or_subtract(words, end - tail, scratch, 0, tail, subtract[mask])
            tile = _take(taken)

    return accumulate


# Each expands keys, the first 16 bytes of each row of ``keys`` uint8[m, 24], to ``round_keys`` uint8[m, 11, 16].
expand_keys_x86 = _expand_kernel(_X86_128)
expand_keys_arm = _expand_kernel(_ARM)

# Each adds to ``words`` (uint16, uint32 or uint64 [n]), or subtracts where ``subtract`` bool[m] says so, the m key
# streams of ``round_keys`` uint8[m, 11, 16] and ``nonces`` uint64[m] (the 8 bytes as they lie in memory), from word
# ``first_word`` (less than a block's number of words) of block ``first_block`` on.
#
# Every stream passes over one tile of about ``tile_words`` words before the next tile is begun, so that a tile stays in
# the cache. Tiles are taken by their number from ``taken`` int64[1], zero at first: threads that call with the same
# ``words`` and ``taken`` share the work, each until nothing is left to take. ``scratch``, of the dtype of ``words``, is
# one thread's own: ``step_bytes`` bytes of it are overwritten.
accumulate_512 = _accumulate_kernel(_X86_512)
accumulate_256 = _accumulate_kernel(_X86_256)
accumulate_128 = _accumulate_kernel(_X86_128)
accumulate_arm = _accumulate_kernel(_ARM)
