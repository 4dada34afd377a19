"""Every mask kernel against pycryptodome, NIST's vectors and Python integers."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading

import llvmlite.binding as llvm
import numba
import numpy as np
import pytest
from Crypto.Cipher import AES
from Crypto.SelfTest.loader import load_test_vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import ir

from secagg.errors import InputError, SelfTestError
from secagg.kernels import aes_path, aes_portable, jit
from secagg.primitives import prg

PATHS = aes_path.compilable_paths()
LANES = [np.uint16, np.uint32, np.uint64]
# Around a step of each kernel (128, 256 and 512 bytes), a cache block, and the chunk of the portable path.
EDGES = sorted({max(0, n * 64 + extra) for n in (0, 1, 2, 4, 8, 64) for extra in (-1, 0, 1)})


def key_stream(key: bytes, first_byte: int, count: int) -> bytes:
    block, skip = divmod(first_byte, 16)
    cipher = AES.new(key[:16], AES.MODE_CTR, nonce=key[16:24], initial_value=block)
    return cipher.encrypt(bytes(skip + count))[skip:]


def reference(words: np.ndarray, keys: list[bytes], signs: list[bool], first_word: int) -> list[int]:
    """The sum in Python integers."""
    size, modulus = words.itemsize, 1 << (8 * words.itemsize)
    total = [int(word) for word in words]
    for key, negative in zip(keys, signs, strict=True):
        data = key_stream(key, first_word * size, len(words) * size)
        stream = (int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size))
        total = [(t - s if negative else t + s) % modulus for t, s in zip(total, stream, strict=True)]
    return total


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=60, deadline=None)
@given(
    lane=st.sampled_from(LANES),
    length=st.one_of(st.integers(0, 700), st.sampled_from(EDGES)),
    first_word=st.one_of(st.sampled_from([0, *EDGES]), st.integers(0, 1 << 40)),
    masks=st.lists(st.tuples(st.binary(min_size=24, max_size=24), st.booleans()), max_size=5),
    start=st.integers(0, 2**64 - 1),
)
def test_accumulate_is_the_sum_of_the_streams(path, lane, length, first_word, masks, start):
    words = (np.arange(length, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(start)).astype(lane)
    keys, signs = [key for key, _ in masks], [negative for _, negative in masks]
    expected = reference(words, keys, signs, first_word)
    prg.accumulate(words, prg.MaskKeys.expand(b"".join(keys), path=path), np.array(signs, bool), first_word=first_word)
    assert words.tolist() == expected


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("lane", LANES)
def test_a_slice_is_written_and_nothing_beside_it(path, lane):
    around = np.zeros(300, lane)
    prg.accumulate(around[7:250], prg.MaskKeys.expand(bytes(range(24)), path=path), np.array([True]), first_word=3)
    assert not around[:7].any()
    assert not around[250:].any()
    assert around[7:250].any()


@pytest.mark.parametrize("path", PATHS)
def test_masks_cancel(path):
    words = np.arange(5000, dtype=np.uint32)
    keys = prg.MaskKeys.expand(bytes(range(48)), path=path)
    prg.accumulate(words, keys, np.array([False, True]))
    assert (words != np.arange(5000)).any()
    prg.accumulate(words, keys, np.array([True, False]))
    assert (words == np.arange(5000)).all()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("size", "first_word", "block_words"), [(0, 0, 1), (100_003, 0, 4096), (99_991, 77, 1000)])
def test_blocks_and_threads_change_nothing(path, threads, size, first_word, block_words, monkeypatch):
    monkeypatch.setattr(prg, "_THREADING_BYTES", 1)
    keys, signs = prg.MaskKeys.expand(os.urandom(72), path=path), np.array([True, False, False])
    whole, cut = np.zeros(size, np.uint32), np.zeros(size, np.uint32)
    prg.accumulate(whole, keys, signs, first_word=first_word)
    prg.accumulate_blocks(cut, keys, signs, first_word=first_word, threads=threads, block_words=block_words)
    assert (whole == cut).all()


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_batches_are_one_sum(threads, count, monkeypatch):
    """Also while one batch is made, another is added: each is asked for before the last is done."""
    monkeypatch.setattr(prg, "_THREADING_BYTES", 1)
    monkeypatch.setattr(prg, "_TILE_BYTES", 4096)
    keys, signs = [os.urandom(24 * (i + 1)) for i in range(count)], [np.arange(i + 1) % 2 == 0 for i in range(count)]
    words, expected = np.zeros(50_001, np.uint32), np.zeros(50_001, np.uint32)
    for joined, subtract in zip(keys, signs, strict=True):
        prg.accumulate(expected, prg.MaskKeys.expand(joined), subtract)
    prg.accumulate_batches(words, zip(keys, signs, strict=True), threads=threads)
    assert (words == expected).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_what_making_a_batch_raises_comes_through(threads):
    def batches():
        yield bytes(24), np.array([True])
        raise KeyError("no more")

    with pytest.raises(KeyError):
        prg.accumulate_batches(np.zeros(10, np.uint32), batches(), threads=threads)
    for bad, subtract in ((bytes(23), [True]), (bytes(24), [])):
        with pytest.raises(InputError):
            prg.accumulate_batches(np.zeros(10, np.uint32), [(bad, np.array(subtract, bool))], threads=threads)
    with pytest.raises(InputError):
        prg.accumulate_batches(np.zeros(10, np.uint32), [], threads=0)


def test_stream_is_seekable_and_little_endian():
    key = bytes(range(24))
    for lane in LANES:
        size = np.dtype(lane).itemsize
        assert prg.stream(key, 999, lane).tobytes() == key_stream(key, 0, 999 * size)
        assert (prg.stream(key, 100, lane, first_word=321) == prg.stream(key, 421, lane)[321:]).all()
        assert prg.stream(key, 0, lane).tolist() == []


def test_a_stream_ends_at_2_to_the_62_bytes():
    key = bytes(range(24))
    for lane in LANES:
        size = np.dtype(lane).itemsize
        last = (1 << 62) // size - 5
        assert prg.stream(key, 5, lane, first_word=last).tobytes() == key_stream(key, last * size, 5 * size)
        with pytest.raises(InputError, match="outside the key stream"):
            prg.stream(key, 5, lane, first_word=last + 1)


# ------------------------------------------------------------------------------------------------- published answers


def one_block(path: str, key: bytes, block: bytes) -> bytes:
    """AES of any block, as the key stream at the counter that the block spells."""
    words = np.zeros(2, np.uint64)
    keys = prg.MaskKeys.expand(key + block[:8], path=path)
    prg._run(words, keys, np.array([False]), int.from_bytes(block[8:], "big") * 2)
    return words.tobytes()


@functools.cache
def known_answers() -> list[tuple[bytes, bytes, bytes]]:
    answers = []
    for name in ("GFSbox", "KeySbox", "VarKey", "VarTxt"):
        vectors = load_test_vectors(("Cipher", "AES"), f"CBC{name}128.rsp", "CAVP", {"count": int})
        for vector in vectors:
            if not isinstance(vector, str):
                block = vector.plaintext
                answers.append(
                    (vector.key, bytes(a ^ b for a, b in zip(block, vector.iv, strict=True)), vector.ciphertext)
                )
    return answers


@pytest.mark.parametrize("path", PATHS)
def test_cavp_known_answers(path):
    """One-block CBC is AES of plaintext xor IV: AESAVS GFSbox, KeySbox, VarKey and VarTxt, both directions."""
    assert len(known_answers()) >= 500
    for key, block, ciphertext in known_answers():
        assert one_block(path, key, block) == ciphertext


@pytest.mark.parametrize("path", PATHS)
def test_nist_sp_800_38a_f_5_1(path):
    """CTR-AES128.Encrypt; its counter crosses a byte between the first block and the second."""
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    counter = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    plain = bytes.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    cipher = bytes.fromhex(
        "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
        "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"
    )
    words = np.zeros(16, np.uint32)
    keys = prg.MaskKeys.expand(key + counter[:8], path=path)
    prg._run(words, keys, np.array([False]), int.from_bytes(counter[8:], "big") * 4)
    assert bytes(a ^ b for a, b in zip(plain, words.tobytes(), strict=True)) == cipher


@pytest.mark.skipif(PATHS == (aes_path.PORTABLE,), reason="no compiled path here")
def test_key_schedule_of_fips_197_a_1():
    from secagg.kernels import aes_counter

    expand = aes_counter.expand_keys_arm if PATHS[0] == aes_path.ARM else aes_counter.expand_keys_x86
    keys = np.zeros((2, 24), np.uint8)
    keys[1, :16] = np.frombuffer(bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"), np.uint8)
    round_keys = np.empty((2, 11, 16), np.uint8)
    expand(keys, round_keys)
    assert round_keys[1, 0].tobytes().hex() == "2b7e151628aed2a6abf7158809cf4f3c"
    assert round_keys[1, 1].tobytes().hex() == "a0fafe1788542cb123a339392a6c7605"
    assert round_keys[1, 10].tobytes().hex() == "d014f9a8c9ee2589e13f0cc8b6630ca6"
    assert round_keys[0, 10].tobytes().hex() == "b4ef5bcb3e92e21123e951cf6f8f188e"


# ---------------------------------------------------------------------------------- 512 bits, where nothing can run it


def in_four_parts(module: ir.Module, name: str, lanes: int) -> ir.Function:
    """A wide AES instruction spelled as one 128-bit instruction for each block."""
    register, block = ir.VectorType(ir.IntType(64), 2 * lanes), ir.VectorType(ir.IntType(64), 2)
    split = f"split.{name}"
    if split in module.globals:
        return module.globals[split]
    narrow = ir.Function(module, ir.FunctionType(block, [block, block]), f"llvm.x86.aesni.{name}")
    function = ir.Function(module, ir.FunctionType(register, [register, register]), split)
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block())
    i32, out = ir.IntType(32), ir.Constant(register, ir.Undefined)
    for lane in range(lanes):
        which = ir.Constant(ir.VectorType(i32, 2), [i32(2 * lane), i32(2 * lane + 1)])
        x, key = (builder.shuffle_vector(arg, ir.Constant(register, ir.Undefined), which) for arg in function.args)
        y = builder.call(narrow, [x, key])
        for half in range(2):
            out = builder.insert_element(out, builder.extract_element(y, i32(half)), i32(2 * lane + half))
    builder.ret(out)
    return function


@pytest.mark.skipif(aes_path.AESNI not in PATHS, reason="needs AES-NI")
@pytest.mark.parametrize("lane", LANES)
def test_512_bit_kernel_in_four_parts(lane, monkeypatch):
    """All of the widest kernel but its two instructions: its lanes, counters, heads and tails."""
    from secagg.kernels import aes_counter, aes_x86

    monkeypatch.setattr(aes_x86, "aes_instruction", in_four_parts)
    accumulate = numba.njit(error_model="numpy")(aes_counter.accumulate_512.py_func)
    keys, signs = [bytes(range(24)), bytes(range(24, 48))], [False, True]
    expanded = prg.MaskKeys.expand(b"".join(keys), path=aes_path.AESNI)
    per_block = 16 // np.dtype(lane).itemsize
    for length, first_word in [(0, 0), (1, 0), (5, 250), (600, 1), (1030, 259), (512, 0), (2049, 31 * per_block)]:
        words = np.arange(length).astype(lane)
        expected = reference(words, keys, signs, first_word)
        block, offset = divmod(first_word, per_block)
        scratch, taken = np.empty(512 // words.itemsize, lane), np.zeros(1, np.int64)
        start = (np.uint64(block), offset, 256)
        accumulate(words, expanded._round_keys, expanded._nonces, np.array(signs), *start, scratch, taken)
        assert words.tolist() == expected


ASSEMBLY_OF_ZNVER4 = """
import numba, re
from numba import types as t
from secagg.kernels import aes_counter, aes_path
assert aes_path.aes_path() == "vaes512", aes_path.aes_path()
kernel = numba.njit(nogil=True, error_model="numpy")(aes_counter.accumulate_512.py_func)
kernel.compile((t.uint32[::1], t.uint8[:, :, ::1], t.uint64[::1], t.boolean[::1], t.uint64, t.int64, t.int64,
                t.uint32[::1], t.int64[::1]))
(assembly,) = kernel.inspect_asm().values()
print(len(re.findall(r"vaesenc\\s.*zmm", assembly)), len(re.findall(r"vaesenclast\\s.*zmm", assembly)),
      len(re.findall(r"aesenc.*[xy]mm", assembly)))
"""


@pytest.mark.skipif(PATHS == (aes_path.PORTABLE,), reason="no code generator for x86-64 here")
@pytest.mark.skipif(llvm.llvm_version_info < (16,), reason="this code generator does not know znver4")
def test_512_bit_code_for_znver4():
    """The code is made, not run: head, whole steps and tail, each nine rounds and a last one over eight registers."""
    features = "+64bit,+sse2,+sse4.2,+ssse3,+avx,+avx2,+avx512f,+avx512bw,+avx512vl,+avx512dq,+aes,+vaes,+bmi,+bmi2"
    env = {**os.environ, "NUMBA_CPU_NAME": "znver4", "NUMBA_CPU_FEATURES": features}
    done = subprocess.run(
        [sys.executable, "-c", ASSEMBLY_OF_ZNVER4], env=env, capture_output=True, text=True, check=True
    )
    rounds, last_rounds, narrow = map(int, done.stdout.split())
    assert rounds >= 3 * 72
    assert last_rounds * 9 == rounds
    assert narrow == 0


# ------------------------------------------------------------------------------------------------------ the wrapper


def test_a_wrong_kernel_is_refused(monkeypatch):
    def wrong(words, *others):
        words += words.dtype.type(1)

    monkeypatch.setattr(aes_portable, "accumulate", wrong)
    monkeypatch.setattr(prg, "_checked", set())
    words = np.zeros(3, np.uint32)
    for accumulate in (prg.accumulate, prg.accumulate_blocks):
        with pytest.raises(SelfTestError):
            accumulate(words, prg.MaskKeys.expand(bytes(24), path="portable"), np.array([True]))
    assert not words.any()
    with pytest.raises(SelfTestError):
        prg.self_test("portable")


def test_a_kernel_that_agrees_with_nist_alone_is_refused(monkeypatch):
    prg.self_test("portable")  # that it passed once does not count
    right = aes_portable.accumulate

    def wrong_in_its_signs(words, keys, subtract, *where):
        right(words, keys, np.zeros_like(subtract), *where)

    monkeypatch.setattr(aes_portable, "accumulate", wrong_in_its_signs)
    with pytest.raises(SelfTestError):
        prg.self_test("portable")


def test_a_kernel_that_agrees_with_pycryptodome_alone_is_refused(monkeypatch):
    monkeypatch.setattr(prg, "_NIST_STREAM", bytes(64))
    with pytest.raises(SelfTestError):
        prg.self_test("portable")


def accumulate_one_batch(words, keys, subtract, threads):
    prg.accumulate_batches(words, [(keys, subtract)], threads=threads)


def accumulate_a_batch_before_another(words, keys, subtract, threads):
    prg.accumulate_batches(words, [(keys, subtract)] * 2, threads=threads)


def accumulate_in_blocks(words, keys, subtract, threads):
    prg.accumulate_blocks(words, prg.MaskKeys.expand(keys), subtract, threads=threads, block_words=64)


@pytest.mark.parametrize("accumulate", [accumulate_in_blocks, accumulate_one_batch, accumulate_a_batch_before_another])
def test_what_fails_once_in_another_thread_fails_the_call(accumulate, monkeypatch):
    failed = []

    def fails(*arguments):
        if threading.current_thread() is not threading.main_thread() and not failed:
            failed.append(True)
            raise MemoryError

    prg.warmup(np.uint32)
    monkeypatch.setattr(prg, "_THREADING_BYTES", 1)
    monkeypatch.setattr(prg, "_run", fails)
    words, signs = np.zeros(100_000, np.uint32), np.array([False])
    with pytest.raises(MemoryError):
        accumulate(words, bytes(24), signs, 2)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("size", [9, 50_000])
@pytest.mark.parametrize("threading_bytes", [1, 1 << 40])
def test_batches_add_up_however_many_threads_there_are(threads, size, threading_bytes, monkeypatch):
    monkeypatch.setattr(prg, "_THREADING_BYTES", threading_bytes)
    batches = [(os.urandom(24 * masks), np.arange(masks) % 2 == 0) for masks in (1, 2, 3)]
    together, one_by_one = np.zeros(size, np.uint32), np.zeros(size, np.uint32)
    prg.accumulate_batches(together, batches, threads=threads)
    for keys, subtract in batches:
        prg.accumulate(one_by_one, prg.MaskKeys.expand(keys), subtract)
    assert (together == one_by_one).all()
    prg.accumulate_batches(together, [], threads=threads)
    prg.accumulate_batches(one_by_one, [])
    assert (together == one_by_one).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_batches_are_checked_as_all_else_is(threads, monkeypatch):
    words, signs = np.zeros(9, np.uint32), np.array([False])
    with pytest.raises(InputError, match="threads is positive"):
        prg.accumulate_batches(words, [], threads=0)
    with pytest.raises(InputError, match=r"subtract is bool\[2\]"):
        prg.accumulate_batches(words, [(bytes(48), signs)], threads=threads)
    monkeypatch.setattr(prg, "_checked", set())
    monkeypatch.setattr(prg, "_NIST_STREAM", bytes(64))
    with pytest.raises(SelfTestError):
        prg.accumulate_batches(words, [(bytes(24), signs)], threads=threads)


def test_streams_begin_at_their_first_word_unless_told():
    keys, signs = prg.MaskKeys.expand(bytes(range(24))), np.array([False])
    for accumulate in (prg.accumulate, prg.accumulate_blocks):
        words = np.zeros(9, np.uint32)
        accumulate(words, keys, signs)
        assert words.tobytes() == key_stream(bytes(range(24)), 0, 36)


@pytest.mark.parametrize("path", PATHS)
def test_self_test_passes(path):
    prg.self_test(path)


def test_each_lane_is_checked_before_its_first_use(monkeypatch):
    monkeypatch.setattr(prg, "_checked", set())
    prg.warmup(np.uint16)
    assert prg._checked == {(prg.active_path(), np.dtype(np.uint16))}
    prg.stream(bytes(24), 1, np.uint64)
    assert (prg.active_path(), np.dtype(np.uint64)) in prg._checked


def test_each_mask_has_eleven_round_keys_of_16_bytes():
    # Kernels do not check their bounds
    assert prg.MaskKeys.expand(bytes(48))._round_keys.shape == (2, 11, 16)


def test_keys_are_never_shown():
    keys = prg.MaskKeys.expand(b"\x42" * 48)
    assert repr(keys) == str(keys) == "<MaskKeys of 2 masks>"
    assert len(keys) == 2
    assert keys.path == prg.active_path() == PATHS[0]
    with pytest.raises(TypeError):
        keys.__reduce__()


@pytest.mark.parametrize(
    ("words", "subtract", "first_word"),
    [
        (np.zeros(4, np.int32), [True], 0),
        (np.zeros(4, np.uint8), [True], 0),
        (np.zeros((2, 2), np.uint32), [True], 0),
        (np.array(5, np.uint32), [True], 0),
        (np.zeros(8, np.uint32)[::2], [True], 0),
        (np.frombuffer(bytes(16), np.uint32), [True], 0),
        (np.frombuffer(bytearray(17), np.uint8)[1:].view(np.uint32), [True], 0),
        (np.zeros(4, np.uint32), [], 0),
        (np.zeros(4, np.uint32), [True, False], 0),
        (np.zeros(4, np.uint32), [True], -1),
        (np.zeros(4, np.uint32), [True], 1 << 61),
    ],
)
def test_bad_arguments_are_refused(words, subtract, first_word):
    keys = prg.MaskKeys.expand(bytes(24))
    for accumulate in (prg.accumulate, prg.accumulate_blocks):
        with pytest.raises(InputError):
            accumulate(words, keys, np.array(subtract, bool), first_word=first_word)


def test_bad_keys_paths_and_counts_are_refused():
    keys = prg.MaskKeys.expand(b"")
    assert len(keys) == 0
    words = np.arange(5, dtype=np.uint32)
    prg.accumulate(words, keys, np.zeros(0, bool))
    assert words.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(InputError):
        prg.MaskKeys.expand(bytes(23))
    with pytest.raises(InputError):
        prg.MaskKeys.expand(bytes(24), path="quantum")
    with pytest.raises(InputError):
        prg.accumulate(words, prg.MaskKeys.expand(bytes(24)), np.zeros(1, np.uint8))
    for count in ({"threads": 0}, {"block_words": 0}):
        with pytest.raises(InputError, match="are positive"):
            prg.accumulate_blocks(words, keys, np.zeros(0, bool), **count)
    for length in (0, 23, 25, 48):
        with pytest.raises(InputError, match=f"a mask key is 24 bytes, got {length}"):
            prg.stream(bytes(length), 1, np.uint32)
    for key, count, dtype in ((bytes(23), 1, np.uint32), (bytes(24), -1, np.uint32), (bytes(24), 1, np.float32)):
        with pytest.raises(InputError):
            prg.stream(key, count, dtype)


def test_warmup_leaves_nothing_to_compile():
    prg.warmup(np.uint32, np.uint64)
    before = jit.compiled_afresh()
    prg.stream(bytes(24), 1000, np.uint32)
    prg.stream(bytes(24), 1000, np.uint64)
    assert jit.compiled_afresh() == before
