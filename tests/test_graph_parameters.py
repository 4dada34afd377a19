"""The search for a sparse graph against the same rule in rational numbers, at security levels low enough to matter."""

import math
import random
from fractions import Fraction
from math import ceil, comb, floor, perm

import numpy as np
import pytest

from secagg import ParameterError
from secagg.cohort import Cohort
from secagg.pairwise.graph_parameters import (
    FAILURE_BITS,
    MAX_SPARSE_NEIGHBOURS,
    SECURITY_BITS,
    SparseGraph,
    _log_factorials,
    _log_two_windows,
    _Search,
    is_connected,
    is_uncuttable,
    published_graph_parameters,
    recovery_limit,
    secrecy_limit,
    smallest_sparse_graph,
    smallest_uncuttable_graph,
)


def tail(population, marked, draws, values):
    """The chance that as many of the drawn as ``values`` says are marked ones."""
    return Fraction(
        sum(comb(marked, x) * comb(population - marked, draws - x) for x in values), comb(population, draws)
    )


def exactly_connected(cohort, k, bits):
    n, gone = cohort.clients, cohort.corrupt + cohort.dropouts
    return Fraction(n * (n - k - 1), 2) * Fraction(perm(gone, k), perm(n, k)) < Fraction(1, 2 ** (bits + 1))


def exact_secrecy_limit(cohort, k, bits, malicious):
    n, corrupt = cohort.clients, cohort.corrupt
    bound = Fraction(1, 2 ** (bits + 1) * n)
    limit = next(x for x in range(k + 1) if tail(n, corrupt, k, range(x + 1, k + 1)) <= bound)
    return ceil((limit + k - Fraction(5, 4)) / 2) if malicious else limit


def exact_recovery_limit(cohort, k, bits):
    n, survivors = cohort.clients, cohort.survivors
    return max(t for t in range(k + 1) if tail(n, survivors, k, range(t)) < Fraction(1, 2**bits * n))


def exactly_uncuttable(cohort, k, threshold, bits):
    n, corrupt, window = cohort.clients, cohort.corrupt, k // 2
    least = threshold - window
    if least <= 0:
        return False
    ways = sum(
        comb(window, i) * comb(window, j) * comb(n - k, corrupt - i - j)
        for i in range(least, window + 1)
        for j in range(least, window + 1)
        if corrupt - i - j >= 0
    )
    return Fraction(n * (n - k - 1), 2) * Fraction(ways, comb(n, corrupt)) < Fraction(1, 2 ** (bits + 1))


def cohorts(largest):
    """Every cohort of up to ``largest`` clients, up to half of them corrupt and half gone."""
    for clients in range(5, largest + 1):
        for corrupt in range(clients // 2 + 1):
            for dropouts in range(min(clients // 2, clients - corrupt - 1) + 1):
                yield Cohort(clients=clients, corrupt=corrupt, dropouts=dropouts, survivors=clients - dropouts)


def degrees(cohort):
    return range(2, cohort.clients - 1, 2)


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8])
def test_connectedness_is_the_exact_bound(bits):
    for cohort in cohorts(20):
        for k in degrees(cohort):
            assert is_connected(cohort, k, security_bits=bits) == exactly_connected(cohort, k, bits), (cohort, k)


@pytest.mark.parametrize("bits", [2, 3, 5])  # at one bit some tails lie on the bound itself
def test_limits_are_exact_at_every_level(bits):
    for cohort in cohorts(12):
        for k in degrees(cohort):
            for malicious in (False, True):
                found = secrecy_limit(cohort, k, malicious_server=malicious, security_bits=bits)
                assert found == exact_secrecy_limit(cohort, k, bits, malicious), (cohort, k)
            assert recovery_limit(cohort, k, failure_bits=bits) == exact_recovery_limit(cohort, k, bits), (cohort, k)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_cuts_are_bounded_exactly(bits):
    counts = [(clients, corrupt) for clients in range(5, 15) for corrupt in range(clients + 1)]
    counts += [(30, 3), (40, 13), (41, 27)]  # windows that hold many and miss many
    for clients, corrupt in counts:
        cohort = Cohort(clients=clients, corrupt=corrupt, dropouts=0, survivors=clients)
        for k in degrees(cohort):
            for threshold in range(1, k + 1):
                expected = exactly_uncuttable(cohort, k, threshold, bits)
                assert is_uncuttable(cohort, k, threshold, security_bits=bits) == expected, (cohort, k, threshold)


@pytest.mark.parametrize(("security", "failure"), [(1, 1), (3, 2)])
@pytest.mark.parametrize("malicious", [False, True])
def test_the_published_search_returns_the_least_degree_and_threshold(security, failure, malicious):
    for cohort in cohorts(12):
        expected = None
        for k in degrees(cohort):
            low = max(exact_secrecy_limit(cohort, k, security, malicious), 1)
            if exactly_connected(cohort, k, security) and low < exact_recovery_limit(cohort, k, failure):
                expected = SparseGraph(neighbours=k, threshold=low + 1)
                break
        arguments = {"security_bits": security, "failure_bits": failure}
        assert smallest_sparse_graph(cohort, malicious_server=malicious, **arguments) == expected, cohort
        if not malicious:
            assert smallest_sparse_graph(cohort, **arguments) == expected, cohort


@pytest.mark.parametrize(("security", "failure"), [(1, 1), (3, 2)])
def test_the_search_against_cuts_returns_the_least_degree_and_threshold(security, failure):
    for cohort in cohorts(12):
        expected = next(
            (
                SparseGraph(neighbours=k, threshold=threshold)
                for k in degrees(cohort)
                if exactly_connected(cohort, k, security)
                for threshold in range(
                    max(exact_secrecy_limit(cohort, k, security, True) + 1, 2),
                    exact_recovery_limit(cohort, k, failure) + 1,
                )
                if exactly_uncuttable(cohort, k, threshold, security)
            ),
            None,
        )
        found = smallest_uncuttable_graph(cohort, security_bits=security, failure_bits=failure)
        assert found == expected, cohort


def test_the_planned_failures_are_2_to_the_minus_40_and_20():
    assert (SECURITY_BITS, FAILURE_BITS) == (40, 20)


@pytest.mark.parametrize(
    ("clients", "corrupt", "dropout"), [(20, 0.0, 0.4), (20, 0.2, 0.3), (30, 0.1, 0.4), (24, 0.25, 0.25)]
)
def test_the_published_rule_rounds_counts_down(clients, corrupt, dropout):
    corrupted, gone = floor(round(corrupt * clients, 9)), floor(round(dropout * clients, 9))
    cohort = Cohort(clients=clients, corrupt=corrupted, dropouts=gone, survivors=clients - gone)
    for bits in range(1, 13):
        found = published_graph_parameters(
            clients=clients, corrupt=corrupt, dropout=dropout, security_bits=bits, failure_bits=1
        )
        assert found == smallest_sparse_graph(cohort, security_bits=bits, failure_bits=1)


def test_the_published_rule_takes_three_clients_and_rates_from_zero():
    with pytest.raises(ParameterError, match="at least 3"):
        published_graph_parameters(clients=2, corrupt=0.0, dropout=0.0)
    assert published_graph_parameters(clients=3, corrupt=0.0, dropout=0.0) is None
    assert published_graph_parameters(clients=4, corrupt=0.0, dropout=0.0) == SparseGraph(neighbours=2, threshold=2)
    for rates in ({"corrupt": 1.0, "dropout": 0.0}, {"corrupt": 0.0, "dropout": -0.1}):
        with pytest.raises(ParameterError, match=r"must lie in \[0, 1\)"):
            published_graph_parameters(clients=100, **rates)


@pytest.mark.parametrize(
    ("corrupt", "dropout", "malicious", "found"),
    [
        (0.4, 0.5, False, True),
        (0.0, 0.46, False, True),
        (0.0, 0.46, True, False),
        (0.0, 0.31, True, True),
        (0.4, 0.51, False, False),
    ],
)
def test_the_published_rule_ends_at_a_sum_of_rates(corrupt, dropout, malicious, found):
    graph = published_graph_parameters(clients=1000, corrupt=corrupt, dropout=dropout, malicious_server=malicious)
    assert (graph is not None) == found


def whole_log_two_windows(population, marked, window, least):
    """The chance over every pair of counts that the two windows hold: a matrix of them."""
    log_factorial = _log_factorials(population)
    held = np.arange(least, window + 1)
    one = log_factorial[window] - log_factorial[held] - log_factorial[window - held]
    rest, outside = marked - held[:, None] - held, population - 2 * window
    possible = (rest >= 0) & (rest <= outside)
    rest = np.where(possible, rest, 0)
    others = log_factorial[outside] - log_factorial[rest] - log_factorial[np.maximum(outside - rest, 0)]
    ways = log_factorial[population] - log_factorial[marked] - log_factorial[population - marked]
    return float(np.logaddexp.reduce((one[:, None] + one + others - ways)[possible]))


def test_two_windows_are_the_sum_over_all_pairs_of_counts():
    for clients in (5, 6, 11, 40):
        for marked in range(1, clients):
            for window in range(1, (clients - 2) // 2 + 1):
                for least in range(1, window + 1):
                    found = _log_two_windows(clients, marked, window, least)
                    expected = whole_log_two_windows(clients, marked, window, least)
                    assert found == pytest.approx(expected, rel=1e-12, abs=1e-11), (clients, marked, window, least)
    draw = random.Random(1)
    for clients in (1000, 20_000, 1 << 20):
        for _ in range(20):
            marked, window = draw.randrange(1, clients), draw.randrange(1, 400)
            least = draw.randint(1, window)
            found, expected = (f(clients, marked, window, least) for f in (_log_two_windows, whole_log_two_windows))
            assert found == pytest.approx(expected, rel=1e-8, abs=1e-7), (clients, marked, window, least)


def first_by_one(cohort, security, failure, malicious, uncuttable, least=2):
    """What the search finds that looks at every degree and threshold."""
    for k in range(2, min(cohort.clients - 2, MAX_SPARSE_NEIGHBOURS) + 1, 2):
        if not is_connected(cohort, k, security_bits=security):
            continue
        low = secrecy_limit(cohort, k, malicious_server=malicious, security_bits=security)
        high = recovery_limit(cohort, k, failure_bits=failure)
        for t in range(max(low + 1, least), high + 1):
            if not uncuttable or is_uncuttable(cohort, k, t, security_bits=security):
                return SparseGraph(neighbours=k, threshold=t)
    return None


def search_grid():
    draw = random.Random(2)
    for index in range(250):
        clients = draw.randint(4, 60) if index % 2 else draw.randint(40, 500)
        corrupt = draw.randrange(clients)
        dropouts = draw.randint(0, min(max((clients - corrupt) // 2, 1), clients - 1))
        bits = (SECURITY_BITS, FAILURE_BITS) if index % 3 else (draw.randint(1, 10), draw.randint(1, 5))
        yield Cohort(clients=clients, corrupt=corrupt, dropouts=dropouts, survivors=clients - dropouts), *bits
    for clients, corrupt, dropouts in ((1000, 330, 50), (2000, 600, 500), (3000, 300, 1100), (3000, 1200, 600)):
        cohort = Cohort(clients=clients, corrupt=corrupt, dropouts=dropouts, survivors=clients - dropouts)
        yield cohort, SECURITY_BITS, FAILURE_BITS


def test_searches_pass_over_no_degree_that_serves():
    found = 0
    for cohort, security, failure in search_grid():
        bits = {"security_bits": security, "failure_bits": failure}
        for malicious in (False, True):
            expected = first_by_one(cohort, security, failure, malicious, uncuttable=False)
            assert smallest_sparse_graph(cohort, malicious_server=malicious, **bits) == expected, cohort
        expected = first_by_one(cohort, security, failure, True, uncuttable=True)
        assert smallest_uncuttable_graph(cohort, **bits) == expected, cohort
        found += expected is not None
    assert found > 50


@pytest.mark.slow
def test_no_rates_take_more_neighbours_than_the_largest_that_is_told():
    n, largest = 1 << 20, {False: 0, True: 0}
    for corrupt in range(91):
        for malicious, search in ((False, smallest_sparse_graph), (True, smallest_uncuttable_graph)):
            dropouts = (90 - corrupt) * n // (200 if malicious else 100)
            counts = {"corrupt": corrupt * n // 100, "dropouts": dropouts, "survivors": n - dropouts}
            largest[malicious] = max(largest[malicious], search(Cohort(clients=n, **counts)).neighbours)
    assert largest == {False: 6252, True: 12306}


def test_the_largest_degrees_of_all_plans_lie_within_the_bound():
    n = 1 << 20
    counts = {"clients": n, "corrupt": ceil(Fraction(33, 100) * n), "dropouts": ceil(Fraction(285, 1000) * n)}
    cohort = Cohort(**counts, survivors=n - counts["dropouts"])
    assert smallest_uncuttable_graph(cohort) == SparseGraph(neighbours=12306, threshold=8445)
    assert MAX_SPARSE_NEIGHBOURS == 1 << 14


def test_tables_of_factorials_are_few_and_long_enough():
    tables = {len(_log_factorials(upto)) for upto in range(1, 5000, 7)} | {len(_log_factorials(1 << 20))}
    assert tables == {2, 17, 257, 4097, 65537, (1 << 20) + 1}
    for upto in (1, 2, 16, 17, 256, 257, 4096):
        table = _log_factorials(upto)
        assert table[upto] == math.lgamma(upto + 1)
        assert not table.flags.writeable


def test_no_degree_is_passed_over_that_some_threshold_might_keep_from_cuts():
    """Of all thresholds that a degree may have, two more for every two neighbours more at most."""
    longest = 0
    for clients, corrupt in ((120, 50), (300, 100), (1000, 330)):
        cohort = Cohort(clients=clients, corrupt=corrupt, dropouts=0, survivors=clients)
        search = _Search(cohort, True, SECURITY_BITS, FAILURE_BITS)
        for index in range(4, len(search.degrees), 7):
            k = search.degrees[index]
            for high in range(k // 2 + 1, k, clients // 100):
                if is_uncuttable(cohort, k, high):
                    continue
                known = search.cuttable_degrees(k, high)
                assert known >= 1
                longest = max(longest, known)
                # The widest that is passed over, whose thresholds are the highest, tells of those before it
                for more in {known // 2, known - 1}:
                    if index + more < len(search.degrees):
                        assert not is_uncuttable(cohort, search.degrees[index + more], high + 2 * more), (
                            cohort,
                            k,
                            high,
                        )
    assert longest >= 16
