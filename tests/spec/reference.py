"""A slow, plain reference of both models' rounds, written from docs/spec: Python integers, hashlib, hmac, pycryptodome.

It uses nothing of the library. ``Client`` answers the server's messages; ``sum_of_round`` unmasks what the clients
sent. Checks are those that decoding needs, and every signature and commitment: SPEC's other refusals are tested on the
library itself.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from Crypto.Cipher import AES
from Crypto.Signature import eddsa

Draw = Callable[[int], bytes]

P61 = 2**61 - 1
P25519 = 2**255 - 19
SERVER = 2**64 - 1
INVITATION, ADVERTISEMENT, ROSTER, SHARES, RELAY, INPUT, REQUEST, CONSISTENCY, SIGNATURES, RELEASE = range(10)


# -------------------------------------------------------------------------------------------------------- SPEC "Labels"


def prefix(label: str) -> bytes:
    text = b"secagg/v1/" + label.encode()
    return bytes([len(text)]) + text


def digest(label: str, *parts: bytes) -> bytes:
    return hashlib.sha256(prefix(label) + b"".join(u64(len(part)) + part for part in parts)).digest()


def kdf(secret: bytes, salt: bytes, label: str, info: bytes, length: int) -> bytes:
    key = hmac.digest(salt, secret, "sha256")
    out, block, index = b"", b"", 0
    while len(out) < length:
        index += 1
        block = hmac.digest(key, block + prefix(label) + info + bytes([index]), "sha256")
        out += block
    return out[:length]


def u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


# ---------------------------------------------------------------------------- SPEC "Shared parameters" and "Parameters"


@dataclass(frozen=True, kw_only=True)
class Parameters:
    n: int
    d: int
    clip: float
    bits: int
    max_weight: int
    dropout: float
    corrupt: float
    plus: bool
    harary: bool
    k: int
    t: int
    b: int
    malicious: bool = False

    @property
    def entry(self) -> int:
        return 160 if self.malicious else 96

    @property
    def record(self) -> int:
        return 56 if self.malicious else 40

    @property
    def sealed(self) -> int:
        return 2 * self.record + 16

    @property
    def row(self) -> int:
        return self.sealed + (128 if self.malicious else 0)

    @property
    def quorum(self) -> int:
        return (self.n + math.ceil(Fraction(repr(self.corrupt)) * self.n)) // 2 + 1

    @property
    def largest(self) -> int:
        return 2**self.bits - 1

    @property
    def lane(self) -> int:
        return next(lane for lane in (16, 32, 64) if self.b <= lane)

    def encode(self) -> bytes:
        fixed = struct.pack(
            "<IQdBQdd", self.n, self.d, self.clip, self.bits, self.max_weight, self.dropout, self.corrupt
        )
        tail = struct.pack("<IIIB", self.k, self.t, 0, self.b)
        return fixed + bytes([self.plus, self.malicious, self.harary]) + tail


def plan(
    *,
    n: int,
    d: int,
    clip: float,
    bits: int,
    max_weight: int,
    dropout: float,
    corrupt: float,
    plus: bool,
    malicious: bool = False,
) -> Parameters:
    a, gone = (math.ceil(Fraction(repr(rate)) * n) for rate in (corrupt, dropout))
    survivors = n - gone
    assert survivors - a >= 2
    assert not malicious or survivors >= (n + a) // 2 + 1
    searched = plus and n >= 40 and corrupt + (2 if malicious else 1) * dropout <= 0.9
    sparse = least_sparse_graph(n, a, gone, malicious) if searched else None
    low = (n - 1 + a) // 2 if malicious else a
    k, t = sparse or (n - 1, min(max(low + 1, 2 * (n - 1) // 3 + 1), survivors - 1))
    assert sparse or t > low
    b = (n * max_weight * (2**bits - 1)).bit_length()
    return Parameters(
        n=n,
        d=d,
        clip=clip,
        bits=bits,
        max_weight=max_weight,
        dropout=dropout,
        corrupt=corrupt,
        plus=plus,
        harary=sparse is not None,
        k=k,
        t=t,
        b=b,
        malicious=malicious,
    )


def least_sparse_graph(n: int, a: int, gone: int, malicious: bool) -> tuple[int, int] | None:
    bad, survivors = a + gone, n - gone
    for k in range(2, n - 1, 2):
        apart = Fraction(n * (n - k - 1) * math.comb(bad, k), 2 * math.comb(n, k))
        if k <= bad and not apart < Fraction(1, 2**41):
            continue
        corrupt, surviving = hypergeometric(n, a, k), hypergeometric(n, survivors, k)
        t1 = min(x for x in range(k + 1) if sum(corrupt[x + 1 :]) <= Fraction(1, 2**41 * n))
        t2 = max(x for x in range(k + 1) if sum(surviving[:x]) < Fraction(1, 2**20 * n))
        if malicious:
            t1 = math.ceil(Fraction(4 * (t1 + k) - 5, 8))
        for t in range(max(t1 + 1, 2), t2 + 1):
            if not malicious or uncuttable(n, a, k, t):
                return k, t
    return None


def uncuttable(n: int, a: int, k: int, t: int) -> bool:
    window, least = k // 2, t - k // 2
    rest = n - 2 * window
    ways = sum(
        math.comb(window, x) * math.comb(window, y) * math.comb(rest, a - x - y)
        for x in range(least, window + 1)
        for y in range(least, window + 1)
        if x + y <= a
    )
    return least > 0 and Fraction(n * (n - k - 1) * ways, 2 * math.comb(n, a)) < Fraction(1, 2**41)


def hypergeometric(population: int, marked: int, drawn: int) -> list[Fraction]:
    ways = math.comb(population, drawn)
    return [Fraction(math.comb(marked, x) * math.comb(population - marked, drawn - x), ways) for x in range(drawn + 1)]


# -------------------------------------------------------------------------------------- SPEC "Keys", RFC 7748 section 5


@functools.lru_cache(maxsize=4096)
def x25519(secret: bytes, public: bytes) -> bytes:
    scalar = int.from_bytes(secret, "little") & ~7 & (2**255 - 1) | 2**254
    u = int.from_bytes(public, "little") % 2**255
    x2, z2, x3, z3, swapped = 1, 0, u, 1, 0
    for bit in reversed(range(255)):
        now = scalar >> bit & 1
        if now != swapped:
            x2, z2, x3, z3 = x3, z3, x2, z2
        swapped = now
        total, difference = (x2 + z2) % P25519, (x2 - z2) % P25519
        aa, bb = total * total, difference * difference
        da, cb = (x3 - z3) * total, (x3 + z3) * difference
        x3, z3 = (da + cb) ** 2 % P25519, u * (da - cb) ** 2 % P25519
        e = aa - bb
        x2, z2 = aa * bb % P25519, e * (aa + 121665 * e) % P25519
    if swapped:
        x2, z2 = x3, z3
    shared = x2 * pow(z2, P25519 - 2, P25519) % P25519
    assert shared
    return shared.to_bytes(32, "little")


def public_of(secret: bytes) -> bytes:
    return x25519(secret, (9).to_bytes(32, "little"))


def pair(i: int, j: int) -> bytes:
    return u32(min(i, j)) + u32(max(i, j))


def channel_key(secret: bytes, public: bytes, session: bytes, sender: int, recipient: int) -> bytes:
    keys = kdf(x25519(secret, public), session, "share-channel", pair(sender, recipient), 64)
    return keys[:32] if sender < recipient else keys[32:]


def pair_mask_key(params: Parameters, secret: bytes, public: bytes, session: bytes, i: int, j: int) -> bytes:
    info = pair(i, j) + u64(params.d) + bytes([params.b])
    return kdf(x25519(secret, public), session, "pairwise-mask", info, 24)


def own_mask_key(params: Parameters, seed: bytes, session: bytes, i: int) -> bytes:
    return kdf(seed, session, "self-mask", u32(i) + u64(params.d) + bytes([params.b]), 24)


# ---------------------------------------------------------- SPEC "Signatures", "Signed statements", "Share commitments"

ROW_CONTEXT = b"secagg/v1/share-commitments"


def directory_digest(directory: Mapping[int, bytes]) -> bytes:
    return digest("directory", b"".join(u64(one) + directory[one] for one in sorted(directory)))


private_key = functools.lru_cache(eddsa.import_private_key)
public_key = functools.lru_cache(eddsa.import_public_key)


def sign(seed: bytes, context: bytes, statement: bytes) -> bytes:
    signer = eddsa.new(private_key(seed), "rfc8032")
    return signer.sign(bytes([len(context)]) + context + statement)


def verify(public: bytes, signature: bytes, context: bytes, statement: bytes) -> None:
    """Raise ValueError unless the signature fits."""
    verifier = eddsa.new(public_key(public), "rfc8032")
    verifier.verify(bytes([len(context)]) + context + statement, signature)


def beacon_digest(beacon: bytes | None) -> bytes:
    return bytes(32) if beacon is None else digest("beacon", beacon)


def accepted_digest(session: bytes, beacon: bytes | None, relayed: bytes) -> bytes:
    return digest("accepted-shares", session, beacon_digest(beacon), relayed)


def of_message(head: bytes, body: bytes, beacon: bytes | None) -> tuple[bytes, bytes]:
    """Return the context and the statement of the signature behind a message."""
    end = len(body) - (32 if head[6] == INPUT else 0)
    attached = beacon_digest(beacon) if head[6] == SHARES else body[end:]
    return b"secagg/v1/message/" + head[6:7], head + digest("signed-body", body[:end]) + attached


def authenticated(public: bytes, message: bytes, beacon: bytes | None = None) -> bytes:
    """Return a client's message without its signature, which is checked."""
    head, body, signature = message[:48], message[48:-64], message[-64:]
    verify(public, signature, *of_message(head, body, beacon))
    return head + body


def share_commitment(session: bytes, dealer: int, recipient: int, kind: int, record: bytes) -> bytes:
    return digest("share-commitment", session, u32(dealer) + u32(recipient) + bytes([kind]), record[40:], record[:40])


def both_commitments(session: bytes, dealer: int, recipient: int, records: bytes) -> bytes:
    return b"".join(
        share_commitment(session, dealer, recipient, kind, record) for kind, record in enumerate(chunks(records, 56))
    )


def row_statement(session: bytes, dealer: int, recipient: int, commitments: bytes) -> bytes:
    return session + u32(dealer) + u32(recipient) + commitments


# -------------------------------------------------------------------- SPEC "Encryption", "Streams", "Masks", "Encoding"


def aes_gcm(key: bytes, session: bytes, sender: int, recipient: int) -> object:
    cipher = AES.new(key, AES.MODE_GCM, nonce=bytes(12), mac_len=16)
    cipher.update(session + bytes([SHARES]) + u32(sender) + u32(recipient))
    return cipher


def key_stream(key: bytes, count: int, lane: int) -> list[int]:
    size = lane // 8
    blocks = range((count * size + 15) // 16)
    cipher = AES.new(key[:16], AES.MODE_ECB)
    data = b"".join(cipher.encrypt(key[16:] + index.to_bytes(8, "big")) for index in blocks)
    return [int.from_bytes(data[size * w : size * (w + 1)], "little") for w in range(count)]


def encode_vector(params: Parameters, vector: Sequence[float], weight: int, rounding_key: bytes) -> list[int]:
    step = (2 * params.clip) / params.largest
    scale = 1 / step
    words = []
    for value, noise in zip(vector, key_stream(rounding_key, params.d, 32), strict=True):
        held = max(-params.clip, min(params.clip, value))
        exact = (held + params.clip) * scale
        down = math.floor(exact)
        code = down + (exact - down > noise * 2.0**-32)
        words.append(weight * min(code, params.largest))
    return [*words, weight]


def pack(params: Parameters, words: Sequence[int]) -> bytes:
    bits = sum(word % 2**params.b << params.b * index for index, word in enumerate(words))
    return bits.to_bytes((len(words) * params.b + 7) // 8, "little")


def unpack(params: Parameters, body: bytes) -> list[int]:
    bits = int.from_bytes(body, "little")
    assert bits < 2 ** (params.b * (params.d + 1))
    return [bits >> params.b * index & (2**params.b - 1) for index in range(params.d + 1)]


# ------------------------------------------------------------------------------------------------ SPEC "Secret sharing"

LIMBS = (52, 52, 52, 52, 48)


def to_limbs(secret: bytes) -> list[int]:
    value = int.from_bytes(secret, "little")
    return [value >> 52 * limb & (2**size - 1) for limb, size in enumerate(LIMBS)]


def deal(secrets: Sequence[bytes], t: int, points: Sequence[int], draw: Draw) -> list[list[bytes]]:
    """Return the share of each secret at each point."""
    count = len(LIMBS) * len(secrets)
    words = field_words(draw, count * (t - 1)) if t > 1 else []
    while again := [index for index, word in enumerate(words) if word == P61]:
        for index, word in zip(again, field_words(draw, len(again)), strict=True):
            words[index] = word
    rows = [[limb for secret in secrets for limb in to_limbs(secret)]]
    rows += [words[count * power : count * (power + 1)] for power in range(t - 1)]
    dealt = []
    for x in points:
        values = [sum(row[i] * pow(x, power, P61) for power, row in enumerate(rows)) % P61 for i in range(count)]
        dealt.append([b"".join(map(u64, values[5 * s : 5 * s + 5])) for s in range(len(secrets))])
    return dealt


def field_words(draw: Draw, count: int) -> list[int]:
    data = draw(8 * count)
    return [int.from_bytes(data[8 * i : 8 * i + 8], "little") & P61 for i in range(count)]


def rebuild(points: Sequence[int], shares: Sequence[bytes]) -> bytes:
    value = 0
    for limb, size in enumerate(LIMBS):
        total = 0
        for x, share in zip(points, shares, strict=True):
            weight = 1
            for other in points:
                if other != x:
                    weight = weight * other * pow(other - x, -1, P61) % P61
            total += weight * int.from_bytes(share[8 * limb : 8 * limb + 8], "little")
        assert total % P61 < 2**size
        value |= total % P61 << 52 * limb
    return value.to_bytes(32, "little")


# --------------------------------------------------------------------------------------------------------- SPEC "Graph"


def beacon_graph(params: Parameters, session: bytes, beacon: bytes) -> list[list[int]]:
    """Return every position's neighbours, ascending."""
    key, n, keys = kdf(beacon, session, "graph", b"", 24), params.n, []
    for attempt in range(2**20):
        keys = key_stream(key, n * (attempt + 1), 64)[n * attempt :]
        if len(set(keys)) == n:
            break
    ring = sorted(range(n), key=keys.__getitem__)
    steps = [step for far in range(1, params.k // 2 + 1) for step in (far, -far)]
    graph: list[list[int]] = [[] for _ in range(n)]
    for at, position in enumerate(ring):
        graph[position] = sorted(ring[(at + step) % n] for step in steps)
    return graph


# --------------------------------------------------------------------- SPEC "Message header", "Messages", "Identifiers"


def header(kind: int, sender: int, session: bytes) -> bytes:
    return b"SAgg\x01\x01" + bytes([kind, 0]) + u64(sender) + session


def open_message(message: bytes, kind: int, sender: int, session: bytes | None = None) -> bytes:
    assert len(message) >= 48
    assert message[:16] == header(kind, sender, b"")
    assert session is None or message[16:48] == session
    return message[48:]


def bitmap(body: bytes, n: int) -> set[int]:
    assert len(body) == (n + 7) // 8
    members = {i for i in range(8 * len(body)) if body[i // 8] >> i % 8 & 1}
    assert all(i < n for i in members)
    return members


def chunks(body: bytes, size: int) -> Iterator[bytes]:
    assert len(body) % size == 0
    return (body[at : at + size] for at in range(0, len(body), size))


@dataclass(frozen=True)
class Roster:
    ids: list[int]
    entries: dict[
        int, bytes
    ]  # U1: position -> channel key, mask key, commitment, then the signature where there is one
    common: bytes
    neighbours: list[int] | None  # None: not in the message, the graph is complete

    @classmethod
    def decode(cls, params: Parameters, body: bytes) -> Roster:
        n = params.n
        ids = [int.from_bytes(part, "little") for part in chunks(body[: 8 * n], 8)]
        at = 8 * n + (n + 7) // 8
        present = sorted(bitmap(body[8 * n : at], n))
        end = at + params.entry * len(present)
        entries = dict(zip(present, chunks(body[at:end], params.entry), strict=True))
        own = [int.from_bytes(part, "little") for part in chunks(body[end:], 4)]
        shown = params.harary and not params.malicious
        assert len(own) == (params.k if shown else 0)
        return cls(ids, entries, body[:end], own if shown else None)

    def neighbours_of(self, position: int) -> list[int]:
        if self.neighbours is not None:
            return self.neighbours
        return [j for j in range(len(self.ids)) if j != position]

    def mask_public(self, position: int) -> bytes:
        return self.entries[position][32:64]


def round_id(params: Parameters, context: bytes, nonce: bytes) -> bytes:
    return digest("round", b"\x01\x01", params.encode(), digest("context", context), nonce)


def session_id(round_identifier: bytes, roster: Roster, directory: bytes = b"") -> bytes:
    return digest("session", round_identifier, roster.common, directory)


def consistency_digest(session: bytes, n: int, shared: set[int], survivors: set[int]) -> bytes:
    return digest("consistency", session, to_bitmap(shared, n), to_bitmap(survivors, n))


def to_bitmap(members: set[int], n: int) -> bytes:
    return sum(1 << i for i in members).to_bytes((n + 7) // 8, "little")


def commitment(round_identifier: bytes, client_id: int, seed: bytes) -> bytes:
    return digest("self-mask-seed-commitment", round_identifier, u64(client_id), seed)


# -------------------------------------------------------------------------------------------------------- SPEC "Client"


class Client:
    """One client; each method is a stage: it takes the server's message and returns the answer.

    ``signing_seed`` and ``directory`` (id to Ed25519 key) belong to the malicious-server model.
    """

    def __init__(
        self,
        params: Parameters,
        client_id: int,
        context: bytes,
        draw: Draw,
        *,
        signing_seed: bytes = b"",
        directory: Mapping[int, bytes] | None = None,
    ) -> None:
        self.params, self.id, self.context, self.draw = params, client_id, context, draw
        self.signing_seed, self.directory = signing_seed, directory or {}
        self.directory_digest = directory_digest(self.directory) if params.malicious else b""
        self.beacon: bytes | None = None

    def message(self, kind: int, session: bytes, body: bytes) -> bytes:
        head = header(kind, self.id, session)
        signature = sign(self.signing_seed, *of_message(head, body, self.beacon)) if self.params.malicious else b""
        return head + body + signature

    def advertise_keys(self, message: bytes) -> bytes:
        self.round = round_id(self.params, self.context, open_message(message, INVITATION, SERVER))
        open_message(message, INVITATION, SERVER, self.round)
        self.channel_secret, self.mask_secret, self.seed = self.draw(32), self.draw(32), self.draw(32)
        entry = public_of(self.channel_secret) + public_of(self.mask_secret)
        entry += commitment(self.round, self.id, self.seed)
        return self.message(ADVERTISEMENT, self.round, entry)

    def share_keys(self, message: bytes, beacon: bytes | None = None) -> bytes:
        self.roster = Roster.decode(self.params, open_message(message, ROSTER, SERVER, self.round))
        self.session = session_id(self.round, self.roster, self.directory_digest)
        self.position = self.roster.ids.index(self.id)
        neighbours, self.beacon = self.roster.neighbours_of(self.position), beacon
        if beacon is not None:
            neighbours = beacon_graph(self.params, self.session, beacon)[self.position]
        self.neighbours = [j for j in neighbours if j in self.roster.entries]
        if self.params.malicious:
            assert self.roster.ids == sorted(self.directory)
            for j in self.neighbours:
                entry, one = self.roster.entries[j], self.roster.ids[j]
                authenticated(self.directory[one], header(ADVERTISEMENT, one, self.round) + entry)
        dealt = deal([self.mask_secret, self.seed], self.params.t, [j + 1 for j in self.neighbours], self.draw)
        if self.params.malicious:
            salts = chunks(self.draw(32 * len(dealt)), 16)
            dealt = [[share + next(salts) for share in shares] for shares in dealt]
        return self.message(SHARES, self.session, b"".join(map(self.row, self.neighbours, dealt)))

    def row(self, recipient: int, records: Sequence[bytes]) -> bytes:
        public, both = self.roster.entries[recipient][:32], b"".join(records)
        key = channel_key(self.channel_secret, public, self.session, self.position, recipient)
        row = b"".join(aes_gcm(key, self.session, self.position, recipient).encrypt_and_digest(both))
        if not self.params.malicious:
            return row
        commitments = both_commitments(self.session, self.position, recipient, both)
        statement = row_statement(self.session, self.position, recipient, commitments)
        return row + commitments + sign(self.signing_seed, ROW_CONTEXT, statement)

    def receive_shares(self, message: bytes) -> None:
        params, i = self.params, self.position
        body = open_message(message, RELAY, SERVER, self.session)
        self.accepted = accepted_digest(self.session, self.beacon, body) if params.malicious else b""
        size = (params.n + 7) // 8
        self.shared = bitmap(body[:size], params.n)
        self.neighbours = [j for j in self.neighbours if j in self.shared]
        self.records = {}
        for j, row in zip(self.neighbours, chunks(body[size:], params.row), strict=True):
            key = channel_key(self.channel_secret, self.roster.entries[j][:32], self.session, j, i)
            cipher = aes_gcm(key, self.session, j, i)
            both = cipher.decrypt_and_verify(row[: 2 * params.record], row[2 * params.record : params.sealed])
            if params.malicious:
                commitments, signature = row[params.sealed : -64], row[-64:]
                statement = row_statement(self.session, j, i, commitments)
                verify(self.directory[self.roster.ids[j]], signature, ROW_CONTEXT, statement)
                assert commitments == both_commitments(self.session, j, i, both)
            self.records[j] = list(chunks(both, params.record))

    def mask_input(self, vector: Sequence[float], weight: int) -> bytes:
        params, i, count = self.params, self.position, self.params.d + 1
        words = encode_vector(params, vector, weight, self.draw(24))
        own = key_stream(own_mask_key(params, self.seed, self.session, i), count, params.lane)
        words = [word + mask for word, mask in zip(words, own, strict=True)]
        for j in self.neighbours:
            key = pair_mask_key(params, self.mask_secret, self.roster.mask_public(j), self.session, i, j)
            sign_of = 1 if i < j else -1
            stream = key_stream(key, count, params.lane)
            words = [word + sign_of * mask for word, mask in zip(words, stream, strict=True)]
        return self.message(INPUT, self.session, pack(params, words) + self.accepted)

    def check_consistency(self, message: bytes) -> bytes:
        self.survivors = bitmap(open_message(message, REQUEST, SERVER, self.session), self.params.n)
        self.agreed = consistency_digest(self.session, self.params.n, self.shared, self.survivors)
        return self.message(CONSISTENCY, self.session, self.agreed)

    def unmask(self, message: bytes) -> bytes:
        if self.params.malicious:
            self.check_signatures(open_message(message, SIGNATURES, SERVER, self.session))
        else:
            self.survivors = bitmap(open_message(message, REQUEST, SERVER, self.session), self.params.n)
        released = [self.records[j][1 if j in self.survivors else 0] for j in self.neighbours]
        return self.message(RELEASE, self.session, b"".join(released))

    def check_signatures(self, body: bytes) -> None:
        size = (self.params.n + 7) // 8
        signed = bitmap(body[:size], self.params.n)
        assert self.position in signed
        assert signed <= self.survivors
        quorum = self.params.quorum
        assert len(signed) >= quorum
        signatures = dict(zip(sorted(signed), chunks(body[size:], 64), strict=True))
        for j in sorted(signed - {self.position})[: quorum - 1]:
            one, signature = self.roster.ids[j], signatures[j]
            authenticated(self.directory[one], header(CONSISTENCY, one, self.session) + self.agreed + signature)


# ----------------------------------------------------------------------------------------------------- SPEC "Unmasking"


def sum_of_round(
    params: Parameters,
    *,
    rosters: Mapping[int, bytes],
    dealt: Mapping[int, bytes],
    relay: bytes,
    inputs: Mapping[int, bytes],
    request: bytes,
    releases: Mapping[int, bytes],
    beacon: bytes | None = None,
    directory: Mapping[int, bytes] | None = None,
) -> list[int]:
    """Return the d + 1 words of the sum in the clear, from the messages of the round alone.

    ``rosters`` maps a client's id to the roster that it was sent; ``relay`` and ``request`` (the survivor set) are any
    client's; ``dealt``, ``inputs`` and ``releases`` map ids to what clients sent. That each input was masked for what
    its client was relayed is checked where inputs are signed.
    """
    if directory is not None:
        dealt, inputs, releases = (
            {one: authenticated(directory[one], message, beacon) for one, message in messages.items()}
            for messages in (dealt, inputs, releases)
        )
    decoded = {one: Roster.decode(params, message[48:]) for one, message in rosters.items()}
    roster = next(iter(decoded.values()))
    round_identifier, session = next(iter(rosters.values()))[16:48], relay[16:48]
    assert session == session_id(round_identifier, roster, b"" if directory is None else directory_digest(directory))
    position = {one: roster.ids.index(one) for one in rosters}
    graph = {position[one]: own.neighbours_of(position[one]) for one, own in decoded.items()}
    if beacon is not None:
        graph = dict(enumerate(beacon_graph(params, session, beacon)))
    shared = bitmap(relay[48 : 48 + (params.n + 7) // 8], params.n)
    survivors = bitmap(open_message(request, REQUEST, SERVER, session), params.n)
    assert survivors == {position[one] for one in inputs}

    rows: dict[tuple[int, int], bytes] = {}  # dealer, recipient
    for one, message in dealt.items():
        dealer = position[one]
        recipients = [j for j in graph[dealer] if j in roster.entries]
        body = open_message(message, SHARES, one, session)
        rows |= {(dealer, j): row for j, row in zip(recipients, chunks(body, params.row), strict=True)}

    words = [0] * (params.d + 1)
    for one, message in inputs.items():
        body = open_message(message, INPUT, one, session)
        if params.malicious:
            i = position[one]
            relayed = relay[48 : 48 + (params.n + 7) // 8] + b"".join(rows[j, i] for j in graph[i] if j in shared)
            assert body[-32:] == accepted_digest(session, beacon, relayed)
            body = body[:-32]
        words = [word + value for word, value in zip(words, unpack(params, body), strict=True)]

    released: dict[int, dict[int, bytes]] = {}  # holder -> owner -> share
    for one, message in releases.items():
        holder = position[one]
        owners = [j for j in graph[holder] if j in shared]
        body = open_message(message, RELEASE, one, session)
        records = dict(zip(owners, chunks(body, params.record), strict=True))
        for owner, record in records.items():
            if params.malicious:
                kind = 1 if owner in survivors else 0
                committed = rows[owner, holder][params.sealed + 32 * kind :][:32]
                assert committed == share_commitment(session, owner, holder, kind, record)
        released[holder] = {owner: record[:40] for owner, record in records.items()}

    def take_off(key: bytes, sign: int) -> None:
        stream = key_stream(key, params.d + 1, params.lane)
        words[:] = [word - sign * mask for word, mask in zip(words, stream, strict=True)]

    for i in sorted(shared):
        holders = [j for j in graph[i] if j in released][: params.t]
        secret = rebuild([j + 1 for j in holders], [released[j][i] for j in holders])
        if i in survivors:
            assert commitment(round_identifier, roster.ids[i], secret) == roster.entries[i][64:96]
            take_off(own_mask_key(params, secret, session, i), 1)
            continue
        assert public_of(secret) == roster.mask_public(i)
        for j in graph[i]:
            if j in survivors:
                take_off(pair_mask_key(params, secret, roster.mask_public(j), session, i, j), 1 if j < i else -1)
    words = [word % 2**params.b for word in words]
    assert len(survivors) <= words[-1] <= len(survivors) * params.max_weight
    assert all(word <= words[-1] * params.largest for word in words[:-1])
    return words


# --------------------------------------------------------------------------------------------------------- SPEC "Blame"


def convicted(
    params: Parameters,
    evidence: bytes,
    *,
    context: bytes,
    nonce: bytes,
    roster: bytes,
    directory: Mapping[int, bytes],
    beacon: bytes | None = None,
) -> int:
    """Return the id of the client that the evidence convicts; raise where it proves nothing."""
    identifier = round_id(params, context, nonce)
    decoded = Roster.decode(params, roster)
    session = session_id(identifier, decoded, directory_digest(directory))
    assert decoded.ids == sorted(directory)
    assert (beacon is not None) == params.harary
    graph = [[j for j in range(params.n) if j != i] for i in range(params.n)]
    if beacon is not None:
        graph = beacon_graph(params, session, beacon)
    graph = [[j for j in row if j in decoded.entries] for row in graph]
    accuse = {1: forged_release, 2: contradictory_dealer}[evidence[0]]
    return decoded.ids[accuse(params, evidence[1:], identifier, session, decoded, graph, directory, beacon)]


def parts(encoded: bytes) -> Iterator[bytes]:
    while encoded:
        length = int.from_bytes(encoded[:8], "little")
        assert len(encoded) >= 8 + length
        yield encoded[8 : 8 + length]
        encoded = encoded[8 + length :]


def forged_release(
    params: Parameters,
    evidence: bytes,
    identifier: bytes,
    session: bytes,
    roster: Roster,
    graph: Sequence[Sequence[int]],
    directory: Mapping[int, bytes],
    beacon: bytes | None,
) -> int:
    dealer, holder = (int.from_bytes(evidence[at : at + 4], "little") for at in (0, 4))
    one = roster.ids[holder]
    hashed, upload, agreed, signature = evidence[8:40], evidence[40:104], evidence[104:168], evidence[168:232]
    relayed, survived, release = parts(evidence[232:])
    context, accepted = b"secagg/v1/message/" + bytes([INPUT]), accepted_digest(session, beacon, relayed)
    verify(directory[one], upload, context, header(INPUT, one, session) + hashed + accepted)
    size = (params.n + 7) // 8
    shared, survivors = bitmap(relayed[:size], params.n), bitmap(survived, params.n)
    both = consistency_digest(session, params.n, shared, survivors)
    authenticated(directory[one], header(CONSISTENCY, one, session) + both + agreed)
    authenticated(directory[one], header(RELEASE, one, session) + release + signature)
    dealers = [j for j in graph[holder] if j in shared]
    rows = dict(zip(dealers, chunks(relayed[size:], params.row), strict=True))
    records = dict(zip(dealers, chunks(release, params.record), strict=True))
    kind = 1 if dealer in survivors else 0
    committed = rows[dealer][params.sealed + 32 * kind :][:32]
    assert committed != share_commitment(session, dealer, holder, kind, records[dealer])
    return holder


def contradictory_dealer(
    params: Parameters,
    evidence: bytes,
    identifier: bytes,
    session: bytes,
    roster: Roster,
    graph: Sequence[Sequence[int]],
    directory: Mapping[int, bytes],
    beacon: bytes | None,
) -> int:
    dealer, kind = int.from_bytes(evidence[:4], "little"), evidence[4]
    one, signature = roster.ids[dealer], evidence[5:69]
    dealt, positions, records = parts(evidence[69:])
    authenticated(directory[one], header(SHARES, one, session) + dealt + signature, beacon)
    rows = dict(zip(graph[dealer], chunks(dealt, params.row), strict=True))
    holders = [int.from_bytes(position, "little") for position in chunks(positions, 4)]
    opened = dict(zip(holders, chunks(records, params.record), strict=True))
    assert len(opened) == len(holders) == params.t
    for holder, record in opened.items():
        committed = rows[holder][params.sealed + 32 * kind :][:32]
        assert committed == share_commitment(session, dealer, holder, kind, record)
    entry = roster.entries[dealer]
    authenticated(directory[one], header(ADVERTISEMENT, one, identifier) + entry)
    try:
        secret = rebuild([j + 1 for j in holders], [record[:40] for record in opened.values()])
    except (AssertionError, OverflowError):
        return dealer
    right = commitment(identifier, one, secret) == entry[64:96] if kind else public_of(secret) == entry[32:64]
    assert not right
    return dealer
