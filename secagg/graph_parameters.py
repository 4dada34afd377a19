"""How many neighbours k and which threshold t make a sparse masking graph safe.

Source: Bell, Bonawitz, Gascon, Lepoint, Raykova, "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead",
CCS 2020, section 3 and Theorem 3.10; the search is the one that google/federated-compute publishes vectors for. SPEC
"Parameters" lists the proof obligations.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secagg.errors import ParameterError

SECURITY_BITS = 40
"""sigma: the planned failure probability of secrecy is at most 2**-sigma over a whole round."""
FAILURE_BITS = 20
"""eta: a round within its drop-out rate fails to recover with probability at most 2**-eta."""
MAX_RATE_SUM = 0.9
"""Beyond this sum of rates no sparse graph is searched for."""
_RATE_NUDGE = 1e-14


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """Counts that a graph must withstand: of ``clients``, ``corrupt`` collude and ``survivors`` stay to the end."""

    clients: int
    corrupt: int
    dropouts: int
    survivors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseGraph:
    """A regular graph of even degree ``neighbours`` whose secrets take ``threshold`` shares to rebuild."""

    neighbours: int
    threshold: int


def published_graph_parameters(
    *,
    clients: int,
    corrupt: float,
    dropout: float,
    malicious_server: bool = False,
    security_bits: int = SECURITY_BITS,
    failure_bits: int = FAILURE_BITS,
) -> SparseGraph | None:
    """Return the (k, t) of the published search, or None where it finds no sparse graph.

    This reproduces the published vectors, floors included: for small cohorts those floors round the tolerance away, so
    plan rounds with ``RoundParams.plan``, which rounds counts up.

    Args:
        clients: at least 3.
        corrupt: fraction of clients that collude with the server, in [0, 1).
        dropout: fraction of clients that may vanish, in [0, 1).
        malicious_server: whether the server may ask for both kinds of share.
        security_bits: sigma.
        failure_bits: eta.

    Raises:
        ParameterError: a rate lies outside [0, 1), or there are fewer than three clients.
    """
    if clients < 3:
        raise ParameterError(f"clients must be at least 3 for a sparse graph, got {clients}")
    for name, rate in (("corrupt", corrupt), ("dropout", dropout)):
        if not 0 <= rate < 1:
            raise ParameterError(f"{name} must lie in [0, 1), got {rate!r}")
    if corrupt + (2 if malicious_server else 1) * dropout > MAX_RATE_SUM:
        return None
    cohort = Cohort(
        clients=clients,
        corrupt=math.floor((corrupt + _RATE_NUDGE) * clients),
        dropouts=math.floor((dropout + _RATE_NUDGE) * clients),
        survivors=math.ceil((1 - dropout - _RATE_NUDGE) * clients),
    )
    return smallest_sparse_graph(
        cohort, malicious_server=malicious_server, security_bits=security_bits, failure_bits=failure_bits
    )


@functools.lru_cache(maxsize=256)
def smallest_sparse_graph(
    cohort: Cohort,
    *,
    malicious_server: bool = False,
    security_bits: int = SECURITY_BITS,
    failure_bits: int = FAILURE_BITS,
) -> SparseGraph | None:
    """Return the graph of least degree that is connected, secret and recoverable; None if only the complete one is."""
    for neighbours in range(2, cohort.clients - 1, 2):
        if not is_connected(cohort, neighbours, security_bits=security_bits):
            continue
        low = secrecy_limit(cohort, neighbours, malicious_server=malicious_server, security_bits=security_bits)
        high = recovery_limit(cohort, neighbours, failure_bits=failure_bits)
        if max(low, 1) < high:
            return SparseGraph(neighbours=neighbours, threshold=max(low + 1, 2))
    return None


@functools.lru_cache(maxsize=256)
def smallest_uncuttable_graph(
    cohort: Cohort, *, security_bits: int = SECURITY_BITS, failure_bits: int = FAILURE_BITS
) -> SparseGraph | None:
    """Return the graph of least degree, and its least threshold, that also withstand a server malicious in full.

    Beyond the published rule for a server that asks for both kinds of share, no two cuts of the ring may leave the
    server enough corrupt neighbours on their edges (``is_uncuttable``).
    """
    for neighbours in range(2, cohort.clients - 1, 2):
        if not is_connected(cohort, neighbours, security_bits=security_bits):
            continue
        low = secrecy_limit(cohort, neighbours, malicious_server=True, security_bits=security_bits)
        high = recovery_limit(cohort, neighbours, failure_bits=failure_bits)
        for threshold in range(max(low + 1, 2), high + 1):
            if is_uncuttable(cohort, neighbours, threshold, security_bits=security_bits):
                return SparseGraph(neighbours=neighbours, threshold=threshold)
    return None


def is_uncuttable(cohort: Cohort, neighbours: int, threshold: int, *, security_bits: int = SECURITY_BITS) -> bool:
    """Tell whether a server that knows the ring can unmask a part of it with probability below 2**-(sigma+1) only.

    Declaring drop-outs at will, it may cut the ring in two places and show each part its own survivors. A client at a
    cut keeps k/2 neighbours on its side; the server lacks threshold - k/2 answers there, which corrupt clients in the
    window of k/2 beyond must give. It needs that at both cuts: two disjoint windows, of n(n-k-1)/2 pairs.
    """
    n, window = cohort.clients, neighbours // 2
    least = threshold - window
    if least <= 0:
        return False
    if least > min(window, cohort.corrupt):
        return True
    logarithm = math.log(n) + math.log(n - neighbours - 1) - math.log(2)
    logarithm += _log_two_windows(n, cohort.corrupt, window, least)
    return logarithm < -(security_bits + 1) * math.log(2)


def is_connected(cohort: Cohort, neighbours: int, *, security_bits: int = SECURITY_BITS) -> bool:
    """Tell whether the honest survivors' graph stays connected but for a probability of 2**-(sigma+1).

    A Harary graph on a ring falls apart only where two disjoint runs of k/2 neighbours are all corrupt or gone.
    """
    n, gone = cohort.clients, cohort.corrupt + cohort.dropouts
    if neighbours > gone:
        return True
    logarithm = (
        math.log(n)
        + math.log(n - neighbours - 1)
        - math.log(2)
        + math.lgamma(gone + 1)
        + math.lgamma(n - neighbours + 1)
        - math.lgamma(n + 1)
        - math.lgamma(gone - neighbours + 1)
    )
    return logarithm < -(security_bits + 1) * math.log(2)


def secrecy_limit(
    cohort: Cohort, neighbours: int, *, malicious_server: bool = False, security_bits: int = SECURITY_BITS
) -> int:
    """Return t1: a threshold above it cannot be met by the corrupt neighbours of any client, but for 2**-(sigma+1)."""
    first, probabilities = _hypergeometric(cohort.clients, cohort.corrupt, neighbours)
    # above[i] = Pr[X > first + i], summed from the small end so that tiny tails keep their digits
    above = np.append(np.cumsum(probabilities[::-1])[::-1][1:], 0.0)
    bound = 2.0 ** -(security_bits + 1) / cohort.clients
    limit = first + int(np.argmax(above <= bound))
    if malicious_server:
        limit = math.ceil((limit + neighbours - 1.25) / 2)
    return limit


def recovery_limit(cohort: Cohort, neighbours: int, *, failure_bits: int = FAILURE_BITS) -> int:
    """Return t2: the largest threshold that the surviving neighbours of every client meet, but for 2**-eta."""
    first, probabilities = _hypergeometric(cohort.clients, cohort.survivors, neighbours)
    below = np.concatenate([[0.0], np.cumsum(probabilities)])  # below[i] = Pr[X < first + i]
    bound = 2.0**-failure_bits / cohort.clients
    return first + int(np.flatnonzero(below < bound)[-1])


def _log_two_windows(population: int, marked: int, window: int, least: int) -> float:
    """Return the log-probability that each of two fixed disjoint windows holds at least ``least`` of the marked."""
    log_factorial = _log_factorials(population)
    held = np.arange(least, window + 1)
    one = log_factorial[window] - log_factorial[held] - log_factorial[window - held]
    rest = marked - held[:, None] - held
    possible = (rest >= 0) & (rest <= population - 2 * window)
    if not possible.any():
        return -math.inf
    rest = np.where(possible, rest, 0)
    others = log_factorial[population - 2 * window] - log_factorial[rest]
    others = others - log_factorial[population - 2 * window - rest]
    all_ways = log_factorial[population] - log_factorial[marked] - log_factorial[population - marked]
    terms = (one[:, None] + one + others - all_ways)[possible]
    return float(np.logaddexp.reduce(terms))


def _hypergeometric(population: int, marked: int, draws: int) -> tuple[int, NDArray[np.float64]]:
    """Return the least value with a positive probability, and the probabilities from there to the greatest."""
    first, last = max(0, draws - (population - marked)), min(draws, marked)
    value = np.arange(first, last + 1)
    log_factorial = _log_factorials(population)
    logarithm = (
        log_factorial[marked]
        - log_factorial[value]
        - log_factorial[marked - value]
        + log_factorial[population - marked]
        - log_factorial[draws - value]
        - log_factorial[population - marked - draws + value]
        - (log_factorial[population] - log_factorial[draws] - log_factorial[population - draws])
    )
    return first, np.exp(logarithm)


@functools.lru_cache(maxsize=8)
def _log_factorials(upto: int) -> NDArray[np.float64]:
    table = np.array([math.lgamma(i + 1) for i in range(upto + 1)])
    table.flags.writeable = False
    return table
