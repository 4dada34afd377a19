"""Who shares masks with whom: the complete graph, or a Harary graph under a uniform permutation.

Positions are roster positions, 0 to n - 1, those that never answered included: the graph is drawn over everybody who
was invited, so that the bounds of ``graph_parameters`` hold for it whoever vanishes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secagg.errors import LocalProtocolError
from secagg.primitives.kdf import Label, derive
from secagg.primitives.prg import MASK_KEY_BYTES, stream
from secagg.primitives.randomness import Randomness, draw

Positions = NDArray[np.uint32]

MAX_REDRAWS = 16
"""Honest randomness needs a second draw with a chance below 2**-24 at the largest cohort."""


@dataclass(frozen=True, slots=True, eq=False)
class CompleteGraph:
    """Everybody is everybody's neighbour."""

    clients: int

    @property
    def degree(self) -> int:
        """Return k = n - 1."""
        return self.clients - 1

    def neighbours(self, position: int) -> Positions:
        """Return the neighbours' positions, ascending: uint32[k]."""
        row = np.arange(self.clients - 1, dtype=np.uint32)
        row[position:] += np.uint32(1)
        return row

    def slots(self, position: int) -> Positions:
        """Return, for each neighbour in order, where ``position`` stands in that neighbour's own row: uint32[k]."""
        return self.slot_of(self.neighbours(position), np.uint32(position)).astype(np.uint32)

    def slot_of(self, owner: NDArray[np.integer], neighbour: NDArray[np.integer] | np.integer) -> NDArray[np.integer]:
        """Return where ``neighbour`` stands in the row of ``owner``, element by element; they must differ."""
        slots: NDArray[np.integer] = neighbour - (owner < neighbour)
        return slots


@dataclass(frozen=True, slots=True, eq=False)
class HararyGraph:
    """On a hidden ring each has the k/2 next on either side as neighbours.

    Attributes:
        rows: uint32[n, k], each row ascending.
        reverse: uint32[n, k], where the row's owner stands in the row of that neighbour.
    """

    rows: Positions
    reverse: Positions

    @classmethod
    def of_ring(cls, ring: Positions, degree: int) -> HararyGraph:
        """Build the graph of even ``degree`` on ``ring``, a permutation of 0 to n - 1 in the ring's order."""
        clients = len(ring)
        steps = np.concatenate([np.arange(1, degree // 2 + 1), np.arange(clients - degree // 2, clients)])
        rows = np.empty((clients, degree), dtype=np.uint32)
        rows[ring] = ring[(np.arange(clients)[:, None] + steps) % clients]
        rows.sort(axis=1)
        # Rows ascend and so do owner * n + neighbour, so one binary search finds the way back along every edge
        edges = rows.astype(np.uint64) + np.arange(clients, dtype=np.uint64)[:, None] * np.uint64(clients)
        back = rows.astype(np.uint64) * np.uint64(clients) + np.arange(clients, dtype=np.uint64)[:, None]
        found = np.searchsorted(edges.ravel(), back.ravel()).reshape(clients, degree)
        reverse = found - rows.astype(np.int64) * degree
        return cls(rows, reverse.astype(np.uint32))

    @property
    def degree(self) -> int:
        """Return k."""
        return int(self.rows.shape[1])

    def neighbours(self, position: int) -> Positions:
        """Return the neighbours' positions, ascending: uint32[k]."""
        row: Positions = self.rows[position]
        return row

    def slots(self, position: int) -> Positions:
        """Return, for each neighbour in order, where ``position`` stands in that neighbour's own row: uint32[k]."""
        row: Positions = self.reverse[position]
        return row


MaskingGraph = CompleteGraph | HararyGraph


def beacon_graph(clients: int, degree: int, session: bytes, beacon: bytes) -> HararyGraph:
    """Return the graph that a public beacon draws for a session: every party computes the same one."""
    return HararyGraph.of_ring(beacon_ring(clients, session, beacon), degree)


def ring_neighbours(ring: Positions, degree: int, position: int) -> Positions:
    """Return what ``HararyGraph.of_ring(ring, degree).neighbours(position)`` does, without all the others' rows."""
    place = int(np.flatnonzero(ring == position)[0])
    steps = np.concatenate([np.arange(1, degree // 2 + 1), np.arange(-(degree // 2), 0)])
    row: Positions = np.sort(ring[(place + steps) % len(ring)])
    return row


def beacon_ring(clients: int, session: bytes, beacon: bytes) -> Positions:
    """Return the ring that a public beacon draws for a session: uint32[clients], positions in the ring's order.

    The ring's keys are the AES-128 counter-mode stream, 8 bytes each, under a key derived from the beacon with the
    session as salt. The beacon must have been unpublished when the roster, and so the session, was fixed; in the
    semi-honest model the server's own secret seed stands in for it.
    """
    key = derive(beacon, salt=session, label=Label.GRAPH, length=MASK_KEY_BYTES)
    drawn = 0

    def randomness(length: int) -> bytes:
        nonlocal drawn
        # In words of 32 bits, whose kernel every round compiles; the bytes are the same in any
        words = stream(key, length // 4, np.uint32, first_word=drawn)
        drawn += length // 4
        return words.astype("<u4").tobytes()

    return draw_ring(clients, randomness)


def draw_ring(clients: int, randomness: Randomness) -> Positions:
    """Draw a uniform permutation of 0 to ``clients`` - 1: uint32[clients].

    Positions are sorted by independent 64-bit keys; a tie (chance below n**2 / 2**65) draws all keys again, which
    leaves every order equally likely.
    """
    for _ in range(MAX_REDRAWS):
        keys = np.frombuffer(draw(randomness, 8 * clients), dtype="<u8")
        order = np.argsort(keys, kind="stable")
        ranked = keys[order]
        if not (ranked[1:] == ranked[:-1]).any():
            return order.astype(np.uint32)
    raise LocalProtocolError("the randomness repeats itself: it is not a source of randomness")
