"""What a server tries: other models, both kinds of share, split views, a graph of its own, cohorts that hide nobody."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cohort import CONTEXT, Cohort, plan
from plays import (
    EXACT,
    KEY,
    THREATS,
    codes_of,
    cohort_at,
    flags,
    from_server,
    parameters,
    replaced,
    restored,
    row_at,
    signatures_message,
    survivors_message,
    unmasking,
)
from secagg import (
    IN_MEMORY,
    BeaconNeeded,
    ClientSession,
    InputError,
    LocalProtocolError,
    ParameterError,
    PeerFault,
    RoundParams,
    ServerFault,
    ServerSession,
    TooFewClients,
)
from secagg.pairwise import server_steps as steps
from secagg.pairwise.identifiers import pairwise_mask_key, round_id, self_mask_key
from secagg.pairwise.messages import FORMATS, Kind
from secagg.primitives.kdf import Label, digest
from secagg.session.context import context_digest
from secagg.wire import HEADER_BYTES, decode_bitmap, encode_bitmap

both_models = pytest.mark.parametrize("threat", THREATS)


# ------------------------------------------------------------------------------------------ 1: model inconsistency


@both_models
def test_01_model_inconsistency_a_client_of_another_model_takes_no_part(threat):
    """Attack: a client trains another model than the rest. Defence: the context's hash is in the round's identifier."""
    cohort = Cohort(parameters(threat), np.zeros((7, 3)), context=b"model A")
    other = ClientSession(cohort.params, 1, context=b"model B", credentials=cohort.identities.get(1), keep=IN_MEMORY)
    with pytest.raises(ServerFault, match="other parameters or another context"):
        other.receive(cohort.server.requests()[1])
    assert other.stage == "advertise_keys"


@both_models
def test_01_model_inconsistency_halves_that_train_two_models_share_no_session(threat):
    """Attack: each half gets an invitation for its own model, then one roster of all. Defence: context in session id.

    The halves compute two sessions, so no share of one opens in the other (nor does a signature fit), and a half by
    itself is below the floor: nobody masks anything.
    """
    params = parameters(threat, 6)
    cohorts = [cohort_at("advertise_keys", params, context=model, seed="same") for model in (b"model A", b"model B")]
    halves = [cohorts[one >= 3] for one in range(6)]
    entries = b""
    for one, half in enumerate(halves):
        entries += half.answer(one, half.server.requests()[one])[HEADER_BYTES:]
    common = b"".join(one.to_bytes(8, "little") for one in range(6)) + encode_bitmap(np.ones(6, bool)) + entries
    dealt, sessions = {}, {}
    for one, half in enumerate(halves):
        roster = from_server(Kind.ROSTER, half.server._round.round_id, common)
        if threat == "malicious-server":
            with pytest.raises(PeerFault, match="not authentic") as caught:
                half.answer(one, roster)
            assert (caught.value.client_id >= 3) != (one >= 3)
            continue
        reply = half.answer(one, roster)
        dealt[one], sessions[one] = reply[HEADER_BYTES:], reply[16:HEADER_BYTES]
    if threat == "malicious-server":
        return
    assert len(set(sessions.values())) == 2
    size = FORMATS[threat].dealt_bytes
    for one, half in enumerate(halves):
        rows = {peer: dealt[peer][size * (one - (one > peer)) :][:size] for peer in range(6) if peer != one}
        for members in (range(6), [peer for peer in range(6) if halves[peer] is half]):
            sealed = b"".join(rows[peer] for peer in members if peer != one)
            relay = from_server(Kind.RELAYED_SHARES, sessions[one], encode_bitmap(flags(params, members)), sealed)
            with pytest.raises((PeerFault, TooFewClients)):
                half.clients[one].receive(relay)
            assert half.clients[one].stage == "masked_input"


def test_01_model_inconsistency_masks_of_two_models_have_nothing_in_common():
    """Attack: uploads for two models are combined so that one input is left. Defence: masks derive from the context."""
    params = parameters("semi-honest")
    sessions = [round_id(params, context_digest(model), bytes(32)) for model in (b"model A", b"model B")]
    for derive in (
        lambda session: pairwise_mask_key(KEY, session, params, 0, 1, 24),
        lambda session: self_mask_key(KEY, session, params, 0, 24),
    ):
        one, other = (derive(session) for session in sessions)
        assert one != other


# ------------------------------------------------------------------------------- 2: both kinds of share of one peer


@pytest.mark.parametrize("seal_key", [None, KEY], ids=["clear", "sealed"])
@pytest.mark.parametrize("victim_first", ["survived", "dropped"])
@both_models
def test_02_both_kinds_of_share_of_a_peer_are_never_released(threat, victim_first, seal_key):
    """Attack: ask again, also after a restart, with the victim moved to the other set. Defence: one answer a session.

    The identical request gets identical bytes, so retries work; any other is refused.
    """
    params = parameters(threat)
    cohort = cohort_at(unmasking(params), params)
    victim, everybody = 3, list(range(7))
    without = [one for one in everybody if one != victim]
    first, second = (everybody, without) if victim_first == "survived" else (without, everybody)
    mask_key, seed = (record.tobytes() for record in cohort.clients[0]._state.shares[victim - 1])
    asked = [(survivors_message(cohort, first), survivors_message(cohort, second))]
    if threat == "malicious-server":
        replies = {one: cohort.answer(one, asked[0][0]) for one in first}
        some = dict(list(replies.items())[: params.quorum])
        asked.append((signatures_message(cohort, replies), signatures_message(cohort, some)))
    sent = b""
    for step in range(len(asked)):
        cohort.answer(0, asked[step][0])
        cohort.clients[0] = restored(cohort, 0, seal_key)
        for request, other in asked[: step + 1]:
            sent += cohort.answer(0, request)
            assert cohort.answer(0, request) == cohort.answer(0, request)
            with pytest.raises(ServerFault, match="second, different"):
                cohort.clients[0].receive(other)
    released, kept = (seed, mask_key) if victim_first == "survived" else (mask_key, seed)
    assert released in sent
    assert kept not in sent
    assert kept not in cohort.clients[0].save(seal_key=None)


@both_models
def test_02_the_request_names_survivors_and_has_no_room_for_more(threat):
    """Attack: list a client as survived and as dropped. Defence: the request is one bitmap, the dropped are derived."""
    params = parameters(threat, 9, dropout=0.3)
    cohort = cohort_at(unmasking(params), params, {4: "masked_input"})
    request = cohort.server.requests()[0]
    assert request == from_server(Kind.UNMASK_REQUEST, cohort.server.session_id, bytes([0b11101111, 0b1]))
    for longer in (request + bytes([0b00010000, 0]), request + b"\0"):
        with pytest.raises(ServerFault, match="malformed"):
            cohort.clients[0].receive(longer)


# ------------------------------------------------------------------------------------ 3: a split view of survivors


def test_03_split_view_halves_that_were_shown_different_survivors_release_nothing():
    """Attack: two halves are told of different survivors. Defence: a quorum of signatures of the very same set."""
    cohort = cohort_at("check_consistency", parameters("malicious-server", 8))
    views = {one: [*range(7)] if one < 4 else [*range(1, 8)] for one in range(8)}
    replies = {one: cohort.answer(one, survivors_message(cohort, views[one])) for one in range(8) if one in views[one]}
    for one in range(1, 7):
        members = {other: reply for other, reply in replies.items() if other in views[one]}
        with pytest.raises(ServerFault, match="not of the survivor set"):
            cohort.clients[one].receive(signatures_message(cohort, members))
        alike = {other: reply for other, reply in members.items() if views[other] == views[one]}
        with pytest.raises(TooFewClients, match="signed the survivor set"):
            cohort.clients[one].receive(signatures_message(cohort, alike))
        assert cohort.clients[one].stage == "unmask"


def test_03_split_view_halves_that_were_shown_different_sharers_release_nothing():
    """Attack: one half masks without client 7, and all are told of the same survivors. Defence: U2 is signed too."""
    params = parameters("malicious-server", 8)
    cohort = cohort_at("masked_input", params)
    for one, request in cohort.server.requests().items():
        if one < 4:
            request = replaced(request, HEADER_BYTES, 0b01111111)[: row_at(params, 6).start]
        cohort.answer(one, request)
    replies = {one: cohort.answer(one, survivors_message(cohort, range(7))) for one in range(7)}
    for one in range(7):
        with pytest.raises(ServerFault, match="not of the survivor set"):
            cohort.clients[one].receive(signatures_message(cohort, replies))
        alike = {other: reply for other, reply in replies.items() if (other < 4) == (one < 4)}
        with pytest.raises(TooFewClients, match="signed the survivor set"):
            cohort.clients[one].receive(signatures_message(cohort, alike))


def test_03_split_view_signatures_that_are_too_few_false_or_of_others_release_nothing():
    """Attack: pad the signatures out. Defence: each is checked against the directory, and a quorum is counted."""
    cohort = cohort_at("check_consistency", parameters("malicious-server"))
    replies = {one: cohort.answer(one, cohort.server.requests()[one]) for one in range(7)}
    client, quorum = cohort.clients[0], cohort.params.quorum
    enough = dict(list(replies.items())[:quorum])
    with pytest.raises(TooFewClients) as caught:
        client.receive(signatures_message(cohort, dict(list(replies.items())[: quorum - 1])))
    assert (caught.value.have, caught.value.need) == (quorum - 1, quorum)
    with pytest.raises(ServerFault, match="misses this one"):
        client.receive(signatures_message(cohort, {one: reply for one, reply in replies.items() if one}))
    forged = enough | {1: enough[1][:-1] + bytes([enough[1][-1] ^ 1])}
    swapped = enough | {1: enough[2], 2: enough[1]}
    doubled = enough | {2: enough[1]}
    for bad in (forged, swapped, doubled):
        with pytest.raises(ServerFault, match="relayed signature"):
            client.receive(signatures_message(cohort, bad))
    client.receive(signatures_message(cohort, enough))
    assert client.stage is None


def test_03_split_view_a_quorum_of_signatures_is_all_that_a_client_checks():
    """Attack: a false signature among those that count. Defence: the first Q - 1 of others are checked, and no more."""
    cohort = cohort_at("check_consistency", parameters("malicious-server"))
    replies = {one: cohort.answer(one, cohort.server.requests()[one]) for one in range(7)}
    last = cohort.params.quorum - 1  # of client 0, whose own signature is none of them
    assert last + 1 < cohort.params.clients
    needed, surplus = (replies | {one: bytes(replies[one])[:-64] + bytes(64)} for one in (last, last + 1))
    with pytest.raises(ServerFault, match="relayed signature"):
        cohort.clients[0].receive(signatures_message(cohort, needed))
    cohort.clients[0].receive(signatures_message(cohort, surplus))
    assert cohort.clients[0].stage is None


# --------------------------------------------------------------------------------- 6: a low-degree or biased graph


def sparse(threat: str, clients: int = 40) -> RoundParams:
    return parameters(threat, clients, protocol="secagg+", dropout=0.1)


@both_models
def test_06_low_degree_an_invitation_to_a_round_with_two_neighbours_is_refused(threat):
    """Attack: the server invites with k = 2. Defence: each client proves (k, t) itself, pins it, and hashes it."""
    params = sparse(threat)
    assert params.graph == "harary"
    with pytest.raises(ParameterError):
        replace(params, neighbours=2, threshold=2)
    weak = replaced(replaced(params.encode(), slice(48, 52), b"\2\0\0\0"), slice(52, 56), b"\2\0\0\0")
    with pytest.raises(ParameterError):
        RoundParams.decode(weak)
    nonce = bytes(32)
    asked = digest(Label.ROUND, bytes([1, 1]), weak, context_digest(CONTEXT), nonce)
    client = Cohort(params, np.zeros((40, 3))).clients[1]
    with pytest.raises(ServerFault, match="other parameters"):
        client.receive(from_server(Kind.INVITATION, asked, nonce))
    client.receive(from_server(Kind.INVITATION, round_id(params, context_digest(CONTEXT), nonce), nonce))


def test_06_low_degree_a_roster_with_fewer_odd_or_repeated_neighbours_is_refused():
    """Attack: the roster names fewer than k, or one twice, or the client itself. Defence: k other ones, or none."""
    params = sparse("semi-honest")
    cohort = cohort_at("share_keys", params)
    request = cohort.server.requests()[0]
    own = len(request) - 4 * params.neighbours
    row = np.frombuffer(request[own:], "<u4")
    for bad in (row[:2], row[:-1], np.append(row, 39), np.sort(np.append(row[1:], row[1])), row[::-1]):
        with pytest.raises(ServerFault):
            cohort.clients[0].receive(request[:own] + bad.astype("<u4").tobytes())
    with pytest.raises(ServerFault, match="stand in it"):
        cohort.clients[0].receive(request[:own] + np.append(row[:-1], 40).astype("<u4").tobytes())
    with pytest.raises(ServerFault, match="its own neighbour"):
        cohort.clients[0].receive(request[:own] + np.append(0, row[1:]).astype("<u4").tobytes())


def test_06_biased_graph_the_server_cannot_choose_neighbours():
    """Attack: a malicious server adds neighbours to the roster. Defence: it has no room; the beacon draws."""
    params = sparse("malicious-server")
    cohort = cohort_at("share_keys", params)
    request = cohort.server.requests()[0]
    with pytest.raises(ServerFault, match="too many"):
        cohort.clients[0].receive(request + np.arange(1, 1 + params.neighbours, dtype="<u4").tobytes())


def test_06_biased_graph_once_the_beacon_can_be_known_the_roster_is_fixed():
    """Attack: grind rosters until the beacon's ring is liked. Defence: fixed, durably, before the beacon is used."""
    cohort = cohort_at("share_keys", sparse("malicious-server"))
    request = cohort.server.requests()[0]
    assert cohort.clients[0].receive(request) == BeaconNeeded(cohort.server.session_id)
    other = replaced(request, len(request) - 1, request[-1] ^ 1)
    for one in (cohort.clients[0], restored(cohort, 0)):
        with pytest.raises(ServerFault, match="second, different"):
            one.receive(other)
        assert one.receive(request) == BeaconNeeded(cohort.server.session_id)
    reply = restored(cohort, 0).use_beacon(cohort.beacon)
    with pytest.raises(LocalProtocolError, match="beacon"):
        cohort.server.receive(0, reply.payload)
    with pytest.raises((LocalProtocolError, TooFewClients)):
        cohort.server.advance()
    cohort.server.use_beacon(cohort.beacon)
    with pytest.raises(LocalProtocolError, match="drawn already"):
        cohort.server.use_beacon(bytes(32))
    cohort.server.receive(0, reply.payload)


def test_06_biased_graph_a_server_with_another_beacon_gets_no_shares_opened():
    """Attack: the server relays along a ring of its own. Defence: rows are sealed for the beacon's pairs alone."""
    cohort = cohort_at("share_keys", sparse("malicious-server"))
    requests = cohort.server.requests()
    cohort.server.use_beacon(bytes(32))
    for one, request in requests.items():
        payload = cohort.answer(one, request)
        with pytest.raises(PeerFault, match="another beacon"):
            cohort.server.receive(one, payload)
        # What an honest server refuses a lying one takes
        body, signature = memoryview(payload)[HEADER_BYTES:-64], payload[-64:]
        steps.fold_shares(cohort.server._round, cohort.server._state, one, body, signature)
    for one, request in cohort.server.advance().items():
        with pytest.raises((PeerFault, ServerFault, TooFewClients)):
            cohort.answer(one, request)


# ---------------------------------------------------------------------------------------------- 7: a tiny cohort


@pytest.mark.parametrize("rates", [(0.0, 0.0), (0.1, 0.05)])
@pytest.mark.parametrize("clients", [1, 2])
@both_models
def test_07_tiny_cohort_parameters_in_which_nobody_hides_are_refused(threat, clients, rates):
    """Attack: a round of one or two clients. Defence: parameters need two honest survivors, clients need parameters."""
    dropout, corrupt = rates
    if (clients, rates) == (2, (0.0, 0.0)):  # both honest, nobody may vanish: the sum hides each from the server
        assert plan(2, 1, threat=threat).minimum_survivors == 2
        return
    with pytest.raises(ParameterError, match="too few clients"):
        RoundParams.plan(clients=clients, dimension=1, encoding=EXACT, dropout=dropout, corrupt=corrupt, threat=threat)


@both_models
def test_07_tiny_cohort_a_roster_of_fewer_than_planned_is_refused(threat):
    """Attack: invite one victim to a round of ten. Defence: the roster has the pinned number of ids on both sides."""
    params = parameters(threat, 10)
    with pytest.raises(InputError, match="the roster holds 1"):
        ServerSession(params, [0], keep=IN_MEMORY)
    cohort = cohort_at("share_keys", params)
    request = cohort.server.requests()[0]
    alone = from_server(Kind.ROSTER, request[16:HEADER_BYTES], bytes(8), b"\1", cohort.server._state.roster.entries[0])
    with pytest.raises(ServerFault, match="malformed"):
        cohort.clients[0].receive(alone)


@both_models
def test_07_tiny_cohort_the_floor_holds_for_keys_sharers_and_survivors(threat):
    """Attack: declare all but a few as gone, at any stage. Defence: each client counts to S before it goes on."""
    params = parameters(threat, 10, dropout=0.3)
    few, floor = np.arange(10) < 6, params.minimum_survivors
    assert floor == 7
    entry, row = FORMATS[threat].entry_bytes, FORMATS[threat].dealt_bytes

    def refused(cohort: Cohort, request: bytes) -> None:
        stage = cohort.clients[0].stage
        with pytest.raises(TooFewClients) as caught:
            cohort.clients[0].receive(request)
        assert (caught.value.have, caught.value.need) == (6, floor)
        assert cohort.clients[0].stage == stage

    cohort = cohort_at("share_keys", params)
    request = cohort.server.requests()[0]
    ids = HEADER_BYTES + 80
    refused(cohort, request[:ids] + encode_bitmap(few) + request[ids + 2 :][: 6 * entry])
    cohort = cohort_at("masked_input", params)
    request = cohort.server.requests()[0]
    assert decode_bitmap(memoryview(request)[HEADER_BYTES:][:2], 10).all()
    refused(cohort, request[:HEADER_BYTES] + encode_bitmap(few) + request[HEADER_BYTES + 2 :][: 5 * row])
    cohort = cohort_at(unmasking(params), params)
    refused(cohort, survivors_message(cohort, range(6)))
    cohort.answer(0, survivors_message(cohort, range(7)))


@both_models
def test_07_tiny_cohort_the_floor_holds_in_each_neighbourhood(threat):
    """Attack: S survive, but none near the victim. Defence: t of its own neighbours must be among them."""
    clients, dropout = (60, 0.4) if threat == "semi-honest" else (100, 0.2)
    params = parameters(threat, clients, protocol="secagg+", dropout=dropout)
    assert params.graph == "harary"
    cohort = cohort_at(unmasking(params), params)
    neighbours = cohort.clients[0]._state.neighbours.tolist()
    spared = neighbours[: params.threshold - 1]
    survivors = [one for one in range(clients) if one not in neighbours or one in spared]
    assert len(survivors) >= params.minimum_survivors
    with pytest.raises(TooFewClients, match="neighbours") as caught:
        cohort.clients[0].receive(survivors_message(cohort, survivors))
    assert (caught.value.have, caught.value.need) == (params.threshold - 1, params.threshold)
    cohort.answer(0, survivors_message(cohort, [*survivors, neighbours[params.threshold]]))


def test_07_tiny_cohort_the_floor_holds_where_shares_are_dealt():
    """Attack: name neighbours most of whom never advertised. Defence: t of them must have, or no share is dealt."""
    params = parameters("semi-honest", 60, protocol="secagg+", dropout=0.4)
    cohort = cohort_at("share_keys", params)
    row, everybody = cohort.server._state.graph.neighbours(0), cohort.server._state.roster

    def roster_with(present: int) -> bytes:
        advertised = np.ones(60, bool)
        advertised[row[present:]] = False
        roster = replace(everybody, advertised=advertised, entries=everybody.entries[advertised], neighbours=row)
        return from_server(Kind.ROSTER, cohort.server._round.round_id, roster.encode())

    with pytest.raises(TooFewClients, match="neighbours") as caught:
        cohort.answer(0, roster_with(params.threshold - 1))
    assert (caught.value.have, caught.value.need) == (params.threshold - 1, params.threshold)
    assert cohort.clients[0].stage == "share_keys"
    cohort.answer(0, roster_with(params.threshold))


def test_07_tiny_cohort_codes_stay_what_they_are_in_the_smallest_round():
    """Attack: none; the smallest round that is allowed gives the sum of two, which hides each from the server."""
    params = plan(2, 3, encoding=EXACT)
    codes = codes_of(params)
    assert Cohort(params, codes - 127.5).run().total.tolist() == codes.sum(axis=0).tolist()
