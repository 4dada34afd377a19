"""The files of a slot, one system call or two at a time; what they mean together is said in ``file_store``.

    NAME.state            the state, for whoever takes it
    NAME.claimed-MARK     a state that somebody took
    NAME.fresh-MARK       a state that is being written

A file begins with a mark of its own, 16 random bytes. It is also the mark of the claim that the file supersedes and of
the name that it was written under, so whoever takes a state knows what else an interrupted ``put`` may have left.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

from secagg.errors import DecodeError, InputError
from secagg.primitives.randomness import system_randomness
from secagg.wire import Buffer

_MAGIC = b"SFil\x01"
_MARK_BYTES = 16
_HEADER_BYTES = len(_MAGIC) + _MARK_BYTES
_LARGEST_NAME = 100
_NAME = re.compile(rf"[a-z0-9_][a-z0-9_.-]{{0,{_LARGEST_NAME - 1}}}", re.ASCII)
# Windows opens a device under these, whatever follows their first dot
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.ASCII)
_STATE, _CLAIM, _FRESH = "state", "claimed-", "fresh-"
_KIND = re.compile(rf"{_STATE}|(?:{_CLAIM}|{_FRESH})[0-9a-f]{{{2 * _MARK_BYTES}}}", re.ASCII)
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EINVAL, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP}
_BINARY = getattr(os, "O_BINARY", 0)


def check_name(name: object) -> str:
    """Return a slot's name.

    Raises:
        InputError: it is none that every file system holds as a file of its own.
    """
    if not isinstance(name, str):
        raise InputError(f"a slot's name is text, got {type(name).__name__}")
    if len(name) > _LARGEST_NAME:
        raise InputError(f"a slot's name has at most {_LARGEST_NAME} characters, got {len(name)}")
    if not _NAME.fullmatch(name) or _DEVICES.match(name):
        raise InputError(
            f"{name!r} is no slot's name: use a to z (some file systems take A for a), 0 to 9, '-', '_' and '.', begin "
            "with none of '-' and '.', and avoid what Windows keeps for devices (con, nul, com1, ...)"
        )
    return name


def new_mark() -> bytes:
    """Draw a mark that no other file has."""
    return system_randomness(_MARK_BYTES)


class SlotFiles:
    """The files of one slot in a folder. What the operating system refuses is an OSError, unless it says otherwise."""

    __slots__ = ("folder", "name", "state")

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.state = folder / f"{name}.{_STATE}"

    def claim(self, mark: bytes) -> Path:
        """Return the path of a claim."""
        return self.folder / f"{self.name}.{_CLAIM}{mark.hex()}"

    def fresh(self, mark: bytes) -> Path:
        """Return the path of a state that is being written."""
        return self.folder / f"{self.name}.{_FRESH}{mark.hex()}"

    def all(self) -> list[Path]:
        """Return those that are seen in one look at the folder."""
        return [path for name, path in _slot_files(self.folder) if name == self.name]

    def write(self, mark: bytes, buffers: Iterable[Buffer]) -> None:
        """Write a state to the disk under its fresh name, readable for this user alone.

        Raises:
            InputError: one of the buffers is none of bytes.
        """
        descriptor = os.open(self.fresh(mark), os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o600)
        try:
            _write_all(descriptor, _MAGIC + mark)
            for buffer in buffers:
                _write_all(descriptor, buffer)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self, path: Path) -> tuple[bytes, bytes]:
        """Return a file's mark and its state.

        Raises:
            FileNotFoundError: it is not there.
            DecodeError: it is no file of a slot.
        """
        with os.fdopen(os.open(path, os.O_RDONLY | _BINARY), "rb") as file:
            mark = _mark(file.read(_HEADER_BYTES))
            if mark is None:
                raise DecodeError(f"what lies under the slot {self.name!r} is no state that this version stored")
            return mark, file.read()

    def claim_state(self, mark: bytes) -> bool:
        """Rename the state to a claim; False if there is none. Of two processes that try, one gets it."""
        try:
            os.rename(self.state, self.claim(mark))
        except FileNotFoundError:
            return False
        return True

    def link(self, source: Path) -> None:
        """Give a file the state's name beside its own.

        Raises:
            FileExistsError: another file has that name: a link never replaces one.
            FileNotFoundError: ``source`` is gone.
            InputError: the folder's file system has no hard links.
        """
        try:
            os.link(source, self.state)
        except AttributeError:
            problem = "this system's Python has none"
        except OSError as refused:
            if refused.errno not in _NO_LINKS:
                raise
            problem = errno.errorcode.get(refused.errno, str(refused.errno))
        else:
            return
        raise InputError(
            f"the slot {self.name!r} cannot be put: the store's folder refuses hard links ({problem}). It must lie on "
            "a disk of this machine with a file system that has them: ext4, xfs, btrfs, APFS, NTFS"
        )

    def sync(self) -> None:
        """Make the folder's entries durable."""
        sync_folder(self.folder)

    def remove_twins(self, path: Path) -> None:
        """Remove the slot's other names of one file."""
        if names_of(path) > 1:
            for other in self.all():
                if other != path and _same(other, path):
                    remove(other)


def files_by_slot(folder: Path) -> dict[str, list[Path]]:
    """Return the files of every slot in a folder; what belongs to none is left out."""
    found: dict[str, list[Path]] = {}
    for name, path in _slot_files(folder):
        found.setdefault(name, []).append(path)
    return found


def is_claim(path: Path) -> bool:
    """Whether a slot's file is a claim."""
    return path.name.rpartition(".")[2].startswith(_CLAIM)


def mark_in_name(path: Path) -> str:
    """Return the mark in the name of a claim or fresh file, as hexadecimal digits."""
    return path.name.rpartition("-")[2]


def mark_of(path: Path) -> bytes | None:
    """Return the mark that a file begins with; None if the file is not there or no file of a slot."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _BINARY)
    except FileNotFoundError:
        return None
    try:
        return _mark(os.read(descriptor, _HEADER_BYTES))
    finally:
        os.close(descriptor)


def names_of(path: Path) -> int:
    """Return how many names a file has, this one counted; 0 if it is not there."""
    try:
        return os.stat(path).st_nlink
    except FileNotFoundError:
        return 0


def remove(path: Path) -> bool:
    """Remove a file; False if it was not there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable, where a folder can be opened (not on Windows)."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _slot_files(folder: Path) -> Iterator[tuple[str, Path]]:
    for entry in os.listdir(folder):
        name, _, kind = entry.rpartition(".")
        if _KIND.fullmatch(kind) and _NAME.fullmatch(name):
            yield name, folder / entry


def _mark(header: bytes) -> bytes | None:
    return header[len(_MAGIC) :] if len(header) == _HEADER_BYTES and header.startswith(_MAGIC) else None


def _write_all(descriptor: int, buffer: Buffer) -> None:
    try:
        view = memoryview(cast(bytes, buffer))  # an ndarray is a buffer too, which NumPy does not declare
        left = view.cast("B") if view.nbytes else memoryview(b"")
    except (TypeError, ValueError):
        raise InputError(f"a state is stored from buffers of bytes, got {type(buffer).__name__}") from None
    while left:
        left = left[os.write(descriptor, left) :]


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except FileNotFoundError:
        return False
