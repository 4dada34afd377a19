"""Saved states whose arrays are of other sizes than their parameters give: refused when they are read."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest

from cohort import Cohort, deterministic, plan
from secagg import IN_MEMORY, BeaconNeeded, ClientSession, DecodeError, InputNeeded, ServerSession
from secagg.pairwise.graph import CompleteGraph
from secagg.pairwise.saved import save_client, save_server
from secagg.pairwise.server_states import Session

MODELS = {
    "semi-honest": plan(4, 3),
    "malicious-server": plan(4, 3, threat="malicious-server"),
    "sparse": plan(40, 1, protocol="secagg+", dropout=0.1),
    "sparse, malicious-server": plan(40, 1, threat="malicious-server", protocol="secagg+", dropout=0.1),
}


def passes(params):
    """Yield the cohort with one server or client session in each state that it passes through."""
    cohort = Cohort(params, np.zeros((params.clients, params.dimension)))
    client = cohort.clients[0]
    while cohort.server.stage is not None:
        yield cohort, cohort.server
        yield cohort, client
        if cohort.server.beacon_needed:
            cohort.server.use_beacon(cohort.beacon)
        answer = client.receive(cohort.server.requests()[0])
        if isinstance(answer, BeaconNeeded):
            yield cohort, client
            answer = client.use_beacon(cohort.beacon)
        if isinstance(answer, InputNeeded):
            yield cohort, client
            answer = client.submit(cohort.vectors[0])
        cohort.server.receive(0, answer.payload)
        for one, request in cohort.server.requests().items():
            if one:
                cohort.server.receive(one, cohort.answer(one, request))
        cohort.server.advance()
    yield cohort, cohort.server
    yield cohort, client


def other_sizes(value):
    """Values of the same type and another size."""
    if isinstance(value, np.ndarray):
        others = (value[:-1], np.concatenate([value, value[-1:]]), value[..., None])
        yield from (other for other in others if other.shape != value.shape)
    elif isinstance(value, CompleteGraph):
        yield from (CompleteGraph(clients) for clients in (0, value.clients + 1, 1 << 40))
    elif isinstance(value, bytes) and value:
        yield from (value[:-1], value + b"\0")
    elif dataclasses.is_dataclass(value):
        yield from altered(value)


def altered(holder):
    for one in dataclasses.fields(holder):
        # A server's beacon is its caller's own, of any length, and survivors that are known are no more than a list
        if one.name in ("params", "earlier") or (one.name == "beacon" and isinstance(holder, Session)):
            continue
        for other in other_sizes(getattr(holder, one.name)):
            yield dataclasses.replace(holder, **{one.name: other})


@pytest.mark.parametrize("model", MODELS)
def test_every_array_and_digest_of_another_size_is_refused(model):
    tried, source = 0, deterministic("shapes")
    for cohort, session in passes(MODELS[model]):
        if isinstance(session, ServerSession):
            assert (
                ServerSession.restore(session.save(seal_key=None), credentials=cohort.directory, keep=IN_MEMORY).stage
                == session.stage
            )
            current, state = session._round, session._state
            for pair in [*((one, state) for one in altered(current)), *((current, one) for one in altered(state))]:
                with pytest.raises(DecodeError):
                    ServerSession.restore(
                        save_server(pair, seal_key=None, randomness=source),
                        credentials=cohort.directory,
                        keep=IN_MEMORY,
                    )
                tried += 1
            continue
        identity = cohort.identities.get(0)
        assert (
            ClientSession.restore(session.save(seal_key=None), 0, credentials=identity, keep=IN_MEMORY).stage
            == session.stage
        )
        state = session._state
        for one in altered(state):
            if type(one).__name__ == "Released":
                continue
            progress = replace(session._at, state=one)
            with pytest.raises(DecodeError):
                ClientSession.restore(
                    save_client(session._party, progress, seal_key=None, randomness=source),
                    0,
                    credentials=identity,
                    keep=IN_MEMORY,
                )
            tried += 1
    assert tried > 50


def test_a_client_at_no_place_of_its_cohort_is_refused():
    cohort = Cohort(MODELS["semi-honest"], np.zeros((4, 3)))
    cohort.run_stage()
    client = cohort.clients[0]
    client.receive(cohort.server.requests()[0])
    for position in (4, 1 << 40):
        state = dataclasses.replace(client._state, place=dataclasses.replace(client._state.place, position=position))
        progress = replace(client._at, state=state)
        saved = save_client(client._party, progress, seal_key=None, randomness=deterministic("x"))
        with pytest.raises(DecodeError, match="sizes"):
            ClientSession.restore(saved, 0, keep=IN_MEMORY)
