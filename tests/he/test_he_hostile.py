"""An aggregator, a client or the network that breaks the rules: nothing comes out, and it is said whose fault."""

from __future__ import annotations

import numpy as np
import pytest

import secagg
from federation import DECRYPTOR, Federation, plan, vectors_of
from secagg import IN_MEMORY
from secagg.he.messages import HEKind, ReleaseRequest
from secagg.session.context import context_digest
from secagg.wire import HEADER_BYTES, SERVER, Header

SMALL = secagg.FixedPoint(clip=1.0, bits=8)


@pytest.fixture
def federation() -> Federation:
    return Federation(plan(4, 5, encoding=SMALL, dropout=0.25))


def signed(
    federation: Federation, one: int, body: bytes, *, session: bytes | None = None, kind: int = HEKind.UPLOAD
) -> bytes:
    """An upload with another body, under the client's own signature."""
    header = Header(kind=kind, sender=one, session=session or federation.server.session_id)
    return header.encode() + body + federation.identities[one].sign(header, body)


def body_of(upload: bytes) -> bytes:
    return upload[HEADER_BYTES:-64]


def request(federation: Federation, members: list[bool], digest: bytes = bytes(32)) -> bytes:
    header = Header(kind=HEKind.RELEASE_REQUEST, sender=SERVER, session=federation.server.session_id)
    return header.encode() + ReleaseRequest(members=np.array(members), digest=digest).encode()


def test_the_decryptor_is_no_oracle_for_one_upload(federation):
    upload = federation.upload(0, np.zeros(5))
    federation.send(0, upload)
    with pytest.raises(secagg.TooFewClients, match="have 1, need 3"):
        federation.decryptor.release(request(federation, [True, False, False, False]))
    # Nor for one upload that comes again under other names, or is passed off as another client's
    for one in (1, 2, 3):
        with pytest.raises(secagg.PeerFault, match="another message than its own"):
            federation.decryptor.receive(one, upload)
        forged = Header(kind=HEKind.UPLOAD, sender=one, session=federation.server.session_id).encode()
        with pytest.raises(secagg.PeerFault, match="signature"):
            federation.decryptor.receive(one, forged + upload[HEADER_BYTES:])
    with pytest.raises(secagg.StaleMessage):
        federation.decryptor.receive(0, upload)
    assert federation.decryptor.survivors == (0,)
    assert federation.key.released == 0


def test_an_aggregator_that_leaves_out_adds_or_counts_twice_gets_nothing(federation):
    uploads = [federation.upload(one, np.zeros(5)) for one in range(4)]
    for one, upload in enumerate(uploads):
        federation.decryptor.receive(one, upload)
        if one < 3:
            federation.server.receive(one, upload)
    federation.server.advance()
    with pytest.raises(secagg.ServerFault, match=r"only there \[\], only here \[3\]"):
        federation.decryptor.release(federation.server.party_requests()["decryptor"])
    other = Federation(federation.params)
    other.collect(np.zeros((4, 5)), absent=[3])
    other.server._state.collection.running.residues[0, 0, 0, 0] ^= 1
    other.server.advance()
    with pytest.raises(secagg.ServerFault, match="another one"):
        other.decryptor.release(other.server.party_requests()["decryptor"])
    assert federation.key.released == other.key.released == 0


def test_the_decryptor_answers_once_and_repeats_itself_byte_for_byte(federation):
    late = federation.upload(2, np.zeros(5))
    federation.collect(vectors_of(federation.params), absent=[2])
    federation.server.advance()
    asked = federation.server.party_requests()["decryptor"]
    answer = federation.decryptor.release(asked)
    assert federation.decryptor.release(asked) == answer
    with pytest.raises(secagg.ServerFault, match="second, different request"):
        federation.decryptor.release(request(federation, [True] * 4))
    with pytest.raises(secagg.StaleMessage):
        federation.decryptor.receive(2, late)
    with pytest.raises(secagg.StaleMessage):
        federation.server.receive(2, late)
    assert federation.key.released == 1
    federation.server.receive_from("decryptor", answer)
    with pytest.raises(secagg.LocalProtocolError):
        federation.server.receive_from("decryptor", answer)


def test_uploads_of_other_sessions_contexts_and_keys_are_refused(federation):
    params = federation.params
    again = Federation(params)
    other_context = Federation(params, context=b"model 2")
    other_key = Federation(params, key=secagg.DecryptionKey.generate(params, keep=IN_MEMORY))
    for foreign in (again, other_context, other_key):
        with pytest.raises(secagg.PeerFault, match="another session, key or context"):
            federation.server.receive(0, foreign.upload(0, np.zeros(5)))
    # A client that would encrypt under another key, or for another model, does not even begin
    opening = federation.server.requests()[0]
    for foreign in (other_context, other_key):
        with pytest.raises(secagg.ServerFault, match="another"):
            foreign.client(0).receive(opening)
    assert federation.server.survivors == ()


def test_ciphertexts_of_another_key_in_a_signed_upload_are_found_out(federation):
    """Its maker can do so; the sum is refused, not silently wrong, and the key is retired."""
    stranger = Federation(federation.params, key=secagg.DecryptionKey.generate(federation.params, keep=IN_MEMORY))
    federation.collect(np.zeros((4, 5)), absent=[1])
    federation.send(1, signed(federation, 1, body_of(stranger.upload(1, np.zeros(5)))))
    federation.server.advance()
    with pytest.raises(secagg.InconsistentSum, match="noisier"):
        federation.decryptor.release(federation.server.party_requests()["decryptor"])
    with pytest.raises(secagg.LocalProtocolError, match="the key was retired"):
        federation.decryptor.release(federation.server.party_requests()["decryptor"])
    assert federation.key.retired
    with pytest.raises(secagg.LocalProtocolError, match="retired"):
        Federation(federation.params, key=federation.key)


@pytest.mark.parametrize("change", ["shorter", "longer", "empty", "residue", "transparent", "kind", "session"])
def test_malformed_uploads_are_their_senders_fault_and_change_nothing(federation, change):
    body = body_of(federation.upload(0, np.zeros(5)))
    before = federation.server._state.collection.running.residues.copy()
    alter = {
        "shorter": lambda: signed(federation, 0, body[:-1]),
        "longer": lambda: signed(federation, 0, body + b"\0"),
        "empty": lambda: signed(federation, 0, b""),
        "residue": lambda: signed(federation, 0, b"\xff" * len(body)),
        "transparent": lambda: signed(federation, 0, body[: len(body) // 2] + bytes(len(body) // 2)),
        "kind": lambda: signed(federation, 0, body, kind=HEKind.OPENING),
        "session": lambda: signed(federation, 0, body, session=bytes(32)),
    }
    for side in (federation.server, federation.decryptor):
        with pytest.raises(secagg.PeerFault) as fault:
            side.receive(0, alter[change]())
        assert fault.value.client_id == 0
        assert side.survivors == ()
    assert (federation.server._state.collection.running.residues == before).all()
    federation.send(0, signed(federation, 0, body))


def test_who_is_not_in_the_directory_or_lies_about_it_is_refused(federation):
    upload = federation.upload(0, np.zeros(5))
    with pytest.raises(secagg.PeerFault, match="not in the directory"):
        federation.server.receive(9, upload)
    with pytest.raises(secagg.InputError):
        federation.server.receive("0", upload)
    for junk in (b"", b"SAgg", bytes(48), upload[:47]):
        with pytest.raises(secagg.PeerFault):
            federation.server.receive(0, junk)
    for mistaken in (memoryview(upload)[::2], 5):
        with pytest.raises(secagg.InputError, match="contiguous buffer"):
            federation.server.receive(0, mistaken)
    with pytest.raises(secagg.InputError, match="must not be one of the clients"):
        secagg.DecryptorSession(
            federation.params,
            secagg.DecryptionKey.generate(federation.params, keep=IN_MEMORY),
            federation.directory,
            signing_key=federation.identities[0].key,
            context=federation.context,
            keep=IN_MEMORY,
        )


def test_a_client_answers_one_opening_and_submits_once(federation):
    client = federation.clients[0]
    with pytest.raises(secagg.LocalProtocolError):
        client.submit(np.zeros(5))
    opening = federation.server.requests()[0]
    client.receive(opening)
    reply = client.submit(np.zeros(5))
    assert client.receive(opening).payload == reply.payload
    with pytest.raises(secagg.LocalProtocolError):
        client.submit(np.ones(5))
    second = Federation(federation.params).server.requests()[0]
    with pytest.raises(secagg.ServerFault, match="second, different OPENING"):
        client.receive(second)
    altered = bytearray(opening)
    altered[60] ^= 1
    with pytest.raises(secagg.ServerFault):
        federation.client(1).receive(bytes(altered))


def test_an_opening_or_a_release_of_anybody_else_is_refused(federation):
    impostor = secagg.SigningKey(bytes(32))
    with pytest.raises(secagg.DecodeError, match="signature"):
        federation.new_server(credentials=federation.server_credentials(decryptor=impostor.public))
    with pytest.raises(secagg.DecodeError, match="signature"):
        secagg.PublicKey.open(federation.key.public.message(impostor), federation.params, DECRYPTOR.public)
    other = plan(4, 5, encoding=SMALL, dropout=0.25, releases=7)
    with pytest.raises(secagg.DecodeError, match="other parameters"):
        secagg.PublicKey.open(federation.key.public.message(DECRYPTOR), other, DECRYPTOR.public)
    federation.collect(np.zeros((4, 5)))
    federation.server.advance()
    answer = bytearray(federation.decryptor.release(federation.server.party_requests()["decryptor"]))
    for at in (0, 6, 20, HEADER_BYTES, len(answer) - 1):
        answer[at] ^= 1
        with pytest.raises(secagg.ServerFault):
            federation.server.receive_from("decryptor", bytes(answer))
        answer[at] ^= 1
    federation.server.receive_from("decryptor", bytes(answer))


def test_where_clients_hold_the_key_each_decrypts_one_sum_of_enough_uploads():
    params = plan(4, 5, encoding=SMALL, dropout=0.25, key_holder="clients")
    federation = Federation(params)
    with pytest.raises(secagg.ServerFault):  # before anything was sent
        federation.clients[0].receive(bytes(48))
    federation.collect(np.zeros((4, 5)))
    sums = federation.server.advance()
    few = bytearray(sums[0])
    few[HEADER_BYTES] = 0b0001
    with pytest.raises(secagg.TooFewClients):
        federation.clients[0].receive(bytes(few))
    few[HEADER_BYTES] = 0b1110
    with pytest.raises(secagg.ServerFault, match="leaves this client's upload out"):
        federation.clients[0].receive(bytes(few))
    federation.clients[0].receive(sums[0])
    few[HEADER_BYTES] = 0b0111
    with pytest.raises(secagg.ServerFault, match="second, different ENCRYPTED_SUM"):
        federation.clients[0].receive(bytes(few))
    assert federation.clients[0].receive(sums[0]) == secagg.ResultReady()
    assert federation.key.released == 1
    assert federation.server.parties == ()
    assert federation.server.party_requests() == {}


def test_a_sum_that_a_client_refused_stays_refused():
    params = plan(3, 5, encoding=SMALL, key_holder="clients")
    stranger = Federation(params, key=secagg.DecryptionKey.generate(params, keep=IN_MEMORY))
    federation = Federation(params)
    federation.collect(np.zeros((3, 5)), absent=[1])
    federation.send(1, signed(federation, 1, body_of(stranger.upload(1, np.zeros(5)))))
    sums = federation.server.advance()
    with pytest.raises(secagg.InconsistentSum):
        federation.clients[0].receive(sums[0])
    with pytest.raises(secagg.LocalProtocolError, match="the key was retired"):
        federation.clients[0].receive(sums[0])
    with pytest.raises(secagg.LocalProtocolError, match="decrypted no sum"):
        _ = federation.clients[0].result
    # Others with the same key object find it retired before they touch anything
    with pytest.raises(secagg.LocalProtocolError, match="retired"):
        federation.clients[2].receive(sums[2])
    assert federation.clients[2].stage == "release"


@pytest.mark.parametrize("key_holder", ["decryptor", "clients"])
def test_an_empty_context_is_refused_by_every_party(key_holder):
    params = plan(3, 5, encoding=SMALL, key_holder=key_holder)
    right = Federation(params)
    brought = right.client_credentials(0)
    parties = [
        lambda **given: secagg.ClientSession(params, 0, credentials=brought, **given, keep=IN_MEMORY),
        lambda **given: secagg.ServerSession(
            params, right.directory, credentials=right.server_credentials(), **given, keep=IN_MEMORY
        ),
    ]
    if key_holder == "decryptor":
        parties.append(
            lambda **given: secagg.DecryptorSession(
                params, right.key, right.directory, signing_key=DECRYPTOR, **given, keep=IN_MEMORY
            )
        )
    for build in parties:
        with pytest.raises(secagg.InputError, match="pass a hash of the model"):
            build(context=b"")
        with pytest.raises(secagg.InputError, match="context must be bytes"):
            build(context="model 1")
        with pytest.raises(secagg.InputError, match="context is empty"):
            build()
    vectors = np.zeros((3, 5))
    with pytest.raises(secagg.InputError, match="context is empty"):
        secagg.simulate(vectors, params=params, context=b"")
    assert secagg.simulate(vectors, params=params).survivors == (0, 1, 2)


@pytest.mark.parametrize("pin", [b"short", bytes(32), b"\x02" + bytes(31), None, "text"])
def test_a_pin_that_is_no_key_is_refused_where_it_is_given(pin):
    federation = Federation(plan(2, 3))
    message = federation.key.public.message(DECRYPTOR)
    for build in (
        lambda: secagg.PublicKey.open(message, federation.params, pin),
        lambda: federation.client(0, credentials=federation.client_credentials(0, decryptor=pin)),
        lambda: federation.new_server(credentials=federation.server_credentials(decryptor=pin)),
    ):
        with pytest.raises(secagg.InputError, match="decryptor"):
            build()


def test_saved_parties_with_an_empty_context_are_not_restored():
    federation = Federation(plan(2, 3))
    empty = context_digest(b"")
    for party in (federation.server, federation.decryptor, federation.clients[0]):
        party._context = empty
    client = federation.clients[0]
    for restore in (
        lambda: federation.restored_server(federation.server.save(seal_key=None)),
        lambda: federation.restored_decryptor(federation.decryptor.save(seal_key=None)),
        lambda: federation.restored_client(0, client.save(seal_key=None)),
    ):
        with pytest.raises(secagg.DecodeError, match="empty context"):
            restore()
