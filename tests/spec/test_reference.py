"""The reference, written from docs/spec alone, and the library agree on every byte that clients send and on the sum."""

from __future__ import annotations

import ast
import math
import sys
from pathlib import Path

import numpy as np
import pytest

import reference
from cheats import GONE, contradictory_dealer, forged_release, transcript
from cohort import Cohort, plan
from secagg import IN_MEMORY, BeaconNeeded, ClientSession, FixedPoint, InputNeeded, RoundParams
from secagg.pairwise import graph

CONTEXT = b"a model's hash"


class Recorder:
    """Randomness that another party may read again: the bytes as one string, whatever the cuts."""

    def __init__(self, source):
        self.source, self.drawn, self.read = source, b"", 0

    def __call__(self, length):
        drawn = self.source(length)
        self.drawn += drawn
        return drawn

    def replay(self, length):
        self.read += length
        assert self.read <= len(self.drawn)
        return self.drawn[self.read - length : self.read]


def reference_parameters(params: RoundParams) -> reference.Parameters:
    return reference.Parameters(
        n=params.clients,
        d=params.dimension,
        clip=params.encoding.clip,
        bits=params.encoding.bits,
        max_weight=params.max_weight,
        dropout=params.dropout,
        corrupt=params.corrupt,
        plus=params.protocol == "secagg+",
        harary=params.graph == "harary",
        k=params.neighbours,
        t=params.threshold,
        b=params.ring_bits,
        malicious=params.threat == "malicious-server",
    )


def run_both(params, faults, ids, dtype=np.float64):
    """Drive a real round; the reference answers each request that a client answers. Returns messages and the result."""
    slow_params = reference_parameters(params)
    assert slow_params.encode() == params.encode()
    rng = np.random.default_rng(7)
    vectors = (rng.normal(0, params.encoding.clip, (params.clients, params.dimension))).astype(dtype)
    weights = rng.integers(1, params.max_weight, params.clients, endpoint=True).tolist()
    cohort = Cohort(params, vectors, weights, ids=ids, context=CONTEXT, seed="reference")
    directory = None if cohort.directory is None else dict(cohort.directory)
    recorders = {one: Recorder(client._randomness) for one, client in cohort.clients.items()}
    for one, recorder in recorders.items():
        identity = cohort.identities.get(one)
        cohort.clients[one] = ClientSession(
            params, one, context=CONTEXT, credentials=identity, randomness=recorder, keep=IN_MEMORY
        )
    slow = {
        one: reference.Client(
            slow_params,
            one,
            CONTEXT,
            recorders[one].replay,
            signing_seed=cohort.identities[one].key.secret_bytes() if directory else b"",
            directory=directory,
        )
        for one in ids
    }
    requests, answers = {}, {}
    while (stage := cohort.server.stage) is not None:
        requests[stage], answers[stage] = dict(cohort.server.requests()), {}
        if cohort.server.beacon_needed:
            cohort.server.use_beacon(cohort.beacon)
        for one, request in requests[stage].items():
            if faults.get(one) == stage:
                continue
            reply = cohort.clients[one].receive(request)
            if isinstance(reply, InputNeeded):
                reply = cohort.clients[one].submit(cohort.vectors[one], cohort.weights[one])
                slow[one].receive_shares(request)
                expected = slow[one].mask_input(cohort.vectors[one].tolist(), cohort.weights[one])
            elif isinstance(reply, BeaconNeeded):
                reply = cohort.clients[one].use_beacon(cohort.beacon)
                expected = slow[one].share_keys(request, cohort.beacon)
            else:
                expected = getattr(slow[one], stage)(request)
            assert reply.payload == expected, (one, stage)
            assert recorders[one].read == len(recorders[one].drawn)
            cohort.server.receive(one, reply.payload)
            answers[stage][one] = reply.payload
        cohort.server.advance()
    announced = requests["check_consistency" if directory else "unmask"]
    words = reference.sum_of_round(
        slow_params,
        rosters=requests["share_keys"],
        dealt=answers["share_keys"],
        relay=next(iter(requests["masked_input"].values())),
        inputs=answers["masked_input"],
        request=next(iter(announced.values())),
        releases=answers["unmask"],
        beacon=cohort.beacon if directory and slow_params.harary else None,
        directory=directory,
    )
    return words, cohort.server.result


COMPLETE = [
    ({}, {}),
    ({3: "masked_input"}, {"dropout": 0.3, "max_weight": 60_000}),
    ({0: "masked_input", 4: "unmask"}, {"dropout": 0.4, "encoding": FixedPoint(clip=0.1, bits=1)}),
    ({1: "advertise_keys", 4: "share_keys"}, {"dropout": 0.4, "encoding": FixedPoint(clip=3.7, bits=32)}),
    ({2: "masked_input"}, {"dropout": 0.2, "dimension": 0, "ring_bits": 64}),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("faults", "overrides"), COMPLETE, ids=lambda value: ",".join(map(str, value)) or "none")
def test_every_client_message_and_the_sum_of_a_complete_round(faults, overrides, dtype):
    params = plan(5, **overrides)
    ids = [0, 7, 256, 2**40, 2**64 - 2]
    words, result = run_both(params, {ids[position]: stage for position, stage in faults.items()}, ids, dtype)
    assert words == result.words.tolist()
    assert len(result.survivors) == 5 - sum(stage != "unmask" for stage in faults.values())


def test_two_clients_with_a_threshold_of_one():
    words, result = run_both(plan(2), {}, [5, 3][::-1])
    assert words == result.words.tolist()


def test_every_client_message_and_the_sum_of_a_sparse_round():
    params = plan(40, 5, dropout=0.1, corrupt=0.05, protocol="secagg+", max_weight=3)
    assert params.graph == "harary"
    faults = {2: "advertise_keys", 11: "share_keys", 20: "masked_input", 33: "unmask"}
    words, result = run_both(params, faults, list(range(40)))
    assert words == result.words.tolist()
    assert 20 not in result.survivors


@pytest.mark.parametrize(
    "stage", ["nobody", "advertise_keys", "share_keys", "masked_input", "check_consistency", "unmask"]
)
def test_every_client_message_and_the_sum_of_a_complete_malicious_round(stage):
    params = plan(5, dropout=0.2, max_weight=9, threat="malicious-server")
    ids = [0, 7, 256, 2**40, 2**64 - 2]
    words, result = run_both(params, {256: stage}, ids)
    assert words == result.words.tolist()
    assert result.dropped == ({} if stage == "nobody" else {256: stage})


def test_every_client_message_and_the_sum_of_a_sparse_malicious_round_with_a_beacon():
    params = plan(40, 5, dropout=0.2, corrupt=0.0, protocol="secagg+", max_weight=3, threat="malicious-server")
    assert params.graph == "harary"
    faults = {2: "advertise_keys", 11: "share_keys", 20: "masked_input", 30: "check_consistency", 33: "unmask"}
    words, result = run_both(params, faults, list(range(40)))
    assert words == result.words.tolist()
    assert result.dropped == faults


def test_a_tie_in_the_beacons_ring_draws_all_keys_again(monkeypatch):
    params = reference_parameters(plan(40, dropout=0.2, protocol="secagg+", threat="malicious-server"))
    session, beacon = bytes(range(32)), bytes(range(16))
    plain_stream, plain_keys = graph.stream, reference.key_stream

    def tied(key, count, dtype, first_word=0):
        words = plain_stream(key, count, dtype, first_word=first_word).copy()
        if first_word == 0:
            keys = words.view("<u8")  # whatever the width it was drawn in
            keys[7] = keys[3]
        return words

    def tied_keys(key, count, lane):
        words = plain_keys(key, count, lane)
        return [*words[:7], words[3], *words[8:]]

    untied = reference.beacon_graph(params, session, beacon)
    assert graph.beacon_graph(40, params.k, session, beacon).rows.tolist() == untied
    monkeypatch.setattr(graph, "stream", tied)
    monkeypatch.setattr(reference, "key_stream", tied_keys)
    again = reference.beacon_graph(params, session, beacon)
    assert graph.beacon_graph(40, params.k, session, beacon).rows.tolist() == again != untied


@pytest.mark.parametrize(
    ("clients", "protocol", "dropout", "corrupt"),
    [
        (2, "secagg", 0.0, 0.0),
        (10, "secagg+", 0.1, 0.05),
        (31, "secagg", 0.1, 0.1),
        (40, "secagg+", 0.1, 0.05),
        (40, "secagg+", 0.2, 0.0),
        (100, "secagg+", 0.05, 0.05),
        (100, "secagg+", 0.1, 0.2),
        (60, "secagg+", 0.45, 0.01),
        (200, "secagg+", 0.1, 0.05),
    ],
)
def test_planned_malicious_parameters_follow_from_the_text(clients, protocol, dropout, corrupt):
    arguments = {"dropout": dropout, "corrupt": corrupt}
    params = plan(clients, protocol=protocol, max_weight=9, threat="malicious-server", **arguments)
    shape = {"n": clients, "d": params.dimension, "clip": 1.0, "bits": 16, "max_weight": 9}
    planned = reference.plan(**shape, **arguments, plus=protocol == "secagg+", malicious=True)
    assert planned.encode() == params.encode()


@pytest.mark.parametrize(
    ("clients", "protocol", "dropout", "corrupt"),
    [
        (2, "secagg", 0.0, 0.0),
        (10, "secagg+", 0.1, 0.05),
        (30, "secagg", 0.1, 0.1),
        (40, "secagg+", 0.1, 0.05),
        (60, "secagg+", 0.2, 0.05),
        (100, "secagg+", 0.05, 0.05),
        (100, "secagg+", 0.3, 0.33),
        (40, "secagg+", 0.5, 0.41),
        (150, "secagg+", 0.0, 0.0),
    ],
)
def test_planned_parameters_follow_from_the_text(clients, protocol, dropout, corrupt):
    params = plan(clients, protocol=protocol, dropout=dropout, corrupt=corrupt, max_weight=9)
    planned = reference.plan(
        n=clients,
        d=params.dimension,
        clip=1.0,
        bits=16,
        max_weight=9,
        dropout=dropout,
        corrupt=corrupt,
        plus=protocol == "secagg+",
    )
    assert planned.encode() == params.encode()


def test_coefficients_that_equal_the_modulus_are_drawn_again_as_the_text_says():
    from secagg.primitives.shamir import share

    secrets, points = [bytes(range(32)), bytes(range(32, 64))], [1, 3, 9]
    script = [b"\xff" * 16 + bytes(range(160))[16:], bytes(8) + b"\xff" * 8, b"\x05" + bytes(7)]

    def scripted():
        pending = list(script)

        def draw(length):
            piece = pending.pop(0)
            assert len(piece) == length
            return piece

        return draw

    dealt = share(secrets, threshold=3, points=np.array(points, np.uint64), randomness=scripted())
    assert [[one.tobytes() for one in row] for row in dealt] == reference.deal(secrets, 3, points, scripted())


def test_rounding_at_the_edges_of_the_range():
    encoding = FixedPoint(clip=0.3, bits=7)
    params = plan(2, 9, encoding=encoding)
    edges = [0.3, -0.3, 0.0, -0.0, math.nextafter(0.3, 0), 5.0, -5.0, 1e-320, encoding.step - 0.3]
    from secagg.encoding.fixed_point import quantise_into
    from secagg.primitives.prg import stream

    key, out = bytes(range(24)), np.empty(9, np.uint64)
    quantise_into(np.array(edges), encoding, 1, stream(key, 9, np.uint32), out)
    assert [*out.tolist(), 1] == reference.encode_vector(reference_parameters(params), edges, 1, key)


def test_the_reference_stands_alone():
    tree = ast.parse(Path(reference.__file__).read_text(encoding="utf-8"))
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    roots = {name.split(".")[0] for name in imported}
    assert roots <= set(sys.stdlib_module_names) | {"Crypto"}


def test_a_clients_own_row_is_the_graphs():
    for clients, degree in ((3, 2), (4, 2), (41, 8), (44, 42)):
        ring = graph.beacon_ring(clients, bytes(32), bytes(range(16)))
        whole = graph.HararyGraph.of_ring(ring, degree)
        for position in range(clients):
            own = graph.ring_neighbours(ring, degree, position)
            assert own.dtype == np.uint32
            assert own.tolist() == whole.neighbours(position).tolist()


@pytest.mark.parametrize(
    "overrides",
    [{"clients": 7, "dropout": 0.25}, {"clients": 44, "dropout": 0.1, "protocol": "secagg+"}],
    ids=["complete", "harary"],
)
@pytest.mark.parametrize("cheat", ["forger", "dealer of a seed", "dealer of a mask key"])
def test_evidence_convicts_in_the_references_eyes_too(overrides, cheat, monkeypatch):
    params = plan(dimension=1, threat="malicious-server", encoding=FixedPoint(clip=1.0, bits=8), **overrides)
    cohort = Cohort(params, np.zeros((params.clients, 1)), context=CONTEXT)
    if cheat == "forger":
        culprit, fault = forged_release(cohort)
    else:
        culprit = GONE if cheat.endswith("mask key") else 3
        fault = contradictory_dealer(cohort, monkeypatch, culprit)
    record, evidence = transcript(cohort), fault.evidence.encode()
    sides = {
        "context": CONTEXT,
        "nonce": record.nonce,
        "roster": record.roster,
        "directory": dict(record.directory),
        "beacon": record.beacon,
    }
    assert reference.convicted(reference_parameters(params), evidence, **sides) == culprit
    for at in (9, 45, 110, len(evidence) // 2, len(evidence) - 1):
        changed = evidence[:at] + bytes([evidence[at] ^ 1]) + evidence[at + 1 :]
        with pytest.raises((AssertionError, ValueError, KeyError)):
            reference.convicted(reference_parameters(params), changed, **sides)
