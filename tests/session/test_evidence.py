"""Evidence convinces a third party of a cheating client, and nobody can make it up against an honest one."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

from cheats import GONE, contradictory_dealer, forged_release, reach, signed, transcript
from cohort import Cohort, plan
from secagg import (
    ContradictoryDealer,
    DecodeError,
    FixedPoint,
    ForgedRelease,
    LocalProtocolError,
    PeerFault,
    Transcript,
    decode_evidence,
)
from secagg.pairwise.commitments import commitment
from secagg.pairwise.evidence import _Session
from secagg.pairwise.messages import ADVERTISEMENT_BYTES, FORMATS, Kind
from secagg.pairwise.server_steps import relay_for
from secagg.wire import HEADER_BYTES, Header, encode_bitmap

FORMAT = FORMATS["malicious-server"]
VARIANTS = {
    "complete": {"clients": 7, "dropout": 0.25},
    "harary": {"clients": 44, "dropout": 0.1, "protocol": "secagg+"},
}


@pytest.fixture(params=VARIANTS)
def cohort(request):
    params = plan(
        dimension=3, threat="malicious-server", encoding=FixedPoint(clip=1.0, bits=8), **VARIANTS[request.param]
    )
    return Cohort(params, np.zeros((params.clients, 3)))


def test_a_forged_release_convinces_whoever_has_the_transcript(cohort):
    holder, fault = forged_release(cohort)
    evidence = fault.evidence
    assert isinstance(evidence, ForgedRelease)
    assert decode_evidence(evidence.encode()) == evidence
    assert evidence.convict(transcript(cohort)) == holder
    assert pickle.loads(pickle.dumps(fault)).evidence == evidence  # noqa: S301 - errors cross process boundaries
    assert "secret" not in repr(evidence)
    assert evidence.release.hex() not in repr(evidence)


def test_every_record_of_a_release_convicts_if_it_was_forged(cohort):
    last = len(forged_release(cohort)[1].evidence.release) // FORMAT.release_bytes - 1
    holder = int(cohort.server._state.graph.neighbours(GONE)[0])
    payload = bytearray(cohort.answer(holder, cohort.server.requests()[holder]))
    for row in range(last + 1):
        forged = bytearray(payload)
        forged[HEADER_BYTES + FORMAT.release_bytes * row + 55] ^= 0x80
        with pytest.raises(PeerFault) as caught:
            cohort.server.receive(holder, signed(cohort, holder, forged))
        assert caught.value.evidence.convict(transcript(cohort)) == holder


@pytest.mark.parametrize("dealer", [3, GONE], ids=["seed", "mask-key"])
def test_a_contradictory_dealer_convinces_whoever_has_the_transcript(cohort, monkeypatch, dealer):
    fault = contradictory_dealer(cohort, monkeypatch, dealer)
    evidence = fault.evidence
    assert isinstance(evidence, ContradictoryDealer)
    assert decode_evidence(evidence.encode()) == evidence
    assert evidence.convict(transcript(cohort)) == dealer
    assert evidence.records.hex() not in repr(evidence)


def honest_release(cohort):
    """What a server holds of an honest holder, put together as if it had cheated."""
    reach(cohort, "unmask")
    state = cohort.server._state
    holder = int(state.graph.neighbours(GONE)[0])
    payload = cohort.answer(holder, cohort.server.requests()[holder])
    return ForgedRelease(
        dealer=GONE,
        holder=holder,
        upload=state.signed.uploads[holder].tobytes(),
        relayed=relay_for(state, holder).encode(),
        survivors=encode_bitmap(state.survivors),
        consistency=state.signed.consistency[holder].tobytes(),
        release=payload[HEADER_BYTES:-64],
        signature=payload[-64:],
    )


def test_no_honest_holder_is_convicted_whatever_is_changed(cohort):
    evidence = honest_release(cohort)
    record = transcript(cohort)
    with pytest.raises(DecodeError, match="is the one that was dealt"):
        evidence.convict(record)
    # A server and a dealer together: another row for the holder, which the dealer signs gladly
    row = int(np.flatnonzero(cohort.server._state.graph.neighbours(evidence.holder) == GONE)[0])
    bitmap_bytes = (cohort.params.clients + 7) // 8
    at = bitmap_bytes + FORMAT.dealt_bytes * row + FORMAT.sealed_bytes
    framed = bytearray(evidence.relayed)
    framed[at : at + 64] = bytes(64)
    others = [one for one in range(cohort.params.clients) if one not in (evidence.holder, GONE)]
    changes = {
        "relayed": [bytes(framed), evidence.relayed[:-1], b""],
        "survivors": [encode_bitmap(~cohort.server._state.survivors), bytes(bitmap_bytes), b"", evidence.survivors * 2],
        "upload": [bytes(96), evidence.upload[:-1], evidence.upload[1:] + b"\0"],
        "consistency": [bytes(64), evidence.signature, b""],
        "signature": [bytes(64), evidence.consistency, b""],
        "release": [
            bytes(len(evidence.release)),
            evidence.release[:-56],
            evidence.release[56:] + evidence.release[:56],
        ],
        "holder": [*others[:3], cohort.params.clients, 1 << 31],
        "dealer": [*others[:3], evidence.holder, cohort.params.clients, 1 << 31],
    }
    for field, values in changes.items():
        for value in values:
            with pytest.raises(DecodeError):
                dataclasses.replace(evidence, **{field: value}).convict(record)


@pytest.mark.parametrize(("dealer", "kind"), [(3, 1), (GONE, 0)], ids=["seed", "mask-key"])
def test_no_honest_dealer_is_convicted_whatever_is_changed(cohort, dealer, kind):
    reach(cohort, "unmask")
    for one, request in cohort.server.requests().items():
        cohort.server.receive(one, cohort.answer(one, request))
    state, record, threshold = cohort.server._state, transcript(cohort), cohort.params.threshold
    neighbours, slots = state.graph.neighbours(dealer), state.graph.slots(dealer)
    holding = np.flatnonzero(state.received[neighbours])
    records = {
        int(j): state.held[j, slot].tobytes() for j, slot in zip(neighbours[holding], slots[holding], strict=True)
    }
    holders = tuple(records)[:threshold]
    evidence = ContradictoryDealer(
        dealer=dealer,
        kind=kind,
        dealt=state.sealed[dealer, state.roster.advertised[neighbours]].tobytes(),
        signature=state.signed.shares[dealer].tobytes(),
        holders=holders,
        records=b"".join(records[one] for one in holders),
    )
    with pytest.raises(DecodeError, match="rebuild what the dealer advertised"):
        evidence.convict(record)
    shifted = evidence.records[56:] + evidence.records[:56]
    changes = {
        "kind": [1 - kind, 2],
        "dealer": [4, cohort.params.clients, 1 << 31],
        "holders": [
            holders[:-1],
            (holders[1], *holders[1:]),
            holders[::-1],
            (dealer, *holders[1:]),
            (1 << 31, *holders[1:]),
        ],
        "records": [shifted, evidence.records[:-56], bytes(len(evidence.records)), b""],
        "signature": [bytes(64), state.signed.consistency[dealer].tobytes()],
        "dealt": [evidence.dealt[:-1], evidence.dealt[256:], bytes(len(evidence.dealt)), b""],
    }
    for field, values in changes.items():
        for value in values:
            with pytest.raises(DecodeError):
                dataclasses.replace(evidence, **{field: value}).convict(record)
    fewer = dataclasses.replace(evidence, holders=holders[:-1], records=evidence.records[:-56])
    with pytest.raises(DecodeError, match="exactly"):
        fewer.convict(record)


def test_evidence_is_for_one_session_of_one_directory(cohort):
    _, fault = forged_release(cohort)
    record = transcript(cohort)
    params = cohort.params
    semi_honest = plan(5, 3, encoding=FixedPoint(clip=1.0, bits=8))
    stranger = Cohort(params, np.zeros((params.clients, 3)), ids=range(1, params.clients + 1))
    changes = [
        ({"nonce": bytes(32)}, "signature"),
        ({"context": bytes(32)}, "signature"),
        ({"roster": record.roster[:-1]}, "bytes"),
        ({"params": semi_honest}, "nothing is signed"),
        ({"directory": stranger.directory}, "not the directory's cohort"),
    ]
    if params.graph == "harary":
        changes += [({"beacon": None}, "is missing"), ({"beacon": bytes(32)}, "signature")]
    for change, says in changes:
        with pytest.raises(DecodeError, match=says):
            fault.evidence.convict(dataclasses.replace(record, **change))


def test_evidence_of_another_form_is_refused(cohort):
    encoded = forged_release(cohort)[1].evidence.encode()
    other_kinds = (b"\x03", b"\x03" + encoded[1:], b"\x02" + encoded[1:])
    for bad in (b"", *other_kinds, encoded[:-1], encoded + b"\0", None, "text"):
        with pytest.raises(DecodeError):
            decode_evidence(bad)


def test_a_transcript_is_there_while_a_signed_round_is_open(cohort):
    with pytest.raises(LocalProtocolError):
        cohort.server.transcript()
    reach(cohort, "unmask")
    assert cohort.server.transcript().params == cohort.params
    cohort.run({})
    with pytest.raises(LocalProtocolError):
        cohort.server.transcript()
    semi_honest = Cohort(plan(3, 1), np.zeros((3, 1)))
    semi_honest.run_stage()
    with pytest.raises(LocalProtocolError):
        semi_honest.server.transcript()


def test_an_upload_masked_for_other_rows_of_the_same_u2_does_not_count(cohort):
    """A network that swaps a row for another one that the dealer signed as well: the server notices."""
    reach(cohort, "masked_input")
    upload = cohort.answer(0, cohort.server.requests()[0])
    other = bytes(upload[:-96]) + bytes(32)
    header = Header(kind=Kind.MASKED_INPUT, sender=0, session=bytes(upload[16:48]))
    other += cohort.identities[0].sign(header, other[HEADER_BYTES:-32], attached=other[-32:])
    before = cohort.server.save(seal_key=None)
    with pytest.raises(PeerFault, match="masked for other shares") as caught:
        cohort.server.receive(0, other)
    assert not caught.value.proof
    assert cohort.server.save(seal_key=None) == before
    cohort.server.receive(0, upload)


def test_a_dealer_is_convicted_where_every_neighbour_is_needed(monkeypatch):
    """t may be as large as the neighbourhood: then its holders are all of it."""
    params = plan(3, 1, threat="malicious-server", threshold=2)
    cohort = Cohort(params, np.zeros((3, 1)))
    fault = contradictory_dealer(cohort, monkeypatch, 0, gone={})
    assert len(fault.evidence.holders) == params.neighbours
    assert fault.evidence.convict(transcript(cohort)) == 0


def made_up(cohort: Cohort, record: Transcript, dealer: int) -> ContradictoryDealer:
    """What a dealer signs in the session of a transcript: commitments to shares of a seed that it never advertised."""
    session, share = _Session(record), bytes(FORMAT.release_bytes)
    recipients = session.neighbours(dealer).tolist()
    rows = []
    for recipient in recipients:
        both = b"".join(commitment(session.session_id, dealer, recipient, kind, share) for kind in (0, 1))
        rows.append(bytes(FORMAT.sealed_bytes) + both + bytes(64))
    dealt, threshold = b"".join(rows), cohort.params.threshold
    header, attached = session.header(Kind.ENCRYPTED_SHARES, dealer), session.beacon_digest
    return ContradictoryDealer(
        dealer=dealer,
        kind=1,
        dealt=dealt,
        signature=cohort.identities[dealer].sign(header, dealt, attached=attached),
        holders=tuple(recipients[:threshold]),
        records=share * threshold,
    )


def test_commitments_that_the_dealer_did_not_sign_convict_nobody(cohort):
    """Anybody can make commitments and records that open them: the dealer's signature is what binds it to them."""
    reach(cohort, "unmask")
    dealer, record = 3, transcript(cohort)
    evidence = made_up(cohort, record, dealer)
    assert evidence.convict(record) == dealer
    of_others = cohort.server._state.signed.shares[dealer].tobytes()
    with pytest.raises(DecodeError, match="signature"):
        dataclasses.replace(evidence, signature=of_others).convict(record)


def test_an_advertisement_that_the_dealer_did_not_sign_convicts_nobody(cohort):
    """A server and a dealer can agree on any roster, but not on what the dealer is taken to have advertised."""
    reach(cohort, "unmask")
    dealer, record = 3, transcript(cohort)
    roster = bytearray(record.roster)
    entries = len(roster) - FORMAT.entry_bytes * cohort.params.clients
    roster[entries + FORMAT.entry_bytes * dealer + ADVERTISEMENT_BYTES - 1] ^= 1
    other = dataclasses.replace(record, roster=bytes(roster))
    with pytest.raises(DecodeError, match="signature"):
        made_up(cohort, other, dealer).convict(other)


def test_a_dealer_that_advertised_nothing_is_not_convicted(cohort):
    """There is nothing that its shares could contradict, whatever it signed."""
    last = cohort.params.clients - 1
    reach(cohort, "unmask", {last: "advertise_keys"})
    record = transcript(cohort)
    with pytest.raises(DecodeError, match="no advertisement"):
        made_up(cohort, record, last).convict(record)


def test_true_evidence_that_was_padded_or_doubled_is_refused(cohort, monkeypatch):
    evidence, size = contradictory_dealer(cohort, monkeypatch, 3).evidence, FORMAT.release_bytes
    first, record = evidence.holders[0], evidence.records[:size]
    for change in (
        {"records": evidence.records + b"\0"},
        {"records": evidence.records + record},
        {"records": evidence.records[:-1]},
        {"holders": (*evidence.holders, first)},
        {"holders": (first, *evidence.holders), "records": record + evidence.records},
        {"holders": evidence.holders[:-1], "records": evidence.records[:-size]},
        {"kind": 2},
    ):
        with pytest.raises(DecodeError, match=r"it takes"):
            dataclasses.replace(evidence, **change).convict(transcript(cohort))


def test_positions_that_are_cut_off_are_refused(cohort, monkeypatch):
    evidence = contradictory_dealer(cohort, monkeypatch, 3).evidence
    holders = np.array(evidence.holders, dtype="<u4").tobytes()
    whole, cut = (len(part).to_bytes(8, "little") + part for part in (holders, holders[:-1]))
    encoded = evidence.encode()
    assert encoded.count(whole) == 1
    with pytest.raises(DecodeError, match="4 bytes each"):
        decode_evidence(encoded.replace(whole, cut))
