"""A store of saved states in one folder: each state is durable when ``put`` returns, and is handed out once.

A state lies unclaimed under its slot's name. Whoever takes it renames it, so of two processes one gets it, and gives
the next one the name by a hard link, which replaces no file: what somebody else put meanwhile stays. A slot that puts
again and again takes back what it put last and looks whether it is that. Wherever a process is killed, or the power
fails, the state before or the state after is there: under the name, or in a claim that ``recover`` gives back. That
takes a disk that keeps what ``os.fsync`` wrote, and a file system that keeps the order of changes in a folder, as those
with a journal do.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from secagg.errors import InputError
from secagg.session.slot import Slot
from secagg.session.slot_files import (
    SlotFiles,
    check_name,
    files_by_slot,
    is_claim,
    mark_in_name,
    mark_of,
    remove,
    sync_folder,
)


class FileStore:
    """Keep saved states in a folder of this machine: durable when ``put`` returns, and each handed out once.

    ::

        store = secagg.FileStore("/var/lib/federation/states")
        store.recover()                  # at the service's start, while no other process uses the folder
        slot = store.slot("client-3")
        saved = slot.take()              # None: begin a session. Else restore it; it raises if another holds it
        ...                              # ClientSession(..., keep=slot.put), or restore(saved, ..., keep=slot.put)
        slot.drop()                      # the round is over

    Files are for this user alone, but hold the states as they are: seal what holds secrets (``seal_key``). Never copy
    the folder back from a backup: a state that was used would be used again.

    Args:
        folder: where the states lie; made with mode 0700 if it is missing. It must lie on a local file system with hard
            links: ext4, xfs, btrfs, APFS, NTFS.

    Raises:
        InputError: ``folder`` is no path.
        OSError: it is missing and cannot be made.
    """

    __slots__ = ("_folder",)

    def __init__(self, folder: Path | str | os.PathLike[str]) -> None:
        try:
            self._folder = Path(folder).absolute()
        except TypeError:
            raise InputError(f"a store's folder is a path, got {type(folder).__name__}") from None
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def slot(self, name: str) -> Slot:
        """Return a new slot for the state of this name; it touches no file yet.

        Args:
            name: 1 to 100 of the characters a to z, 0 to 9, ``-``, ``_`` and ``.``; ``-`` and ``.`` are not the first.

        Raises:
            InputError: the name is another.
        """
        return Slot(SlotFiles(self._folder, check_name(name)))

    def recover(self) -> tuple[str, ...]:
        """Give back the states that dead processes had claimed, and remove what else they left.

        Call it when nothing else uses the folder, as at a service's start. A claim that was superseded is not given
        back; of several in one slot, the one that was written last is.

        Returns:
            the names of the slots whose state was given back, sorted.
        """
        found = files_by_slot(self._folder)
        given_back = []
        for name, paths in found.items():
            files = SlotFiles(self._folder, name)
            claim = _newest(paths) if files.state not in paths else None
            if claim is not None:
                with suppress(FileExistsError):  # it is superseded after all
                    files.link(claim)
                    given_back.append(name)
        # First of all the names are durable: a power cut must not leave a state without one
        sync_folder(self._folder)
        for name, paths in found.items():
            state = SlotFiles(self._folder, name).state
            for path in paths:
                if path != state:
                    remove(path)
        return tuple(sorted(given_back))


def _newest(paths: list[Path]) -> Path | None:
    """Return the claim that was written last, of those that no other supersedes."""
    marks = {path: mark_of(path) for path in paths if is_claim(path)}
    superseding = {mark.hex() for mark in marks.values() if mark is not None}
    left = [path for path in marks if mark_in_name(path) not in superseding]
    return max(left, key=lambda path: (marks[path] is not None, os.stat(path).st_mtime_ns), default=None)
