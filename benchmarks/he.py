"""Homomorphic sums beside NVFlare's set, in one run: bytes, a client's time, the aggregator's time and memory.

Command: python benchmarks/he.py [--clients 100] [--dimension 100000] [--uploads 1000] [--json FILE]
NVFlare's set is CKKS at N = 8192 with primes of 60, 40 and 40 bits and scale 2**40 under a symmetric key, as its
provisioning makes it; the same set under a public key is beside it. Each client of ours is a real session: quantising,
encrypting, packing and signing are in its time; receiving is authenticating, checking and adding. The systems take
turns; shown are medians. Memory is traced: what the aggregator's session holds at its peak above what there was before.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tenseal
from rich.console import Console
from rich.table import Table

import secagg
from hardware import machine_information
from secagg import (
    IN_MEMORY,
    ClientSession,
    DecryptionKey,
    DecryptorSession,
    Directory,
    HECredentials,
    HEParams,
    HEServerCredentials,
    Identity,
    ServerSession,
)
from secagg.he.messages import HEKind
from secagg.wire import HEADER_BYTES, Header

CONTEXT = b"secagg benchmark"
NVFLARE_DEGREE, NVFLARE_BITS, NVFLARE_SCALE = 8192, [60, 40, 40], 40


class Ours:
    """One of our protocols: sessions of the first clients, an aggregator, a decryptor."""

    def __init__(self, protocol: str, clients: int, dimension: int) -> None:
        self.params = HEParams.plan(
            clients=clients,
            dimension=dimension,
            encoding=secagg.FixedPoint(clip=1.0, bits=16),
            protocol=protocol,  # type: ignore[arg-type]
            dropout=0.1,
            corrupt=0.05,
            releases=20,
        )
        self.signing = {one: secagg.SigningKey.generate() for one in range(clients)}
        self.directory = Directory({one: key.public for one, key in self.signing.items()})
        self.own = secagg.SigningKey.generate()
        self.key = DecryptionKey.generate(self.params, keep=IN_MEMORY)
        self.decryptor = DecryptorSession(
            self.params, self.key, self.directory, signing_key=self.own, context=CONTEXT, keep=IN_MEMORY
        )
        brought = HEServerCredentials(
            directory=self.directory, opening=self.decryptor.opening(), decryptor=self.own.public
        )
        self.server = ServerSession(self.params, self.directory, context=CONTEXT, keep=IN_MEMORY, credentials=brought)
        self.opening = self.server.requests()[0]

    def client(self, one: int) -> ClientSession:
        """Return a client that has taken the opening in."""
        identity = Identity(key=self.signing[one], directory=self.directory)
        brought = HECredentials(identity=identity, public_key=self.key.public, decryptor=self.own.public)
        client = ClientSession(self.params, one, context=CONTEXT, keep=IN_MEMORY, credentials=brought)
        client.receive(self.opening)
        return client

    def resigned(self, upload: bytes, one: int) -> bytes:
        """Return the same ciphertexts as another client's upload: what they hold costs the aggregator nothing."""
        header = Header(kind=HEKind.UPLOAD, sender=one, session=self.server.session_id)
        body = upload[HEADER_BYTES:-64]
        return header.encode() + body + Identity(key=self.signing[one], directory=self.directory).sign(header, body)


class NVFlare:
    """NVFlare's set: one CKKS vector, encrypted, serialised, parsed and added as its filters do."""

    def __init__(self, symmetric: bool) -> None:
        kinds = tenseal.ENCRYPTION_TYPE
        self.context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS,
            NVFLARE_DEGREE,
            coeff_mod_bit_sizes=NVFLARE_BITS,
            encryption_type=kinds.SYMMETRIC if symmetric else kinds.ASYMMETRIC,
            n_threads=1,
        )
        self.context.global_scale = 2.0**NVFLARE_SCALE
        saved = self.context.serialize(save_public_key=not symmetric, save_secret_key=False)
        self.server_context = tenseal.context_from(saved, n_threads=1)
        self.total = None

    def encrypt(self, vector: np.ndarray) -> bytes:
        """Return a client's upload."""
        with contextlib.redirect_stdout(io.StringIO()):  # it warns of every vector that takes several ciphertexts
            return bytes(tenseal.ckks_vector(self.context, vector).serialize())

    def add(self, upload: bytes) -> None:
        """Parse an upload and add it, as the aggregator does."""
        arrived = tenseal.ckks_vector_from(self.server_context, upload)
        self.total = arrived if self.total is None else self.total + arrived


def timed(call: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def compare(clients: int, dimension: int, repeats: int) -> dict[str, dict[str, float]]:
    """Encrypt, serialise, parse and add with every system in turn; return medians by system."""
    ours = {name: Ours(name, clients, dimension) for name in ("bfv", "ckks")}
    theirs = {"NVFlare's set": NVFlare(symmetric=True), "the same, public key": NVFlare(symmetric=False)}
    vector = np.random.default_rng(1).uniform(-1, 1, dimension)
    kept = ("encrypt", "add", "bytes")
    seen: dict[str, dict[str, list[float]]] = {name: {key: [] for key in kept} for name in (*ours, *theirs)}
    for repeat in range(repeats + 1):
        for name, system in ours.items():
            client, made = system.client(repeat), []
            encrypting = timed(lambda client=client, made=made: made.append(client.submit(vector).payload))
            adding = timed(lambda system=system, made=made, one=repeat: system.server.receive(one, made[0]))
            note(seen[name], repeat, encrypting, adding, len(made[0]))
        for name, system in theirs.items():
            made = []
            encrypting = timed(lambda system=system, made=made: made.append(system.encrypt(vector)))
            adding = timed(lambda system=system, made=made: system.add(made[0]))
            note(seen[name], repeat, encrypting, adding, len(made[0]))
    medians = {name: {key: statistics.median(values) for key, values in each.items()} for name, each in seen.items()}
    for name, system in ours.items():
        medians[name] |= {
            "security_bits": system.params.security_bits,
            "flooding_bits": system.params.flooding_bits,
            "bits_left": system.params.bits_left,
            "error": system.params.error,
            "public_key_bytes": system.params.public_key_bytes,
            "release": release(name, clients, vector),
        }
    return medians


def note(seen: dict[str, list[float]], repeat: int, encrypting: float, adding: float, size: int) -> None:
    """Keep one repeat's figures, but for the first's."""
    if repeat:  # the first makes tables and compiles kernels
        seen["encrypt"].append(encrypting)
        seen["add"].append(adding)
        seen["bytes"].append(size)


def release(protocol: str, clients: int, vector: np.ndarray) -> float:
    """CPU seconds of the decryptor's release of a sum of every client's upload."""
    system, answers = Ours(protocol, clients, len(vector)), []
    for one in range(clients):
        upload = system.client(one).submit(vector).payload
        system.server.receive(one, upload)
        system.decryptor.receive(one, upload)
    system.server.advance()
    request = system.server.party_requests()["decryptor"]
    seconds = timed(lambda: answers.append(system.decryptor.release(request)))
    system.server.receive_from("decryptor", answers[0])
    found = system.server.result
    assert round(found.weight) == clients
    assert np.abs(found.mean - vector).max() < system.params.encoding.step
    return seconds


def memory(uploads: int, dimension: int) -> dict[int, float]:
    """Peak MiB of the aggregator after a tenth of the uploads, and after all."""
    system = Ours("bfv", uploads, dimension)
    upload = system.client(0).submit(np.zeros(dimension)).payload
    tracemalloc.start()
    peaks = {}
    for one in range(uploads):
        system.server.receive(one, system.resigned(upload, one))
        if one + 1 in (max(uploads // 10, 1), uploads):
            peaks[one + 1] = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return peaks


def table(figures: dict[str, dict[str, float]], dimension: int) -> Table:
    """Lay the figures out, with ratios to NVFlare's set."""
    shown = Table(box=None)
    headings = ("system", "bytes a value", "encrypt + serialise", "times faster", "parse + add", "times faster")
    for heading in headings:
        shown.add_column(heading, justify="left" if heading == "system" else "right")
    base = figures["NVFlare's set"]
    for name, each in figures.items():
        shown.add_row(
            name,
            f"{each['bytes'] / dimension:.1f}",
            f"{1000 * each['encrypt']:.1f} ms",
            f"{base['encrypt'] / each['encrypt']:.1f}",
            f"{1000 * each['add']:.1f} ms",
            f"{base['add'] / each['add']:.1f}",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description="Homomorphic sums beside NVFlare's set")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--dimension", type=int, default=100_000)
    parser.add_argument("--uploads", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    console = Console()
    figures = compare(arguments.clients, arguments.dimension, arguments.repeats)
    console.print(table(figures, arguments.dimension))
    for name in ("bfv", "ckks"):
        each = figures[name]
        console.print(
            f"{name}: estimated security {each['security_bits']:.0f} bits; flooding s = {each['flooding_bits']:.0f} "
            f"bits, {each['bits_left']:.0f} bits left, error {each['error']:.2g} of a value's range; public key "
            f"{each['public_key_bytes'] / 1000:.0f} kB, once; a release takes the decryptor "
            f"{1000 * each['release']:.0f} ms",
            highlight=False,
        )
    peaks = memory(arguments.uploads, arguments.dimension)
    text = ", ".join(f"{peak:.1f} MiB after {count} uploads" for count, peak in peaks.items())
    console.print(f"aggregator's peak memory (bfv): {text}", highlight=False)
    if arguments.json:
        written = {"machine": machine_information(), "arguments": vars(arguments) | {"json": None}, "systems": figures}
        arguments.json.write_text(json.dumps(written | {"memory_mib": peaks}, indent=2) + "\n")


if __name__ == "__main__":
    main()
