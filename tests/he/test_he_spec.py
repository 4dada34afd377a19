"""Messages of homomorphic sums, read and made from docs/spec alone: hashes, packing and signatures by other means."""

from __future__ import annotations

import dataclasses
import hashlib
import struct

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from federation import CONTEXT, DECRYPTOR, Federation, plan, vectors_of
from secagg import HEParams
from secagg.he.chains import CHAINS

HEADER = struct.Struct("<4sBBBBQ32s")
SERVER = 2**64 - 1


def labelled(label: str, *parts: bytes) -> bytes:
    """H(label; parts)."""
    state = hashlib.sha256(bytes([len(label)]) + label.encode())
    for part in parts:
        state.update(struct.pack("<Q", len(part)) + part)
    return state.digest()


def check_signature(public: bytes, payload: bytes) -> bytes:
    """Check the signature behind a message and return the body."""
    header, body, signature = payload[:48], payload[48:-64], payload[-64:]
    context = b"secagg/v1/message/" + bytes([header[6]])
    statement = header + labelled("secagg/v1/signed-body", body)
    Ed25519PublicKey.from_public_bytes(public).verify(signature, bytes([len(context)]) + context + statement)
    return body


def residues_of(params: HEParams, body: bytes) -> list[list[int]]:
    """Every prime's run of residues, by whole numbers alone."""
    runs, at, count = [], 0, 2 * params.chain.degree * params.ciphertexts
    for prime in params.chain.data_primes:
        width = prime.bit_length()
        size = count * width // 8
        whole = int.from_bytes(body[at : at + size], "little")
        text = f"{whole:0{count * width}b}"
        runs.append([int(text[len(text) - (i + 1) * width : len(text) - i * width], 2) for i in range(count)])
        at += size
    assert at == len(body)
    return runs


def test_identifiers_are_what_the_specification_says():
    params = plan(3, 9)
    federation = Federation(params)
    key_id = labelled("secagg/v1/he-key", params.encode(), federation.key.public.packed)
    assert federation.key.public.key_id == key_id
    message = federation.key.public.message(DECRYPTOR)
    assert HEADER.unpack(message[:48]) == (b"SAgg", 1, 1, 32, 0, SERVER, key_id)
    assert check_signature(DECRYPTOR.public, message) == federation.key.public.packed
    opening = federation.server.requests()[0]
    body = check_signature(DECRYPTOR.public, opening)
    assert body[32:] == key_id
    keys = b"".join(struct.pack("<Q", one) + public for one, public in federation.directory.items())
    session = labelled(
        "secagg/v1/he-session",
        b"\x01\x01",
        params.encode(),
        labelled("secagg/v1/context", CONTEXT),
        key_id,
        body[:32],
        labelled("secagg/v1/directory", keys),
        DECRYPTOR.public,
    )
    assert HEADER.unpack(opening[:48]) == (b"SAgg", 1, 1, 33, 0, SERVER, session)


def test_parameters_are_laid_out_as_the_specification_says():
    params = plan(3, 9, max_weight=7, protocol="ckks", releases=11)
    fields = struct.unpack("<IQdBQddBBBBBBI", params.encode())
    assert fields[:7] == (3, 9, 1.0, 16, 7, 0.0, 0.0)
    assert fields[7:] == (1, 0, fields[9], 0, params.scale_bits, 40, 11)


def test_uploads_sums_and_requests_are_what_the_specification_says():
    params = dataclasses.replace(plan(5, 9, dropout=0.4), chain=next(one for one in CHAINS if len(one.data_bits) == 2))
    federation = Federation(params)
    present, totals = (0, 1, 2), None
    for one in present:
        upload = federation.upload(one, vectors_of(params)[one])
        session = federation.server.session_id
        assert HEADER.unpack(upload[:48]) == (b"SAgg", 1, 1, 34, 0, one, session)
        runs = residues_of(params, check_signature(federation.directory[one], upload))
        totals = (
            runs
            if totals is None
            else [
                [(a + b) % prime for a, b in zip(left, right, strict=True)]
                for left, right, prime in zip(totals, runs, params.chain.data_primes, strict=True)
            ]
        )
        federation.send(one, upload)
    federation.server.advance()
    asked = federation.server.party_requests()["decryptor"]
    packed = b""
    for run, prime in zip(totals, params.chain.data_primes, strict=True):
        width = prime.bit_length()
        text = "".join(f"{residue:0{width}b}" for residue in reversed(run))
        packed += int(text, 2).to_bytes(len(run) * width // 8, "little")
    bitmap = (0b111).to_bytes((params.clients + 7) // 8, "little")
    assert HEADER.unpack(asked[:48]) == (b"SAgg", 1, 1, 35, 0, SERVER, session)
    assert asked[48:] == bitmap + labelled("secagg/v1/he-sum", session, bitmap, packed)
    answer = federation.decryptor.release(asked)
    assert HEADER.unpack(answer[:48]) == (b"SAgg", 1, 1, 36, 0, SERVER, session)
    body = check_signature(DECRYPTOR.public, answer)
    whole, width = int.from_bytes(body[len(bitmap) :], "little"), params.ring_bits
    words = [whole >> (width * place) & ((1 << width) - 1) for place in range(params.dimension + 1)]
    assert (body[: len(bitmap)], words[-1]) == (bitmap, 3)
    mean = np.array(words[:-1]) / 3 * params.encoding.step - 1.0
    assert np.abs(mean - vectors_of(params)[:3].mean(axis=0)).max() < params.encoding.step
