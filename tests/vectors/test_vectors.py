"""The published vectors, run against the library through its public sessions, and not by their generator's code."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import generate
import secagg
from secagg import (
    IN_MEMORY,
    BeaconNeeded,
    ClientSession,
    Directory,
    Identity,
    InputNeeded,
    PeerFault,
    Reply,
    RoundParams,
    SecAggError,
    ServerFault,
    ServerSession,
    SigningKey,
)

HERE = Path(__file__).parent
ROUNDS = {
    document["name"]: document
    for path in sorted(HERE.glob("round-*.json"))
    for document in [json.loads(path.read_text(encoding="utf-8"))]
}
FAILING = {
    vector["name"]: vector
    for path in sorted(HERE.glob("failing-*.json"))
    for vector in json.loads(path.read_text(encoding="utf-8"))["vectors"]
}
SMALL = [name for name, document in ROUNDS.items() if document["parameters"]["clients"] <= 10]


class Feed:
    """Randomness that was written down: each draw must be of the length that stands there."""

    def __init__(self):
        self.left = []

    def load(self, draws):
        self.left = [bytes.fromhex(draw) for draw in draws]

    def __call__(self, length):
        assert self.left, f"{length} bytes are drawn where the vector has no draw left"
        drawn = self.left.pop(0)
        assert len(drawn) == length, f"{length} bytes are drawn where the vector has {len(drawn)}"
        return drawn


class Party:
    """One side of a round, built from the vector's own fields and driven by its steps."""

    def __init__(self, document, name):
        self.document, self.name, self.feed = document, name, Feed()
        self.params = RoundParams.decode(bytes.fromhex(document["parameters"]["canonical"]))
        self.context = bytes.fromhex(document["context"])
        known = document.get("identities")
        self.directory = self.identity = self.session = None
        if known:
            self.directory = Directory({int(one): bytes.fromhex(keys["public"]) for one, keys in known.items()})
        if known and name != "server":
            self.identity = Identity(key=SigningKey(bytes.fromhex(known[name]["seed"])), directory=self.directory)

    def create(self):
        if self.name == "server":
            ids = [int(one) for one in self.document["ids"]]
            self.session = ServerSession(
                self.params, ids, context=self.context, credentials=self.directory, randomness=self.feed, keep=IN_MEMORY
            )
        else:
            self.session = ClientSession(
                self.params,
                int(self.name),
                context=self.context,
                credentials=self.identity,
                randomness=self.feed,
                keep=IN_MEMORY,
            )

    def restart(self):
        saved = self.session.save(seal_key=None)
        if self.name == "server":
            self.session = ServerSession.restore(
                saved, credentials=self.directory, randomness=self.feed, keep=IN_MEMORY
            )
        else:
            self.session = ClientSession.restore(
                saved, int(self.name), credentials=self.identity, randomness=self.feed, keep=IN_MEMORY
            )

    def perform(self, step, incoming):
        """Do what a step says; return what the session answered."""
        session, call = self.session, step["call"]
        if call in ("create", "restart"):
            return getattr(self, call)()
        if call == "receive" and self.name == "server":
            return session.receive(int(step["from"]), incoming)
        if call == "receive":
            return session.receive(incoming)
        if call == "submit":
            given = self.document["inputs"][self.name] | {key: step[key] for key in ("vector", "weight") if key in step}
            return session.submit(np.array([float(value) for value in given["vector"]]), int(given["weight"]))
        if call == "use_beacon":
            return session.use_beacon(bytes.fromhex(step.get("beacon", self.document.get("beacon"))))
        assert call in ("advance", "abort", "delivered")
        return getattr(session, call)()

    @property
    def state(self):
        return repr(self.session).rpartition(": ")[2].rstrip(">")


def answer_name(answer):
    return {Reply: "reply", InputNeeded: "input_needed", BeaconNeeded: "beacon_needed"}.get(type(answer))


class Messages:
    """A round's messages by name; one that the vector gives by its digest is known once a party has made it."""

    def __init__(self, document):
        self.given = document["messages"]
        self.known = {name: bytes.fromhex(one["hex"]) for name, one in self.given.items() if "hex" in one}

    def __getitem__(self, name):
        return self.known[name]

    def compare(self, name, payload):
        given = self.given[name]
        if "hex" in given:
            assert payload.hex() == given["hex"], name
        else:
            assert (len(payload), hashlib.sha256(payload).hexdigest()) == (given["length"], given["sha256"]), name
        self.known[name] = payload


def check_step(party, step, messages):
    party.feed.load(step["randomness"])
    answer = party.perform(step, messages[step["incoming"]] if "incoming" in step else None)
    assert not party.feed.left, "not every draw was made"
    if party.name == "server":
        requests = {str(one): payload for one, payload in party.session.requests().items()}
        if "outgoing" in step:
            assert list(requests) == list(step["outgoing"])
            for one, name in step["outgoing"].items():
                messages.compare(name, requests[one])
    else:
        assert answer_name(answer) == step.get("answer")
        if "outgoing" in step:
            messages.compare(step["outgoing"], answer.payload)
    assert party.state == step["next_state"]
    assert hashlib.sha256(party.session.save(seal_key=None)).hexdigest() == step["next_state_digest"]


def check_result(result, expected):
    assert [str(one) for one in result.survivors] == expected["survivors"]
    assert [str(value) for value in result.total.tolist()] == expected["total"]
    assert str(result.weight) == expected["weight"]
    if "dropped" in expected:
        assert {str(one): stage for one, stage in result.dropped.items()} == expected["dropped"]


@pytest.mark.parametrize("name", ROUNDS)
def test_every_step_of_every_round(name):
    document = ROUNDS[name]
    parties = {one: Party(document, one) for one in ["server", *document["ids"]]}
    messages = Messages(document)
    for number, step in enumerate(document["steps"]):
        try:
            check_step(parties[step["party"]], step, messages)
        except (AssertionError, SecAggError) as problem:
            pytest.fail(f"{name}: step {number}, {step['call']} of {step['party']}: {problem!r}")
    check_result(parties["server"].session.result, document["result"])


@pytest.mark.parametrize("name", ROUNDS)
def test_every_party_stands_alone_where_its_messages_are_given(name):
    """The server and the traced clients need nothing but what the vector holds."""
    document = ROUNDS[name]
    stood = []
    for one in ["server", *document["ids"]]:
        party, messages = Party(document, one), Messages(document)
        steps = [step for step in document["steps"] if step["party"] == one]
        if all("hex" in document["messages"][step["incoming"]] for step in steps if "incoming" in step):
            for step in steps:
                check_step(party, step, messages)
            stood.append(one)
    assert "server" in stood
    assert len(stood) >= (len(document["ids"]) + 1 if name in SMALL else 4)


@pytest.mark.parametrize("name", ROUNDS)
def test_what_is_written_in_words_is_what_the_bytes_say(name):
    document = ROUNDS[name]
    written, params = document["parameters"], RoundParams.decode(bytes.fromhex(document["parameters"]["canonical"]))
    for field in ("clients", "dimension", "dropout", "corrupt", "protocol", "threat", "graph", "neighbours"):
        assert written[field] == getattr(params, field)
    assert (written["clip"], written["bits"]) == (params.encoding.clip, params.encoding.bits)
    assert (written["threshold"], written["ring_bits"]) == (params.threshold, params.ring_bits)
    assert (int(written["max_weight"]), written["minimum_survivors"]) == (params.max_weight, params.minimum_survivors)
    for one, keys in document.get("identities", {}).items():
        assert SigningKey(bytes.fromhex(keys["seed"])).public.hex() == keys["public"], one
    derived = document["derived"]
    assert document["messages"]["INVITATION"]["hex"][32:96] == derived["round_id"]
    upload = next(name for name in document["messages"] if name.startswith("MASKED_INPUT"))
    assert document["messages"][upload]["hex"][32:96] == derived["session_id"]
    gone = {one for one, stage in document["dropouts"].items() if stage not in ("check_consistency", "unmask")}
    assert document["result"]["survivors"] == [one for one in document["ids"] if one not in gone]
    assert document["result"]["dropped"] == document["dropouts"]


@pytest.mark.parametrize("name", ROUNDS)
def test_the_total_is_the_sum_of_the_survivors_codes_up_to_rounding(name):
    document = ROUNDS[name]
    clip, largest = document["parameters"]["clip"], 2 ** document["parameters"]["bits"] - 1
    inputs = [document["inputs"][one] for one in document["result"]["survivors"]]
    weights = [int(given["weight"]) for given in inputs]
    assert int(document["result"]["weight"]) == sum(weights)
    for index, total in enumerate(document["result"]["total"]):
        held = [max(-clip, min(clip, given["vector"][index])) for given in inputs]
        exact = sum(weight * (value + clip) * largest / (2 * clip) for weight, value in zip(weights, held, strict=True))
        assert math.isclose(int(total), exact, rel_tol=1e-12, abs_tol=sum(weights))


def blame(error):
    if isinstance(error, PeerFault):
        return str(error.client_id), error.proof
    return ("server" if isinstance(error, ServerFault) else None), None


def check_operation(party, operation, messages):
    incoming, expect = operation.get("incoming"), operation["expect"]
    payload = None
    if incoming is not None:
        payload = messages[incoming["message"]] if "message" in incoming else bytes.fromhex(incoming["hex"])
    party.feed.load(operation["randomness"])
    before = party.session.save(seal_key=None)
    if expect["outcome"] == "error":
        with pytest.raises(SecAggError) as caught:
            party.perform(operation, payload)
        error = caught.value
        assert type(error) is getattr(secagg, expect["error"]), repr(error)
        assert blame(error) == (expect["culprit"], expect["proof"]), repr(error)
        if "evidence" in expect:
            assert error.evidence.encode().hex() == expect["evidence"]
        if "need" in expect:
            assert (error.have, error.need) == (expect["have"], expect["need"])
        assert party.session.save(seal_key=None) == before, "an error changed the party"
        return
    answer = party.perform(operation, payload)
    if "answer" in expect:
        assert answer_name(answer) == expect["answer"]
    if "outgoing" in expect:
        assert answer.payload == messages[expect["outgoing"]]
    if "result" in expect:
        check_result(party.session.result, expect["result"])


@pytest.mark.parametrize("name", FAILING)
def test_every_failing_vector(name):
    vector = FAILING[name]
    document, start = ROUNDS[vector["round"]], vector["start"]
    party, messages = Party(document, start["party"]), Messages(document)
    steps = [step for step in document["steps"] if step["party"] == start["party"]][: start["steps"]]
    for step in steps:
        party.feed.load(step["randomness"])
        party.perform(step, messages[step["incoming"]] if "incoming" in step else None)
    assert party.state == start["state"]
    for operation in vector["operations"]:
        check_operation(party, operation, messages)


def test_the_vectors_cover_what_they_should():
    parameters = [document["parameters"] for document in ROUNDS.values()]
    combinations = {(one["threat"], one["graph"], one["clients"] > 10) for one in parameters}
    threats = ("semi-honest", "malicious-server")
    assert combinations == {(threat, *size) for threat in threats for size in (("complete", False), ("harary", True))}
    for threat in threats:
        rounds = [document for document in ROUNDS.values() if document["parameters"]["threat"] == threat]
        stages = {"advertise_keys", "share_keys", "masked_input", "unmask"}
        stages |= {"check_consistency"} if threat == "malicious-server" else set()
        assert {stage for document in rounds for stage in document["dropouts"].values()} == stages
    assert len(FAILING) >= 40
    expected = [operation["expect"] for vector in FAILING.values() for operation in vector["operations"]]
    errors = {expect["error"] for expect in expected if expect["outcome"] == "error"}
    assert errors >= {"ServerFault", "PeerFault", "StaleMessage", "TooFewClients", "InconsistentSum", "InputError"}
    assert {expect.get("proof") for expect in expected} == {None, False, True}
    for vector in FAILING.values():
        assert any(operation["expect"]["outcome"] == "error" for operation in vector["operations"]), vector["name"]


def test_no_name_stands_twice_and_the_folder_stays_small():
    paths = list(HERE.glob("failing-*.json"))
    assert len(FAILING) == sum(len(json.loads(path.read_text(encoding="utf-8"))["vectors"]) for path in paths)
    assert sum(path.stat().st_size for path in HERE.glob("*.json")) < 2_000_000


# ------------------------------------------------------------------------------------------------------------ schema


@pytest.mark.parametrize("path", sorted(HERE.glob("*.json")), ids=lambda path: path.name)
def test_files_fit_the_schema(path):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((HERE / "schema.json").read_text(encoding="utf-8"))
    document = json.loads(path.read_text(encoding="utf-8"))
    if path.name == "schema.json":
        jsonschema.Draft202012Validator.check_schema(document)
        return
    jsonschema.Draft202012Validator(schema).validate(document)
    document["surplus"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(document)


# --------------------------------------------------------------------------------------------------------- generator


def test_the_files_are_what_the_generator_writes():
    assert generate.first_difference(HERE) is None


def test_the_check_names_the_first_difference(tmp_path, capsys):
    for path in HERE.glob("*.json"):
        shutil.copy(path, tmp_path)
    assert generate.main(["--check", "--directory", str(tmp_path)]) == 0
    name = "round-semi-honest-complete-3.json"
    text = (tmp_path / name).read_text(encoding="utf-8")
    (tmp_path / name).write_text(text.replace('"total"', '"totals"'), encoding="utf-8")
    assert generate.main(["--check", "--directory", str(tmp_path)]) == 1
    assert f"{name}, line" in (shown := capsys.readouterr().out)
    assert '"totals": [' in shown
    (tmp_path / name).unlink()
    assert generate.main(["--check", "--directory", str(tmp_path)]) == 1
    assert f"{name}: is missing" in capsys.readouterr().out
    assert generate.main(["--directory", str(tmp_path)]) == 0
    (tmp_path / "round-of-nobody.json").write_text("{}", encoding="utf-8")
    assert generate.main(["--check", "--directory", str(tmp_path)]) == 1
    assert "round-of-nobody.json: is not generated" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------------- the reference


def load_reference():
    path = HERE.parent / "spec" / "reference.py"
    if "reference" not in sys.modules:
        spec = importlib.util.spec_from_file_location("reference", path)
        sys.modules["reference"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["reference"]


class Slow:
    """A round's vector as the reference takes it."""

    def __init__(self, document):
        written = document["parameters"]
        self.reference, self.document, self.messages = load_reference(), document, Messages(document)
        self.malicious = written["threat"] == "malicious-server"
        self.params = self.reference.Parameters(
            n=written["clients"],
            d=written["dimension"],
            clip=written["clip"],
            bits=written["bits"],
            max_weight=int(written["max_weight"]),
            dropout=written["dropout"],
            corrupt=written["corrupt"],
            plus=written["protocol"] == "secagg+",
            harary=written["graph"] == "harary",
            k=written["neighbours"],
            t=written["threshold"],
            b=written["ring_bits"],
            malicious=self.malicious,
        )
        known = document.get("identities", {})
        self.seeds = {one: bytes.fromhex(keys["seed"]) for one, keys in known.items()}
        self.directory = {int(one): bytes.fromhex(keys["public"]) for one, keys in known.items()} or None
        self.beacon = bytes.fromhex(document["beacon"]) if "beacon" in document else None

    def steps_of(self, one):
        return [step for step in self.document["steps"] if step["party"] == one]

    def is_given(self, one):
        return all(step["incoming"] in self.messages.known for step in self.steps_of(one) if "incoming" in step)

    def answers(self, one):
        """Yield the name and bytes of each of a client's messages, made from what the vector says alone."""
        steps, messages = self.steps_of(one), self.messages
        drawn = io.BytesIO(bytes.fromhex("".join(draw for step in steps for draw in step["randomness"])))
        context = bytes.fromhex(self.document["context"])
        identity = {"signing_seed": self.seeds[one], "directory": self.directory} if self.malicious else {}
        client = self.reference.Client(self.params, int(one), context, drawn.read, **identity)
        for step in steps:
            incoming = messages[step["incoming"]] if "incoming" in step else None
            if step.get("answer") == "beacon_needed":
                roster = incoming
            elif step.get("answer") == "input_needed":
                client.receive_shares(incoming)
            elif step["call"] == "use_beacon":
                yield step["outgoing"], client.share_keys(roster, self.beacon)
            elif step["call"] == "submit":
                given = self.document["inputs"][one]
                yield step["outgoing"], client.mask_input(given["vector"], int(given["weight"]))
            elif step.get("answer") == "reply":
                yield step["outgoing"], getattr(client, METHODS[step["outgoing"].partition(" ")[0]])(incoming)
        assert not drawn.read()

    def rosters(self):
        """Return every roster of the round; those that are given by digest differ in their neighbours alone."""
        recipients = next(step for step in self.document["steps"] if step["call"] == "advance")["outgoing"]
        given = next(self.messages.known[name] for name in recipients.values() if name in self.messages.known)
        for one, name in recipients.items():
            if name not in self.messages.known:
                row = self.document["derived"]["neighbours"][self.document["ids"].index(one)]
                own = b"".join(position.to_bytes(4, "little") for position in row)
                self.messages.compare(name, given[: len(given) - len(own)] + own)
        return {int(one): self.messages[name] for one, name in recipients.items()}

    def replies(self, kind):
        known = self.messages.known
        return {int(name.rpartition(" ")[2]): known[name] for name in known if name.startswith(f"{kind} from ")}

    def words(self):
        known = self.messages.known
        return self.reference.sum_of_round(
            self.params,
            rosters=self.rosters(),
            dealt=self.replies("ENCRYPTED_SHARES"),
            relay=next(payload for name, payload in known.items() if name.startswith("RELAYED_SHARES")),
            inputs=self.replies("MASKED_INPUT"),
            request=known["UNMASK_REQUEST"],
            releases=self.replies("UNMASK_SHARES"),
            beacon=self.beacon,
            directory=self.directory,
        )


METHODS = {
    "KEY_ADVERTISEMENT": "advertise_keys",
    "ENCRYPTED_SHARES": "share_keys",
    "CONSISTENCY": "check_consistency",
    "UNMASK_SHARES": "unmask",
}


@pytest.mark.parametrize("name", ROUNDS)
def test_the_reference_gives_the_same_bytes_and_the_same_sum(name):
    document = ROUNDS[name]
    slow = Slow(document)
    assert slow.params.encode().hex() == document["parameters"]["canonical"]
    assert [str(word) for word in slow.words()] == [*document["result"]["total"], document["result"]["weight"]]
    answered = 0
    for one in document["ids"]:
        if slow.is_given(one):
            for message, payload in slow.answers(one):
                slow.messages.compare(message, payload)
                answered += 1
    assert answered >= 8


@pytest.mark.parametrize("name", [name for name in ROUNDS if ROUNDS[name]["parameters"]["graph"] == "harary"])
def test_the_reference_draws_the_beacons_graph(name):
    document, slow = ROUNDS[name], Slow(ROUNDS[name])
    rows = document["derived"]["neighbours"]
    assert all(position in rows[peer] for position, row in enumerate(rows) for peer in row)
    if slow.beacon is not None:
        session = bytes.fromhex(document["derived"]["session_id"])
        assert slow.reference.beacon_graph(slow.params, session, slow.beacon) == rows
