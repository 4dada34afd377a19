"""What parties of a homomorphic sum bring besides parameters: who they are, and the key's halves."""

from __future__ import annotations

from dataclasses import dataclass

from secagg.errors import InputError
from secagg.he.keys import DecryptionKey, PublicKey, check_decryptor
from secagg.he.params import HEParams
from secagg.identity import Directory, Identity
from secagg.wire import ID_BYTES, Buffer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HECredentials:
    """What a client brings.

    Attributes:
        identity: its signing key, and the directory of exactly the sum's clients.
        public_key: from ``PublicKey.open``, where a decryptor holds the key.
        decryptor: its pinned Ed25519 key (32 bytes), there.
        key: the secret key, where the clients hold it: a copy for each (``DecryptionKey.save``), sent as secrets are.
    """

    identity: Identity
    public_key: PublicKey | None = None
    decryptor: bytes | None = None
    key: DecryptionKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HEServerCredentials:
    """What the aggregator brings. It never holds a secret key.

    Attributes:
        directory: the clients' identities, exactly the cohort.
        opening: from ``DecryptorSession.opening``, where a decryptor holds the key; a saved session has it already.
        decryptor: its pinned Ed25519 key (32 bytes), there.
        key_id: of the public key (``PublicKey.key_id``), where the clients hold the secret one.
    """

    directory: Directory
    opening: Buffer | None = None
    decryptor: bytes | None = None
    key_id: bytes | None = None


def client_credentials(given: object, params: HEParams, client_id: int) -> tuple[HECredentials, PublicKey]:
    """Check what a client brings, and return it with the key that it encrypts under.

    Raises:
        InputError: something is missing, out of place, or of other parameters.
    """
    if not isinstance(given, HECredentials):
        raise InputError(f"a client of a homomorphic sum takes HECredentials, got {type(given).__name__}")
    if not isinstance(given.identity, Identity):
        raise InputError("a homomorphic sum takes an identity: a signing key and the directory")
    if checked_cohort(params, given.identity.directory).get(client_id) != given.identity.key.public:
        raise InputError("the directory holds another key for this client, or none")
    public_key = given.public_key
    if params.key_holder == "decryptor":
        if given.key is not None or not isinstance(public_key, PublicKey) or not isinstance(given.decryptor, bytes):
            raise InputError("where a decryptor holds the key, a client takes its public key and identity alone")
        check_decryptor(given.decryptor)
    elif not isinstance(given.key, DecryptionKey) or public_key is not None or given.decryptor is not None:
        raise InputError("where the clients hold the key, a client takes that key and no decryptor")
    else:
        public_key = given.key.public
    if public_key.params != params:
        raise InputError("the key is for other parameters")
    return given, public_key


def server_credentials(given: object, params: HEParams) -> HEServerCredentials:
    """Check what the aggregator brings, but for the opening's own bytes.

    Raises:
        InputError: something is missing or out of place.
    """
    if not isinstance(given, HEServerCredentials):
        raise InputError(f"the server of a homomorphic sum takes HEServerCredentials, got {type(given).__name__}")
    checked_cohort(params, given.directory)
    if params.key_holder == "decryptor":
        if given.key_id is not None or not isinstance(given.decryptor, bytes):
            raise InputError("where a decryptor holds the key, the server takes its opening and identity alone")
        check_decryptor(given.decryptor)
        return given
    if given.opening is not None or given.decryptor is not None:
        raise InputError("where the clients hold the key, there is no decryptor")
    if not isinstance(given.key_id, bytes) or len(given.key_id) != ID_BYTES:
        raise InputError(f"key_id must be the public key's {ID_BYTES} bytes")
    return given


def checked_cohort(params: HEParams, directory: Directory) -> Directory:
    """Return the directory.

    Raises:
        InputError: an argument is of another type, or the directory holds another number of clients.
    """
    if not isinstance(params, HEParams):
        raise InputError(f"params must be HEParams, got {type(params).__name__}")
    if not isinstance(directory, Directory):
        raise InputError(f"directory must be a Directory of the clients, got {type(directory).__name__}")
    if len(directory) != params.clients:
        raise InputError(f"the directory must hold the sum's {params.clients} clients, it holds {len(directory)}")
    return directory


def check_restored(*pins: tuple[str, bytes, bytes]) -> None:
    """Check that a session is restored with what it was built with: what each is called, what is given, what was saved.

    Raises:
        InputError: one differs.
    """
    for what, given, saved in pins:
        if given != saved:
            raise InputError(f"the saved session was built with another {what}")
