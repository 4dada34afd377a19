"""What failing vectors are made of: changed bytes, operations, and the errors that must answer them.

What is expected is written by hand, from SPEC, in the two modules that use this one, never recorded from the library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from secagg.pairwise.identifiers import beacon_digest
from secagg.pairwise.messages import Kind
from secagg.wire import HEADER_BYTES, SERVER, Header
from vector_rounds import Round

Operation = dict[str, object]
OK = {"outcome": "ok"}
SERVER_FAULT = {"outcome": "error", "error": "ServerFault", "culprit": "server", "proof": None}

ENTRY = {"semi-honest": 96, "malicious-server": 160}
DEALT = {"semi-honest": 96, "malicious-server": 256}
RECORD = {"semi-honest": 40, "malicious-server": 56}
LOW_ORDER = bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
P61 = 2**61 - 1


def fault(error: str, culprit: int | str | None = None, proof: bool | None = None) -> dict[str, object]:
    return {"outcome": "error", "error": error, "culprit": None if culprit is None else str(culprit), "proof": proof}


def peer(culprit: int) -> dict[str, object]:
    return fault("PeerFault", culprit, False)


def proved(culprit: int, evidence: bytes) -> dict[str, object]:
    return fault("PeerFault", culprit, True) | {"evidence": evidence.hex()}


def stale(culprit: int) -> dict[str, object]:
    return fault("StaleMessage", culprit, False)


def too_few(have: int, need: int) -> dict[str, object]:
    return fault("TooFewClients") | {"have": have, "need": need}


LOCAL = fault("LocalProtocolError")
INPUT = fault("InputError")


# ------------------------------------------------------------------------------------------------ changing bytes


def put(payload: bytes, at: int, new: bytes) -> bytes:
    at = at if at >= 0 else len(payload) + at
    return payload[:at] + new + payload[at + len(new) :]


def flip(payload: bytes, at: int, mask: int = 1) -> bytes:
    return put(payload, at, bytes([payload[at] ^ mask]))


def bitmap(round_: Round, members: Iterable[int]) -> bytes:
    flags = bytearray((round_.params.clients + 7) // 8)
    for one in members:
        position = round_.position(one)
        flags[position // 8] |= 1 << position % 8
    return bytes(flags)


def server_message(round_: Round, kind: Kind, body: bytes) -> bytes:
    return Header(kind=kind, sender=SERVER, session=round_.session_id).encode() + body


def entry(round_: Round, position: int) -> int:
    """Return where the roster's entry of a position begins, where everybody advertised."""
    n = round_.params.clients
    return HEADER_BYTES + 8 * n + (n + 7) // 8 + ENTRY[round_.params.threat] * position


def beacon_of(round_: Round) -> bytes:
    """Return what clients of a round sign of its beacon."""
    return beacon_digest(round_.beacon if round_.params.graph == "harary" else None)


def signed(round_: Round, one: int, payload: bytes) -> bytes:
    """Sign a changed message as its sender itself would: a corrupt client's own."""
    header = Header(kind=payload[6], sender=int.from_bytes(payload[8:16], "little"), session=payload[16:48])
    body = payload[HEADER_BYTES:-64]
    end = len(body) - (32 if header.kind == Kind.MASKED_INPUT else 0)
    attached = beacon_of(round_) if header.kind == Kind.ENCRYPTED_SHARES else body[end:]
    signature = round_.identity(one).sign(header, body[:end], attached=attached)
    return payload[:HEADER_BYTES] + body + signature


# ------------------------------------------------------------------------------------------------- what is done


def receive(payload: bytes | str, expect: Mapping[str, object], **more: object) -> Operation:
    incoming = {"message": payload} if isinstance(payload, str) else {"hex": payload.hex()}
    return {"call": "receive", **more, "incoming": incoming, "randomness": [], "expect": dict(expect)}


def received(sender: int, payload: bytes | str, expect: Mapping[str, object]) -> Operation:
    return receive(payload, expect, **{"from": str(sender)})


def call(name: str, expect: Mapping[str, object], **more: object) -> Operation:
    return {"call": name, **more, "randomness": [], "expect": dict(expect)}


def replied(outgoing: str) -> dict[str, object]:
    return OK | {"answer": "reply", "outgoing": outgoing}


def use_beacon(beacon: bytes, expect: Mapping[str, object]) -> Operation:
    return call("use_beacon", expect, beacon=beacon.hex())


class Collection:
    """The vectors of one file."""

    def __init__(self, rounds: Mapping[str, Round]) -> None:
        self.rounds, self.vectors = rounds, []

    def client(self, name: str, what: str, round_: Round, one: int, state: str, *operations: Operation) -> None:
        self._add(name, what, round_, one, round_.steps_before(one, state), state, operations)

    def server(self, name: str, what: str, round_: Round, state: str, *operations: Operation, replies: int = 0) -> None:
        self._add(name, what, round_, "server", round_.steps_before("server", state, replies), state, operations)

    def _add(
        self,
        name: str,
        what: str,
        round_: Round,
        party: int | str,
        steps: int,
        state: str,
        operations: tuple[Operation, ...],
    ) -> None:
        self.vectors.append(
            {
                "name": name,
                "what": what,
                "round": round_.plan.name,
                "start": {"party": str(party), "steps": steps, "state": state},
                "operations": list(operations),
            }
        )

    def document(self, what: str) -> dict[str, object]:
        return {"format": "secagg-failing-vectors/1", "what": what, "vectors": self.vectors}
