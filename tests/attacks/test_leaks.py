"""Where secrets could leak without any protocol: texts, saved states, pickles."""

from __future__ import annotations

import ast
import base64
import copy
import pickle
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import secagg
from cohort import CONTEXT, Cohort, deterministic
from plays import KEY, THREATS, codes_of, cohort_at, exchange, flipped, parameters, restored, signed
from secagg import IN_MEMORY, BeaconNeeded, ClientSession, InputNeeded, SecAggError, ServerSession
from secagg.pairwise.messages import EncryptedShares, RelayedShares, UnmaskShares
from secagg.primitives.prg import MaskKeys

both_models = pytest.mark.parametrize("threat", THREATS)


# ------------------------------------------------------------------------- 21: secrets in texts, and in saved states


class Recording:
    """A source of reproducible bytes that remembers everything it gave out."""

    def __init__(self, seed: str) -> None:
        self.given: list[bytes] = []
        self._source = deterministic(seed)

    def __call__(self, length: int) -> bytes:
        self.given.append(self._source(length))
        return self.given[-1]


def windows(secret: bytes) -> Iterator[bytes]:
    """Eight bytes at a time; a text that shows a secret shows some of these."""
    for start in range(0, len(secret) - 7, 8):
        yield secret[start : start + 8]


def renderings(window: bytes) -> Iterator[str]:
    yield window.hex()
    yield window.hex(" ")
    yield repr(window)[2:-1]
    yield ", ".join(map(str, window))
    yield " ".join(map(str, window))
    yield str(int.from_bytes(window, "little"))
    yield str(int.from_bytes(window, "big"))
    for shift, first in ((0, 0), (1, 2), (2, 3)):  # base64 in each of its alignments, whole digits of the window's
        yield base64.b64encode(bytes(shift) + window).decode()[first : first + 10]


def shown(text: str, secrets: list[bytes]) -> list[bytes]:
    flat = " ".join(text.split())
    whole = {str(int.from_bytes(secret, order)) for secret in secrets for order in ("little", "big")}
    found = [window for secret in secrets for window in windows(secret) for one in renderings(window) if one in flat]
    return found + [number.encode() for number in whole if len(number) > 18 and number in flat]


def fields_of(state: object) -> dict[str, object]:
    return {name: getattr(state, name) for name in getattr(state, "__slots__", ())}


def secrets_in(state: object) -> Iterator[bytes]:
    for name in ("channel_secret", "mask_secret", "seed", "opening_keys"):
        if isinstance(value := fields_of(state).get(name), bytes):
            yield value
    shares = fields_of(state).get("shares")
    if isinstance(shares, np.ndarray):
        yield from (record.tobytes() for pair in shares for record in pair)


class Watched:
    """A round whose every object is shown and whose every error is kept, with all secrets that there were."""

    def __init__(self, threat: str) -> None:
        self.params = parameters(threat, 6)
        self.vectors = codes_of(self.params) - 127.5 + np.array([0.125, 0.25, 0.0625])
        self.cohort = Cohort(self.params, self.vectors)
        self.sources = {one: Recording(f"leaks/{one}") for one in range(6)}
        self.cohort.clients = {
            one: ClientSession(
                self.params,
                one,
                context=CONTEXT,
                credentials=self.cohort.identities.get(one),
                randomness=self.sources[one],
                keep=IN_MEMORY,
            )
            for one in range(6)
        }
        self.texts: list[str] = []
        self.secrets = [identity.key.secret_bytes() for identity in self.cohort.identities.values()]

    def show(self, *things: object) -> None:
        for thing in things:
            self.texts += [repr(thing), str(thing), f"{thing}", repr([thing]), repr(fields_of(thing).keys())]

    def fail(self, call: Callable[[], object]) -> None:
        try:
            self.show(call())
        except SecAggError as error:
            self.texts += [repr(error), str(error), repr(vars(error)), *traceback.format_exception(error)]
        else:
            raise AssertionError("this call was to fail")

    def attack(self, one: int, request: bytes) -> None:
        """Run a client, as it stands, into every error that a damaged request gives."""
        for damaged in (
            b"",
            request[:-1],
            request + b"\0",
            *(flipped(request, at) for at in range(0, len(request), 5)),
        ):
            client = restored(self.cohort, one)
            try:
                self.show(client.receive(damaged), client._state)
            except SecAggError as error:
                self.texts += [repr(error), str(error), repr(vars(error)), *traceback.format_exception(error)]

    def run(self) -> None:
        cohort, server = self.cohort, self.cohort.server
        while server.stage is not None:
            self.show(server, server._state, server._round, server.requests())
            attacked = dict(server.requests())
            self.attack(2, attacked[2])
            for one, request in attacked.items():
                answer = cohort.clients[one].receive(request)
                self.show(answer, cohort.clients[one], cohort.clients[one]._state, cohort.clients[one]._party)
                self.secrets += secrets_in(cohort.clients[one]._state)
                if isinstance(answer, InputNeeded):
                    vector = self.vectors[one]
                    for bad in (vector[:2], np.where([False, False, True], np.nan, vector), vector.tolist()):
                        self.fail(lambda bad=bad, one=one: cohort.clients[one].submit(bad))
                    self.fail(lambda one=one: cohort.clients[one].submit(self.vectors[one], 2))
            for one, _, reply in exchange(cohort):
                for damaged in (reply[:-1], signed(cohort, one, flipped(reply, 52)), flipped(reply, len(reply) - 1)):
                    copied = ServerSession.restore(
                        server.save(seal_key=None), credentials=cohort.directory, keep=IN_MEMORY
                    )
                    try:
                        copied.receive(one, damaged)
                    except SecAggError as error:
                        self.texts += [repr(error), str(error), *traceback.format_exception(error)]
                server.receive(one, reply)
                self.fail(lambda one=one, reply=reply: server.receive(one, reply))
            server.advance()
        self.show(server, server._state, *cohort.clients.values(), *cohort.identities.values(), cohort.directory)
        self.secrets += [drawn for source in self.sources.values() for drawn in source.given]
        self.texts, self.secrets = list(dict.fromkeys(self.texts)), list(dict.fromkeys(self.secrets))


@pytest.fixture(scope="module", params=THREATS)
def watched(request) -> Watched:
    round_ = Watched(request.param)
    round_.run()
    return round_


def test_21_secrets_in_texts_the_search_finds_what_it_looks_for():
    """Attack: none. A secret that is shown in any usual way is found, or the tests below would prove nothing."""
    secret = deterministic("looked for")(32)
    for text in (
        repr(secret),
        secret.hex(),
        secret.hex(" ")[3:],
        str(list(secret)),
        str(np.frombuffer(secret, np.uint8)),
        str(np.frombuffer(secret, np.uint64)),
        base64.b64encode(b"x" + secret).decode(),
        str(int.from_bytes(secret, "little")),
    ):
        assert shown(f"before {text} after", [secret]), text
    assert not shown("nothing of it", [secret])


def test_21_secrets_in_texts_no_repr_error_or_traceback_shows_any_of_a_round(watched):
    """Attack: read logs. Defence: states, messages, sessions and errors withhold every byte that was ever drawn."""
    assert len(watched.secrets) > 50
    assert len(watched.texts) > 100
    assert shown("\n".join(watched.texts), watched.secrets) == []


def test_21_secrets_in_texts_no_vector_is_shown(watched):
    """Attack: read a client's input in a log. Defence: no text has a coordinate, not even one that was refused."""
    text = "\n".join(watched.texts)
    for vector in watched.vectors:
        assert not any(str(value) in text for value in vector.tolist())


@both_models
def test_21_secrets_in_saved_states_are_sealed_under_the_callers_key(threat):
    """Attack: read the store. Defence: states can be sealed; a signing key is in none at all."""
    cohort = cohort_at("advertise_keys", parameters(threat))
    while cohort.server.stage is not None:
        for one, _, reply in exchange(cohort):
            client = cohort.clients[one]
            clear, sealed = client.save(seal_key=None), client.save(seal_key=KEY)
            for secret in secrets_in(client._state):
                assert secret in clear
                assert not any(window in sealed for window in windows(secret))
            assert reply in clear
            assert reply not in sealed
            if threat == "malicious-server":
                assert cohort.identities[one].key.secret_bytes() not in clear
            cohort.server.receive(one, reply)
        cohort.server.advance()
    ring_seed = cohort.server._round.ring_seed
    assert ring_seed in cohort.server.save(seal_key=None)
    assert ring_seed not in cohort.server.save(seal_key=KEY)


# --------------------------------------------------------------------------------------------------------- 22: pickle

SOURCES = sorted(Path(secagg.__file__).parent.rglob("*.py"))
UNPICKLERS = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "copyreg"}


def test_22_pickle_nothing_in_the_library_loads_code_from_bytes():
    """Attack: a saved state or message that runs code. Defence: no pickle, nor what wraps one."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not UNPICKLERS & {name.split(".")[0] for name in names}, path
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                assert called not in ("eval", "exec", "load_module", "fromfile", "memmap"), path
                assert not any(keyword.arg == "allow_pickle" for keyword in node.keywords), path


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps], ids=["copy", "deepcopy", "pickle"])
@both_models
def test_22_pickle_sessions_and_what_holds_their_secrets_have_no_copies(threat, duplicate):
    """Attack: a copy of a session answers again. Defence: sessions, states and messages are not copied or pickled.

    The identity and its key, which no session saves, refuse as well.
    """
    cohort = cohort_at("advertise_keys", parameters(threat))
    held: list[object] = [UnmaskShares(shares=np.zeros((1, 40), np.uint8)), MaskKeys.expand(bytes(24))]
    held += [EncryptedShares(sealed=np.zeros((1, 96), np.uint8))]
    held += [RelayedShares(shared=np.ones(1, bool), sealed=np.zeros((1, 96), np.uint8))]
    while cohort.server.stage is not None:
        held += [cohort.server, cohort.server._state]
        for one, request in cohort.server.requests().items():
            held += [cohort.clients[one], cohort.clients[one]._state]
            answer = cohort.clients[one].receive(request)
            assert not isinstance(answer, BeaconNeeded)
            held += [cohort.clients[one]._state]
        cohort.run_stage()
    checked = 0
    for one in held:
        if type(one).__name__ in ("Idle", "Released", "Finished"):
            continue  # nothing secret is in them
        if isinstance(one, MaskKeys) and duplicate is not pickle.dumps:
            continue  # a copy in memory of what is immutable anyway
        with pytest.raises(TypeError, match=r"not (copied|pickled)"):
            duplicate(one)
        checked += 1
    assert checked > 30
    for identity in cohort.identities.values():
        for secret in (identity, identity.key):
            with pytest.raises(TypeError):
                pickle.dumps(secret)
