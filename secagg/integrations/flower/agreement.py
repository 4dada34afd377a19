"""What server and clients agree on before any round, and each pins for itself."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict, get_args

from secagg.arguments import check_choice, checked_integer, checked_rate, checked_real
from secagg.cohort import MAX_CLIENTS, PLANNED_CORRUPT, PLANNED_DROPOUT, Threat
from secagg.encoding.fixed_point import MAX_WEIGHT, FixedPoint
from secagg.errors import DecodeError, ParameterError, ServerFault
from secagg.protocol import DEFAULT_PROTOCOL, Protocol, protocol_named

OWN_METRICS = 1
"""Coordinates after the model's and before the metrics': the share of coordinates that the clip cut off."""
_MOST_SUMS = 1 << 32
"""A protocol refuses what its keys cannot serve, which is less."""


class Terms(TypedDict, total=False):
    """The arguments of ``Agreement``, for those that pass them on."""

    clip: float
    bits: int
    max_weight: int
    dropout: float
    corrupt: float
    min_clients: int
    protocol: str
    sums: int | None
    metrics: Mapping[str, float]
    weighted_by: str
    pipelined: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Terms of the secure sums; both sides pass the same, and a client refuses a round on others.

    Attributes:
        clip: largest magnitude of a coordinate of an update (trained minus received) that is not cut off.
        bits: bits of a coordinate, 1 to 32; a mean is exact to ``2 * clip / (2**bits - 1)``.
        max_weight: the largest ``num-examples`` of a client.
        dropout: planned share of the cohort that vanishes in a round; more, and the round fails with nothing revealed.
        corrupt: planned share of the cohort that colludes with the server.
        min_clients: the smallest cohort that a round is begun with; the rates may ask for more (docs/flower.md).
        protocol: any registered protocol's name; by default pairwise masks over a graph that is sparse from 40 clients
            on where that is safe.
        sums: how many rounds one key is to serve, where the protocol has a key that lasts; None leaves that to it.
        metrics: metrics of the train replies that are averaged securely, each with its largest magnitude (beyond it the
            value is cut); all others never leave the client.
        weighted_by: the metric that weights a client, as the strategy's ``weighted_by_key``.
        pipelined: whether the keys of the next round ride on the last reply of this one, which saves an exchange a
            round, where the protocol begins with keys. They are advertised before the next model exists, so they are
            not bound to it: in the semi-honest model alone. That clients were sent different models shows only where
            the server invites to a further round, and even then they are in the sum.

    Raises:
        ParameterError: an argument lies outside its range.
    """

    clip: float = 3.0
    bits: int = 16
    max_weight: int = 1 << 16
    dropout: float = PLANNED_DROPOUT
    corrupt: float = PLANNED_CORRUPT
    min_clients: int = 3
    protocol: str = DEFAULT_PROTOCOL
    sums: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    weighted_by: str = "num-examples"
    pipelined: bool = False

    def __post_init__(self) -> None:
        FixedPoint(clip=self.clip, bits=self.bits)
        checked_integer("min_clients", self.min_clients, 2, MAX_CLIENTS)
        checked_integer("max_weight", self.max_weight, 1, MAX_WEIGHT)
        for name in ("dropout", "corrupt"):
            checked_rate(name, getattr(self, name))
        if self.sums is not None:
            checked_integer("sums", self.sums, 1, _MOST_SUMS)
        if not isinstance(self.weighted_by, str) or not isinstance(self.pipelined, bool):
            raise ParameterError("weighted_by is a metric's name, and pipelined is true or false")
        wing = self.wing
        if self.pipelined and not wing.keys_ahead:
            raise ParameterError(f"{self.protocol} has no stage of keys before its inputs, so nothing can be pipelined")
        if not isinstance(self.metrics, Mapping) or not all(isinstance(name, str) for name in self.metrics):
            raise ParameterError("metrics map names to their largest magnitudes")
        bounds = {name: checked_real(f"the bound of metric {name!r}", self.metrics[name]) for name in self.metrics}
        if any(not (bound > 0 and math.isfinite(bound)) for bound in bounds.values()):
            raise ParameterError("the bounds of metrics must be positive and finite")
        if self.weighted_by in bounds or CLIPPED in bounds:
            raise ParameterError(f"{self.weighted_by!r} and {CLIPPED!r} are summed anyway: leave them out of metrics")
        object.__setattr__(self, "metrics", dict(sorted(bounds.items())))

    @property
    def wing(self) -> Protocol:
        """The protocol, as the registry has it.

        Raises:
            ParameterError: no protocol of this name is registered.
        """
        return protocol_named(self.protocol)

    def extra_coordinates(self) -> int:
        """Return how many coordinates follow the model's."""
        return OWN_METRICS + len(self.metrics)

    def plan(self, *, clients: int, dimension: int, threat: Threat) -> Any:
        """Plan a round for a cohort and a model of ``dimension`` coordinates.

        Raises:
            ParameterError: the cohort is too small for these rates, or the sum does not fit.
        """
        if clients < self.min_clients:
            raise ParameterError(f"{clients} clients are invited, and at least {self.min_clients} were agreed on")
        self.check_threat(threat)
        asked = {
            "clients": clients,
            "dimension": dimension + self.extra_coordinates(),
            "encoding": FixedPoint(clip=self.clip, bits=self.bits),
            "max_weight": self.max_weight,
            "dropout": self.dropout,
            "corrupt": self.corrupt,
            "threat": threat,
        }
        params = self.wing.plan(self.protocol, **asked, **({} if self.sums is None else {"sums": self.sums}))
        if threat == "malicious-server" and params.threat != threat:
            raise ParameterError(f"{self.protocol} withstands no malicious server")
        return params

    def check_threat(self, threat: Threat) -> None:
        """Raise ParameterError where a threat model is none, or these terms do not hold in it."""
        check_choice("threat", threat, get_args(Threat))
        if self.pipelined and threat == "malicious-server":
            raise ParameterError("pipelined rounds are not bound to their model, which a malicious server would abuse")

    def context(self, content: bytes) -> bytes:
        """Return the context of a round about a train message, by its digest, on these terms.

        What the parameters do not hold (which metrics follow the model, what weights) differs with it.
        """
        terms = [self.weighted_by, *(f"{name!r} {bound!r}" for name, bound in self.metrics.items())]
        return hashlib.sha256(content + repr(terms).encode()).digest()

    def following(self, content: bytes, session_id: bytes) -> bytes:
        """Return what stands for the train message's digest in a pipelined round: a digest of the round before."""
        return hashlib.sha256(b"secagg pipelined" + content + session_id).digest()

    def agreed(self, proposed: bytes, *, threat: Threat, cohort: int | None = None) -> Any:
        """Return the parameters of a round that a server proposes, encoded: all but two sizes must be as agreed.

        The parameters are planned here, for the cohort's and the model's size that the proposal names. Nothing else
        that it says is worked with, so no proposal costs more than a plan; what it holds is compared, never proved.

        Args:
            proposed: what the server sent.
            threat: the model that this client insists on.
            cohort: how many clients this client's directory holds, where it has one.

        Raises:
            ServerFault: it is another; the text names what differs.
        """
        wing = self.wing
        try:
            said = wing.read_unproved(proposed)
        except DecodeError as problem:
            told = f"{problem}; this client agreed to protocol {self.protocol}"
            raise ServerFault(f"the proposed round was not agreed to: {told}") from None
        try:
            if cohort is not None and said["clients"] != cohort:
                raise ParameterError(f"{said['clients']} clients are invited, and this node's directory holds {cohort}")
            dimension = said["dimension"] - self.extra_coordinates()
            if dimension < 0:
                raise ParameterError(f"a vector of {said['dimension']} coordinates holds no model")
            agreed = self.plan(clients=said["clients"], dimension=dimension, threat=threat)
        except ParameterError as problem:
            raise ServerFault(f"the proposed round was not agreed to: {problem}") from None
        if agreed.encode() == proposed:
            return agreed
        own = wing.read_unproved(agreed.encode())
        differing = [name for name in own if said.get(name) != own[name]]
        if not differing:
            raise ServerFault("the server proposes the agreed parameters in other bytes than their own")
        told = "; ".join(f"{name} {said.get(name)}, this client agreed to {own[name]}" for name in differing)
        raise ServerFault(f"the server proposes {told}")


CLIPPED = "secagg-clipped"
"""The metric that tells the server how much was clipped: the cohort's mean share of coordinates, 0 to 1."""
