"""Replies taken together come to what they come to one by one, whatever is wrong with some of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from cohort import Cohort, plan
from secagg import FixedPoint, InputError, LocalProtocolError, PeerFault, StaleMessage
from secagg.encoding.ring import unpack_add
from secagg.pairwise import uploads

CLIENTS = 6


def vectors(dimension: int) -> np.ndarray:
    return np.random.default_rng(5).uniform(-1, 1, (CLIENTS, dimension))


def at_inputs(dimension: int = 9, **overrides: object) -> tuple[Cohort, list[tuple[int, bytes]]]:
    """A cohort whose inputs are awaited, and all of them."""
    cohort = Cohort(plan(CLIENTS, dimension, **overrides), vectors(dimension), seed="together")
    while cohort.server.stage != "masked_input":
        cohort.run_stage()
    requests = cohort.server.requests()
    return cohort, [(one, cohort.answer(one, requests[one])) for one in requests]


def words_of(cohort: Cohort) -> bytes:
    while cohort.server.stage is not None:
        cohort.run_stage()
    return cohort.server.result.words.tobytes()


def one_by_one(dimension: int = 9, **overrides: object) -> bytes:
    cohort, replies = at_inputs(dimension, **overrides)
    for one, payload in replies:
        cohort.server.receive(one, payload)
    cohort.server.advance()
    return words_of(cohort)


@pytest.mark.parametrize("threat", ["semi-honest", "malicious-server"])
def test_every_stage_taken_together_ends_in_the_same_sum(threat):
    expected = one_by_one(threat=threat)
    cohort = Cohort(plan(CLIENTS, 9, threat=threat), vectors(9), seed="together")
    while cohort.server.stage is not None:
        requests = cohort.server.requests()
        assert cohort.server.receive_all([(one, cohort.answer(one, requests[one])) for one in requests]) == []
        cohort.server.advance()
    assert cohort.server.result.words.tobytes() == expected


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize(("dimension", "bits"), [(63, 16), (64, 16), (1000, 11), (1000, 24)])
def test_threads_do_not_change_a_sum(monkeypatch, threads, dimension, bits):
    monkeypatch.setattr(uploads, "_THREADING_BYTES", 0)
    monkeypatch.setattr(uploads.os, "cpu_count", lambda: threads)
    encoding = FixedPoint(clip=1.0, bits=bits)
    cohort, replies = at_inputs(dimension, encoding=encoding)
    assert cohort.server.receive_all(replies, threads=threads) == []
    cohort.server.advance()
    assert words_of(cohort) == one_by_one(dimension, encoding=encoding)


@pytest.mark.parametrize(("threads", "processors", "ranges"), [(2, 9, 2), (7, 7, 7), (7, 3, 3), (7, None, 1)], ids=str)
def test_threads_take_ranges_of_one_size_and_no_more_of_them_than_processors(monkeypatch, threads, processors, ranges):
    monkeypatch.setattr(uploads, "_THREADING_BYTES", 0)
    monkeypatch.setattr(uploads.os, "cpu_count", lambda: processors)
    sizes = []

    def sized(packed: np.ndarray, part: np.ndarray, bits: int) -> None:
        sizes.append(len(part))
        unpack_add(packed, part, bits)

    monkeypatch.setattr(uploads, "unpack_add", sized)
    cohort, replies = at_inputs(1000)
    cohort.server.receive_all(replies[:1], threads=threads)
    assert len(sizes) == ranges
    assert sum(sizes) == 1001
    assert max(sizes) < 1001 / ranges + uploads._RANGE_WORDS


def test_inputs_beyond_what_is_held_are_added_meanwhile(monkeypatch):
    monkeypatch.setattr("secagg.session.server.TOGETHER_BYTES", 1)
    monkeypatch.setattr("secagg.pairwise.server_session.TOGETHER_BYTES", 1)
    cohort, replies = at_inputs()
    waiting = []

    def arriving() -> Iterator[tuple[int, bytes]]:
        for reply in replies:
            waiting.append(len(cohort.server.waiting_for))
            yield reply

    cohort.server.receive_all(arriving())
    assert waiting == [6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_buffer_may_be_used_again_for_the_next_reply(threads):
    cohort, replies = at_inputs()
    buffer = bytearray(len(replies[0][1]))

    def arriving() -> Iterator[tuple[int, bytearray]]:
        for one, payload in replies:
            buffer[:] = payload
            yield one, buffer

    assert cohort.server.receive_all(arriving(), threads=threads) == []
    cohort.server.advance()
    assert words_of(cohort) == one_by_one()


def test_what_is_wrong_with_one_reply_costs_no_other():
    cohort, replies = at_inputs()
    (_, first), (_, second), *_ = replies
    bad = [
        (0, first[:-1]),
        (0, second),
        (1, b""),
        (77, first),
        (0, first),
        (0, first),
    ]
    refused = cohort.server.receive_all(bad + replies)
    assert [(type(fault), fault.client_id) for fault in refused] == [
        (PeerFault, 0),
        (PeerFault, 0),
        (PeerFault, 1),
        (PeerFault, 77),
        (StaleMessage, 0),
        (StaleMessage, 0),
    ]
    assert {fault.stage for fault in refused} == {"masked_input"}
    assert [(type(fault), fault.client_id) for fault in cohort.server.receive_all(replies[:2])] == [
        (StaleMessage, 0),
        (StaleMessage, 1),
    ]
    cohort.server.advance()
    assert words_of(cohort) == one_by_one()


@pytest.mark.parametrize("broken", [5, (1,), (1, b"", b""), None, [1, b""]])
def test_what_is_no_pair_ends_the_call_and_keeps_what_came_before(broken):
    cohort, replies = at_inputs()
    with pytest.raises(InputError, match="pair"):
        cohort.server.receive_all([*replies[:2], broken, *replies[2:]])
    assert cohort.server.waiting_for == (2, 3, 4, 5)
    assert cohort.server.receive_all(replies[2:]) == []
    cohort.server.advance()
    assert words_of(cohort) == one_by_one()


def test_replies_must_be_iterable_and_threads_positive():
    cohort, replies = at_inputs()
    with pytest.raises(InputError, match="pairs"):
        cohort.server.receive_all(5)
    with pytest.raises(InputError, match="threads"):
        cohort.server.receive_all(replies, threads=0)
    with pytest.raises(InputError, match="id"):
        cohort.server.receive_all([("0", b"")])
    assert len(cohort.server.waiting_for) == CLIENTS
    cohort.server.abort()
    with pytest.raises(LocalProtocolError):
        cohort.server.receive_all(replies)


def test_an_iterator_that_fails_keeps_what_it_gave():
    cohort, replies = at_inputs()

    def arriving() -> Iterator[tuple[int, bytes]]:
        yield from replies[:4]
        raise ConnectionError("the line is cut")

    with pytest.raises(ConnectionError):
        cohort.server.receive_all(arriving())
    assert cohort.server.waiting_for == (4, 5)
    assert cohort.server.receive_all(replies[4:]) == []
    cohort.server.advance()
    assert words_of(cohort) == one_by_one()


@pytest.mark.parametrize("where", ["the caller's thread", "another"])
def test_an_addition_that_breaks_off_leaves_no_sum(monkeypatch, where):
    cohort, replies = at_inputs(1000)
    monkeypatch.setattr(uploads, "_THREADING_BYTES", 0)
    monkeypatch.setattr(uploads.os, "cpu_count", lambda: 2)

    def breaks_off(*arguments: object) -> None:
        if (threading.current_thread() is threading.main_thread()) == (where == "the caller's thread"):
            raise MemoryError
        unpack_add(*arguments)

    monkeypatch.setattr(uploads, "unpack_add", breaks_off)
    with pytest.raises(MemoryError):
        cohort.server.receive_all(replies, threads=2)
    assert cohort.server.stage is None
    with pytest.raises(LocalProtocolError, match="aborted"):
        cohort.server.advance()
