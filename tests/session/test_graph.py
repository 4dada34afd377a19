"""How a ring is drawn where two of its keys are the same, which no test of a whole round comes to see."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from secagg import LocalProtocolError
from secagg.pairwise import graph
from secagg.primitives.kdf import Label, derive
from secagg.primitives.prg import stream

CLIENTS = 41


def source(ties: int):
    """Randomness in which the first ``ties`` draws hold one key twice, neither the smallest nor the largest."""
    drawn = []

    def randomness(length: int) -> bytes:
        keys = np.frombuffer(hashlib.shake_256(bytes([len(drawn)])).digest(length), dtype="<u8").copy()
        if len(drawn) < ties:
            middle = np.argsort(keys)[CLIENTS // 2 :]
            keys[middle[0]] = keys[middle[1]]
        drawn.append(keys)
        return keys.tobytes()

    return randomness, drawn


def test_a_tie_draws_all_keys_again():
    randomness, drawn = source(1)
    ring = graph.draw_ring(CLIENTS, randomness)
    assert len(drawn) == 2
    assert ring.tolist() == np.argsort(drawn[1]).tolist()


def test_sixteen_draws_are_made_and_no_more():
    randomness, drawn = source(15)
    graph.draw_ring(CLIENTS, randomness)
    assert len(drawn) == 16
    randomness, drawn = source(16)
    with pytest.raises(LocalProtocolError, match="repeats itself"):
        graph.draw_ring(CLIENTS, randomness)
    assert len(drawn) == 16


def test_after_a_tie_the_beacons_stream_goes_on_where_it_was(monkeypatch):
    starts = []

    def tied(key, size, dtype, *, first_word):
        starts.append(first_word)
        words = stream(key, size, dtype, first_word=first_word)
        return np.zeros_like(words) if len(starts) < 3 else words

    monkeypatch.setattr(graph, "stream", tied)
    session, beacon = bytes(32), bytes(range(16))
    ring = graph.beacon_ring(CLIENTS, session, beacon)
    assert starts == [0, 2 * CLIENTS, 4 * CLIENTS]
    words = stream(derive(beacon, salt=session, label=Label.GRAPH, length=24), 3 * CLIENTS, np.uint64)
    assert ring.tolist() == np.argsort(words[2 * CLIENTS :]).tolist()
