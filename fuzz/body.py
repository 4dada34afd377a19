"""One adversarial message, from the bytes of a fuzzer or of a generator: what must hold of it whatever it is."""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from corpus import ME, SCENARIOS, SPARSE_FROM, STAGE_OF_STATE, Recording, Snapshot, recording
from secagg import ClientSession, Reply, SecAggError, ServerSession
from secagg.encoding.ring import lane_dtype, unpack_add
from secagg.pairwise.identifiers import beacon_digest
from secagg.pairwise.messages import FORMATS, Kind
from secagg.wire import HEADER_BYTES, Header

ACCEPTED_BYTES = FORMATS["malicious-server"].accepted_bytes
SECONDS = 2.0
"""What one message may take, on a busy machine too."""
HUGE = 1 << 22


class Failed(AssertionError):
    """The library broke a promise."""


class Hang(BaseException):
    """A message took too long; no handler of the library catches it."""


@dataclass(frozen=True)
class Outcome:
    """What became of a message."""

    model: str
    side: str
    state: str
    result: str
    seconds: float


class Choices:
    """Numbers from bytes; zeros when the bytes run out."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self, below: int) -> int:
        """Return the next number in [0, below)."""
        size = 1 if below <= 256 else 4
        chunk = self._data[self._at : self._at + size].ljust(size, b"\0")
        self._at += size
        return int.from_bytes(chunk, "little") % below

    def rest(self) -> bytes:
        """Return what was not read."""
        return self._data[self._at :]


def check_one_input(data: bytes) -> Outcome:
    """Send one message. It must end in a SecAggError that changes nothing, or be taken and spoil no sum unseen.

    Raises:
        Failed: it did not.
    """
    choices = Choices(data)
    scenario = choices.number(8) % 6 % len(SCENARIOS)  # the small cohorts, which are finished, come up more often
    made = recording(scenario)
    to_client = bool(choices.number(2))
    snapshots = made.clients if to_client else made.servers
    snapshot = snapshots[choices.number(len(snapshots))]
    payload, signed = _message(choices, made, snapshot, to_client)
    finished = scenario < SPARSE_FROM or data[-1:] < b"\x10"
    side, attack = ("client", _to_client) if to_client else ("server", _to_server)
    result, seconds = attack(made, snapshot, payload, finished)
    if result.startswith("taken"):
        _check_taken(made, snapshot, payload, to_client=to_client, signed=signed)
    model = made.threat + (", sparse" if scenario >= SPARSE_FROM else "")
    return Outcome(model, side, snapshot.name, result, seconds)


# ------------------------------------------------------------------------------------------------- making a message


def _message(choices: Choices, made: Recording, snapshot: Snapshot, to_client: bool) -> tuple[bytes, bool]:
    """Return a message, and whether a corrupt client signed what it says."""
    fix_header, sign, from_awaited = choices.number(2), choices.number(2), choices.number(4)
    base = made.messages[choices.number(len(made.messages))]
    if from_awaited and snapshot.awaited is not None:
        base = snapshot.awaited
    other = made.messages[choices.number(len(made.messages))]
    payload = _damaged(choices, base, other)
    if fix_header and snapshot.awaited is not None:
        payload = snapshot.awaited[:HEADER_BYTES] + payload[HEADER_BYTES:]
    if sign and not to_client and made.threat == "malicious-server" and len(payload) >= HEADER_BYTES + 64:
        # A corrupt client signs what it likes
        header = Header(kind=payload[6], sender=int.from_bytes(payload[8:16], "little"), session=payload[16:48])
        body = payload[HEADER_BYTES:-64]
        end = len(body) - (ACCEPTED_BYTES if header.kind == Kind.MASKED_INPUT else 0)
        attached = body[max(end, 0) :]
        if header.kind == Kind.ENCRYPTED_SHARES:
            attached = beacon_digest(made.cohort.beacon if made.cohort.params.graph == "harary" else None)
        signature = made.cohort.identities[ME].sign(header, body[: max(end, 0)], attached=attached)
        return payload[:-64] + signature, True
    return payload, False


def _damaged(choices: Choices, base: bytes, other: bytes) -> bytes:
    how, at = choices.number(10), choices.number(1 << 32) % len(base)
    if how == 0:
        return _flipped(choices, base)
    if how == 1:
        return base[:at]
    if how == 2:
        return base + (choices.rest() or b"\0")
    if how == 3:
        return base[:at] + other[at:]
    if how == 4:
        return base[:HEADER_BYTES] + other[HEADER_BYTES:]
    if how == 5:
        return choices.rest()
    if how == 6:
        size = (b"\xff" * 8, (1 << 40).to_bytes(8, "little"), (1 << 63).to_bytes(8, "little"), bytes(8))
        return base[:at] + size[choices.number(4)] + base[at + 8 :]
    if how == 7:
        return base + bytes(choices.number(HUGE)) if choices.number(32) == 0 else base[:at] + base
    if how == 8:
        field = ((0, 4), (4, 5), (5, 6), (6, 7), (7, 8), (8, 16), (16, 48))[choices.number(7)]
        return base[: field[0]] + other[slice(*field)] + base[field[1] :]
    return base


def _flipped(choices: Choices, base: bytes) -> bytes:
    changed = bytearray(base)
    for _ in range(1 + choices.number(4)):
        # Half of the flips fall behind the header, so that they reach a decoder
        start = HEADER_BYTES if choices.number(2) and len(base) > HEADER_BYTES else 0
        at = start + choices.number(1 << 32) % (len(base) - start)
        changed[at] ^= 1 << choices.number(8)
    return bytes(changed)


# -------------------------------------------------------------------------------------------------------- sending it

_endings: dict[tuple[int, bytes], str] = {}
_live: dict[int, tuple[ClientSession | ServerSession, bytes]] = {}


def _session(made: Recording, snapshot: Snapshot, to_client: bool) -> tuple[ClientSession | ServerSession, bytes]:
    """Return the session of a snapshot, and its saved bytes; one that only ever raised is used again."""
    if id(snapshot) not in _live:
        session = made.client(snapshot.saved) if to_client else made.server(snapshot.saved)
        _live[id(snapshot)] = (session, session.save(seal_key=None))
    return _live[id(snapshot)]


def _to_client(made: Recording, snapshot: Snapshot, payload: bytes, finished: bool) -> tuple[str, float]:
    client, before = _session(made, snapshot, True)
    assert isinstance(client, ClientSession)
    where = f"client {snapshot.name}"
    reply, error, seconds = _timed(where, lambda: client.receive(payload))
    if error is not None:
        if client.save(seal_key=None) != before:
            raise Failed(f"{where}: {error!r} changed the state") from error
        return type(error).__name__, seconds
    if client.save(seal_key=None) == before:
        return "answered again", seconds
    del _live[id(snapshot)]
    sent = reply.payload if isinstance(reply, Reply) else None
    ended = _ended(snapshot, payload, finished, lambda: _finish(made, _stage(made, snapshot.name), sent, client))
    return ended, seconds


def _to_server(made: Recording, snapshot: Snapshot, payload: bytes, finished: bool) -> tuple[str, float]:
    server, before = _session(made, snapshot, False)
    assert isinstance(server, ServerSession)
    where = f"server {snapshot.name}"
    _, error, seconds = _timed(where, lambda: server.receive(ME, payload))
    if error is not None:
        if server.save(seal_key=None) != before:
            raise Failed(f"{where}: {error!r} changed the state") from error
        return type(error).__name__, seconds
    if server.save(seal_key=None) == before:
        raise Failed(f"{where}: a message was taken and changed nothing")
    del _live[id(snapshot)]
    return _ended(snapshot, payload, finished, lambda: _finish(made, snapshot.name, payload)), seconds


def _check_taken(made: Recording, snapshot: Snapshot, payload: bytes, *, to_client: bool, signed: bool) -> None:
    """A message may be taken where its kind is awaited, in its own session, and at the server from its signer alone."""
    awaited = snapshot.awaited
    if awaited is None or snapshot.name.endswith("all in") or payload[6] != awaited[6]:
        raise Failed(f"{snapshot.name}: a message was taken where it is not awaited")
    if snapshot.name != "Idle" and payload[16:48] != awaited[16:48]:
        raise Failed(f"{snapshot.name}: a message of another session was taken")
    if made.threat == "malicious-server" and not to_client and not signed and payload != awaited:
        raise Failed(f"{snapshot.name}: a message was taken that its sender did not sign")


def _timed(where: str, call: Callable[[], object]) -> tuple[object, SecAggError | None, float]:
    start = time.perf_counter()
    try:
        with _alarm():
            answer, fault = call(), None
    except SecAggError as error:
        answer, fault = None, error
    except Hang:
        raise Failed(f"{where}: a message took more than {SECONDS} s") from None
    except Exception as error:
        raise Failed(f"{where}: {error!r}") from error
    return answer, fault, time.perf_counter() - start


def _ended(snapshot: Snapshot, payload: bytes, finished: bool, finish: Callable[[], str]) -> str:
    """Finish a round that took a message; of messages that are alike the first is enough."""
    if not finished or snapshot.name.endswith("all in") or snapshot.awaited is None:
        return "taken"
    key = (id(snapshot), payload)
    if key not in _endings:
        _endings[key] = finish()
    return f"taken, then {_endings[key]}" + (" (unaltered)" if payload == snapshot.awaited else "")


def _stage(made: Recording, state: str) -> str:
    stage = STAGE_OF_STATE[state]
    return "unmask" if stage == "check_consistency" and made.threat == "semi-honest" else stage


def _finish(made: Recording, stage: str, sent: bytes | None, client: ClientSession | None = None) -> str:
    """Run the rest of the round with what ME sent and honest others: it ends in the exact sum or a SecAggError."""
    saved_server, saved_clients = made.stages[stage]
    server = made.server(saved_server)
    clients = {one: made.client(saved, one) for one, saved in saved_clients.items()}
    if client is not None:
        clients[ME] = client
    if sent is not None:
        try:
            server.receive(ME, sent)
        except SecAggError:
            if client is None:
                raise Failed(f"server {stage}: took a message and refused it afterwards") from None
    try:
        while server.stage is not None:
            _run_stage(made, server, clients)
    except SecAggError as error:
        return type(error).__name__
    except Exception as error:
        raise Failed(f"{stage}: a round that was attacked ended in {error!r}") from error
    uploaded = sent if client is None and stage == "masked_input" else None
    _check_sum(made, server, uploaded)
    return "exact sum"


def _run_stage(made: Recording, server: ServerSession, clients: dict[int, ClientSession]) -> None:
    if server.beacon_needed:
        server.use_beacon(made.cohort.beacon)
    requests = server.requests()
    for one in server.waiting_for:
        try:
            server.receive(one, made.answer(one, clients[one], requests[one]))
        except SecAggError:
            continue  # a client that was misled, or whose message was altered, falls silent
    server.advance()


def _check_sum(made: Recording, server: ServerSession, uploaded: bytes | None) -> None:
    """Compare with the inputs; an upload that ME itself changed counts as its input, changed by that difference."""
    result, params = server.result, made.cohort.params
    expected = np.zeros(params.dimension + 1, np.uint64)
    for one in result.survivors:
        expected[[one, -1]] += np.uint64(made.cohort.weights[one])
    if uploaded is not None and ME in result.survivors:
        expected += _words(made, uploaded) - _words(made, made.upload)
    expected &= np.uint64((1 << params.ring_bits) - 1)
    if result.words.astype(np.uint64).tolist() != expected.tolist():
        raise Failed(f"a silent wrong sum: {result.words.tolist()} for {expected.tolist()}")


def _words(made: Recording, upload: bytes) -> np.ndarray:
    params = made.cohort.params
    words = np.zeros(params.dimension + 1, lane_dtype(params.ring_bits))
    end = len(upload) - (64 + ACCEPTED_BYTES if made.threat == "malicious-server" else 0)
    unpack_add(memoryview(upload)[HEADER_BYTES:end], words, params.ring_bits)
    return words.astype(np.uint64)


@contextmanager
def _alarm() -> Iterator[None]:
    def late(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def seeds(seed: int, count: int) -> Iterator[bytes]:
    """Yield inputs for ``check_one_input`` that follow from a seed; their lengths are mixed."""
    for index in range(count):
        head = hashlib.sha256(f"{seed}/{index}".encode()).digest()
        yield hashlib.shake_256(head).digest(40 if head[0] < 192 else 40 + 4 * head[1])
