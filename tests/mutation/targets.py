"""The modules under test, each with the tests that must kill its mutants, the fastest first.

A test is what pytest takes: a file, and options after it.
"""

from __future__ import annotations

_VECTORS = "tests/vectors/test_vectors.py"
_WIRE = "tests/attacks/test_wire_attacks.py"
_PRIMITIVES = "tests/primitives"

TARGETS: dict[str, tuple[str, ...]] = {
    "secagg/params.py": ("tests/test_params_boundaries.py", "tests/test_params.py"),
    "secagg/graph_parameters.py": ("tests/test_graph_parameters.py", "tests/test_params.py"),
    "secagg/primitives/aead.py": (f"{_PRIMITIVES}/test_aead.py", f"{_PRIMITIVES}/test_secrecy.py", _WIRE),
    "secagg/primitives/agreement.py": (f"{_PRIMITIVES}/test_agreement.py", f"{_PRIMITIVES}/test_secrecy.py", _WIRE),
    "secagg/primitives/kdf.py": (f"{_PRIMITIVES}/test_kdf.py", _VECTORS),
    # Not the tests that compile a kernel afresh in a process of its own: no mutant of this module reaches them
    "secagg/primitives/prg.py": ("tests/kernels/test_aes_streams.py -k 'not 512_bit'", _VECTORS),
    "secagg/primitives/randomness.py": (f"{_PRIMITIVES}/test_secrecy.py", f"{_PRIMITIVES}/test_agreement.py"),
    "secagg/primitives/shamir.py": (f"{_PRIMITIVES}/test_shamir.py", f"{_PRIMITIVES}/test_secrecy.py", _VECTORS),
    "secagg/primitives/signature.py": (f"{_PRIMITIVES}/test_signature.py", f"{_PRIMITIVES}/test_secrecy.py", _VECTORS),
}
