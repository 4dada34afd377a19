"""What a server can compute from all that it was sent: linear algebra over the uploads and the masks it can rebuild.

An upload is the row x_i + sum of +-masks. Masks are told apart by their keys, taken from where the library expands
them, so a mask that occurs twice is one unknown. The server knows a key once t of the shares of the secret behind it
have left their holders, or a corrupt client is at one of its ends. What is left is a matrix over the unknown masks, and
its left null space is exactly what the server can compute of the inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

import numpy as np

from secagg import RoundParams
from secagg.encoding.ring import lane_dtype, unpack_add
from secagg.pairwise import client_steps as steps
from secagg.pairwise.client_states import Fixed, Ready
from secagg.pairwise.identifiers import pairwise_mask_key, self_mask_key
from secagg.pairwise.messages import MASK_KEY_SHARE, SEED_SHARE
from secagg.primitives.agreement import AgreementKey
from secagg.primitives.prg import MASK_KEY_BYTES, MaskKeys, accumulate
from secagg.wire import HEADER_BYTES

P = (1 << 31) - 1
KINDS = (MASK_KEY_SHARE, SEED_SHARE)


@dataclass
class Dealing:
    """What one client shared out: 40-byte shares by holder's position and kind, and the secrets behind them."""

    session: bytes
    position: int
    threshold: int
    secrets: tuple[bytes, bytes]
    shares: dict[int, tuple[bytes, bytes]]
    public: bytes


@dataclass
class Upload:
    """One upload as the row it is: sign of each mask, by key; and what tells whose masks they are."""

    session: bytes
    position: int
    row: dict[bytes, int]
    own_public: bytes
    peers: list[tuple[int, bytes]]
    words: np.ndarray


@dataclass
class Step:
    """What happened inside a client while it made one message."""

    dealing: Dealing | None = None
    upload: Upload | None = None


@contextmanager
def watching(params: RoundParams) -> Iterator[Step]:
    """Note what a client deals and which masks it adds, as the library's own calls pass by."""
    step = Step()
    share_keys, share, mask_input, mask_vector = steps.share_keys, steps.share, steps.mask_input, steps.mask_vector
    here: dict[str, object] = {}

    def share_keys_seen(party, state: Fixed, *args, **kwargs):
        here["fixed"] = state
        return share_keys(party, state, *args, **kwargs)

    def share_seen(secrets, *, threshold, points, **kwargs):
        shares = share(secrets, threshold=threshold, points=points, **kwargs)
        fixed = here["fixed"]
        held = {int(p) - 1: (s[0, :40].tobytes(), s[1, :40].tobytes()) for p, s in zip(points, shares, strict=True)}
        public = AgreementKey.from_bytes(secrets[0]).public
        step.dealing = Dealing(fixed.session_id, fixed.position, threshold, tuple(secrets), held, public)
        return shares

    def mask_input_seen(party, state: Ready, *args, **kwargs):
        here["ready"] = state
        return mask_input(party, state, *args, **kwargs)

    def mask_vector_seen(vector, weight, shape, *, keys: MaskKeys, subtract, **kwargs):
        payload, clipped = mask_vector(vector, weight, shape, keys=keys, subtract=subtract, **kwargs)
        ready = here["ready"]
        row: dict[bytes, int] = {}
        for key, minus in zip(keys._keys, subtract.tolist(), strict=True):
            row[key.tobytes()] = row.get(key.tobytes(), 0) + (-1 if minus else 1)
        words = np.zeros(params.dimension + 1, lane_dtype(params.ring_bits))
        unpack_add(memoryview(payload)[HEADER_BYTES:], words, params.ring_bits)
        accumulate(words, keys, ~subtract)  # the row is what the bytes hold: without its masks the input is left
        publics = [ready.mask_publics[32 * i : 32 * i + 32] for i in range(len(ready.neighbours))]
        step.upload = Upload(
            session=ready.session_id,
            position=ready.position,
            row=row,
            own_public=AgreementKey.from_bytes(ready.mask_secret).public,
            peers=list(zip(ready.neighbours.tolist(), publics, strict=True)),
            words=words & words.dtype.type((1 << params.ring_bits) - 1),
        )
        return payload, clipped

    with (
        patch.object(steps, "share_keys", share_keys_seen),
        patch.object(steps, "share", share_seen),
        patch.object(steps, "mask_input", mask_input_seen),
        patch.object(steps, "mask_vector", mask_vector_seen),
    ):
        yield step


def left_null_space(rows: Sequence[Mapping[bytes, int]]) -> np.ndarray:
    """Return a basis, reduced, of the combinations of ``rows`` that vanish: int64[m, len(rows)] modulo P."""
    columns = {key: at for at, key in enumerate(sorted({key for row in rows for key in row}))}
    count, width = len(rows), len(columns)
    matrix = np.zeros((count, width + count), dtype=np.int64)
    for i, row in enumerate(rows):
        for key, sign in row.items():
            matrix[i, columns[key]] = sign % P
        matrix[i, width + i] = 1
    rank = _eliminate(matrix, width)
    basis = matrix[rank:, width:]
    _eliminate(basis, count)
    return basis


def _eliminate(matrix: np.ndarray, width: int) -> int:
    """Bring the first ``width`` columns to reduced row echelon form modulo P, in place; return the rank."""
    rank = 0
    for column in range(width):
        found = np.flatnonzero(matrix[rank:, column])
        if not found.size:
            continue
        pivot = rank + int(found[0])
        matrix[[rank, pivot]] = matrix[[pivot, rank]]
        matrix[rank] = matrix[rank] * pow(int(matrix[rank, column]), -1, P) % P
        others = np.flatnonzero(matrix[:, column])
        others = others[others != rank]
        matrix[others] = (matrix[others] - matrix[others, column][:, None] * matrix[rank] % P) % P
        rank += 1
        if rank == len(matrix):
            break
    return rank


@dataclass
class Ledger:
    """All that left the clients of one round. Clients are roster positions; ``corrupt`` ones hide nothing."""

    params: RoundParams
    corrupt: frozenset[int]
    dealings: list[tuple[int, Dealing]] = field(default_factory=list)
    uploads: dict[int, Upload] = field(default_factory=dict)
    released: dict[tuple[int, int, int], bytes] = field(default_factory=dict)
    """(holder, dealer, kind) -> the share, of every share that left its holder in the clear."""
    exposed: set[bytes] = field(default_factory=set)
    messages: dict[tuple[int, int], bytes] = field(default_factory=dict)
    views: dict[int, tuple[bytes, frozenset[int], frozenset[int]]] = field(default_factory=dict)
    """Session, U2 and U3 as each client that signed a survivor set saw them."""

    def left(self, one: int, payload: bytes, step: Step | None) -> None:
        """Take note of bytes that an honest client sent; a step is what it did to make them."""
        kind = payload[6]
        earlier = self.messages.setdefault((one, kind), payload)
        assert earlier == payload, f"client {one} sent two different messages of kind {kind} in one round"
        if step is not None and step.dealing is not None:
            self.dealings.append((one, step.dealing))
        if step is not None and step.upload is not None:
            assert one not in self.uploads, f"client {one} masked two vectors in one round"
            self.uploads[one] = step.upload
        releases = self._scan(one, payload)
        if releases and self.params.threat == "malicious-server":
            self._check_vouched(one)

    def signed(self, one: int, session: bytes, shared: frozenset[int], survivors: frozenset[int]) -> None:
        """Take note of the sets behind a client's signature, from its own state: the digest is not relied upon."""
        assert one in survivors <= shared, f"client {one} signed a survivor set that it must refuse"
        self.views[one] = (session, shared, survivors)

    def _scan(self, one: int, payload: bytes) -> int:
        found = 0
        for dealer, dealing in self.dealings:
            holders = dealing.shares if dealer == one else [one] if one in dealing.shares else []
            for holder in holders:
                for kind in KINDS:
                    if dealing.shares[holder][kind] in payload:
                        found += 1
                        self.released[holder, dealer, kind] = dealing.shares[holder][kind]
                both = all((holder, dealer, kind) in self.released for kind in KINDS)
                assert not both, f"both kinds of share of {dealer} left holder {holder}"
            self.exposed |= {secret for secret in dealing.secrets if secret in payload}
        return found

    def _check_vouched(self, one: int) -> None:
        """Whoever releases does so only if a quorum of the cohort, in truth, signed the sets that it signed itself."""
        own = self.views[one]
        alike = [j for j in range(self.params.clients) if j in self.corrupt or self.views.get(j) == own]
        assert len(alike) >= self.params.quorum, f"client {one} released with {len(alike)} signatures of its set"

    def known_secrets(self) -> set[bytes]:
        """The secrets that the server has: in the clear, from corrupt clients, or from enough shares."""
        known = set(self.exposed)
        for dealer, dealing in self.dealings:
            for kind in KINDS:
                held = [h for h in dealing.shares if h in self.corrupt or (h, dealer, kind) in self.released]
                if dealer in self.corrupt or len(held) >= dealing.threshold:
                    known.add(dealing.secrets[kind])
        return known

    def known_masks(self) -> set[bytes]:
        """The keys of the masks, among those in the uploads, that the server can compute."""
        secrets, params, masks = self.known_secrets(), self.params, set()
        keys = {d.public: AgreementKey.from_bytes(d.secrets[0]) for _, d in self.dealings if d.secrets[0] in secrets}
        seeds = {(dealer, d.session): d.secrets[1] for dealer, d in self.dealings if d.secrets[1] in secrets}
        for one, upload in self.uploads.items():
            if (one, upload.session) in seeds:
                seed = seeds[one, upload.session]
                masks.add(self_mask_key(seed, upload.session, params, upload.position, MASK_KEY_BYTES))
            for peer, public in upload.peers:
                if upload.own_public in keys:
                    agreed = keys[upload.own_public].exchange(public)
                elif public in keys:
                    agreed = keys[public].exchange(upload.own_public)
                else:
                    continue
                masks.add(pairwise_mask_key(agreed, upload.session, params, upload.position, peer, MASK_KEY_BYTES))
        return masks

    def derivable(self) -> list[dict[int, int]]:
        """Return a basis of what the server can compute of honest inputs: client -> coefficient modulo P."""
        masks = self.known_masks()
        honest = [one for one in self.uploads if one not in self.corrupt]
        rows = [{k: s for k, s in self.uploads[one].row.items() if s and k not in masks} for one in honest]
        return [
            {one: int(value) for one, value in zip(honest, vector, strict=True) if value}
            for vector in left_null_space(rows)
        ]

    def check(self) -> None:
        """The server learns at most one sum, over at least S inputs, those of corrupt clients among them."""
        sums = self.derivable()
        assert len(sums) <= 1, f"the server can compute {len(sums)} independent sums: {[sorted(one) for one in sums]}"
        for one in sums:
            assert set(one.values()) == {1}, f"the server can compute a combination that is no sum: {one}"
            floor = self.params.minimum_survivors - len(self.corrupt)
            assert len(one) >= max(floor, 2), f"the server can compute the sum of {sorted(one)} alone"


@dataclass
class Masks:
    """Every mask that ever went into an upload, over all rounds: none serves twice."""

    used: dict[bytes, list[tuple[int, int, int]]] = field(default_factory=dict)

    def add(self, round_number: int, one: int, upload: Upload) -> None:
        """Note an upload's masks: a pair's mask is used by its two ends with opposite signs, any other once."""
        for key, sign in upload.row.items():
            uses = self.used.setdefault(key, [])
            uses.append((round_number, one, sign))
            assert abs(sign) == 1, f"client {one} added one mask twice"
            if len(uses) > 1:
                (first, a, sign_a), (second, b, sign_b) = uses[0], uses[1]
                pair = len(uses) == 2 and first == second and a != b and sign_a == -sign_b
                assert pair, f"a mask was used twice: (round, client, sign) {uses}"
