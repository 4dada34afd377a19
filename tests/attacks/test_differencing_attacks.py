"""Row 8: two sums over nearly the same clients, subtracted. A session alone sees no earlier round."""

from __future__ import annotations

import numpy as np
import pytest

from cohort import CONTEXT, Cohort, plan
from secagg import IN_MEMORY, ClientSession, FixedPoint, PairwiseCredentials, TooFewClients

EXACT = FixedPoint(clip=127.5, bits=8)


def cohort_of(threat, context=b"the model of step 7", earlier=None, seed="first", corrupt=0.0):
    params = plan(8, 1, threat=threat, encoding=EXACT, dropout=0.25, corrupt=corrupt)
    codes = np.arange(1, 9)[:, None] * 10
    cohort = Cohort(params, codes - 127.5, context=context, seed=seed)
    for one, releases in (earlier or {}).items():
        cohort.clients[one] = ClientSession(
            params,
            one,
            context=context,
            credentials=PairwiseCredentials(identity=cohort.identities.get(one), earlier=releases),
            keep=IN_MEMORY,
        )
    return cohort


def released(cohort):
    return {one: [client.release] for one, client in cohort.clients.items() if client.release}


@pytest.mark.parametrize("threat", ["semi-honest", "malicious-server"])
def test_08_differencing_gives_one_value_away_where_earlier_releases_are_not_given(threat):
    """Attack: subtract the sums of two rounds, one client apart. Here without the defence: the documented limit."""
    first, second = cohort_of(threat), cohort_of(threat, seed="second")
    difference = first.run().total - second.run({3: "masked_input"}).total
    assert difference.tolist() == [40]


@pytest.mark.parametrize("threat", ["semi-honest", "malicious-server"])
def test_08_differencing_is_refused_by_clients_that_know_their_earlier_releases(threat):
    """Attack: the same. Defence: clients that are given their earlier releases refuse the second set."""
    first = cohort_of(threat)
    first.run()
    second = cohort_of(threat, earlier=released(first), seed="second")
    with pytest.raises(TooFewClients, match="tell this sum from an earlier one") as caught:
        second.run({3: "masked_input"})
    assert (caught.value.have, caught.value.need) == (1, 2)


@pytest.mark.parametrize("threat", ["semi-honest", "malicious-server"])
def test_08_differencing_guard_allows_equal_sets_other_contexts_and_differences_that_hide(threat):
    """Attack: none. Defence: it stands in the way of no sum that hides everybody."""
    first = cohort_of(threat)
    first.run()
    earlier = released(first)
    cohort_of(threat, earlier=earlier, seed="again").run()
    cohort_of(threat, earlier=earlier, seed="apart").run({3: "masked_input", 5: "masked_input"})
    cohort_of(threat, context=b"the model of step 8", earlier=earlier, seed="next").run({3: "masked_input"})


def test_08_differencing_guard_counts_the_corrupt_as_known():
    """Attack: two clients apart, one of them corrupt. Defence: A + 2 must make the difference."""
    first = cohort_of("semi-honest", corrupt=0.125)
    first.run()
    with pytest.raises(TooFewClients) as caught:
        cohort_of("semi-honest", earlier=released(first), corrupt=0.125).run({3: "masked_input", 5: "masked_input"})
    assert (caught.value.have, caught.value.need) == (2, 3)


def test_08_differencing_guard_survives_a_restart():
    """Attack: restart the clients in between. Defence: earlier releases are part of the saved state."""
    first = cohort_of("semi-honest")
    first.run()
    second = cohort_of("semi-honest", earlier=released(first), seed="second")
    for one, client in second.clients.items():
        second.clients[one] = ClientSession.restore(client.save(seal_key=None), one, keep=IN_MEMORY)
    with pytest.raises(TooFewClients, match="tell this sum"):
        second.run({3: "masked_input"})
    assert all(client.release is None for client in second.clients.values())


@pytest.mark.parametrize("threat", ["semi-honest", "malicious-server"])
def test_08_differencing_over_four_rounds_passes_a_guard_that_compares_pairs(threat):
    """Attack: X, X+a+b, X+b+c, X+a+c give a, b and c, all two apart. Defence: none but fixed cohorts; documented."""
    params = plan(12, 1, threat=threat, encoding=EXACT, dropout=0.25)
    codes = np.arange(1, 13)[:, None] * 10
    earlier = {one: [] for one in range(12)}
    sums = {}
    for gone in ((0, 1, 2), (2,), (0,), (1,)):
        cohort = Cohort(params, codes - 127.5, seed=f"without {gone}")
        for one, releases in earlier.items():
            cohort.clients[one] = ClientSession(
                params,
                one,
                context=CONTEXT,
                credentials=PairwiseCredentials(identity=cohort.identities.get(one), earlier=releases),
                keep=IN_MEMORY,
            )
        sums[gone] = int(cohort.run(dict.fromkeys(gone, "masked_input")).total[0])
        for one, releases in released(cohort).items():
            earlier[one] += releases
    pairs = [sums[gone] - sums[0, 1, 2] for gone in ((0,), (1,), (2,))]
    assert [sum(pairs) // 2 - pair for pair in pairs] == [10, 20, 30]
