"""All parties of a homomorphic sum driven by hand."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

import secagg
from cohort import identities
from secagg import (
    IN_MEMORY,
    ClientSession,
    DecryptionKey,
    DecryptorSession,
    HECredentials,
    HEParams,
    HEServerCredentials,
    PublicKey,
    ServerSession,
    SigningKey,
)

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
    return DecryptionKey.generate(params, keep=IN_MEMORY).save(seal_key=None)


class Federation:
    """Clients 0 to n - 1, the aggregator, and a decryptor if there is one; ``context`` and ``key`` may be others."""

    def __init__(self, params: HEParams, *, context: bytes = CONTEXT, key: DecryptionKey | None = None) -> None:
        self.params, self.context = params, context
        self.key = key or DecryptionKey.restore(key_pair(params), keep=IN_MEMORY)
        self.identities = identities(range(params.clients))
        self.directory = self.identities[0].directory
        self.decryptor = self.new_decryptor() if params.key_holder == "decryptor" else None
        self.server = self.new_server()
        self.clients = {one: self.client(one) for one in range(params.clients)}

    def client_credentials(self, one: int, **overrides: object) -> HECredentials:
        """What client ``one`` brings."""
        given: dict[str, object] = {"identity": self.identities[one], "key": self.key}
        if self.decryptor is not None:
            public = PublicKey.open(self.key.public.message(DECRYPTOR), self.params, DECRYPTOR.public)
            given = {"identity": self.identities[one], "public_key": public, "decryptor": DECRYPTOR.public}
        return HECredentials(**(given | overrides))  # type: ignore[arg-type]

    def server_credentials(self, **overrides: object) -> HEServerCredentials:
        """What the aggregator brings."""
        given: dict[str, object] = {"directory": self.directory, "key_id": self.key.public.key_id}
        if self.decryptor is not None:
            given = {"directory": self.directory, "opening": self.decryptor.opening(), "decryptor": DECRYPTOR.public}
        return HEServerCredentials(**(given | overrides))  # type: ignore[arg-type]

    def client(self, one: int, **overrides: object) -> ClientSession:
        """A new session of client ``one``."""
        given: dict[str, object] = {"context": self.context, "credentials": self.client_credentials(one)}
        return ClientSession(self.params, one, **({"keep": IN_MEMORY} | given | overrides))  # type: ignore[arg-type]

    def new_server(self, **overrides: object) -> ServerSession:
        """A new session of the aggregator."""
        given: dict[str, object] = {"context": self.context, "credentials": self.server_credentials()}
        given = {"keep": IN_MEMORY} | given | overrides
        return ServerSession(self.params, self.directory, **given)  # type: ignore[arg-type]

    def new_decryptor(self, **overrides: object) -> DecryptorSession:
        """A new session of the decryptor, with the federation's key."""
        given = {"context": self.context, "signing_key": DECRYPTOR, "keep": IN_MEMORY} | overrides
        return DecryptorSession(self.params, self.key, self.directory, **given)  # type: ignore[arg-type]

    def restored_client(self, one: int, saved: bytes, **overrides: object) -> ClientSession:
        """Client ``one`` as it was saved, with what it has now."""
        given = {"credentials": self.client_credentials(one), "keep": IN_MEMORY} | overrides
        return ClientSession.restore(saved, one, **given)  # type: ignore[arg-type]

    def restored_server(self, saved: bytes, **overrides: object) -> ServerSession:
        """The aggregator as it was saved."""
        given = {"credentials": self.server_credentials(), "keep": IN_MEMORY} | overrides
        return ServerSession.restore(saved, **given)  # type: ignore[arg-type]

    def restored_decryptor(
        self, saved: bytes, key: DecryptionKey | None = None, **overrides: object
    ) -> DecryptorSession:
        """The decryptor as it was saved, with the federation's key or another."""
        given = {"signing_key": DECRYPTOR, "keep": IN_MEMORY} | overrides
        return DecryptorSession.restore(saved, key or self.key, self.directory, **given)  # type: ignore[arg-type]

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
            self.server.receive_from("decryptor", self.decryptor.release(self.server.party_requests()["decryptor"]))
            return self.server.result
        one = min(sums)
        self.clients[one].receive(sums[one])
        return self.clients[one].result


def vectors_of(params: HEParams, seed: int = 1) -> np.ndarray:
    """Values within 1: float64[n, d]."""
    return np.random.default_rng(seed).uniform(-1, 1, (params.clients, params.dimension))
