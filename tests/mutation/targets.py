"""The modules under test, each with the tests that must kill its mutants, the fastest first.

A test is what pytest takes: a file, and options after it.
"""

from __future__ import annotations

_VECTORS = "tests/vectors/test_vectors.py"
_WIRE = "tests/attacks/test_wire_attacks.py"
_PRIMITIVES = "tests/primitives"

# Known answers of every step first, then the rounds that are driven by hand
_PROTOCOL = (
    f"{_VECTORS} -k 'not schema'",
    "tests/session/test_single.py",
    "tests/attacks/test_client_attacks.py",
    "tests/attacks/test_server_attacks.py",
    "tests/session/test_hostile.py",
    "tests/session/test_restore.py",
    "tests/session/test_malicious_server.py -k 'not whoever_drops_out'",
    "tests/attacks/test_identity_attacks.py",
    _WIRE,
)

TARGETS: dict[str, tuple[str, ...]] = {
    "secagg/pairwise/encoded_params.py": ("tests/test_params_boundaries.py", "tests/test_params.py"),
    "secagg/pairwise/params.py": ("tests/test_params_boundaries.py", "tests/test_params.py"),
    "secagg/pairwise/graph_parameters.py": ("tests/test_graph_parameters.py", "tests/test_params.py"),
    "secagg/primitives/aead.py": (f"{_PRIMITIVES}/test_aead.py", f"{_PRIMITIVES}/test_secrecy.py", _WIRE),
    "secagg/primitives/agreement.py": (f"{_PRIMITIVES}/test_agreement.py", f"{_PRIMITIVES}/test_secrecy.py", _WIRE),
    "secagg/primitives/kdf.py": (f"{_PRIMITIVES}/test_kdf.py", _VECTORS),
    # Not the tests that compile a kernel afresh in a process of its own: no mutant of this module reaches them
    "secagg/primitives/prg.py": ("tests/kernels/test_aes_streams.py -k 'not 512_bit'",),
    "secagg/primitives/randomness.py": (f"{_PRIMITIVES}/test_secrecy.py", f"{_PRIMITIVES}/test_agreement.py"),
    "secagg/primitives/shamir.py": (f"{_PRIMITIVES}/test_shamir.py", f"{_PRIMITIVES}/test_secrecy.py", _VECTORS),
    "secagg/primitives/signature.py": (f"{_PRIMITIVES}/test_signature.py", f"{_PRIMITIVES}/test_secrecy.py", _VECTORS),
    "secagg/pairwise/commitments.py": _PROTOCOL,
    "secagg/pairwise/client_steps.py": _PROTOCOL,
    "secagg/pairwise/client_states.py": _PROTOCOL,
    "secagg/pairwise/evidence.py": ("tests/session/test_evidence.py", *_PROTOCOL),
    "secagg/pairwise/floors.py": (*_PROTOCOL, "tests/session/test_floors.py"),
    "secagg/pairwise/graph.py": ("tests/session/test_graph.py", *_PROTOCOL),
    "secagg/pairwise/identifiers.py": _PROTOCOL,
    "secagg/pairwise/masking.py": ("tests/session/test_masking.py", *_PROTOCOL),
    "secagg/pairwise/messages.py": (
        "tests/session/test_messages.py",
        "tests/planning/test_planning_traffic.py -k 'planned_bytes and nobody and complete'",
        *_PROTOCOL,
    ),
    "secagg/pairwise/recovery.py": (*_PROTOCOL, "tests/session/test_recovery.py"),
    "secagg/pairwise/release.py": (
        *_PROTOCOL,
        "tests/attacks/test_differencing_attacks.py",
        "tests/session/test_floors.py",
    ),
    "secagg/pairwise/server_steps.py": (*_PROTOCOL, "tests/session/test_floors.py"),
    "secagg/pairwise/server_states.py": _PROTOCOL,
    "secagg/pairwise/uploads.py": (
        "tests/session/test_receive_all.py",
        "tests/session/test_evidence.py -k 'masked_for_other_rows'",
        *_PROTOCOL,
    ),
}

# By what each costs: known answers last, which take longest to load
_SESSION = (
    "tests/session/test_single.py",
    "tests/session/test_receive_all.py",
    "tests/session/test_hostile.py -k 'not any_damage and not arbitrary'",
    "tests/attacks/test_identity_attacks.py",
    "tests/session/test_restore.py -k 'not sealed'",
    "tests/session/test_malicious_server.py -k 'not whoever_drops_out'",
    "tests/attacks/test_leaks.py -k 'have_no_copies'",
    "tests/session/test_floors.py -k 'stays_open or unmasking_stands or releases_nothing'",
    "tests/session/test_evidence.py -k 'transcript_is_there'",
    "tests/session/test_hostile.py -k 'any_damage or arbitrary'",
    "tests/attacks/test_client_attacks.py",
    "tests/attacks/test_server_attacks.py",
    "tests/machine/test_every_message_in_every_state.py",
    f"{_VECTORS} -k 'not schema and not generator'",
)

_KEPT = ("tests/session/test_kept.py -k 'not cut_off'", *_SESSION)

TARGETS |= {
    "secagg/identity.py": _SESSION,
    "secagg/pairwise/authentication.py": _SESSION,
    "secagg/pairwise/client_session.py": _SESSION,
    "secagg/pairwise/client_table.py": ("tests/session/test_tables.py", *_SESSION),
    "secagg/pairwise/credentials.py": (*_SESSION, "tests/attacks/test_differencing_attacks.py"),
    "secagg/pairwise/result.py": _SESSION,
    "secagg/pairwise/saved.py": _SESSION,
    "secagg/pairwise/server_session.py": _SESSION,
    "secagg/pairwise/server_table.py": ("tests/session/test_tables.py", *_SESSION),
    "secagg/session/client.py": _KEPT,
    "secagg/session/context.py": ("tests/session/test_context.py",),
    "secagg/session/guard.py": _SESSION,
    "secagg/session/keeping.py": _KEPT,
    "secagg/session/roster.py": _SESSION,
    "secagg/session/server.py": _KEPT,
    "secagg/session/slot.py": ("tests/session/test_file_store.py", "tests/session/test_file_store_machine.py"),
}
