"""Commitments of a dealer to each share, so that a forged release names its forger and the sum is still recovered.

Used in the malicious-server model. A record is a share and the salt of its commitment: 56 bytes.
Source: SPEC "Share commitments".
"""

from __future__ import annotations

import hmac

import numpy as np

from secagg.errors import DecodeError
from secagg.identity import Directory, Identity, commitments_statement
from secagg.pairwise.messages import COMMITMENT_SALT_BYTES, DIGEST_BYTES, FORMATS, Bytes
from secagg.primitives.kdf import Label, digest
from secagg.primitives.randomness import Randomness, draw
from secagg.primitives.shamir import SHARE_BYTES

_FORMAT = FORMATS["malicious-server"]


def with_salts(shares: Bytes, randomness: Randomness) -> Bytes:
    """Append a fresh salt to every share: uint8[m, 2, 40] becomes the records uint8[m, 2, 56]."""
    count = shares.shape[0]
    salts = np.frombuffer(draw(randomness, 2 * COMMITMENT_SALT_BYTES * count), dtype=np.uint8).reshape(
        count, 2, COMMITMENT_SALT_BYTES
    )
    return np.concatenate([shares, salts], axis=2)


def commitment(session: bytes, dealer: int, recipient: int, kind: int, record: bytes) -> bytes:
    """Commit to one record; ``kind`` is which of the two secrets it is a share of."""
    bound = dealer.to_bytes(4, "little") + recipient.to_bytes(4, "little") + bytes([kind])
    return digest(Label.SHARE_COMMITMENT, session, bound, record[SHARE_BYTES:], record[:SHARE_BYTES])


def commit(identity: Identity, session: bytes, dealer: int, recipient: int, records: Bytes) -> bytes:
    """Return both commitments to what one neighbour is dealt (uint8[2, 56]) and the dealer's signature: 128 bytes."""
    both = b"".join(commitment(session, dealer, recipient, kind, records[kind].tobytes()) for kind in (0, 1))
    return both + identity.sign_commitments(commitments_statement(session, dealer, recipient, both))


def check_dealt(
    directory: Directory, dealer_id: int, session: bytes, dealer: int, recipient: int, records: bytes, committed: bytes
) -> None:
    """Check, at the recipient, that the dealer signed commitments to exactly the records it sealed.

    Args:
        directory: the pinned identities.
        dealer_id: whose signature it must be.
        session: the session's identifier.
        dealer: its position.
        recipient: this client's position.
        records: both records as they were opened, 112 bytes.
        committed: commitments and signature as they were relayed, 128 bytes.

    Raises:
        DecodeError: they differ. Dealer and server can each have caused it: a suspicion, no proof.
    """
    both, signature = committed[: 2 * DIGEST_BYTES], committed[2 * DIGEST_BYTES :]
    directory.check_commitments(dealer_id, commitments_statement(session, dealer, recipient, both), signature)
    size = _FORMAT.release_bytes
    for kind in (0, 1):
        opened = commitment(session, dealer, recipient, kind, records[size * kind : size * (kind + 1)])
        if not hmac.compare_digest(opened, both[DIGEST_BYTES * kind : DIGEST_BYTES * (kind + 1)]):
            raise DecodeError("a share differs from its dealer's commitment")


def opens(session: bytes, dealer: int, recipient: int, kind: int, record: bytes, committed: bytes) -> bool:
    """Tell, at the server, whether a released record is the one that its dealer committed to."""
    expected = committed[DIGEST_BYTES * kind : DIGEST_BYTES * (kind + 1)]
    return hmac.compare_digest(commitment(session, dealer, recipient, kind, record), expected)
