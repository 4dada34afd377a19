"""What binds every message and key to one round: identifiers that each party computes itself. SPEC "Identifiers"."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from secagg.errors import InputError
from secagg.pairwise.params import RoundParams
from secagg.primitives.kdf import Label, derive, digest
from secagg.wire import SUITE, VERSION, encode_bitmap

CHANNEL_KEY_BYTES = 32
MIN_BEACON_BYTES = 16
NO_BEACON = bytes(32)
"""What stands for the beacon where none draws the graph; no beacon has this hash."""


def round_id(params: RoundParams, context: bytes, nonce: bytes) -> bytes:
    """Identify a round before its roster is known; ``context`` is a ``context_digest``."""
    return digest(Label.ROUND, bytes([VERSION, SUITE]), params.encode(), context, nonce)


def session_id(round_identifier: bytes, roster: bytes, directory: bytes = b"") -> bytes:
    """Identify a round once its roster is fixed.

    Args:
        round_identifier: from ``round_id``.
        roster: ``Roster.encode_common()``: everybody invited, who advertised, and their keys, in order.
        directory: hash of the directory of pinned identities; empty in the semi-honest model.
    """
    return digest(Label.SESSION, round_identifier, roster, directory)


def seed_commitment(round_identifier: bytes, client_id: int, seed: bytes) -> bytes:
    """Commit to a self-mask seed of 32 random bytes, which hide it."""
    return digest(Label.SEED_COMMITMENT, round_identifier, client_id.to_bytes(8, "little"), seed)


def consistency_digest(session: bytes, shared: NDArray[np.bool_], survivors: NDArray[np.bool_]) -> bytes:
    """Return what clients sign of the global sets U2 and U3, which every honest client must have been shown alike."""
    return digest(Label.CONSISTENCY, session, encode_bitmap(shared), encode_bitmap(survivors))


def check_beacon(beacon: bytes) -> None:
    """Check what a caller passes as a beacon.

    Raises:
        InputError: it is not bytes, or shorter than 16.
    """
    if not isinstance(beacon, bytes) or len(beacon) < MIN_BEACON_BYTES:
        raise InputError(f"a beacon must be at least {MIN_BEACON_BYTES} bytes")


def beacon_digest(beacon: bytes | None) -> bytes:
    """Return what clients sign of the beacon that drew their graph: 32 bytes, all zero for None, the complete graph."""
    return NO_BEACON if beacon is None else digest(Label.BEACON, beacon)


def accepted_digest(session: bytes, beacon: bytes, relayed: bytes) -> bytes:
    """Return what an upload says of the body of RELAYED_SHARES that its client accepted: U2, and every row.

    Whose row is whose follows from the graph, so ``beacon``, a ``beacon_digest``, stands beside it.
    """
    return digest(Label.ACCEPTED_SHARES, session, beacon, relayed)


def channel_keys(secret: bytes, session: bytes, own: int, peer: int) -> tuple[bytes, bytes]:
    """Return the keys that seal shares from ``own`` to ``peer`` and from ``peer`` to ``own``, each for a single use."""
    pair = _pair(own, peer)
    keys = derive(secret, salt=session, label=Label.SHARE_CHANNEL, info=pair, length=2 * CHANNEL_KEY_BYTES)
    upward, downward = keys[:CHANNEL_KEY_BYTES], keys[CHANNEL_KEY_BYTES:]
    return (upward, downward) if own < peer else (downward, upward)


def share_aad(session: bytes, kind: int, sender: int, recipient: int) -> bytes:
    """Return what a sealed pair of shares is bound to besides its key."""
    return session + bytes([kind]) + sender.to_bytes(4, "little") + recipient.to_bytes(4, "little")


def pairwise_mask_key(secret: bytes, session: bytes, params: RoundParams, own: int, peer: int, length: int) -> bytes:
    """Return the key of the mask that the lower position of a pair adds and the higher subtracts."""
    info = _pair(own, peer) + _shape(params.dimension, params.ring_bits)
    return derive(secret, salt=session, label=Label.PAIRWISE_MASK, info=info, length=length)


def self_mask_key(seed: bytes, session: bytes, params: RoundParams, position: int, length: int) -> bytes:
    """Return the key of the mask that a client adds for itself, removed only if its input is in the sum."""
    info = position.to_bytes(4, "little") + _shape(params.dimension, params.ring_bits)
    return derive(seed, salt=session, label=Label.SELF_MASK, info=info, length=length)


def _pair(one: int, other: int) -> bytes:
    return min(one, other).to_bytes(4, "little") + max(one, other).to_bytes(4, "little")


@functools.lru_cache(maxsize=16)
def _shape(dimension: int, ring_bits: int) -> bytes:
    return dimension.to_bytes(8, "little") + bytes([ring_bits])
