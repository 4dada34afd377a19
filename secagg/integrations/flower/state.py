"""Where a client's session lies between two messages: in Flower's context, or in files that are each used once.

Every message may be handled by a fresh process. The state rule (SPEC) wants a state durable before its reply leaves,
and never restored twice. Flower's deployment engine saves ``context.state`` in memory, after the reply has left;
``SlotStore`` keeps the rule: of two processes one gets a state, and the next one is on the disk before the reply is
handed to Flower.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flwr.app import ConfigRecord, Context

from secagg.errors import DecodeError, LocalProtocolError
from secagg.session.file_store import FileStore

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


class SlotStore(Store):
    """Keep the state in a slot of a ``secagg.FileStore`` on the node's own disk.

    A process that trains for long may find its round dismissed and another begun when it is done: its claim is gone
    then, or another state has the name, and its own is refused.
    """

    def __init__(self, folder: Path, *, run_id: int, node_id: int) -> None:
        self._slot = FileStore(folder).slot(f"secagg-{run_id}-{node_id}")

    def take(self) -> Kept | None:
        """Claim the state; a process that dies with a claim leaves its client out of the round."""
        try:
            with _naming_the_round():
                data = self._slot.take()
            return None if data is None else Kept.decode(data)
        except DecodeError:
            # What cannot be read must not stand in the way of the next round
            self._slot.drop()
            raise

    def put(self, kept: Kept) -> None:
        """Put the next state in the place of what was taken, unless the round was dismissed or replaced."""
        with _naming_the_round():
            self._slot.put(kept.encode())

    def put_back(self) -> None:
        """Undo the claim; where a newer round has a state or this one was dismissed, drop it."""
        self._slot.put_back()

    def finish(self) -> None:
        """Remove what was claimed."""
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
