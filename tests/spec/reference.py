"""A slow, plain reference of a semi-honest round, written from SPEC.md: Python integers, hashlib, hmac, pycryptodome.

It uses nothing of the library. ``Client`` answers the server's messages; ``sum_of_round`` unmasks what the clients
sent. Checks are those that decoding needs: SPEC's refusals are tested on the library itself.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from Crypto.Cipher import AES

Draw = Callable[[int], bytes]

P61 = 2**61 - 1
P25519 = 2**255 - 19
SERVER = 2**64 - 1
INVITATION, ADVERTISEMENT, ROSTER, SHARES, RELAY, INPUT, REQUEST, RELEASE = 0, 1, 2, 3, 4, 5, 6, 9


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


# ---------------------------------------------------------------------------------------------------- SPEC "Parameters"


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
        return fixed + bytes([self.plus, 0, self.harary]) + tail


def plan(
    *, n: int, d: int, clip: float, bits: int, max_weight: int, dropout: float, corrupt: float, plus: bool
) -> Parameters:
    a, gone = (math.ceil(Fraction(repr(rate)) * n) for rate in (corrupt, dropout))
    survivors = n - gone
    assert survivors - a >= 2
    sparse = least_sparse_graph(n, a, gone) if plus and n >= 40 and corrupt + dropout <= 0.9 else None
    k, t = sparse or (n - 1, min(max(a + 1, 2 * (n - 1) // 3 + 1), survivors - 1))
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
    )


def least_sparse_graph(n: int, a: int, gone: int) -> tuple[int, int] | None:
    bad, survivors = a + gone, n - gone
    for k in range(2, n - 1, 2):
        apart = Fraction(n * (n - k - 1) * math.comb(bad, k), 2 * math.comb(n, k))
        if k <= bad and not apart < Fraction(1, 2**41):
            continue
        corrupt, surviving = hypergeometric(n, a, k), hypergeometric(n, survivors, k)
        t1 = min(x for x in range(k + 1) if sum(corrupt[x + 1 :]) <= Fraction(1, 2**41 * n))
        t2 = max(x for x in range(k + 1) if sum(surviving[:x]) < Fraction(1, 2**20 * n))
        if max(t1, 1) < t2:
            return k, max(t1 + 1, 2)
    return None


def hypergeometric(population: int, marked: int, drawn: int) -> list[Fraction]:
    ways = math.comb(population, drawn)
    return [Fraction(math.comb(marked, x) * math.comb(population - marked, drawn - x), ways) for x in range(drawn + 1)]


# -------------------------------------------------------------------------------------- SPEC "Keys", RFC 7748 section 5


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


# ------------------------------------------------------------------------------- SPEC "Encryption", "Masks", "Encoding"


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


# --------------------------------------------------------------------------------------- SPEC "Messages", "Identifiers"


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
    entries: dict[int, bytes]  # U1: position -> channel key, mask key, commitment
    common: bytes
    neighbours: list[int] | None  # None: not in the message, the graph is complete

    @classmethod
    def decode(cls, params: Parameters, body: bytes) -> Roster:
        n = params.n
        ids = [int.from_bytes(part, "little") for part in chunks(body[: 8 * n], 8)]
        at = 8 * n + (n + 7) // 8
        present = sorted(bitmap(body[8 * n : at], n))
        end = at + 96 * len(present)
        entries = dict(zip(present, chunks(body[at:end], 96), strict=True))
        own = [int.from_bytes(part, "little") for part in chunks(body[end:], 4)]
        assert len(own) == (params.k if params.harary else 0)
        return cls(ids, entries, body[:end], own if params.harary else None)

    def neighbours_of(self, position: int) -> list[int]:
        if self.neighbours is not None:
            return self.neighbours
        return [j for j in range(len(self.ids)) if j != position]

    def mask_public(self, position: int) -> bytes:
        return self.entries[position][32:64]


def round_id(params: Parameters, context: bytes, nonce: bytes) -> bytes:
    return digest("round", b"\x01\x01", params.encode(), digest("context", context), nonce)


def session_id(round_identifier: bytes, roster: Roster) -> bytes:
    return digest("session", round_identifier, roster.common, b"")


def commitment(round_identifier: bytes, client_id: int, seed: bytes) -> bytes:
    return digest("self-mask-seed-commitment", round_identifier, u64(client_id), seed)


# -------------------------------------------------------------------------------------------------------- SPEC "Client"


class Client:
    """One client; each method takes the server's message and returns the answer."""

    def __init__(self, params: Parameters, client_id: int, context: bytes, draw: Draw) -> None:
        self.params, self.id, self.context, self.draw = params, client_id, context, draw

    def advertise_keys(self, message: bytes) -> bytes:
        self.round = round_id(self.params, self.context, open_message(message, INVITATION, SERVER))
        open_message(message, INVITATION, SERVER, self.round)
        self.channel_secret, self.mask_secret, self.seed = self.draw(32), self.draw(32), self.draw(32)
        entry = public_of(self.channel_secret) + public_of(self.mask_secret)
        entry += commitment(self.round, self.id, self.seed)
        return header(ADVERTISEMENT, self.id, self.round) + entry

    def share_keys(self, message: bytes) -> bytes:
        self.roster = Roster.decode(self.params, open_message(message, ROSTER, SERVER, self.round))
        self.session = session_id(self.round, self.roster)
        self.position = self.roster.ids.index(self.id)
        self.neighbours = [j for j in self.roster.neighbours_of(self.position) if j in self.roster.entries]
        points = [j + 1 for j in self.neighbours]
        dealt = deal([self.mask_secret, self.seed], self.params.t, points, self.draw)
        sealed = b""
        for j, shares in zip(self.neighbours, dealt, strict=True):
            key = channel_key(self.channel_secret, self.roster.entries[j][:32], self.session, self.position, j)
            cipher = aes_gcm(key, self.session, self.position, j)
            sealed += b"".join(cipher.encrypt_and_digest(b"".join(shares)))
        return header(SHARES, self.id, self.session) + sealed

    def receive_shares(self, message: bytes) -> None:
        body = open_message(message, RELAY, SERVER, self.session)
        size = (self.params.n + 7) // 8
        shared = bitmap(body[:size], self.params.n)
        self.neighbours = [j for j in self.neighbours if j in shared]
        self.shares = {}
        for j, sealed in zip(self.neighbours, chunks(body[size:], 96), strict=True):
            key = channel_key(self.channel_secret, self.roster.entries[j][:32], self.session, j, self.position)
            self.shares[j] = aes_gcm(key, self.session, j, self.position).decrypt_and_verify(sealed[:80], sealed[80:])

    def mask_input(self, vector: Sequence[float], weight: int) -> bytes:
        params, i, count = self.params, self.position, self.params.d + 1
        words = encode_vector(params, vector, weight, self.draw(24))
        own = key_stream(own_mask_key(params, self.seed, self.session, i), count, params.lane)
        words = [word + mask for word, mask in zip(words, own, strict=True)]
        for j in self.neighbours:
            key = pair_mask_key(params, self.mask_secret, self.roster.mask_public(j), self.session, i, j)
            sign = 1 if i < j else -1
            stream = key_stream(key, count, params.lane)
            words = [word + sign * mask for word, mask in zip(words, stream, strict=True)]
        return header(INPUT, self.id, self.session) + pack(params, words)

    def unmask(self, message: bytes) -> bytes:
        survivors = bitmap(open_message(message, REQUEST, SERVER, self.session), self.params.n)
        released = b"".join(self.shares[j][40:] if j in survivors else self.shares[j][:40] for j in self.neighbours)
        return header(RELEASE, self.id, self.session) + released


# ----------------------------------------------------------------------------------------------------- SPEC "Unmasking"


def sum_of_round(
    params: Parameters,
    *,
    rosters: Mapping[int, bytes],
    relay: bytes,
    inputs: Mapping[int, bytes],
    request: bytes,
    releases: Mapping[int, bytes],
) -> list[int]:
    """Return the d + 1 words of the sum in the clear, from the messages of the round alone.

    ``rosters`` maps a client's id to the roster that it was sent; ``relay`` and ``request`` are any client's;
    ``inputs`` and ``releases`` map ids to the survivors' uploads and to the shares of those that answered last.
    """
    decoded = {one: Roster.decode(params, message[48:]) for one, message in rosters.items()}
    roster = next(iter(decoded.values()))
    round_identifier, session = next(iter(rosters.values()))[16:48], relay[16:48]
    assert session == session_id(round_identifier, roster)
    position = {one: roster.ids.index(one) for one in rosters}
    graph = {position[one]: own.neighbours_of(position[one]) for one, own in decoded.items()}
    shared = bitmap(relay[48 : 48 + (params.n + 7) // 8], params.n)
    survivors = bitmap(open_message(request, REQUEST, SERVER, session), params.n)
    assert survivors == {position[one] for one in inputs}

    words = [0] * (params.d + 1)
    for one, message in inputs.items():
        upload = unpack(params, open_message(message, INPUT, one, session))
        words = [word + value for word, value in zip(words, upload, strict=True)]

    released: dict[int, dict[int, bytes]] = {}  # holder -> owner -> share
    for one, message in releases.items():
        holder = position[one]
        owners = [j for j in graph[holder] if j in shared]
        body = open_message(message, RELEASE, one, session)
        released[holder] = dict(zip(owners, chunks(body, 40), strict=True))

    def take_off(key: bytes, sign: int) -> None:
        stream = key_stream(key, params.d + 1, params.lane)
        words[:] = [word - sign * mask for word, mask in zip(words, stream, strict=True)]

    for i in sorted(shared):
        holders = [j for j in graph[i] if j in released][: params.t]
        secret = rebuild([j + 1 for j in holders], [released[j][i] for j in holders])
        if i in survivors:
            assert commitment(round_identifier, roster.ids[i], secret) == roster.entries[i][64:]
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
