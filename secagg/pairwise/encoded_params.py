"""The 61 bytes of a round's parameters and what they say, which proves nothing: ``params`` does.

Source: SPEC "Parameters".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal, get_args

from secagg.cohort import Threat
from secagg.errors import DecodeError

PairwiseName = Literal["secagg", "secagg+"]
Graph = Literal["complete", "harary"]

_LAYOUT = struct.Struct("<IQdBQddBBBIIIB")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnprovedParams:
    """The fields of encoded parameters, in ``RoundParams``'s terms and order, checked for nothing but their form.

    For whoever knows what a round should run with and is sent bytes: reading them costs the same whatever they say,
    where ``RoundParams.decode`` proves what a peer wrote. Plan from the cohort's and the model's size, and compare.
    """

    clients: int
    dimension: int
    clip: float
    bits: int
    max_weight: int
    dropout: float
    corrupt: float
    protocol: PairwiseName
    threat: Threat
    graph: Graph
    neighbours: int
    threshold: int
    ring_bits: int

    def encode(self) -> bytes:
        """Return the canonical bytes, of one length always."""
        return _LAYOUT.pack(
            self.clients,
            self.dimension,
            self.clip,
            self.bits,
            self.max_weight,
            self.dropout,
            self.corrupt,
            get_args(PairwiseName).index(self.protocol),
            get_args(Threat).index(self.threat),
            get_args(Graph).index(self.graph),
            self.neighbours,
            self.threshold,
            0,
            self.ring_bits,
        )

    @classmethod
    def decode(cls, payload: bytes) -> UnprovedParams:
        """Read what ``encode`` wrote.

        Raises:
            DecodeError: the bytes are not an encoding of parameters.
        """
        if not isinstance(payload, bytes):
            raise DecodeError(f"parameters are encoded as bytes, got {type(payload).__name__}")
        if len(payload) != _LAYOUT.size:
            raise DecodeError(f"parameters take {_LAYOUT.size} bytes, got {len(payload)}")
        n, d, clip, bits, weight, dropout, corrupt, protocol, threat, graph, k, t, zero, width = _LAYOUT.unpack(payload)
        choices = ((protocol, PairwiseName), (threat, Threat), (graph, Graph))
        if zero or any(index >= len(get_args(known)) for index, known in choices):
            raise DecodeError("parameters hold a value that this version does not know")
        return cls(
            clients=n,
            dimension=d,
            clip=clip,
            bits=bits,
            max_weight=weight,
            dropout=dropout,
            corrupt=corrupt,
            protocol=get_args(PairwiseName)[protocol],
            threat=get_args(Threat)[threat],
            graph=get_args(Graph)[graph],
            neighbours=k,
            threshold=t,
            ring_bits=width,
        )
