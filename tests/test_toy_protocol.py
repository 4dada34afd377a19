"""A protocol from outside the package goes through all that serves every protocol: the registry alone knows it."""

from __future__ import annotations

import importlib.metadata
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import secagg
import toy_protocol
from interruptions import every_cut
from secagg import (
    DEFERRED,
    IN_MEMORY,
    ClientSession,
    DecodeError,
    FixedPoint,
    InputError,
    LocalProtocolError,
    ParameterError,
    PeerFault,
    ServerSession,
    StaleMessage,
    TooFewClients,
    cli,
    planning,
    protocol,
)
from secagg.wire import HEADER_BYTES
from toy_protocol import STAGE, Toy, ToyParams

KEY = bytes(range(32))
PARAMS = ToyParams(clients=5, dimension=7, encoding=FixedPoint(clip=1.0, bits=16), max_weight=9)
VECTORS = np.random.default_rng(0).integers(0, 1 << 16, (5, 7)) * PARAMS.encoding.step - 1.0


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(protocol, "_registry", protocol._Registry())
    secagg.register_protocol(toy_protocol.PROTOCOL)


def total_of(clients, weights=(1,) * 5):
    codes = np.rint((VECTORS + 1) / PARAMS.encoding.step).astype(np.uint64)
    return sum(codes[one] * np.uint64(weights[one]) for one in clients)


def sessions(keep=IN_MEMORY, **named):
    server = ServerSession(PARAMS, range(5), context=b"model", keep=keep, **named)
    return server, [ClientSession(PARAMS, one, context=b"model", keep=keep, **named) for one in range(5)]


def reply_of(client, request):
    client.receive(request)
    return client.submit(VECTORS[client.client_id]).payload


def test_the_registry_has_it_by_name_by_parameters_and_by_its_states():
    assert protocol.protocol_names() == ("secagg", "secagg+", "bfv", "ckks", "toy")
    server, clients = sessions()
    for found in (
        protocol.protocol_named("toy"),
        protocol.protocol_of(PARAMS),
        protocol.protocol_of_state(secagg.snapshot.purpose_of(server.save(seal_key=None))),
    ):
        assert found is toy_protocol.PROTOCOL
    assert type(server) is toy_protocol.ToyServerSession
    assert {type(client) for client in clients} == {toy_protocol.ToyClientSession}
    assert protocol.every_stage()[-1] == STAGE


def test_what_is_not_registered_is_nobodys(monkeypatch):
    monkeypatch.setattr(protocol, "_registry", protocol._Registry())
    with pytest.raises(ParameterError, match="one of secagg, secagg\\+, bfv, ckks, got 'toy'"):
        protocol.protocol_named("toy")
    with pytest.raises(InputError, match="RoundParams, HEParams\\), got ToyParams"):
        secagg.simulate(VECTORS, params=PARAMS)


def clashing(**changed):
    return type(
        "Other", (Toy,), {"family": "other", "names": ("other",), "params_type": type("P", (), {}), **changed}
    )()


@pytest.mark.parametrize(
    "wrong",
    [
        {"names": ("secagg",)},
        {"names": ("toy", "other")},
        {"family": "homomorphic"},
        {"family": "toy"},
        {"params_type": secagg.RoundParams},
        {"params_type": ToyParams},
        {"names": ()},
        {"names": ("",)},
        {"family": "a/b"},
    ],
    ids=str,
)
def test_a_protocol_that_takes_anothers_place_or_has_no_name_is_refused(wrong):
    before = protocol.protocol_names()
    with pytest.raises(InputError):
        secagg.register_protocol(clashing(**wrong))
    with pytest.raises(InputError, match=r"an object of secagg\.Protocol"):
        secagg.register_protocol(Toy)
    assert protocol.protocol_names() == before
    secagg.register_protocol(clashing())
    secagg.register_protocol(Toy())  # the same again
    assert protocol.protocol_names() == (*before, "other")


def test_a_round_is_simulated():
    weights = [1, 9, 3, 4, 5]
    seen = secagg.simulate(VECTORS, params=PARAMS, weights=weights, faults={1: STAGE})
    np.testing.assert_array_equal(seen.total, total_of([0, 2, 3, 4], weights))
    assert (seen.weight, seen.survivors, seen.dropped) == (13, (0, 2, 3, 4), {1: STAGE})
    assert seen.threat == "semi-honest"
    assert seen.bytes_up == {STAGE: HEADER_BYTES + 8 * 8}
    assert set(seen.seconds) == set(seen.clipped) - {0, 2, 3, 4} | {STAGE}
    with pytest.raises(TooFewClients):
        secagg.simulate(VECTORS, params=PARAMS, faults={1: STAGE, 2: STAGE})
    with pytest.raises(InputError, match="stages are toy_input"):
        secagg.simulate(VECTORS, params=PARAMS, faults={1: "masked_input"})
    assert secagg.warmup(PARAMS) == 0


def test_it_is_planned_beside_the_others(tmp_path):
    asked = planning.Workload(clients=50, dimension=100, encoding=PARAMS.encoding)
    rows = {(row.protocol, row.threat): row for row in planning.compare(asked).rows}
    row = rows["toy", "semi-honest"]
    seen = secagg.simulate(np.zeros((50, 100)), params=toy_protocol.PROTOCOL.plan("toy", **vars_of(asked)))
    assert row.traffic.client_up == seen.bytes_up[STAGE]
    assert row.traffic.client_down == seen.bytes_down[STAGE]
    refusals = [one for one in planning.compare(asked).refusals if one.protocol == "toy"]
    assert [(one.threat, one.reason) for one in refusals] == [("malicious-server", "a toy knows no malicious server")]
    pytest.importorskip("matplotlib")
    figures, plot = tmp_path / "plan.json", tmp_path / "plan.svg"
    asked = ("plan", "--clients", "50", "--dimension", "100", "--no-timing", "--json", str(figures))
    done = CliRunner().invoke(cli.app, [*asked, "--plot", str(plot)])
    assert done.exit_code == 0, done.output
    assert f"\n{STAGE} " in done.stdout
    assert toy_protocol.NO_PROTECTION in " ".join(done.stdout.split())
    written = [one["protocol"] for one in json.loads(figures.read_text())["rows"] if one["possible"]]
    assert written.count("toy") == 1
    assert "toy, semi-honest" in plot.read_text(encoding="utf-8")


def vars_of(workload):
    return {name: getattr(workload, name) for name in ("clients", "dimension", "encoding", "dropout", "corrupt")}


@pytest.mark.parametrize("columns", [60, 200])
def test_a_model_is_trained_with_it(tmp_path, columns):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    figures, plot = tmp_path / "run.json", tmp_path / "run.svg"
    asked = ["train", "--protocol", "toy", "--rounds", "6", "--json", str(figures), "--plot", str(plot)]
    done = CliRunner().invoke(cli.app, asked, env={"COLUMNS": str(columns)})
    assert done.exit_code == 0, done.output
    report = json.loads(figures.read_text())
    assert report["parameters"]["protocol"] == "toy"
    assert all(set(entry["bytes_up"]) == {STAGE} for entry in report["rounds"])
    assert any(set(entry["dropped"].values()) == {STAGE} for entry in report["rounds"])
    assert report["final"]["distance"] <= report["final"]["bound"]
    told = " ".join(done.stdout.split())
    assert "the aggregator can read every vector" in told
    assert f"dropped out before {STAGE}: " in told or f" {STAGE}: " in told
    assert toy_protocol.NO_PROTECTION in told
    assert max(len(line) for line in done.stdout.splitlines() if str(tmp_path) not in line) <= columns
    assert "toy, semi-honest" in plot.read_text(encoding="utf-8")


def test_the_command_line_takes_its_name_once_it_is_known(monkeypatch):
    assert CliRunner().invoke(cli.app, ["warmup", "--clients", "9", "--protocol", "toy"]).exit_code == 0
    refused = CliRunner().invoke(cli.app, ["train", "--protocol", "toy", "--threat", "malicious-server"])
    assert (refused.exit_code, "a toy knows no malicious server" in refused.stderr) == (2, True)
    monkeypatch.setattr(Toy, "packages", ("a_module_that_is_not_there",))
    missing = CliRunner().invoke(cli.app, ["train", "--protocol", "toy"])
    assert (missing.exit_code, "needs a_module_that_is_not_there" in missing.stderr) == (1, True)
    monkeypatch.setattr(protocol, "_registry", protocol._Registry())
    unknown = CliRunner().invoke(cli.app, ["warmup", "--clients", "9", "--protocol", "toy"])
    assert (unknown.exit_code, "--protocol" in unknown.stderr) == (2, True)


@pytest.mark.parametrize("seal_key", [KEY, None], ids=["sealed", "clear"])
def test_every_state_is_kept_before_an_answer_and_a_session_goes_on_from_it(seal_key):
    kept = []
    terms = {"keep": lambda state: kept.append(bytes(state)), "seal_key": seal_key}
    server, clients = sessions(**terms)
    requests = server.requests()
    assert len(kept) == 1
    again = ServerSession.restore(kept[0], **terms)
    assert dict(again.requests()) == dict(requests)
    for client in clients[:4]:
        one, before = client.client_id, len(kept)
        payload = reply_of(client, requests[one])
        assert len(kept) == before + 1
        back = ClientSession.restore(kept[-1], one, **terms)
        assert back.receive(requests[one]).payload == payload
        assert (back.stage, back.clipped) == (None, 0.0)
        server.receive(one, payload)
        again.receive(one, payload)
    for one in (server, again):
        one.advance()
        np.testing.assert_array_equal(one.result.total, total_of(range(4)))
        assert one.result.dropped == {4: STAGE}
    finished = ServerSession.restore(kept[-1], **terms)
    np.testing.assert_array_equal(finished.result.total, total_of(range(4)))
    with pytest.raises(InputError, match="client 3's, not client 2's"):
        ClientSession.restore(kept[-3], 2, **terms)


def test_where_keeping_fails_nothing_leaves_and_the_same_call_goes_on():
    def fails(state):
        if not offered:
            offered.append(bytes(state))
            raise OSError("the disk is full")
        assert offered.pop() == bytes(state)

    offered: list[bytes] = []
    server, clients = sessions(keep=fails, seal_key=None)
    with pytest.raises(OSError, match="disk"):
        server.requests()
    with pytest.raises(LocalProtocolError, match="make the same call again"):
        server.advance()
    requests = server.requests()
    for client in clients:
        client.receive(requests[client.client_id])
        vector = VECTORS[client.client_id]
        with pytest.raises(OSError, match="disk"):
            client.submit(vector)
        with pytest.raises(LocalProtocolError, match="make the same call again"):
            client.submit(vector + 0.5)
        server.receive(client.client_id, client.submit(vector).payload)
    with pytest.raises(OSError, match="disk"):
        server.advance()
    assert server.advance() == {}
    np.testing.assert_array_equal(server.result.total, total_of(range(5)))


def test_deferred_steps_let_nothing_out_before_they_are_kept():
    server, clients = sessions(keep=DEFERRED, seal_key=KEY)
    pending = server.requests()
    assert isinstance(pending, secagg.Pending)
    requests = pending.kept()
    for client in clients:
        client.receive(requests[client.client_id])
        waits = client.submit(VECTORS[client.client_id])
        assert len(bytes(waits.state)) == len(waits.state)
        assert client.stage == STAGE
        server.receive(client.client_id, waits.kept().payload)
    server.advance().kept()
    np.testing.assert_array_equal(server.result.total, total_of(range(5)))


@given(st.data())
def test_a_state_that_was_altered_is_refused_as_such(data):
    server, clients = sessions()
    reply_of(clients[0], server.requests()[0])
    side = data.draw(st.sampled_from(["client", "server"]))
    saved = bytearray((clients[0] if side == "client" else server).save(seal_key=None))
    place = data.draw(st.integers(0, len(saved) - 1))
    saved[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DecodeError):
        ClientSession.restore(saved, 0, keep=IN_MEMORY) if side == "client" else ServerSession.restore(
            saved, keep=IN_MEMORY
        )


def resaved(session, **changed):
    """Return a state as somebody without the checksum's care would write it."""
    loaded = secagg.snapshot.load(
        session.save(seal_key=None), known=toy_protocol.SAVED_TYPES, purpose=session._purpose(), seal_key=None
    )
    return bytes(
        secagg.snapshot.save(
            {**loaded, **changed},
            known=toy_protocol.SAVED_TYPES,
            purpose=session._purpose(),
            seal_key=None,
            randomness=lambda count: bytes(count),
        )
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"params": PARAMS.encoding},
        {"client_id": 1.0},
        {"context": b"short"},
        {"state": PARAMS},
        {"answers": ((2, bytes(32), None),)},
        {"answers": ((1, b"", None),)},
        {"answers": ((1, bytes(32), 3),)},
        {"clipped": 1},
        {"more": 1},
    ],
    ids=str,
)
def test_a_clients_state_of_other_fields_is_refused(wrong):
    client = sessions()[1][0]
    assert ClientSession.restore(resaved(client), 0, keep=IN_MEMORY).stage == STAGE
    with pytest.raises(DecodeError):
        ClientSession.restore(resaved(client, **wrong), 0, keep=IN_MEMORY)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ids": np.arange(4, dtype=np.uint64)},
        {"ids": np.array([0, 1, 2, 3, 3], dtype=np.uint64)},
        {"members": np.zeros(4, np.bool_)},
        {"total": np.zeros(7, np.uint64)},
        {"total": np.zeros(8, np.uint32)},
        {"nonce": bytes(31)},
        {"context": b""},
    ],
    ids=str,
)
def test_a_servers_state_of_other_sizes_is_refused(wrong):
    from dataclasses import replace

    server = sessions()[0]
    assert ServerSession.restore(resaved(server), keep=IN_MEMORY).stage == STAGE
    with pytest.raises(DecodeError):
        ServerSession.restore(resaved(server, state=replace(server._state, **wrong)), keep=IN_MEMORY)
    with pytest.raises(DecodeError):
        ServerSession.restore(resaved(server, state=PARAMS), keep=IN_MEMORY)


def test_a_server_counts_each_client_once_and_nothing_that_is_no_input():
    server, clients = sessions()
    requests = server.requests()
    payload = reply_of(clients[0], requests[0])
    for wrong in (b"", payload[:-1], payload + b"\0", payload[:6] + b"\1" + payload[7:], requests[0]):
        with pytest.raises(PeerFault):
            server.receive(0, wrong)
    with pytest.raises(PeerFault):
        server.receive(1, payload)
    with pytest.raises(PeerFault, match="not in the roster"):
        server.receive(9, payload)
    with pytest.raises(TooFewClients):
        server.advance()
    server.receive(0, payload)
    with pytest.raises(StaleMessage):
        server.receive(0, payload)
    assert server.waiting_for == (1, 2, 3, 4)
    refused = server.receive_all([(one, reply_of(clients[one], requests[one])) for one in (1, 2, 3)] + [(0, payload)])
    assert [type(one) for one in refused] == [StaleMessage]
    assert server.ready
    server.advance()
    np.testing.assert_array_equal(server.result.total, total_of(range(4)))
    with pytest.raises(StaleMessage):
        server.receive(4, reply_of(clients[4], requests[4]))
    with pytest.raises(LocalProtocolError):
        server.advance()
    server.abort()
    with pytest.raises(LocalProtocolError):
        _ = server.result
    with pytest.raises(LocalProtocolError):
        server.receive(4, payload)


def test_parties_that_disagree_never_meet_and_credentials_have_no_place():
    server, _ = sessions()
    for other in (
        ClientSession(PARAMS, 0, context=b"another", keep=IN_MEMORY),
        ClientSession(ToyParams(clients=6, dimension=7, encoding=PARAMS.encoding), 0, context=b"model", keep=IN_MEMORY),
    ):
        with pytest.raises(secagg.ServerFault, match="other parameters or another context"):
            other.receive(server.requests()[0])
    for build in (
        lambda: ClientSession(PARAMS, 0, keep=IN_MEMORY, credentials=object()),
        lambda: ServerSession(PARAMS, range(5), keep=IN_MEMORY, credentials=object()),
    ):
        with pytest.raises(InputError, match="this protocol takes none"):
            build()


def test_an_input_that_is_cut_off_while_it_is_folded_counts_once():
    server, clients = sessions()
    requests = server.requests()
    replies = [reply_of(client, requests[client.client_id]) for client in clients]
    saved = server.save(seal_key=None)

    def fresh():
        return ServerSession.restore(saved, keep=IN_MEMORY)

    for one in every_cut(fresh, lambda one: one.receive(0, replies[0])):
        for client, reply in enumerate(replies):
            try:
                one.receive(client, reply)
            except StaleMessage:
                assert client == 0
        one.advance()
        np.testing.assert_array_equal(one.result.total, total_of(range(5)))


def points(monkeypatch, value):
    made = importlib.metadata.EntryPoint(name="toy", value=value, group=protocol.ENTRY_POINTS)
    real = importlib.metadata.entry_points

    def entry_points(**asked):
        return [made] if asked == {"group": protocol.ENTRY_POINTS} else real(**asked)

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    monkeypatch.setattr(protocol, "_registry", protocol._Registry())


def test_an_installed_package_brings_it_by_an_entry_point(monkeypatch):
    points(monkeypatch, "toy_protocol:PROTOCOL")
    assert protocol.protocol_names()[-1] == "toy"
    assert protocol.protocol_names().count("toy") == 1
    seen = secagg.simulate(VECTORS, params=PARAMS)
    np.testing.assert_array_equal(seen.total, total_of(range(5)))


@pytest.mark.parametrize(
    "value", ["no_such_module:PROTOCOL", "toy_protocol:MISSING", "toy_protocol:STAGE", "secagg:RoundParams"]
)
def test_a_broken_entry_point_is_named_each_time_and_spoils_no_other_protocol(monkeypatch, value):
    points(monkeypatch, value)
    assert protocol.protocol_named("secagg+").family == "pairwise"
    planned = secagg.RoundParams.plan(clients=5, dimension=7, encoding=PARAMS.encoding)
    assert secagg.simulate(VECTORS, params=planned).weight == 5
    for _ in range(2):
        with pytest.raises(InputError, match=f"entry point toy = '{value}'"):
            protocol.protocols()
    assert CliRunner().invoke(cli.app, ["train", "--help"]).exit_code == 0
    secagg.register_protocol(toy_protocol.PROTOCOL)
    assert secagg.simulate(VECTORS, params=PARAMS).weight == 5


class _Inheriting(ToyParams):
    """Parameters that are another protocol's as well."""


def _built(kind: type[Toy], **changes: object) -> Toy:
    made = kind()
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda: _built(type("Derived", (Toy,), {"params_type": _Inheriting}), family="d", names=("d",)), "clashes"),
        (lambda: _built(Toy, family="again", names=("again",)), "clashes"),
        (lambda: _built(type("Text", (Toy,), {}), family="t", names="xyz"), "tuple of names"),
        (lambda: _built(type("Any", (Toy,), {"params_type": object}), family="a", names=("a",)), "no class"),
        (
            lambda: type("Bare", (secagg.Protocol,), {"family": "b", "names": ("b",), "every_stage": ()})(),
            "lacks params_type, client_session, server_session, plan",
        ),
    ],
)
def test_a_protocol_that_would_answer_for_anothers_parameters_or_lacks_something_is_refused(wrong, match):
    before = secagg.protocol.protocol_names()
    with pytest.raises(secagg.InputError, match=match):
        secagg.register_protocol(wrong())
    assert secagg.protocol.protocol_names() == before
