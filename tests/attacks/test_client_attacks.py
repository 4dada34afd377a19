"""What corrupt clients try: shares at other indices, forged shares, sums that wrap, bad vectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cohort import plan
from plays import (
    THREATS,
    cohort_at,
    exchange,
    flipped,
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
    FixedPoint,
    InconsistentSum,
    InputError,
    InputNeeded,
    ParameterError,
    PeerFault,
    simulate,
)
from secagg.pairwise import commitments
from secagg.pairwise.messages import FORMATS
from secagg.primitives import shamir
from secagg.wire import HEADER_BYTES

both_models = pytest.mark.parametrize("threat", THREATS)


# ---------------------------------------------------------------- 9: share index 0, doubled, out of range, another's


@both_models
def test_09_share_index_is_the_holders_roster_position_and_no_other(threat):
    """Attack: hold the share at another index, at 0 the secret itself. Defence: points are positions plus one."""
    params = parameters(threat)
    cohort = cohort_at(unmasking(params), params)
    secret = cohort_at("share_keys", params).clients[2]._state.seed
    holders = [one for one in range(7) if one != 2][: params.threshold]
    shares = np.stack([cohort.clients[one]._state.shares[2 - (one < 2), 1, :40] for one in holders])[:, None]
    points = np.array(holders, dtype=np.uint64) + np.uint64(1)
    assert shamir.reconstruct(points, shares) == [secret]
    assert points.min() > 0
    for bad in ([0, *points[1:]], [points[1], *points[1:]], [shamir.MODULUS, *points[1:]]):
        with pytest.raises(InputError):
            shamir.reconstruct(np.array(bad, dtype=np.uint64), shares)
        with pytest.raises(InputError):
            shamir.share([secret], threshold=2, points=np.array(bad, dtype=np.uint64))


@both_models
def test_09_share_index_more_fewer_or_other_shares_than_neighbours_are_refused(threat):
    """Attack: deal or release for more peers than there are, or fewer. Defence: counts follow from roster and graph."""
    params, form = parameters(threat), FORMATS[threat]
    for stage, size in (("share_keys", form.dealt_bytes), ("unmask", form.release_bytes)):
        cohort = cohort_at(stage, params)
        reply = cohort.answer(2, cohort.server.requests()[2])
        before = cohort.server.save(seal_key=None)
        end = len(reply) - form.signature_bytes
        first = reply[HEADER_BYTES : HEADER_BYTES + size]
        for body in (b"", first, reply[HEADER_BYTES : end - size], reply[HEADER_BYTES:end] + first):
            forged = signed(cohort, 2, reply[:HEADER_BYTES] + body + reply[end:])
            with pytest.raises(PeerFault, match="bytes of body") as caught:
                cohort.server.receive(2, forged)
            assert caught.value.client_id == 2
            assert cohort.server.save(seal_key=None) == before
        cohort.server.receive(2, reply)


def test_09_share_index_shares_released_in_anothers_place_name_their_holder():
    """Attack: release the shares of two dealers in each other's place. Defence: commitments name dealer and holder."""
    params = parameters("malicious-server")
    cohort = cohort_at("unmask", params)
    reply, size = cohort.answer(2, cohort.server.requests()[2]), FORMATS[params.threat].release_bytes
    first, second = (slice(HEADER_BYTES + size * at, HEADER_BYTES + size * (at + 1)) for at in (0, 1))
    swapped = replaced(replaced(reply, first, reply[second]), second, reply[first])
    with pytest.raises(PeerFault, match="not the one committed to") as caught:
        cohort.server.receive(2, signed(cohort, 2, swapped))
    assert (caught.value.client_id, caught.value.proof) == (2, True)


# ------------------------------------------------------------------------------------------------ 10: a forged share


def test_10_forged_release_is_refused_its_sender_proved_and_the_sum_still_exact():
    """Attack: a holder releases a forged share. Defence: the dealer's commitment shows it; t honest ones suffice."""
    params = parameters("malicious-server", 8)
    cohort = cohort_at("unmask", params)
    replies = {one: reply for one, _, reply in exchange(cohort)}
    with pytest.raises(PeerFault, match="not the one committed to") as caught:
        cohort.server.receive(2, signed(cohort, 2, flipped(replies[2], HEADER_BYTES)))
    assert (caught.value.client_id, caught.value.proof, caught.value.stage) == (2, True, "unmask")
    assert caught.value.evidence.convict(cohort.server.transcript()) == 2
    for one in (0, 1, 3, 4, 5, 6):
        cohort.server.receive(one, replies[one])
    cohort.server.advance()
    assert cohort.server.result.total.tolist() == sum_of(params, range(8))
    assert cohort.server.result.dropped == {2: "unmask", 7: "unmask"}


def test_10_forged_release_of_the_other_kind_or_with_another_salt_is_refused():
    """Attack: release the wrong kind, or a forged salt. Defence: the commitment is to kind, salt and whole share."""
    params = parameters("malicious-server")
    records = cohort_at(unmasking(params), params).clients[2]._state.shares
    cohort = cohort_at("unmask", params)
    reply = cohort.answer(2, cohort.server.requests()[2])
    forgeries = [flipped(reply, HEADER_BYTES + at) for at in (40, 55, 56)]
    other_kind = slice(HEADER_BYTES, HEADER_BYTES + 56)
    assert reply[other_kind] == records[0, 1].tobytes()
    forgeries.append(replaced(reply, other_kind, records[0, 0].tobytes()))
    for forged in forgeries:
        with pytest.raises(PeerFault, match="not the one committed to"):
            cohort.server.receive(2, signed(cohort, 2, forged))


def test_10_forged_share_without_commitments_is_noticed_and_the_sum_withheld():
    """Attack: the same without commitments. Defence: rebuilt secrets are checked; no sum, and a suspicion, no proof."""
    cohort = cohort_at("unmask", parameters("semi-honest"))
    for one, _, reply in exchange(cohort):
        cohort.server.receive(one, flipped(reply, HEADER_BYTES) if one == 2 else reply)
    with pytest.raises(PeerFault, match="do not rebuild what it advertised") as caught:
        cohort.server.advance()
    assert not caught.value.proof
    assert cohort.server.stage == "unmask"


@both_models
def test_10_forged_share_outside_its_field_is_refused(threat):
    """Attack: release a word that is no field element. Defence: every word of every share is checked."""
    cohort = cohort_at("unmask", parameters(threat))
    reply = cohort.answer(2, cohort.server.requests()[2])
    for word in (shamir.MODULUS, (1 << 64) - 1):
        where = slice(HEADER_BYTES + 32, HEADER_BYTES + 40)
        with pytest.raises(PeerFault):
            cohort.server.receive(2, signed(cohort, 2, replaced(reply, where, word.to_bytes(8, "little"))))


@both_models
def test_10_off_polynomial_dealer_is_named_and_the_round_aborts(threat, monkeypatch):
    """Attack: a dealer's shares lie on no one polynomial. Defence: what they rebuild was not advertised; no sum."""
    params = parameters(threat)
    cohort = cohort_at("share_keys", params)
    honest = shamir.share

    def off_polynomial(secrets, **arguments):
        shares = honest(secrets, **arguments)
        shares[1, :, 0] ^= 1  # one neighbour's shares lie on another polynomial; commitments are to them
        return shares

    for one, request in cohort.server.requests().items():
        with monkeypatch.context() as patch:
            if one == 4:
                patch.setattr("secagg.pairwise.client_steps.share", off_polynomial)
            cohort.server.receive(one, cohort.answer(one, request))
    cohort.server.advance()
    while cohort.server.stage != "unmask":
        cohort.run_stage()
    for one, _, reply in exchange(cohort):
        cohort.server.receive(one, reply)
    with pytest.raises(PeerFault, match="do not rebuild") as caught:
        cohort.server.advance()
    assert (caught.value.client_id, caught.value.proof) == (4, threat == "malicious-server")
    # Where no commitment rules it out, a holder may be to blame, and the message says so
    assert ("or a holder" in str(caught.value)) == (threat == "semi-honest")


def test_10_forged_commitments_that_would_frame_a_holder_are_refused_by_it():
    """Attack: dealer or server make a holder's true share look forged. Defence: it checks before it masks."""
    params = parameters("malicious-server")
    cohort = cohort_at("masked_input", params)
    request, row = cohort.server.requests()[0], row_at(params, 0)
    sealed = FORMATS[params.threat].sealed_bytes
    framed = [flipped(request, row.start + sealed + at) for at in (0, 32, 64)]  # either commitment, the signature
    other = cohort.server.requests()[2][row_at(params, 1)]  # what the dealer signed for another holder
    framed.append(replaced(request, slice(row.start + sealed, row.stop), other[sealed:]))
    for one in framed:
        with pytest.raises(PeerFault, match="are refused") as caught:
            cohort.clients[0].receive(one)
        assert (caught.value.client_id, caught.value.proof) == (1, False)
    cohort.answer(0, request)


def test_10_forged_commitments_that_their_dealer_signed_are_refused_too(monkeypatch):
    """Attack: a dealer signs commitments to shares that it did not deal. Defence: the recipient opens them itself."""
    cohort = cohort_at("share_keys", parameters("malicious-server"))
    honest = commitments.commitment
    for one, request in cohort.server.requests().items():
        with monkeypatch.context() as patch:
            if one == 1:
                patch.setattr(commitments, "commitment", lambda *bound: honest(*bound[:-1], bytes(56)))
            cohort.server.receive(one, cohort.answer(one, request))
    cohort.server.advance()
    for one, request in cohort.server.requests().items():
        if one != 1:
            with pytest.raises(PeerFault, match="differs from its dealer's commitment") as caught:
                cohort.answer(one, request)
            assert (caught.value.client_id, caught.value.proof) == (1, False)


# --------------------------------------------------------------------------------------------- 11: the sum wraps


@both_models
@pytest.mark.parametrize("end", [-1, 1])
def test_11_wrap_extremes_at_the_largest_cohort_that_fits_the_ring(threat, end):
    """Attack: everybody's inputs at the same end of the range. Defence: no cohort is built whose sum could wrap."""
    clients, ring_bits = 13, 10
    shape = {"encoding": FixedPoint(clip=7.5, bits=4), "max_weight": 5, "threat": threat, "ring_bits": ring_bits}
    params = plan(clients, 4, **shape)
    assert clients * 5 * 15 < 1 << ring_bits <= (clients + 1) * 5 * 15
    with pytest.raises(ParameterError, match="would wrap in a ring of 10 bits; the smallest width that works is 11"):
        plan(clients + 1, 4, **shape)
    with pytest.raises(ParameterError, match="would wrap"):
        replace(params, max_weight=6)
    result = simulate([np.full(4, end * 7.5)] * clients, params=params, weights=[5] * clients)
    assert result.total.tolist() == [clients * 5 * 15 if end > 0 else 0] * 4
    assert result.weight == clients * 5
    assert result.mean.tolist() == [end * 7.5] * 4


def test_11_wrap_extremes_at_the_widest_ring():
    """Attack: the largest codes and weights that there are. Defence: 64 bits hold them, and 65 are refused."""
    widest = FixedPoint(clip=2.0**31 - 0.5, bits=32)
    params = plan(16, 4, encoding=widest, max_weight=1 << 28)
    assert params.ring_bits == 64
    result = simulate([np.full(4, widest.clip)] * 16, params=params, weights=[1 << 28] * 16)
    assert result.total.tolist() == [16 * (1 << 28) * ((1 << 32) - 1)] * 4
    with pytest.raises(ParameterError, match="need a ring of 65 bits"):
        plan(17, 4, encoding=widest, max_weight=1 << 28)


@both_models
def test_11_wrap_values_beyond_the_range_are_clipped_and_weights_refused(threat):
    """Attack: a caller's vector or weight out of range. Defence: coordinates are cut at the clip, weights refused."""
    params = parameters(threat, 4, max_weight=3)
    result = simulate([np.array([1e30, -1e30, 127.6])] * 4, params=params, weights=[3] * 4)
    assert result.total.tolist() == [12 * 255, 0, 12 * 255]
    for weight in (0, 4, -1, 1 << 70):
        with pytest.raises(InputError, match="weight"):
            simulate(np.zeros((4, 3)), params=params, weights=[3, 3, 3, weight])


def test_11_wrap_an_upload_that_no_honest_client_makes_is_noticed_where_the_sum_shows_it():
    """Attack: add a huge weight behind the masks. Defence: the sum is range-checked, and withheld."""
    cohort = cohort_at("masked_input", parameters("semi-honest"))
    for one, _, reply in exchange(cohort):
        last = len(reply) - 1
        top = 1 << (4 * cohort.params.ring_bits - 1) % 8  # the weight's highest bit
        cohort.server.receive(one, flipped(reply, last, top) if one == 2 else reply)
    cohort.server.advance()
    for one, _, reply in exchange(cohort):
        cohort.server.receive(one, reply)
    with pytest.raises(InconsistentSum):
        cohort.server.advance()


# --------------------------------------------------------------------------------------------- 16: malformed vectors

READY = {}
for _threat in THREATS:
    _cohort = cohort_at("masked_input", parameters(_threat))
    assert isinstance(_cohort.clients[2].receive(_cohort.server.requests()[2]), InputNeeded)
    READY[_threat] = _cohort
VECTOR = np.array([1.0, -2.0, 3.0])

any_array = st.one_of(
    arrays.arrays(
        dtype=st.one_of(arrays.floating_dtypes(endianness="?"), arrays.scalar_dtypes()),
        shape=arrays.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4),
    ),
    arrays.arrays(dtype=st.sampled_from(["<f8", ">f8", "<f4", ">f4"]), shape=(3,)),
    arrays.arrays(dtype=np.float64, shape=(6,)).map(lambda wide: wide[::2]),
    arrays.arrays(dtype=np.float64, shape=(3,)).map(np.ma.masked_invalid),
    st.sampled_from([None, 3, "123", [1.0, 2.0, 3.0], (1, 2, 3), b"\0" * 24]),
)
any_weight = st.one_of(st.integers(-2, 3), st.sampled_from([1 << 65, 1.0, True, None, "1", np.int8(1), np.float64(1)]))


@given(vector=any_array, weight=any_weight, threat=st.sampled_from(THREATS))
@settings(max_examples=200)
@example(vector=np.array([0.0, np.nan, 0.0]), weight=1, threat="malicious-server")
@example(vector=np.array([np.inf, -np.inf, 0.0], dtype=np.float32), weight=1, threat="semi-honest")
def test_16_malformed_vectors_change_nothing_and_good_ones_are_taken_as_they_are(vector, weight, threat):
    """Attack: any dtype, byte order, shape, stride or value. Defence: checked before any state changes.

    What is taken is a float32 or float64 array of d finite values and a weight in range, and means what it says.
    """
    client = restored(READY[threat], 2)
    before = client.save(seal_key=None)
    plain = isinstance(vector, np.ndarray) and not isinstance(vector, np.ma.MaskedArray)
    good = plain and vector.dtype.type in (np.float32, np.float64) and vector.shape == (3,)
    good = good and bool(np.isfinite(vector).all()) and type(weight) in (int, np.int8) and weight == 1
    if not good:
        with pytest.raises(InputError):
            client.submit(vector, weight)
        assert client.save(seal_key=None) == before
        assert client.stage == "masked_input"
        vector = VECTOR
    fixed = np.random.default_rng(0).bytes(24)
    as_given, native = (
        ClientSession.restore(
            before,
            2,
            credentials=READY[threat].identities.get(2),
            randomness=lambda length: fixed[:length],
            keep=IN_MEMORY,
        )
        for _ in range(2)
    )
    plainly = np.array(vector.tolist(), dtype=np.float64)
    assert as_given.submit(vector).payload == native.submit(plainly).payload


@both_models
def test_16_malformed_uploads_are_refused_before_anything_is_added(threat):
    """Attack: an upload of another length, or with a padding bit set. Defence: checked before anything is added."""
    params = parameters(threat, 7, 2)
    assert 3 * params.ring_bits % 8
    cohort = cohort_at("masked_input", params)
    replies = {one: reply for one, _, reply in exchange(cohort)}
    size, before = -(-3 * params.ring_bits // 8), cohort.server.save(seal_key=None)
    end = len(replies[2])
    for forged in (
        flipped(replies[2], HEADER_BYTES + size - 1, 0x80),
        replies[2][: HEADER_BYTES + 1] + replies[2][HEADER_BYTES + 2 :],
        replies[2][: HEADER_BYTES + size] + b"\0" + replies[2][HEADER_BYTES + size : end],
    ):
        with pytest.raises(PeerFault):
            cohort.server.receive(2, signed(cohort, 2, forged))
        assert cohort.server.save(seal_key=None) == before
