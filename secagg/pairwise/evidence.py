"""What convinces a third party, who was not there, that a client cheated: signed parts of its own messages.

Each proof stands on the culprit's signatures alone, so neither the server nor any coalition can make one against an
honest client: whatever else decides, the beacon among it, is named by one of them. Malicious-server model only.
Source: SPEC "Blame".
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secagg.errors import DecodeError
from secagg.identity import SIGNATURE_BYTES, Directory
from secagg.pairwise import commitments
from secagg.pairwise.graph import CompleteGraph, beacon_ring, ring_neighbours
from secagg.pairwise.identifiers import (
    accepted_digest,
    beacon_digest,
    consistency_digest,
    round_id,
    seed_commitment,
    session_id,
)
from secagg.pairwise.messages import (
    ADVERTISEMENT_BYTES,
    DIGEST_BYTES,
    FORMATS,
    MASK_KEY_SHARE,
    SEED_SHARE,
    EncryptedShares,
    KeyAdvertisement,
    Kind,
    RelayedShares,
    Roster,
    UnmaskShares,
)
from secagg.pairwise.params import RoundParams
from secagg.primitives.agreement import AgreementKey
from secagg.primitives.shamir import SHARE_BYTES, reconstruct
from secagg.wire import Header, Reader, decode_bitmap

_FORMAT = FORMATS["malicious-server"]
_FORGED, _CONTRADICTORY = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """What fixes a session; nothing in it is secret, but it names who took part.

    All but the directory may come from whoever bears the evidence: the culprit's signatures name every part, and an
    altered one makes them fit no more.

    Attributes:
        params: what the round ran with.
        context: hash of the caller's context, 32 bytes (``secagg.pairwise.identifiers.context_digest``).
        nonce: the server's, 32 bytes.
        roster: the part of the roster that all clients were sent alike.
        directory: the identities that the third party itself believes in, never the bearer's: who may choose the keys
            can sign in anybody's name.
        beacon: what drew the sparse graph; None in the complete one.
    """

    params: RoundParams
    context: bytes
    nonce: bytes
    roster: bytes
    directory: Directory
    beacon: bytes | None = None


class _Session:
    """What follows from a transcript, computed anew."""

    def __init__(self, transcript: Transcript) -> None:
        params = transcript.params
        if params.threat != "malicious-server":
            raise DecodeError("nothing is signed in the semi-honest model, so nothing can be proved")
        if not all(isinstance(part, bytes) for part in (transcript.context, transcript.nonce, transcript.roster)):
            raise DecodeError("a transcript's context, nonce and roster are bytes")
        self.params, self.directory = params, transcript.directory
        self.roster = Roster.decode(
            memoryview(transcript.roster),
            clients=params.clients,
            sparse_neighbours=0,
            entry_bytes=_FORMAT.entry_bytes,
        )
        if self.roster.ids.tolist() != list(transcript.directory):
            raise DecodeError("the roster is not the directory's cohort")
        self.round_id = round_id(params, transcript.context, transcript.nonce)
        self.session_id = session_id(self.round_id, transcript.roster, transcript.directory.digest())
        self._beacon = transcript.beacon
        if params.graph == "complete":
            if self._beacon is not None:
                raise DecodeError("no beacon draws the complete graph")
        elif not isinstance(self._beacon, bytes):
            raise DecodeError("the beacon that drew the sparse graph is missing")
        self.beacon_digest = beacon_digest(self._beacon)

    def client_id(self, position: int) -> int:
        if not 0 <= position < self.params.clients:
            raise DecodeError(f"position {position} is not in a roster of {self.params.clients}")
        return int(self.roster.ids[position])

    def header(self, kind: Kind, position: int) -> Header:
        session = self.round_id if kind is Kind.KEY_ADVERTISEMENT else self.session_id
        return Header(kind=kind, sender=self.client_id(position), session=session)

    def check(self, kind: Kind, position: int, body: bytes, signature: bytes) -> None:
        attached = self.beacon_digest if kind is Kind.ENCRYPTED_SHARES else b""
        self.directory.check(self.client_id(position), self.header(kind, position), body, signature, attached=attached)

    def neighbours(self, position: int) -> NDArray[np.uint32]:
        """Return N(position) ∩ U1, of a position in the roster."""
        params = self.params
        if self._beacon is None:
            row = CompleteGraph(params.clients).neighbours(position)
        else:
            # Of one position alone: nothing grows with the neighbours of all
            row = ring_neighbours(
                beacon_ring(params.clients, self.session_id, self._beacon), params.neighbours, position
            )
        return row[self.roster.advertised[row]]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ForgedRelease:
    """A holder signed that it accepted some shares, and then released another one than it had accepted.

    Attributes:
        dealer: position of the client whose share was forged.
        holder: position of the client that forged it.
        upload: hash of the holder's masked vector, 32 bytes, and its signature of that and of ``relayed``.
        relayed: body of the RELAYED_SHARES that the holder accepted: U2, and what was dealt to it.
        survivors: bitmap of U3, which says the kind of share that was to be released.
        consistency: the holder's signature of U2 and U3.
        release: body of its UNMASK_SHARES.
        signature: its signature of that.
    """

    dealer: int
    holder: int
    upload: bytes
    relayed: bytes
    survivors: bytes
    consistency: bytes
    release: bytes
    signature: bytes

    def convict(self, transcript: Transcript) -> int:
        """Return the id of the holder, if this proves that it forged a share.

        Raises:
            DecodeError: it proves nothing: a signature does not fit, or the share is the one that was dealt.
        """
        session = _Session(transcript)
        params, holder_id = session.params, session.client_id(self.holder)
        hashed, signature = self.upload[:DIGEST_BYTES], self.upload[DIGEST_BYTES:]
        accepted = accepted_digest(session.session_id, session.beacon_digest, self.relayed)
        header = session.header(Kind.MASKED_INPUT, self.holder)
        session.directory.check_hashed(holder_id, header, hashed, signature, attached=accepted)
        neighbours = session.neighbours(self.holder)
        relay = RelayedShares.decode(
            memoryview(self.relayed),
            clients=params.clients,
            neighbours=neighbours,
            dealt_bytes=_FORMAT.dealt_bytes,
        )
        survivors = decode_bitmap(memoryview(self.survivors), params.clients)
        agreed = consistency_digest(session.session_id, relay.shared, survivors)
        session.check(Kind.CONSISTENCY, self.holder, agreed, self.consistency)
        session.check(Kind.UNMASK_SHARES, self.holder, self.release, self.signature)
        dealers = neighbours[relay.shared[neighbours]].tolist()
        released = UnmaskShares.decode(
            memoryview(self.release), count=len(dealers), release_bytes=_FORMAT.release_bytes
        )
        if self.dealer not in dealers:
            raise DecodeError("the holder was dealt nothing by this client")
        row = dealers.index(self.dealer)
        committed = relay.sealed[row, _FORMAT.sealed_bytes :].tobytes()
        kind = SEED_SHARE if survivors[self.dealer] else MASK_KEY_SHARE
        record = released.shares[row].tobytes()
        if commitments.opens(session.session_id, self.dealer, self.holder, kind, record, committed):
            raise DecodeError("the share is the one that was dealt")
        return holder_id

    def encode(self) -> bytes:
        """Return this as bytes."""
        numbers = bytes([_FORGED]) + self.dealer.to_bytes(4, "little") + self.holder.to_bytes(4, "little")
        fixed = self.upload + self.consistency + self.signature
        return numbers + fixed + _prefixed(self.relayed) + _prefixed(self.survivors) + _prefixed(self.release)

    def __repr__(self) -> str:
        return f"<ForgedRelease by position {self.holder} of a share dealt by {self.dealer}>"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ContradictoryDealer:
    """A dealer committed to shares that do not rebuild what it advertised.

    Attributes:
        dealer: its position.
        kind: which secret: 0 its mask key, 1 its seed.
        dealt: body of its ENCRYPTED_SHARES, in which the commitments stand.
        signature: its signature of that.
        holders: positions of t holders, distinct.
        records: what they released, 56 bytes each, which open the commitments.
    """

    dealer: int
    kind: int
    dealt: bytes
    signature: bytes
    holders: tuple[int, ...]
    records: bytes

    def convict(self, transcript: Transcript) -> int:
        """Return the id of the dealer, if this proves that its shares contradict each other or what it advertised.

        Raises:
            DecodeError: it proves nothing: a signature or a record does not fit, or they rebuild the right secret.
        """
        session = _Session(transcript)
        dealer_id = session.client_id(self.dealer)
        session.check(Kind.ENCRYPTED_SHARES, self.dealer, self.dealt, self.signature)
        recipients = session.neighbours(self.dealer)
        dealt = EncryptedShares.decode(
            memoryview(self.dealt), count=len(recipients), dealt_bytes=_FORMAT.dealt_bytes
        ).sealed
        row_of = {holder: row for row, holder in enumerate(recipients.tolist())}
        size, threshold = _FORMAT.release_bytes, session.params.threshold
        if len(set(self.holders)) != threshold or not set(self.holders) <= set(row_of):
            raise DecodeError(f"it takes shares of exactly {threshold} different holders")
        if len(self.holders) != threshold or len(self.records) != threshold * size or self.kind not in (0, 1):
            raise DecodeError(f"it takes a record of {size} bytes for each of {threshold} holders")
        for index, holder in enumerate(self.holders):
            record = self.records[size * index : size * (index + 1)]
            committed = dealt[row_of[holder], _FORMAT.sealed_bytes :].tobytes()
            if not commitments.opens(session.session_id, self.dealer, holder, self.kind, record, committed):
                raise DecodeError("a record is not the one that the dealer committed to")
        if not session.roster.advertised[self.dealer]:
            raise DecodeError("the roster holds no advertisement of this client")
        if self._rebuilds_what_was_advertised(session):
            raise DecodeError("the shares rebuild what the dealer advertised")
        return dealer_id

    def _rebuilds_what_was_advertised(self, session: _Session) -> bool:
        row = int(session.roster.advertised[: self.dealer].sum())
        entry = session.roster.entries[row].tobytes()
        session.check(Kind.KEY_ADVERTISEMENT, self.dealer, entry[:ADVERTISEMENT_BYTES], entry[ADVERTISEMENT_BYTES:])
        advertised = KeyAdvertisement.decode(memoryview(entry[:ADVERTISEMENT_BYTES]))
        records = np.frombuffer(self.records, dtype=np.uint8).reshape(-1, 1, _FORMAT.release_bytes)
        try:
            (secret,) = reconstruct(np.array(self.holders, dtype=np.uint64) + np.uint64(1), records[..., :SHARE_BYTES])
        except DecodeError:
            return False
        if self.kind == MASK_KEY_SHARE:
            return hmac.compare_digest(AgreementKey.from_bytes(secret).public, advertised.mask_public)
        rebuilt = seed_commitment(session.round_id, session.client_id(self.dealer), secret)
        return hmac.compare_digest(rebuilt, advertised.seed_commitment)

    def encode(self) -> bytes:
        """Return this as bytes."""
        numbers = bytes([_CONTRADICTORY]) + self.dealer.to_bytes(4, "little") + bytes([self.kind])
        holders = np.array(self.holders, dtype="<u4").tobytes()
        return numbers + self.signature + _prefixed(self.dealt) + _prefixed(holders) + _prefixed(self.records)

    def __repr__(self) -> str:
        return f"<ContradictoryDealer at position {self.dealer}>"


def decode_evidence(encoded: bytes) -> ForgedRelease | ContradictoryDealer:
    """Read what ``encode`` of either kind wrote; ``convict`` says whether it proves anything.

    Raises:
        DecodeError: the bytes are not evidence of this version.
    """
    if not isinstance(encoded, bytes):
        raise DecodeError(f"evidence is bytes, got {type(encoded).__name__}")
    reader = Reader(memoryview(encoded), "evidence")
    kind = reader.integer(1)
    found: ForgedRelease | ContradictoryDealer
    if kind == _FORGED:
        found = ForgedRelease(
            dealer=reader.integer(4),
            holder=reader.integer(4),
            upload=bytes(reader.take(DIGEST_BYTES + SIGNATURE_BYTES)),
            consistency=bytes(reader.take(SIGNATURE_BYTES)),
            signature=bytes(reader.take(SIGNATURE_BYTES)),
            relayed=_taken(reader),
            survivors=_taken(reader),
            release=_taken(reader),
        )
    elif kind == _CONTRADICTORY:
        found = ContradictoryDealer(
            dealer=reader.integer(4),
            kind=reader.integer(1),
            signature=bytes(reader.take(SIGNATURE_BYTES)),
            dealt=_taken(reader),
            holders=_positions(_taken(reader)),
            records=_taken(reader),
        )
    else:
        raise DecodeError("evidence of a kind that this version does not know")
    reader.finish()
    return found


def _prefixed(part: bytes) -> bytes:
    return len(part).to_bytes(8, "little") + part


def _taken(reader: Reader) -> bytes:
    return bytes(reader.take(reader.integer(8)))


def _positions(encoded: bytes) -> tuple[int, ...]:
    if len(encoded) % 4:
        raise DecodeError("positions take 4 bytes each")
    return tuple(np.frombuffer(encoded, dtype="<u4").tolist())
