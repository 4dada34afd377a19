"""BFV and CKKS sums over the grid: what nodes and grid must hold, and who may fail or begin again at which moment."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

pytest.importorskip("tenseal", reason="homomorphic sums need the extra he")

import secagg
from cohorts import NODES, agree, start
from memory_grid import MemoryGrid, client_app, expected, identities, initial_arrays, train
from secagg import (
    IN_MEMORY,
    DecryptionKey,
    DecryptorLink,
    FileStore,
    InputError,
    ParameterError,
    PartyLink,
    PartyRound,
    read_directory,
)
from secagg.errors import LocalProtocolError, ServerFault, TooFewClients
from secagg.he.messages import HEKind, ReleaseRequest
from secagg.identity_files import new_seal_key, new_signing_key
from secagg.integrations.flower import Agreement, SecAggGrid, secagg_mod
from secagg.integrations.flower.envelope import Envelope
from secagg.integrations.flower.state import RoundRecord
from secagg.wire import SERVER, Header, open_message

SIZE = sum(array.numpy().size for array in initial_arrays().values())
WEIGHTS = 64


@functools.cache
def saved_key(params):
    return DecryptionKey.generate(params, keep=IN_MEMORY).save(seal_key=None)


def states(nodes):
    return [f"secagg-1-{node}.state" for node in nodes]


class Hospitals:
    """Nodes with files as operators make them, and a decryptor beside the server."""

    def __init__(self, folder, protocol="bfv", script=None, *, app=None, nodes=NODES, keep=IN_MEMORY, **terms):
        self.folder, self.protocol = folder, protocol
        self.terms = {"protocol": protocol, "max_weight": WEIGHTS, **terms}
        self.agreement = Agreement(**self.terms)
        self.params = self.agreement.plan(clients=len(nodes), dimension=SIZE, threat="semi-honest")
        self.configs, _ = identities(folder, nodes)
        self.directory = read_directory(folder / "cohort.json")
        self.signing_key = new_signing_key(folder / "decryptor.key")
        self.key = DecryptionKey.restore(saved_key(self.params), keep=keep, seal_key=None)
        (folder / "sums.key").write_bytes(self.key.public.message(self.signing_key))
        for config in self.configs.values():
            config["secagg-public-key"] = str(folder / "sums.key")
            config["secagg-decryptor"] = str(folder / "decryptor.pub")
        self.inner = MemoryGrid(
            app or client_app(secagg_mod(**self.terms)),
            nodes,
            script=script,
            node_configs=self.configs,
            run_config={"secagg-directory": self.directory.to_json()},
        )
        self.link = self.linked(IN_MEMORY)
        self.grid = self.new_grid()

    def linked(self, keep, **named):
        return DecryptorLink(self.key, self.directory, signing_key=self.signing_key, keep=keep, **named)

    def new_grid(self, **changes):
        given = {"parties": {"decryptor": self.link}, "directory": self.directory}
        return SecAggGrid(self.inner, **(self.terms | given | changes))

    def configure(self, **settings):
        """Give node 13 other settings; None takes one away."""
        for name, value in settings.items():
            name = "secagg-" + name.replace("_", "-")
            self.configs[13].pop(name) if value is None else self.configs[13].update({name: str(value)})
        self.inner.nodes[13].context.node_config = self.configs[13]

    @property
    def left(self):
        return sorted(path.name for path in (self.folder / "states").iterdir())

    def check(self, result, survivors):
        wanted = expected(initial_arrays(), survivors)
        for name, array in result.arrays.items():
            assert np.abs(array.numpy() - wanted[name]).max(initial=0.0) < self.params.encoding.step + 1e-6
        assert self.grid.rounds[-1].survivors == tuple(sorted(survivors))


@pytest.mark.parametrize("protocol", ["bfv", "ckks"])
def test_a_round_takes_one_exchange_and_one_release(tmp_path, protocol):
    hospitals = Hospitals(tmp_path, protocol)
    hospitals.check(start(hospitals.grid), NODES)
    assert hospitals.inner.exchanges == ["join"]
    (report,) = hospitals.grid.rounds
    assert (report.exchanges, report.faults, list(report.party_seconds)) == (1, {}, ["decryptor"])
    assert (hospitals.key.released, hospitals.left) == (1, states(NODES))
    assert hospitals.inner.pushed == []
    assert all(not state for state in hospitals.inner.states.values())
    assert all(len(node.trained) == 1 for node in hospitals.inner.nodes.values())


@pytest.mark.parametrize("protocol", ["bfv", "ckks"])
def test_several_rounds_with_nodes_that_drop_out(tmp_path, protocol):
    def script(delivery):
        silent = delivery.kind == "join" and delivery.node == 11 + len(hospitals.grid.rounds)
        return [] if silent else [delivery.answer()]

    hospitals = Hospitals(tmp_path, protocol, script)
    start(hospitals.grid, rounds=3)
    assert [set(NODES) - set(report.survivors) for report in hospitals.grid.rounds] == [{11}, {12}, {13}]
    assert [report.faults for report in hospitals.grid.rounds] == [
        {node: "encrypted_input: silent"} for node in (11, 12, 13)
    ]
    assert (hospitals.key.released, hospitals.left) == (3, states({11, 12, 14, 15}))
    assert [message.metadata.dst_node_id for message in hospitals.inner.pushed] == [11, 12, 13]
    hospitals.grid.close()
    assert hospitals.left == []


@pytest.mark.parametrize("protocol", ["bfv", "ckks"])
def test_the_grid_and_simulate_agree_within_a_step(tmp_path, protocol):
    hospitals = Hospitals(tmp_path, protocol, metrics={"loss": 8.0})
    hospitals.inner.script = lambda delivery: [] if delivery.node == 14 else [delivery.answer()]
    agree(hospitals.grid, hospitals.agreement, hospitals.params, absent=14, stage="encrypted_input")


def test_too_few_nodes_give_no_sum_and_no_release(tmp_path):
    def script(delivery):
        return [] if delivery.node > 13 and not hospitals.grid.rounds else [delivery.answer()]

    hospitals = Hospitals(tmp_path, script=script)
    start(hospitals.grid, rounds=2)
    assert "TooFewClients" in hospitals.grid.rounds[0].failure
    assert {message.metadata.dst_node_id for message in hospitals.inner.pushed} == set(NODES)
    assert hospitals.grid.rounds[1].survivors == NODES
    assert (hospitals.key.released, hospitals.left) == (1, states(NODES))


def payload_of(reply):
    return reply.content["secagg.payload"]["payload"].data


@pytest.mark.parametrize("sealed", [False, True])
def test_an_invitation_again_gets_the_same_upload_and_no_second_training(tmp_path, sealed):
    """Each delivery is a process of its own: between the two the node has its state alone."""
    answers = []

    def script(delivery):
        if delivery.kind == "dismiss":
            return [delivery.answer()]
        answers.append((delivery.answer(), delivery.answer()))
        assert f"secagg-1-{delivery.node}.state" in hospitals.left
        return [*answers[-1], answers[0][0]]

    hospitals = Hospitals(tmp_path, script=script)
    if sealed:
        new_seal_key(tmp_path / "seal")
        hospitals.configure(seal_key=tmp_path / "seal")
    hospitals.check(start(hospitals.grid), NODES)
    assert all(payload_of(first) == payload_of(again) for first, again in answers)
    assert all(len(node.trained) == 1 for node in hospitals.inner.nodes.values())
    hospitals.grid.close()
    assert (hospitals.left, hospitals.inner.exchanges) == ([], ["join", "dismiss"])


def test_who_is_not_asked_again_is_told_to_forget(tmp_path):
    hospitals = Hospitals(tmp_path)
    content = RecordDict({"arrays": initial_arrays(), "config": ConfigRecord()})
    for nodes in (NODES, NODES[1:], NODES[:2]):
        hospitals.grid.send_and_receive([Message(content, node, "train") for node in nodes], timeout=5)
    assert [len(report.survivors) for report in hospitals.grid.rounds] == [5, 4, 0]
    assert hospitals.left == []


def test_of_two_processes_with_one_invitation_one_answers(tmp_path):
    """The second begins while the first trains: no state lies there for it to find."""
    answers = []

    def app(node):
        made = ClientApp(mods=[secagg_mod(protocol="bfv", max_weight=WEIGHTS)])

        @made.train()
        def _train(message, context):
            node.trained.append(message)
            if context.node_id == 13 and len(node.trained) == 1:
                answers.append(hospitals.inner.handle(13, seen[0]))
            return train(message, context.node_id)

        return made

    seen = []

    def script(delivery):
        if delivery.node == 13:
            seen.append(delivery.message)
            answers.append(delivery.answer())
            return answers
        return [delivery.answer()]

    hospitals = Hospitals(tmp_path, script=script, app=app)
    hospitals.check(start(hospitals.grid), NODES)
    assert len(hospitals.inner.nodes[13].trained) == 2
    assert [reply.has_error() for reply in answers] == [False, True]
    assert "another round was begun" in answers[1].error.reason


@pytest.mark.parametrize("when", ["while it trains", "before its state is kept", "after its state is kept"])
def test_a_node_that_dies_answers_once_when_it_is_back(tmp_path, monkeypatch, when):
    class Died(BaseException):
        pass

    died = []

    def dies(here):
        if here == when and not died:
            died.append(here)
            raise Died

    def app(node):
        made = ClientApp(mods=[secagg_mod(protocol="bfv", max_weight=WEIGHTS)])

        @made.train()
        def _train(message, context):
            if context.node_id == 13:
                dies("while it trains")
            return train(message, context.node_id)

        return made

    keep = RoundRecord.keep

    def kept(self, state):
        mine = b"secagg-1-13" in repr(self._store._slot).encode()
        if mine:
            dies("before its state is kept")
        keep(self, state)
        if mine:
            dies("after its state is kept")

    def script(delivery):
        try:
            return [delivery.answer()]
        except Died:
            return [delivery.answer()]

    monkeypatch.setattr(RoundRecord, "keep", kept)
    hospitals = Hospitals(tmp_path, script=script, app=app)
    hospitals.check(start(hospitals.grid), NODES)
    assert died == [when]
    assert hospitals.left == states(NODES)


def test_another_model_than_the_round_was_begun_for_is_not_trained_on(tmp_path):
    def script(delivery):
        if delivery.node == 13:
            delivery.message.content["config"]["lr"] = 0.5
        return [delivery.answer()]

    hospitals = Hospitals(tmp_path, script=script)
    hospitals.check(start(hospitals.grid), set(NODES) - {13})
    assert "not the one that this round was begun for" in hospitals.grid.rounds[0].faults[13]
    assert not hospitals.inner.nodes[13].trained


@pytest.mark.parametrize("missing", ["secagg-key", "secagg-public-key", "secagg-decryptor"])
def test_a_node_that_lacks_something_names_it(tmp_path, missing):
    hospitals = Hospitals(tmp_path)
    name = missing.removeprefix("secagg-").replace("-", "_")
    gone = {name: None} | ({"directory_digest": None} if missing == "secagg-key" else {})
    hospitals.configure(**gone)
    hospitals.check(start(hospitals.grid), set(NODES) - {13})
    fault = hospitals.grid.rounds[0].faults[13]
    assert f"bfv (malicious-server) needs {missing}, which this node's own configuration does not name" in fault
    assert not hospitals.inner.nodes[13].trained


def test_a_node_that_has_nothing_names_all_of_it():
    inner = MemoryGrid(client_app(secagg_mod(protocol="bfv")), NODES[:1])
    agreement = Agreement(protocol="bfv")
    params = agreement.plan(clients=5, dimension=SIZE, threat="semi-honest")
    asked = Envelope(step="join", params=params.encode(), content=bytes(32))
    (reply,) = inner.send_and_receive([Message(asked.put_into(RecordDict()), NODES[0], "train")])
    assert "needs secagg-key, secagg-public-key, secagg-decryptor, which" in reply.error.reason


@pytest.mark.parametrize(
    ("setting", "content", "told"),
    [
        ("public_key", "nonsense", "do not serve"),
        ("public_key", "nowhere", "the file that secagg-public-key names is not there"),
        ("public_key", "others", "do not serve"),
        ("public_key", "forged", "do not serve"),
        ("decryptor", "nonsense", "the file that secagg-decryptor names does not hold what it should"),
        ("decryptor", "others", "do not serve"),
    ],
)
def test_files_that_do_not_serve_are_told_by_their_setting(tmp_path, setting, content, told):
    hospitals, ward = Hospitals(tmp_path), tmp_path / "ward-7"
    stranger = new_signing_key(tmp_path / "stranger.key")
    if content == "nonsense":
        ward.write_text("nonsense")
    elif content == "forged":
        ward.write_bytes(hospitals.key.public.message(stranger))
    elif content == "others" and setting == "decryptor":
        ward.write_bytes((tmp_path / "stranger.pub").read_bytes())
    elif content == "others":
        other = DecryptionKey.restore(saved_key(replace(hospitals.params, max_weight=WEIGHTS - 1)), keep=IN_MEMORY)
        ward.write_bytes(other.public.message(hospitals.signing_key))
    hospitals.configure(**{setting: ward})
    hospitals.check(start(hospitals.grid), set(NODES) - {13})
    fault = hospitals.grid.rounds[0].faults[13]
    assert told in fault
    assert "ward-7" not in fault
    assert str(tmp_path) not in fault


def test_a_grid_that_lacks_something_names_it(tmp_path):
    hospitals = Hospitals(tmp_path)
    with pytest.raises(InputError, match=r"bfv needs a decryptor: .* parties=\{'decryptor': \.\.\.\}"):
        hospitals.new_grid(parties=None)
    with pytest.raises(InputError, match="bfv has no party 'auditor'"):
        hospitals.new_grid(parties={"decryptor": hospitals.link, "auditor": hospitals.link})
    with pytest.raises(InputError, match="must be a PartyLink, got DecryptionKey"):
        hospitals.new_grid(parties={"decryptor": hospitals.key})
    with pytest.raises(InputError, match=r"secagg\+ has no party 'decryptor'"):
        SecAggGrid(hospitals.inner, parties={"decryptor": hospitals.link})
    hospitals.inner.set_run(type("Run", (), {"override_config": {}}))
    with pytest.raises(InputError, match=r"bfv \(semi-honest\) takes a directory of its clients, or secagg-directory"):
        start(hospitals.new_grid(directory=None))
    assert hospitals.inner.exchanges == []


def test_nothing_can_be_pipelined_where_no_keys_come_first():
    for made in (secagg_mod, functools.partial(SecAggGrid, None)):
        with pytest.raises(ParameterError, match="bfv has no stage of keys before its inputs"):
            made(protocol="bfv", pipelined=True)


@pytest.mark.parametrize(
    ("terms", "named"),
    [
        ({"max_weight": 63}, "max_weight 63, this client agreed to 64"),
        ({"sums": 7}, "releases 7, this client agreed to 100"),
        ({"protocol": "ckks"}, "protocol ckks, this client agreed to bfv"),
        ({"metrics": {"loss": 1.0}}, "same metrics and weighted_by"),
    ],
)
def test_other_terms_than_the_nodes_own_are_refused(tmp_path, terms, named):
    hospitals = Hospitals(tmp_path, app=client_app(secagg_mod(protocol="bfv", max_weight=WEIGHTS)), **terms)
    if terms == {"metrics": {"loss": 1.0}}:
        # As many coordinates, other ones
        hospitals.inner.app = client_app(secagg_mod(**hospitals.terms | {"metrics": {"other": 1.0}}))
    start(hospitals.grid)
    assert set(hospitals.grid.rounds[0].faults) == set(NODES)
    assert all(named in fault for fault in hospitals.grid.rounds[0].faults.values())
    assert hospitals.key.released == 0


def test_another_familys_round_is_told_by_the_protocol_agreed_on(tmp_path):
    hospitals = Hospitals(tmp_path)
    grid = SecAggGrid(hospitals.inner, threat="malicious-server", directory=hospitals.directory)
    start(grid)
    assert all("this client agreed to protocol bfv" in fault for fault in grid.rounds[0].faults.values())


class Flaky(PartyLink):
    """A link whose network, or party, fails at a step of the first round."""

    def __init__(self, inner, step, failure):
        self.inner, self.step, self.failure = inner, step, failure

    @property
    def identity(self):
        return self.inner.identity

    def fails(self, step):
        if step == self.step:
            self.step = None
            raise self.failure

    def begin(self, params, context, roster):
        self.fails("begin")
        link, begun = self, self.inner.begin(params, context, roster)

        class Round(PartyRound):
            opening = begun.opening

            def receive(self, client_id, payload):
                link.fails("receive")
                begun.receive(client_id, payload)

            def answer(self, request):
                link.fails("answer")
                return begun.answer(request)

        return Round()


@pytest.mark.parametrize("failure", [ConnectionResetError("no way"), LocalProtocolError("not now"), ServerFault("no")])
@pytest.mark.parametrize("step", ["begin", "receive", "answer"])
def test_a_decryptor_that_fails_costs_the_round_and_not_the_training(tmp_path, step, failure):
    hospitals = Hospitals(tmp_path)
    grid = hospitals.grid = hospitals.new_grid(parties={"decryptor": Flaky(hospitals.link, step, failure)})
    start(grid, rounds=2)
    told = "LocalProtocolError: the decryptor gave no answer" if isinstance(failure, OSError) else str(failure)
    assert told in grid.rounds[0].failure
    assert "no way" not in grid.rounds[0].failure
    assert grid.rounds[1].survivors == NODES
    assert (hospitals.key.released, hospitals.left) == (1, states(NODES))


def test_what_is_not_an_opening_gives_no_sum(tmp_path, monkeypatch):
    hospitals = Hospitals(tmp_path)
    begin = hospitals.link.begin

    class Forged(PartyRound):
        opening, receive, answer = b"SAgg", None, None

    monkeypatch.setattr(
        hospitals.link, "begin", lambda *given: Forged() if not hospitals.grid.rounds else begin(*given)
    )
    start(hospitals.grid, rounds=2)
    assert "DecodeError" in hospitals.grid.rounds[0].failure
    assert hospitals.grid.rounds[1].survivors == NODES


def test_what_is_not_the_decryptors_release_gives_no_sum(tmp_path):
    hospitals = Hospitals(tmp_path)
    begin = hospitals.link.begin

    def forging(*given):
        made = begin(*given)
        answer = made.answer
        made.answer = lambda request: answer(request)[:-1] + b"?"
        return made

    hospitals.link.begin = forging
    start(hospitals.grid)
    assert "not the decryptor's release" in hospitals.grid.rounds[0].failure
    assert hospitals.left == []


def test_a_key_that_cannot_be_kept_costs_a_round_and_is_kept_before_the_next(tmp_path):
    slot, full = FileStore(tmp_path / "decryptor").slot("key"), []

    def keep(state):
        if full:
            full.pop()
            raise OSError("no space left on device")
        slot.put(state)

    hospitals = Hospitals(tmp_path, keep=keep)
    full.append("once")
    start(hospitals.grid, rounds=2)
    assert "the decryptor gave no answer: OSError" in hospitals.grid.rounds[0].failure
    assert hospitals.grid.rounds[1].survivors == NODES
    # The first sum was decrypted and never left: it counts
    assert hospitals.key.released == 2
    again = FileStore(tmp_path / "decryptor").slot("key")
    assert DecryptionKey.restore(again.take(), keep=again.put, seal_key=None).released == 2


def test_a_budget_outlives_the_servers_process(tmp_path):
    store = FileStore(tmp_path / "decryptor")
    hospitals = Hospitals(tmp_path, keep=store.slot("key").put, sums=2)
    start(hospitals.grid, rounds=1)
    slot = store.slot("key")
    hospitals.key = DecryptionKey.restore(slot.take(), keep=slot.put, seal_key=None)
    hospitals.link = hospitals.linked(store.slot("session").put, seal_key=None)
    hospitals.grid = hospitals.new_grid()
    start(hospitals.grid, rounds=2)
    assert hospitals.grid.rounds[0].survivors == NODES
    assert "has released its 2 sums: make a new one" in hospitals.grid.rounds[1].failure
    assert hospitals.left == []


def test_a_link_is_for_its_keys_rounds_alone(tmp_path):
    hospitals = Hospitals(tmp_path)
    encoded, roster = hospitals.params.encode(), tuple(hospitals.directory)
    with pytest.raises(InputError, match="for other parameters"):
        hospitals.link.begin(replace(hospitals.params, max_weight=1).encode(), b"model", roster)
    with pytest.raises(InputError, match="other clients"):
        hospitals.link.begin(encoded, b"model", roster[1:])
    with pytest.raises(InputError, match="answers at once"):
        hospitals.linked(secagg.DEFERRED, seal_key=None)
    assert hospitals.link.identity == hospitals.signing_key.public
    assert hospitals.signing_key.secret_bytes().hex() not in repr(hospitals.link)


def test_a_decryptor_does_not_release_a_sum_of_too_few(tmp_path):
    hospitals = Hospitals(tmp_path)
    made = hospitals.link.begin(hospitals.params.encode(), b"model", tuple(hospitals.directory))
    session = open_message(made.opening)[0].session
    members = np.zeros(5, dtype=np.bool_)
    asked = Header(kind=HEKind.RELEASE_REQUEST, sender=SERVER, session=session).encode()
    with pytest.raises(TooFewClients):
        made.answer(asked + ReleaseRequest(members=members, digest=bytes(32)).encode())
    assert hospitals.key.released == 0


def test_the_guides_sum_runs_as_it_stands_there(tmp_path, monkeypatch):
    page = Path(secagg.__file__).parents[1] / "docs" / "flower.md"
    code = re.findall(r"^```python homomorphic\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(code) == 3
    monkeypatch.chdir(tmp_path)
    Path("decryptor").mkdir()
    new_signing_key("decryptor/decryptor.key")
    new_seal_key("decryptor/decryptor.seal")
    configs, directory = identities(tmp_path, NODES)
    names = {}
    exec("\n".join(code).replace("dimension=31", f"dimension={SIZE}"), names)  # noqa: S102 - our own page
    for config in configs.values():
        config |= {"secagg-public-key": "sums.pub-message", "secagg-decryptor": "decryptor/decryptor.pub"}
    inner = MemoryGrid(
        client_app(secagg_mod(**names["terms"])),
        NODES,
        node_configs=configs,
        run_config={"secagg-directory": directory},
    )
    link = names["link_beside"](read_directory("cohort.json"))
    result = names["train"](inner, FedAvg(fraction_evaluate=0.0), initial_arrays(), link, 1)
    for name, wanted in expected(initial_arrays(), NODES).items():
        assert np.abs(result.arrays[name].numpy() - wanted).max(initial=0.0) < names["params"].encoding.step + 1e-6
    assert list((tmp_path / "states").iterdir()) == []
