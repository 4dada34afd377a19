"""Send mutated blobs to the parties of homomorphic sums, signed by their sender where that is a client, and count.

Bit flips, truncations, edits of the protobuf's fields, other keys, other parameters, zip bombs, messages of other
kinds. Fails on a signal (the script dies), an exception that is no SecAggError, a slow answer, a sum that comes out
wrong, a party that a refused blob changed, and on memory beyond twice what honest sums take.

Run: ``python fuzz/ciphertext_blobs.py --blobs 10000 --seed 1``.
"""

from __future__ import annotations

import argparse
import random
import resource
import struct
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import tenseal
import zstandard
from rich.console import Console
from rich.progress import track

import secagg
from secagg import (
    IN_MEMORY,
    ClientSession,
    DecryptionKey,
    DecryptorSession,
    Directory,
    FixedPoint,
    HECredentials,
    HEParams,
    HEServerCredentials,
    Identity,
    PublicKey,
    ServerSession,
    SigningKey,
)
from secagg.he.ciphertexts import pack_residues, unpack_residues
from secagg.he.messages import HEKind
from secagg.wire import HEADER_BYTES, Header

CLIENTS, DIMENSION = 3, 40
CONTEXT = b"what the sum is about"
SECONDS = 2.0
"""No party may take longer over one blob; the longest honest step takes a few milliseconds."""
SIGNED = 64


class Failed(Exception):
    """A promise was broken."""


class Stand:
    """A sum that waits for client 0's upload: the others' are in, and blobs come in its place."""

    def __init__(self, protocol: str, key_holder: str, seed: int) -> None:
        encoding = FixedPoint(clip=127.5, bits=8)
        self.params = HEParams.plan(
            clients=CLIENTS,
            dimension=DIMENSION,
            encoding=encoding,
            dropout=0.3,
            corrupt=0.0,
            protocol=protocol,
            key_holder=key_holder,
            releases=1 << 20,
        )
        self.random = random.Random(f"{protocol}/{key_holder}/{seed}")  # noqa: S311 - what to mutate is no secret
        self.signing = {one: SigningKey.generate() for one in range(CLIENTS)}
        self.directory = Directory({one: key.public for one, key in self.signing.items()})
        self.identity = {one: Identity(key=key, directory=self.directory) for one, key in self.signing.items()}
        self.own = SigningKey.generate()
        self.saved_key = DecryptionKey.generate(self.params, keep=IN_MEMORY).save(seal_key=None)
        self.key = DecryptionKey.restore(self.saved_key, keep=IN_MEMORY)
        self.stranger = DecryptionKey.generate(self.params, keep=IN_MEMORY)
        self.codes = np.random.default_rng(seed).integers(0, 256, (CLIENTS, DIMENSION))
        self._open()
        self.foreign = self._foreign_blobs()

    def _open(self) -> None:
        self.decryptor = None
        if self.params.key_holder == "decryptor":
            self.decryptor = DecryptorSession(
                self.params, self.key, self.directory, signing_key=self.own, context=CONTEXT, keep=IN_MEMORY
            )
        self.server = ServerSession(
            self.params, self.directory, context=CONTEXT, keep=IN_MEMORY, credentials=self.server_credentials()
        )
        self.opening = self.server.requests()[0]
        self.clients = {one: self.client(one) for one in range(CLIENTS)}
        uploads = {}
        for one, client in self.clients.items():
            client.receive(self.opening)
            uploads[one] = client.submit(self.codes[one] - 127.5).payload
        self.honest = uploads[0]
        for one in range(1, CLIENTS):
            self.server.receive(one, uploads[one])
            if self.decryptor is not None:
                self.decryptor.receive(one, uploads[one])
        self.saved_server = self.server.save(seal_key=None)
        self.saved_decryptor = None if self.decryptor is None else self.decryptor.save(seal_key=None)
        self.before = self.server._state.collection.running.residues.copy()

    def server_credentials(self) -> HEServerCredentials:
        """Return what the aggregator brings."""
        if self.decryptor is None:
            return HEServerCredentials(directory=self.directory, key_id=self.key.public.key_id)
        return HEServerCredentials(
            directory=self.directory, opening=self.decryptor.opening(), decryptor=self.own.public
        )

    def client_credentials(self, one: int, key: DecryptionKey | None = None) -> HECredentials:
        """Return what client ``one`` brings; where the clients hold the key, this one or the stand's."""
        if self.decryptor is None:
            return HECredentials(identity=self.identity[one], key=key or self.key)
        opened = PublicKey.open(self.key.public.message(self.own), self.params, self.own.public)
        return HECredentials(identity=self.identity[one], public_key=opened, decryptor=self.own.public)

    def client(self, one: int) -> ClientSession:
        """Return a new session of client ``one``."""
        return ClientSession(
            self.params, one, context=CONTEXT, keep=IN_MEMORY, credentials=self.client_credentials(one)
        )

    def client_again(self, one: int, key: DecryptionKey) -> ClientSession:
        """Return the session of a client that has sent and holds this key."""
        saved = self.clients[one].save(seal_key=None)
        return ClientSession.restore(saved, one, keep=IN_MEMORY, credentials=self.client_credentials(one, key))

    def server_again(self) -> ServerSession:
        """Return the aggregator as it waits for client 0's upload."""
        return ServerSession.restore(self.saved_server, keep=IN_MEMORY, credentials=self.server_credentials())

    def reset(self) -> None:
        """Take back what an accepted blob did."""
        self.server = self.server_again()
        self.key = DecryptionKey.restore(self.saved_key, keep=IN_MEMORY)
        if self.saved_decryptor is not None:
            self.decryptor = DecryptorSession.restore(
                self.saved_decryptor, self.key, self.directory, signing_key=self.own, keep=IN_MEMORY
            )

    def upload(self, body: bytes, **header: object) -> bytes:
        """Another body, signed by client 0."""
        fields: dict[str, object] = {"kind": HEKind.UPLOAD, "sender": 0, "session": self.server.session_id}
        head = Header(**(fields | header))  # type: ignore[arg-type]
        return head.encode() + body + self.identity[0].sign(head, body)

    def _foreign_blobs(self) -> list[bytes]:
        """What other software sends: TenSEAL's own vectors, some with their fields edited, and zip bombs."""
        blobs = []
        for bits, scale in (([60, 40, 40], 40), ([60, 60], 40)):
            context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=bits, n_threads=1)
            context.global_scale = 2.0**scale
            blobs.append(tenseal.ckks_vector(context, [1.0] * 10).serialize())
        exact = tenseal.context(tenseal.SCHEME_TYPE.BFV, 4096, plain_modulus=1032193, n_threads=1)
        blobs.append(tenseal.bfv_vector(exact, [1] * 10).serialize())
        edited = [
            b"\x0a\x01\x64" + blobs[0],  # more sizes than ciphertexts
            b"\x0a\x01\x64",
            blobs[0] + b"\x0a\x05\xff\xff\xff\xff\x0f",
            blobs[0].replace(b"\x5e\xa1", b"\x5e\xa2"),
            blobs[0][:-9] + b"\x19" + struct.pack("<d", float("nan")),
        ]
        bomb = zstandard.ZstdCompressor(level=19).compress(bytes(1 << 28))
        header = struct.pack("<2sBBBBHQ", b"\x5e\xa1", 16, 4, 3, 2, 0, 16 + len(bomb))
        return [*blobs, *edited, bomb, header + bomb]


def flip(stand: Stand, blob: bytes) -> bytes:
    """Flip one bit, or a few."""
    changed = bytearray(blob)
    for _ in range(stand.random.choice((1, 1, 1, 2, 8))):
        changed[stand.random.randrange(len(changed))] ^= 1 << stand.random.randrange(8)
    return bytes(changed)


def body_of(stand: Stand) -> bytes:
    return stand.honest[HEADER_BYTES:-SIGNED]


def flipped_body(stand: Stand) -> bytes:
    return stand.upload(flip(stand, body_of(stand)))


def flipped_unsigned(stand: Stand) -> bytes:
    return flip(stand, stand.honest)


def resized(stand: Stand) -> bytes:
    body, by = body_of(stand), stand.random.choice((1, 8, 1000, len(body_of(stand)) // 2, len(body_of(stand))))
    return stand.upload(body[:-by] if stand.random.random() < 0.5 else body + body[:by])


def cut(stand: Stand) -> bytes:
    return stand.honest[: stand.random.randrange(len(stand.honest))]


def foreign(stand: Stand) -> bytes:
    """Another software's blob in the place of the ciphertexts, as it is or cut or padded to the right length."""
    blob, size = stand.random.choice(stand.foreign), len(body_of(stand))
    if stand.random.random() < 0.5:
        blob = (blob * (size // len(blob) + 1))[:size] if len(blob) else bytes(size)
    return stand.upload(blob)


def bare(stand: Stand) -> bytes:
    return stand.random.choice(stand.foreign)


def other_key(stand: Stand) -> bytes:
    residues = [stand.stranger.public.encryptor().encrypt(_zeros(stand)) for _ in range(stand.params.ciphertexts)]
    return stand.upload(pack_residues(np.stack(residues), stand.params.chain.data_primes))


def any_residues(stand: Stand) -> bytes:
    """In range and no encryption of anything."""
    primes, rng = stand.params.chain.data_primes, np.random.default_rng(stand.random.randrange(1 << 30))
    shape = (stand.params.ciphertexts, 2, stand.params.chain.degree)
    residues = np.stack([rng.integers(0, prime, shape, dtype=np.uint64) for prime in primes], axis=2)
    if stand.random.random() < 0.2:
        residues[:, 1] = 0  # transparent
    return stand.upload(pack_residues(residues, primes))


def shifted_residues(stand: Stand) -> bytes:
    """Honest residues moved by a little or a lot, in one place or everywhere."""
    chain = stand.params.chain
    residues = unpack_residues(memoryview(body_of(stand)), chain.data_primes, stand.params.ciphertexts, chain.degree)
    primes = np.array(chain.data_primes, dtype=np.uint64)[:, None]
    where = (slice(None), stand.random.randrange(2))
    step = np.uint64(1 << stand.random.randrange(33))
    if stand.random.random() < 0.5:
        residues[where][..., stand.random.randrange(chain.degree)] += step
    else:
        residues[where] += step
    return stand.upload(pack_residues(residues % primes, chain.data_primes))


def other_header(stand: Stand) -> bytes:
    changed = stand.random.choice(
        ({"kind": stand.random.randrange(64)}, {"session": bytes(32)}, {"sender": stand.random.randrange(1, 1 << 63)})
    )
    return stand.upload(body_of(stand), **changed)


def _zeros(stand: Stand) -> np.ndarray:
    return np.zeros(stand.params.scheme.slots, np.int64 if stand.params.protocol == "bfv" else np.float64)


MUTATIONS: tuple[Callable[[Stand], bytes], ...] = (
    flipped_body,
    flipped_unsigned,
    resized,
    cut,
    foreign,
    bare,
    other_key,
    any_residues,
    shifted_residues,
    other_header,
)


def check_upload(stand: Stand, blob: bytes) -> str:
    """Send a blob as client 0's upload; return what became of it."""
    try:
        stand.server.receive(0, blob)
    except secagg.SecAggError as problem:
        if not isinstance(problem, secagg.PeerFault) or problem.client_id != 0:
            raise Failed(f"{problem!r} is not the sender's fault") from None
        if (
            stand.server.survivors != (1, 2)
            or not (stand.server._state.collection.running.residues == stand.before).all()
        ):
            raise Failed("a refused blob changed the sum") from None
        return "refused"
    try:
        return _finish(stand, blob)
    finally:
        stand.reset()


def _finish(stand: Stand, blob: bytes) -> str:
    """Release a sum that holds the blob: it must be right, or refused."""
    try:
        if stand.decryptor is not None:
            stand.decryptor.receive(0, blob)
            stand.server.advance()
            stand.server.receive_from("decryptor", stand.decryptor.release(stand.server.party_requests()["decryptor"]))
            found = stand.server.result
        else:
            sums = stand.server.advance()
            client = stand.client_again(1, stand.key)
            client.receive(sums[1])
            found = client.result
    except secagg.InconsistentSum:
        if not stand.key.retired:
            raise Failed("a malformed ciphertext did not retire the key") from None
        return "sum refused"
    exact = stand.codes.sum(axis=0)
    if stand.params.protocol == "bfv":
        if found.total.tolist() != exact.tolist():
            raise Failed("a wrong sum came out")
        return "sum exact"
    wrong = np.abs(found.total - (exact - CLIENTS * 127.5)) > found.error
    return "sum other (CKKS cannot tell)" if wrong.any() else "sum within its error"


def check_down(stand: Stand) -> str:
    """Send a mutated opening, public key, request, release or encrypted sum to whoever awaits it."""
    random_ = stand.random
    whole = stand.server_again()
    targets: list[tuple[Callable[[bytes], object], bytes]] = [(stand.client(1).receive, stand.opening)]
    if stand.decryptor is not None:
        message = stand.key.public.message(stand.own)
        targets.append((lambda blob: PublicKey.open(blob, stand.params, stand.own.public), message))
        whole.advance()
        fresh = DecryptorSession.restore(
            stand.saved_decryptor or b"",
            DecryptionKey.restore(stand.saved_key, keep=IN_MEMORY),
            stand.directory,
            signing_key=stand.own,
            keep=IN_MEMORY,
        )
        targets.append((fresh.release, whole.party_requests()["decryptor"]))
    else:
        sums = whole.advance()
        client = stand.client_again(1, DecryptionKey.restore(stand.saved_key, keep=IN_MEMORY))
        targets.append((client.receive, sums[1]))
    receive, honest = random_.choice(targets)
    blob = random_.choice((flip(stand, honest), honest[: random_.randrange(len(honest))], honest + b"\0", bare(stand)))
    try:
        receive(blob)
    except secagg.SecAggError:
        return "down refused"
    # A bit of an encrypted sum that clients decrypt is the aggregator's to flip: they believe it (SECURITY.md)
    if stand.decryptor is not None:
        raise Failed("a mutated message of the decryptor's or to it was taken")
    return "down taken (clients hold the key)"


def run(blobs: int, seed: int, console: Console) -> tuple[Counter[tuple[str, str]], list[str], float, float]:
    """Send the blobs; return the counts, the failures, the slowest answer, and peak memory over that of honest sums."""
    stands = [Stand(p, k, seed) for p in ("bfv", "ckks") for k in ("decryptor", "clients")]
    for stand in stands:
        check_upload(stand, stand.honest)
        check_down(stand)
    honest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts: Counter[tuple[str, str]] = Counter()
    failures, slowest = [], 0.0
    for number in track(range(blobs), "blobs", console=console, disable=not console.is_terminal):
        stand = stands[number % len(stands)]
        mutation = stand.random.choice((*MUTATIONS, None))
        start = time.perf_counter()
        try:
            if mutation is None:
                name, outcome = "messages down", check_down(stand)
            else:
                name, blob = mutation.__name__, mutation(stand)
                start = time.perf_counter()
                outcome = check_upload(stand, blob)
        except Failed as failure:
            failures.append(f"{failure} [blob {number}, {mutation and mutation.__name__}]")
            stand.reset()
            continue
        slowest = max(slowest, time.perf_counter() - start)
        counts[name, outcome] += 1
    if slowest > SECONDS:
        failures.append(f"a blob took {slowest:.1f} s; {SECONDS} are allowed")
    return counts, failures, slowest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / honest


def main() -> int:
    """Run and report; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description="Send mutated ciphertexts to homomorphic sums and count")
    parser.add_argument("--blobs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    console = Console()
    start = time.perf_counter()
    counts, failures, slowest, memory = run(arguments.blobs, arguments.seed, console)
    if memory > 2:
        failures.append(f"memory peaked at {memory:.2f} times that of honest sums; 2 are allowed")
    for (name, outcome), count in sorted(counts.items()):
        console.print(f"{name:<18} {outcome:<34} {count:>6}", highlight=False)
    console.print(
        f"{counts.total()} blobs in {time.perf_counter() - start:.0f} s; slowest {1000 * slowest:.0f} ms; peak memory "
        f"{memory:.2f} times that of honest sums; {len(failures)} failures"
    )
    for failure in failures[:20]:
        console.print(failure, style="red", markup=False)
    return 1 if failures or counts.total() < arguments.blobs else 0


if __name__ == "__main__":
    raise SystemExit(main())
