"""The aggregator: never a secret key, never TenSEAL, one running sum."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import secagg
from federation import CONTEXT, DECRYPTOR, Federation, plan, vectors_of
from secagg.he.ciphertexts import RunningSum, pack_residues, unpack_residues
from secagg.he.costs import server_bytes
from secagg.he.messages import HEKind, Opening, session_identifier
from secagg.wire import HEADER_BYTES, Header

AGGREGATOR = """
import json, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tenseal", "_tenseal_cpp", "zstandard"):
            raise ImportError(f"{name} is not for the aggregator")

sys.meta_path.insert(0, Blocked())
import gc, secagg
said = json.load(sys.stdin)
unhex = bytes.fromhex
params = secagg.HEParams.decode(unhex(said["params"]))
directory = secagg.Directory({int(one): unhex(key) for one, key in said["directory"].items()})
keys = {"key_id": unhex(said["key_id"])}
if params.key_holder == "decryptor":
    keys = {"opening": unhex(said["opening"]), "decryptor": unhex(said["decryptor"])}
brought = secagg.HEServerCredentials(directory=directory, **keys)
server = secagg.ServerSession(
    params, directory, context=unhex(said["context"]), keep=secagg.IN_MEMORY, credentials=brought
)
print(next(iter(server.requests().values())).hex(), flush=True)
for line in sys.stdin:
    one, upload = json.loads(line)
    server.receive(one, unhex(upload))
sums = server.advance()
answer = server.party_requests()["decryptor"] if params.key_holder == "decryptor" else next(iter(sums.values()))
holders = [type(one).__name__ for one in gc.get_objects() if type(one).__name__ in ("DecryptionKey", "Decryptor")]
loaded = [name for name in sys.modules if "tenseal" in name]
print(json.dumps({"answer": answer.hex(), "holders": holders, "loaded": loaded}), flush=True)
"""


@pytest.mark.parametrize("key_holder", ["decryptor", "clients"])
def test_the_aggregators_process_never_holds_a_secret_key_nor_loads_tenseal(key_holder):
    params = plan(3, 9, key_holder=key_holder)
    federation = Federation(params)
    said = {
        "params": params.encode().hex(),
        "directory": {one: key.hex() for one, key in federation.directory.items()},
        "key_id": federation.key.public.key_id.hex(),
        "context": CONTEXT.hex(),
    }
    if federation.decryptor is not None:
        said |= {"opening": federation.decryptor.opening().hex(), "decryptor": DECRYPTOR.public.hex()}
    process = subprocess.Popen(
        [sys.executable, "-c", AGGREGATOR.replace("json.load(sys.stdin)", "json.loads(sys.stdin.readline())")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    process.stdin.write(json.dumps(said) + "\n")
    process.stdin.flush()
    opening = bytes.fromhex(process.stdout.readline())
    vectors = vectors_of(params)
    for one, vector in enumerate(vectors):
        federation.clients[one].receive(opening)
        upload = federation.clients[one].submit(vector).payload
        process.stdin.write(json.dumps([one, upload.hex()]) + "\n")
        if federation.decryptor is not None:
            federation.decryptor.receive(one, upload)
    process.stdin.close()
    told = json.loads(process.stdout.readline())
    assert process.wait(60) == 0
    process.stdout.close()
    assert told["holders"] == told["loaded"] == []
    if federation.decryptor is not None:
        assert federation.decryptor.release(bytes.fromhex(told["answer"]))
    else:
        federation.clients[0].receive(bytes.fromhex(told["answer"]))
        assert np.abs(federation.clients[0].result.mean - vectors.mean(axis=0)).max() < params.encoding.step


def test_what_travels_to_the_aggregator_holds_no_secret():
    """Its whole state, saved in the clear, next to every word of the secret key as TenSEAL has it."""
    params = plan(2, 3)
    federation = Federation(params)
    federation.collect(np.zeros((2, 3)))
    saved = federation.server.save(seal_key=None)
    secret = federation.key._decryptor.secret_bytes()
    windows = {secret[at : at + 16] for at in range(0, len(secret) - 16, 16)}
    assert not any(saved[at : at + 16] in windows for at in range(len(saved) - 16))
    reachable, todo = set(), [federation.server]
    while todo:
        one = todo.pop()
        if id(one) not in reachable and not isinstance(one, type):
            reachable.add(id(one))
            assert not isinstance(one, secagg.DecryptionKey)
            todo += [each for each in gc.get_referents(one) if not callable(each) and not hasattr(each, "__file__")]


def test_residues_travel_in_the_bits_of_their_primes():
    params = plan(1000, 5000)
    assert len(params.chain.data_primes) > 1
    primes, degree = params.chain.data_primes, params.chain.degree
    rng = np.random.default_rng(1)
    residues = np.stack([rng.integers(0, prime, (params.ciphertexts, 2, degree)) for prime in primes], axis=2)
    residues = residues.astype(np.uint64)
    packed = pack_residues(residues, primes)
    assert len(packed) == params.ciphertext_bytes
    first = sum(
        int(word) << (primes[0].bit_length() * place) for place, word in enumerate(residues[:, :, 0].reshape(-1))
    )
    assert packed[: len(packed) // 2] == first.to_bytes(len(packed) // 2, "little")
    assert (unpack_residues(memoryview(packed), primes, params.ciphertexts, degree) == residues).all()


def test_the_largest_residue_is_one_below_its_prime():
    params = plan(2, 3)
    primes, degree = params.chain.data_primes, params.chain.degree
    for last, taken in ((primes[0] - 1, True), (primes[0], False)):
        residues = np.ones((1, 2, len(primes), degree), dtype=np.uint64)
        residues[0, 1, 0, -1] = last
        packed = memoryview(pack_residues(residues, primes))
        if taken:
            assert (unpack_residues(packed, primes, 1, degree) == residues).all()
        else:
            with pytest.raises(secagg.DecodeError, match="not reduced"):
                unpack_residues(packed, primes, 1, degree)


def test_a_session_is_of_its_parameters_context_key_nonce_cohort_and_decryptor():
    def identify(params=3, context=b"c", nonce=b"n", key=b"k", directory=b"d", decryptor=b"e") -> bytes:
        opening = Opening(nonce=nonce * 32, key_id=key * 32)
        return session_identifier(plan(params, 1), context * 32, opening, directory * 32, decryptor * 32)

    others = [{"params": 4}, *({name: b"x"} for name in ("context", "nonce", "key", "directory", "decryptor"))]
    assert len({identify(), *(identify(**other) for other in others)}) == 1 + len(others)
    assert identify(decryptor=b"") != identify()


def test_sums_are_those_of_whole_numbers_modulo_each_prime():
    params = plan(2, 5)
    primes = np.array(params.chain.data_primes, dtype=np.uint64)[:, None]
    running, rng = RunningSum(params.chain, 1), np.random.default_rng(1)
    expected = np.zeros(running.residues.shape, dtype=object)
    for _ in range(5):
        fresh = np.broadcast_to(primes - np.uint64(1), running.residues.shape).copy()
        fresh -= rng.integers(0, 3, fresh.shape, dtype=np.uint64)
        expected = (expected + fresh.astype(object)) % primes.astype(object)
        running = running.plus(fresh)
        assert (running.residues == expected).all()
    with pytest.raises(secagg.DecodeError, match="other parameters"):
        RunningSum(params.chain, 1, running.residues.reshape(-1)[1:])
    with pytest.raises(secagg.DecodeError, match="not reduced"):
        RunningSum(params.chain, 1, np.full(running.residues.size, 1 << 60, dtype=np.uint64))


def peak_of(federation: Federation, upload: bytes, clients: int) -> int:
    """Peak of traced memory, over what there was before, while so many clients send the same ciphertexts."""
    body = upload[HEADER_BYTES:-64]
    tracemalloc.start()
    try:
        for one in range(clients):
            header = Header(kind=HEKind.UPLOAD, sender=one, session=federation.server.session_id)
            federation.server.receive(one, header.encode() + body + federation.identities[one].sign(header, body))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_uploads():
    params = plan(60, 20_000, encoding=secagg.FixedPoint(clip=1.0, bits=16))
    peaks = []
    for clients in (3, 60):
        federation = Federation(params)
        upload = federation.upload(0, np.zeros(params.dimension))
        peaks.append(peak_of(federation, upload, clients))
    assert peaks[1] < 1.1 * peaks[0]
    assert peaks[0] < 8 * params.ciphertext_bytes
    assert 0.8 < peaks[1] / server_bytes(params) < 1.2, "the planner says otherwise"


def test_one_module_alone_loads_tenseal_and_one_zstandard():
    root = Path(secagg.__file__).parent
    for package, home in (("tenseal", "he/engine.py"), ("zstandard", "he/seal_format.py")):
        texts = {path: path.read_text(encoding="utf-8") for path in root.rglob("*.py")}
        ways = (f"import {package}", f'load("{package}")')
        found = [path for path, text in texts.items() if any(way in text for way in ways)]
        assert [path.relative_to(root).as_posix() for path in found] == [home]


def test_tenseal_reads_nothing_but_what_was_written_here_from_checked_residues(monkeypatch):
    """Uploads of every kind that passes the check; all that TenSEAL is given has one length and one beginning."""
    import tenseal

    given = []
    load = tenseal.bfv_vector_from
    monkeypatch.setattr(
        tenseal, "bfv_vector_from", lambda context, message: given.append(message) or load(context, message)
    )
    params = plan(2, 3)
    beginnings = set()
    for seed in range(5):
        federation = Federation(params)
        rng = np.random.default_rng(seed)
        shape = (1, 2, len(params.chain.data_primes), params.chain.degree)
        for one in range(2):
            body = pack_residues(
                rng.integers(0, min(params.chain.data_primes), shape, np.uint64), params.chain.data_primes
            )
            header = Header(kind=HEKind.UPLOAD, sender=one, session=federation.server.session_id)
            federation.send(one, header.encode() + body + federation.identities[one].sign(header, body))
        federation.server.advance()
        with pytest.raises(secagg.InconsistentSum):
            federation.decryptor.release(federation.server.party_requests()["decryptor"])
        words = federation.decryptor._collection.running.residues.astype("<u8").tobytes()
        for message in given:
            assert message.count(words) == 1
            beginnings.add(message.replace(words, b""))
        given.clear()
    assert len(beginnings) == 1
