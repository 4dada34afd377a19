"""The protocol's payloads inside Flower's records, and the digest of what a train message says.

A payload is an array of bytes, which Flower sends in chunks, in a record of its own; a second record says what it is.
Both have names of ours; the strategy's records stand beside them, untouched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from secagg.errors import DecodeError, InputError

VERSION = 1
PRESENT, FOLLOWING = "secagg", "secagg.following"
"""Names of our records: of this round, and of the next one where its keys are advertised ahead."""

JOIN = "join"
"""The invitation, with the parameters and the digest of the train message that the round will be about."""
ANSWER = "answer"
"""Any later message of the session."""
DRAW = "draw"
"""The roster is fixed everywhere, so the beacon may be looked up."""
DISMISS = "dismiss"
"""The round is given up: forget it. Nobody waits for an answer."""
FIXED = "fixed"
"""A client's answer that stands for: the roster is durably fixed here, publish the beacon."""
STEPS = (JOIN, ANSWER, DRAW, DISMISS, FIXED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What travels in one message.

    Attributes:
        step: one of ``STEPS``.
        payload: the session's bytes; empty where none are due.
        params: with ``JOIN``, the round's parameters, encoded.
        content: with ``JOIN``, the digest of the train message to come, 32 bytes.
    """

    step: str
    payload: bytes = b""
    params: bytes = b""
    content: bytes = b""

    def put_into(self, content: RecordDict, name: str = PRESENT) -> RecordDict:
        """Return a new content with this beside what ``content`` holds; its records are shared, not copied."""
        config = ConfigRecord({"version": VERSION, "step": self.step})
        if self.params:
            config["params"], config["content"] = self.params, self.content
        own: dict[str, ArrayRecord | ConfigRecord] = {name: config}
        if self.payload:
            array = Array(dtype="uint8", shape=(len(self.payload),), stype="bytes", data=self.payload)
            own[f"{name}.payload"] = ArrayRecord({"payload": array})
        return RecordDict({**dict(content.items()), **own})

    @classmethod
    def take_from(cls, content: RecordDict, name: str = PRESENT) -> Envelope:
        """Read what ``put_into`` wrote.

        Raises:
            DecodeError: there is none, or it is malformed.
        """
        config, record = content.get(name), content.get(f"{name}.payload")
        if not isinstance(config, ConfigRecord):
            raise DecodeError("the message bears nothing of a secure sum")
        if config.get("version") != VERSION:
            raise DecodeError("the message is of another version of this integration")
        step, params, digest = (config.get(name, b"") for name in ("step", "params", "content"))
        if step not in STEPS or not isinstance(params, bytes) or not isinstance(digest, bytes):
            raise DecodeError("the message's description is malformed")
        if bool(params) != (step == JOIN) or len(digest) != (32 if step == JOIN else 0):
            raise DecodeError("the message's description is malformed")
        payload = b""
        if record is not None:
            array = record.get("payload") if isinstance(record, ArrayRecord) else None
            if not isinstance(array, Array) or len(record) != 1 or not isinstance(array.data, bytes):
                raise DecodeError("the message's payload is malformed")
            payload = array.data
        return cls(step=str(step), payload=payload, params=params, content=digest)


def without_envelope(content: RecordDict) -> RecordDict:
    """Return a new content with the application's own records alone."""
    return RecordDict({key: record for key, record in content.items() if not is_ours(key)})


def is_ours(key: str) -> bool:
    """Tell whether a record's name is one of the secure sum's own."""
    return key.partition(".")[0] == PRESENT


def is_train(message: Message) -> bool:
    """Tell whether a message asks for training (``train`` or ``train.<action>``)."""
    return str(message.metadata.message_type).partition(".")[0] == "train"


def content_digest(run_id: int, message_type: str, content: RecordDict) -> bytes:
    """Return 32 bytes that differ wherever two train messages do: model, configuration, run or action.

    The order of records and of their entries does not matter, since transports need not keep it.

    Raises:
        InputError: a record is of a kind that Flower does not define.
    """
    hashed = hashlib.sha256()
    for part in _parts(run_id, message_type, content):
        hashed.update(len(part).to_bytes(8, "little"))
        hashed.update(part)
    return hashed.digest()


def _parts(run_id: int, message_type: str, content: RecordDict) -> Iterable[bytes | memoryview]:
    yield b"secagg under Flower, 1"
    yield str(run_id).encode()
    yield message_type.encode()
    for key in sorted(content):
        record = content[key]
        yield key.encode()
        yield str(len(record)).encode()
        for name in sorted(record):
            value = record[name]
            yield name.encode()
            if isinstance(value, Array):
                yield f"array {value.dtype} {tuple(value.shape)} {value.stype}".encode()
                yield memoryview(value.data)
            else:
                yield _plain(value).encode()


def _plain(value: object) -> str:
    # A subclass (NumPy's float64 is one of float) arrives as its base: both ends must see one text
    if isinstance(value, list):
        return f"[{','.join(_plain(item) for item in value)}]"
    if isinstance(value, bytes):
        return f"bytes {value.hex()}"
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return f"{kind.__name__} {kind(value)!r}"
    raise InputError(f"a train message holds a value of type {type(value).__name__}")
