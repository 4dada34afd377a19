"""BFV and CKKS sums as the registry has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from secagg.cohort import Threat
from secagg.errors import InputError, ParameterError
from secagg.he.messages import HE_STAGES
from secagg.he.params import HEParams
from secagg.protocol import PartyOpening, Protocol
from secagg.quantities import counted, size_text

if TYPE_CHECKING:
    from secagg.he.client_session import HEClientSession
    from secagg.he.credentials import HECredentials, HEServerCredentials
    from secagg.he.keys import DecryptionKey
    from secagg.he.server_session import HEServerSession
    from secagg.identity import Directory, Identity
    from secagg.planning.calibration import Machine
    from secagg.planning.rows import Row
    from secagg.planning.workload import Workload
    from secagg.simulation import Parties

_ASKED = ("clients", "dimension", "encoding", "max_weight", "dropout", "corrupt", "key_holder")
_DECRYPTOR, _PUBLIC_KEY = "decryptor", "public-key"
"""The further party, which is also what a node pins of it; and the key that nodes encrypt under."""


class Homomorphic(Protocol):
    """Sums of ciphertexts: exact with BFV, approximate and flooded with CKKS."""

    family = "homomorphic"
    names = ("bfv", "ckks")
    every_stage = HE_STAGES
    packages = ("tenseal", "zstandard")

    @property
    def params_type(self) -> type[HEParams]:
        """``HEParams``."""
        return HEParams

    @property
    def client_session(self) -> type[HEClientSession]:
        """The client's side."""
        from secagg.he.client_session import HEClientSession

        return HEClientSession

    @property
    def server_session(self) -> type[HEServerSession]:
        """The aggregator's side."""
        from secagg.he.server_session import HEServerSession

        return HEServerSession

    @property
    def parties(self) -> Mapping[str, type]:
        """The decryptor, where one holds the key."""
        from secagg.he.decryptor_session import DecryptorSession

        return {_DECRYPTOR: DecryptorSession}

    def plan(self, name: str, **asked: Any) -> HEParams:
        """Choose a chain of primes; ``sums`` is how many one key releases. Uploads are signed in every model."""
        if (asked.get("key_holder"), asked.get("threat")) == ("clients", "malicious-server"):
            raise ParameterError(
                "where the clients hold the key nobody checks the aggregator: use key_holder 'decryptor'"
            )
        given = {one: asked[one] for one in _ASKED if one in asked}
        if asked.get("sums") is not None:
            given["releases"] = asked["sums"]
        return HEParams.plan(protocol=name, **given)  # type: ignore[arg-type]

    def read_unproved(self, encoded: bytes) -> Mapping[str, Any]:
        """Return the encoded parameters' fields by name."""
        return HEParams.read_unproved(encoded)

    def stages(self, params: HEParams) -> tuple[str, ...]:
        """Return ``encrypted_input`` and ``release``."""
        return HE_STAGES

    def input_stage(self, params: HEParams) -> str:
        """Return ``encrypted_input``."""
        return HE_STAGES[0]

    def fault_stages(self, params: HEParams) -> Sequence[str | None]:
        """Return where faults strike: the same inputs miss as in a semi-honest pairwise round of four stages.

        Whoever would have dropped out there after its upload is in the sum here.
        """
        return (HE_STAGES[0], HE_STAGES[0], HE_STAGES[0], None)

    def simulated(self, params: HEParams, context: bytes, key: DecryptionKey | None) -> Parties:
        """Return an aggregator, clients with fresh identities, and a decryptor where one holds the key."""
        from secagg.he.simulation import parties_of

        return parties_of(params, context, key)

    def simulation_key(self, params: HEParams) -> DecryptionKey:
        """Return a new key, in memory."""
        from secagg.he.keys import DecryptionKey
        from secagg.session.keeping import IN_MEMORY

        return DecryptionKey.generate(params, keep=IN_MEMORY)

    def planning_row(self, name: str, workload: Workload, threat: Threat, machine: Machine | None) -> Row:
        """Plan a sum and count what it costs."""
        from secagg.he.costs import homomorphic_row

        return homomorphic_row(name, workload, threat, machine)  # type: ignore[arg-type]  # one of names

    def tables(self) -> Mapping[str, Mapping[Any, Any]]:
        """Return a client's tables, by who holds the key."""
        from secagg.he.client_table import CLIENTS_DECRYPT, DECRYPTOR_DECRYPTS

        return {"he-client-states": DECRYPTOR_DECRYPTS, "he-client-states-key": CLIENTS_DECRYPT}

    def warmup(self, params: HEParams | None) -> int:
        """Compile packing at the primes' widths, and the adding of residues."""
        from secagg.encoding.ring import compile_kernels
        from secagg.kernels import jit
        from secagg.kernels.residues import add_residues

        before = jit.compiled_afresh()
        if params is not None:
            compile_kernels(64, (np.float32, np.float64))  # codes and flooding lie in words of 64 bits
            widths = {prime.bit_length() for prime in params.chain.primes}
            for width in widths | ({params.ring_bits} if params.protocol == "bfv" else set()):
                compile_kernels(width, ())
        nothing = np.zeros((1, 1), dtype=np.uint64)
        add_residues(nothing, nothing, np.ones(1, dtype=np.uint64), np.empty_like(nothing))
        return jit.compiled_afresh() - before

    def identified(self, threat: Threat) -> bool:
        """Return True: uploads are signed in every model."""
        return True

    def node_material(self, params: HEParams) -> Mapping[str, Callable[[Any], bytes]]:
        """Return the file of the decryptor's signed public-key message, and that of its pinned Ed25519 key."""
        from secagg.identity_files import read_public_key

        return {_PUBLIC_KEY: lambda path: path.read_bytes(), _DECRYPTOR: read_public_key}

    def client_credentials(
        self, params: HEParams, identity: Identity | None, material: Mapping[str, bytes]
    ) -> HECredentials:
        """Open the public key, where a decryptor holds the secret one.

        Raises:
            DecodeError: it is no key for these parameters, or the decryptor did not sign it.
            InputError: the identity is missing, or the clients hold the key: a copy for each is no file to name.
        """
        from secagg.he.credentials import HECredentials
        from secagg.he.keys import PublicKey

        if identity is None or params.key_holder != "decryptor":
            raise InputError("a node takes part with an identity, in sums whose key a decryptor holds")
        decryptor = material[_DECRYPTOR]
        public_key = PublicKey.open(material[_PUBLIC_KEY], params, decryptor)
        return HECredentials(identity=identity, public_key=public_key, decryptor=decryptor)

    def server_credentials(
        self, params: HEParams, directory: Directory | None, parties: Mapping[str, PartyOpening]
    ) -> HEServerCredentials:
        """Return the directory with the decryptor's opening.

        Raises:
            InputError: there is no directory.
        """
        from secagg.he.credentials import HEServerCredentials

        if directory is None:
            raise InputError("a homomorphic sum takes the directory of its clients")
        opening, identity = parties[_DECRYPTOR]
        return HEServerCredentials(directory=directory, opening=opening, decryptor=identity)

    def promise(self, params: HEParams) -> str:
        """Return what the aggregator may do, and whether somebody checks it."""
        if params.key_holder == "decryptor":
            return "the aggregator may lie; the decryptor adds the signed uploads itself and works with no other party"
        return "the aggregator may be curious, and follows the protocol"

    def facts(self, params: HEParams) -> Mapping[str, str]:
        """Return whether sums are exact, who holds the key and for how long, and what an upload is."""
        what = "exact" if params.protocol == "bfv" else f"approximate, {params.bits_left} bits left after flooding"
        return {
            "protocol": f"{params.protocol}, homomorphic, {what}",
            "key": f"held by the {params.key_holder}; releases {counted(params.releases, 'sum')} at most",
            "upload": f"{counted(params.ciphertexts, 'ciphertext')}, {size_text(params.ciphertext_bytes)}",
        }

    def figures(self, params: HEParams) -> Mapping[str, Any]:
        """Return the key's holder, the chain, how values lie in it, and the error."""
        return {
            "key_holder": params.key_holder,
            "ring_degree": params.chain.degree,
            "modulus_bits": [*params.chain.data_bits, params.chain.special_bits],
            "security_bits": params.security_bits,
            "codes_per_slot": params.codes_per_slot,
            "scale_bits": params.scale_bits,
            "releases": params.releases,
            "flooding_bits": params.flooding_bits,
            "error": params.error,
            "ring_bits": params.ring_bits,
        }

    def headline(self, params: HEParams) -> str:
        """Return the protocol, the key's holder and the chain."""
        chain = params.chain
        return f"{params.protocol}, key held by the {params.key_holder}, degree {chain.degree}, {chain.total_bits} bits"

    def ring_bits(self, params: HEParams) -> int | None:
        """Return b of a BFV sum; CKKS approximates."""
        return params.ring_bits if params.protocol == "bfv" else None


PROTOCOL = Homomorphic()
