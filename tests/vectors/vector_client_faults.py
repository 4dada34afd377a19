"""Failing vectors of clients: what a lying server, or a peer through it, sends; used by ``generate.py``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from secagg.identity import commitments_statement
from secagg.pairwise.identifiers import channel_keys, consistency_digest, share_aad
from secagg.pairwise.messages import Kind
from secagg.primitives.aead import seal_once
from secagg.primitives.agreement import AgreementKey
from secagg.wire import HEADER_BYTES, Header
from vector_faults import (
    DEALT,
    ENTRY,
    INPUT,
    LOCAL,
    LOW_ORDER,
    OK,
    P61,
    SERVER_FAULT,
    Collection,
    Operation,
    bitmap,
    call,
    entry,
    flip,
    peer,
    put,
    receive,
    replied,
    server_message,
    too_few,
    use_beacon,
)
from vector_rounds import Plan, Round

# --------------------------------------------------------------------------- what reaches a client, semi-honest


def client_vectors(rounds: Mapping[str, Round]) -> dict[str, object]:
    made = Collection(rounds)
    _client_headers(made, rounds["semi-honest-complete-3"], rounds["semi-honest-complete-6"])
    _client_rosters(made, rounds["semi-honest-complete-3"], rounds["semi-honest-complete-6"])
    _client_sparse_rosters(made, rounds["semi-honest-harary-40"])
    _client_shares(made, rounds["semi-honest-complete-6"])
    _corrupt_shares(made, rounds["semi-honest-complete-3"])
    _client_inputs(made, rounds["semi-honest-complete-3"])
    _client_unmasking(made, rounds["semi-honest-complete-6"])
    return made.document("what a lying server or a lying peer sends to a client in the semi-honest model")


def _client_headers(made: Collection, small: Round, other: Round) -> None:
    good = small.request(Kind.INVITATION, 10)
    own = small.reply(Kind.KEY_ADVERTISEMENT, 10)
    for name, what, payload in (
        ("empty", "no byte at all", b""),
        ("short-header", "a header without its last byte", good[:47]),
        ("magic", "another magic", flip(good, 0)),
        ("version", "version 2", put(good, 4, b"\2")),
        ("suite", "suite 2", put(good, 5, b"\2")),
        ("unknown-kind", "kind 10", put(good, 6, b"\x0a")),
        ("reserved-byte", "the reserved byte is not zero", put(good, 7, b"\1")),
        ("sender", "the sender is a client", put(good, 8, bytes(8))),
        ("own-reply", "a client's message comes back", own),
        ("invitation-short", "an invitation's nonce without its last byte", good[:-1]),
        ("invitation-long", "an invitation with one byte too many", good + b"\0"),
        ("invitation-nonce", "an invitation whose round is not that of its nonce", flip(good, -1)),
        ("invitation-round", "an invitation to another round identifier", flip(good, 16)),
        ("invitation-parameters", "an invitation to a round of other parameters", other.request(Kind.INVITATION, 0)),
        ("early-roster", "a roster before the invitation", small.request(Kind.ROSTER, 10)),
    ):
        made.client(f"client-{name}", what, small, 10, "Idle", receive(payload, SERVER_FAULT))
    made.client(
        "client-second-invitation",
        "another invitation after one was answered, also after a restart; the answered one gets the same bytes",
        small,
        10,
        "Advertised",
        receive(flip(good, -1), SERVER_FAULT),
        call("restart", OK),
        receive(flip(good, -1), SERVER_FAULT),
        receive(Kind.INVITATION.name, replied("KEY_ADVERTISEMENT from 10")),
    )


def _client_rosters(made: Collection, small: Round, gaps: Round) -> None:
    good = small.request(Kind.ROSTER, 20)
    ids, bits = HEADER_BYTES, HEADER_BYTES + 8 * 3
    first, own = entry(small, 0), entry(small, 1)
    two = put(good, bits, b"\5")
    for name, what, payload, expect in (
        ("session", "the header bears another round", flip(good, 47), SERVER_FAULT),
        ("short", "the last byte is missing", good[:-1], SERVER_FAULT),
        ("torn", "the body ends within the first id", good[: HEADER_BYTES + 5], SERVER_FAULT),
        ("long", "one byte too many", good + b"\0", SERVER_FAULT),
        (
            "ids-descend",
            "ids are not ascending",
            put(good, ids, good[ids + 8 : ids + 16] + good[ids : ids + 8]),
            SERVER_FAULT,
        ),
        ("ids-repeat", "an id stands twice", put(good, ids, good[ids + 8 : ids + 16]), SERVER_FAULT),
        ("server-id", "an id is the server's", put(good, ids + 16, b"\xff" * 8), SERVER_FAULT),
        ("unused-bit", "an unused bit of the bitmap is set", flip(good, bits, 0x80), SERVER_FAULT),
        ("stranger", "this client's id is another", put(good, ids + 8, (21).to_bytes(8, "little")), SERVER_FAULT),
        ("left-out", "this client is not in U1", two[:own] + two[own + 96 :], SERVER_FAULT),
        ("altered", "this client's commitment is altered", flip(good, own + 95), SERVER_FAULT),
        ("channel-key-twice", "its channel key is a peer's too", put(good, first, good[own : own + 32]), SERVER_FAULT),
        (
            "mask-key-as-channel-key",
            "its mask key is a peer's channel key",
            put(good, first, good[own + 32 : own + 64]),
            SERVER_FAULT,
        ),
        ("not-canonical", "a peer's key has its top bit set", flip(good, first + 31, 0x80), SERVER_FAULT),
        (
            "not-reduced",
            "a peer's key is 2^255 - 18",
            put(good, first, (2**255 - 18).to_bytes(32, "little")),
            SERVER_FAULT,
        ),
        ("low-order", "a peer's channel key is of low order", put(good, first, LOW_ORDER), peer(10)),
        ("zero-key", "a peer's channel key is zero", put(good, first, bytes(32)), peer(10)),
    ):
        operation = receive(payload, expect)
        if name in ("low-order", "zero-key"):
            operation["randomness"] = ["5a" * 80]
        made.client(f"client-roster-{name}", what, small, 20, "Advertised", operation)
    few = put(good, bits, b"\6")
    made.client(
        "client-roster-too-few",
        "fewer than S advertised",
        small,
        20,
        "Advertised",
        receive(few[:first] + few[own:], too_few(2, 3)),
    )
    made.client(
        "client-second-roster",
        "another roster after one was answered, also after a restart",
        small,
        20,
        "Shared",
        receive(flip(good, first), SERVER_FAULT),
        call("restart", OK),
        receive(flip(good, first), SERVER_FAULT),
        receive("ROSTER", replied("ENCRYPTED_SHARES from 20")),
    )
    made.client(
        "client-delivered",
        "a request comes again after its reply was dropped as delivered",
        small,
        20,
        "Shared",
        call("delivered", OK),
        receive("ROSTER", SERVER_FAULT),
    )
    one, good = 2**32, gaps.request(Kind.ROSTER, 2**32)
    at = HEADER_BYTES + 8 * 6
    made.client(
        "client-roster-hidden-joiner",
        "U1 holds one whose entry is missing",
        gaps,
        one,
        "Advertised",
        receive(flip(good, at, 2), SERVER_FAULT),
    )


def _client_sparse_rosters(made: Collection, sparse: Round) -> None:
    one = sparse.plan.traced[0]
    good = sparse.request(Kind.ROSTER, one)
    row = sparse.graph[sparse.position(one)]
    start = len(good) - 4 * len(row)
    for name, what, neighbours in (
        ("own-neighbour", "a client is its own neighbour", sorted([sparse.position(one), *row[1:]])),
        ("descending", "neighbours descend", row[::-1]),
        ("repeated", "a neighbour stands twice", [row[0], *row[:-1]]),
        ("out-of-range", "a neighbour stands nowhere", [*row[:-1], 40]),
        ("missing", "one neighbour fewer than agreed", row[:-1]),
    ):
        packed = b"".join(position.to_bytes(4, "little") for position in neighbours)
        made.client(
            f"client-neighbours-{name}", what, sparse, one, "Advertised", receive(good[:start] + packed, SERVER_FAULT)
        )


def _client_shares(made: Collection, gaps: Round) -> None:
    one, state = 2**32, "Shared"
    good = gaps.request(Kind.RELAYED_SHARES, one)
    body = HEADER_BYTES + 1
    first, second = good[body : body + 96], good[body + 96 : body + 192]
    for name, what, payload, expect in (
        ("session", "the header bears another session", flip(good, 47), SERVER_FAULT),
        ("short", "the last byte is missing", good[:-1], SERVER_FAULT),
        ("long", "one byte too many", good + b"\0", SERVER_FAULT),
        ("unused-bit", "an unused bit of U2 is set", flip(good, HEADER_BYTES, 0x80), SERVER_FAULT),
        ("left-out", "this client is not in U2", flip(good, HEADER_BYTES, 8), SERVER_FAULT),
        ("joiner", "U2 holds one that never advertised", flip(good, HEADER_BYTES, 2), SERVER_FAULT),
        ("swapped", "two peers' ciphertexts change places", put(good, body, second + first), peer(0)),
        ("damaged", "the tag of the second ciphertext is damaged", flip(good, body + 191), peer(256)),
        (
            "too-few",
            "U2 is below S",
            server_message(gaps, Kind.RELAYED_SHARES, bitmap(gaps, [0, one]) + first),
            too_few(2, 3),
        ),
    ):
        made.client(f"client-shares-{name}", what, gaps, one, state, receive(payload, expect))
    made.client(
        "client-early-survivors",
        "the survivors are announced before shares are relayed",
        gaps,
        one,
        state,
        receive(Kind.UNMASK_REQUEST.name, SERVER_FAULT),
    )
    fewer = server_message(gaps, Kind.RELAYED_SHARES, bitmap(gaps, [0, 256, one]) + first + second)
    made.client(
        "client-second-shares",
        "another U2 after one was taken, also after a restart; the input is still awaited",
        gaps,
        one,
        "Ready",
        receive(fewer, SERVER_FAULT),
        call("restart", OK),
        receive(fewer, SERVER_FAULT),
        receive(f"RELAYED_SHARES to {one}", OK | {"answer": "input_needed"}),
    )


def _sealed_by(round_: Round, dealer: int, holder: int, records: bytes) -> bytes:
    """Seal records as a dealer would, with its own channel key."""
    i, j, session = round_.position(dealer), round_.position(holder), round_.session_id
    public = round_.reply(Kind.KEY_ADVERTISEMENT, holder)[HEADER_BYTES : HEADER_BYTES + 32]
    shared = AgreementKey.from_bytes(round_.channel_secret(dealer)).exchange(public)
    sealing_key, _ = channel_keys(shared, session, i, j)
    return seal_once(sealing_key, records, share_aad(session, Kind.ENCRYPTED_SHARES, i, j))


def _corrupt_shares(made: Collection, small: Round) -> None:
    good = small.request(Kind.RELAYED_SHARES, 10)
    start = HEADER_BYTES + 1
    records = small.opened["10"][0].tobytes()  # what 20 dealt to 10
    assert good[start : start + 96] == _sealed_by(small, 20, 10, records)
    for name, what, at in (
        ("mask-key-share-not-in-field", "a word of the mask key's share is 2^61 - 1", 0),
        ("seed-share-not-in-field", "a word of the seed's share is 2^61 - 1", 72),
    ):
        sealed = _sealed_by(small, 20, 10, put(records, at, P61.to_bytes(8, "little")))
        made.client(
            f"client-{name}",
            f"{what}, sealed by its dealer",
            small,
            10,
            "Shared",
            receive(put(good, start, sealed), peer(20)),
        )


def _client_inputs(made: Collection, small: Round) -> None:
    vector, weight = small.vectors[20], str(small.weights[20])

    def submit(values: object, of_weight: str, expect: Mapping[str, object]) -> Operation:
        operation = call("submit", expect, vector=values, weight=of_weight)
        return operation | {"randomness": ["5a" * 24]}

    made.client(
        "client-early-input",
        "a vector before it is asked for",
        small,
        20,
        "Shared",
        submit(vector, weight, LOCAL),
    )
    for name, what, values, of_weight in (
        ("short", "a coordinate is missing", vector[:-1], weight),
        ("long", "a coordinate too many", [*vector, 0.0], weight),
        ("nan", "a coordinate is not a number", [*vector[:-1], "nan"], weight),
        ("infinite", "a coordinate is infinite", ["-infinity", *vector[1:]], weight),
        ("weight-zero", "weight 0", vector, "0"),
        ("weight-above", "a weight above W", vector, "11"),
    ):
        made.client(f"client-input-{name}", what, small, 20, "Ready", submit(values, of_weight, INPUT))
    made.client(
        "client-second-input",
        "a second vector, also after a restart; the request gets the first upload again",
        small,
        20,
        "Masked",
        submit(vector, weight, LOCAL),
        call("restart", OK),
        submit(vector, weight, LOCAL),
        receive("RELAYED_SHARES to 20", replied("MASKED_INPUT from 20")),
    )
    made.client("client-beacon", "a beacon where none is awaited", small, 20, "Shared", use_beacon(bytes(32), LOCAL))


def _client_unmasking(made: Collection, gaps: Round) -> None:
    one = 2**32
    good = gaps.request(Kind.UNMASK_REQUEST, one)

    def survivors(*members: int) -> bytes:
        return server_message(gaps, Kind.UNMASK_REQUEST, bitmap(gaps, members))

    last = 2**64 - 2
    for name, what, payload, expect in (
        ("session", "the header bears another session", flip(good, 47), SERVER_FAULT),
        ("short", "no bitmap", good[:-1], SERVER_FAULT),
        ("long", "one byte too many", good + b"\0", SERVER_FAULT),
        ("unused-bit", "an unused bit of U3 is set", flip(good, HEADER_BYTES, 0x40), SERVER_FAULT),
        ("left-out", "this client is not in U3", survivors(0, 256, last), SERVER_FAULT),
        ("joiner", "U3 holds one that never shared keys", survivors(0, 7, 256, one, last), SERVER_FAULT),
        ("too-few", "U3 is below S", survivors(0, one), too_few(2, 3)),
    ):
        made.client(f"client-survivors-{name}", what, gaps, one, "Masked", receive(payload, expect))
    made.client(
        "client-relayed-signatures",
        "a message of the malicious-server model",
        gaps,
        one,
        "Masked",
        receive(put(good, 6, b"\x08"), SERVER_FAULT),
    )
    made.client(
        "client-second-survivors",
        "another U3 after a release: the other kind of share of a peer is never given, also after a restart",
        gaps,
        one,
        "Released",
        receive(survivors(0, one, last), SERVER_FAULT),
        call("restart", OK),
        receive(survivors(0, one, last), SERVER_FAULT),
        receive(Kind.UNMASK_REQUEST.name, replied(f"UNMASK_SHARES from {one}")),
    )


# ---------------------------------------------------------------------- what reaches a client, malicious server


def malicious_client_vectors(rounds: Mapping[str, Round]) -> dict[str, object]:
    made = Collection(rounds)
    other = Round(
        Plan(
            name="another-session",
            what="of the same cohort and parameters",
            params=rounds["malicious-server-complete-4"].params,
            ids=rounds["malicious-server-complete-4"].ids,
            context=rounds["malicious-server-complete-4"].plan.context,
        )
    )
    other.play()
    _authentic_rosters(made, rounds["malicious-server-complete-4"], other)
    _commitments(made, rounds["malicious-server-complete-4"])
    _consistency(made, rounds["malicious-server-complete-6"])
    _beacons(made, rounds["malicious-server-harary-40"])
    return made.document("what a lying server or a lying peer sends to a client in the malicious-server model")


def _authentic_rosters(made: Collection, small: Round, other: Round) -> None:
    good, foreign = small.request(Kind.ROSTER, 10), other.request(Kind.ROSTER, 10)
    at, size = entry(small, 2), ENTRY["malicious-server"]
    spare = small.request(Kind.ROSTER, 10)[entry(small, 3) :][:size]
    for name, what, payload, expect in (
        ("channel-key", "a peer's channel key is the server's", put(good, at, foreign[at : at + 32]), peer(30)),
        ("mask-key", "a peer's mask key is", put(good, at + 32, foreign[at + 32 : at + 64]), peer(30)),
        ("commitment", "a peer's commitment is altered", flip(good, at + 64), peer(30)),
        ("signature", "a peer's signature is altered", flip(good, at + 96), peer(30)),
        ("other-round", "a peer's entry is of another round", put(good, at, foreign[at : at + size]), peer(30)),
        ("other-name", "a peer's entry is another peer's", put(good, at, spare), peer(30)),
        (
            "stranger",
            "the cohort is not the directory's",
            put(good, HEADER_BYTES + 24, (41).to_bytes(8, "little")),
            SERVER_FAULT,
        ),
        (
            "neighbours",
            "the server names neighbours where it has no say in them",
            good + b"".join(position.to_bytes(4, "little") for position in (1, 2, 3)),
            SERVER_FAULT,
        ),
    ):
        made.client(f"client-directory-{name}", what, small, 10, "Advertised", receive(payload, expect))


def _commitments(made: Collection, small: Round) -> None:
    good = small.request(Kind.RELAYED_SHARES, 10)
    others = small.request(Kind.RELAYED_SHARES, 30)
    start, dealt, sealed = HEADER_BYTES + 1, DEALT["malicious-server"], 128
    foreign = others[start + dealt : start + 2 * dealt]  # what 20 dealt to 30
    for name, what, payload in (
        ("mask-key", "the commitment to the mask key's share is altered", flip(good, start + sealed)),
        ("seed", "the commitment to the seed's share is altered", flip(good, start + sealed + 32)),
        ("signature", "the dealer's signature is altered", flip(good, start + sealed + 64)),
        ("other-holder", "commitments that the dealer signed for another", put(good, start + sealed, foreign[sealed:])),
        ("sealed", "the ciphertext is damaged", flip(good, start)),
    ):
        made.client(f"client-commitments-{name}", what, small, 10, "Shared", receive(payload, peer(20)))
    # Commitments to something else, which the dealer itself signed: its own doing, though the server may say so too
    own = good[start + sealed : start + sealed + 64]
    for name, what, at in (("mask-key", "the mask key's share", 0), ("seed", "the seed's share", 32)):
        both = flip(own, at)
        statement = commitments_statement(small.session_id, small.position(20), small.position(10), both)
        contradicted = put(good, start + sealed, both + small.identity(20).sign_commitments(statement))
        made.client(
            f"client-commitments-contradicted-{name}",
            f"the dealer commits to another value than {what} that it seals, and signs that",
            small,
            10,
            "Shared",
            receive(contradicted, peer(20)),
        )


def _consistency(made: Collection, gaps: Round) -> None:
    one, last = 2**32, 2**64 - 2
    early = Kind.RELAYED_SIGNATURES
    session = gaps.session_id
    survivors = [0, 7, one, 2**40, last]

    def announced(*members: int) -> bytes:
        return server_message(gaps, Kind.UNMASK_REQUEST, bitmap(gaps, members))

    def signature(signer: int, members: Iterable[int] = survivors, name: int | None = None) -> bytes:
        # What a client would sign if it was shown these survivors
        u2, u3 = (np.array([other in group for other in gaps.ids]) for group in (gaps.ids, members))
        body = consistency_digest(session, u2, u3)
        header = Header(kind=Kind.CONSISTENCY, sender=signer if name is None else name, session=session)
        return gaps.identity(signer).sign(header, body)

    def relayed(signers: Mapping[int, bytes]) -> bytes:
        return server_message(
            gaps, early, bitmap(gaps, signers) + b"".join(signers[other] for other in sorted(signers))
        )

    good = {other: signature(other) for other in (0, 7, one, last)}
    honest = gaps.request(early, one)
    assert relayed(good) == honest  # The bytes of the honest round, so each change below is the only one
    made.client(
        "client-release-before-consistency",
        "signatures are relayed to a client that was shown no survivors",
        gaps,
        one,
        "Masked",
        receive(honest, SERVER_FAULT),
    )
    made.client(
        "client-consistency-too-few-survivors",
        "U3 is below S",
        gaps,
        one,
        "Masked",
        receive(announced(0, 7, one), too_few(3, 4)),
    )
    made.client(
        "client-consistency-left-out",
        "this client is not in U3",
        gaps,
        one,
        "Masked",
        receive(announced(0, 7, 2**40, last), SERVER_FAULT),
    )
    made.client(
        "client-second-consistency",
        "another U3 after one was signed, also after a restart",
        gaps,
        one,
        "Checked",
        receive(announced(0, 7, one, last), SERVER_FAULT),
        call("restart", OK),
        receive(announced(0, 7, one, last), SERVER_FAULT),
        receive(Kind.UNMASK_REQUEST.name, replied(f"CONSISTENCY from {one}")),
    )
    view = [0, 7, 256, one, 2**40]
    three = {other: good[other] for other in (0, 7, one)}
    for name, what, payload, expect in (
        ("session", "the header bears another session", flip(honest, 47), SERVER_FAULT),
        ("short", "the last byte is missing", honest[:-1], SERVER_FAULT),
        ("long", "one byte too many", honest + b"\0", SERVER_FAULT),
        ("left-out", "U4 misses this client", relayed({other: good[other] for other in (0, 7, last)}), SERVER_FAULT),
        (
            "no-survivor",
            "U4 holds one that did not survive",
            relayed(good | {256: signature(256)}),
            SERVER_FAULT,
        ),
        ("too-few", "fewer than the quorum signed", relayed(three), too_few(3, 4)),
        ("forged", "a signature is altered", flip(honest, -1), SERVER_FAULT),
        ("other-signer", "a signature is another client's", relayed(good | {7: signature(0, name=7)}), SERVER_FAULT),
        ("swapped", "two signatures change places", relayed(good | {0: good[7], 7: good[0]}), SERVER_FAULT),
        (
            "split-view",
            "a neighbour was shown other survivors and signed those",
            relayed(good | {7: signature(7, view)}),
            SERVER_FAULT,
        ),
    ):
        made.client(f"client-signatures-{name}", what, gaps, one, "Checked", receive(payload, expect))
    more = relayed(good | {2**40: signature(2**40)})
    made.client(
        "client-second-signatures",
        "another U4 after a release, also after a restart",
        gaps,
        one,
        "Released",
        receive(more, SERVER_FAULT),
        call("restart", OK),
        receive(more, SERVER_FAULT),
        receive("RELAYED_SIGNATURES", replied(f"UNMASK_SHARES from {one}")),
    )


def _beacons(made: Collection, sparse: Round) -> None:
    one = sparse.plan.traced[0]
    good = sparse.request(Kind.ROSTER, one)
    packed = b"".join(position.to_bytes(4, "little") for position in sparse.graph[0])
    made.client(
        "client-server-draws-graph",
        "the server names neighbours though the beacon draws the graph",
        sparse,
        one,
        "Advertised",
        receive(good + packed, SERVER_FAULT),
    )
    made.client(
        "client-short-beacon",
        "a beacon of 15 bytes; nothing has changed and the roster is answered as before",
        sparse,
        one,
        "Fixed",
        use_beacon(bytes(15), INPUT),
        receive("ROSTER", OK | {"answer": "beacon_needed"}),
    )
    made.client(
        "client-second-roster-before-beacon",
        "another roster while the beacon is awaited",
        sparse,
        one,
        "Fixed",
        receive(flip(good, -1), SERVER_FAULT),
    )
    made.client(
        "client-second-beacon",
        "another beacon after one drew the graph, also after a restart",
        sparse,
        one,
        "Shared",
        use_beacon(bytes(32), LOCAL),
        call("restart", OK),
        use_beacon(bytes(32), LOCAL),
    )
