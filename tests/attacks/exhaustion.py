"""A process of its own that decodes hostile bytes under a limit of memory: run by ``test_exhaustion_attacks.py``.

It prints a line for each input that ended in anything but an answer or an error of the library, and exits with 1 then.
"""

from __future__ import annotations

import functools
import random
import struct
import sys
from collections.abc import Callable, Iterator

from limits import limit_memory
from secagg import IN_MEMORY, ClientSession, Directory, FixedPoint, RoundParams, SecAggError, ServerSession
from secagg.he.messages import EncryptedSum, Opening, ReleasedSum, ReleaseRequest
from secagg.he.params import HEParams
from secagg.pairwise import client_states, messages
from secagg.pairwise.encoded_params import UnprovedParams
from secagg.pairwise.evidence import decode_evidence
from secagg.primitives.kdf import Label, digest

MEGABYTES = 200
"""What all inputs together may take beyond what the process holds when it has imported everything."""
N, D = 1 << 20, 1 << 32
ENCODING = FixedPoint(clip=1.0, bits=16)
RATES = (0.0, 5e-324, 1e-300, 0.05, 0.33, 0.45, 0.5, 0.9, 1 - 2**-53, 1.0, -0.0, -1.0, float("nan"), float("inf"))
Attempt = Callable[[], object]


def encoded(**changes: object) -> bytes:
    """Parameters that nobody proved."""
    fields: dict[str, object] = {
        "clients": 20_000,
        "dimension": 1000,
        "clip": 1.0,
        "bits": 16,
        "max_weight": 1,
        "dropout": 0.1,
        "corrupt": 0.05,
        "protocol": "secagg+",
        "threat": "malicious-server",
        "graph": "harary",
        "neighbours": 16_000,
        "threshold": 12_000,
        "ring_bits": 64,
    }
    return UnprovedParams(**(fields | changes)).encode()  # type: ignore[arg-type]


def parameters() -> Iterator[bytes]:
    """Parameters of a round: sizes and rates at every limit, and bytes changed at random."""
    for threat in ("semi-honest", "malicious-server"):
        for clients, neighbours in (
            (20_000, 16_000),
            (1_000_000, 900_000),
            (N, N - 2),
            (N, 1 << 14),
            (16_386, 1 << 14),
            (40, 38),
            (4096, 4095),
            ((1 << 32) - 1, (1 << 32) - 2),
            (0, 0),
        ):
            for threshold in (0, 1, neighbours // 2 + 1, max(3 * neighbours // 4, 1), neighbours, (1 << 32) - 1):
                sizes = {"clients": clients, "neighbours": neighbours, "threshold": threshold}
                yield encoded(threat=threat, **sizes)
                yield encoded(threat=threat, graph="complete", **sizes)
                yield encoded(threat=threat, dropout=0.285, corrupt=0.33, **sizes)
        for dropout in RATES:
            for corrupt in RATES:
                yield encoded(threat=threat, dropout=dropout, corrupt=corrupt, clients=N)
    draw = random.Random(1)
    whole = encoded(neighbours=100, threshold=70)
    for _ in range(300):
        changed = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        yield bytes(changed)
        yield draw.randbytes(len(whole))


def homomorphic() -> Iterator[bytes]:
    """Parameters of a homomorphic sum: every byte at its limits, pairs of fields, and bytes at random."""
    draw = random.Random(2)
    for protocol in ("bfv", "ckks"):
        whole = HEParams.plan(clients=100, dimension=1000, encoding=ENCODING, protocol=protocol).encode()
        for position in range(len(whole)):
            for value in (0, 1, 2, 59, 60, 127, 128, 255):
                yield whole[:position] + bytes([value]) + whole[position + 1 :]
        for clients, dimension in ((N, D), (N, (1 << 64) - 1), ((1 << 32) - 1, 0), (3, D)):
            yield struct.pack("<IQ", clients, dimension) + whole[12:]
        for _ in range(300):
            changed = bytearray(whole)
            for _ in range(draw.randint(2, 6)):
                changed[draw.randrange(len(changed))] = draw.randrange(256)
            yield bytes(changed)


def directories() -> Iterator[str]:
    """Texts that are no directory."""
    deep, key = 200_000, "00" * 32
    yield from ("[" * deep, '{"1":' * deep, '{"1":' * deep + "}" * deep, "[" * deep + "]" * deep)
    yield from ("9" * 1_000_000, '{"' + "9" * 1_000_000 + f'":"{key}"}}', '{"1":' + "9" * 1_000_000 + "}")
    yield from ('{"1":"' + "00" * 2_000_000 + '"}', '{"1e400":"00"}', '{"1":1e400}', '{"\\u0663":"00"}', "null", "")
    yield "{" + ",".join(f'"{one}":"{key}"' for one in range(20_000)) + "}"
    yield "[" + ",".join(f'["{one}","{key}"]' for one in range(20_000)) + "]"


def evidence() -> Iterator[bytes]:
    """Proofs whose lengths lie."""
    for kind, before in ((1, 8 + 96 + 64 + 64), (2, 5 + 64)):
        for length in (1, 1 << 31, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
            yield bytes([kind]) + bytes(before) + length.to_bytes(8, "little") + bytes(64)
    big = bytes(4 << 20)
    yield bytes([2]) + bytes(69) + bytes(8) + len(big).to_bytes(8, "little") + big + bytes(8)


def saved() -> Iterator[bytes]:
    """Values that no session saves: huge lengths, arrays of no size and endless shape, deep nesting."""
    for length in (1 << 31, 1 << 40, 1 << 60, (1 << 63) - 1, (1 << 64) - 1):
        count = length.to_bytes(8, "little")
        yield from (b"L" + count, b"L" + count + b"N" * 1000, b"B" + count, b"S" + count, b"DL" + count)
        for shape in ((0, length, length), (length, 0), (length,), (length, length, 2), (1, length)):
            for code in range(5):
                sizes = b"".join(one.to_bytes(8, "little") for one in shape)
                yield b"A" + bytes([code, len(shape)]) + sizes
    one = (1).to_bytes(8, "little")
    yield from ((b"L" + one) * 200_000, (b"L" + one) * 200_000 + b"N", b"D" * 200_000, b"O" * 200_000)
    yield b"L" + (1 << 20).to_bytes(8, "little") + b"N" * (1 << 20)


def short_bodies() -> Iterator[Attempt]:
    """Messages of the largest rounds, whose bodies are not there: nothing is allocated for them."""
    form = messages.FORMATS["malicious-server"]
    he = [HEParams.plan(clients=N, dimension=1 << 30, encoding=ENCODING, protocol=one) for one in ("bfv", "ckks")]
    for body in (b"", b"\0", bytes(4096), bytes(N // 8), b"\xff" * (N // 8)):
        view = memoryview(body)
        for sparse in (0, 1 << 14):
            sizes = {"clients": N, "sparse_neighbours": sparse, "entry_bytes": form.entry_bytes}
            yield lambda view=view, sizes=sizes: messages.Roster.decode(view, **sizes)
        yield lambda view=view: messages.EncryptedShares.decode(view, count=1 << 14, dealt_bytes=form.dealt_bytes)
        yield lambda view=view: messages.MaskedInput.decode(view, count=D + 1, ring_bits=64, accepted_bytes=32)
        yield lambda view=view: messages.UnmaskRequest.decode(view, clients=N)
        yield lambda view=view: messages.UnmaskShares.decode(view, count=1 << 14, release_bytes=form.release_bytes)
        yield lambda view=view: messages.RelayedSignatures.decode(view, clients=N)
        yield lambda view=view: Opening.decode(view)
        yield lambda view=view: ReleaseRequest.decode(view, clients=N)
        for params in he:
            yield lambda view=view, params=params: ReleasedSum.decode(view, params)
            yield lambda view=view, params=params: EncryptedSum.decode(view, params)
        yield lambda body=body: client_states.Release.decode(body)


def attempts() -> Iterator[tuple[str, Attempt]]:
    """Everything, each with its name."""
    for index, payload in enumerate(parameters()):
        yield f"RoundParams {index} {payload.hex()}", lambda payload=payload: RoundParams.decode(payload)
    for index, payload in enumerate(homomorphic()):
        yield f"HEParams {index} {payload.hex()}", lambda payload=payload: HEParams.decode(payload)
    for index, text in enumerate(directories()):
        yield f"directory {index}", lambda text=text: Directory.from_json(text)
    for index, payload in enumerate(evidence()):
        yield f"evidence {index}", lambda payload=payload: decode_evidence(payload)
    as_client = functools.partial(ClientSession.restore, client_id=0, keep=IN_MEMORY)
    as_server = functools.partial(ServerSession.restore, keep=IN_MEMORY)
    for restore, purpose in ((as_client, b"pairwise/client"), (as_server, b"pairwise/server")):
        for index, body in enumerate(saved()):
            state = b"SAst\x02\x00\x0f" + purpose + digest(Label.STATE_CHECKSUM, purpose, body) + body
            yield f"{purpose.decode()} {index}", lambda restore=restore, state=state: restore(state)
    for index, attempt in enumerate(short_bodies()):
        yield f"message {index}", attempt
    for corrupt, dropout in ((0.44, 0.2), (0.33, 0.285), (0.9, 0.0), (0.0, 0.45)):
        yield (
            f"plan {corrupt} {dropout}",
            lambda corrupt=corrupt, dropout=dropout: RoundParams.plan(
                clients=N,
                dimension=D,
                encoding=ENCODING,
                corrupt=corrupt,
                dropout=dropout,
                threat="malicious-server",
            ),
        )


def main() -> int:
    """Go through all of them."""
    wrong = 0
    every = list(attempts())
    limit_memory(MEGABYTES)
    for name, attempt in every:
        try:
            attempt()
        except SecAggError:
            continue
        except BaseException as problem:
            print(f"{name[:200]}: {type(problem).__name__}: {str(problem)[:200]}")
            wrong += 1
    print(f"{len(every)} inputs")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
