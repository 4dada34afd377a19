"""What a client pins before a round, checked: the directory that it believes in, and what it released before."""

from __future__ import annotations

from collections.abc import Iterable

from secagg.errors import InputError
from secagg.identity import Identity
from secagg.pairwise.client_states import Release
from secagg.pairwise.params import RoundParams


def checked_releases(earlier: Iterable[Release]) -> tuple[Release, ...]:
    """Return what earlier sessions released.

    Raises:
        InputError: it is something else.
    """
    releases = tuple(earlier) if isinstance(earlier, Iterable) else ()
    if not isinstance(earlier, Iterable) or not all(isinstance(one, Release) for one in releases):
        raise InputError("earlier must hold what the property 'release' of earlier sessions gave")
    return releases


def client_directory(params: RoundParams, client_id: int, identity: Identity | None) -> bytes:
    """Return the digest of an identity's directory, empty in the semi-honest model.

    Raises:
        InputError: the identity is missing or out of place, its directory is not of the round's size, or holds another
            key for this client.
    """
    if params.threat == "semi-honest":
        if identity is not None:
            raise InputError("an identity serves the malicious-server model only; the parameters are semi-honest")
        return b""
    if not isinstance(identity, Identity):
        raise InputError("the malicious-server model takes an identity: a signing key and the directory")
    if len(identity.directory) != params.clients:
        raise InputError(
            f"the directory must hold the round's {params.clients} clients, it holds {len(identity.directory)}"
        )
    if identity.directory.get(client_id) != identity.key.public:
        raise InputError("the directory holds another key for this client, or none")
    return identity.directory.digest()
