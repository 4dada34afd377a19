"""What saved states may hold is read off annotations, whatever form NumPy gives its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from secagg import IN_MEMORY, snapshot
from secagg.field_types import check_of
from secagg.he import (
    client_session as client,
)
from secagg.he import (
    decryptor_session as decryptor,
)
from secagg.he import (
    keys,
)
from secagg.he import (
    server_session as server,
)
from secagg.pairwise import saved
from secagg.pairwise.client_states import Release

ARRAY, OTHER = np.zeros(3, np.uint64), np.zeros(3, np.uint8)


ALIASES = {"NumPy's own": NDArray[np.uint64], "written out": np.ndarray[tuple[Any, ...], np.dtype[np.uint64]]}


@pytest.mark.parametrize("hint", ALIASES.values(), ids=ALIASES)
def test_an_array_of_one_scalar_type_is_told_from_all_else(hint):
    check = check_of(hint)
    assert check(ARRAY)
    assert not any(check(one) for one in (OTHER, ARRAY.astype(bool), b"", None, [0], 0, np.uint64(1)))


def test_an_array_of_an_abstract_scalar_type_takes_its_kinds():
    check = check_of(NDArray[np.unsignedinteger])
    assert check(ARRAY)
    assert check(OTHER)
    assert not check(ARRAY.astype(bool))
    assert not check(ARRAY.astype(float))


@pytest.mark.parametrize(
    ("hint", "fits", "others"),
    [
        (int, [0, 1 << 70], [True, 1.0, "1", None, np.uint8(1)]),
        (bool, [True, False], [0, None]),
        (float, [0.5], [1, None]),
        (bytes, [b""], ["", None, bytearray()]),
        (bytes | None, [b"", None], [0, ""]),
        (Literal["a", "b"], ["a"], ["c", 1, None, ARRAY]),
        (tuple[int, ...], [(), (1, 2)], [(1, "2"), [1], None]),
        (tuple[Release, ...], [()], [(1,)]),
    ],
)
def test_every_form_that_states_use(hint, fits, others):
    check = check_of(hint)
    assert all(check(one) for one in fits)
    assert not any(check(one) for one in others)


@pytest.mark.parametrize("hint", [list[int], dict[str, int], tuple[int, str], Any, "int", 5, NDArray[Any]])
def test_any_other_form_is_a_mistake_that_shows_where_the_class_is_named(hint):
    with pytest.raises(TypeError, match="no check of saved states"):
        check_of(hint)


def test_a_class_with_such_a_field_is_refused_where_it_is_named():
    @dataclass
    class Strange:
        one: list[int]

    for kind in (Strange, int):
        with pytest.raises(TypeError):
            snapshot.known_types(kind)


def test_every_field_of_every_state_has_a_check():
    every = [saved._CLIENT_TYPES, saved._SERVER_TYPES, client._KNOWN, server._KNOWN, decryptor._KNOWN, keys._KNOWN]
    for known in every:
        for one in known.values():
            assert all(callable(check) for check in one.checks.values())
    assert {"session", "accumulator", "shared"} <= saved._SERVER_TYPES["CollectingInputs"].checks.keys()
    assert {"graph", "sealed", "signed"} <= saved._SERVER_TYPES["Session"].checks.keys()


def test_our_own_mistakes_are_not_told_as_damaged_data(monkeypatch):
    """A check that raises is this library's fault: it once made every state of a new NumPy 'damaged'."""
    from cohort import Cohort, plan
    from secagg import ClientSession

    session = Cohort(plan(3, 2), np.zeros((3, 2))).clients[0]
    state = session.save(seal_key=None)

    def broken(value: object) -> bool:
        raise TypeError("an annotation of a new kind")

    checks = saved._CLIENT_TYPES["Party"].checks
    monkeypatch.setitem(checks, "context", broken)
    with pytest.raises(TypeError, match="a new kind"):
        ClientSession.restore(state, 0, keep=IN_MEMORY)
