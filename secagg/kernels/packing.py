"""Vectors of b-bit ring elements as dense bytes: value i occupies bits [i*b, (i+1)*b) of a little-endian bit string.

The generic kernels run everywhere, as plain Python too. A kernel of one width has its shifts as constants: unpacking
shuffles bytes inside 128-bit halves, which is one instruction on every vector unit, and packing is a straight line.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numpy.typing import NDArray

from secagg.kernels.jit import is_compiling, kernel

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_HALF_BYTES = 16
# Registers of 32 bytes unpacked in one step, and how far ahead of a step the packed bytes are fetched.
_REGISTERS = 4
_PREFETCH_BYTES = 512
# Messages lie in small pages, and looking one up takes longer than adding it: it is touched two pages ahead, once.
_PAGE_BYTES, _TOUCH_BYTES = 4096, 8192

UnpackAddKernel = Callable[[NDArray[np.uint8], NDArray[Any]], None]
PackKernel = Callable[[NDArray[Any], NDArray[np.uint8]], None]


# ------------------------------------------------------------------------------------------------------------- generic


@kernel
def unpack_add_generic(body: NDArray[np.uint8], acc: NDArray[Any], bits: int, first: int) -> None:
    """Add to ``acc`` from value ``first`` on, modulo its lane, the ``bits``-bit values packed in ``body``."""
    mask = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - bits)
    for i in range(first, acc.size):
        position = i * bits
        at, taken = position >> 3, 8 - (position & 7)
        value = np.uint64(body[at]) >> np.uint64(position & 7)
        while taken < bits:
            at += 1
            value |= np.uint64(body[at]) << np.uint64(taken)
            taken += 8
        acc[i : i + 1] += acc.dtype.type(value & mask)


@kernel
def pack_generic(words: NDArray[Any], body: NDArray[np.uint8], bits: int, first: int) -> None:
    """Set the bytes of ``body`` from value ``first`` on, which starts a byte, to the low ``bits`` bits of ``words``."""
    body[first * bits >> 3 :] = 0
    for i in range(first, words.size):
        value, position, left = np.uint64(words[i]), i * bits, bits
        while left > 0:
            offset = position & 7
            taken = min(8 - offset, left)
            low = value & ((np.uint64(1) << np.uint64(taken)) - np.uint64(1))
            body[position >> 3] |= np.uint8(low << np.uint64(offset))
            value >>= np.uint64(taken)
            position += taken
            left -= taken


# -------------------------------------------------------------------------------------------- code for a constant width


def lane_bits(bits: int) -> int:
    """Bits of the narrowest unsigned dtype, of 16 bits or more, that holds ``bits``."""
    return 16 if bits <= 16 else 32 if bits <= 32 else 64


@functools.cache
def has_vector_unpack(bits: int) -> bool:
    """Tell whether every value that starts in a 128-bit half ends there: true of each width but 63."""
    per_half = 128 // lane_bits(bits)
    return all((h * per_half * bits) % 8 + per_half * bits <= 128 for h in range(2 * _REGISTERS))


def _vector(element: ir.Type, values: list[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(element, len(values)), [ir.Constant(element, value) for value in values])


class _Windows:
    """Where the values of one register lie: the constants of its shuffles and shifts.

    ``low`` picks, for each lane, the lane's worth of bytes that starts with the value's first byte; ``high`` the one
    byte after them where a value needs it. Indices count the bytes of two 16-byte loads; 32 stands for a zero byte.
    """

    def __init__(self, bits: int, register: int) -> None:
        lane = lane_bits(bits)
        per_half = 128 // lane
        self.starts: list[int] = []
        self.low: list[int] = []
        self.high: list[int] = []
        self.right: list[int] = []
        self.left: list[int] = []
        for half in range(2):
            first = (2 * register + half) * per_half * bits
            self.starts.append(first // 8)
            for i in range(per_half):
                byte, shift = divmod(first % 8 + i * bits, 8)
                spills = shift + bits > lane
                bytes_in_half = range(byte, byte + lane // 8)
                self.low += [_HALF_BYTES * half + b if b < _HALF_BYTES else 2 * _HALF_BYTES for b in bytes_in_half]
                zeros = [2 * _HALF_BYTES] * (lane // 8)
                self.high += [_HALF_BYTES * half + byte + lane // 8, *zeros[1:]] if spills else zeros
                self.right.append(shift)
                self.left.append(lane - shift if spills else 0)


def _load(builder: ir.IRBuilder, address: ir.Value, kind: ir.Type, align: int) -> ir.Value:
    value = builder.load(builder.inttoptr(address, kind.as_pointer()))
    value.align = align
    return value


def _data(context: Any, builder: ir.IRBuilder, array_type: Any, array: ir.Value, offset: ir.Value) -> ir.Value:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.add(builder.ptrtoint(data, _I64), offset)


def _constant(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)


def _emit_register(builder: ir.IRBuilder, source: ir.Value, bits: int, register: int) -> ir.Value:
    """Emit the unpacking of one register's values."""
    windows, lane = _Windows(bits, register), lane_bits(bits)
    element = ir.IntType(lane)
    half = ir.VectorType(_I8, _HALF_BYTES)
    halves = [_load(builder, builder.add(source, _constant(start)), half, 1) for start in windows.starts]
    joined = builder.shuffle_vector(*halves, _vector(_I32, list(range(32))))
    zeros = _vector(_I8, [0] * 32)

    def lanes(order: list[int]) -> ir.Value:
        return builder.bitcast(builder.shuffle_vector(joined, zeros, _vector(_I32, order)), values)

    values = ir.VectorType(element, 256 // lane)
    out = builder.lshr(lanes(windows.low), _vector(element, windows.right))
    if any(windows.left):
        out = builder.or_(out, builder.shl(lanes(windows.high), _vector(element, windows.left)))
    return builder.and_(out, _vector(element, [(1 << bits) - 1] * (256 // lane)))


def _emit_prefetch(builder: ir.IRBuilder, source: ir.Value, ahead: int, count: int) -> None:
    """Fetch the cache lines of ``count`` bytes; beyond the end of memory this does nothing."""
    pointer = _I8.as_pointer()
    signature = ir.FunctionType(ir.VoidType(), [pointer, _I32, _I32, _I32])
    prefetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], signature)
    for offset in range(ahead, ahead + count, 64):
        address = builder.inttoptr(builder.add(source, _constant(offset)), pointer)
        builder.call(prefetch, [address, _I32(0), _I32(3), _I32(1)])  # to read, keep in every level, data


def _emit_unpack_step(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
    bits = signature.args[0].literal_value
    _, body, acc, step = args
    step_bytes = _REGISTERS * 256 // lane_bits(bits) * bits // 8
    source = _data(context, builder, signature.args[1], body, builder.mul(step, _constant(step_bytes)))
    target = _data(context, builder, signature.args[2], acc, builder.mul(step, _constant(32 * _REGISTERS)))
    _emit_prefetch(builder, source, _PREFETCH_BYTES, step_bytes)
    for register in range(_REGISTERS):
        values = _emit_register(builder, source, bits, register)
        pointer = builder.inttoptr(builder.add(target, _constant(32 * register)), values.type.as_pointer())
        old = builder.load(pointer)
        old.align = lane_bits(bits) // 8
        builder.store(builder.add(old, values), pointer).align = lane_bits(bits) // 8
    return context.get_dummy_value()


@intrinsic(prefer_literal=True)
def _unpack_step(typing_context, bits, body, acc, step):  # type: ignore[no-untyped-def]
    """Unpack the values of step ``step`` and add them; reads up to 16 bytes from the start of the step's last half."""
    return types.void(bits, body, acc, types.int64), _emit_unpack_step


@intrinsic
def _touch(typing_context, body, at):  # type: ignore[no-untyped-def]
    """Fetch the cache line ``_TOUCH_BYTES`` after byte ``at``, and so where its page lies."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        _emit_prefetch(builder, _data(context, builder, signature.args[0], *args), _TOUCH_BYTES, 1)
        return context.get_dummy_value()

    return types.void(body, types.int64), emit


@intrinsic(prefer_literal=True)
def _pack_step(typing_context, bits, words, body, step):  # type: ignore[no-untyped-def]
    """Pack the 64 values of step ``step`` into their 8*bits bytes."""
    return types.void(bits, words, body, types.int64), _emit_pack_step


def _emit_pack_step(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
    bits, lane = signature.args[0].literal_value, lane_bits(signature.args[0].literal_value)
    _, words, body, step = args
    source = _data(context, builder, signature.args[1], words, builder.mul(step, _constant(8 * lane)))
    target = _data(context, builder, signature.args[2], body, builder.mul(step, _constant(8 * bits)))
    width = bits * 64 // lane
    pending, filled, written = _constant(0), 0, 0
    for field in _emit_fields(builder, source, bits):
        pending = builder.or_(pending, builder.shl(field, _constant(filled)))
        filled += width
        if filled >= 64:
            pointer = builder.inttoptr(builder.add(target, _constant(8 * written)), _I64.as_pointer())
            builder.store(pending, pointer).align = 1
            written, filled = written + 1, filled - 64
            pending = builder.lshr(field, _constant(width - filled)) if filled else _constant(0)
    return context.get_dummy_value()


@intrinsic(prefer_literal=True)
def _pack_register(typing_context, bits, words, body, step):  # type: ignore[no-untyped-def]
    """Pack the 512 / lane values of step ``step``; writes 64 bytes, zeros behind the values'."""
    return types.void(bits, words, body, types.int64), _emit_pack_register


def _emit_pack_register(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
    bits = signature.args[0].literal_value
    _, words, body, step = args
    width = bits * 64 // lane_bits(bits)  # of a field, and the bytes of a step's eight
    source = _data(context, builder, signature.args[1], words, builder.mul(step, _constant(64)))
    target = _data(context, builder, signature.args[2], body, builder.mul(step, _constant(width)))
    fields = _emit_joined(builder, source, bits, 8)
    # Each field is moved to the bit of its first byte where it begins. Neighbours may share a byte, others do not
    fields = builder.shl(fields, _vector(_I64, [i * width % 8 for i in range(8)]))
    wide = ir.VectorType(_I8, 64)
    placed, zeros = builder.bitcast(fields, wide), _vector(_I8, [0] * 64)
    halves = [builder.shuffle_vector(placed, zeros, _vector(_I32, _places(width, parity))) for parity in range(2)]
    pointer = builder.inttoptr(target, wide.as_pointer())
    builder.store(builder.or_(*halves), pointer).align = 1
    return context.get_dummy_value()


def _places(width: int, parity: int) -> list[int]:
    """For each of 64 bytes, which byte of eight 64-bit fields of one parity it is; 64 stands for zero."""
    places = [64] * 64
    for field in range(parity, 8, 2):
        first, shift = divmod(field * width, 8)
        for byte in range((shift + width + 7) // 8):
            places[first + byte] = 8 * field + byte
    return places


def _emit_fields(builder: ir.IRBuilder, source: ir.Value, bits: int) -> list[ir.Value]:
    """Emit 64 values' low bits as 64-bit integers; each holds 64 bits of lanes, their values moved together."""
    lane = lane_bits(bits)
    fields = []
    for register in range(lane // 4):
        joined = _emit_joined(builder, builder.add(source, _constant(32 * register)), bits, 4)
        fields += [builder.extract_element(joined, _I32(i)) for i in range(4)]
    return fields


def _emit_joined(builder: ir.IRBuilder, source: ir.Value, bits: int, count: int) -> ir.Value:
    """Emit ``count`` 64-bit integers, each of 64 bits of lanes with their values moved together."""
    width, apart = bits, lane_bits(bits)
    x = _load(builder, source, ir.VectorType(_I64, count), apart // 8)
    x = builder.and_(x, _every(count, apart, width))
    while apart < 64:
        # Of every two fields, move the upper down to where the lower ends.
        low = builder.and_(x, _every(count, 2 * apart, width))
        moved = builder.lshr(x, _vector(_I64, [apart - width] * count))
        x = builder.or_(low, builder.and_(moved, _every(count, 2 * apart, width, width)))
        width, apart = 2 * width, 2 * apart
    return x


def _every(count: int, apart: int, width: int, offset: int = 0) -> ir.Constant:
    """``count`` 64-bit masks of ``width`` one bits at ``offset`` of every ``apart`` bits."""
    ones = sum(((1 << width) - 1) << (start + offset) for start in range(0, 64, apart))
    return _vector(_I64, [ones] * count)


# ------------------------------------------------------------------------------------------------- kernels by the width


@functools.cache
def unpack_add_kernel(bits: int) -> UnpackAddKernel:
    """Make the kernel that adds to ``acc`` the ``bits``-bit values of ``body``."""
    per_step = _REGISTERS * 256 // lane_bits(bits)
    step_bytes = per_step * bits // 8
    reach = _Windows(bits, _REGISTERS - 1).starts[1] + _HALF_BYTES
    page_steps = max(1, _PAGE_BYTES // step_bytes)

    @kernel
    def unpack_add(body: NDArray[np.uint8], acc: NDArray[Any]) -> None:
        steps = acc.size // per_step
        # The last load of a step may reach past it: steps whose loads would leave the body are unpacked by value.
        while steps > 0 and (steps - 1) * step_bytes + reach > body.size:
            steps -= 1
        for first in range(0, steps, page_steps):
            _touch(body, first * step_bytes)
            for step in range(first, min(first + page_steps, steps)):
                _unpack_step(bits, body, acc, step)
        unpack_add_generic(body, acc, bits, steps * per_step)

    return unpack_add


@functools.cache
def pack_kernel(bits: int) -> PackKernel:
    """Make the kernel that sets ``body`` to the low ``bits`` bits of each of ``words``."""

    @kernel
    def pack(words: NDArray[Any], body: NDArray[np.uint8]) -> None:
        steps = words.size // 64
        for step in range(steps):
            _pack_step(bits, words, body, step)
        pack_generic(words, body, bits, steps * 64)

    return pack


@functools.cache
def wide_pack_kernel(bits: int) -> PackKernel:
    """Make the kernel that does as ``pack_kernel(bits)``'s, 512 bits at a time, where ``wide_pack_fits(bits)``."""
    per_step = 512 // lane_bits(bits)
    step_bytes = per_step * bits // 8

    @kernel
    def pack(words: NDArray[Any], body: NDArray[np.uint8]) -> None:
        steps = words.size // per_step
        # A step writes a whole register: those that would leave the body are packed by value
        while steps > 0 and (steps - 1) * step_bytes + 64 > body.size:
            steps -= 1
        for step in range(steps):
            _pack_register(bits, words, body, step)
        pack_generic(words, body, bits, steps * per_step)

    return pack


@functools.cache
def has_wide_pack(bits: int) -> bool:
    """Tell whether 512-bit registers make packing faster: where one instruction shuffles all of their bytes."""
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return "+avx512vbmi" in features and wide_pack_fits(bits)


def wide_pack_fits(bits: int) -> bool:
    """Tell whether 64 bits of lanes, their values joined, leave room for a shift by up to 7 bits."""
    return bits * 64 // lane_bits(bits) + 7 <= 64


def unpack_add(body: NDArray[np.uint8], acc: NDArray[Any], bits: int) -> None:
    """Add to ``acc``, modulo its lane, the values of ``body`` uint8[ceil(acc.size * bits / 8)], and read nothing else.

    ``acc`` has the dtype of ``lane_bits(bits)`` bits; both are contiguous, ``acc`` is aligned.
    """
    if is_compiling() and has_vector_unpack(bits):
        unpack_add_kernel(bits)(_read_only(body), acc)
    else:
        unpack_add_generic(_read_only(body), acc, bits, 0)


def pack(words: NDArray[Any], body: NDArray[np.uint8], bits: int) -> None:
    """Set ``body`` uint8[ceil(words.size * bits / 8)] to the low ``bits`` bits of each of ``words``; padding is zero.

    ``words`` has the dtype of ``lane_bits(bits)`` bits; both are contiguous, ``words`` is aligned.
    """
    if is_compiling():
        make = wide_pack_kernel if has_wide_pack(bits) else pack_kernel
        make(bits)(_read_only(words), body)
    else:
        pack_generic(_read_only(words), body, bits, 0)


def padding_is_zero(body: NDArray[np.uint8], count: int, bits: int) -> bool:
    """Tell whether the bits of ``body`` uint8[ceil(count * bits / 8)] after its last value are all zero."""
    used = count * bits % 8
    return used == 0 or int(body[-1]) >> used == 0


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A view that is never writeable: kernels are compiled apart for the two kinds, so only one is ever passed."""
    view = array.view()
    view.flags.writeable = False
    return view
