"""A client's tables in a homomorphic sum, one for each holder of the key, and the steps that they name.

They drive ``HEClientSession``, and SPEC "Homomorphic sums" shows them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secagg.arguments import check_threads
from secagg.errors import LocalProtocolError, ServerFault, TooFewClients
from secagg.he.ciphertexts import pack_residues, unpack_residues
from secagg.he.collection import session_of
from secagg.he.credentials import HECredentials
from secagg.he.keys import PublicKey, check_signature
from secagg.he.messages import HE_STAGES, EncryptedSum, HEKind, Opening, ReleasedSum, sum_digest
from secagg.he.params import HEParams
from secagg.he.slots import exact_slots, real_slots
from secagg.identity import SIGNATURE_BYTES
from secagg.primitives.prg import MASK_KEY_BYTES
from secagg.primitives.randomness import Randomness, draw
from secagg.session.client import Vector
from secagg.session.keeping import Pending
from secagg.session.table import ClientRow, ClientTable, Later, Local, Taken
from secagg.wire import SERVER, Header


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Idle:
    """Before any message."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Opened:
    """The opening was taken in; the vector is awaited."""

    session: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Uploaded:
    """The upload is out; where the clients hold the key, the encrypted sum is awaited."""

    session: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Summed:
    """The sum is decrypted; ``released`` is it, encoded as a decryptor's release is."""

    session: bytes
    released: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Turn:
    """What a step may know: what this client pins, its state, where randomness comes from, and the row's reply."""

    params: HEParams
    client_id: int
    context: bytes
    credentials: HECredentials
    public_key: PublicKey
    state: Any
    randomness: Randomness
    announced: bytes
    reply: int | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SumToDecrypt:
    """An encrypted sum, checked for its form."""

    message: EncryptedSum
    residues: NDArray[np.uint64]


def client_table(params: HEParams) -> ClientTable:
    """Return the rows of a sum by who holds the key."""
    return DECRYPTOR_DECRYPTS if params.key_holder == "decryptor" else CLIENTS_DECRYPT


def _read_opening(turn: Turn, body: memoryview) -> Opening:
    decryptor = turn.credentials.decryptor
    if decryptor is None:
        return Opening.decode(body)
    signature, body = bytes(body[-SIGNATURE_BYTES:]), body[:-SIGNATURE_BYTES]
    opening = Opening.decode(body)
    check_signature(decryptor, Header(kind=HEKind.OPENING, sender=SERVER, session=turn.announced), body, signature)
    return opening


def _open(turn: Turn, opening: Opening) -> Taken:
    credentials = turn.credentials
    if opening.key_id != turn.public_key.key_id:
        raise ServerFault("the opening names another key")
    session = session_of(turn.params, turn.context, opening, credentials.identity.directory, credentials.decryptor)
    if turn.announced != session:
        raise ServerFault(
            "the opening is of another session: parameters, context, directory or decryptor differ from this client's"
        )
    return Taken(state=Opened(session=session))


def _encrypt(turn: Turn, vector: Vector) -> Taken:
    check_threads(vector.threads)
    params, slots = turn.params, _slots(turn, vector)
    encryptor = turn.public_key.encryptor()
    residues = np.stack([encryptor.encrypt(one) for one in slots[0]])
    header = Header(kind=turn.reply or 0, sender=turn.client_id, session=turn.state.session)
    body = pack_residues(residues, params.chain.data_primes)
    upload = b"".join((header.encode(), body, turn.credentials.identity.sign(header, body)))
    return Taken(state=Uploaded(session=turn.state.session), reply=upload, clipped=slots[1])


def _slots(turn: Turn, vector: Vector) -> tuple[NDArray[Any], float]:
    if turn.params.protocol == "bfv":
        return exact_slots(vector.values, vector.weight, turn.params, draw(turn.randomness, MASK_KEY_BYTES))
    return real_slots(vector.values, vector.weight, turn.params)


def _read_sum(turn: Turn, body: memoryview) -> SumToDecrypt:
    params, chain = turn.params, turn.params.chain
    message = EncryptedSum.decode(body, params)
    packed = memoryview(message.ciphertexts)
    return SumToDecrypt(
        message=message, residues=unpack_residues(packed, chain.data_primes, params.ciphertexts, chain.degree)
    )


def _decrypt(turn: Turn, encrypted: SumToDecrypt) -> Taken | Later:
    params, members, session = turn.params, encrypted.message.members, turn.state.session
    key = turn.credentials.key
    survivors = int(members.sum())
    if survivors < params.minimum_survivors:
        raise TooFewClients(survivors, params.minimum_survivors, "too few uploads for a sum")
    if not members[list(turn.credentials.identity.directory).index(turn.client_id)]:
        raise ServerFault("the sum leaves this client's upload out")
    if key is None:
        raise LocalProtocolError("this client has no key to decrypt with")
    summed = sum_digest(session, members, encrypted.message.ciphertexts)

    def released(values: NDArray[Any]) -> Taken:
        return Taken(state=Summed(session=session, released=ReleasedSum(members=members, values=values).encode(params)))

    values = key.release(encrypted.residues, survivors, session, summed)
    return Later(pending=values, go_on=released) if isinstance(values, Pending) else released(values)


DECRYPTOR_DECRYPTS: ClientTable = {
    (Idle, HEKind.OPENING): ClientRow(read=_read_opening, step=_open, next=Opened, reply=None, stage=HE_STAGES[0]),
    (Opened, Local.VECTOR): ClientRow(
        read=None, step=_encrypt, next=Uploaded, reply=HEKind.UPLOAD, stage=HE_STAGES[0], answers=HEKind.OPENING
    ),
}
"""Where a decryptor holds the key, a client is done when it has sent its upload."""

CLIENTS_DECRYPT: ClientTable = {
    **DECRYPTOR_DECRYPTS,
    (Uploaded, HEKind.ENCRYPTED_SUM): ClientRow(
        read=_read_sum, step=_decrypt, next=Summed, reply=None, stage=HE_STAGES[1]
    ),
}
"""Where the clients hold it, each that sent decrypts the sum."""
