"""Packing at every width against Python integers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secagg.encoding import ring
from secagg.errors import InputError
from secagg.kernels import jit, packing

WIDTHS = range(1, 65)
# Each kind of kernel: whole bytes, values that need a second window in every lane, odd widths, and the extremes.
REPRESENTATIVE = (1, 8, 11, 16, 17, 26, 27, 31, 32, 33, 45, 61, 63, 64)
LENGTHS = (0, 1, 7, 63, 64, 65, 127, 128, 200, 517)


def plain(kernel):
    """The Python behind a kernel, whether it is compiled or not."""
    return getattr(kernel, "py_func", kernel)


def values_of(bits: int, count: int, seed: int = 0) -> np.ndarray:
    raw = np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)
    raw[: count // 4] = 2**64 - 1
    return (raw >> np.uint64(64 - bits)).astype(ring.lane_dtype(bits))


def reference(values: np.ndarray, bits: int) -> bytes:
    total = sum(int(x) << (bits * i) for i, x in enumerate(values))
    return total.to_bytes((len(values) * bits + 7) // 8, "little")


def check(bits: int, count: int) -> None:
    values, lane = values_of(bits, count, count), 8 * ring.lane_dtype(bits).itemsize
    expected = reference(values, bits)
    around = np.full(len(expected) + 32, 0xA5, np.uint8)
    ring.pack_into(values, bits, around[16 : 16 + len(expected)])
    assert around[16 : 16 + len(expected)].tobytes() == expected
    assert (around[:16] == 0xA5).all()
    assert (around[16 + len(expected) :] == 0xA5).all()
    acc = np.full(count + 32, lane - 1, values.dtype)
    acc[16 : 16 + count] = values_of(lane, count, 7)
    sums = [(int(a) + int(v)) % 2**lane for a, v in zip(acc[16 : 16 + count], values, strict=True)]
    ring.unpack_add(expected, acc[16 : 16 + count], bits)
    assert acc[16 : 16 + count].tolist() == sums
    assert (acc[:16] == lane - 1).all()
    assert (acc[16 + count :] == lane - 1).all()


@pytest.mark.parametrize("bits", WIDTHS)
def test_generic_kernels_at_every_width(bits):
    for count in LENGTHS:
        values = values_of(bits, count)
        expected = np.frombuffer(reference(values, bits), np.uint8)
        body = np.full(expected.size, 0xFF, np.uint8)
        packing.pack_generic(packing._read_only(values), body, bits, 0)
        assert body.tobytes() == expected.tobytes()
        acc = np.zeros(count, values.dtype)
        packing.unpack_add_generic(packing._read_only(expected), acc, bits, 0)
        assert (acc == values).all()


@pytest.mark.parametrize("bits", REPRESENTATIVE)
def test_kernels_of_one_width(bits):
    for count in LENGTHS:
        check(bits, count)


@pytest.mark.skipif(not jit.is_compiling(), reason="the intrinsics exist in compiled code only")
@pytest.mark.parametrize("bits", REPRESENTATIVE)
def test_both_kernels_that_pack(bits):
    # The machine at hand would take one of them; both make code anywhere
    makers = [packing.pack_kernel, packing.wide_pack_kernel] if packing.wide_pack_fits(bits) else [packing.pack_kernel]
    for count in LENGTHS:
        lane = 8 * ring.lane_dtype(bits).itemsize
        values = values_of(lane, count, count)  # bits above the width, which are left out
        expected = reference(values & values.dtype.type(2**bits - 1), bits)
        for make in makers:
            around = np.full(len(expected) + 128, 0xA5, np.uint8)
            make(bits)(packing._read_only(values), around[64 : 64 + len(expected)])
            assert around[64 : 64 + len(expected)].tobytes() == expected
            assert (around[:64] == 0xA5).all()
            assert (around[64 + len(expected) :] == 0xA5).all()


def test_widths_that_a_wide_register_packs():
    fitting = [*range(1, 15), *range(17, 29), *range(33, 58)]
    assert [bits for bits in WIDTHS if packing.wide_pack_fits(bits)] == fitting


@pytest.mark.slow
@pytest.mark.parametrize("bits", [bits for bits in WIDTHS if bits not in REPRESENTATIVE])
def test_kernels_of_the_other_widths(bits):
    for count in LENGTHS:
        check(bits, count)


@settings(max_examples=80, deadline=None)
@given(bits=st.sampled_from(REPRESENTATIVE), count=st.integers(0, 1500))
def test_kernels_at_any_length(bits, count):
    check(bits, count)


@pytest.mark.parametrize("bits", WIDTHS)
def test_constants_of_the_vector_kernel_at_every_width(bits):
    """What the shuffles and shifts of one step do, done by Python integers."""
    if not packing.has_vector_unpack(bits):
        assert bits == 63
        return
    lane = packing.lane_bits(bits)
    per_register, lane_bytes = 256 // lane, lane // 8
    values = values_of(bits, packing._REGISTERS * per_register)
    body = reference(values, bits) + b"\xff" * 16
    unpacked = []
    for register in range(packing._REGISTERS):
        windows = packing._Windows(bits, register)
        loaded = b"".join(body[start : start + 16] for start in windows.starts) + b"\0"
        assert len(loaded) == 33
        for i in range(per_register):
            own = range(i * lane_bytes, (i + 1) * lane_bytes)
            half = range(16 * (i * 2 // per_register), 16 * (i * 2 // per_register) + 16)
            picked = [order[b] for order in (windows.low, windows.high) for b in own]
            assert all(index in half or index == 32 for index in picked)
            low, high = (
                int.from_bytes(bytes(loaded[o[b]] for b in own), "little") for o in (windows.low, windows.high)
            )
            assert windows.right[i] < lane
            assert windows.left[i] < lane
            unpacked.append((low >> windows.right[i] | high << windows.left[i]) & ((1 << bits) - 1))
    assert unpacked == values.tolist()


@pytest.mark.parametrize("bits", [1, 7, 16, 26, 33, 63, 64])
def test_generic_kernels_as_plain_python(bits):
    values = values_of(bits, 19)
    expected = np.frombuffer(reference(values, bits), np.uint8)
    body = np.full(expected.size, 0xFF, np.uint8)
    plain(packing.pack_generic)(values, body, bits, 0)
    assert body.tobytes() == expected.tobytes()
    acc = np.full(19, 5, values.dtype)
    plain(packing.unpack_add_generic)(expected, acc, bits, 0)
    assert (acc == values + values.dtype.type(5)).all()


def test_without_a_compiler_the_generic_kernels_serve(monkeypatch):
    monkeypatch.setattr(packing, "is_compiling", lambda: False)
    monkeypatch.setattr(packing, "pack_kernel", None)
    monkeypatch.setattr(packing, "unpack_add_kernel", None)
    check(26, 100)


GUARDED = """
import ctypes, mmap
import numpy as np
from secagg.encoding import ring
page = mmap.PAGESIZE
memory = mmap.mmap(-1, 3 * page)
whole = np.frombuffer(memory, np.uint8)
libc = ctypes.CDLL(None, use_errno=True)
for guard in (0, 2):
    address = ctypes.c_void_p(whole.ctypes.data + guard * page)
    assert libc.mprotect(address, ctypes.c_size_t(page), mmap.PROT_READ & 0) == 0
inside = whole[page : 2 * page]
for bits in (26, 11, 45):
    lane = ring.lane_dtype(bits)
    for count in (1, 8, 31, 32, 33, 64, 96, 128, 160, 300):
        size, values = ring.packed_bytes(count, bits), np.arange(count).astype(lane)
        for body in (inside[:size], inside[page - size :]):
            ring.pack_into(values, bits, body)
            acc = np.zeros(count, lane)
            ring.unpack_add(body, acc, bits)
            assert (acc == values).all()
        for words in (inside[: values.nbytes].view(lane), inside[page - values.nbytes :].view(lane)):
            words[:] = 0
            ring.unpack_add(ring.pack(values, bits), words, bits)
            assert (ring.pack(words, bits) == ring.pack(values, bits)).all()
print("inside")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mprotect of Linux")
def test_nothing_is_read_or_written_beside_the_buffers():
    """The pages before and after cannot be touched; a kernel that strays ends the process."""
    done = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, text=True, check=True)
    assert done.stdout == "inside\n"


def test_pack_reduces_modulo_the_ring():
    words = np.array([0xFFFFFFFF, 0x80000001, 5] * 50, np.uint32)
    assert ring.pack(words, 26).tobytes() == reference(words & 0x3FFFFFF, 26)


def test_padding_is_zero():
    for bits, count in ((26, 5), (1, 9), (8, 3), (64, 2), (13, 0)):
        body = ring.pack(np.full(count, 2**bits - 1, ring.lane_dtype(bits)), bits)
        assert ring.padding_is_zero(body, count, bits)
        for bit in range(count * bits, 8 * body.size):
            wrong = body.copy()
            wrong[-1] |= 1 << bit % 8
            assert not ring.padding_is_zero(wrong.tobytes(), count, bits)


def test_lanes_and_lengths():
    lanes = {1: np.uint16, 16: np.uint16, 17: np.uint32, 32: np.uint32, 33: np.uint64, 64: np.uint64}
    for bits, dtype in lanes.items():
        assert ring.lane_dtype(bits) == dtype
    assert [ring.packed_bytes(n, 26) for n in (0, 1, 4, 5)] == [0, 4, 13, 17]
    for call in (lambda: ring.lane_dtype(0), lambda: ring.lane_dtype(65), lambda: ring.packed_bytes(-1, 8)):
        with pytest.raises(InputError):
            call()


@pytest.mark.parametrize(
    "words",
    [
        np.zeros(4, np.uint64),
        np.zeros(4, np.int32),
        np.zeros((2, 2), np.uint32),
        np.zeros(8, np.uint32)[::2],
        np.frombuffer(bytearray(17), np.uint8)[1:].view(np.uint32),
    ],
)
def test_bad_vectors_are_refused(words):
    with pytest.raises(InputError):
        ring.pack(words, 26)
    with pytest.raises(InputError):
        ring.unpack_add(bytes(ring.packed_bytes(words.size, 26)), words, 26)


def test_bad_bodies_are_refused():
    acc = np.zeros(4, np.uint32)
    bodies = (
        bytes(12),
        bytes(14),
        memoryview(bytes(26))[::2],
        np.zeros(13, np.int8),
        np.zeros(26, np.uint8)[::2],
        np.zeros((1, 13), np.uint8),
    )
    for body in bodies:
        with pytest.raises(InputError):
            ring.unpack_add(body, acc, 26)
    with pytest.raises(InputError):
        ring.unpack_add(bytes(13), np.frombuffer(bytes(16), np.uint32), 26)
    with pytest.raises(InputError):
        ring.pack_into(acc, 26, np.frombuffer(bytes(13), np.uint8))
    with pytest.raises(InputError):
        ring.compile_kernels(26, [np.int32])
    assert not acc.any()


def test_compile_kernels_leaves_nothing_to_compile():
    ring.compile_kernels(26, [np.float32])
    before = jit.compiled_afresh()
    check(26, 1000)
    assert ring.compile_kernels(26, ["f4"]) == 0
    assert jit.compiled_afresh() == before
