"""The search for a sparse graph against the same rule in rational numbers, at security levels low enough to matter."""

from fractions import Fraction
from math import ceil, comb, perm

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secagg import ParameterError
from secagg.graph_parameters import (
    Cohort,
    SparseGraph,
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


@st.composite
def cohorts(draw):
    clients = draw(st.integers(5, 48))
    corrupt = draw(st.integers(0, clients // 2))
    dropouts = draw(st.integers(0, min(clients // 2, clients - corrupt - 1)))
    return Cohort(clients=clients, corrupt=corrupt, dropouts=dropouts, survivors=clients - dropouts)


levels = st.integers(1, 12)


@given(cohorts(), levels)
def test_connectedness_is_the_exact_bound(cohort, bits):
    for k in range(2, cohort.clients - 1, 2):
        assert is_connected(cohort, k, security_bits=bits) == exactly_connected(cohort, k, bits), k


@given(cohorts(), levels)
def test_limits_are_exact_at_every_level(cohort, bits):
    for k in range(2, cohort.clients - 1, 2):
        for malicious in (False, True):
            found = secrecy_limit(cohort, k, malicious_server=malicious, security_bits=bits)
            assert found == exact_secrecy_limit(cohort, k, bits, malicious), k
        assert recovery_limit(cohort, k, failure_bits=bits) == exact_recovery_limit(cohort, k, bits), k


@given(cohorts(), levels)
def test_cuts_are_bounded_exactly(cohort, bits):
    for k in range(2, cohort.clients - 1, 2):
        for threshold in range(1, k + 1):
            expected = exactly_uncuttable(cohort, k, threshold, bits)
            assert is_uncuttable(cohort, k, threshold, security_bits=bits) == expected, (k, threshold)


@given(cohorts(), levels, levels, st.booleans())
def test_the_published_search_returns_the_least_degree_and_threshold(cohort, security, failure, malicious):
    expected = None
    for k in range(2, cohort.clients - 1, 2):
        low = max(exact_secrecy_limit(cohort, k, security, malicious), 1)
        if exactly_connected(cohort, k, security) and low < exact_recovery_limit(cohort, k, failure):
            expected = SparseGraph(neighbours=k, threshold=low + 1)
            break
    found = smallest_sparse_graph(cohort, malicious_server=malicious, security_bits=security, failure_bits=failure)
    assert found == expected


@given(cohorts(), levels, levels)
def test_the_search_against_cuts_returns_the_least_degree_and_threshold(cohort, security, failure):
    expected = next(
        (
            SparseGraph(neighbours=k, threshold=threshold)
            for k in range(2, cohort.clients - 1, 2)
            if exactly_connected(cohort, k, security)
            for threshold in range(
                max(exact_secrecy_limit(cohort, k, security, True) + 1, 2),
                exact_recovery_limit(cohort, k, failure) + 1,
            )
            if exactly_uncuttable(cohort, k, threshold, security)
        ),
        None,
    )
    assert smallest_uncuttable_graph(cohort, security_bits=security, failure_bits=failure) == expected


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
