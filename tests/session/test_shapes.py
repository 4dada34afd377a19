"""Saved states whose arrays are of other sizes than their parameters give: refused when they are read."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cohort import Cohort, deterministic, plan
from secagg import BeaconNeeded, ClientSession, DecodeError, InputNeeded, ServerSession
from secagg.pairwise.graph import CompleteGraph
from secagg.pairwise.saved import save_client, save_server

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
        for one in dataclasses.fields(value):
            for other in other_sizes(getattr(value, one.name)):
                yield dataclasses.replace(value, **{one.name: other})


def altered(holder):
    for one in dataclasses.fields(holder):
        # A beacon is the caller's own, of any length, and survivors that are known are no more than a list
        if one.name in ("params", "earlier") or (one.name == "beacon" and "signed" in dir(holder)):
            continue
        for other in other_sizes(getattr(holder, one.name)):
            yield dataclasses.replace(holder, **{one.name: other})


@pytest.mark.parametrize("model", MODELS)
def test_every_array_and_digest_of_another_size_is_refused(model):
    tried, source = 0, deterministic("shapes")
    for cohort, session in passes(MODELS[model]):
        if isinstance(session, ServerSession):
            assert ServerSession.restore(session.save(), directory=cohort.directory).stage == session.stage
            current, state = session._round, session._state
            for pair in [*((one, state) for one in altered(current)), *((current, one) for one in altered(state))]:
                with pytest.raises(DecodeError):
                    ServerSession.restore(
                        save_server(pair, seal_key=None, randomness=source), directory=cohort.directory
                    )
                tried += 1
            continue
        identity = cohort.identities.get(0)
        assert ClientSession.restore(session.save(), 0, identity=identity).stage == session.stage
        state = session._state
        for one in altered(state):
            if type(one).__name__ == "Released":
                continue
            fields = (session._party, one, dict(session._answers), session.clipped)
            with pytest.raises(DecodeError):
                ClientSession.restore(save_client(fields, seal_key=None, randomness=source), 0, identity=identity)
            tried += 1
    assert tried > 50


def test_a_client_at_no_place_of_its_cohort_is_refused():
    cohort = Cohort(MODELS["semi-honest"], np.zeros((4, 3)))
    cohort.run_stage()
    client = cohort.clients[0]
    client.receive(cohort.server.requests()[0])
    for position in (4, 1 << 40):
        state = dataclasses.replace(client._state, position=position)
        fields = (client._party, state, dict(client._answers), None)
        with pytest.raises(DecodeError, match="sizes"):
            ClientSession.restore(save_client(fields, seal_key=None, randomness=deterministic("x")), 0)
