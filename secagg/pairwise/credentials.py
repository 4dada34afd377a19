"""What parties of a pairwise round bring besides parameters, checked: identities, and what a client released before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secagg.errors import InputError
from secagg.identity import Directory, Identity
from secagg.pairwise.client_states import Release
from secagg.pairwise.params import RoundParams


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairwiseCredentials:
    """What a client of a pairwise round brings. Where it has released nothing before, its ``Identity`` alone serves.

    Attributes:
        identity: its signing key and the directory that it pins; in the malicious-server model, and only there. The
            directory holds exactly the round's clients.
        earlier: what its sessions released before (``release``). One that was for the same context makes it refuse
            survivors that differ from it by fewer than A + 2 clients, since the two sums would tell about one of them;
            without it nothing of the kind is refused.
    """

    identity: Identity | None = None
    earlier: Iterable[Release] = ()


def client_credentials(given: object) -> PairwiseCredentials:
    """Return a client's credentials, however they were given.

    Raises:
        InputError: they are of another protocol.
    """
    if given is None or isinstance(given, Identity):
        return PairwiseCredentials(identity=given)
    if not isinstance(given, PairwiseCredentials):
        raise InputError(
            "a client of a pairwise round takes an Identity or PairwiseCredentials as its credentials, or None, got "
            f"{type(given).__name__}"
        )
    return given


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


def server_directory(params: RoundParams, ids: NDArray[np.uint64], directory: object) -> bytes:
    """Return the digest of the directory that a server was given as its credentials, empty in the semi-honest model.

    Raises:
        InputError: it is missing, out of place, or not of exactly these ids.
    """
    if params.threat == "semi-honest":
        if directory is not None:
            raise InputError("a directory serves the malicious-server model only; the parameters are semi-honest")
        return b""
    if not isinstance(directory, Directory):
        raise InputError("the malicious-server model takes a directory of the clients' identities")
    if list(directory) != ids.tolist():
        raise InputError("the directory must hold exactly the roster's clients")
    return directory.digest()
