"""All parties of a homomorphic sum driven by hand."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

import secagg
from cohort import identities
from secagg import DecryptionKey, DecryptorSession, HEClientSession, HEParams, HEServerSession, PublicKey, SigningKey

DECRYPTOR = SigningKey(bytes(range(32)))
CONTEXT = b"model 1"


def plan(clients: int = 3, dimension: int = 9, **overrides: object) -> HEParams:
    """Parameters with no tolerance unless it is asked for."""
    arguments: dict[str, object] = {
        "encoding": secagg.FixedPoint(clip=1.0, bits=16),
        "dropout": 0.0,
        "corrupt": 0.0,
    }
    return HEParams.plan(clients=clients, dimension=dimension, **(arguments | overrides))  # type: ignore[arg-type]


@functools.cache
def key_pair(params: HEParams) -> bytes:
    """A saved key for these parameters: making one takes longer than anything else in most tests."""
    return DecryptionKey.generate(params).save()


class Federation:
    """Clients 0 to n - 1, the aggregator, and a decryptor if there is one; ``context`` and ``key`` may be others."""

    def __init__(self, params: HEParams, *, context: bytes = CONTEXT, key: DecryptionKey | None = None) -> None:
        self.params, self.context = params, context
        self.key = key or DecryptionKey.restore(key_pair(params))
        self.identities = identities(range(params.clients))
        self.directory = self.identities[0].directory
        self.decryptor: DecryptorSession | None = None
        if params.key_holder == "decryptor":
            self.decryptor = DecryptorSession(params, self.key, self.directory, signing_key=DECRYPTOR, context=context)
            self.server = HEServerSession(
                params,
                self.directory,
                context=context,
                opening=self.decryptor.opening,
                decryptor=DECRYPTOR.public,
            )
        else:
            self.server = HEServerSession(params, self.directory, context=context, key_id=self.key.public.key_id)
        self.clients = {one: self.client(one) for one in range(params.clients)}

    def client(self, one: int, **overrides: object) -> HEClientSession:
        """A new session of client ``one``."""
        keys: dict[str, object] = {"key": self.key}
        if self.params.key_holder == "decryptor":
            public = PublicKey.open(self.key.public.message(DECRYPTOR), self.params, DECRYPTOR.public)
            keys = {"public_key": public, "decryptor": DECRYPTOR.public}
        arguments = {"context": self.context, "identity": self.identities[one]} | keys | overrides
        return HEClientSession(self.params, one, **arguments)  # type: ignore[arg-type]

    def upload(self, one: int, vector: np.ndarray, weight: int = 1) -> bytes:
        """What client ``one`` sends."""
        self.clients[one].receive(self.server.requests()[one])
        return self.clients[one].submit(vector, weight).payload

    def send(self, one: int, payload: bytes) -> None:
        """Give an upload to the aggregator, and to the decryptor if that took it."""
        self.server.receive(one, payload)
        if self.decryptor is not None:
            self.decryptor.receive(one, payload)

    def collect(self, vectors: np.ndarray, weights: Sequence[int] | None = None, absent: Sequence[int] = ()) -> None:
        """Have everybody send who is not absent."""
        for one, vector in enumerate(vectors):
            if one not in absent:
                self.send(one, self.upload(one, vector, weights[one] if weights else 1))

    def finish(self) -> secagg.ExactSum | secagg.ApproximateSum:
        """Close the sum and return it."""
        sums = self.server.advance()
        if self.decryptor is not None:
            self.server.accept_release(self.decryptor.release(self.server.release_request))
            return self.server.result
        one = min(sums)
        self.clients[one].receive(sums[one])
        return self.clients[one].result


def vectors_of(params: HEParams, seed: int = 1) -> np.ndarray:
    """Values within 1: float64[n, d]."""
    return np.random.default_rng(seed).uniform(-1, 1, (params.clients, params.dimension))
