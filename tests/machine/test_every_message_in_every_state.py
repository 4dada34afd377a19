"""Every message of either side, in every state of either side, in both models: the right answer or a typed error."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from cohort import Cohort, deterministic, plan
from secagg import (
    IN_MEMORY,
    BeaconNeeded,
    ClientSession,
    InputNeeded,
    LocalProtocolError,
    PeerFault,
    Reply,
    ServerFault,
    ServerSession,
    StaleMessage,
    TooFewClients,
)
from secagg.pairwise.client_table import client_table
from secagg.pairwise.messages import Kind
from secagg.pairwise.server_table import server_table
from secagg.pairwise.stages import stages_of
from secagg.wire import SERVER, Header
from world import EXACT

ME = 2
COHORTS = {
    "semi-honest": {"clients": 6, "dropout": 0.3},
    "malicious-server": {"clients": 6, "dropout": 0.3},
    "malicious-server, sparse": {"clients": 40, "dropout": 0.1, "protocol": "secagg+"},
}
ANSWER, AGAIN, INPUT, BEACON, REFUSE = "answer", "again", "input", "beacon", "refuse"
TAKE, STALE, FAULT, CLOSED = "take", "stale", "fault", "closed"

CLIENT_TABLES = {
    # Columns: INVITATION, ROSTER, RELAYED_SHARES, UNMASK_REQUEST
    "semi-honest": {
        "Idle": (ANSWER, REFUSE, REFUSE, REFUSE),
        "Advertised": (AGAIN, ANSWER, REFUSE, REFUSE),
        "Shared": (AGAIN, AGAIN, INPUT, REFUSE),
        "Ready": (AGAIN, AGAIN, INPUT, REFUSE),
        "Masked": (AGAIN, AGAIN, AGAIN, ANSWER),
        "Released": (AGAIN, AGAIN, AGAIN, AGAIN),
    },
    # Columns: INVITATION, ROSTER, RELAYED_SHARES, UNMASK_REQUEST, RELAYED_SIGNATURES
    "malicious-server": {
        "Idle": (ANSWER, REFUSE, REFUSE, REFUSE, REFUSE),
        "Advertised": (AGAIN, ANSWER, REFUSE, REFUSE, REFUSE),
        "Shared": (AGAIN, AGAIN, INPUT, REFUSE, REFUSE),
        "Ready": (AGAIN, AGAIN, INPUT, REFUSE, REFUSE),
        "Masked": (AGAIN, AGAIN, AGAIN, ANSWER, REFUSE),
        "Checked": (AGAIN, AGAIN, AGAIN, AGAIN, ANSWER),
        "Released": (AGAIN, AGAIN, AGAIN, AGAIN, AGAIN),
    },
    "malicious-server, sparse": {
        "Idle": (ANSWER, REFUSE, REFUSE, REFUSE, REFUSE),
        "Advertised": (AGAIN, BEACON, REFUSE, REFUSE, REFUSE),
        "Fixed": (AGAIN, BEACON, REFUSE, REFUSE, REFUSE),
        "Shared": (AGAIN, AGAIN, INPUT, REFUSE, REFUSE),
        "Ready": (AGAIN, AGAIN, INPUT, REFUSE, REFUSE),
        "Masked": (AGAIN, AGAIN, AGAIN, ANSWER, REFUSE),
        "Checked": (AGAIN, AGAIN, AGAIN, AGAIN, ANSWER),
        "Released": (AGAIN, AGAIN, AGAIN, AGAIN, AGAIN),
    },
}
_MALICIOUS_SERVER = {
    "CollectingKeys": (TAKE, FAULT, FAULT, FAULT, FAULT),
    "CollectingShares": (STALE, TAKE, FAULT, FAULT, FAULT),
    "CollectingInputs": (STALE, STALE, TAKE, FAULT, FAULT),
    "CollectingConsistency": (STALE, STALE, STALE, TAKE, FAULT),
    "CollectingUnmask": (STALE, STALE, STALE, STALE, TAKE),
    "Finished": (STALE, STALE, STALE, STALE, STALE),
    "Aborted": (CLOSED,) * 5,
}
SERVER_TABLES = {
    # Columns: KEY_ADVERTISEMENT, ENCRYPTED_SHARES, MASKED_INPUT, UNMASK_SHARES
    "semi-honest": {
        "CollectingKeys": (TAKE, FAULT, FAULT, FAULT),
        "CollectingShares": (STALE, TAKE, FAULT, FAULT),
        "CollectingInputs": (STALE, STALE, TAKE, FAULT),
        "CollectingUnmask": (STALE, STALE, STALE, TAKE),
        "Finished": (STALE, STALE, STALE, STALE),
        "Aborted": (CLOSED,) * 4,
    },
    # Columns: KEY_ADVERTISEMENT, ENCRYPTED_SHARES, MASKED_INPUT, CONSISTENCY, UNMASK_SHARES
    "malicious-server": _MALICIOUS_SERVER,
    "malicious-server, sparse": _MALICIOUS_SERVER
    | {"CollectingShares, no beacon": (STALE, CLOSED, FAULT, FAULT, FAULT)},
}


class Recorded:
    """A round of ME's, state by state, and every message to and from it."""

    def __init__(self, name: str, seed: str) -> None:
        variant = COHORTS[name]
        params = plan(encoding=EXACT, dimension=3, threat=name.split(",")[0], **variant)
        self.cohort = cohort = Cohort(params, np.ones((params.clients, 3)) / 2, seed=seed)
        self.requests, self.replies, self.clients, self.servers = [], [], {}, {}
        while cohort.server.stage is not None:
            if cohort.server.beacon_needed:
                self._note_server(", no beacon")
                cohort.server.use_beacon(cohort.beacon)
            self._note_server("")
            for one, request in cohort.server.requests().items():
                cohort.server.receive(one, self._answer(request) if one == ME else cohort.answer(one, request))
            cohort.server.advance()
        self._note_client()
        self._note_server("")
        cohort.server.abort()
        self._note_server("")

    def _note_client(self) -> None:
        client = self.cohort.clients[ME]
        self.clients[type(client._state).__name__] = client.save(seal_key=None)

    def _note_server(self, suffix: str) -> None:
        server = self.cohort.server
        self.servers[type(server._state).__name__ + suffix] = server.save(seal_key=None)

    def _answer(self, request: bytes) -> bytes:
        self.requests.append(request)
        client = self.cohort.clients[ME]
        self._note_client()
        reply = client.receive(request)
        if isinstance(reply, BeaconNeeded):
            self._note_client()
            reply = client.use_beacon(self.cohort.beacon)
        if isinstance(reply, InputNeeded):
            self._note_client()
            reply = client.submit(self.cohort.vectors[ME])
        self.replies.append(reply.payload)
        return reply.payload

    def client(self, state: str) -> ClientSession:
        identity = self.cohort.identities.get(ME)
        return ClientSession.restore(
            self.clients[state], ME, credentials=identity, randomness=deterministic("restored"), keep=IN_MEMORY
        )

    def server(self, state: str) -> ServerSession:
        return ServerSession.restore(self.servers[state], credentials=self.cohort.directory, keep=IN_MEMORY)


@functools.cache
def recorded(name: str, seed: str = "every message") -> Recorded:
    return Recorded(name, seed)


def cells(tables):
    return [
        pytest.param(name, state, message, expected, id=f"{name}-{state}-{message}")
        for name, table in tables.items()
        for state, row in table.items()
        for message, expected in enumerate(row)
    ]


def states(tables):
    return [pytest.param(name, state, id=f"{name}-{state}") for name, table in tables.items() for state in table]


def refuses(call, session, error):
    """Check that a call raises and leaves its session as it was."""
    before = session.save(seal_key=None)
    with pytest.raises(error) as caught:
        call()
    assert session.save(seal_key=None) == before
    return caught.value


@pytest.mark.parametrize("name", COHORTS)
def test_the_tables_hold_every_state_and_every_message(name):
    params = recorded(name).cohort.params
    clients = {state.__name__ for state, _ in client_table(params)} | {"Released"}
    assert set(CLIENT_TABLES[name]) == clients
    assert set(recorded(name).clients) == set(CLIENT_TABLES[name])
    table = server_table(params)
    servers = {state.__name__ for state, _ in table} | {"Finished", "Aborted"}
    assert {state.split(",")[0] for state in SERVER_TABLES[name]} == servers
    assert set(recorded(name).servers) == set(SERVER_TABLES[name])
    assert [request[6] for request in recorded(name).requests] == [row.request for row in table.values()]
    assert [reply[6] for reply in recorded(name).replies] == [reply for _, reply in table]
    assert [row.stage for row in table.values()] == list(stages_of(params.threat))


@pytest.mark.parametrize(("name", "state", "message", "expected"), cells(CLIENT_TABLES))
def test_every_request_in_every_client_state(name, state, message, expected):
    made = recorded(name)
    client, request = made.client(state), made.requests[message]
    if expected is REFUSE:
        error = refuses(lambda: client.receive(request), client, ServerFault)
        assert "awaits" in str(error)
        return
    before = client.save(seal_key=None)
    reply = client.receive(request)
    kind = {INPUT: InputNeeded, BEACON: BeaconNeeded}.get(expected, Reply)
    assert type(reply) is kind
    if expected is AGAIN:
        assert reply.payload == made.replies[message]
        assert client.save(seal_key=None) == before
    if expected is ANSWER:
        assert (reply.payload[6], reply.stage) == (made.replies[message][6], stages_of(client.params.threat)[message])
        assert client.save(seal_key=None) != before
    assert client.receive(request) == reply


@pytest.mark.parametrize(("name", "state", "message", "expected"), cells(CLIENT_TABLES))
def test_every_request_of_another_session_in_every_client_state(name, state, message, expected):
    """An invitation is to a round of its own; all else names a session, and no state takes another's."""
    client, request = recorded(name).client(state), recorded(name, "another session").requests[message]
    if (state, message) == ("Idle", 0):
        assert isinstance(client.receive(request), Reply)
    else:
        refuses(lambda: client.receive(request), client, ServerFault)


@pytest.mark.parametrize(("name", "state", "message", "expected"), cells(SERVER_TABLES))
def test_every_reply_in_every_server_state(name, state, message, expected):
    made = recorded(name)
    server, reply = made.server(state), made.replies[message]
    if expected is TAKE:
        before = server.save(seal_key=None)
        server.receive(ME, reply)
        assert server.save(seal_key=None) != before
        refuses(lambda: server.receive(ME, reply), server, StaleMessage)
        return
    error = refuses(lambda: server.receive(ME, reply), server, (PeerFault, LocalProtocolError))
    assert type(error) is {STALE: StaleMessage, FAULT: PeerFault, CLOSED: LocalProtocolError}[expected]
    assert expected is CLOSED or error.client_id == ME


@pytest.mark.parametrize(("name", "state", "message", "expected"), cells(SERVER_TABLES))
def test_every_reply_of_another_session_in_every_server_state(name, state, message, expected):
    server, reply = recorded(name).server(state), recorded(name, "another session").replies[message]
    error = refuses(lambda: server.receive(ME, reply), server, (PeerFault, LocalProtocolError))
    assert (type(error) is LocalProtocolError) == (state == "Aborted")


@pytest.mark.parametrize(("name", "state"), states(CLIENT_TABLES))
def test_every_number_of_a_kind_in_every_client_state(name, state):
    """Replies, the other model's messages and kinds that do not exist, from the server, itself and another client."""
    made, session = recorded(name), recorded(name).requests[-1][16:48]
    own = {request[6] for request in made.requests}
    for kind in range(256):
        for sender in (SERVER, ME, ME + 1):
            if kind in own and sender == SERVER:
                continue
            client = made.client(state) if kind % 16 == 0 else client  # noqa: F821 - the first kind is 0
            payload = Header(kind=kind, sender=sender, session=session).encode() + bytes(40)
            with pytest.raises(ServerFault):
                client.receive(payload)
    assert client.save(seal_key=None) == made.clients[state]


@pytest.mark.parametrize(("name", "state"), states(SERVER_TABLES))
def test_every_number_of_a_kind_in_every_server_state(name, state):
    made, server = recorded(name), recorded(name).server(state)
    session = made.replies[-1][16:48]
    own = {reply[6] for reply in made.replies}
    error = LocalProtocolError if state == "Aborted" else PeerFault
    for kind in set(range(256)) - own:
        for sender in (ME, ME + 1, SERVER):
            with pytest.raises(error):
                server.receive(ME, Header(kind=kind, sender=sender, session=session).encode() + bytes(40))
    assert server.save(seal_key=None) == made.servers[state]


@pytest.mark.parametrize(("name", "state"), states(CLIENT_TABLES))
def test_every_local_call_in_every_client_state(name, state):
    made = recorded(name)
    client = made.client(state)
    if state != "Ready":
        refuses(lambda: client.submit(made.cohort.vectors[ME]), client, LocalProtocolError)
    if state != "Fixed":
        refuses(lambda: client.use_beacon(made.cohort.beacon), client, LocalProtocolError)
    if state == "Ready":
        assert client.submit(made.cohort.vectors[ME]).payload == made.replies[2]
    if state == "Fixed":
        assert client.use_beacon(made.cohort.beacon).payload[6] == Kind.ENCRYPTED_SHARES


@pytest.mark.parametrize(("name", "state"), states(SERVER_TABLES))
def test_every_local_call_in_every_server_state(name, state):
    made = recorded(name)
    server = made.server(state)
    if not server.beacon_needed:
        refuses(lambda: server.use_beacon(made.cohort.beacon), server, LocalProtocolError)
    if state != "Finished":
        refuses(lambda: server.result, server, LocalProtocolError)
    # Nobody has answered in any of these
    ended = state in ("Finished", "Aborted")
    refuses(server.advance, server, LocalProtocolError if ended else TooFewClients)
