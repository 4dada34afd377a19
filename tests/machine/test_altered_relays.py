"""An upload may count only if its client and the server believe in the same U2: else its masks have no counterparts."""

from __future__ import annotations

import numpy as np

import secagg
from cohort import Cohort, plan
from secagg import FixedPoint, SecAggError
from secagg.pairwise.messages import FORMATS
from secagg.wire import HEADER_BYTES


def relayed_without_the_last(request, params):
    """Take the last client out of U2, and what it sealed out of the relay, on the way to one client."""
    bitmap = request[HEADER_BYTES] & ~(1 << params.clients - 1)
    sealed = request[HEADER_BYTES + 1 : -FORMATS[params.threat].dealt_bytes]
    return request[:HEADER_BYTES] + bytes([bitmap]) + sealed


def outcome(params, seed):
    cohort = Cohort(params, np.ones((params.clients, 1)), seed=seed)
    cohort.run_stage()
    cohort.run_stage()
    while cohort.server.stage is not None:
        relaying = cohort.server.stage == "masked_input"
        for one, request in cohort.server.requests().items():
            if relaying and one == 0:
                request = relayed_without_the_last(request, params)
            try:
                cohort.server.receive(one, cohort.answer(one, request))
            except SecAggError:
                continue
        cohort.server.advance()
    return cohort.server.result


def test_an_upload_that_was_masked_for_another_u2_does_not_count():
    """Honest clients, an honest server, and one altered relay: every round must end in the sum of its survivors."""
    params = plan(6, 1, threat="malicious-server", encoding=FixedPoint(clip=1.0, bits=1), dropout=0.3)
    for trial in range(20):
        try:
            result = outcome(params, f"relay {trial}")
        except secagg.TooFewClients:
            continue
        assert result.total.tolist() == [len(result.survivors)]
