"""The stages of a pairwise round: what a client sends, in order."""

from __future__ import annotations

from secagg.cohort import Threat

SEMI_HONEST_STAGES = ("advertise_keys", "share_keys", "masked_input", "unmask")
"""What a client sends in the semi-honest model; a client drops out before the first of these that misses."""
MALICIOUS_STAGES = ("advertise_keys", "share_keys", "masked_input", "check_consistency", "unmask")
"""The same in the malicious-server model."""


def stages_of(threat: Threat) -> tuple[str, ...]:
    """Return the stages of a round in this model, in order."""
    return MALICIOUS_STAGES if threat == "malicious-server" else SEMI_HONEST_STAGES
