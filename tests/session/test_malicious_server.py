"""The malicious-server model: each attack of a lying server or client, and the defence that shows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import secagg
from cheats import signed
from cohort import Cohort, deterministic, identities, plan
from secagg import (
    ClientSession,
    Directory,
    FixedPoint,
    Identity,
    InputError,
    LocalProtocolError,
    ParameterError,
    PeerFault,
    RoundParams,
    ServerFault,
    ServerSession,
    TooFewClients,
    simulate,
)
from secagg.graph_parameters import Cohort as Counts
from secagg.graph_parameters import is_uncuttable, smallest_uncuttable_graph
from secagg.pairwise.messages import FORMATS, Kind
from secagg.pairwise.transitions import MALICIOUS_STAGES
from secagg.primitives import shamir
from secagg.wire import HEADER_BYTES, SERVER, Header, encode_bitmap

FORMAT = FORMATS["malicious-server"]
EXACT = FixedPoint(clip=127.5, bits=8)


def malicious(clients=7, dimension=3, **overrides):
    return plan(clients, dimension, **({"threat": "malicious-server", "encoding": EXACT, "dropout": 0.25} | overrides))


def codes_of(params, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (params.clients, params.dimension))


def cohort_at(stage, params=None, faults=None, seed="cohort"):
    params = params or malicious()
    cohort = Cohort(params, codes_of(params) - 127.5, seed=seed)
    while cohort.server.stage != stage:
        cohort.run_stage(faults)
    return cohort


def sum_of(codes, survivors):
    return codes[list(survivors)].sum(axis=0).tolist()


# ---------------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("clients", "corrupt", "dropouts", "expected"), [(1000, 330, 50, (142, 118)), (100_000, 5000, 5000, (74, 53))]
)
def test_thresholds_exclude_a_server_that_cuts_the_ring(clients, corrupt, dropouts, expected):
    counts = Counts(clients=clients, corrupt=corrupt, dropouts=dropouts, survivors=clients - dropouts)
    found = smallest_uncuttable_graph(counts)
    assert (found.neighbours, found.threshold) == expected
    assert not is_uncuttable(counts, found.neighbours, found.neighbours // 2)


def test_two_windows_are_counted_exactly():
    from fractions import Fraction
    from math import comb, exp

    from secagg.graph_parameters import _log_two_windows

    n, marked, window, least = 20, 7, 4, 2
    ways = sum(
        comb(window, a) * comb(window, b) * comb(n - 2 * window, marked - a - b)
        for a in range(least, window + 1)
        for b in range(least, window + 1)
        if 0 <= marked - a - b <= n - 2 * window
    )
    assert exp(_log_two_windows(n, marked, window, least)) == pytest.approx(float(Fraction(ways, comb(n, marked))))


def test_the_complete_graph_takes_more_than_half_of_the_others_and_the_corrupt():
    params = malicious(10, corrupt=0.1, dropout=0.2)
    assert 2 * params.threshold > 9 + params.corrupt_count
    with pytest.raises(ParameterError, match="not safe"):
        replace(params, threshold=5)
    assert replace(params, threshold=5, threat="semi-honest").threshold == 5


def test_a_sparse_graph_of_the_semi_honest_rule_is_refused():
    weak = RoundParams.plan(clients=1000, dimension=1, encoding=EXACT, corrupt=0.2)
    with pytest.raises(ParameterError):
        replace(weak, threat="malicious-server")


# --------------------------------------------------------------------------------------------------- honest rounds


@given(
    clients=st.sampled_from([2, 5, 9, 44]),
    protocol=st.sampled_from(["secagg", "secagg+"]),
    seed=st.integers(0, 1 << 32),
    data=st.data(),
)
@settings(max_examples=25)
def test_the_sum_is_exact_whoever_drops_out(clients, protocol, seed, data):
    params = malicious(clients, protocol=protocol, dropout=0.2 if clients > 2 else 0.0)
    stages = st.sampled_from(MALICIOUS_STAGES)
    faults = data.draw(st.dictionaries(st.integers(0, clients - 1), stages, max_size=params.dropout_count))
    codes = codes_of(params, seed)
    result = simulate(codes - 127.5, params=params, faults=faults)
    gone = {one for one, stage in faults.items() if stage in MALICIOUS_STAGES[:3]}
    assert set(result.survivors) == set(range(clients)) - gone
    assert result.total.tolist() == sum_of(codes, result.survivors)
    assert result.dropped == dict(sorted(faults.items()))
    assert result.threat == "malicious-server"


@pytest.mark.parametrize(("clients", "protocol"), [(5, "secagg"), (40, "secagg+")])
def test_every_party_may_restart_around_every_message(clients, protocol):
    params = malicious(clients, protocol=protocol, dropout=0.1)
    codes = codes_of(params)
    cohort = Cohort(params, codes - 127.5)
    while cohort.server.stage is not None:
        if cohort.server.beacon_needed:
            cohort.server.use_beacon(cohort.beacon)
        requests = dict(cohort.server.requests())
        for one, request in requests.items():
            first = cohort.answer(one, request)
            client, source = cohort.clients[one], cohort.clients[one]._randomness
            cohort.clients[one] = ClientSession.restore(
                client.save(), identity=cohort.identities[one], randomness=source
            )
            assert cohort.clients[one].receive(request).payload == first
            cohort.server.receive(one, first)
            server, source = cohort.server, cohort.server._randomness
            cohort.server = ServerSession.restore(server.save(), directory=cohort.directory, randomness=source)
            assert dict(cohort.server.requests()) == requests
        cohort.server.advance()
    assert cohort.server.result.total.tolist() == sum_of(codes, range(clients))


# ------------------------------------------------------------------------------------- 3: a split view of survivors


def survivors_message(cohort, members):
    head = Header(kind=Kind.UNMASK_REQUEST, sender=SERVER, session=cohort.server.session_id).encode()
    flags = np.zeros(cohort.params.clients, dtype=bool)
    flags[list(members)] = True
    return head + encode_bitmap(flags)


def relayed_signatures(cohort, replies):
    """What a server relays of the consistency replies that it has collected."""
    signed = np.zeros(cohort.params.clients, dtype=bool)
    signed[list(replies)] = True
    head = Header(kind=Kind.RELAYED_SIGNATURES, sender=SERVER, session=cohort.server.session_id).encode()
    return head + encode_bitmap(signed) + b"".join(replies[one][-64:] for one in sorted(replies))


def test_halves_that_were_shown_different_survivors_release_nothing():
    cohort = cohort_at("check_consistency", malicious(8, dropout=0.25))
    views = {one: [*range(7)] if one < 4 else [*range(1, 8)] for one in range(8)}
    replies = {
        one: cohort.clients[one].receive(survivors_message(cohort, views[one])).payload
        for one in range(8)
        if one in views[one]
    }
    for one in range(1, 7):
        members = {other: reply for other, reply in replies.items() if other in views[one]}
        with pytest.raises(ServerFault, match="not of the survivor set"):
            cohort.clients[one].receive(relayed_signatures(cohort, members))
        alike = {other: reply for other, reply in members.items() if views[other] == views[one]}
        with pytest.raises(TooFewClients, match="signed the survivor set"):
            cohort.clients[one].receive(relayed_signatures(cohort, alike))
        assert cohort.clients[one].stage == "unmask"


def test_a_second_survivor_set_is_refused_also_after_restore():
    cohort = cohort_at("check_consistency")
    client = cohort.clients[0]
    client.receive(survivors_message(cohort, range(7)))
    again = ClientSession.restore(client.save(), identity=cohort.identities[0])
    for one in (client, again):
        with pytest.raises(ServerFault, match="second, different"):
            one.receive(survivors_message(cohort, range(6)))


def test_signatures_that_are_too_few_false_or_of_others_release_nothing():
    cohort = cohort_at("check_consistency")
    replies = {one: cohort.answer(one, cohort.server.requests()[one]) for one in range(7)}
    client, quorum = cohort.clients[0], cohort.params.quorum
    enough = dict(list(replies.items())[:quorum])
    few = dict(list(replies.items())[: quorum - 1])
    with pytest.raises(TooFewClients) as caught:
        client.receive(relayed_signatures(cohort, few))
    assert (caught.value.have, caught.value.need) == (quorum - 1, quorum)
    without_own = {one: reply for one, reply in replies.items() if one}
    with pytest.raises(ServerFault, match="misses this one"):
        client.receive(relayed_signatures(cohort, without_own))
    forged = dict(enough)
    forged[1] = forged[1][:-1] + bytes([forged[1][-1] ^ 1])
    swapped = enough | {1: enough[2], 2: enough[1]}
    for bad in (forged, swapped):
        with pytest.raises(ServerFault, match="relayed signature"):
            client.receive(relayed_signatures(cohort, bad))
    client.receive(relayed_signatures(cohort, enough))
    assert client.stage is None


# -------------------------------------------------------------------------- 4: keys and identities that were swapped


def roster_of(cohort, one):
    cohort.server.requests()
    return bytearray(cohort.server.requests()[one])


def entry_at(params, position):
    start = HEADER_BYTES + 8 * params.clients + (params.clients + 7) // 8
    return slice(start + FORMAT.entry_bytes * position, start + FORMAT.entry_bytes * (position + 1))


@pytest.mark.parametrize("offset", [0, 32, 64, 96])
def test_a_key_or_commitment_or_signature_that_the_server_swaps_is_noticed(offset):
    cohort = cohort_at("share_keys")
    roster = roster_of(cohort, 0)
    where = entry_at(cohort.params, 3).start + offset
    roster[where : where + 32] = secagg.SigningKey.generate().public[:31] + b"\0"
    with pytest.raises(PeerFault, match="not authentic") as caught:
        cohort.clients[0].receive(roster)
    assert caught.value.client_id == 3
    assert not caught.value.proof


def test_an_advertisement_of_another_round_is_noticed():
    old = cohort_at("share_keys", seed="an earlier round")
    cohort = cohort_at("share_keys")
    roster = roster_of(cohort, 0)
    roster[entry_at(cohort.params, 3)] = roster_of(old, 0)[entry_at(cohort.params, 3)]
    with pytest.raises(PeerFault, match="not authentic"):
        cohort.clients[0].receive(roster)


def test_a_client_under_another_name_is_noticed():
    cohort = cohort_at("share_keys")
    roster = roster_of(cohort, 0)
    roster[entry_at(cohort.params, 3)] = roster[entry_at(cohort.params, 4)]
    with pytest.raises(PeerFault, match="not authentic"):
        cohort.clients[0].receive(roster)


def test_a_cohort_that_is_not_the_directorys_is_refused():
    cohort = cohort_at("share_keys")
    roster = roster_of(cohort, 0)
    last_id = slice(HEADER_BYTES + 8 * 6, HEADER_BYTES + 8 * 7)
    roster[last_id] = (99).to_bytes(8, "little")
    with pytest.raises(ServerFault, match="not the directory's cohort"):
        cohort.clients[0].receive(roster)


@pytest.mark.parametrize("stage", MALICIOUS_STAGES)
def test_every_reply_must_bear_its_senders_signature_of_this_kind(stage):
    cohort = cohort_at(stage)
    if cohort.server.beacon_needed:
        cohort.server.use_beacon(cohort.beacon)
    reply = cohort.answer(2, cohort.server.requests()[2])
    before = cohort.server.save()
    header, body = reply[:HEADER_BYTES], reply[HEADER_BYTES:-64]
    stranger = Identity(key=secagg.SigningKey.generate(), directory=cohort.directory)
    kind = header[6]
    session = header[16:]
    forgeries = [
        reply[:-64],
        reply[:-64] + bytes(64),
        reply[:-64] + stranger.sign(Header(kind=kind, sender=2, session=session), body),
        reply[:-64] + cohort.identities[3].sign(Header(kind=kind, sender=2, session=session), body),
        reply[:-64] + cohort.identities[2].sign(Header(kind=kind ^ 2, sender=2, session=session), body),
        reply[:-64] + cohort.identities[2].sign(Header(kind=kind, sender=2, session=bytes(32)), body),
        reply[:HEADER_BYTES] + bytes([body[0] ^ 1]) + body[1:] + reply[-64:],
        header,
    ]
    for forged in forgeries:
        with pytest.raises(PeerFault) as caught:
            cohort.server.receive(2, forged)
        assert caught.value.client_id == 2
        assert cohort.server.save() == before
    cohort.server.receive(2, reply)


# ------------------------------------------------------------------------------------------ 10: blame and recovery


def test_a_forged_release_is_refused_its_sender_proved_and_the_sum_still_exact():
    params = malicious(8, dropout=0.25)
    cohort = cohort_at("unmask", params)
    requests = cohort.server.requests()
    forged = bytearray(cohort.answer(2, requests[2]))
    forged[HEADER_BYTES] ^= 1
    with pytest.raises(PeerFault, match="not the one committed to") as caught:
        cohort.server.receive(2, signed(cohort, 2, forged))
    assert (caught.value.client_id, caught.value.proof) == (2, True)
    assert caught.value.evidence.convict(cohort.server.transcript()) == 2
    assert caught.value.stage == "unmask"
    for one in (0, 1, 3, 4, 5, 6):
        cohort.server.receive(one, cohort.answer(one, requests[one]))
    cohort.server.advance()
    assert cohort.server.result.total.tolist() == sum_of(codes_of(params), range(8))
    assert cohort.server.result.dropped == {2: "unmask", 7: "unmask"}


def test_a_release_of_the_other_kind_or_a_forged_salt_is_refused():
    cohort = cohort_at("unmask")
    reply = cohort.answer(2, cohort.server.requests()[2])
    for at in (HEADER_BYTES + 40, HEADER_BYTES + 55, HEADER_BYTES + 56):
        forged = bytearray(reply)
        forged[at] ^= 1
        with pytest.raises(PeerFault, match="not the one committed to"):
            cohort.server.receive(2, signed(cohort, 2, forged))


def test_a_dealer_whose_shares_contradict_each_other_is_named_and_the_round_aborts(monkeypatch):
    params = malicious(7)
    cohort = Cohort(params, codes_of(params) - 127.5)
    cohort.run_stage()
    honest = shamir.share

    def off_polynomial(secrets, **arguments):
        shares = honest(secrets, **arguments)
        shares[1, :, 0] ^= 1  # one neighbour's shares lie on another polynomial; commitments are to them
        return shares

    for one, request in cohort.server.requests().items():
        with monkeypatch.context() as patch:
            if one == 4:
                patch.setattr("secagg.pairwise.client.share", off_polynomial)
            cohort.server.receive(one, cohort.answer(one, request))
    cohort.server.advance()
    cohort.run_stage()
    cohort.run_stage()
    for one, request in cohort.server.requests().items():
        cohort.server.receive(one, cohort.answer(one, request))
    with pytest.raises(PeerFault, match="do not rebuild") as caught:
        cohort.server.advance()
    assert (caught.value.client_id, caught.value.proof) == (4, True)


def test_a_dealer_or_server_that_frames_a_holder_fails():
    """Commitments that differ from what was sealed, or that the dealer did not sign, are refused by the holder."""
    cohort = cohort_at("masked_input")
    request = cohort.server.requests()[0]
    start = HEADER_BYTES + 1
    first = slice(start, start + FORMAT.dealt_bytes)
    sealed = FORMAT.sealed_bytes
    for offset in (sealed, sealed + 32, sealed + 64):  # either commitment, and the dealer's signature of both
        framed = bytearray(request)
        framed[start + offset] ^= 1
        with pytest.raises(PeerFault, match="are refused") as caught:
            cohort.clients[0].receive(framed)
        assert (caught.value.client_id, caught.value.proof) == (1, False)
    # What the dealer really signed, but for another holder
    other = cohort.server.requests()[2][start + FORMAT.dealt_bytes : start + 2 * FORMAT.dealt_bytes]
    framed = bytearray(request)
    framed[first] = framed[first][:sealed] + other[sealed:]
    with pytest.raises(PeerFault, match="are refused"):
        cohort.clients[0].receive(framed)
    cohort.clients[0].receive(request)


# ----------------------------------------------------------------------------------------------- 6: who draws the graph


def test_the_graph_is_the_beacons_and_waits_for_it():
    params = malicious(40, protocol="secagg+", dropout=0.1)
    cohort = cohort_at("share_keys", params)
    assert cohort.server.beacon_needed
    request = cohort.server.requests()[0]
    needed = cohort.clients[0].receive(request)
    assert needed == secagg.BeaconNeeded(cohort.server.session_id)
    assert cohort.clients[0].receive(request) == needed
    restored = ClientSession.restore(
        cohort.clients[0].save(), identity=cohort.identities[0], randomness=deterministic("x")
    )
    reply = restored.use_beacon(cohort.beacon)
    with pytest.raises(LocalProtocolError, match="beacon"):
        cohort.server.receive(0, reply.payload)
    with pytest.raises((LocalProtocolError, TooFewClients)):
        cohort.server.advance()
    cohort.server.use_beacon(cohort.beacon)
    with pytest.raises(LocalProtocolError, match="drawn already"):
        cohort.server.use_beacon(bytes(32))
    with pytest.raises(LocalProtocolError):
        restored.use_beacon(bytes(32))
    cohort.server.receive(0, reply.payload)


def test_a_server_with_another_beacon_gets_no_shares_opened():
    params = malicious(40, protocol="secagg+", dropout=0.1)
    cohort = cohort_at("share_keys", params)
    requests = cohort.server.requests()
    cohort.server.use_beacon(bytes(32))
    for one, request in requests.items():
        cohort.server.receive(one, cohort.answer(one, request))
    refused = 0
    for one, request in cohort.server.advance().items():
        try:
            cohort.answer(one, request)
        except (PeerFault, ServerFault, TooFewClients):
            refused += 1
    assert refused == 40


def test_the_server_cannot_choose_neighbours():
    params = malicious(40, protocol="secagg+", dropout=0.1)
    cohort = cohort_at("share_keys", params)
    request = cohort.server.requests()[0]
    with pytest.raises(ServerFault, match="too many"):
        cohort.clients[0].receive(request + np.arange(1, 1 + params.neighbours, dtype="<u4").tobytes())


@pytest.mark.parametrize("beacon", [b"", b"short", "x" * 32, None, bytearray(32)])
def test_beacons_that_are_none_are_refused(beacon):
    cohort = cohort_at("share_keys", malicious(40, protocol="secagg+", dropout=0.1))
    cohort.clients[0].receive(cohort.server.requests()[0])
    with pytest.raises(InputError, match="16 bytes"):
        cohort.clients[0].use_beacon(beacon)
    with pytest.raises(InputError, match="16 bytes"):
        cohort.server.use_beacon(beacon)


# ---------------------------------------------------------------------------------------------- what a client pins


def test_a_round_with_other_rates_threat_or_size_is_refused():
    params = malicious(10, dropout=0.2, corrupt=0.1)
    for other in (
        malicious(10, dropout=0.2, corrupt=0.0),
        malicious(10, dropout=0.1, corrupt=0.1),
        malicious(10, dropout=0.2, corrupt=0.1, threat="semi-honest"),
    ):
        directory = identities(range(10))[0].directory if other.threat == "malicious-server" else None
        invitation = ServerSession(other, range(10), directory=directory).requests()[1]
        client = ClientSession(params, 1, identity=identities(range(10))[1])
        with pytest.raises(ServerFault, match="other parameters"):
            client.receive(invitation)


def test_identities_that_do_not_fit_are_refused():
    params, known = malicious(), identities(range(7))
    with pytest.raises(InputError, match="takes an identity"):
        ClientSession(params, 1)
    with pytest.raises(InputError, match="another key for this client"):
        ClientSession(params, 1, identity=known[2])
    with pytest.raises(InputError, match="must hold the round's 7"):
        ClientSession(params, 1, identity=identities(range(8))[1])
    with pytest.raises(InputError, match="semi-honest"):
        ClientSession(plan(7), 1, identity=known[1])
    with pytest.raises(InputError, match="takes a directory"):
        ServerSession(params, range(7))
    with pytest.raises(InputError, match="exactly the roster's"):
        ServerSession(params, range(1, 8), directory=known[0].directory)
    with pytest.raises(InputError, match="semi-honest"):
        ServerSession(plan(7), range(7), directory=known[0].directory)
    saved = ClientSession(params, 1, identity=known[1]).save()
    other = Directory({**known[1].directory, 6: secagg.SigningKey.generate().public})
    with pytest.raises(InputError, match="another directory"):
        ClientSession.restore(saved, identity=Identity(key=known[1].key, directory=other))
    with pytest.raises(InputError, match="takes an identity"):
        ClientSession.restore(saved)
    server = ServerSession(params, range(7), directory=known[0].directory).save()
    with pytest.raises(InputError, match="another directory"):
        ServerSession.restore(server, directory=other)


def test_directories_refuse_what_is_no_identity():
    key = secagg.SigningKey.generate().public
    for bad in ({0: b"short"}, {0: bytes(32)}, {-1: key}, {2**64 - 1: key}, {"a": key}, {True: key}, {0: 7}):
        with pytest.raises(InputError):
            Directory(bad)
    with pytest.raises(InputError, match="share a key"):
        Directory({0: key, 1: key})


def test_directories_are_bound_by_order_free_digests():
    keys = {one: secagg.SigningKey.generate().public for one in range(3)}
    assert Directory(keys).digest() == Directory(dict(reversed(keys.items()))).digest()
    assert Directory(keys).digest() != Directory({0: keys[0], 1: keys[2], 2: keys[1]}).digest()
    assert list(Directory({5: keys[0], 1: keys[1]})) == [1, 5]


def test_no_signing_key_is_saved_or_shown():
    params, known = malicious(), identities(range(7))
    client = ClientSession(params, 1, identity=known[1])
    seed = known[1].key.secret_bytes()
    assert seed not in client.save()
    for shown in (repr(client), repr(known[1]), repr(known[1].key), repr(known[1].directory)):
        assert seed.hex() not in shown
        assert repr(seed)[2:-1] not in shown


def test_published_vectors_still_come_from_the_published_rule():
    """The rule against ring cuts stands beside the published one and asks for no less."""
    published = json.loads((Path(__file__).parents[1] / "vectors" / "graph_parameters.json").read_text())
    for case in published["cases"]:
        if not case["malicious_server"] or case["dropout"] == 0:
            continue
        n = case["n"]
        counts = Counts(
            clients=n,
            corrupt=int(case["corrupt"] * n + 1e-9),
            dropouts=int(case["dropout"] * n + 1e-9),
            survivors=n - int(case["dropout"] * n + 1e-9),
        )
        found = smallest_uncuttable_graph(counts)
        assert found.neighbours >= case["neighbours"]
        assert found.threshold >= case["threshold"]
