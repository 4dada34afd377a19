"""The masks: AES-128 counter-mode key streams, added to a vector of ring words or subtracted from it in place.

A mask's key is 24 bytes: an AES-128 key and a nonce of 8 bytes. Block ``i`` of its stream is AES of the nonce followed
by ``i`` (8 bytes, big-endian); the bytes are read as little-endian words of the vector's dtype. Sources: FIPS 197; NIST
SP 800-38A section 6.5; SPEC "Streams", "Masks".
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from Crypto.Cipher import AES
from numpy.typing import DTypeLike, NDArray

from secagg.errors import InputError, SelfTestError
from secagg.kernels import aes_path, aes_portable

MASK_KEY_BYTES = 24
LANE_DTYPES = (np.dtype(np.uint16), np.dtype(np.uint32), np.dtype(np.uint64))

# 128 KiB: what one core keeps in its second-level cache while every mask passes over it.
_TILE_BYTES = 1 << 16
# Key stream bytes below which starting threads costs more than it saves (about a tenth of a millisecond's work).
_THREADING_BYTES = 1 << 21
_KEY_BYTES = 16
_BLOCK_BYTES = 16
_STREAM_BYTES = 1 << 62

_checked: set[tuple[str, np.dtype[Any]]] = set()
_check_lock = threading.RLock()


class MaskKeys:
    """The expanded keys of m masks, in one order; opaque, immutable, and never shown."""

    __slots__ = ("_keys", "_nonces", "_path", "_round_keys")

    def __init__(self, path: str, keys: NDArray[np.uint8]) -> None:
        self._path = path
        self._keys = keys
        self._nonces = keys[:, _KEY_BYTES:].copy().view(np.uint64).reshape(len(keys))
        self._round_keys = np.empty((len(keys), 11, 16), np.uint8)
        if path != aes_path.PORTABLE:
            from secagg.kernels import aes_counter

            expand = aes_counter.expand_keys_arm if path == aes_path.ARM else aes_counter.expand_keys_x86
            expand(keys, self._round_keys)

    @classmethod
    def expand(cls, keys: bytes, *, path: str | None = None) -> MaskKeys:
        """Expand the keys of m >= 0 masks, 24 bytes each, one after the other.

        ``path`` names a path of ``secagg.kernels.aes_path`` to use in place of the fastest.

        Raises:
            InputError: the length is no multiple of 24, or ``path`` cannot be compiled here.
        """
        if len(keys) % MASK_KEY_BYTES:
            raise InputError(f"mask keys are {MASK_KEY_BYTES} bytes each, got {len(keys)} bytes in all")
        return cls(_path(path), np.frombuffer(keys, np.uint8).reshape(-1, MASK_KEY_BYTES).copy())

    @property
    def path(self) -> str:
        """Which instructions these keys were expanded for."""
        return self._path

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"<MaskKeys of {len(self)} masks>"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("mask keys are not pickled")


def active_path() -> str:
    """Name the AES path that masks take: vaes512, vaes256, aesni, arm or portable."""
    return _path(None)


def accumulate(words: NDArray[Any], keys: MaskKeys, subtract: NDArray[np.bool_], *, first_word: int = 0) -> None:
    """Add every mask j to ``words`` in place: words[i] += or -= stream_j[first_word + i], modulo the lane.

    Args:
        words: uint16, uint32 or uint64, one dimension, any length, contiguous, aligned and writeable.
        keys: the m masks.
        subtract: bool[m]; mask j is subtracted where it is true. Not secret: the time taken may tell of it.
        first_word: where in the streams, in words, ``words`` begins; non-negative.

    Raises:
        InputError: an argument is not as said here.
        SelfTestError: the kernel gives a wrong answer on this machine.
    """
    _require_arguments(words, keys, subtract, first_word)
    _check_once(keys.path, words.dtype)
    _run(words, keys, np.ascontiguousarray(subtract), first_word)


def accumulate_blocks(
    words: NDArray[Any],
    keys: MaskKeys,
    subtract: NDArray[np.bool_],
    *,
    first_word: int = 0,
    threads: int = 1,
    block_words: int | None = None,
) -> None:
    """Do as ``accumulate`` does to a whole vector, a block that fits the cache at a time, on up to ``threads`` threads.

    Args and Raises: as for ``accumulate``; ``threads`` and ``block_words`` are positive.
    """
    _require_arguments(words, keys, subtract, first_word)
    if threads < 1 or (block_words is not None and block_words < 1):
        raise InputError(f"threads and block_words are positive, got {threads} and {block_words}")
    _check_once(keys.path, words.dtype)
    shared = _Pass(words, keys, subtract, first_word, block_words)
    workers = shared.useful_threads(threads) - 1
    if not workers:
        shared.run()
        return
    with ThreadPoolExecutor(workers) as pool:
        others = [pool.submit(shared.run) for _ in range(workers)]
        shared.run()
        for done in others:
            done.result()


def accumulate_batches(
    words: NDArray[Any], batches: Iterable[tuple[bytes, NDArray[np.bool_]]], *, threads: int = 1
) -> None:
    """Do as ``accumulate`` does with one batch of masks after another, on up to ``threads`` threads.

    While other threads add a batch, this one makes the next, then helps: so making the keys costs no time of its own
    where adding takes longer.

    Args:
        words: as for ``accumulate``.
        batches: for each batch the keys of its masks, 24 bytes each, and ``subtract``; made one at a time.
        threads: positive.

    Raises:
        InputError, SelfTestError: as for ``accumulate``. ``words`` then holds nothing of use; so too where ``batches``
            raises.
    """
    if threads < 1:
        raise InputError(f"threads is positive, got {threads}")
    if threads == 1:
        for joined, subtract in batches:
            accumulate_blocks(words, MaskKeys.expand(joined), subtract)
        return
    with ThreadPoolExecutor(threads - 1) as pool:
        current: _Pass | None = None
        others: list[Future[None]] = []
        for joined, subtract in batches:
            if current is not None:
                current.run()
            for done in others:
                done.result()
            keys = MaskKeys.expand(joined)
            _require_arguments(words, keys, subtract, 0)
            _check_once(keys.path, words.dtype)
            current = _Pass(words, keys, subtract, 0, None)
            others = [pool.submit(current.run) for _ in range(current.useful_threads(threads) - 1)]
        if current is not None:
            current.run()
        for done in others:
            done.result()


def stream(key: bytes, count: int, dtype: DTypeLike, *, first_word: int = 0) -> NDArray[Any]:
    """Return ``count`` words of one mask's key stream from ``first_word`` on.

    Raises:
        InputError: ``key`` is not 24 bytes, ``count`` is negative, or ``dtype`` is not uint16, uint32 or uint64.
    """
    if len(key) != MASK_KEY_BYTES:
        raise InputError(f"a mask key is {MASK_KEY_BYTES} bytes, got {len(key)}")
    if count < 0 or np.dtype(dtype) not in LANE_DTYPES:
        raise InputError("a stream has a non-negative count of uint16, uint32 or uint64 words")
    words = np.zeros(count, dtype)
    accumulate_blocks(words, MaskKeys.expand(key), np.zeros(1, np.bool_), first_word=first_word)
    return words


def self_test(path: str | None = None) -> None:
    """Check a path against NIST SP 800-38A F.5.1 and against pycryptodome, for every lane dtype.

    Raises:
        InputError: ``path`` cannot be compiled here.
        SelfTestError: an answer is wrong; the path is then refused.
    """
    chosen = _path(path)
    for dtype in LANE_DTYPES:
        with _check_lock:
            _checked.discard((chosen, dtype))
        _check_once(chosen, dtype)


def warmup(*dtypes: DTypeLike) -> None:
    """Compile what masks over vectors of ``dtypes`` need, or load it from the disk cache, and check it."""
    for dtype in dtypes:
        _check_once(active_path(), np.dtype(dtype))


def _path(override: str | None) -> str:
    try:
        return _resolved_path(override)
    except ValueError as error:
        raise InputError(str(error)) from None


@functools.cache
def _resolved_path(override: str | None) -> str:
    return aes_path.aes_path(override)


def _require_arguments(words: NDArray[Any], keys: MaskKeys, subtract: NDArray[np.bool_], first_word: int) -> None:
    if words.dtype not in LANE_DTYPES or words.ndim != 1:
        raise InputError(f"words are a uint16, uint32 or uint64 vector, got {words.dtype} of {words.ndim} dimensions")
    if not (words.flags.c_contiguous and words.flags.aligned and words.flags.writeable):
        raise InputError("words are contiguous, aligned and writeable")
    if subtract.dtype != np.bool_ or subtract.shape != (len(keys),):
        raise InputError(f"subtract is bool[{len(keys)}], got {subtract.dtype}{list(subtract.shape)}")
    if not 0 <= first_word <= _STREAM_BYTES // words.itemsize - words.size:
        raise InputError(f"first_word {first_word} is outside the key stream")


class _Pass:
    """One pass of many masks over one vector, in blocks that any number of threads take from one another."""

    def __init__(
        self,
        words: NDArray[Any],
        keys: MaskKeys,
        subtract: NDArray[np.bool_],
        first_word: int,
        block_words: int | None,
    ) -> None:
        self._words, self._keys, self._subtract = words, keys, np.ascontiguousarray(subtract)
        self._first_word, self._block_words = first_word, block_words or _TILE_BYTES // words.itemsize
        self._taken = np.zeros(1, np.int64)

    def useful_threads(self, threads: int) -> int:
        """How many of ``threads`` threads to run: one where starting others costs more than it saves."""
        small = self._words.nbytes * len(self._keys) < _THREADING_BYTES
        return 1 if small else min(threads, -(-self._words.size // self._block_words))

    def run(self) -> None:
        """Take blocks until there are none left."""
        _run(self._words, self._keys, self._subtract, self._first_word, self._block_words, self._taken)


def _run(
    words: NDArray[Any],
    keys: MaskKeys,
    subtract: NDArray[np.bool_],
    first_word: int,
    block_words: int = _STREAM_BYTES,
    taken: NDArray[np.int64] | None = None,
) -> None:
    taken = np.zeros(1, np.int64) if taken is None else taken
    first_block, offset = divmod(first_word, _BLOCK_BYTES // words.itemsize)
    if keys.path == aes_path.PORTABLE:
        aes_portable.accumulate(words, keys._keys, subtract, first_block, offset, block_words, taken)
        return
    accumulate_kernel, step_bytes = _kernel(keys.path)
    scratch = np.empty(step_bytes // words.itemsize, words.dtype)
    accumulate_kernel(
        words, keys._round_keys, keys._nonces, subtract, np.uint64(first_block), offset, block_words, scratch, taken
    )


@functools.cache
def _kernel(path: str) -> tuple[Callable[..., None], int]:
    """The compiled kernel of a path, and the bytes of scratch that it takes."""
    from secagg.kernels import aes_counter

    kernels = {
        aes_path.VAES512: (aes_counter.accumulate_512, 4),
        aes_path.VAES256: (aes_counter.accumulate_256, 2),
        aes_path.AESNI: (aes_counter.accumulate_128, 1),
        aes_path.ARM: (aes_counter.accumulate_arm, 1),
    }
    kernel, lanes = kernels[path]
    return kernel, aes_counter.step_bytes(lanes)


# ----------------------------------------------------------------------------------------------- the known-answer check

# NIST SP 800-38A F.5.1, CTR-AES128.Encrypt: the key, the initial counter block, and plaintext xor ciphertext.
_NIST_KEY = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
_NIST_COUNTER = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
_NIST_STREAM = bytes.fromhex(
    "ec8cdf7398607cb0f2d21675ea9ea1e4362b7c3c6773516318a077d7fc5073ae"
    "6a2cc3787889374fbeb4c81b17ba6c44e89c399ff0f198c6d40a31db156cabfe"
)


def _check_once(path: str, dtype: np.dtype[Any]) -> None:
    """Run the known-answer check of a path and a dtype if this process has not yet."""
    if (path, dtype) in _checked:
        return
    with _check_lock:
        if (path, dtype) in _checked:
            return
        if not (_nist_answer(path, dtype) and _agrees_with_pycryptodome(path, dtype)):
            raise SelfTestError(f"the {path} kernel gives wrong key streams of {dtype} words on this machine")
        _checked.add((path, dtype))


def _nist_answer(path: str, dtype: np.dtype[Any]) -> bool:
    words = np.zeros(len(_NIST_STREAM) // dtype.itemsize, dtype)
    nonce, index = _NIST_COUNTER[:8], int.from_bytes(_NIST_COUNTER[8:], "big")
    keys = MaskKeys.expand(_NIST_KEY + nonce, path=path)
    _run(words, keys, np.zeros(1, np.bool_), index * (_BLOCK_BYTES // dtype.itemsize))
    return words.astype(dtype.newbyteorder("<"), copy=False).tobytes() == _NIST_STREAM


def _agrees_with_pycryptodome(path: str, dtype: np.dtype[Any]) -> bool:
    """Compare lengths and starts on both sides of a block and of a step, one mask added and one subtracted."""
    keys = bytes(range(2 * MASK_KEY_BYTES))
    signs = np.array([False, True])
    expanded = MaskKeys.expand(keys, path=path)
    for size, first_word in ((0, 0), (1, 0), (7, 1), (515, 3), (1031, 1 << 20), (1537, 255), (2048, 256)):
        words = np.arange(size).astype(dtype)
        expected = words.copy()
        _run(words, expanded, signs, first_word)
        for key, combine in ((keys[:24], np.add), (keys[24:], np.subtract)):
            combine(expected, _reference_stream(key, size, dtype, first_word), out=expected)
        if not np.array_equal(words, expected):
            return False
    return True


def _reference_stream(key: bytes, count: int, dtype: np.dtype[Any], first_word: int) -> NDArray[Any]:
    block, skip = divmod(first_word * dtype.itemsize, _BLOCK_BYTES)
    cipher = AES.new(key[:_KEY_BYTES], AES.MODE_CTR, nonce=key[_KEY_BYTES:], initial_value=block)
    data = cipher.encrypt(bytes(skip + count * dtype.itemsize))
    return np.frombuffer(data, dtype.newbyteorder("<"), offset=skip)
