"""Keys and identities that are swapped, cloned or invented, and messages of one round that come again in another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import secagg
from cheats import signed_parts
from cohort import CONTEXT, Cohort, deterministic
from plays import THREATS, codes_of, cohort_at, entry_at, flipped, parameters, replaced, restored, signed
from secagg import IN_MEMORY, Directory, Identity, InputError, PeerFault, ServerFault, ServerSession
from secagg.encoding.ring import unpack_add
from secagg.pairwise.messages import Kind
from secagg.pairwise.stages import MALICIOUS_STAGES
from secagg.wire import HEADER_BYTES, Header

both_models = pytest.mark.parametrize("threat", THREATS)


# ---------------------------------------------------------------------------- 4: keys that are swapped, and Sybils


@pytest.mark.parametrize("offset", [0, 32, 64, 96])
def test_04_key_substitution_what_the_server_swaps_in_an_entry_is_noticed(offset):
    """Attack: the server swaps a key, the commitment or the signature. Defence: identities sign all of an entry."""
    cohort = cohort_at("share_keys", parameters("malicious-server"))
    roster = cohort.server.requests()[0]
    where = entry_at(cohort.params, 3).start + offset
    changed = replaced(roster, slice(where, where + 32), secagg.SigningKey.generate().public[:31] + b"\0")
    with pytest.raises(PeerFault, match="not authentic") as caught:
        cohort.clients[0].receive(changed)
    assert (caught.value.client_id, caught.value.proof) == (3, False)


@both_models
def test_04_key_substitution_a_clients_own_entry_is_altered_or_repeated(threat):
    """Attack: the server repeats or alters a client's own keys. Defence: they stand in the roster once, unaltered."""
    cohort = cohort_at("share_keys", parameters(threat))
    roster = cohort.server.requests()[2]
    own, first = entry_at(cohort.params, 2).start, entry_at(cohort.params, 0).start
    for offset in (0, 32, 95):
        with pytest.raises(ServerFault, match="alters this client's entry"):
            cohort.clients[2].receive(flipped(roster, own + offset))
    for source in (own, own + 32):
        for target in (first, first + 32):
            repeated = replaced(roster, slice(target, target + 32), roster[source : source + 32])
            with pytest.raises(ServerFault, match="more than once"):
                cohort.clients[2].receive(repeated)
            # The same point in another form: 2**255 more, which the exchange would ignore
            with pytest.raises(ServerFault, match="no honest client sends"):
                cohort.clients[2].receive(flipped(repeated, target + 31, 0x80))
    cohort.answer(2, roster)


@both_models
def test_04_key_substitution_halves_that_were_shown_two_keys_share_no_session(threat):
    """Attack: one client is shown another key of a peer's. Defence: the roster is hashed into the session."""
    cohort = cohort_at("share_keys", parameters(threat))
    requests = dict(cohort.server.requests())
    requests[5] = flipped(requests[5], entry_at(cohort.params, 3).start + 40)
    for one, request in requests.items():
        if one != 5:
            cohort.server.receive(one, cohort.answer(one, request))
        elif threat == "malicious-server":
            with pytest.raises(PeerFault, match="not authentic"):
                cohort.answer(one, request)
        else:
            with pytest.raises(PeerFault, match="another session"):
                cohort.server.receive(one, cohort.answer(one, request))


@both_models
def test_04_sybil_an_id_that_stands_twice_or_out_of_order_is_refused(threat):
    """Attack: clone an id in the roster. Defence: ids ascend strictly, on the wire and in the caller's own list."""
    params = parameters(threat)
    cohort = cohort_at("share_keys", params)
    roster = cohort.server.requests()[0]
    for at, one in ((6, 5), (6, 4), (5, 6), (6, 2**64 - 1)):
        cloned = replaced(roster, slice(HEADER_BYTES + 8 * at, HEADER_BYTES + 8 * (at + 1)), one.to_bytes(8, "little"))
        with pytest.raises(ServerFault, match="ascend strictly"):
            cohort.clients[0].receive(cloned)
    with pytest.raises(InputError, match="distinct"):
        ServerSession(params, [0, 1, 2, 3, 4, 5, 5], context=CONTEXT, credentials=cohort.directory, keep=IN_MEMORY)


@pytest.mark.parametrize("one", [0, 30, 60])
def test_04_sybil_a_client_whose_place_another_id_takes_goes_no_further(one):
    """Attack: put an id of the server's own where a client stood. Defence: a client looks for itself in the roster."""
    params = parameters("semi-honest")
    cohort = Cohort(params, codes_of(params) - 127.5, ids=range(0, 70, 10))
    cohort.run_stage()
    at = slice(HEADER_BYTES + 8 * (one // 10), HEADER_BYTES + 8 * (one // 10 + 1))
    for other in (one + 5, max(one - 5, 1)):
        with pytest.raises(ServerFault, match="does not hold this client"):
            cohort.clients[one].receive(replaced(cohort.server.requests()[one], at, other.to_bytes(8, "little")))


def test_04_sybil_a_client_under_another_name_is_noticed():
    """Attack: one client's entry stands for another's too. Defence: the signature names its sender."""
    cohort = cohort_at("share_keys", parameters("malicious-server"))
    roster = cohort.server.requests()[0]
    cloned = replaced(roster, entry_at(cohort.params, 3), roster[entry_at(cohort.params, 4)])
    with pytest.raises(PeerFault, match="not authentic"):
        cohort.clients[0].receive(cloned)


def test_04_sybil_a_cohort_that_is_not_the_directorys_is_refused():
    """Attack: the server invites a client of its own. Defence: the ids are exactly the pinned directory's."""
    cohort = cohort_at("share_keys", parameters("malicious-server"))
    last = slice(HEADER_BYTES + 8 * 6, HEADER_BYTES + 8 * 7)
    with pytest.raises(ServerFault, match="not the directory's cohort"):
        cohort.clients[0].receive(replaced(cohort.server.requests()[0], last, (99).to_bytes(8, "little")))


def test_04_sybil_a_party_with_two_ids_in_the_directory_is_refused():
    """Attack: one key under two ids counts twice. Defence: a directory holds no key twice, and none of low order."""
    key = secagg.SigningKey.generate().public
    with pytest.raises(InputError, match="share a key"):
        Directory({0: key, 1: key})
    with pytest.raises(InputError, match="not usable"):
        Directory({0: key, 1: bytes(32)})


@both_models
def test_04_sybil_a_copied_key_is_refused_when_it_is_advertised(threat):
    """Attack: a client advertises another's keys as its own. Defence: the server takes no public key twice."""
    cohort = cohort_at("advertise_keys", parameters(threat))
    replies = {one: cohort.answer(one, cohort.server.requests()[one]) for one in (2, 3)}
    cohort.server.receive(2, replies[2])
    before = cohort.server.save(seal_key=None)
    for source in (HEADER_BYTES, HEADER_BYTES + 32):
        for target in (HEADER_BYTES, HEADER_BYTES + 32):
            copied = replaced(replies[3], slice(target, target + 32), replies[2][source : source + 32])
            with pytest.raises(PeerFault, match="another client advertised") as caught:
                cohort.server.receive(3, signed(cohort, 3, copied))
            assert caught.value.client_id == 3
            assert cohort.server.save(seal_key=None) == before
    restored = ServerSession.restore(before, credentials=cohort.directory, keep=IN_MEMORY)
    assert restored._known_keys == cohort.server._known_keys
    assert len(restored._known_keys) == 2


@pytest.mark.parametrize("stage", MALICIOUS_STAGES)
def test_04_key_substitution_every_reply_bears_its_senders_signature_of_this_kind(stage):
    """Attack: no signature, or one of another client, kind, session or body. Defence: every message is signed."""
    cohort = cohort_at(stage, parameters("malicious-server"))
    reply = cohort.answer(2, cohort.server.requests()[2])
    before = cohort.server.save(seal_key=None)
    header, (body, attached) = reply[:HEADER_BYTES], signed_parts(cohort, reply)
    kind, session = header[6], header[16:]
    own, right = cohort.identities[2], Header(kind=kind, sender=2, session=session)
    stranger = Identity(key=secagg.SigningKey.generate(), directory=cohort.directory)
    forgeries = [
        reply[:-64],
        reply[:-64] + bytes(64),
        reply[:-64] + stranger.sign(right, body, attached=attached),
        reply[:-64] + cohort.identities[3].sign(right, body, attached=attached),
        reply[:-64] + own.sign(Header(kind=kind ^ 2, sender=2, session=session), body, attached=attached),
        reply[:-64] + own.sign(Header(kind=kind, sender=3, session=session), body, attached=attached),
        reply[:-64] + own.sign(Header(kind=kind, sender=2, session=bytes(32)), body, attached=attached),
        reply[:-64] + own.sign(right, body, attached=bytes(31)),
        flipped(reply, HEADER_BYTES),
        header,
    ]
    for forged in forgeries:
        with pytest.raises(PeerFault) as caught:
            cohort.server.receive(2, forged)
        assert caught.value.client_id == 2
        assert cohort.server.save(seal_key=None) == before
    for size in (0, 63, 95 if stage == "masked_input" else 63):
        with pytest.raises(PeerFault, match="too short to bear a signature"):
            cohort.server.receive(2, header + bytes(size))
    cohort.server.receive(2, reply)


# -------------------------------------------------------------------------------------- 5: replay, and mask reuse


@dataclass
class Past:
    """What client 2 was asked and answered in a round, kind by kind."""

    requests: list[bytes]
    replies: list[bytes]


def past_of(threat: str, seed: str) -> Past:
    cohort, past = cohort_at("advertise_keys", parameters(threat), seed=seed), Past([], [])
    while cohort.server.stage is not None:
        past.requests.append(cohort.server.requests()[2])
        past.replies.append(cohort.answer(2, past.requests[-1]))
        cohort.run_stage()
    return past


@both_models
def test_05_replay_no_message_of_an_earlier_round_is_taken_in_a_later_one(threat):
    """Attack: send each message of an earlier round of the same cohort again. Defence: it names another session."""
    past = past_of(threat, "earlier")
    cohort = cohort_at("advertise_keys", parameters(threat), seed="later")
    while cohort.server.stage is not None:
        client, server = cohort.clients[2].save(seal_key=None), cohort.server.save(seal_key=None)
        for request in past.requests:
            if cohort.server.stage == "advertise_keys" and request[6] == Kind.INVITATION:
                continue  # an invitation that comes again is an invitation: the next test
            with pytest.raises(ServerFault):
                cohort.clients[2].receive(request)
            assert cohort.clients[2].save(seal_key=None) == client
        for reply in past.replies:
            with pytest.raises(PeerFault) as caught:
                cohort.server.receive(2, reply)
            assert caught.value.client_id == 2
            assert cohort.server.save(seal_key=None) == server
        cohort.run_stage()
    assert cohort.server.result.total.tolist() == codes_of(cohort.params).sum(axis=0).tolist()


@both_models
def test_05_replay_an_invitation_that_comes_again_gets_fresh_keys_and_nothing_more(threat):
    """Attack: lead a client through an earlier round again. Defence: its keys are new, so the old roster is not its."""
    past = past_of(threat, "earlier")
    cohort = cohort_at("advertise_keys", parameters(threat), seed="later")
    client = cohort.clients[2]
    again = client.receive(past.requests[0]).payload
    for start in (0, 32, 64):
        at = slice(HEADER_BYTES + start, HEADER_BYTES + start + 32)
        assert again[at] != past.replies[0][at]
    with pytest.raises(ServerFault, match="alters this client's entry"):
        client.receive(past.requests[1])
    for request in past.requests[2:]:
        with pytest.raises(ServerFault, match="awaits ROSTER"):
            client.receive(request)


@both_models
def test_05_replay_a_message_under_the_later_rounds_name_is_noticed(threat):
    """Attack: write the later session into an old message. Defence: keys and signatures are bound to the session."""
    past = past_of(threat, "earlier")
    cohort = cohort_at("share_keys", parameters(threat), seed="later")
    while cohort.server.stage is not None:
        current = cohort.server.requests()[2]
        for old in past.requests:
            renamed = replaced(old, slice(16, HEADER_BYTES), current[16:HEADER_BYTES])
            if old[6] != Kind.UNMASK_REQUEST:  # a set of survivors alone is the same in both rounds
                with pytest.raises((ServerFault, PeerFault)):
                    cohort.clients[2].receive(renamed)
        reply = cohort.answer(2, current)
        if threat == "malicious-server":
            for old in past.replies:
                with pytest.raises(PeerFault):
                    cohort.server.receive(2, replaced(old, slice(16, HEADER_BYTES), reply[16:HEADER_BYTES]))
        cohort.run_stage()
    assert cohort.server.result.survivors == tuple(range(7))


def test_05_replay_an_advertisement_of_an_earlier_round_in_a_later_roster_is_noticed():
    """Attack: the server puts an old entry, whose keys it may know, in a roster. Defence: entries name their round."""
    old, cohort = (cohort_at("share_keys", parameters("malicious-server"), seed=seed) for seed in ("earlier", "later"))
    where = entry_at(cohort.params, 3)
    roster = replaced(cohort.server.requests()[0], where, old.server.requests()[0][where])
    with pytest.raises(PeerFault, match="not authentic") as caught:
        cohort.clients[0].receive(roster)
    assert caught.value.client_id == 3


def upload_of(cohort: Cohort, one: int) -> np.ndarray:
    upload = cohort.answer(one, cohort.server.requests()[one])
    words = np.zeros(cohort.params.dimension + 1, dtype=np.uint16)
    size = (len(words) * cohort.params.ring_bits + 7) // 8
    unpack_add(np.frombuffer(upload[HEADER_BYTES : HEADER_BYTES + size], np.uint8), words, cohort.params.ring_bits)
    return words & ((1 << cohort.params.ring_bits) - 1)


@both_models
def test_05_mask_reuse_two_rounds_of_repeated_randomness_have_other_masks(threat):
    """Attack: subtract two uploads of one vector, where every client's generator repeats itself. Defence: the nonce.

    The server's nonce enters the session and the session every key, so the difference is noise all the same.
    """
    params = parameters(threat, 4, 4000)
    uploads = []
    for nonce in ("one", "other"):
        cohort = Cohort(params, codes_of(params) - 127.5)
        cohort.server = ServerSession(
            params,
            range(4),
            context=CONTEXT,
            credentials=cohort.directory,
            randomness=deterministic(nonce),
            keep=IN_MEMORY,
        )
        while cohort.server.stage != "masked_input":
            cohort.run_stage()
        uploads.append(upload_of(cohort, 1))
    difference = (uploads[0] - uploads[1]) & ((1 << params.ring_bits) - 1)
    # Equal masks would leave zeros; independent ones leave each of 2**10 values about four times
    assert params.ring_bits == 10
    counts = np.bincount(difference, minlength=1024)
    assert counts.max() < 20
    assert ((counts - 4001 / 1024) ** 2 / (4001 / 1024)).sum() < 1023 + 5 * (2 * 1023) ** 0.5


@both_models
def test_05_mask_reuse_a_second_vector_under_the_same_masks_is_refused(threat):
    """Attack: the caller is led to submit twice, also after a restart. Defence: one upload a session, ever."""
    cohort = cohort_at("masked_input", parameters(threat))
    request = cohort.server.requests()[2]
    upload = cohort.answer(2, request)
    for client in (cohort.clients[2], restored(cohort, 2)):
        with pytest.raises(secagg.LocalProtocolError):
            client.submit(np.zeros(3))
        assert client.receive(request).payload == upload


@both_models
def test_05_replay_a_servers_own_messages_and_a_clients_do_not_pass_for_each_other(threat):
    """Attack: reflect a message to its sender. Defence: the header says from whom it is, and kinds have one sender."""
    past = past_of(threat, "cohort")
    cohort = cohort_at("advertise_keys", parameters(threat))
    while cohort.server.stage is not None:
        for request, reply in zip(past.requests, past.replies, strict=True):
            with pytest.raises(ServerFault, match="not from the server"):
                cohort.clients[2].receive(reply)
            with pytest.raises(PeerFault):
                cohort.server.receive(2, request)
        cohort.run_stage()
