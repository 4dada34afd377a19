"""The tables and the hexdump of docs/spec as Markdown, from the code. With ``--write``, they are updated in place."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted((ROOT / "docs" / "spec").glob("*.md"))
sys.path.insert(0, str(ROOT / "tests"))

import numpy as np  # noqa: E402

from cohort import Cohort, plan  # noqa: E402
from secagg import FixedPoint  # noqa: E402
from secagg.he import messages as he  # noqa: E402
from secagg.he.chains import CHAINS  # noqa: E402
from secagg.he.client_table import Summed  # noqa: E402
from secagg.pairwise.messages import FORMATS, Kind  # noqa: E402
from secagg.pairwise.server_states import Finished  # noqa: E402
from secagg.pairwise.server_table import ServerTable  # noqa: E402
from secagg.primitives.kdf import Label  # noqa: E402
from secagg.protocol import protocols  # noqa: E402
from secagg.session.table import ClientRow, ClientTable, Local  # noqa: E402
from secagg.wire import HEADER_BYTES  # noqa: E402

PURPOSES = {
    "CONTEXT": "hash of the caller's context",
    "ROUND": "round_id",
    "SESSION": "session_id",
    "SEED_COMMITMENT": "commitment to the self-mask seed",
    "SHARE_CHANNEL": "keys that seal shares",
    "PAIRWISE_MASK": "key of a pair's mask",
    "SELF_MASK": "key of a self mask",
    "REQUEST": "digest of an answered request (state rule)",
    "SEALED_STATE": "key of a sealed state",
    "STATE_CHECKSUM": "checksum of a state in the clear",
    "GRAPH": "key of the stream that draws the graph from a beacon (malicious-server model)",
    "BEACON": "digest of the beacon that clients sign (malicious-server model)",
    "DIRECTORY": "digest of a directory of identities (malicious-server model)",
    "SIGNED_BODY": "hash of a body that is signed (malicious-server model)",
    "SHARE_COMMITMENT": "commitment to a share (malicious-server model)",
    "CONSISTENCY": "digest of U2 and U3 that clients sign (malicious-server model)",
    "ACCEPTED_SHARES": "digest of the relayed shares that an upload was masked for (malicious-server model)",
    "HE_KEY": "key_id of a homomorphic sum",
    "HE_SESSION": "session_id of a homomorphic sum",
    "HE_SUM": "digest of an encrypted sum",
    "HE_FLOODING": "key of the noise that hides a CKKS decryption",
    "LAYOUT": "digest of a layout of named arrays, for callers to put into the context",
}
SHARED = {"CONTEXT", "REQUEST", "SEALED_STATE", "STATE_CHECKSUM", "LAYOUT", "DIRECTORY", "SIGNED_BODY"}
SENDERS = {
    Kind.INVITATION: ("server, to each client", "32"),
    Kind.KEY_ADVERTISEMENT: ("client", "96"),
    Kind.ROSTER: (
        "server, to each of U1",
        "8n + ceil(n/8) + `entry` \\|U1\\| + 4k (the 4k where the server draws the graph)",
    ),
    Kind.ENCRYPTED_SHARES: ("client", "`row` \\|N(i) ∩ U1\\|"),
    Kind.RELAYED_SHARES: ("server, to each of U2", "ceil(n/8) + `row` \\|N(i) ∩ U2\\|"),
    Kind.MASKED_INPUT: ("client", "ceil((d+1) b / 8) + `accepted`"),
    Kind.UNMASK_REQUEST: ("server, to each of U3", "ceil(n/8)"),
    Kind.CONSISTENCY: ("client (malicious-server model)", "32"),
    Kind.RELAYED_SIGNATURES: ("server, to each of U4 (malicious-server model)", "ceil(n/8) + 64 \\|U4\\|"),
    Kind.UNMASK_SHARES: ("client", "`record` \\|N(i) ∩ U2\\|"),
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def used_by(label: Label) -> str:
    if label.name in SHARED:
        return "all"
    return "homomorphic" if label.name.startswith("HE_") else "pairwise"


def labels(user: str) -> str:
    source = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "secagg").rglob("*.py")))
    rows = []
    for label in Label:
        if used_by(label) != user:
            continue
        used = re.search(rf"\bLabel\.{label.name}\b", source)
        purpose = PURPOSES[label.name] if used else "kept; no input of this version uses it"
        rows.append([f"`{label.value.decode()}`", f"`{len(label.value):02x}`", purpose])
    return table(["label (ASCII)", "length byte", "for"], rows)


def kinds() -> str:
    rows = [[str(kind.value), kind.name, *SENDERS[kind]] for kind in Kind]
    kept = sorted(set(range(max(Kind) + 1)) - set(Kind))
    rows += [[str(value), "kept", "", ""] for value in kept]
    return table(["kind", "name", "sender", "bytes of body"], sorted(rows, key=lambda row: int(row[0])))


def lengths() -> str:
    names = {
        "signature": lambda form: form.signature_bytes,
        "entry": lambda form: form.entry_bytes,
        "record": lambda form: form.release_bytes,
        "sealed": lambda form: form.sealed_bytes,
        "row": lambda form: form.dealt_bytes,
        "accepted": lambda form: form.accepted_bytes,
    }
    rows = [[f"`{name}`", *(str(length(FORMATS[threat])) for threat in FORMATS)] for name, length in names.items()]
    return table(["bytes of", *FORMATS], rows)


ASKS = {Local.VECTOR: "the caller's vector", Local.BEACON: "the caller's beacon"}
ITS = {Local.VECTOR: "its vector", Local.BEACON: "the beacon"}
LAST = {Summed: "none: the caller is told the sum"}


def shown_rows(rows: ClientTable | ServerTable) -> str:
    """The rows that drive a session of either side."""
    return client_rows(rows) if isinstance(next(iter(rows.values())), ClientRow) else server_rows(rows)


def client_rows(rows: ClientTable) -> str:
    """The rows that drive a client's session, one for each state."""
    lines = []
    for (state, comes), row in sorted(rows.items(), key=lambda one: order(rows, one[0][0])):
        awaited = ASKS[comes] if isinstance(comes, Local) else comes.name
        asked = next((other for at, other in rows if at is row.next and isinstance(other, Local)), None)
        reply = LAST.get(row.next, "") if row.reply is None else row.reply.name
        if asked is not None:
            reply = f"none: the caller is asked for {ITS[asked]}"
        lines.append([state.__name__, awaited, reply, row.next.__name__, row.stage])
    (last,) = {row.next for row in rows.values()} - {state for state, _ in rows}
    lines.append([last.__name__, "nothing", "", "", ""])
    return table(["state", "awaits", "answers", "next state", "stage"], lines)


def order(rows: ClientTable, state: type) -> int:
    """How many steps lead to a state."""
    before = [at for (at, _), row in rows.items() if row.next is state]
    return 1 + order(rows, before[0]) if before else 0


def server_rows(rows: ServerTable) -> str:
    """The rows that drive the server's session."""
    lines = []
    for (state, reply), row in rows.items():
        closed = "done" if row.next is Finished else row.next.__name__
        lines.append([state.__name__, row.request.name, reply.name, closed, row.stage])
    return table(["state", "sent", "awaited from each", "once closed", "stage"], lines)


def hexdump() -> str:
    params = plan(3, 3, encoding=FixedPoint(clip=1.0, bits=8), max_weight=10)
    vector, weight = np.array([0.5, -1.0, 0.25]), 7
    cohort = Cohort(params, [vector] * 3, [weight] * 3, ids=[10, 20, 30], context=b"", seed="spec")
    cohort.run_stage()
    cohort.run_stage()
    requests = cohort.server.requests()
    message = cohort.answer(20, requests[20])
    body = message[HEADER_BYTES:]
    bits, count = params.ring_bits, params.dimension + 1
    packed = int.from_bytes(body, "little")
    words = [packed >> bits * i & ((1 << bits) - 1) for i in range(count)]
    names = [f"y[{i}] = {word:#06x}" for i, word in enumerate(words)]
    parts = [
        (0, 4, 'magic, "SAgg"'),
        (4, 1, "version"),
        (5, 1, "suite"),
        (6, 1, "kind, MASKED_INPUT"),
        (7, 1, "zero"),
        (8, 8, "sender, client 20"),
        (16, 16, "session_id"),
        (32, 16, ""),
        (48, len(body), f"{count} words of {bits} bits, then {8 * len(body) - count * bits} zero bits"),
    ]
    lines = [f"{at:04x}  {message[at : at + size].hex(' '):<47}  {text}".rstrip() for at, size, text in parts]
    lines.append(f"{'':6}{'':47}  {', '.join(names)}")
    setting = (
        f"Parameters `{params.encode().hex()}`\n"
        f"(n = {params.clients}, d = {params.dimension}, complete graph, k = {params.neighbours}, "
        f"t = {params.threshold}, c = {params.encoding.clip:g}, bits = {params.encoding.bits}, "
        f"W = {params.max_weight}, b = {bits}, both rates 0),\n"
        f"ids 10, 20, 30, empty context, nobody drops out; client 20 has the vector "
        f"({', '.join(f'{value:g}' for value in vector)}) of weight {weight}.\n"
        "The i-th draw (from 1) of client c is SHAKE256 of the ASCII text `spec/c/i`, the server's of `spec/server/i`."
    )
    return "\n".join([setting, "", "```", *lines, "```"])


def he_chains() -> str:
    head = [
        "chain",
        "N",
        "data primes' bits",
        "special",
        "bits of q p",
        "security",
        "data primes, then the special one",
    ]
    rows = [
        [
            str(index),
            str(chain.degree),
            " ".join(map(str, chain.data_bits)),
            str(chain.special_bits),
            str(chain.total_bits),
            f"{chain.security_bits:.1f}",
            ", ".join(map(str, chain.primes)),
        ]
        for index, chain in enumerate(CHAINS)
    ]
    return table(head, rows)


def he_kinds() -> str:
    senders = {
        he.HEKind.PUBLIC_KEY: ("decryptor [D], to each client", "packed public key + 64"),
        he.HEKind.OPENING: ("decryptor [D] or aggregator, to each client", "64, [D] + 64"),
        he.HEKind.UPLOAD: ("client, to the aggregator and on to the decryptor", "packed ciphertexts + 64"),
        he.HEKind.RELEASE_REQUEST: ("aggregator, to the decryptor", "ceil(n/8) + 32"),
        he.HEKind.RELEASE: ("decryptor [D], to the aggregator", "ceil(n/8) + ceil((d+1) b / 8) or 8 (d+1), + 64"),
        he.HEKind.ENCRYPTED_SUM: ("aggregator, to each client in the sum", "ceil(n/8) + packed ciphertexts"),
    }
    rows = [[str(kind.value), kind.name, *senders[kind]] for kind in he.HEKind]
    return table(["kind", "name", "sender", "bytes of body and signature"], rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "labels": lambda: labels("all"),
    "labels-pairwise": lambda: labels("pairwise"),
    "labels-he": lambda: labels("homomorphic"),
    "kinds": kinds,
    "hexdump": hexdump,
    "lengths": lengths,
    "he-chains": he_chains,
    "he-kinds": he_kinds,
    **{
        name: lambda rows=rows: shown_rows(rows) for protocol in protocols() for name, rows in protocol.tables().items()
    },
}


def pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- generated: {re.escape(name)} -->\n)(.*?)(<!-- end: {re.escape(name)} -->)", re.DOTALL)


def shown(text: str, name: str) -> str:
    """Return what ``text`` holds between the marks of ``name``, which must stand there once."""
    found = pattern(name).findall(text)
    if len(found) != 1:
        raise ValueError(f"the text holds the marks of {name!r} {len(found)} times")
    return found[0][1].strip()


def marked(text: str) -> list[str]:
    return re.findall(r"<!-- generated: (\S+) -->", text)


def updated(text: str) -> str:
    for name in marked(text):
        shown(text, name)
        block = BLOCKS[name]()
        text = pattern(name).sub(lambda marks, block=block: f"{marks[1]}\n{block}\n\n{marks[3]}", text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="update docs/spec in place")
    if parser.parse_args().write:
        for document in DOCUMENTS:
            document.write_text(updated(document.read_text(encoding="utf-8")), encoding="utf-8")
        return
    for name, generate in BLOCKS.items():
        print(f"## {name}\n\n{generate()}\n")


if __name__ == "__main__":
    main()
