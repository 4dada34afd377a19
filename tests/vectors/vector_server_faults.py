"""Failing vectors of the server: what lying, late or confused clients send; used by ``generate.py``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from unittest import mock

from secagg import PeerFault
from secagg.pairwise.identifiers import beacon_digest
from secagg.pairwise.messages import MASK_KEY_SHARE, Kind
from secagg.primitives import shamir
from secagg.primitives.kdf import Label, digest
from secagg.wire import HEADER_BYTES, Header
from vector_faults import (
    INPUT,
    LOCAL,
    LOW_ORDER,
    OK,
    P61,
    RECORD,
    Collection,
    Operation,
    beacon_of,
    call,
    fault,
    flip,
    peer,
    proved,
    put,
    received,
    signed,
    stale,
    too_few,
    use_beacon,
)
from vector_rounds import Round

# ------------------------------------------------------------------------------------ what reaches the server


def server_vectors(rounds: Mapping[str, Round]) -> dict[str, object]:
    made = Collection(rounds)
    gaps = rounds["semi-honest-complete-6"]
    _server_headers(made, gaps)
    _server_keys(made, rounds["semi-honest-complete-3"])
    _server_bodies(made, gaps)
    _server_floors(made, gaps)
    _server_unmasking(made, gaps)
    return made.document("what lying, late or confused clients send to the server in the semi-honest model")


def _server_headers(made: Collection, gaps: Round) -> None:
    good = gaps.reply(Kind.KEY_ADVERTISEMENT, 0)
    for name, what, sender, payload, expect in (
        ("unknown", "the transport names one that is not in the roster", 77, good, peer(77)),
        ("empty", "no byte at all", 0, b"", peer(0)),
        ("magic", "another magic", 0, flip(good, 3), peer(0)),
        ("version", "version 2", 0, put(good, 4, b"\2"), peer(0)),
        ("suite", "suite 2", 0, put(good, 5, b"\2"), peer(0)),
        ("reserved-byte", "the reserved byte is not zero", 0, put(good, 7, b"\1"), peer(0)),
        ("sender", "it names another sender than the transport", 256, good, peer(256)),
        ("own-request", "the server's message comes back", 0, gaps.request(Kind.INVITATION, 0), peer(0)),
        ("session", "it bears another round", 0, flip(good, 16), peer(0)),
        ("early", "it belongs to a later stage", 0, gaps.reply(Kind.ENCRYPTED_SHARES, 0), peer(0)),
        ("consistency", "a kind of the malicious-server model", 0, put(good, 6, b"\7"), peer(0)),
        ("short", "the last byte is missing", 0, good[:-1], peer(0)),
        ("long", "one byte too many", 0, good + b"\0", peer(0)),
    ):
        made.server(f"server-{name}", what, gaps, "CollectingKeys", received(sender, payload, expect))
    made.server(
        "server-duplicate",
        "the same message twice, and after a restart",
        gaps,
        "CollectingKeys",
        received(0, "KEY_ADVERTISEMENT from 0", stale(0)),
        call("restart", OK),
        received(0, "KEY_ADVERTISEMENT from 0", stale(0)),
        replies=1,
    )
    late = put(put(good, 8, (7).to_bytes(8, "little")), 48, bytes(range(96)))
    made.server(
        "server-late",
        "a message of a stage that was closed",
        gaps,
        "CollectingShares",
        received(7, late, stale(7)),
    )
    made.server(
        "server-dropped",
        "a message of the open stage from one that dropped out before",
        gaps,
        "CollectingShares",
        received(7, put(gaps.reply(Kind.ENCRYPTED_SHARES, 0), 8, (7).to_bytes(8, "little")), stale(7)),
    )
    made.server(
        "server-done",
        "messages and a call after the end",
        gaps,
        "Finished",
        received(0, "UNMASK_SHARES from 0", stale(0)),
        call("advance", LOCAL),
    )
    made.server(
        "server-aborted",
        "a message and a call after the round was given up",
        gaps,
        "CollectingKeys",
        call("abort", OK),
        received(0, "KEY_ADVERTISEMENT from 0", LOCAL),
        call("advance", LOCAL),
    )


def _server_keys(made: Collection, small: Round) -> None:
    good, first = small.reply(Kind.KEY_ADVERTISEMENT, 20), small.reply(Kind.KEY_ADVERTISEMENT, 10)
    at = HEADER_BYTES
    for name, what, payload in (
        ("low-order-channel", "a channel key of low order", put(good, at, LOW_ORDER)),
        ("low-order-mask", "a mask key of low order", put(good, at + 32, LOW_ORDER)),
        ("zero", "a key of zeros", put(good, at, bytes(32))),
        ("one", "a key that is 1", put(good, at, b"\1" + bytes(31))),
        ("not-canonical", "a key with its top bit set", flip(good, at + 31, 0x80)),
        ("not-reduced", "a key of 2^255 - 18", put(good, at + 32, (2**255 - 18).to_bytes(32, "little"))),
        ("one-for-both", "one key for both purposes", put(good, at + 32, good[at : at + 32])),
        ("copied", "another client's channel key", put(good, at, first[at : at + 32])),
        ("copied-across", "another client's mask key as channel key", put(good, at, first[at + 32 : at + 64])),
    ):
        made.server(f"server-keys-{name}", what, small, "CollectingKeys", received(20, payload, peer(20)), replies=1)


def _server_bodies(made: Collection, gaps: Round) -> None:
    one = 2**32
    shares, upload = gaps.reply(Kind.ENCRYPTED_SHARES, one), gaps.reply(Kind.MASKED_INPUT, one)
    release = gaps.reply(Kind.UNMASK_SHARES, one)
    for name, what, state, payload in (
        ("shares-session", "shares of another session", "CollectingShares", flip(shares, 47)),
        ("shares-missing", "shares for one neighbour fewer", "CollectingShares", shares[:-96]),
        ("shares-extra", "shares for one neighbour more", "CollectingShares", shares + bytes(96)),
        ("input-session", "an input of another session", "CollectingInputs", flip(upload, 47)),
        ("input-short", "an input of one byte fewer", "CollectingInputs", upload[:-1]),
        ("input-long", "an input of one byte more", "CollectingInputs", upload + b"\0"),
        ("input-padding", "a padding bit is set", "CollectingInputs", flip(upload, -1, 0x80)),
        ("release-session", "a release of another session", "CollectingUnmask", flip(release, 47)),
        ("release-missing", "a share is missing", "CollectingUnmask", release[:-40]),
        (
            "release-not-a-share",
            "a word of a share is 2^61 - 1",
            "CollectingUnmask",
            put(release, 48, P61.to_bytes(8, "little")),
        ),
        ("release-high-bits", "a word of a share is 2^64 - 1", "CollectingUnmask", put(release, 56, b"\xff" * 8)),
    ):
        made.server(f"server-{name}", what, gaps, state, received(one, payload, peer(one)))


def _server_floors(made: Collection, gaps: Round) -> None:
    for name, state, have, need, answered in (
        ("keys", "CollectingKeys", 2, 3, 2),
        ("shares", "CollectingShares", 2, 3, 2),
        ("inputs", "CollectingInputs", 2, 3, 2),
        ("unmask", "CollectingUnmask", 1, 2, 2),
    ):
        made.server(
            f"server-too-few-{name}",
            "the stage cannot be closed yet",
            gaps,
            state,
            call("advance", too_few(have, need)),
            replies=answered,
        )
    made.server(
        "server-beacon", "a beacon where none is awaited", gaps, "CollectingShares", use_beacon(bytes(32), LOCAL)
    )


def _server_unmasking(made: Collection, gaps: Round) -> None:
    one, last = 2**32, 2**64 - 2
    forged = flip(gaps.reply(Kind.UNMASK_SHARES, 0), HEADER_BYTES)  # its share of client 256, which survived
    made.server(
        "server-forged-release",
        "a forged share rebuilds another seed: its owner is named, as a suspicion, and no sum is given out",
        gaps,
        "CollectingUnmask",
        received(0, forged, OK),
        received(one, f"UNMASK_SHARES from {one}", OK),
        received(last, f"UNMASK_SHARES from {last}", OK),
        call("advance", peer(256)),
    )
    dropped = flip(gaps.reply(Kind.UNMASK_SHARES, 0), HEADER_BYTES + 2 * 40)  # its share of 2^40, which dropped out
    made.server(
        "server-forged-mask-key-release",
        "a forged share rebuilds another mask key",
        gaps,
        "CollectingUnmask",
        received(0, dropped, OK),
        received(one, f"UNMASK_SHARES from {one}", OK),
        received(last, f"UNMASK_SHARES from {last}", OK),
        call("advance", peer(2**40)),
    )
    # The last of 4 words of 21 bits is the weight: its highest bit is bit 3 of the last byte
    heavy = flip(gaps.reply(Kind.MASKED_INPUT, 0), -1, 1 << 3)
    made.server(
        "server-weight-out-of-range",
        "an upload puts the total weight where no weights of clients can: nobody is named, no sum is given out",
        gaps,
        "CollectingInputs",
        received(0, heavy, OK),
        received(256, "MASKED_INPUT from 256", OK),
        received(one, f"MASKED_INPUT from {one}", OK),
        received(last, f"MASKED_INPUT from {last}", OK),
        call("advance", OK),
        received(0, "UNMASK_SHARES from 0", OK),
        received(one, f"UNMASK_SHARES from {one}", OK),
        received(last, f"UNMASK_SHARES from {last}", OK),
        call("advance", fault("InconsistentSum")),
    )


# ------------------------------------------------------------------- what reaches the server, malicious server


def malicious_server_vectors(rounds: Mapping[str, Round]) -> dict[str, object]:
    made = Collection(rounds)
    _signatures(made, rounds["malicious-server-complete-4"])
    _blame(made, rounds["malicious-server-complete-4"])
    _contradicting_dealer(made, rounds["malicious-server-complete-4"])
    _server_beacons(made, rounds["malicious-server-harary-40"])
    return made.document("what lying clients send to the server in the malicious-server model")


STATES = {
    Kind.KEY_ADVERTISEMENT: "CollectingKeys",
    Kind.ENCRYPTED_SHARES: "CollectingShares",
    Kind.MASKED_INPUT: "CollectingInputs",
    Kind.CONSISTENCY: "CollectingConsistency",
    Kind.UNMASK_SHARES: "CollectingUnmask",
}


def _signatures(made: Collection, small: Round) -> None:
    for kind, state in STATES.items():
        good = small.reply(kind, 20)
        body, session = good[HEADER_BYTES:-64], good[16:48]
        head = good[:-64]

        def by(
            signer: int,
            *,
            kind: int = kind,
            session: bytes = session,
            body: bytes = body,
        ) -> bytes:
            attached = beacon_of(small) if kind == Kind.ENCRYPTED_SHARES else b""
            return small.identity(signer).sign(Header(kind=kind, sender=20, session=session), body, attached=attached)

        name = kind.name.lower().replace("_", "-")
        made.server(
            f"server-signature-{name}",
            "no signature, zeros, another client's, of another kind, of another session, of another body; "
            "the honest message is taken afterwards",
            small,
            state,
            received(20, head, peer(20)),
            received(20, head + bytes(64), peer(20)),
            received(20, head + by(30), peer(20)),
            received(20, head + by(20, kind=kind ^ 2), peer(20)),
            received(20, head + by(20, session=bytes(32)), peer(20)),
            received(20, flip(good, HEADER_BYTES), peer(20)),
            received(20, f"{kind.name} from 20", OK),
        )


def _blame(made: Collection, small: Round) -> None:
    good = small.reply(Kind.UNMASK_SHARES, 20)
    for name, what, at, dealer in (
        ("share", "a share is another than was committed to", HEADER_BYTES, 10),
        ("salt", "the salt is another", HEADER_BYTES + 55, 10),
        ("second-share", "the second share is", HEADER_BYTES + 56, 30),
    ):
        made.server(
            f"server-release-{name}",
            f"{what}, and its holder signed that: a proof, and the sum is exact without it",
            small,
            "CollectingUnmask",
            convicted(small, 20, flip(good, at), dealer),
            *(received(one, f"UNMASK_SHARES from {one}", OK) for one in (10, 30, 40)),
            call("advance", OK | {"result": recovered(small)}),
        )
    other_kind = put(good, HEADER_BYTES, small.opened["20"][0, MASK_KEY_SHARE].tobytes())
    made.server(
        "server-release-other-kind",
        "of a survivor the mask key's share is released instead of the seed's, and its holder signed that: a proof",
        small,
        "CollectingUnmask",
        convicted(small, 20, other_kind, 10),
    )
    consistency = small.reply(Kind.CONSISTENCY, 20)
    made.server(
        "server-consistency-other-set",
        "a client signs another survivor set than was announced",
        small,
        "CollectingConsistency",
        received(20, signed(small, 20, flip(consistency, HEADER_BYTES)), peer(20)),
        received(20, "CONSISTENCY from 20", OK),
    )
    first, second = (good[HEADER_BYTES + 56 * i : HEADER_BYTES + 56 * (i + 1)] for i in (0, 1))
    made.server(
        "server-release-swapped",
        "two shares of a release change places",
        small,
        "CollectingUnmask",
        convicted(small, 20, put(good, HEADER_BYTES, second + first), 10),
    )
    made.server(
        "server-consistency-too-few",
        "fewer than the quorum signed",
        small,
        "CollectingConsistency",
        call("advance", too_few(2, 3)),
        replies=2,
    )


def convicted(round_: Round, holder: int, changed: bytes, dealer: int) -> Operation:
    """Hand in a changed release that its holder signed: with what it signed before, that proves the forgery."""
    payload = signed(round_, holder, changed)
    upload = round_.reply(Kind.MASKED_INPUT, holder)
    hashed = digest(Label.SIGNED_BODY, upload[HEADER_BYTES:-96])
    positions = b"".join(round_.position(one).to_bytes(4, "little") for one in (dealer, holder))
    agreed = round_.reply(Kind.CONSISTENCY, holder)[-64:]
    relayed = round_.request(Kind.RELAYED_SHARES, holder)[HEADER_BYTES:]
    survivors = round_.request(Kind.UNMASK_REQUEST, holder)[HEADER_BYTES:]
    fixed = b"\1" + positions + hashed + upload[-64:] + agreed + payload[-64:]
    evidence = fixed + prefixed(relayed) + prefixed(survivors) + prefixed(payload[HEADER_BYTES:-64])
    return received(holder, payload, proved(holder, evidence))


def contradiction(round_: Round, dealer: int, kind: int, holders: Sequence[int]) -> bytes:
    """Return what convicts a dealer of a complete graph: its signed commitments and what t holders released."""
    dealt, size = round_.reply(Kind.ENCRYPTED_SHARES, dealer), RECORD["malicious-server"]
    positions, records = b"", b""
    for one in holders:
        positions += round_.position(one).to_bytes(4, "little")
        at = HEADER_BYTES + size * [other for other in round_.ids if other != one].index(dealer)
        records += round_.reply(Kind.UNMASK_SHARES, one)[at : at + size]
    fixed = b"\2" + round_.position(dealer).to_bytes(4, "little") + bytes([kind]) + dealt[-64:]
    return fixed + prefixed(dealt[HEADER_BYTES:-64]) + prefixed(positions) + prefixed(records)


def prefixed(part: bytes) -> bytes:
    return len(part).to_bytes(8, "little") + part


def recovered(round_: Round) -> dict[str, object]:
    result = round_.server.result
    return {
        "survivors": [str(one) for one in result.survivors],
        "total": [str(value) for value in result.total.tolist()],
        "weight": str(result.weight),
    }


def _contradicting_dealer(made: Collection, small: Round) -> None:
    """Client 20 deals one holder shares on no polynomial with the others', and commits to them."""
    honest = shamir.share

    def crooked(secrets: object, **arguments: object) -> object:
        shares = honest(secrets, **arguments)  # type: ignore[arg-type]
        shares[1, :, 0] ^= 1
        return shares

    @contextlib.contextmanager
    def behind(one: int, stage: str) -> Iterator[None]:
        if (one, stage) == (20, "share_keys"):
            with mock.patch("secagg.pairwise.client_steps.share", crooked):
                yield
        else:
            yield

    deceived = Round(small.plan, behind)
    with contextlib.suppress(PeerFault):
        deceived.play()
    operations = []
    holders = [one for one in small.ids if one != 20][: small.params.threshold]
    for kind in STATES:
        operations += [received(one, deceived.reply(kind, one), OK) for one in small.ids]
        last = kind is Kind.UNMASK_SHARES
        operations.append(call("advance", proved(20, contradiction(deceived, 20, 1, holders)) if last else OK))
    made.server(
        "server-contradicting-dealer",
        "a dealer's shares, all of them as committed to, rebuild no secret: a proof, and no sum is given out",
        small,
        "CollectingKeys",
        *operations,
    )


def _server_beacons(made: Collection, sparse: Round) -> None:
    one = sparse.ids[0]
    good = sparse.reply(Kind.ENCRYPTED_SHARES, one)
    head = Header(kind=Kind.ENCRYPTED_SHARES, sender=one, session=sparse.session_id)

    def under(beacon: bytes) -> bytes:
        return good[:-64] + sparse.identity(one).sign(head, good[HEADER_BYTES:-64], attached=beacon)

    made.server(
        "server-beacon-awaited",
        "shares before the beacon has drawn the graph, and a beacon of 15 bytes",
        sparse,
        "CollectingShares",
        received(one, f"ENCRYPTED_SHARES from {one}", LOCAL),
        use_beacon(bytes(15), INPUT),
        use_beacon(sparse.beacon, OK),
        received(one, f"ENCRYPTED_SHARES from {one}", OK),
    )
    made.server(
        "server-beacon-of-a-client",
        "shares that a client signed under another beacon, then without one; its own are taken afterwards",
        sparse,
        "CollectingShares",
        use_beacon(sparse.beacon, OK),
        received(one, under(beacon_digest(bytes(32))), peer(one)),
        received(one, under(beacon_digest(None)), peer(one)),
        received(one, under(b""), peer(one)),
        received(one, f"ENCRYPTED_SHARES from {one}", OK),
    )
    made.server(
        "server-other-beacon",
        "the server itself is given another beacon than the clients: it refuses each of them",
        sparse,
        "CollectingShares",
        use_beacon(bytes(32), OK),
        *(received(other, f"ENCRYPTED_SHARES from {other}", peer(other)) for other in (100, 110, 139)),
    )
    made.server(
        "server-second-beacon",
        "another beacon after one drew the graph",
        sparse,
        "CollectingShares",
        use_beacon(bytes(32), LOCAL),
        replies=1,
    )
