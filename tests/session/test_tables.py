"""The tables drive: with any entry of any row made wrong, no round ends as it should."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from cohort import Cohort, plan
from secagg import SecAggError
from secagg.pairwise import client_table as clients
from secagg.pairwise import server_table as servers
from secagg.session.table import Local

MODELS = {
    "SEMI_HONEST": plan(4, 3),
    "MALICIOUS_COMPLETE": plan(4, 3, threat="malicious-server"),
    "MALICIOUS_SPARSE": plan(40, 3, threat="malicious-server", protocol="secagg+", dropout=0.1),
}
# In the complete graph all are asked, and all answer, in every stage: whom a row asks shows where somebody is gone
GONE = {
    "SEMI_HONEST": plan(5, 3, dropout=0.4),
    "MALICIOUS_COMPLETE": plan(9, 3, dropout=0.2, threat="malicious-server"),
    "MALICIOUS_SPARSE": plan(40, 3, threat="malicious-server", protocol="secagg+", dropout=0.1),
}
FAULTS = {0: "share_keys", 1: "masked_input"}
NOTHING = object()


def own_rows(module: object, name: str) -> Iterator[tuple]:
    """The rows of a table; of the sparse one those that the complete one does not have."""
    shared = module.MALICIOUS_COMPLETE if name == "MALICIOUS_SPARSE" else {}
    return ((key, row) for key, row in getattr(module, name).items() if shared.get(key) is not row)


def wrong_client_rows() -> Iterator[pytest.param]:
    for name in MODELS:
        table = getattr(clients, name)
        for (state, comes), row in own_rows(clients, name):
            for field in ("read", "step", "next", "reply"):
                others = {id(getattr(one, field)): getattr(one, field) for one in table.values()}
                for other in others.values():
                    if other is not getattr(row, field) and not (field == "read" and isinstance(comes, Local)):
                        wrong = dataclasses.replace(row, **{field: other})
                        label = getattr(other, "__name__", str(other))
                        yield pytest.param(name, (state, comes), wrong, id=f"{name} {state.__name__} {field} {label}")


def wrong_server_rows() -> Iterator[pytest.param]:
    for name in MODELS:
        table = getattr(servers, name)
        for (state, reply), row in own_rows(servers, name):
            for field in ("request", "encode", "fold", "close", "next"):
                others = {id(getattr(one, field)): getattr(one, field) for one in table.values()}
                for other in others.values():
                    if other is not getattr(row, field):
                        wrong = dataclasses.replace(row, **{field: other})
                        label = getattr(other, "__name__", str(other))
                        yield pytest.param(name, (state, reply), wrong, id=f"{name} {state.__name__} {field} {label}")


def outcome(cohort: Cohort, faults: dict[int, str] | None = None) -> object:
    """What a round ends with; a crash of ours, since the row is, or a refusal."""
    try:
        return cohort.run(faults).total.tolist()
    except (SecAggError, RuntimeError, AttributeError, TypeError, IndexError, ValueError, KeyError, AssertionError):
        return NOTHING


@pytest.mark.parametrize(("name", "key", "wrong"), list(wrong_client_rows()))
def test_a_wrong_row_of_a_clients_table_ends_no_round(name, key, wrong, monkeypatch):
    params = MODELS[name]
    monkeypatch.setattr(clients, name, {**getattr(clients, name), key: wrong})
    assert outcome(Cohort(params, np.zeros((params.clients, 3)))) is NOTHING


@pytest.mark.parametrize(("name", "key", "wrong"), list(wrong_server_rows()))
def test_a_wrong_row_of_the_servers_table_ends_no_round(name, key, wrong, monkeypatch):
    # Where nobody is gone, who shared keys and who survived are the same set, and some messages one message
    params = GONE[name]
    monkeypatch.setattr(servers, name, {**getattr(servers, name), key: wrong})
    assert outcome(Cohort(params, np.zeros((params.clients, 3))), FAULTS) is NOTHING


@pytest.mark.parametrize("name", MODELS)
def test_a_stage_asks_whom_its_row_says(name, monkeypatch):
    table = getattr(servers, name)
    expected = Cohort(GONE[name], np.zeros((GONE[name].clients, 3))).run(FAULTS)
    assert expected.dropped == FAULTS
    everybody = servers._everybody
    for key, row in list(table.items())[2:]:
        wrong = dataclasses.replace(row, recipients=lambda current, state: everybody(current, state))
        with monkeypatch.context() as patched:
            patched.setattr(servers, name, {**table, key: wrong})
            cohort = Cohort(GONE[name], np.zeros((GONE[name].clients, 3)))
            while cohort.server.stage != row.stage:
                cohort.run_stage(FAULTS)
            assert len(cohort.server.requests()) == GONE[name].clients
            gone = [one for one, stage in FAULTS.items() if one not in cohort.server.waiting_for]
            assert gone == []


@pytest.mark.parametrize("name", MODELS)
def test_every_stage_of_the_server_is_one_that_clients_answer(name):
    """Both tables hold the same messages, in the same stages."""
    asked = {row.request: (row.stage, reply) for (_, reply), row in getattr(servers, name).items()}
    answered: dict[object, tuple[str, object]] = {}
    for (_, comes), row in getattr(clients, name).items():
        if row.reply is not None:
            answered[comes if row.answers is None else row.answers] = (row.stage, row.reply)
    assert asked == answered
