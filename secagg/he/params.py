"""Parameters of a homomorphic sum: planned from what a caller knows, proved when they are built.

Source: SPEC "Homomorphic sums".
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from secagg.arguments import check_choice, checked_integer, checked_rate
from secagg.cohort import (
    MAX_CLIENTS,
    PLANNED_CORRUPT,
    PLANNED_DROPOUT,
    CohortCounts,
    Threat,
    check_honest_survivors,
)
from secagg.encoding.fixed_point import MAX_DIMENSION, MAX_WEIGHT, FixedPoint
from secagg.encoding.ring import packed_bytes
from secagg.errors import DecodeError, ParameterError
from secagg.he import noise
from secagg.he.chains import CHAINS, MIN_SECURITY_BITS, Chain, batching_prime
from secagg.he.engine import Scheme

HEName = Literal["bfv", "ckks"]
KeyHolder = Literal["decryptor", "clients"]

MAX_RELEASES = 1 << 20
MIN_FLOODING_BITS, MAX_FLOODING_BITS = 40, 64
MAX_PLAIN_BITS = 59
"""SEAL's plain moduli have 60 bits at most; one is the prime's own, above the packed sum."""
MAX_NTT_BITS = 42
"""CKKS takes chains of primes no wider: flooding is transformed here, in 64-bit words."""

_LAYOUT = struct.Struct("<IQdBQddBBBBBBI")

CLIENTS_HOLD_THE_KEY = (
    "Every client holds the secret key: any one of them together with the aggregator, or with whoever records the "
    "uploads, reads every client's vector."
)
DECRYPTOR_HOLDS_THE_KEY = (
    "The decryptor holds the secret key and is passed the uploads: it can read every client's vector, and is trusted "
    "not to. Clients are trusted to encrypt as specified: one that does not can take the key."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HEParams(CohortCounts):
    """What all parties of a homomorphic sum agree on. Build it with ``plan``; every field is checked however it is
    built.

    Who holds the key decides who can read what. With ``key_holder="decryptor"`` it is a party that is neither a client
    nor the aggregator; it is passed the uploads, so it can read every one and is trusted not to. With
    ``key_holder="clients"`` **every client decrypts, and any one of them together with the aggregator reads everybody's
    vector.** Either way clients are trusted to encrypt as specified (SECURITY.md).

    Attributes:
        clients: n, the clients invited.
        dimension: d, coordinates of each vector.
        encoding: how a coordinate becomes an integer; with CKKS what the mean's accuracy is held to.
        max_weight: W, the largest weight that a client may give its vector.
        dropout: planned fraction of clients that vanish, in [0, 1).
        corrupt: planned fraction of clients that pool what they see with the aggregator, in [0, 1).
        protocol: ``bfv``, exact, or ``ckks``, approximate.
        key_holder: ``decryptor`` or ``clients``.
        chain: ring and moduli, one of ``CHAINS``.
        codes_per_slot: how many words of the sum share a slot; 0 with CKKS.
        scale_bits: CKKS multiplies by 2**scale_bits; 0 with BFV.
        releases: tau, how many sums one key releases.
        flooding_bits: s, statistical security of what CKKS releases, at least 40; 0 with BFV.

    Raises:
        ParameterError: a field lies outside its range, the sum or its noise may not fit, the chain is estimated at less
            than 128 bits, or fewer bits of precision are left than asked for.
    """

    clients: int
    dimension: int
    encoding: FixedPoint
    max_weight: int
    dropout: float
    corrupt: float
    protocol: HEName
    key_holder: KeyHolder
    chain: Chain
    codes_per_slot: int
    scale_bits: int
    releases: int
    flooding_bits: int

    def __post_init__(self) -> None:
        self._check_ranges()
        check_honest_survivors(self.cohort)
        if self.chain not in CHAINS or self.chain.security_bits < MIN_SECURITY_BITS:
            raise ParameterError("the chain is none of those that are estimated at 128 bits of security")
        if self.protocol == "bfv":
            self._prove_exact()
        else:
            self._prove_approximate()

    @classmethod
    def plan(
        cls,
        *,
        clients: int,
        dimension: int,
        encoding: FixedPoint,
        max_weight: int = 1,
        dropout: float = PLANNED_DROPOUT,
        corrupt: float = PLANNED_CORRUPT,
        protocol: HEName = "bfv",
        key_holder: KeyHolder = "decryptor",
        releases: int = 100,
        flooding_bits: int | None = None,
    ) -> HEParams:
        """Choose the chain, and how values lie in a ciphertext, by the fewest bytes that a client sends.

        Raises:
            ParameterError: no set of ``CHAINS`` carries such a sum; the text says what would have to change.
        """
        check_choice("protocol", protocol, get_args(HEName))
        if flooding_bits is None:
            flooding_bits = 0 if protocol == "bfv" else MIN_FLOODING_BITS
        best: HEParams | None = None
        problem: ParameterError | None = None
        for chain, codes, scale in _choices(protocol, clients, dimension, releases, flooding_bits):
            try:
                found = cls(
                    clients=clients,
                    dimension=dimension,
                    encoding=encoding,
                    max_weight=max_weight,
                    dropout=dropout,
                    corrupt=corrupt,
                    protocol=protocol,
                    key_holder=key_holder,
                    chain=chain,
                    codes_per_slot=codes,
                    scale_bits=scale,
                    releases=releases,
                    flooding_bits=flooding_bits,
                )
            except ParameterError as refusal:
                # The last chain is the roomiest, and one code to a slot asks the least: what refuses that is the reason
                problem = refusal if codes <= 1 else problem
                continue
            if best is None or found.ciphertext_bytes < best.ciphertext_bytes:
                best = found
        if best is None:
            raise problem or ParameterError("no set of parameters carries this sum")
        return best

    @property
    def threat(self) -> Threat:
        """``malicious-server`` where a decryptor checks what the aggregator gave it, else ``semi-honest``."""
        return "malicious-server" if self.key_holder == "decryptor" else "semi-honest"

    @property
    def security_bits(self) -> float:
        """What is estimated for the best known attack on the key."""
        return self.chain.security_bits

    @property
    def ring_bits(self) -> int:
        """Bits of the largest sum that a coordinate, or the weight, can reach."""
        return (self.clients * self.max_weight * self.encoding.largest_code).bit_length()

    @property
    def plain_modulus(self) -> int:
        """t, the least batching prime above a slot's largest packed sum; 0 with CKKS."""
        if self.protocol == "ckks":
            return 0
        return batching_prime(self.chain.degree, 1 << (self.codes_per_slot * self.ring_bits))

    @property
    def scheme(self) -> Scheme:
        """What keys are made from."""
        return Scheme(chain=self.chain, plain_modulus=self.plain_modulus, scale=2.0**self.scale_bits)

    @property
    def values_per_ciphertext(self) -> int:
        """How many coordinates one ciphertext holds."""
        return self.scheme.slots * max(self.codes_per_slot, 1)

    @property
    def ciphertexts(self) -> int:
        """C, how many ciphertexts an upload holds: d coordinates and the weight."""
        return -(-(self.dimension + 1) // self.values_per_ciphertext)

    @property
    def ciphertext_bytes(self) -> int:
        """Bytes of an upload's ciphertexts: each residue takes the bits of its prime."""
        words = 2 * self.chain.degree * self.ciphertexts
        return sum(packed_bytes(words, bits) for bits in self.chain.data_bits)

    @property
    def public_key_bytes(self) -> int:
        """Bytes of the public key's residues."""
        return sum(packed_bytes(2 * self.chain.degree, prime.bit_length()) for prime in self.chain.primes)

    @property
    def least_noise_budget(self) -> int:
        """Bits of noise budget that honest BFV uploads leave at least; less is refused."""
        return noise.honest_budget(self.chain, self.plain_modulus, self.clients, self.ciphertexts)

    @property
    def flooding_deviation(self) -> float:
        """Sigma of the Gaussian added to each coefficient of a CKKS decryption, before it is scaled down."""
        return noise.flooding_deviation(self.chain, self.clients, self.releases * self.ciphertexts, self.flooding_bits)

    @property
    def error(self) -> float:
        """Bound of the error of each released value, in units of W clip; 0 with BFV."""
        if self.protocol == "bfv":
            return 0.0
        return noise.slot_error(self.chain, self.clients, self.flooding_deviation, self.scale_bits, self.dimension + 1)

    @property
    def precision(self) -> float:
        """The grid that released CKKS values are rounded to, in units of W clip."""
        return noise.precision(noise.slot_deviation(self.chain, self.flooding_deviation), self.scale_bits)

    @property
    def bits_left(self) -> int:
        """The bits of fixed-point codes whose step the mean's error stays within."""
        if self.protocol == "bfv":
            return self.encoding.bits
        return max(math.floor(math.log2(self.minimum_survivors / (self.max_weight * self.error) + 1)), 0)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about the choice, a sentence each."""
        holder = CLIENTS_HOLD_THE_KEY if self.key_holder == "clients" else DECRYPTOR_HOLDS_THE_KEY
        what = f"{self.chain.degree}/{self.chain.total_bits} bits, estimated security {self.security_bits:.0f} bits."
        if self.protocol == "bfv":
            return (holder, what)
        flooded = (
            f"Each sum is flooded: s = {self.flooding_bits} bits for {self.releases} sums under one key; values err by "
            f"at most {self.error:.3g} of weight x clip."
        )
        return (holder, what, flooded)

    def encode(self) -> bytes:
        """Return the canonical bytes, of one length always, that the round's identifier is computed over."""
        return _LAYOUT.pack(
            self.clients,
            self.dimension,
            self.encoding.clip,
            self.encoding.bits,
            self.max_weight,
            self.dropout,
            self.corrupt,
            get_args(HEName).index(self.protocol),
            get_args(KeyHolder).index(self.key_holder),
            CHAINS.index(self.chain),
            self.codes_per_slot,
            self.scale_bits,
            self.flooding_bits,
            self.releases,
        )

    @classmethod
    def decode(cls, payload: bytes) -> HEParams:
        """Read what ``encode`` wrote and prove it anew.

        Raises:
            DecodeError: the bytes are not an encoding of parameters.
            ParameterError: they are, but of unsafe ones.
        """
        said = cls.read_unproved(payload)
        encoding = FixedPoint(clip=said.pop("clip"), bits=said.pop("bits"))
        params = cls(encoding=encoding, **said)
        if params.encode() != payload:
            raise DecodeError("parameters are not encoded canonically")
        return params

    @staticmethod
    def read_unproved(payload: bytes) -> dict[str, Any]:
        """Return what ``encode`` wrote, field by field, checked for nothing but its form.

        Raises:
            DecodeError: the bytes are not an encoding of parameters.
        """
        if not isinstance(payload, bytes) or len(payload) != _LAYOUT.size:
            raise DecodeError(f"parameters of a homomorphic sum are {_LAYOUT.size} bytes")
        n, d, clip, bits, weight, dropout, corrupt, *rest = _LAYOUT.unpack(payload)
        protocol, holder, chain, codes, scale, flooding, releases = rest
        choices = ((protocol, get_args(HEName)), (holder, get_args(KeyHolder)), (chain, CHAINS))
        if any(index >= len(known) for index, known in choices):
            raise DecodeError("parameters hold a value that this version does not know")
        return {
            "clients": n,
            "dimension": d,
            "clip": clip,
            "bits": bits,
            "max_weight": weight,
            "dropout": dropout,
            "corrupt": corrupt,
            "protocol": get_args(HEName)[protocol],
            "key_holder": get_args(KeyHolder)[holder],
            "chain": CHAINS[chain],
            "codes_per_slot": codes,
            "scale_bits": scale,
            "releases": releases,
            "flooding_bits": flooding,
        }

    def _check_ranges(self) -> None:
        if not isinstance(self.encoding, FixedPoint):
            raise ParameterError(f"encoding must be a FixedPoint, got {type(self.encoding).__name__}")
        check_choice("protocol", self.protocol, get_args(HEName))
        check_choice("key_holder", self.key_holder, get_args(KeyHolder))
        exact = self.protocol == "bfv"
        bounds = {
            "clients": (1, MAX_CLIENTS),
            "dimension": (0, MAX_DIMENSION),
            "max_weight": (1, MAX_WEIGHT),
            "codes_per_slot": (1, MAX_PLAIN_BITS) if exact else (0, 0),
            "scale_bits": (0, 0) if exact else (1, 127),
            "releases": (1, MAX_RELEASES),
            "flooding_bits": (0, 0) if exact else (MIN_FLOODING_BITS, MAX_FLOODING_BITS),
        }
        for name, (low, high) in bounds.items():
            object.__setattr__(self, name, checked_integer(name, getattr(self, name), low, high))
        for name in ("corrupt", "dropout"):
            object.__setattr__(self, name, checked_rate(name, getattr(self, name)))

    def _prove_exact(self) -> None:
        packed = self.codes_per_slot * self.ring_bits
        if packed > MAX_PLAIN_BITS:
            raise ParameterError(
                f"{self.codes_per_slot} sums of {self.ring_bits} bits would wrap in a slot, which holds "
                f"{MAX_PLAIN_BITS}: lower bits or max_weight (weights may be scaled down before the round)"
            )
        if self.least_noise_budget < 1:
            raise ParameterError(
                f"the noise of {self.clients} uploads could spoil a slot of {packed} bits with a modulus of "
                f"{self.chain.modulus.bit_length()}: lower bits, max_weight or clients"
            )

    def _prove_approximate(self) -> None:
        if self.encoding.bits < 2:
            raise ParameterError("CKKS takes 2 bits or more: its accuracy is held to theirs")
        if len(self.chain.data_bits) < 2 or max(self.chain.data_bits) > MAX_NTT_BITS:
            raise ParameterError("CKKS takes a chain of two primes or more")
        most = noise.largest_scale_bits(self.chain, self.clients, self.flooding_deviation, self.dimension + 1)
        if self.scale_bits > most:
            raise ParameterError(
                f"a sum of {self.clients} values at scale 2**{self.scale_bits} would wrap; at most 2**{most} fits"
            )
        if self.bits_left < self.encoding.bits:
            raise ParameterError(
                f"flooding leaves {self.bits_left} bits of the {self.encoding.bits} asked for: lower bits, max_weight, "
                "dimension or releases, or use bfv, which is exact"
            )


def _choices(
    protocol: HEName, clients: int, dimension: int, releases: int, flooding_bits: int
) -> Iterator[tuple[Chain, int, int]]:
    """Yield chains with codes a slot and scale, the roomiest last; what does not hold is refused when it is built."""
    for chain in CHAINS:
        if protocol == "bfv":
            for codes in range(MAX_PLAIN_BITS, 0, -1):
                yield chain, codes, 0
        elif len(chain.data_bits) > 1:
            clients = checked_integer("clients", clients, 1, MAX_CLIENTS)
            values = checked_integer("dimension", dimension, 0, MAX_DIMENSION) + 1
            releases = checked_integer("releases", releases, 1, MAX_RELEASES)
            flooding_bits = checked_integer("flooding_bits", flooding_bits, MIN_FLOODING_BITS, MAX_FLOODING_BITS)
            count = releases * -(-values // (chain.degree // 2))
            deviation = noise.flooding_deviation(chain, clients, count, flooding_bits)
            yield chain, 0, max(noise.largest_scale_bits(chain, clients, deviation, values), 1)
