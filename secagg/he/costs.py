"""Rows of the homomorphic sums, BFV and CKKS, with a decryptor that holds the key."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.util import find_spec

import numpy as np
from rich.filesize import decimal

from secagg.cohort import Threat
from secagg.he.chains import CHAINS, Chain, batching_prime
from secagg.he.ciphertexts import RunningSum, pack_residues
from secagg.he.engine import Decryptor, Encryptor, Scheme
from secagg.he.messages import HE_STAGES, Opening, ReleasedSum
from secagg.he.params import HEName, HEParams
from secagg.identity import SIGNATURE_BYTES
from secagg.planning.calibration import CPU_CLOCK, Machine
from secagg.planning.operations import Operation
from secagg.planning.rows import FLOAT_BYTES, Row, few_honest_notes
from secagg.planning.traffic import StageTraffic, Traffic
from secagg.planning.workload import Workload
from secagg.wire import HEADER_BYTES

_WORD = 8
_TIMES = 5


def homomorphic_row(protocol: HEName, workload: Workload, threat: Threat, machine: Machine | None) -> Row:
    """Plan a homomorphic sum and count what it costs. It is the same in both models: uploads are always signed.

    Raises:
        ParameterError: no safe parameters exist for this workload.
    """
    params = HEParams.plan(
        clients=workload.clients,
        dimension=workload.dimension,
        encoding=workload.encoding,
        max_weight=workload.max_weight,
        dropout=workload.dropout,
        corrupt=workload.corrupt,
        protocol=protocol,
    )
    traffic = homomorphic_traffic(params, workload.dropped)
    beside = _beside(params, traffic)
    codes = params.dimension * params.encoding.bits / 8
    seconds = None if machine is None or not _can_encrypt() else _seconds(params, traffic, machine)
    return Row(
        protocol=protocol,
        threat=threat,
        graph=None,
        neighbours=None,
        threshold=None,
        ring_bits=params.ring_bits if protocol == "bfv" else None,
        minimum_survivors=params.minimum_survivors,
        traffic=traffic,
        expansion=traffic.client_up / codes if codes else None,
        client_memory=client_bytes(params),
        server_memory=server_bytes(params),
        client_seconds=None if seconds is None else {HE_STAGES[0]: seconds[0]},
        server_seconds=None if seconds is None else {HE_STAGES[0]: seconds[1]},
        beside=beside,
        notes=(*params.notes, *_notes(params, beside)),
    )


def homomorphic_traffic(params: HEParams, dropped: int) -> Traffic:
    """Return what a sum sends between clients and server if ``dropped`` clients vanish before their upload."""
    return Traffic(
        stages=(
            StageTraffic(
                stage=HE_STAGES[0],
                down=HEADER_BYTES + len(Opening(nonce=bytes(32), key_id=bytes(32)).encode()) + SIGNATURE_BYTES,
                up=HEADER_BYTES + params.ciphertext_bytes + SIGNATURE_BYTES,
                asked=params.clients,
                answered=params.clients - dropped,
            ),
        )
    )


def client_bytes(params: HEParams) -> int:
    """Return the peak of one client, its float32 vector included; TenSEAL's tables, some megabytes, are not."""
    residues, slots = _residue_bytes(params), _WORD * params.ciphertexts * params.scheme.slots
    values = (params.dimension + 1) * _WORD
    exact = params.protocol == "bfv"
    packing = values + (3 * _WORD * params.ciphertexts * params.values_per_ciphertext if exact else 2 * slots)
    # Ciphertexts are held one by one, then together; packed a prime at a time; then the upload is put together
    encrypting = slots + 2 * residues + 3 * params.ciphertext_bytes
    return FLOAT_BYTES * params.dimension + max(packing, encrypting)


def server_bytes(params: HEParams) -> int:
    """Return the peak of the server: two sums, the latest and the one before, and one upload, as it came and unpacked.

    The next sum is made in the memory of the one before the latest (``RunningSum.plus``).
    """
    residues = _residue_bytes(params)
    return 3 * residues + residues // len(params.chain.data_bits) + params.ciphertext_bytes


def _residue_bytes(params: HEParams) -> int:
    return 2 * _WORD * params.ciphertexts * params.chain.degree * len(params.chain.data_bits)


def _beside(params: HEParams, traffic: Traffic) -> dict[str, int]:
    return {
        "uploads_passed_on": traffic.server_received,
        "release": HEADER_BYTES + ReleasedSum.body_bytes(params) + SIGNATURE_BYTES,
        "public_key": HEADER_BYTES + params.public_key_bytes + SIGNATURE_BYTES,
    }


def _notes(params: HEParams, beside: Mapping[str, int]) -> list[str]:
    notes = [
        f"The server passes every upload on to the decryptor, {decimal(beside['uploads_passed_on'])}, and is sent "
        f"{decimal(beside['release'])} back; the public key, {decimal(beside['public_key'])}, goes to each client once."
    ]
    notes += few_honest_notes(params.minimum_survivors, params.corrupt_count)
    if not _can_encrypt():
        notes.append('CPU time is not told: encrypting needs TenSEAL (pip install ".[he]" in secagg\'s checkout).')
    return notes


def _can_encrypt() -> bool:
    return all(find_spec(name) is not None for name in ("tenseal", "zstandard"))


def _seconds(params: HEParams, traffic: Traffic, machine: Machine) -> tuple[float, float]:
    """Return the expected CPU seconds of a client, and of the server for everybody together."""
    encrypting, adding = _ciphertext_seconds(params.chain, params.protocol == "bfv")
    stage = traffic.stages[0]
    client: dict[Operation, float] = {
        Operation.ENCODE: params.dimension + 1,
        Operation.SIGN: 1,
        Operation.VERIFY: 1,
        Operation.HASH_BYTE: stage.up,
        Operation.COPY_BYTE: 2 * stage.up,
    }
    server: dict[Operation, float] = {
        Operation.VERIFY: stage.answered,
        Operation.HASH_BYTE: stage.up * (stage.answered + 1),
    }
    own = machine.time({"client": client, "server": server})
    answered = stage.answered * params.ciphertexts
    return own["client"] + params.ciphertexts * encrypting, own["server"] + answered * adding


@functools.lru_cache(maxsize=2 * len(CHAINS))
def _ciphertext_seconds(chain: Chain, exact: bool) -> tuple[float, float]:
    """Time one ciphertext: encrypted and packed; unpacked and added. CPU seconds, the least of a few."""
    scheme = Scheme(
        chain=chain,
        plain_modulus=batching_prime(chain.degree, 1 << 20) if exact else 0,
        scale=1.0 if exact else 2.0 ** (chain.modulus.bit_length() - 10),
    )
    encryptor = Encryptor(scheme, Decryptor(scheme).public_key())
    running, slots = RunningSum(chain, 1), np.zeros(scheme.slots, dtype=np.int64 if exact else np.float64)
    encrypting, adding = [], []
    for _ in range(_TIMES):
        start = CPU_CLOCK()
        packed = pack_residues(encryptor.encrypt(slots)[None], chain.data_primes)
        middle = CPU_CLOCK()
        running = running.plus(running.decode(memoryview(packed)))
        encrypting.append(middle - start)
        adding.append(CPU_CLOCK() - middle)
    return min(encrypting), min(adding)
