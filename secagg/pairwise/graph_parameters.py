"""How many neighbours k and which threshold t make a sparse masking graph safe.

Source: Bell, Bonawitz, Gascon, Lepoint, Raykova, "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead",
CCS 2020, section 3 and Theorem 3.10; the search is the one that google/federated-compute publishes vectors for. SPEC
"Parameters" lists the proof obligations.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secagg.cohort import Cohort
from secagg.errors import ParameterError

SECURITY_BITS = 40
"""sigma: the planned failure probability of secrecy is at most 2**-sigma over a whole round."""
FAILURE_BITS = 20
"""eta: a round within its drop-out rate fails to recover with probability at most 2**-eta."""
MAX_RATE_SUM = 0.9
"""Beyond this sum of rates no sparse graph is searched for."""
MAX_SPARSE_NEIGHBOURS = 1 << 14
"""No graph of more neighbours is searched for or proved. It excludes no plan: the most that a cohort of 2**20 takes,
over all rates in steps of 0.01, is 12,306. Parameters from elsewhere are proved in O(k), and a client deals
4 MiB at most.
"""
_RATE_NUDGE = 1e-14
_ROUNDING = 1e-6
"""More than rounding moves a logarithm: sums of ln n! at 2**20 err by 1e-8."""

CountOrCounts = int | NDArray[np.int64]


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
    plan rounds with ``RoundParams.plan``, which rounds counts up. The published comparison is t2 > t1; the threshold
    t1 + 1 is then raised to 2 where it is 1, though two shares need not be left (n = 10, drop-out .33). Planning asks
    for t2 >= 2 there. Degrees beyond ``MAX_SPARSE_NEIGHBOURS`` are not searched.

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
    search = _Search(cohort, malicious_server, security_bits, failure_bits)
    # The published comparison: t2 > t1. A threshold of one is then raised to two, whether or not two shares are left
    found = search.next_from(search.first_connected(), least=1)
    if found is None:
        return None
    return SparseGraph(neighbours=search.degrees[found.index], threshold=max(found.low, 2))


@functools.lru_cache(maxsize=256)
def smallest_sparse_graph(
    cohort: Cohort,
    *,
    malicious_server: bool = False,
    security_bits: int = SECURITY_BITS,
    failure_bits: int = FAILURE_BITS,
) -> SparseGraph | None:
    """Return the graph of least degree that is connected, secret and recoverable; None if only the complete one is.

    Stricter than the published search in one comparison: a threshold of two, the least there is, must be recoverable.
    """
    search = _Search(cohort, malicious_server, security_bits, failure_bits)
    found = search.next_from(search.first_connected(), least=2)
    return None if found is None else SparseGraph(neighbours=search.degrees[found.index], threshold=found.low)


@functools.lru_cache(maxsize=256)
def smallest_uncuttable_graph(
    cohort: Cohort, *, security_bits: int = SECURITY_BITS, failure_bits: int = FAILURE_BITS
) -> SparseGraph | None:
    """Return the graph of least degree, and its least threshold, that also withstand a server malicious in full.

    Beyond the published rule for a server that asks for both kinds of share, no two cuts of the ring may leave the
    server enough corrupt neighbours on their edges (``is_uncuttable``).
    """
    search = _Search(cohort, True, security_bits, failure_bits)
    index = search.first_connected()
    while (found := search.next_from(index, least=2)) is not None:
        neighbours, thresholds = search.degrees[found.index], range(found.low, found.high + 1)
        holds = functools.partial(is_uncuttable, cohort, neighbours, security_bits=security_bits)
        # A higher threshold takes more of the corrupt at both cuts, so it holds wherever a lower one does
        if holds(found.high):
            return SparseGraph(neighbours=neighbours, threshold=thresholds[bisect_left(thresholds, True, key=holds)])
        index = found.index + search.cuttable_degrees(neighbours, found.high)
    return None


@dataclass(frozen=True, slots=True)
class _Found:
    """The degree at ``index`` of those searched serves with thresholds from ``low`` to ``high``, cuts aside."""

    index: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class _Search:
    """A search for the least degree that looks at few of them: those passed over are known not to serve."""

    cohort: Cohort
    malicious_server: bool
    security_bits: int
    failure_bits: int

    @property
    def degrees(self) -> range:
        return range(2, min(self.cohort.clients - 2, MAX_SPARSE_NEIGHBOURS) + 1, 2)

    def first_connected(self) -> int:
        """Return the index of the least connected degree; all above it are connected too."""
        connected = functools.partial(is_connected, self.cohort, security_bits=self.security_bits)
        return bisect_left(self.degrees, True, key=connected)

    def next_from(self, index: int, *, least: int) -> _Found | None:
        """Return the first degree from ``index`` on with a threshold of ``least`` or more.

        One neighbour more raises t1 and t2 by one at most, and lowers neither. So two more raise t2 by two at most, and
        the malicious t1, of which half is their number, by at least one: where t2 lacks ``missing``, it takes as many
        degrees to catch up, or half as many where t1 may stand still.
        """
        degrees = self.degrees
        while index < len(degrees):
            neighbours = degrees[index]
            low = secrecy_limit(
                self.cohort, neighbours, malicious_server=self.malicious_server, security_bits=self.security_bits
            )
            high = recovery_limit(self.cohort, neighbours, failure_bits=self.failure_bits)
            missing = max(low + 1, least) - high
            if missing <= 0:
                return _Found(index, max(low + 1, least), high)
            index += missing if self.malicious_server else (missing + 1) // 2
        return None

    def cuttable_degrees(self, neighbours: int, high: int) -> int:
        """Return how many degrees from one on are known to fall to cuts, where that one does up to ``high``.

        With j degrees more, thresholds are ``high`` + 2j at most and windows j wider: cuts take j more of the corrupt
        at most. Wider windows hold as many no less often, so if these ones do often enough, even for the pairs of
        windows that the greatest degree has, none of those degrees serves.
        """
        n, window = self.cohort.clients, neighbours // 2
        pairs = _log_pairs(n, self.degrees[-1])
        bound = -(self.security_bits + 1) * math.log(2) + _ROUNDING
        known = 1
        while pairs + _log_two_windows(n, self.cohort.corrupt, window, high - window + 2 * known) > bound:
            known *= 2
        return known


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
    logarithm = _log_pairs(n, neighbours) + _log_two_windows(n, cohort.corrupt, window, least)
    return logarithm < -(security_bits + 1) * math.log(2)


def is_connected(cohort: Cohort, neighbours: int, *, security_bits: int = SECURITY_BITS) -> bool:
    """Tell whether the honest survivors' graph stays connected but for a probability of 2**-(sigma+1).

    A Harary graph on a ring falls apart only where two disjoint runs of k/2 neighbours are all corrupt or gone.
    """
    n, gone = cohort.clients, cohort.corrupt + cohort.dropouts
    if neighbours > gone:
        return True
    logarithm = (
        _log_pairs(n, neighbours)
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


def _log_pairs(clients: int, neighbours: int) -> float:
    """Return the logarithm of n(n-k-1)/2, the pairs of places at which a ring may come apart."""
    return math.log(clients) + math.log(clients - neighbours - 1) - math.log(2)


def _log_two_windows(population: int, marked: int, window: int, least: int) -> float:
    """Return the log-probability that each of two fixed disjoint windows holds at least ``least`` >= 1 of the marked.

    In O(window) time and memory. A first window that holds x leaves ``marked - x`` to the ``population - window``
    places outside. One marked place more among them raises the chance that the second window holds ``least`` by the
    chance that it held one less and the new place lies in it: so those chances are sums, from the fewest left up.
    """
    first, most = max(least, window - (population - marked)), min(window, marked - least)
    if first > most:
        return -math.inf
    held = np.arange(most, first - 1, -1)
    rest, left = population - window, marked - held
    lowest, chances = _log_hypergeometric(rest, int(left[0]), window)
    second = np.full(len(left), -math.inf)
    second[0] = np.logaddexp.reduce(chances[max(least - lowest, 0) :])
    # left ascends by one. Where more are marked than fit outside both windows, the second holds ``least`` for certain
    rising = left[:-1][left[:-1] - (least - 1) <= rest - window]
    rises = _log_chance(rest, rising, window, least - 1) + np.log((window - least + 1) / (rest - rising))
    second[1 : len(rising) + 1] = rises
    np.logaddexp.accumulate(second, out=second)
    return float(np.logaddexp.reduce(_log_chance(population, marked, window, held) + second))


def _hypergeometric(population: int, marked: int, draws: int) -> tuple[int, NDArray[np.float64]]:
    """Return the least value with a positive probability, and the probabilities from there to the greatest."""
    first, logarithm = _log_hypergeometric(population, marked, draws)
    return first, np.exp(logarithm)


def _log_hypergeometric(population: int, marked: int, draws: int) -> tuple[int, NDArray[np.float64]]:
    first, last = max(0, draws - (population - marked)), min(draws, marked)
    return first, _log_chance(population, marked, draws, np.arange(first, last + 1))


def _log_chance(population: int, marked: CountOrCounts, draws: int, value: CountOrCounts) -> NDArray[np.float64]:
    """Return the log-probability that of ``draws`` from a population as many are marked as ``value`` says."""
    log_factorial = _log_factorials(population)
    logarithm: NDArray[np.float64] = (
        log_factorial[marked]
        - log_factorial[value]
        - log_factorial[marked - value]
        + log_factorial[population - marked]
        - log_factorial[draws - value]
        - log_factorial[population - marked - draws + value]
        - (log_factorial[population] - log_factorial[draws] - log_factorial[population - draws])
    )
    return logarithm


def _log_factorials(upto: int) -> NDArray[np.float64]:
    """Return ln 0! to ln ``upto``! and further: few sizes serve all cohorts, so that few tables are ever made."""
    bits = (upto - 1).bit_length()
    return _log_factorial_table(1 << -(-bits // 4) * 4)


@functools.cache
def _log_factorial_table(last: int) -> NDArray[np.float64]:
    table = np.fromiter(map(math.lgamma, range(1, last + 2)), np.float64, last + 1)
    table.flags.writeable = False
    return table
