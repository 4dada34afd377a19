"""Where a client's session lies between two messages: in Flower's context, or in files that are each used once.

Every message may be handled by a fresh process. The state rule (SPEC) wants a state durable before its reply leaves,
and never restored twice. Flower's deployment engine saves ``context.state`` in memory, after the reply has left;
``FileStore`` keeps the rule: a state is claimed by an atomic rename, so of two processes one gets it, and the next
state is on the disk before the reply is handed to Flower.
"""

from __future__ import annotations

import os
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from flwr.app import ConfigRecord, Context

from secagg.errors import DecodeError, LocalProtocolError

_MAGIC = b"SFst\x01"
_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a client keeps of a round between messages.

    Attributes:
        invitation: digest of the invitation that it answered, 32 bytes.
        content: digest of the train message that the round is about, 32 bytes.
        session: the session, saved and perhaps sealed.
        fixed: whether the roster is fixed, so that the beacon may be looked up.
        ahead: whether ``content`` is only the digest of the round before, since this one's model was not there yet.
    """

    invitation: bytes
    content: bytes
    session: bytes
    fixed: bool = False
    ahead: bool = False

    def __repr__(self) -> str:
        return f"Kept({len(self.session)} bytes of session)"

    def encode(self) -> bytes:
        """Return one string of bytes."""
        return _MAGIC + self.invitation + self.content + bytes([self.fixed | self.ahead << 1]) + self.session

    @classmethod
    def decode(cls, data: bytes) -> Kept:
        """Read what ``encode`` wrote.

        Raises:
            DecodeError: it is too short or of another version.
        """
        head, digests = len(_MAGIC), len(_MAGIC) + 2 * _DIGEST_BYTES
        if len(data) <= digests or not data.startswith(_MAGIC) or data[digests] > 3:
            raise DecodeError("the kept state is not one of this version")
        return cls(
            invitation=data[head : head + _DIGEST_BYTES],
            content=data[head + _DIGEST_BYTES : digests],
            session=data[digests + 1 :],
            fixed=bool(data[digests] & 1),
            ahead=bool(data[digests] & 2),
        )


class Store(ABC):
    """The one state that a node keeps for a run."""

    @abstractmethod
    def take(self) -> Kept | None:
        """Claim the state: until ``put``, ``put_back`` or ``finish`` nobody else gets it. None if there is none."""

    @abstractmethod
    def put(self, kept: Kept) -> None:
        """Make the next state durable; what was claimed is gone.

        Raises:
            LocalProtocolError: the round was dismissed meanwhile, or another was begun; this one's state is gone.
        """

    @abstractmethod
    def put_back(self) -> None:
        """Let go of what was claimed, unchanged: nothing was answered with it."""

    @abstractmethod
    def finish(self) -> None:
        """Remove what was claimed, and nothing that came after it.

        Raises:
            LocalProtocolError: the round was dismissed meanwhile.
        """

    @abstractmethod
    def wipe(self) -> None:
        """Remove all that is kept for the run."""


class ContextStore(Store):
    """Keep the state in ``context.state``, which is as durable as the engine makes it."""

    def __init__(self, context: Context, run_id: int) -> None:
        self._records, self._key = context.state, f"secagg.{run_id}"

    def take(self) -> Kept | None:
        """Return the state; no other process is kept from it."""
        record = self._records.get(self._key)
        data = record.get("state") if isinstance(record, ConfigRecord) else None
        if not isinstance(data, bytes):
            return None
        try:
            return Kept.decode(data)
        except DecodeError:
            # What cannot be read must not stand in the way of the next round
            self.wipe()
            raise

    def put(self, kept: Kept) -> None:
        """Set the state."""
        self._records[self._key] = ConfigRecord({"state": kept.encode()})

    def put_back(self) -> None:
        """Do nothing: the state was not removed."""

    def finish(self) -> None:
        """Remove the state."""
        self.wipe()

    def wipe(self) -> None:
        """Remove the state."""
        if self._key in self._records:
            del self._records[self._key]


class FileStore(Store):
    """Keep the state in one file of a directory on the node's own disk, which must know hard links.

    A process that trains for long may find its round dismissed and another begun when it is done. Its claim tells
    it of the first; of the second, that a link never replaces a file.
    """

    def __init__(self, directory: Path, *, run_id: int, node_id: int) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory, self._name = directory, f"secagg-{run_id}-{node_id}"
        self._path = directory / f"{self._name}.state"
        self._claimed: Path | None = None

    def take(self) -> Kept | None:
        """Claim the file by renaming it; a process that dies with a claim leaves its client out of the round."""
        # Known before the file has its name: an interruption anywhere finds what to give back
        claim = self._claimed = self._directory / f"{self._name}.claimed-{secrets.token_hex(8)}"
        try:
            os.rename(self._path, claim)
        except FileNotFoundError:
            self._claimed = None
            return None
        try:
            return Kept.decode(claim.read_bytes())
        except FileNotFoundError:
            raise _dismissed() from None
        except DecodeError:
            self._drop_claim()
            raise

    def put(self, kept: Kept) -> None:
        """Write the next state to the disk, then put it in its place unless the round was dismissed or replaced."""
        if self._claimed is not None and not self._claimed.exists():
            raise _dismissed()
        fresh = self._directory / f"{self._name}.fresh-{secrets.token_hex(8)}"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(kept.encode())
                file.flush()
                os.fsync(file.fileno())
            self._link(fresh)
        finally:
            fresh.unlink(missing_ok=True)
        self._sync_directory()
        if self._claimed is not None and not self._drop_claim():
            # Dismissed since the look above: what was put must not outlive it
            self._path.unlink(missing_ok=True)
            raise _dismissed()

    def put_back(self) -> None:
        """Undo the claim; where a newer round has a state or this one was dismissed, drop it."""
        if self._claimed is None:
            return
        try:
            self._link(self._claimed)
        except LocalProtocolError:
            return
        if not self._drop_claim():
            self._path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Remove the claim."""
        if self._claimed is not None and not self._drop_claim():
            raise _dismissed()
        self._sync_directory()

    def wipe(self) -> None:
        """Remove the run's files, those of claims as well."""
        # Until none is seen: one may be linked to another name while this looks
        while paths := list(self._directory.glob(f"{self._name}.*")):
            for path in paths:
                path.unlink(missing_ok=True)
        self._claimed = None
        self._sync_directory()

    def _link(self, source: Path) -> None:
        """Give a file the state's name, which no file must have yet."""
        try:
            os.link(source, self._path)
        except FileExistsError:
            self._drop_claim()
            raise LocalProtocolError("another round was begun on this node while it answered for this one") from None
        except FileNotFoundError:
            self._drop_claim()
            raise _dismissed() from None

    def _drop_claim(self) -> bool:
        """Remove the claim if there is one; whether it was still there."""
        claim, self._claimed = self._claimed, None
        try:
            if claim is not None:
                claim.unlink()
        except FileNotFoundError:
            return False
        return claim is not None

    def _sync_directory(self) -> None:
        # Where a directory can be opened (not on Windows), its entry is made durable too
        if hasattr(os, "O_DIRECTORY"):
            descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _dismissed() -> LocalProtocolError:
    return LocalProtocolError("the round was dismissed while this node answered for it")
