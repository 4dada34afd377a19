"""A whole homomorphic sum in one process: the real sessions of all parties over their encoded bytes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from secagg.errors import InputError
from secagg.he.client_session import HEClientSession
from secagg.he.decryptor_session import DecryptorSession
from secagg.he.keys import DecryptionKey, PublicKey
from secagg.he.messages import STAGES
from secagg.he.params import HEParams
from secagg.he.result import Sum
from secagg.he.server_session import HEServerSession
from secagg.identity import Directory, Identity
from secagg.primitives.signature import SigningKey


class Timed(Protocol):
    """Runs a call and puts its time down to a stage; ``server`` says that the aggregator pays for it."""

    def __call__(self, stage: str, server: bool, call: Callable[..., Any], *args: Any) -> Any:
        """Return what the call returns."""


@dataclass(slots=True, kw_only=True, eq=False)
class Seen:
    """What a run of ``run_sum`` saw besides the sum.

    Attributes:
        bytes_up: stage -> the most bytes that one client sent in it.
        bytes_down: stage -> the most bytes that one client was sent in it, the public key where it was new.
        clipped: client -> share of its coordinates that were clipped.
    """

    bytes_up: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))
    bytes_down: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))
    clipped: dict[int, float] = field(default_factory=dict)


def run_sum(
    params: HEParams,
    vectors: Iterator[NDArray[np.floating]],
    weights: Sequence[int],
    absent: Collection[int],
    *,
    context: bytes,
    key: DecryptionKey | None,
    timed: Timed,
) -> tuple[Sum, Seen]:
    """Run a sum among clients 0 to n - 1; those that are absent never send.

    Where the clients hold the key, the first survivor's decryption is the result: the others' are the same to the bit.

    Args:
        params: what the sum runs with.
        vectors: one for each client in order; an absent client's is taken and left.
        weights: one for each client.
        absent: who sends nothing.
        context: what the sum is about.
        key: to go on with, known to the clients already; a new one if None.
        timed: takes the time of each party's calls.

    Raises:
        TooFewClients: too many are absent; nothing was revealed.
        InputError: an argument is not as described.
        LocalProtocolError: the key's budget is spent, or it is retired.
    """
    if key is not None and (not isinstance(key, DecryptionKey) or key.params != params):
        raise InputError("the key is for other parameters")
    seen, fresh = Seen(), key is None
    secret = DecryptionKey.generate(params) if key is None else key
    parties = _Parties(params, secret, context)
    if fresh and parties.announced is not None:
        seen.bytes_down[STAGES[0]] += len(parties.announced)
    requests = parties.server.requests()
    seen.bytes_down[STAGES[0]] += len(requests[0])
    for one, vector in zip(range(params.clients), vectors, strict=False):
        if one in absent:
            continue
        client = parties.client(one)
        timed(STAGES[0], False, client.receive, requests[one])
        upload = timed(STAGES[0], False, client.submit, vector, weights[one]).payload
        timed(STAGES[0], True, parties.server.receive, one, upload)
        if parties.decryptor is not None:
            timed(STAGES[0], False, parties.decryptor.receive, one, upload)
        elif parties.first is None:
            parties.first = client
        seen.bytes_up[STAGES[0]] = max(seen.bytes_up[STAGES[0]], len(upload))
        seen.clipped[one] = client.clipped or 0.0
    return parties.finish(timed, seen), seen


class _Parties:
    """All parties of one sum; clients are made as they take part, so that one upload at a time is in memory."""

    def __init__(self, params: HEParams, key: DecryptionKey, context: bytes) -> None:
        signing = {one: SigningKey.generate() for one in range(params.clients)}
        self._directory = Directory({one: each.public for one, each in signing.items()})
        self._params, self._key, self._context, self._signing = params, key, context, signing
        self.decryptor: DecryptorSession | None = None
        self.announced: bytes | None = None
        self.first: HEClientSession | None = None
        self._keys: dict[str, Any] = {"key": key}
        if params.key_holder == "clients":
            key.check_usable()
            self.server = HEServerSession(params, self._directory, context=context, key_id=key.public.key_id)
            return
        own = SigningKey.generate()
        self.decryptor = DecryptorSession(params, key, self._directory, signing_key=own, context=context)
        self.server = HEServerSession(
            params, self._directory, context=context, opening=self.decryptor.opening, decryptor=own.public
        )
        self.announced = key.public.message(own)
        self._keys = {"public_key": PublicKey.open(self.announced, params, own.public), "decryptor": own.public}

    def client(self, one: int) -> HEClientSession:
        """Return a session of client ``one``."""
        identity = Identity(key=self._signing[one], directory=self._directory)
        return HEClientSession(self._params, one, context=self._context, identity=identity, **self._keys)

    def finish(self, timed: Timed, seen: Seen) -> Sum:
        """Close the sum and have it released."""
        sums: Mapping[int, bytes] = timed(STAGES[1], True, self.server.advance)
        if self.decryptor is not None:
            request = timed(STAGES[1], True, lambda: self.server.release_request)
            answer = timed(STAGES[1], False, self.decryptor.release, request)
            timed(STAGES[1], True, self.server.accept_release, answer)
            return self.server.result
        if self.first is None:  # pragma: no cover - a sum that closes has survivors
            raise InputError("nobody took part")
        seen.bytes_down[STAGES[1]] = len(sums[self.first.client_id])
        timed(STAGES[1], False, self.first.receive, sums[self.first.client_id])
        return self.first.result
