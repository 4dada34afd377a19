"""The stages of every protocol that ships with this package, by the names that sessions, faults and errors use."""

from __future__ import annotations

from secagg.protocol import every_stage

STAGES: tuple[str, ...] = every_stage()
"""All stages, each protocol's in order: a round has those of its own protocol and threat model."""
