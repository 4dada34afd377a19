"""Federated averaging whose every sum goes through the secure protocol, and the same in the clear to compare with.

A training is: ``plan`` the parameters, ``agree_scaling`` (round 0), ``train`` (a record a round), then
``train_in_clear`` over the same survivors and ``compare_runs``. The seed fixes the federation's split and who drops out
when; keys, masks and rounding never come from it. Nothing here prints.

Source: McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data (AISTATS 2017),
Algorithm 1, with full-batch local steps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import secagg
from secagg.cohort import PLANNED_CORRUPT, PLANNED_DROPOUT, Threat
from secagg.encoding.fixed_point import FixedPoint
from secagg.errors import InputError, ParameterError, TooFewClients
from secagg.protocol import DEFAULT_PROTOCOL, protocol_named, protocol_of
from secagg.training import linear
from secagg.training.bound import Extent, distance_bound
from secagg.training.federation import Federation
from secagg.training.linear import Floats, LocalTraining, Records
from secagg.training.scaling import STATISTICS_ENCODING, local_statistics, scaling_from_statistics

STATISTICS_ATTEMPTS = 5
"""Without the scaling there is no training, so round 0 is tried this often."""

_FAULT_STREAM = 2  # of the seed; the federation's split uses another


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a training does; the defaults train the default federation well.

    Attributes:
        rounds: rounds of averaging, at least 1.
        seed: fixes who drops out and when, at least 0.
        dropout: planned rate of drop-outs, and the rate at which parties drop out in each round, in [0, 1).
        actual_dropout: rate at which parties really drop out, if not as planned; rounds may then fail.
        corrupt: planned rate of parties that collude with the aggregator, in [0, 1).
        protocol: a name of ``secagg.protocol``'s registry.
        threat: ``semi-honest`` or ``malicious-server``; every party's identity and the beacon are then simulated too.
        key_holder: where a protocol has a key, ``decryptor`` or ``clients``; with ``clients`` any client together with
            the aggregator reads everybody, and the threat can be ``semi-honest`` alone.
        encoding: of an update's coordinates.
        local: how a party trains between two sums.
        threads: of the masking kernels.
    """

    rounds: int = 20
    seed: int = 1
    dropout: float = PLANNED_DROPOUT
    actual_dropout: float | None = None
    corrupt: float = PLANNED_CORRUPT
    protocol: str = DEFAULT_PROTOCOL
    threat: Threat = "semi-honest"
    key_holder: str = "decryptor"
    encoding: FixedPoint = field(default_factory=lambda: FixedPoint(clip=1.0, bits=16))
    local: LocalTraining = field(default_factory=LocalTraining)
    threads: int = 1

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("seed", 0), ("threads", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.actual_dropout is not None and not 0 <= self.actual_dropout <= 1:
            raise InputError(f"actual dropout must lie in [0, 1], got {self.actual_dropout}")


@dataclass(frozen=True, slots=True)
class Plan:
    """Parameters of round 0 (statistics of the features) and of each round of training."""

    statistics: Any
    training: Any

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of either kind of round, in order."""
        return protocol_of(self.training).stages(self.training)


@dataclass(frozen=True, slots=True, kw_only=True)
class SumTraffic:
    """What one secure sum took.

    Attributes:
        survivors: parties whose vector is in the sum; empty if the sum failed.
        dropped: party -> stage whose message it never sent.
        bytes_up: stage -> the most bytes that any party sent.
        bytes_down: stage -> the most bytes that any party received.
        seconds: stage -> wall seconds of the whole simulated round.
        clipped: the largest share of coordinates that any survivor clipped, 0 to 1.
        failure: why there is no sum, or None.
    """

    survivors: tuple[int, ...]
    dropped: Mapping[int, str]
    bytes_up: Mapping[str, int] = field(default_factory=dict)
    bytes_down: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    clipped: float = 0.0
    failure: str | None = None

    @property
    def bytes_up_total(self) -> int:
        """No party sent more than this in the round."""
        return sum(self.bytes_up.values())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SecureRecord:
    """One round of training; ``model`` is the one after it, ``loss`` and ``accuracy`` are on the held-out records."""

    round: int
    model: Floats
    loss: float
    accuracy: float
    traffic: SumTraffic


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlainRecord:
    """One round in the clear, field by field as in ``SecureRecord``."""

    round: int
    model: Floats
    loss: float
    accuracy: float


@dataclass(frozen=True, slots=True, eq=False)
class ScaledFederation:
    """The federation after round 0: everybody's records scaled alike, as each party scales its own.

    Attributes:
        parties: scaled records, one entry a party.
        held_out: scaled records for the evaluation.
        traffic: of round 0's last attempt, the one that gave the sum.
        attempts: how many it took.
    """

    parties: tuple[Records, ...]
    held_out: Records
    traffic: SumTraffic
    attempts: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of records of each party, its weight in the sums."""
        return tuple(len(records) for records in self.parties)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsCompared:
    """The secure run beside the plain one.

    Attributes:
        accuracy_secure, accuracy_plain, loss_secure, loss_plain: after the last round, on the held-out records.
        max_abs_difference: the largest difference of any coefficient of the two models.
        distance: their Euclidean distance.
        bound: what ``distance`` cannot exceed (see ``bound``), None where something was clipped.
        bound_note: why the bound holds, or why none is stated.
        rounds_failed: rounds without a sum; they moved neither model.
    """

    accuracy_secure: float
    accuracy_plain: float
    loss_secure: float
    loss_plain: float
    max_abs_difference: float
    distance: float
    bound: float | None
    bound_note: str
    rounds_failed: int


def plan(federation: Federation, settings: Settings) -> Plan:
    """Plan both kinds of round.

    Raises:
        ParameterError: no safe parameters exist for so many parties at these rates.
    """

    def planned(dimension: int, encoding: FixedPoint, sums: int) -> Any:
        asked: dict[str, Any] = {
            "clients": len(federation.parties),
            "dimension": dimension,
            "encoding": encoding,
            "max_weight": federation.weight_cap,
            "dropout": settings.dropout,
            "corrupt": settings.corrupt,
            "threat": settings.threat,
            "key_holder": settings.key_holder,
            "sums": sums,
        }
        return protocol_named(settings.protocol).plan(settings.protocol, **asked)

    features = len(federation.schema.features)
    return Plan(
        planned(2 * features, STATISTICS_ENCODING, STATISTICS_ATTEMPTS),
        planned(features + 1, settings.encoding, settings.rounds),
    )


def fewest_clients(settings: Settings, most: int) -> int | None:
    """Return the least number of clients, up to ``most``, that a round can be planned for; None if there is none."""
    for clients in range(1, most + 1):
        asked: dict[str, Any] = {"clients": clients, "dimension": 1, "encoding": settings.encoding}
        asked |= {"dropout": settings.dropout, "corrupt": settings.corrupt, "threat": settings.threat}
        try:
            protocol_named(settings.protocol).plan(settings.protocol, **asked)
        except ParameterError:
            continue
        return clients
    return None


def draw_faults(settings: Settings, params: Any, round_number: int, attempt: int = 1) -> dict[int, str]:
    """Draw who drops out in a round, and before which message: the same for the same seed, round and attempt.

    Each party drops out with the rate of ``settings``, at a stage drawn evenly. As planned, at most
    ``params.dropout_count`` do; with ``actual_dropout`` any number may. Where a protocol has fewer stages, the same
    parties' inputs may miss as in another's (``Protocol.fault_stages``).
    """
    rng = np.random.default_rng([settings.seed, _FAULT_STREAM, round_number, attempt])
    rate = settings.dropout if settings.actual_dropout is None else settings.actual_dropout
    gone = rng.permutation(np.flatnonzero(rng.random(params.clients) < rate))
    if settings.actual_dropout is None:
        gone = gone[: params.dropout_count]
    stages = protocol_of(params).fault_stages(params)
    drawn = rng.integers(len(stages), size=len(gone))
    struck = {int(party): stages[stage] for party, stage in sorted(zip(gone, drawn, strict=True))}
    return {party: stage for party, stage in struck.items() if stage is not None}


def agree_scaling(federation: Federation, settings: Settings, params: Any) -> ScaledFederation:
    """Run round 0 and scale everybody's records by what it tells; a failed attempt is repeated with fresh keys.

    Raises:
        TooFewClients: in each of ``STATISTICS_ATTEMPTS`` more parties dropped out than the parameters allow.
    """
    for attempt in range(1, STATISTICS_ATTEMPTS):
        try:
            return _attempt_scaling(federation, settings, params, attempt)
        except TooFewClients:
            continue
    return _attempt_scaling(federation, settings, params, STATISTICS_ATTEMPTS)


def _attempt_scaling(federation: Federation, settings: Settings, params: Any, attempt: int) -> ScaledFederation:
    units = federation.schema.units
    pooled, traffic = _secure_mean(
        (local_statistics(records, units) for records in federation.parties),
        params=params,
        weights=federation.sizes,
        faults=draw_faults(settings, params, 0, attempt),
        context=_context(0, np.asarray(units, dtype=np.float64)),
        threads=settings.threads,
    )
    scaling = scaling_from_statistics(pooled, units)
    parties = tuple(scaling.apply(records) for records in federation.parties)
    return ScaledFederation(parties, scaling.apply(federation.held_out), traffic, attempt)


def train(scaled: ScaledFederation, settings: Settings, params: Any) -> Iterator[SecureRecord]:
    """Yield one record a round. A round with too few survivors leaves the model as it was and says so.

    Where the protocol has a key, all rounds are under one, which clients are sent once, in the first.
    """
    model = linear.initial_model(scaled.held_out.x.shape[1])
    key = protocol_of(params).simulation_key(params)
    for number in range(1, settings.rounds + 1):
        faults = draw_faults(settings, params, number)
        try:
            update, traffic = _secure_mean(
                _updates(model, scaled.parties, settings.local),
                params=params,
                weights=scaled.sizes,
                faults=faults,
                context=_context(number, model),
                threads=settings.threads,
                key=key,
            )
        except TooFewClients as error:
            traffic = SumTraffic(survivors=(), dropped=faults, failure=str(error))
        else:
            model = model + update
        loss, accuracy = linear.loss(model, scaled.held_out), linear.accuracy(model, scaled.held_out)
        yield SecureRecord(round=number, model=model, loss=loss, accuracy=accuracy, traffic=traffic)


def train_in_clear(
    scaled: ScaledFederation, local: LocalTraining, survivors: Sequence[tuple[int, ...]]
) -> Iterator[PlainRecord]:
    """Yield one record a round of plain federated averaging over the given survivors; none of them: no step."""
    model = linear.initial_model(scaled.held_out.x.shape[1])
    for number, present in enumerate(survivors, start=1):
        if present:
            updates = list(_updates(model, [scaled.parties[party] for party in present], local))
            model = model + np.average(updates, axis=0, weights=[scaled.sizes[party] for party in present])
        loss, accuracy = linear.loss(model, scaled.held_out), linear.accuracy(model, scaled.held_out)
        yield PlainRecord(round=number, model=model, loss=loss, accuracy=accuracy)


def compare_runs(
    scaled: ScaledFederation, settings: Settings, secure: Sequence[SecureRecord], plain: Sequence[PlainRecord]
) -> RunsCompared:
    """Compare the two runs after their last round, and state the bound of their distance where it holds."""
    difference = secure[-1].model - plain[-1].model
    failed = sum(record.traffic.failure is not None for record in secure)
    clipped = [record.round for record in secure if record.traffic.clipped > 0]
    if clipped:
        bound = None
        note = f"not stated: updates were clipped, first in round {clipped[0]} (a larger clip avoids it)"
    else:
        extent = _extent(scaled, settings.local, [r.model for r in secure] + [r.model for r in plain])
        bound = distance_bound(len(secure) - failed, encoding=settings.encoding, extent=extent)
        note = "nothing was clipped, so each round adds at most sqrt(coefficients) x step to the models' distance"
    return RunsCompared(
        accuracy_secure=secure[-1].accuracy,
        accuracy_plain=plain[-1].accuracy,
        loss_secure=secure[-1].loss,
        loss_plain=plain[-1].loss,
        max_abs_difference=float(np.max(np.abs(difference))),
        distance=float(np.linalg.norm(difference)),
        bound=bound,
        bound_note=note,
        rounds_failed=failed,
    )


def _updates(model: Floats, parties: Iterable[Records], local: LocalTraining) -> Iterator[Floats]:
    return (linear.train_locally(model, records, local) - model for records in parties)


def _secure_mean(
    vectors: Iterable[Floats],
    *,
    params: Any,
    weights: Sequence[int],
    faults: Mapping[int, str],
    context: bytes,
    threads: int,
    key: Any = None,
) -> tuple[Floats, SumTraffic]:
    # trained ahead of the protocol, so that its seconds are its own
    result = secagg.simulate(
        list(vectors), params=params, weights=weights, faults=faults, context=context, threads=threads, key=key
    )
    survivors = tuple(result.survivors)
    return result.mean, SumTraffic(
        survivors=survivors,
        dropped=dict(result.dropped),
        bytes_up=dict(result.bytes_up),
        bytes_down=dict(result.bytes_down),
        seconds=dict(result.seconds),
        clipped=max((result.clipped.get(party, 0.0) for party in survivors), default=0.0),
    )


def _context(round_number: int, model: Floats) -> bytes:
    """Bind a sum to the round and the exact model that it starts from: parties on different models get no sum."""
    return hashlib.sha256(round_number.to_bytes(8, "little") + model.astype("<f8").tobytes()).digest()


def _extent(scaled: ScaledFederation, local: LocalTraining, models: Sequence[Floats]) -> Extent:
    return Extent(
        coefficients=len(models[0]),
        parties=len(scaled.parties),
        records=max(scaled.sizes),
        record_norm=max(float(np.linalg.norm(linear.with_intercept(r.x), axis=1).max()) for r in scaled.parties),
        model_norm=max(float(np.linalg.norm(model)) for model in models),
        step_size=max(linear.step_size(records, local) for records in scaled.parties),
        local_steps=local.steps,
    )
