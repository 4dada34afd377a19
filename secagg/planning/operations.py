"""What work is counted in: times a machine's costs of each, counts are CPU time."""

from __future__ import annotations

import enum
from collections.abc import Mapping


class Operation(enum.StrEnum):
    """What work is counted in. Times are of one of each."""

    CLIENT_MESSAGE = "client_message"
    """A client takes a request in and frames its reply, whatever they hold."""
    CLIENT_SHARES = "client_shares"
    """The same in a stage that deals or opens its neighbours' shares, however many."""
    SERVER_MESSAGE = "server_message"
    """The server makes one client's request, and takes its reply in, whatever they hold."""
    SERVER_SHARES = "server_shares"
    """The same in a stage whose messages hold shares or a vector, however many."""
    KEY_PAIR = "key_pair"
    """An X25519 public key from its secret."""
    EXCHANGE = "exchange"
    """An X25519 agreement."""
    DERIVE = "derive"
    """An HKDF-SHA256 key or pair of keys."""
    SEAL = "seal"
    """AES-256-GCM over two shares, sealed or opened."""
    SIGN = "sign"
    """An Ed25519 signature with the hash of what it covers."""
    VERIFY = "verify"
    """The check of one."""
    COMMIT = "commit"
    """A hash that commits to a share, or to a seed."""
    ROW = "row"
    """A row of shares moved from one array to another."""
    DEAL = "deal"
    """One term of one limb's polynomial at one point."""
    LAGRANGE = "lagrange"
    """One factor of one Lagrange weight: t points take t squared."""
    REBUILD = "rebuild"
    """A secret rebuilt by itself, whatever its threshold."""
    COMBINE = "combine"
    """One share of one limb times its weight."""
    MASK = "mask"
    """A mask's key expanded."""
    MASK_BYTE = "mask_byte"
    """A byte of key stream made and added to a block in cache."""
    ENCODE = "encode"
    """A value quantised, rounded and packed."""
    UNPACK_CACHED = "unpack_cached"
    """A packed value added to an accumulator that lies in cache."""
    UNPACK_STREAMED = "unpack_streamed"
    """The same where the accumulator comes from memory."""
    HASH_BYTE = "hash_byte"
    """A byte through SHA-256."""
    COPY_BYTE = "copy_byte"
    """A byte copied."""
    EDGE = "edge"
    """One neighbour of one client, while a sparse graph is drawn."""


CACHED_WORDS = 1 << 16
STREAMED_WORDS = 1 << 23
"""Sizes of the two accumulators: one that any second-level cache holds, one that none does."""

Counts = Mapping[Operation, float]
Work = Mapping[str, Counts]
"""Stage -> how many of each operation."""
