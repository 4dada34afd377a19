"""SecAgg and SecAgg+ as the registry has them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from secagg.cohort import Threat
from secagg.encoding.fixed_point import FixedPoint
from secagg.errors import InputError
from secagg.pairwise.encoded_params import UnprovedParams
from secagg.pairwise.params import RoundParams
from secagg.pairwise.stages import MALICIOUS_STAGES, stages_of
from secagg.protocol import Protocol

if TYPE_CHECKING:
    from secagg.pairwise.client_session import PairwiseClientSession
    from secagg.pairwise.server_session import PairwiseServerSession
    from secagg.planning.calibration import Machine, Stopwatch
    from secagg.planning.operations import Operation
    from secagg.planning.rows import Row
    from secagg.planning.workload import Workload
    from secagg.simulation import Parties

_ASKED = ("clients", "dimension", "encoding", "max_weight", "dropout", "corrupt", "threat")


class Pairwise(Protocol):
    """Pairwise masks: the complete graph, or a sparse one where that is safe."""

    family = "pairwise"
    names = ("secagg", "secagg+")
    every_stage = MALICIOUS_STAGES
    keys_ahead = True

    @property
    def params_type(self) -> type[RoundParams]:
        """``RoundParams``."""
        return RoundParams

    @property
    def client_session(self) -> type[PairwiseClientSession]:
        """The client's side."""
        from secagg.pairwise.client_session import PairwiseClientSession

        return PairwiseClientSession

    @property
    def server_session(self) -> type[PairwiseServerSession]:
        """The server's side."""
        from secagg.pairwise.server_session import PairwiseServerSession

        return PairwiseServerSession

    def plan(self, name: str, **asked: Any) -> RoundParams:
        """Choose the graph, the threshold and the ring; nobody holds a key."""
        return RoundParams.plan(protocol=name, **{one: asked[one] for one in _ASKED if one in asked})  # type: ignore[arg-type]

    def read_unproved(self, encoded: bytes) -> Mapping[str, Any]:
        """Return the encoded parameters' fields by name."""
        return dataclasses.asdict(UnprovedParams.decode(encoded))

    def stages(self, params: RoundParams) -> tuple[str, ...]:
        """Return the stages in this threat model."""
        return stages_of(params.threat)

    def input_stage(self, params: RoundParams) -> str:
        """Return ``masked_input``."""
        return "masked_input"

    def simulated(self, params: RoundParams, context: bytes, key: Any) -> Parties:
        """Return a server, and clients with fresh identities where the model has them."""
        from secagg.identity import Directory, Identity
        from secagg.primitives.signature import SigningKey
        from secagg.session.client import ClientSession
        from secagg.session.keeping import IN_MEMORY
        from secagg.session.server import ServerSession
        from secagg.simulation import Parties

        if key is not None:
            raise InputError("a pairwise round has no key to go on with")
        signing: dict[int, SigningKey] = {}
        if params.threat == "malicious-server":
            signing = {one: SigningKey.generate() for one in range(params.clients)}
        directory = Directory({one: each.public for one, each in signing.items()}) if signing else None

        def client(one: int) -> ClientSession:
            identity = None if directory is None else Identity(key=signing[one], directory=directory)
            return ClientSession(params, one, context=context, keep=IN_MEMORY, credentials=identity)

        server = ServerSession(params, range(params.clients), context=context, keep=IN_MEMORY, credentials=directory)
        return Parties(server=server, client=client)

    def planning_row(self, name: str, workload: Workload, threat: Threat, machine: Machine | None) -> Row:
        """Plan a round and count what it costs."""
        from secagg.pairwise.costs import pairwise_row

        return pairwise_row(name, workload, threat, machine)  # type: ignore[arg-type]  # one of names

    def calibrated(self, stopwatch: Stopwatch, ring_bits: int, encoding: FixedPoint) -> Mapping[Operation, float]:
        """Time agreement, sharing, signatures, masking, packing, and what a message takes besides."""
        from secagg.pairwise.timing import calibrated

        return calibrated(stopwatch, ring_bits, encoding)

    def tables(self) -> Mapping[str, Mapping[Any, Any]]:
        """Return the tables of both sides in each threat model, and of each graph where they differ."""
        from secagg.pairwise import client_table, server_table

        return {
            "client-states": client_table.SEMI_HONEST,
            "client-states-malicious-complete": client_table.MALICIOUS_COMPLETE,
            "client-states-malicious": client_table.MALICIOUS_SPARSE,
            "server-states": server_table.SEMI_HONEST,
            "server-states-malicious": server_table.MALICIOUS_SPARSE,
        }

    def warmup(self, params: RoundParams | None) -> int:
        """Compile masking, packing and quantising at the ring's width, and secret sharing."""
        from secagg.encoding.ring import compile_kernels
        from secagg.kernels import jit
        from secagg.primitives import shamir

        before = jit.compiled_afresh()
        if params is not None:
            compile_kernels(params.ring_bits, (np.float32, np.float64))
        shamir.self_test()
        return jit.compiled_afresh() - before

    def checked_rounds(self) -> Mapping[str, RoundParams]:
        """Return a round over each graph."""
        encoding = FixedPoint(clip=127.5, bits=8)
        planned = [
            RoundParams.plan(clients=clients, dimension=100, encoding=encoding, dropout=0.2, corrupt=0.1)
            for clients in (7, 60)
        ]
        return {str(params.graph): params for params in planned}

    def promise(self, params: RoundParams) -> str:
        """Return what the server may do."""
        if params.threat == "semi-honest":
            return "the aggregator may be curious, and follows the protocol"
        return f"the aggregator may lie; {params.quorum} of {params.clients} clients vouch for who is in a sum"

    def facts(self, params: RoundParams) -> Mapping[str, str]:
        """Return the graph and the threshold."""
        graph = "complete graph" if params.graph == "complete" else "sparse (Harary) graph"
        return {
            "protocol": f"{params.protocol}, {graph}, {params.neighbours} neighbours each",
            "threshold": f"{params.threshold} of {params.neighbours} neighbours rebuild a secret (t of k)",
        }

    def figures(self, params: RoundParams) -> Mapping[str, Any]:
        """Return the graph, the threshold and the ring."""
        return {name: getattr(params, name) for name in ("graph", "neighbours", "threshold", "ring_bits")}

    def headline(self, params: RoundParams) -> str:
        """Return the protocol, the model and the graph."""
        graph = "sparse" if params.graph == "harary" else params.graph
        return f"{params.protocol}, {params.threat}, {graph} graph, k = {params.neighbours}, t = {params.threshold}"

    def ring_bits(self, params: RoundParams) -> int:
        """Return b: sums are exact."""
        return params.ring_bits


PROTOCOL = Pairwise()
