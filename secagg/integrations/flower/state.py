"""Where a client's session lies between two messages: in Flower's context, or in files that are each used once.

Every message may be handled by a fresh process. The state rule (SPEC) wants a state durable before its reply leaves,
and never restored twice. The session sees to the order: it calls ``RoundRecord.keep`` before a reply exists.
``SlotStore`` sees to the rest: what is put is on the disk, and of two processes one gets it. ``ContextStore`` is as
good as Flower, whose deployment engine saves ``context.state`` in memory, after the reply has left.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from flwr.app import ConfigRecord, Context

from secagg.errors import DecodeError, LocalProtocolError
from secagg.session.file_store import FileStore
from secagg.snapshot import SavedState
from secagg.wire import Buffer

_MAGIC = b"SFst\x02"
_DIGEST_BYTES = 32
_HEAD = struct.Struct(f"<5s{_DIGEST_BYTES}s{_DIGEST_BYTES}sBI")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a client keeps of a round between messages, in one piece: a head of its own, then the session's state.

    Attributes:
        invitation: digest of the invitation that it answered, 32 bytes.
        content: digest of the train message that the round is about, 32 bytes.
        params: the parameters that it agreed to, encoded.
        session: the session's state, perhaps sealed: a ``SavedState`` to be written, or bytes that were read.
        fixed: whether anything after the invitation was taken in, the roster first of all: so the beacon may be looked
            up.
        ahead: whether ``content`` is only the digest of the round before, since this one's model was not there yet.
    """

    invitation: bytes
    content: bytes
    params: bytes
    session: Any = b""
    fixed: bool = False
    ahead: bool = False

    def __repr__(self) -> str:
        return f"Kept({len(self.session)} bytes of session)"

    def buffers(self) -> Iterator[Buffer]:
        """Yield what to write, in turn: the session's state is not copied."""
        flags = self.fixed | self.ahead << 1
        yield _HEAD.pack(_MAGIC, self.invitation, self.content, flags, len(self.params)) + self.params
        if isinstance(self.session, SavedState):
            yield from self.session.buffers()
        else:
            yield self.session

    def encode(self) -> bytes:
        """Return one string of bytes."""
        return b"".join(cast(bytes, one) for one in self.buffers())

    @classmethod
    def decode(cls, data: bytes) -> Kept:
        """Read what ``buffers`` gave; the session's state is a view of it.

        Raises:
            DecodeError: it is too short or of another version.
        """
        if len(data) < _HEAD.size:
            raise DecodeError("the kept state is not one of this version")
        magic, invitation, content, flags, length = _HEAD.unpack_from(data)
        if magic != _MAGIC or flags > 3 or len(data) <= _HEAD.size + length:
            raise DecodeError("the kept state is not one of this version")
        rest = memoryview(data)[_HEAD.size :]
        return cls(
            invitation=invitation,
            content=content,
            params=bytes(rest[:length]),
            session=rest[length:],
            fixed=bool(flags & 1),
            ahead=bool(flags & 2),
        )


class RoundRecord:
    """What a node's session is built with: ``keep`` writes its state with the round's head into the node's store.

    The session calls it before a reply exists, so nothing here has an order to get wrong.

    Attributes:
        head: what stands before the state; set it before the call whose step it belongs to.
    """

    __slots__ = ("_store", "head")

    def __init__(self, store: Store, head: Kept) -> None:
        self._store, self.head = store, head

    def keep(self, state: SavedState) -> None:
        """Make the head and the session's state durable, in the place of what the node had.

        Raises:
            LocalProtocolError: the round was dismissed meanwhile, or another was begun.
        """
        self._store.put(replace(self.head, session=state))


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
        """Let go of what was claimed, unchanged, where nothing was put since; else do nothing."""

    @abstractmethod
    def finish(self) -> None:
        """Remove what was claimed, or what this store put last, and nothing that came after it.

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


class SlotStore(Store):
    """Keep the state in a slot of a ``secagg.FileStore`` on the node's own disk.

    A process that trains for long may find its round dismissed and another begun when it is done: its claim is gone
    then, or another state has the name, and its own is refused.
    """

    def __init__(self, folder: Path, *, run_id: int, node_id: int) -> None:
        self._slot = FileStore(folder).slot(f"secagg-{run_id}-{node_id}")

    def take(self) -> Kept | None:
        """Claim the state; None too where another process holds it, be it one that died: a new round may begin."""
        try:
            data = self._slot.take()
        except LocalProtocolError:
            return None
        except DecodeError:
            # What cannot be read must not stand in the way of the next round
            self._slot.drop()
            raise
        try:
            return None if data is None else Kept.decode(data)
        except DecodeError:
            # What cannot be read must not stand in the way of the next round
            self._slot.drop()
            raise

    def put(self, kept: Kept) -> None:
        """Put the next state in the place of what was taken, unless the round was dismissed or replaced."""
        with _naming_the_round():
            # A new invitation gives up the round that another process may still train for; its own put is refused
            self._slot.put(kept, superseding=True)

    def put_back(self) -> None:
        """Undo the claim; where a newer round has a state or this one was dismissed, drop it."""
        self._slot.put_back()

    def finish(self) -> None:
        """Remove what was claimed or put."""
        with _naming_the_round():
            self._slot.drop()

    def wipe(self) -> None:
        """Remove the run's states, claimed ones as well."""
        self._slot.wipe()


@contextmanager
def _naming_the_round() -> Iterator[None]:
    try:
        yield
    except LocalProtocolError as problem:
        raise LocalProtocolError(
            f"the round was dismissed, or another round was begun, while this node answered for it: {problem}"
        ) from None
