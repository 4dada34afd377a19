"""Parameters of a round: planned from what a caller knows, proved safe and free of overflow when they are built.

Source: SPEC "Parameters"; the sparse graph's rule is in ``graph_parameters``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from secagg.arguments import check_choice, checked_integer, checked_rate
from secagg.cohort import (
    MAX_CLIENTS,
    PLANNED_CORRUPT,
    PLANNED_DROPOUT,
    Cohort,
    CohortCounts,
    Threat,
    check_honest_survivors,
    cohort_of,
)
from secagg.encoding.fixed_point import MAX_DIMENSION, MAX_WEIGHT, FixedPoint
from secagg.encoding.ring import MAX_RING_BITS
from secagg.errors import DecodeError, ParameterError
from secagg.pairwise.encoded_params import Graph as Graph
from secagg.pairwise.encoded_params import PairwiseName as PairwiseName
from secagg.pairwise.encoded_params import UnprovedParams
from secagg.pairwise.graph_parameters import (
    MAX_RATE_SUM,
    MAX_SPARSE_NEIGHBOURS,
    is_connected,
    is_uncuttable,
    recovery_limit,
    secrecy_limit,
    smallest_sparse_graph,
    smallest_uncuttable_graph,
)

MIN_SPARSE_CLIENTS = 40
"""Below this a sparse graph saves nothing and its counts round to no tolerance."""
MAX_COMPLETE_CLIENTS = 4096
"""Beyond this the shares that a server of the complete graph relays take gigabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundParams(CohortCounts):
    """What all parties of a round agree on. Build it with ``plan``; every field is checked however it is built.

    Attributes:
        clients: n, the clients invited, 2 to 2**20.
        dimension: d, coordinates of each vector, 0 to 2**32.
        encoding: how a coordinate becomes an integer.
        max_weight: the largest weight that a client may give its vector, at least 1.
        dropout: planned fraction of clients that vanish, at any stages, in [0, 1).
        corrupt: planned fraction of clients that collude with the server, in [0, 1).
        protocol: ``secagg`` (complete graph) or ``secagg+`` (sparse where that is safe).
        threat: the model that the parameters are proved in.
        graph: ``complete`` or ``harary``, the masking graph in use.
        neighbours: k, with how many others a client shares masks and secrets.
        threshold: t, how many of them rebuild a secret.
        ring_bits: b; sums are taken modulo 2**b, 1 to 64.

    Raises:
        ParameterError: a field lies outside its range, the sum could wrap (the text names the least width that works),
            or (k, t) is not safe at these rates.
    """

    clients: int
    dimension: int
    encoding: FixedPoint
    max_weight: int
    dropout: float
    corrupt: float
    protocol: PairwiseName
    threat: Threat
    graph: Graph
    neighbours: int
    threshold: int
    ring_bits: int

    def __post_init__(self) -> None:
        self._check_ranges()
        self._prove_cohort()
        self._prove_sum()
        self._prove_graph()

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
        protocol: PairwiseName = "secagg+",
        threat: Threat = "semi-honest",
        threshold: int | None = None,
        ring_bits: int | None = None,
    ) -> RoundParams:
        """Choose the graph, threshold and ring width for a cohort and its planned rates.

        Corrupt and drop-out counts are rounded up (``corrupt_count``, ``dropout_count``). ``secagg`` uses the complete
        graph; ``secagg+`` uses it too below 40 clients and where no sparse graph is safe (``notes`` says why). The
        complete graph's default threshold is two thirds of the others, held between what secrecy and recovery allow.

        Raises:
            ParameterError: no safe parameters exist for what was asked; the text says what would have to change.
        """
        clients = checked_integer("clients", clients, 1, MAX_CLIENTS)
        corrupt, dropout = checked_rate("corrupt", corrupt), checked_rate("dropout", dropout)
        check_choice("protocol", protocol, get_args(PairwiseName))
        check_choice("threat", threat, get_args(Threat))
        # All that is cheap before the search, which is not
        dimension = checked_integer("dimension", dimension, 0, MAX_DIMENSION)
        width = _sum_bits(clients, max_weight, encoding)
        cohort = cohort_of(clients, corrupt, dropout)
        check_honest_survivors(cohort)
        sparse = _sparse_graph(protocol, threat, cohort, corrupt, dropout)
        if sparse is None:
            neighbours = clients - 1
            low, high = _complete_limits(cohort, threat)
            planned = min(max(low + 1, 2 * neighbours // 3 + 1), high)
        else:
            neighbours, planned = sparse
        return cls(
            clients=clients,
            dimension=dimension,
            encoding=encoding,
            max_weight=max_weight,
            dropout=dropout,
            corrupt=corrupt,
            protocol=protocol,
            threat=threat,
            graph="complete" if sparse is None else "harary",
            neighbours=neighbours,
            threshold=planned if threshold is None else threshold,
            ring_bits=width if ring_bits is None else ring_bits,
        )

    @property
    def quorum(self) -> int:
        """How many clients, itself among them, a client of the malicious-server model sees sign its survivor set.

        More than (n + A) / 2: the corrupt sign whatever they like and everybody else once, so no two sets get as many,
        and all that honest clients release in a session is for one and the same.
        """
        return (self.clients + self.corrupt_count) // 2 + 1

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about the choice, a sentence each; empty where there is nothing to say."""
        if self.protocol == "secagg+" and self.graph == "complete":
            if self.clients < MIN_SPARSE_CLIENTS:
                return (
                    f"{self.clients} clients use the complete graph: below {MIN_SPARSE_CLIENTS} a sparse one saves "
                    "nothing and tolerates next to nobody.",
                )
            return ("No sparse graph is safe at these rates, so the complete graph is used.",)
        return ()

    def encode(self) -> bytes:
        """Return the canonical bytes (of one length always) that the round's identifier is computed over."""
        return UnprovedParams(
            clients=self.clients,
            dimension=self.dimension,
            clip=self.encoding.clip,
            bits=self.encoding.bits,
            max_weight=self.max_weight,
            dropout=self.dropout,
            corrupt=self.corrupt,
            protocol=self.protocol,
            threat=self.threat,
            graph=self.graph,
            neighbours=self.neighbours,
            threshold=self.threshold,
            ring_bits=self.ring_bits,
        ).encode()

    @classmethod
    def decode(cls, payload: bytes) -> RoundParams:
        """Read what ``encode`` wrote and prove it anew.

        Raises:
            DecodeError: the bytes are not an encoding of parameters.
            ParameterError: they are, but of unsafe ones.
        """
        said = UnprovedParams.decode(payload)
        params = cls(
            clients=said.clients,
            dimension=said.dimension,
            encoding=FixedPoint(clip=said.clip, bits=said.bits),
            max_weight=said.max_weight,
            dropout=said.dropout,
            corrupt=said.corrupt,
            protocol=said.protocol,
            threat=said.threat,
            graph=said.graph,
            neighbours=said.neighbours,
            threshold=said.threshold,
            ring_bits=said.ring_bits,
        )
        if params.encode() != payload:
            raise DecodeError("parameters are not encoded canonically")
        return params

    def _check_ranges(self) -> None:
        bounds = {
            "clients": (1, MAX_CLIENTS),
            "dimension": (0, MAX_DIMENSION),
            "max_weight": (1, MAX_WEIGHT),
            "neighbours": (1, MAX_CLIENTS),
            "threshold": (1, MAX_CLIENTS),
            "ring_bits": (1, MAX_RING_BITS),
        }
        for name, (low, high) in bounds.items():
            object.__setattr__(self, name, checked_integer(name, getattr(self, name), low, high))
        for name in ("corrupt", "dropout"):
            object.__setattr__(self, name, checked_rate(name, getattr(self, name)))
        for name, choices in (("protocol", PairwiseName), ("threat", Threat), ("graph", Graph)):
            check_choice(name, getattr(self, name), get_args(choices))

    def _prove_cohort(self) -> None:
        check_honest_survivors(self.cohort)
        if self.threat == "malicious-server" and self.minimum_survivors < self.quorum:
            raise ParameterError(
                f"against a malicious server {self.quorum} of {self.clients} clients must vouch for the survivor set, "
                f"but only {self.minimum_survivors} are sure to be left: lower dropout or corrupt"
            )

    def _prove_sum(self) -> None:
        least = _sum_bits(self.clients, self.max_weight, self.encoding)
        if self.ring_bits < least:
            raise ParameterError(
                f"the sum of {self.clients} clients of {self.encoding.bits}-bit codes with weights up to "
                f"{self.max_weight} would wrap in a ring of {self.ring_bits} bits; "
                f"the smallest width that works is {least}"
            )

    def _prove_graph(self) -> None:
        cohort, k, t = self.cohort, self.neighbours, self.threshold
        if self.graph == "complete":
            if k != self.clients - 1:
                raise ParameterError(f"in the complete graph each client has {self.clients - 1} neighbours, got {k}")
            if self.clients > MAX_COMPLETE_CLIENTS:
                raise ParameterError(
                    f"the complete graph takes at most {MAX_COMPLETE_CLIENTS} clients, got {self.clients}: "
                    "use secagg+, at lower rates if it finds no sparse graph"
                )
            low, high = _complete_limits(cohort, self.threat)
        else:
            if self.protocol != "secagg+":
                raise ParameterError("protocol 'secagg' uses the complete graph")
            if k % 2 or not 2 <= k <= self.clients - 2 or self.clients < MIN_SPARSE_CLIENTS:
                raise ParameterError(
                    f"a sparse graph needs at least {MIN_SPARSE_CLIENTS} clients and an even number of neighbours "
                    f"from 2 to {self.clients - 2}, got {self.clients} and {k}"
                )
            if k > MAX_SPARSE_NEIGHBOURS:
                raise ParameterError(
                    f"a sparse graph takes at most {MAX_SPARSE_NEIGHBOURS} neighbours, got {k}: fewer do at any rates "
                    "that RoundParams.plan finds a graph for"
                )
            if not is_connected(cohort, k):
                raise ParameterError(f"with {k} neighbours the survivors' graph falls apart too often at these rates")
            malicious = self.threat == "malicious-server"
            low, high = max(secrecy_limit(cohort, k, malicious_server=malicious), 1), recovery_limit(cohort, k)
            if malicious and not is_uncuttable(cohort, k, t):
                raise ParameterError(
                    f"with {k} neighbours and threshold {t} a server that cuts the ring reads a part of it"
                )
        if low >= high:
            raise ParameterError(
                f"no threshold is safe for {self.clients} clients: secrecy needs more than {low} holders, but at most "
                f"{high} are sure to be left (more clients, or lower dropout or corrupt)"
            )
        if not low < t <= high:
            raise ParameterError(
                f"threshold {t} is not safe: secrecy needs more than {low} (corrupt neighbours could rebuild secrets), "
                f"recovery at most {high} (survivors could not)"
            )


def _complete_limits(cohort: Cohort, threat: Threat) -> tuple[int, int]:
    """Return what a threshold of the complete graph must exceed, and what it must not.

    A malicious server may show two sets of survivors to two parts of the honest clients, and each part answers once:
    2t > (n - 1) + A keeps it from t answers of both kinds.
    """
    if threat == "malicious-server":
        return (cohort.clients - 1 + cohort.corrupt) // 2, cohort.survivors - 1
    return cohort.corrupt, cohort.survivors - 1


def _sparse_graph(
    protocol: PairwiseName, threat: Threat, cohort: Cohort, corrupt: float, dropout: float
) -> tuple[int, int] | None:
    malicious = threat == "malicious-server"
    if protocol != "secagg+" or cohort.clients < MIN_SPARSE_CLIENTS:
        return None
    if corrupt + (2 if malicious else 1) * dropout > MAX_RATE_SUM:
        return None
    found = smallest_uncuttable_graph(cohort) if malicious else smallest_sparse_graph(cohort)
    return None if found is None else (found.neighbours, found.threshold)


def _sum_bits(clients: int, max_weight: int, encoding: FixedPoint) -> int:
    """Return the bits of the largest sum that a coordinate, or the weight itself, can reach."""
    if not isinstance(encoding, FixedPoint):
        raise ParameterError(f"encoding must be a FixedPoint, got {type(encoding).__name__}")
    largest = clients * checked_integer("max_weight", max_weight, 1, MAX_WEIGHT) * encoding.largest_code
    bits = largest.bit_length()
    if bits > MAX_RING_BITS:
        raise ParameterError(
            f"{clients} clients x weight {max_weight} x {encoding.bits}-bit codes need a ring of {bits} bits; "
            f"the widest has {MAX_RING_BITS}: lower bits or max_weight (weights may be scaled down before the round)"
        )
    return bits
