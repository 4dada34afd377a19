"""What whoever holds the wire tries: points of low order, moved ciphertexts, impossible sizes, late messages."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from cohort import CONTEXT, identities, plan
from plays import (
    KEY,
    THREATS,
    cohort_at,
    exchange,
    flipped,
    from_server,
    parameters,
    replaced,
    restored,
    row_at,
    signed,
    sum_of,
    unmasking,
)
from secagg import (
    IN_MEMORY,
    ClientSession,
    DecodeError,
    Directory,
    InputError,
    ParameterError,
    PeerFault,
    RoundParams,
    SecAggError,
    ServerFault,
    ServerSession,
    StaleMessage,
    snapshot,
)
from secagg.pairwise.client_steps import _are_canonical
from secagg.pairwise.identifiers import channel_keys
from secagg.pairwise.messages import Kind
from secagg.primitives.aead import open_once, seal_once, seal_state
from secagg.primitives.agreement import AgreementKey, is_canonical, is_low_order
from secagg.wire import HEADER_BYTES

both_models = pytest.mark.parametrize("threat", THREATS)
P = 2**255 - 19
LOW_ORDER = [
    number.to_bytes(32, "little")
    for number in (
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        P - 1,
        P,
        P + 1,
    )
]
low_order_points = pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:4])


# ------------------------------------------------------------------------------------- 14: X25519 points of low order


@low_order_points
@pytest.mark.parametrize("high_bit", [0, 0x80])
def test_14_low_order_points_are_refused_in_an_exchange(point, high_bit):
    """Attack: a point of RFC 7748's small subgroups makes the secret zero. Defence: an all-zero secret is refused."""
    public = replaced(point, 31, point[31] | high_bit)
    assert is_low_order(public)
    with pytest.raises(DecodeError, match="low order"):
        AgreementKey.generate().exchange(public)


@low_order_points
@pytest.mark.parametrize("offset", [0, 32])
@both_models
def test_14_low_order_keys_are_refused_when_they_are_advertised(threat, offset, point):
    """Attack: advertise a channel or mask key of low order. Defence: the server refuses it and names its sender."""
    cohort = cohort_at("advertise_keys", parameters(threat))
    reply = cohort.answer(2, cohort.server.requests()[2])
    where = slice(HEADER_BYTES + offset, HEADER_BYTES + offset + 32)
    with pytest.raises(PeerFault, match="low order") as caught:
        cohort.server.receive(2, signed(cohort, 2, replaced(reply, where, point)))
    assert caught.value.client_id == 2


@low_order_points
@pytest.mark.parametrize("offset", [0, 32])
@both_models
def test_14_low_order_keys_that_the_server_lets_pass_are_refused_by_clients(threat, offset, point, monkeypatch):
    """Attack: server and client 2 agree on a key of low order. Defence: its neighbours refuse to use it.

    The channel key is used when shares are dealt, the mask key when the vector is masked.
    """
    params = parameters(threat)
    cohort = cohort_at("advertise_keys", params)
    for name in ("is_low_order", "is_canonical"):
        monkeypatch.setattr(f"secagg.pairwise.server_steps.{name}", lambda public, name=name: name == "is_canonical")
    for one, _, reply in exchange(cohort):
        where = slice(HEADER_BYTES + offset, HEADER_BYTES + offset + 32)
        forged = signed(cohort, one, replaced(reply, where, point))
        cohort.server.receive(one, forged if one == 2 else reply)
    cohort.server.advance()
    caught = set()
    for one, request in cohort.server.requests().items():
        try:
            with monkeypatch.context() as patch:
                if one == 2:  # which believes that the altered entry is its own
                    patch.setattr("secagg.pairwise.client_steps._own_position", lambda *_: 2)
                cohort.server.receive(one, cohort.answer(one, request))
        except (PeerFault, ServerFault):
            caught.add(one)
    if caught:
        assert offset == 0 or int.from_bytes(point, "little") >= P
        assert caught >= {0, 1, 3, 4, 5, 6}
        return
    cohort.server.advance()
    for one, request in cohort.server.requests().items():
        if one != 2:
            with pytest.raises(PeerFault, match="low order") as fault:
                cohort.answer(one, request)
            assert fault.value.client_id == 2
            assert cohort.clients[one].stage == "masked_input"


def test_14_low_order_identities_are_refused():
    """Attack: an Ed25519 identity of low order, under which anything verifies. Defence: no directory holds one."""
    for point in (bytes(32), b"\1" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"):
        with pytest.raises(InputError, match="not usable"):
            Directory({0: point})


@pytest.mark.parametrize(
    ("number", "canonical"),
    [(number, number < P) for number in (0, P - 1, P, P + 1, P + 18, 2**255, 2**255 + 2**248 - 1, 2**256 - 1)]
    + [(P - (1 << 8 * byte), True) for byte in range(1, 31)],
    ids=hex,
)
def test_14_one_encoding_of_each_point_passes_a_clients_check_of_a_roster(number, canonical):
    """Attack: one key in two forms, under two names. Defence: both sides take numbers below the modulus alone."""
    public = number.to_bytes(32, "little")
    others = AgreementKey.generate().public * 2
    assert is_canonical(public) == canonical
    assert _are_canonical(np.frombuffer(others + public, np.uint8).reshape(3, 32)) == canonical


# --------------------------------------- 15: a ciphertext moved to another recipient, direction, stage or session


@both_models
def test_15_swapped_ciphertexts_do_not_open(threat):
    """Attack: move a row to another recipient, dealer, direction or session. Defence: key and AAD name them all."""
    params = parameters(threat)
    cohort, other = (cohort_at("masked_input", params, seed=seed) for seed in ("this", "another"))
    mine, theirs = cohort.server.requests()[0], cohort.server.requests()[1]
    first, second = row_at(params, 0), row_at(params, 1)
    foreign = {
        "another dealer's": mine[second],
        "another recipient's, of the same dealer": cohort.server.requests()[2][row_at(params, 1)],
        "what this client sent the dealer": theirs[first],
        "another session's": other.server.requests()[0][first],
        "nothing": bytes(len(mine[first])),
    }
    for what, row in foreign.items():
        with pytest.raises(PeerFault, match="shares it sealed for this client are refused") as caught:
            cohort.clients[0].receive(replaced(mine, first, row))
        assert caught.value.client_id == 1, what
    swapped = replaced(replaced(mine, first, mine[second]), second, mine[first])
    with pytest.raises(PeerFault, match="refused"):
        cohort.clients[0].receive(swapped)
    cohort.answer(0, mine)


def test_15_ciphertext_keys_serve_one_session_and_direction():
    """Attack: use a key twice, nonces being zero. Defence: each session, pair and direction has a key of its own."""
    keys = set()
    for session in (bytes(32), b"\1" * 32):
        for own, peer in ((0, 1), (0, 2), (1, 2)):
            up, down = channel_keys(KEY, session, own, peer)
            assert channel_keys(KEY, session, peer, own) == (down, up)
            keys |= {up, down}
    assert len(keys) == 12


def test_15_ciphertext_of_another_stage_does_not_open():
    """Attack: the right key, with other data beside it. Defence: session, stage, sender and recipient are its AAD."""
    sealed = seal_once(KEY, b"shares", b"session\x03")
    for other in (b"session\x04", b"sessioN\x03", b""):
        with pytest.raises(DecodeError):
            open_once(KEY, sealed, other)


@both_models
def test_15_sealed_state_has_a_fresh_salt_each_time_and_one_purpose(threat):
    """Attack: compare saves, or hand one to the other side. Defence: 256-bit salts, and a purpose beside each."""
    cohort = cohort_at("share_keys", parameters(threat))
    client, identity = cohort.clients[1], cohort.identities.get(1)
    saves = [client.save(seal_key=KEY) for _ in range(3)]
    assert len({save[6:38] for save in saves}) == len({save[38:] for save in saves}) == 3
    for save in saves:
        assert ClientSession.restore(save, 1, seal_key=KEY, credentials=identity, keep=IN_MEMORY).save(
            seal_key=None
        ) == client.save(seal_key=None)
    with pytest.raises(DecodeError):
        ServerSession.restore(saves[0], seal_key=KEY, credentials=cohort.directory, keep=IN_MEMORY)
    spliced = saves[0][:38] + saves[1][38:]  # one save's salt before another's ciphertext
    with pytest.raises(DecodeError):
        ClientSession.restore(spliced, 1, seal_key=KEY, credentials=identity, keep=IN_MEMORY)


# ------------------------------------------------------------------------------------------------ 17: hostile sizes

HUGE = 1 << 40
MEMORY = 1 << 20


def bounded(call: Callable[[], object], *errors: type[SecAggError]) -> None:
    """The call is refused, and allocates no more than a mebibyte on the way."""
    tracemalloc.start()
    try:
        with pytest.raises(errors):
            call()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEMORY


def test_17_hostile_sizes_parameters_that_claim_a_trillion_elements_are_refused():
    """Attack: parameters of 2**40 coordinates or 2**32 clients. Defence: ranges are checked first."""
    encoded = parameters("semi-honest").encode()
    bounded(lambda: RoundParams.decode(replaced(encoded, slice(4, 12), HUGE.to_bytes(8, "little"))), ParameterError)
    bounded(lambda: RoundParams.decode(replaced(encoded, slice(0, 4), b"\xff" * 4)), ParameterError)
    bounded(lambda: plan(4, HUGE), ParameterError)


@both_models
def test_17_hostile_sizes_messages_that_claim_more_than_they_hold_are_refused(threat):
    """Attack: a bitmap that claims the largest cohort, with no bodies behind. Defence: lengths come before arrays.

    Nothing on the wire states a length: what a body must measure follows from parameters and sets, and is compared.
    """
    params = plan(4096, 1 << 32, threat=threat)
    identity = identities(range(4096))[1] if threat == "malicious-server" else None
    directory = None if identity is None else identity.directory
    client = ClientSession(params, 1, context=CONTEXT, credentials=identity, keep=IN_MEMORY)
    invitation = ServerSession(params, range(4096), context=CONTEXT, credentials=directory, keep=IN_MEMORY).requests()[
        1
    ]
    client.receive(invitation)
    ids = b"".join(one.to_bytes(8, "little") for one in range(4096))
    for body in (b"", ids, ids + b"\xff" * 512, ids + b"\xff" * 512 + bytes(96)):
        message = from_server(Kind.ROSTER, invitation[16:HEADER_BYTES], body)
        bounded(lambda message=message: client.receive(message), ServerFault)


@both_models
def test_17_hostile_sizes_replies_of_other_lengths_are_refused_unread(threat):
    """Attack: a reply far longer than it should be. Defence: its length is compared before any of it is copied."""
    cohort = cohort_at("advertise_keys", parameters(threat))
    while cohort.server.stage is not None:
        reply = cohort.answer(2, cohort.server.requests()[2])
        longer = np.zeros(1 << 24, dtype=np.uint8)
        longer[: len(reply)] = np.frombuffer(reply, np.uint8)
        before = cohort.server.save(seal_key=None)
        bounded(lambda longer=longer: cohort.server.receive(2, longer), PeerFault)
        bounded(lambda longer=longer: cohort.clients[2].receive(longer), ServerFault)
        assert cohort.server.save(seal_key=None) == before
        cohort.run_stage()


ARRAY = b"A\0"
SAVED = {
    "bytes": b"B" + HUGE.to_bytes(8, "little"),
    "text": b"S" + HUGE.to_bytes(8, "little"),
    "tuple": b"L" + HUGE.to_bytes(8, "little"),
    "array": ARRAY + b"\1" + HUGE.to_bytes(8, "little"),
    "array whose size wraps": ARRAY + b"\2" + (1 << 63).to_bytes(8, "little") * 2,
    "array of nothing by much": ARRAY + b"\3" + bytes(8) + HUGE.to_bytes(8, "little") * 2,
    "dict": b"DL" + HUGE.to_bytes(8, "little"),
}


@pytest.mark.parametrize("body", SAVED.values(), ids=SAVED)
@pytest.mark.parametrize("seal_key", [None, KEY], ids=["clear", "sealed"])
def test_17_hostile_sizes_saved_states_that_claim_a_trillion_elements_are_refused(body, seal_key):
    """Attack: a saved state, right checksum and all, that claims 2**40 of anything. Defence: no more than is there."""
    if seal_key is None:
        checksum = snapshot.digest(snapshot.Label.STATE_CHECKSUM, b"pairwise/client", body)
        saved = b"SAst\x02\x00\x0fpairwise/client" + checksum + body
    else:
        sealed = b"".join(seal_state(seal_key, bytes(32), [body], b"SAst\x02pairwise/client"))
        saved = b"SAst\x02\x01\x0fpairwise/client" + bytes(32) + sealed
    bounded(lambda: ClientSession.restore(saved, 1, seal_key=seal_key, keep=IN_MEMORY), DecodeError)


@both_models
def test_17_hostile_sizes_bitmaps_with_bits_beyond_the_cohort_are_refused(threat):
    """Attack: claim members that the roster does not have. Defence: bits beyond the last client must be zero."""
    params = parameters(threat)
    for stage, at in (("share_keys", 56), ("masked_input", 0), (unmasking(params), 0)):
        cohort = cohort_at(stage, params)
        request = cohort.server.requests()[0]
        beyond = replaced(request, HEADER_BYTES + at, 0xFF)
        bounded(lambda cohort=cohort, beyond=beyond: restored(cohort, 0).receive(beyond), ServerFault)


# --------------------------------------------------------------------------------------- 19a: late and double uploads


@both_models
def test_19a_duplicate_uploads_count_once(threat):
    """Attack: send an upload twice, or a second, different one. Defence: refused; sum and senders change as one."""
    params = parameters(threat)
    cohort = cohort_at("masked_input", params)
    for one, _, reply in exchange(cohort):
        cohort.server.receive(one, reply)
        after = cohort.server.save(seal_key=None)
        assert one not in cohort.server.waiting_for
        for again in (reply, signed(cohort, one, flipped(reply, HEADER_BYTES))):
            with pytest.raises(StaleMessage, match="in already") as caught:
                cohort.server.receive(one, again)
            assert caught.value.client_id == one
            assert cohort.server.save(seal_key=None) == after
    cohort.server.advance()
    while cohort.server.stage is not None:
        cohort.run_stage()
    assert cohort.server.result.total.tolist() == sum_of(params, range(7))


@both_models
def test_19a_late_uploads_are_not_folded_in(threat):
    """Attack: hold an upload back until its masks are asked for. Defence: refused once the stage is closed."""
    params = parameters(threat)
    cohort = cohort_at("masked_input", params)
    replies = {one: reply for one, _, reply in exchange(cohort)}
    late = replies.pop(3)
    for one, reply in replies.items():
        cohort.server.receive(one, reply)
    cohort.server.advance()
    while True:
        before = cohort.server.save(seal_key=None)
        with pytest.raises(StaleMessage) as caught:
            cohort.server.receive(3, late)
        assert caught.value.client_id == 3
        assert cohort.server.save(seal_key=None) == before
        if cohort.server.stage is None:
            break
        cohort.run_stage()
    assert cohort.server.result.survivors == (0, 1, 2, 4, 5, 6)
    assert cohort.server.result.total.tolist() == sum_of(params, (0, 1, 2, 4, 5, 6))


@both_models
def test_19a_late_messages_of_a_client_that_dropped_out_earlier_are_refused(threat):
    """Attack: come back after having been left out. Defence: only whoever was sent a stage's request may answer it."""
    params = parameters(threat)
    cohort = cohort_at("advertise_keys", params)
    late = cohort.answer(5, cohort.server.requests()[5])
    cohort.run_stage({5: "advertise_keys"})
    before = cohort.server.save(seal_key=None)
    with pytest.raises(StaleMessage, match="stage was closed"):
        cohort.server.receive(5, late)
    relabelled = signed(cohort, 5, replaced(late, 6, Kind.ENCRYPTED_SHARES))
    with pytest.raises(StaleMessage, match="dropped out"):
        cohort.server.receive(5, relabelled)
    assert cohort.server.save(seal_key=None) == before
    with pytest.raises(ServerFault):
        cohort.clients[5].receive(cohort.server.requests()[0])
