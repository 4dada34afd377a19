"""Evidence made of an honest client's own messages, read in a session that is altered around them.

Whoever bears evidence also bears the transcript. All that it says and no signature of the accused names could be made
up, so every part is altered here, alone and with others, in every way that a bearer of two honest runs could think of.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cheats
from cohort import Cohort, identities, plan
from plays import replaced
from secagg import (
    IN_MEMORY,
    ContradictoryDealer,
    DecodeError,
    Directory,
    FixedPoint,
    ForgedRelease,
    Identity,
    LocalProtocolError,
    ParameterError,
    PeerFault,
    RoundParams,
    ServerSession,
    SigningKey,
    Transcript,
    decode_evidence,
)
from secagg.pairwise import commitments
from secagg.pairwise.graph import beacon_graph
from secagg.pairwise.identifiers import accepted_digest, beacon_digest, consistency_digest
from secagg.pairwise.messages import FORMATS, Kind
from secagg.pairwise.server_steps import relay_for
from secagg.wire import HEADER_BYTES, Header, decode_bitmap, encode_bitmap

FORMAT = FORMATS["malicious-server"]
ENCODING = FixedPoint(clip=1.0, bits=8)
GRAPHS = {
    "complete": {"clients": 7, "dropout": 0.25},
    "harary": {"clients": 60, "dropout": 0.1, "corrupt": 0.05, "protocol": "secagg+"},
}
LATE = {1: "masked_input"}


def parameters(graph: str, **overrides: object) -> RoundParams:
    return plan(dimension=2, threat="malicious-server", encoding=ENCODING, **(GRAPHS[graph] | overrides))


@dataclass(frozen=True)
class Run:
    """All that a server holds of an honest round when everybody has answered."""

    record: Transcript
    rows: list[list[int]]
    uploads: dict[int, bytes]
    relayed: dict[int, bytes]
    consistency: dict[int, bytes]
    releases: dict[int, bytes]
    dealt: dict[int, bytes]
    survivors: bytes

    def release_of(self, holder: int, dealer: int | None = None) -> ForgedRelease:
        """An honest release, put forward as if the record for ``dealer`` (any) was forged."""
        return ForgedRelease(
            dealer=self.rows[holder][0] if dealer is None else dealer,
            holder=holder,
            upload=self.uploads[holder],
            relayed=self.relayed[holder],
            survivors=self.survivors,
            consistency=self.consistency[holder],
            release=self.releases[holder][:-64],
            signature=self.releases[holder][-64:],
        )

    def dealing_of(self, dealer: int) -> ContradictoryDealer:
        """Honest shares, put forward as if they rebuilt something else than was advertised."""
        survivors = decode_bitmap(memoryview(self.survivors), self.record.params.clients)
        holders = [one for one in self.rows[dealer] if one in self.releases][: self.record.params.threshold]
        return ContradictoryDealer(
            dealer=dealer,
            kind=int(survivors[dealer]),
            dealt=self.dealt[dealer][:-64],
            signature=self.dealt[dealer][-64:],
            holders=tuple(holders),
            records=b"".join(self.record_of(dealer, holder) for holder in holders),
        )

    def record_of(self, dealer: int, holder: int) -> bytes:
        at = FORMAT.release_bytes * self.rows[holder].index(dealer)
        return self.releases[holder][at : at + FORMAT.release_bytes]


def honest(cohort: Cohort, gone: dict[int, str]) -> Run:
    """Run a round up to its last message, and note what was sent."""
    dealt: dict[int, bytes] = {}
    cheats.reach(cohort, "share_keys", gone)
    if cohort.server.beacon_needed:
        cohort.server.use_beacon(cohort.beacon)
    for one, request in cohort.server.requests().items():
        if gone.get(one) != "share_keys":
            payload = cohort.answer(one, request)
            dealt[one] = payload[HEADER_BYTES:]
            cohort.server.receive(one, payload)
    cohort.server.advance()
    cheats.reach(cohort, "unmask", gone)
    state = cohort.server._state
    releases = {one: cohort.answer(one, request)[HEADER_BYTES:] for one, request in cohort.server.requests().items()}
    return Run(
        record=cohort.server.transcript(),
        rows=[
            [j for j in state.graph.neighbours(one).tolist() if state.shared[j]] for one in range(cohort.params.clients)
        ],
        uploads={one: state.signed.uploads[one].tobytes() for one in releases},
        relayed={one: relay_for(state, one).encode() for one in releases},
        consistency={one: state.signed.consistency[one].tobytes() for one in releases},
        releases=releases,
        dealt={one: body for one, body in dealt.items() if state.shared[one]},
        survivors=encode_bitmap(state.survivors),
    )


@functools.cache
def run(graph: str, name: str = "") -> Run:
    """An honest round. ``another round`` has another nonce; ``another roster`` the same one, and the same keys."""
    params = parameters(graph)
    gone = LATE | ({params.clients - 1: "advertise_keys"} if name == "another roster" else {})
    cohort = Cohort(params, np.zeros((params.clients, 2)), seed=name if name == "another round" else "framing")
    return honest(cohort, gone)


def convicts(evidence: ForgedRelease | ContradictoryDealer, record: Transcript) -> bool:
    """Whether evidence convicts anybody; it must say that it does not by a DecodeError and nothing else."""
    try:
        evidence.convict(record)
    except DecodeError:
        return False
    return True


# ------------------------------------------------------------------------------------------- a beacon that is made up


def made_up(number: int) -> bytes:
    return hashlib.sha256(f"a beacon that drew nothing, {number}".encode()).digest()


def test_23_framing_a_beacon_that_is_made_up_convicts_nobody_of_a_sparse_round():
    """Attack: read honest rows along another ring. Defence: what clients sign names the beacon that drew theirs."""
    held = run("harary")
    params, session = held.record.params, honest_session(held)
    everybody = sorted(held.uploads)
    assert len(everybody) == params.clients - 1
    for number in range(3):
        record = dataclasses.replace(held.record, beacon=made_up(number))
        rows = beacon_graph(params.clients, params.neighbours, session, made_up(number)).rows.tolist()
        for holder in everybody:
            # One of them has, in the true graph, another dealer in its place, whose row the holder's record opens
            assert not any(convicts(held.release_of(holder, dealer), record) for dealer in rows[holder])
        for dealer in held.dealt:
            honest_shares = held.dealing_of(dealer)
            holders = tuple(sorted(rows[dealer])[: params.threshold])
            for evidence in (honest_shares, dataclasses.replace(honest_shares, holders=holders)):
                assert not convicts(evidence, record)


def honest_session(held: Run) -> bytes:
    return cheats.session_of(held.record)


def test_23_framing_with_the_beacon_that_was_signed_guilty_clients_are_convicted():
    """Attack: cheat, and hope that the beacon in what one signed acquits. Defence: the session keeps its own."""
    params = parameters("harary")
    cohort = Cohort(params, np.zeros((params.clients, 2)))
    holder, fault = cheats.forged_release(cohort)
    for server in (
        cohort.server,
        ServerSession.restore(cohort.server.save(seal_key=None), credentials=cohort.directory, keep=IN_MEMORY),
    ):
        assert server.transcript().beacon == cohort.beacon
        assert fault.evidence.convict(server.transcript()) == holder


# ------------------------------------------------------------------------------------- every other thing that is borne


def altered_params(params: RoundParams) -> list[RoundParams]:
    """Every field of the parameters another, where proofs allow it."""
    other = "complete" if params.graph == "harary" else "harary"
    changes = [
        {"threshold": params.threshold - 1},
        {"threshold": params.threshold + 1},
        {"neighbours": params.neighbours + 2},
        {"neighbours": params.neighbours - 2},
        {"graph": other},
        {"graph": "complete", "neighbours": params.clients - 1, "threshold": 2 * params.clients // 3},
        {"dimension": 3},
        {"ring_bits": 40},
        {"max_weight": 2},
        {"dropout": 0.01},
        {"corrupt": 0.01},
        {"encoding": FixedPoint(clip=2.0, bits=8)},
        {"protocol": "secagg+" if params.protocol == "secagg" else "secagg"},
    ]
    made = [plan(params.clients, 2, encoding=ENCODING, dropout=params.dropout)]
    for change in changes:
        try:
            made.append(dataclasses.replace(params, **change))
        except ParameterError:
            continue
    return made


def altered_rosters(held: Run) -> list[bytes]:
    """U1 smaller, ids and entries in another order or of other content, a length that no roster has."""
    roster, n = held.record.roster, held.record.params.clients
    bitmap, entries = 8 * n, 8 * n + (n + 7) // 8
    size = FORMAT.entry_bytes
    swapped = roster[entries + size : entries + 2 * size] + roster[entries : entries + size]
    fewer = bytearray(roster[: len(roster) - size])
    fewer[bitmap + (n - 1) // 8] ^= 1 << (n - 1) % 8
    return [
        bytes(fewer),
        replaced(roster, slice(entries, entries + 2 * size), swapped),
        replaced(roster, len(roster) - 1, roster[-1] ^ 1),
        replaced(roster, entries + 70, roster[entries + 70] ^ 1),
        replaced(roster, 0, 255),
        replaced(roster, slice(0, 16), roster[8:16] + roster[:8]),
        roster + bytes(size),
        b"",
    ]


def altered_directories(held: Run, accused: int) -> list[Directory]:
    """Others' keys may be the bearer's, and others may be missing: the accused has its own in each."""
    keys, other = dict(held.record.directory), (accused + 1) % held.record.params.clients
    stranger = SigningKey(bytes(32)).public
    return [
        Directory(keys | {other: stranger}),
        Directory({one: key for one, key in keys.items() if one != other}),
        Directory(keys | {len(keys): stranger}),
        Directory({one: key for one, key in keys.items() if one != other} | {1000: stranger}),
    ]


def transcripts(graph: str, accused: int) -> dict[str, list[object]]:
    """For each field of a transcript, what a bearer could put there."""
    held, *others = (run(graph, name) for name in ("", "another round", "another roster"))
    beacons = [None, b"", bytes(16), bytes(32), made_up(0), beacon_digest(held.record.beacon), "text", bytearray(32)]
    beacons += [other.record.beacon for other in others if other.record.beacon != held.record.beacon]
    if held.record.beacon is not None:
        beacons += [held.record.beacon + b"\0", held.record.beacon[:-1]]
    return {
        "params": altered_params(held.record.params),
        "context": [bytes(32), b"", None, held.record.nonce],
        "nonce": [others[0].record.nonce, bytes(32), b"", None, held.record.context],
        "roster": [*(other.record.roster for other in others), *altered_rosters(held)],
        "directory": altered_directories(held, accused),
        "beacon": [one for one in beacons if one is not held.record.beacon],
    }


def signatures_of(graph: str, accused: int) -> list[bytes]:
    """Every signature that the accused has made in any run."""
    made = [bytes(64)]
    for held in (run(graph), run(graph, "another round"), run(graph, "another roster")):
        made += [held.uploads[accused][32:], held.consistency[accused]]
        made += [held.releases[accused][-64:], held.dealt[accused][-64:]]
    return made


def releases(graph: str, holder: int) -> dict[str, list[object]]:
    """For each field of the evidence against a holder, what a bearer could put there."""
    held, *others = (run(graph, name) for name in ("", "another round", "another roster"))
    n, signatures = held.record.params.clients, signatures_of(graph, holder)
    neighbour, size = held.rows[holder][0], FORMAT.release_bytes
    hashed, release = held.uploads[holder][:32], held.releases[holder][:-64]
    flags = decode_bitmap(memoryview(held.survivors), n)
    u3 = [flags ^ (np.arange(n) == one) for one in {0, 1, holder, neighbour}]
    return {
        "holder": [neighbour, n, holder - n, 1 << 31],
        "dealer": [*held.rows[holder][1:5], holder, held.rows[holder][0] - n, n, 1 << 31],
        "upload": [hashed + one for one in signatures] + [other.uploads[holder] for other in others] + [b""],
        "relayed": altered_relays(held, holder) + [other.relayed[holder] for other in others],
        "survivors": [*map(encode_bitmap, u3), encode_bitmap(~flags), *(other.survivors for other in others), b""],
        "consistency": [*signatures, held.consistency.get(neighbour, b"")],
        "signature": [*signatures, held.releases[holder][-63:]],
        "release": [
            release[size:] + release[:size],
            bytes(len(release)),
            release[:-size],
            *(other.releases[holder][:-64] for other in others),
        ],
    }


def altered_relays(held: Run, holder: int) -> list[bytes]:
    """Rows in another order, of other commitments that a corrupt dealer signs gladly, of another U2."""
    body, size = held.relayed[holder], FORMAT.dealt_bytes
    start = (held.record.params.clients + 7) // 8
    rows = [body[at : at + size] for at in range(start, len(body), size)]
    dealer = held.rows[holder][0]
    both = hashlib.sha512(b"commitments to anything").digest()
    signing = Identity(key=identities([dealer])[dealer].key, directory=held.record.directory)
    statement = commitments.commitments_statement(honest_session(held), dealer, holder, both)
    resigned = rows[0][: FORMAT.sealed_bytes] + both + signing.sign_commitments(statement)
    others = [one for one in held.relayed if one != holder]
    return [
        body[:start] + b"".join([rows[1], rows[0], *rows[2:]]),
        body[:start] + b"".join([resigned, *rows[1:]]),
        body[: start - 1] + bytes([body[start - 1] ^ 1]) + body[start:],
        body[:-size],
        held.relayed[others[0]],
        b"",
    ]


def dealings(graph: str, dealer: int) -> dict[str, list[object]]:
    """For each field of the evidence against a dealer, what a bearer could put there."""
    held, *others = (run(graph, name) for name in ("", "another round", "another roster"))
    evidence, size = held.dealing_of(dealer), FORMAT.release_bytes
    holders, records = evidence.holders, evidence.records
    there = [one for one in held.rows[dealer] if one in held.releases]
    dealt, row = evidence.dealt, FORMAT.dealt_bytes
    n = held.record.params.clients
    return {
        "dealer": [holders[0], n, dealer - n, 1 << 31],
        "kind": [1 - evidence.kind, 2, -1],
        "holders": [holders[::-1], tuple(there[-len(holders) :][::-1]), (dealer, *holders[1:]), holders[1:], ()],
        "records": [
            records[size:] + records[:size],
            bytes(len(records)),
            records[size:],
            b"".join(held.record_of(dealer, one) for one in holders[:-1]) + bytes(size),
            *(other.dealing_of(dealer).records for other in others),
        ],
        "signature": signatures_of(graph, dealer),
        "dealt": [
            dealt[row:] + dealt[:row],
            dealt[row:],
            bytes(len(dealt)),
            *(other.dealt[dealer][:-64] for other in others),
        ],
    }


def accused_of(graph: str) -> list[int]:
    """Who stands in every run with all that it signed."""
    names = ("", "another round", "another roster")
    return sorted(set.intersection(*(set(run(graph, name).releases) for name in names)))


@pytest.mark.parametrize("graph", GRAPHS)
def test_23_framing_no_one_thing_that_is_altered_convicts_an_honest_client(graph):
    """Attack: alter any part of transcript or evidence. Defence: the accused's signatures name every one of them."""
    for accused in accused_of(graph)[:7]:
        held = run(graph)
        around = transcripts(graph, accused)
        for evidence, parts in (
            (held.release_of(accused), releases(graph, accused)),
            (held.dealing_of(accused), dealings(graph, accused)),
        ):
            assert not convicts(evidence, held.record)
            for name, values in around.items():
                for value in values:
                    assert not convicts(evidence, dataclasses.replace(held.record, **{name: value})), name
            for name, values in parts.items():
                for value in values:
                    assert not convicts(dataclasses.replace(evidence, **{name: value}), held.record), name


@settings(max_examples=200)
@given(data=st.data())
@pytest.mark.parametrize("graph", GRAPHS)
def test_23_framing_nothing_that_is_altered_together_convicts_an_honest_client(graph, data):
    """Attack: alter several parts so that they fit each other. Defence: none fits what the accused has signed."""
    accused = data.draw(st.sampled_from(accused_of(graph)), label="accused")
    against_holder = data.draw(st.booleans(), label="against a holder")
    base = run(graph, data.draw(st.sampled_from(["", "another round", "another roster"]), label="evidence of"))
    evidence = base.release_of(accused) if against_holder else base.dealing_of(accused)
    parts = releases(graph, accused) if against_holder else dealings(graph, accused)
    changes = altered(data, parts)
    around = run(graph, data.draw(st.sampled_from(["", "another round", "another roster"]), label="transcript of"))
    record = dataclasses.replace(around.record, **altered(data, transcripts(graph, accused)))
    assert not convicts(dataclasses.replace(evidence, **changes), record)


def altered(data: st.DataObject, parts: dict[str, list[object]]) -> dict[str, object]:
    names = data.draw(st.lists(st.sampled_from(sorted(parts)), max_size=3, unique=True))
    return {name: parts[name][data.draw(st.integers(0, len(parts[name]) - 1), label=name)] for name in names}


def test_23_framing_under_a_lower_threshold_honest_shares_contradict_nobody():
    """Attack: rebuild from fewer shares than were dealt for. Defence: all that is signed fixes the threshold."""
    params = plan(9, 2, threat="malicious-server", encoding=ENCODING)
    held = honest(Cohort(params, np.zeros((9, 2))), {})
    lower = dataclasses.replace(params, threshold=params.threshold - 1)
    record = dataclasses.replace(held.record, params=lower)
    for dealer in held.dealt:
        evidence = held.dealing_of(dealer)
        fewer = {"holders": evidence.holders[1:], "records": evidence.records[FORMAT.release_bytes :]}
        assert not convicts(dataclasses.replace(evidence, **fewer), record)


def test_23_framing_a_directory_of_the_bearers_convicts_its_own_keys_alone():
    """Attack: play a whole round under made-up keys. Defence: third parties have a directory of their own."""
    params = parameters("complete")
    cohort = Cohort(params, np.zeros((params.clients, 2)))
    holder, fault = cheats.forged_release(cohort)
    record = cohort.server.transcript()
    assert fault.evidence.convict(record) == holder
    keys = {one: SigningKey(hashlib.sha256(f"true key {one}".encode()).digest()).public for one in range(7)}
    assert not convicts(fault.evidence, dataclasses.replace(record, directory=Directory(keys)))
    only_the_accused = Directory(dict(record.directory) | {holder: keys[holder]})
    assert not convicts(fault.evidence, dataclasses.replace(record, directory=only_the_accused))


# ----------------------------------------------------------------------------------- the guilty are convicted as before


@pytest.mark.parametrize("graph", GRAPHS)
def test_23_framing_a_dealer_that_signs_its_row_badly_acquits_no_holder(graph, monkeypatch):
    """Attack: a corrupt dealer spoils its row's signature for a corrupt holder. Defence: the holder signed its yes."""
    params = parameters(graph)
    cohort = Cohort(params, np.zeros((params.clients, 2)))
    cohort.run_stage()
    if cohort.server.beacon_needed:
        cohort.server.use_beacon(cohort.beacon)
    dealer = 2
    holder = int(cohort.server._state.graph.neighbours(dealer)[0])
    at = cohort.server._state.graph.neighbours(dealer).tolist().index(holder)
    for one, request in cohort.server.requests().items():
        payload = cohort.answer(one, request)
        if one == dealer:
            end = HEADER_BYTES + FORMAT.dealt_bytes * (at + 1)
            payload = cheats.signed(cohort, one, replaced(payload, slice(end - 64, end), bytes(64)))
        cohort.server.receive(one, payload)
    requests = cohort.server.advance()
    with pytest.raises(PeerFault):
        cohort.answer(holder, requests[holder])
    with monkeypatch.context() as patch:
        patch.setattr("secagg.pairwise.commitments.check_dealt", lambda *arguments: None)
        cohort.server.receive(holder, cohort.answer(holder, requests[holder]))
    for one, request in requests.items():
        if one != holder:
            cohort.server.receive(one, cohort.answer(one, request))
    cohort.server.advance()
    cheats.reach(cohort, "unmask", {})
    reply = cohort.answer(holder, cohort.server.requests()[holder])
    forged = HEADER_BYTES + FORMAT.release_bytes * cohort.server._state.graph.neighbours(holder).tolist().index(dealer)
    with pytest.raises(PeerFault, match="not the one committed to") as caught:
        cohort.server.receive(holder, cheats.signed(cohort, holder, replaced(reply, forged, reply[forged] ^ 1)))
    evidence = caught.value.evidence
    assert (evidence.dealer, evidence.holder) == (dealer, holder)
    assert decode_evidence(evidence.encode()).convict(cohort.server.transcript()) == holder


# ---------------------------------------------------------------------------- the server, and uploads of another beacon


def drawn(seed: str = "cohort") -> Cohort:
    params = parameters("harary")
    cohort = Cohort(params, np.zeros((params.clients, 2)), seed=seed)
    cohort.run_stage()
    return cohort


def test_23_framing_shares_dealt_under_another_beacon_are_refused_and_the_round_goes_on():
    """Attack: deal along another ring, so that neighbours are stopped. Defence: the server refuses it; others go on."""
    cohort = drawn()
    requests = cohort.server.requests()
    cohort.server.use_beacon(cohort.beacon)
    true, cohort.beacon = cohort.beacon, made_up(0)
    astray = cohort.answer(3, requests[3])
    cohort.beacon = true
    before = cohort.server.save(seal_key=None)
    with pytest.raises(PeerFault, match="used another beacon") as caught:
        cohort.server.receive(3, astray)
    assert (caught.value.client_id, caught.value.proof) == (3, False)
    assert cohort.server.save(seal_key=None) == before
    result = cohort.run({3: "share_keys"})
    assert result.dropped == {3: "share_keys"}
    assert len(result.survivors) == cohort.params.clients - 1


def test_23_framing_an_input_that_names_another_beacon_is_refused_and_the_round_goes_on():
    """Attack: sign an input under another beacon, so that evidence misses. Defence: it does not count."""
    cohort = drawn()
    cohort.run_stage()
    client, request = cohort.clients[3], cohort.server.requests()[3]
    signed = dataclasses.replace(client._state, beacon=beacon_digest(made_up(0)))
    client._at = dataclasses.replace(client._at, state=signed)
    astray = cohort.answer(3, request)
    before = cohort.server.save(seal_key=None)
    with pytest.raises(PeerFault, match="used another beacon") as caught:
        cohort.server.receive(3, astray)
    assert not caught.value.proof
    assert cohort.server.save(seal_key=None) == before
    assert 3 not in cohort.run({3: "masked_input"}).survivors


def test_23_framing_a_server_with_another_beacon_refuses_everybody_and_has_lost_nothing():
    """Attack: give the server another beacon. Defence: it refuses all, and goes on from the state saved before."""
    cohort = drawn()
    before, requests = cohort.server.save(seal_key=None), cohort.server.requests()
    cohort.server.use_beacon(made_up(0))
    replies = {one: cohort.answer(one, request) for one, request in requests.items()}
    refused = cohort.server.receive_all(replies.items())
    assert [fault.client_id for fault in refused] == list(replies)
    assert all("used another beacon" in fault.reason for fault in refused)
    with pytest.raises(LocalProtocolError):
        cohort.server.use_beacon(cohort.beacon)
    cohort.server = ServerSession.restore(before, credentials=cohort.directory, keep=IN_MEMORY)
    cohort.server.use_beacon(cohort.beacon)
    assert cohort.server.receive_all(replies.items()) == []
    cohort.server.advance()
    assert len(cohort.run().survivors) == cohort.params.clients


def test_23_framing_what_is_signed_names_beacon_and_session_in_full():
    """Attack: find two sessions with one statement. Defence: each part of it has its length before it."""
    session, relayed = bytes(32), b"body"
    assert beacon_digest(None) == bytes(32)
    digests = [
        accepted_digest(session, beacon_digest(beacon), relayed)
        for beacon in (None, bytes(16), bytes(17), bytes(32), beacon_digest(bytes(16)))
    ]
    digests += [accepted_digest(session, bytes(31), b"\0" + relayed), accepted_digest(bytes(31), bytes(33), relayed)]
    assert len(set(digests)) == len(digests)
    flags = np.ones(8, dtype=bool)
    assert consistency_digest(session, flags, flags) != consistency_digest(made_up(0), flags, flags)


def test_23_framing_the_complete_graph_signs_that_there_is_no_beacon():
    """Attack: bear a beacon with a complete graph's round. Defence: shares are signed for none."""
    held = run("complete")
    assert held.record.beacon is None
    dealer = 3
    header = Header(kind=Kind.ENCRYPTED_SHARES, sender=dealer, session=honest_session(held))
    body, signature = held.dealt[dealer][:-64], held.dealt[dealer][-64:]
    held.record.directory.check(dealer, header, body, signature, attached=bytes(32))
    for other in (b"", beacon_digest(bytes(32))):
        with pytest.raises(DecodeError):
            held.record.directory.check(dealer, header, body, signature, attached=other)
