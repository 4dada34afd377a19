"""All figures of a training as strict JSON: every number is finite, ``null`` where there is none to give."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from secagg._version import __version__
from secagg.protocol import protocol_of
from secagg.training.driver import PlainRecord, Plan, RunsCompared, ScaledFederation, SecureRecord, Settings, SumTraffic
from secagg.training.federation import Federation

SCHEMA = 1
"""Rises when a field changes its meaning or goes away; new fields do not raise it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A finished training: what went in, every round, and how it ended."""

    federation: Federation
    settings: Settings
    plan: Plan
    scaled: ScaledFederation
    secure: tuple[SecureRecord, ...]
    plain: tuple[PlainRecord, ...]
    comparison: RunsCompared
    kernels_compiled: int

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of a round in the training's threat model, in order."""
        return self.plan.stages

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the figures should know, a sentence each."""
        notes = [*self.plan.training.notes, f"bound: {self.comparison.bound_note}"]
        if self.comparison.rounds_failed:
            notes.append(
                f"{self.comparison.rounds_failed} of {len(self.secure)} rounds had too few survivors "
                "and left the model as it was"
            )
        notes.append("parties are simulated in one process; bytes are those of the encoded messages")
        return tuple(notes)


def as_dict(outcome: Outcome) -> dict[str, Any]:
    """Return the report as plain dictionaries, lists, strings, finite numbers and None."""
    pairs = zip(outcome.secure, outcome.plain, strict=True)
    return {
        "schema": SCHEMA,
        "version": __version__,
        "federation": _federation(outcome.federation),
        "seed": outcome.settings.seed,
        "settings": _settings(outcome.settings),
        "parameters": _parameters(outcome.plan.training),
        "kernels_compiled": outcome.kernels_compiled,
        "statistics_round": {
            "parameters": _parameters(outcome.plan.statistics),
            "attempts": outcome.scaled.attempts,
            **_traffic(outcome.scaled.traffic),
        },
        "rounds": [_round(secure, plain) for secure, plain in pairs],
        "final": {key: _finite(value) for key, value in asdict(outcome.comparison).items()},
        "notes": list(outcome.notes),
    }


def as_json(outcome: Outcome) -> str:
    """Return the report as indented JSON text that ends in a line feed."""
    return json.dumps(as_dict(outcome), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _federation(federation: Federation) -> dict[str, Any]:
    return {
        "name": federation.schema.name,
        "task": federation.schema.task,
        "features": list(federation.schema.features),
        "clients": [
            {"client": party, "records": len(records), "label_1": int(records.y.sum())}
            for party, records in enumerate(federation.parties)
        ],
        "held_out": len(federation.held_out),
    }


def _settings(settings: Settings) -> dict[str, Any]:
    return {
        "rounds": settings.rounds,
        "actual_dropout": settings.actual_dropout,
        "threads": settings.threads,
        "local_steps": settings.local.steps,
        "learning_rate": settings.local.learning_rate,
        "l2": settings.local.l2,
    }


def _parameters(params: Any) -> dict[str, Any]:
    return dict(protocol_of(params).as_json(params))


def _traffic(traffic: SumTraffic) -> dict[str, Any]:
    return {
        "survivors": list(traffic.survivors),
        "dropped": {str(party): stage for party, stage in traffic.dropped.items()},
        "bytes_up": dict(traffic.bytes_up),
        "bytes_down": dict(traffic.bytes_down),
        "seconds": dict(traffic.seconds),
        "clipped": traffic.clipped,
        "failure": traffic.failure,
    }


def _round(secure: SecureRecord, plain: PlainRecord) -> dict[str, Any]:
    return {
        "round": secure.round,
        "loss": _finite(secure.loss),
        "accuracy": secure.accuracy,
        "loss_plain": _finite(plain.loss),
        "accuracy_plain": plain.accuracy,
        **_traffic(secure.traffic),
    }


def total_seconds(records: Sequence[SecureRecord]) -> float:
    """Return the wall seconds of all stages of all rounds together."""
    return sum(sum(record.traffic.seconds.values()) for record in records)
