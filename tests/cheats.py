"""Clients that cheat after they have said yes, and what the server holds against them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from cohort import Cohort
from secagg import PeerFault, Transcript
from secagg.pairwise.identifiers import beacon_digest, round_id, session_id
from secagg.pairwise.messages import FORMATS, Kind
from secagg.primitives import shamir
from secagg.wire import HEADER_BYTES, Header

FORMAT = FORMATS["malicious-server"]
GONE = 1
"""Who drops out before its upload, so that both kinds of share are released."""
DROPPED = {GONE: "masked_input"}


def reach(cohort: Cohort, stage: str, gone: Mapping[int, str] = DROPPED) -> Cohort:
    while cohort.server.stage != stage:
        cohort.run_stage(gone)
    return cohort


def signed(cohort: Cohort, one: int, payload: bytes | bytearray) -> bytes:
    """Sign a changed message as its sender would: a corrupt client's own forgery."""
    header = Header(kind=payload[6], sender=one, session=bytes(payload[16:48]))
    body, attached = signed_parts(cohort, payload)
    return bytes(payload[:-64]) + cohort.identities[one].sign(header, body, attached=attached)


def signed_parts(cohort: Cohort, payload: bytes | bytearray) -> tuple[bytes, bytes]:
    """Return what is hashed before it is signed, and what is signed as it is."""
    body = bytes(payload[HEADER_BYTES:-64])
    if payload[6] == Kind.ENCRYPTED_SHARES:
        return body, beacon_digest(cohort.beacon if cohort.params.graph == "harary" else None)
    end = len(body) - (FORMAT.accepted_bytes if payload[6] == Kind.MASKED_INPUT else 0)
    return body[:end], body[end:]


def transcript(cohort: Cohort) -> Transcript:
    return cohort.server.transcript()


def session_of(record: Transcript) -> bytes:
    """Return the identifier of the session that a transcript fixes."""
    identifier = round_id(record.params, record.context, record.nonce)
    return session_id(identifier, record.roster, record.directory.digest())


def forged_release(cohort: Cohort, row: int = 0) -> tuple[int, PeerFault]:
    """Let a client change the record at ``row`` of its release, and return it and what convicts it."""
    reach(cohort, "unmask")
    holder = int(cohort.server._state.graph.neighbours(GONE)[0])
    payload = bytearray(cohort.answer(holder, cohort.server.requests()[holder]))
    payload[HEADER_BYTES + FORMAT.release_bytes * row] ^= 1
    with pytest.raises(PeerFault) as caught:
        cohort.server.receive(holder, signed(cohort, holder, payload))
    assert (caught.value.client_id, caught.value.proof) == (holder, True)
    return holder, caught.value


def contradictory_dealer(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch, dealer: int, gone: Mapping[int, str] = DROPPED
) -> PeerFault:
    """Let one client deal its first neighbours shares on no polynomial, up to what the server then raises."""
    honest = shamir.share

    def off_polynomial(secrets, **arguments):
        shares = honest(secrets, **arguments)
        shares[:2, :, 0] ^= 1  # of two, since one of them may drop out
        return shares

    cohort.run_stage()
    if cohort.server.beacon_needed:
        cohort.server.use_beacon(cohort.beacon)
    for one, request in cohort.server.requests().items():
        with monkeypatch.context() as patch:
            if one == dealer:
                patch.setattr("secagg.pairwise.client_steps.share", off_polynomial)
            cohort.server.receive(one, cohort.answer(one, request))
    cohort.server.advance()
    reach(cohort, "unmask", gone)
    for one, request in cohort.server.requests().items():
        cohort.server.receive(one, cohort.answer(one, request))
    with pytest.raises(PeerFault) as caught:
        cohort.server.advance()
    assert (caught.value.client_id, caught.value.proof) == (dealer, True)
    return caught.value
