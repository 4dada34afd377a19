"""The parties of a simulated homomorphic sum."""

from __future__ import annotations

from secagg.errors import InputError
from secagg.he.credentials import HECredentials, HEServerCredentials
from secagg.he.decryptor_session import DecryptorSession
from secagg.he.keys import DecryptionKey, PublicKey
from secagg.he.params import HEParams
from secagg.he.server_session import DECRYPTOR
from secagg.identity import Directory, Identity
from secagg.primitives.signature import SigningKey
from secagg.session.client import ClientSession
from secagg.session.keeping import IN_MEMORY
from secagg.session.server import ServerSession
from secagg.simulation import FurtherParty, Parties


def parties_of(params: HEParams, context: bytes, key: DecryptionKey | None) -> Parties:
    """Return an aggregator, clients 0 to n - 1 with fresh identities, and a decryptor where one holds the key.

    Args:
        params: what the sum runs with.
        context: what it is about.
        key: to go on with, known to the clients already; a new one if None.

    Raises:
        InputError: the key is for other parameters.
        LocalProtocolError: its budget is spent, or it is retired.
    """
    if key is not None and (not isinstance(key, DecryptionKey) or key.params != params):
        raise InputError("the key is for other parameters")
    secret = DecryptionKey.generate(params, keep=IN_MEMORY) if key is None else key
    secret.check_usable()
    signing = {one: SigningKey.generate() for one in range(params.clients)}
    directory = Directory({one: each.public for one, each in signing.items()})

    def parties(aggregator: HEServerCredentials, further: dict[str, FurtherParty], **keys: object) -> Parties:
        def client(one: int) -> ClientSession:
            identity = Identity(key=signing[one], directory=directory)
            credentials = HECredentials(identity=identity, **keys)  # type: ignore[arg-type]
            return ClientSession(params, one, context=context, keep=IN_MEMORY, credentials=credentials)

        server = ServerSession(params, directory, context=context, keep=IN_MEMORY, credentials=aggregator)
        announced = len(secret.public.message(own)) if key is None and further else 0
        return Parties(server=server, client=client, further=further, announced=announced)

    own = SigningKey.generate()
    if params.key_holder == "clients":
        return parties(HEServerCredentials(directory=directory, key_id=secret.public.key_id), {}, key=secret)
    decryptor = DecryptorSession(params, secret, directory, signing_key=own, context=context, keep=IN_MEMORY)
    return parties(
        HEServerCredentials(directory=directory, opening=decryptor.opening(), decryptor=own.public),
        {DECRYPTOR: FurtherParty(receive=decryptor.receive, answer=decryptor.release)},
        public_key=PublicKey.open(secret.public.message(own), params, own.public),
        decryptor=own.public,
    )
