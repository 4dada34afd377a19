"""What a round is about: refused where it is empty and needed, told where it is empty and was not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cohort import Cohort, identities, plan
from secagg import IN_MEMORY, ClientSession, DecodeError, InputError, ServerSession, simulate
from secagg.pairwise import result
from secagg.session.context import context_digest

ZEROS = np.zeros((4, 2))


def threatened(threat):
    return plan(4, 2, threat=threat, dropout=0.25)


@pytest.mark.parametrize("context", [b"", None], ids=["empty", "left out"])
def test_against_a_malicious_server_an_empty_context_is_refused_on_both_sides(context):
    params, known = threatened("malicious-server"), identities(range(4))
    given = {} if context is None else {"context": context}
    for build in (
        lambda: ClientSession(params, 1, credentials=known[1], **given, keep=IN_MEMORY),
        lambda: ServerSession(params, range(4), credentials=known[1].directory, **given, keep=IN_MEMORY),
    ):
        with pytest.raises(InputError, match="pass a hash of the model, or at least the round's name") as caught:
            build()
        assert "sending each client another model" in str(caught.value)


@pytest.mark.parametrize("threat", ["semi-honest", "malicious-server"])
@pytest.mark.parametrize("context", ["text", None, 5, bytearray(b"model"), memoryview(b"model")])
def test_a_context_is_bytes(threat, context):
    with pytest.raises(InputError, match="context must be bytes"):
        Cohort(threatened(threat), ZEROS, context=context)


def test_a_semi_honest_result_says_that_its_context_was_empty():
    params = threatened("semi-honest")
    cohort = Cohort(params, ZEROS, context=b"")
    while cohort.server.stage != "unmask":
        cohort.run_stage()
    restarted = ServerSession.restore(cohort.server.save(seal_key=None), keep=IN_MEMORY)
    assert cohort.run().notes == (*params.notes, result.EMPTY_CONTEXT)
    for one, request in restarted.requests().items():
        restarted.receive(one, cohort.clients[one].receive(request).payload)
    restarted.advance()
    for server in (restarted, ServerSession.restore(restarted.save(seal_key=None), keep=IN_MEMORY)):
        assert server.result.notes == (*params.notes, result.EMPTY_CONTEXT)


@pytest.mark.parametrize("threat", ["semi-honest", "malicious-server"])
def test_a_result_with_a_context_has_the_notes_of_its_parameters_alone(threat):
    params = plan(4, 2, threat=threat, dropout=0.25, protocol="secagg+")
    assert "complete graph" in params.notes[0]
    assert Cohort(params, ZEROS).run().notes == params.notes


@pytest.mark.parametrize("threat", ["semi-honest", "malicious-server"])
def test_a_simulation_has_a_context_of_its_own(threat, monkeypatch):
    params, seen = threatened(threat), set()

    def noting(begin):
        def build(self, *args, context, **options):
            seen.add(context)
            begin(self, *args, context=context, **options)

        return build

    for kind in (ClientSession, ServerSession):
        monkeypatch.setattr(kind, "__init__", noting(kind.__init__))
    assert simulate(ZEROS, params=params).outcome.notes == params.notes
    assert seen == {b"secagg.simulate" + params.encode()}
    simulate(ZEROS, params=params, context=b"the caller's")
    assert seen == {b"secagg.simulate" + params.encode(), b"the caller's"}


def test_a_simulation_that_is_given_an_empty_context_has_an_empty_one():
    with pytest.raises(InputError, match="context is empty"):
        simulate(ZEROS, params=threatened("malicious-server"), context=b"")
    told = simulate(ZEROS, params=threatened("semi-honest"), context=b"").outcome.notes
    assert result.EMPTY_CONTEXT in told


def test_a_saved_session_with_an_empty_context_is_not_restored_against_a_malicious_server():
    """Such states were written before an empty context was refused."""
    params, known = threatened("malicious-server"), identities(range(4))
    client = ClientSession(params, 1, context=b"x", credentials=known[1], keep=IN_MEMORY)
    server = ServerSession(params, range(4), context=b"x", credentials=known[1].directory, keep=IN_MEMORY)
    client._party = dataclasses.replace(client._party, context=context_digest(b""))
    server._round = dataclasses.replace(server._round, context=context_digest(b""))
    with pytest.raises(DecodeError, match="empty context"):
        ClientSession.restore(client.save(seal_key=None), 1, credentials=known[1], keep=IN_MEMORY)
    with pytest.raises(DecodeError, match="empty context"):
        ServerSession.restore(server.save(seal_key=None), credentials=known[1].directory, keep=IN_MEMORY)
