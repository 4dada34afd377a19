"""What a node keeps to itself: who it is, where its states lie, and under which key they are sealed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from flwr.app import Context

from secagg.errors import DecodeError, InputError
from secagg.identity import Directory, Identity
from secagg.identity_files import kind_of, read_directory, read_seal_key, read_signing_key
from secagg.protocol import Protocol

KEY, DIRECTORY, DIGEST = "secagg-key", "secagg-directory", "secagg-directory-digest"
STATE, SEAL_KEY = "secagg-state", "secagg-seal-key"
OWN = frozenset({KEY, DIRECTORY, DIGEST, STATE, SEAL_KEY})
PREFIX = "secagg-"
"""What every setting of a node's begins with; those that are not ``OWN`` name a protocol's material."""

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSecrets:
    """A node's own settings, none of them the server's to choose.

    Attributes:
        identity: its signing key and the directory that it pins; None in the semi-honest model.
        state: the directory on this node's disk that holds its states between messages, each consumed once; None
            keeps them in Flower's ``context.state``.
        seal_key: 32 bytes that states are sealed under; None leaves them in the clear.
        material: files that the protocol needs besides, by the names of ``Protocol.node_material``; a setting of a
            node's is named by ``secagg-`` and that.
    """

    identity: Identity | None = None
    state: Path | None = None
    seal_key: bytes | None = None
    material: Mapping[str, Path] = field(default_factory=dict)

    def __repr__(self) -> str:
        known, sealed = self.identity is not None, self.seal_key is not None
        return f"<NodeSecrets: identity {known}, state {self.state}, sealed {sealed}, files {sorted(self.material)}>"

    def credentials(self, protocol: Protocol, params: Any, *, identified: bool) -> Any:
        """Return what this node's session takes as its credentials.

        Args:
            protocol: whose session it is.
            params: what the round runs with.
            identified: whether clients have identities in it.

        Raises:
            InputError: something is missing here, which is named.
            DecodeError: a file does not hold what it should.
        """
        needed = protocol.node_material(params)
        missing = [f"{PREFIX}{name}" for name in needed if name not in self.material]
        if identified and self.identity is None:
            missing.insert(0, KEY)
        if missing:
            raise InputError(
                f"{params.protocol} ({params.threat}) needs {', '.join(missing)}, which this node's own configuration "
                "does not name"
            )
        material = {name: _read(read, self.material[name], f"{PREFIX}{name}") for name, read in needed.items()}
        try:
            return protocol.client_credentials(params, self.identity if identified else None, material)
        except DecodeError as problem:
            named = " and ".join(f"{PREFIX}{name}" for name in needed)
            raise DecodeError(f"the files that {named} name do not serve: {problem}") from None


def node_from_config(context: Context) -> NodeSecrets:
    """Read a node's settings from its own configuration (``flower-supernode --node-config``).

    ``secagg-key`` is the file of its signing key. Its directory is the file that ``secagg-directory`` names, or, where
    the node has ``secagg-directory-digest`` instead, the text of the run's own ``secagg-directory`` if that has this
    digest. ``secagg-state`` is a directory for its states, ``secagg-seal-key`` the file of the key that seals them.
    A node with a signing key must have ``secagg-state``: Flower saves ``context.state`` only after a reply has left.
    Any other setting of the form ``secagg-...`` is the file of what a protocol needs besides.

    Raises:
        InputError: settings are missing or do not fit together.
        DecodeError: a file does not hold what it should.
    """
    own = context.node_config
    state = Path(str(own[STATE])) if STATE in own else None
    seal_key = _read(read_seal_key, own[SEAL_KEY], SEAL_KEY) if SEAL_KEY in own else None
    material = {
        name.removeprefix(PREFIX): Path(str(value))
        for name, value in own.items()
        if name.startswith(PREFIX) and name not in OWN
    }
    if KEY not in own:
        if DIRECTORY in own or DIGEST in own:
            raise InputError(f"this node's configuration pins a directory but names no {KEY}")
        return NodeSecrets(state=state, seal_key=seal_key, material=material)
    if state is None:
        raise InputError(f"a node with {KEY} needs {STATE} too: a directory where each state is durable and used once")
    identity = Identity(key=_read(read_signing_key, own[KEY], KEY), directory=_directory(context))
    return NodeSecrets(identity=identity, state=state, seal_key=seal_key, material=material)


def _directory(context: Context) -> Directory:
    own = context.node_config
    if DIRECTORY in own:
        return _read(read_directory, own[DIRECTORY], DIRECTORY)
    if DIGEST not in own:
        raise InputError(
            f"this node's own configuration must pin the cohort: {DIGEST} (secagg identity directory prints it) or "
            f"{DIRECTORY}. What the run's configuration says is the server's choice"
        )
    if DIRECTORY not in context.run_config:
        raise InputError(f"the run's configuration holds no {DIRECTORY}")
    try:
        pinned = bytes.fromhex(str(own[DIGEST]))
    except ValueError:
        raise InputError(f"{DIGEST} is no digest: secagg identity directory prints it, 64 hexadecimal digits") from None
    return Directory.from_json(str(context.run_config[DIRECTORY]), pinned=pinned)


def _read(read: Callable[[Path], Read], value: object, name: str) -> Read:
    """Read a file; errors name the setting and not the path, which is this node's own: they go to the server."""
    path = Path(str(value))
    if not path.is_file():
        raise DecodeError(f"the file that {name} names is not there")
    try:
        return read(path)
    except (DecodeError, InputError):
        kind = kind_of(path)
        raise DecodeError(
            f"the file that {name} names does not hold what it should: it looks like {kind}, and may be damaged"
        ) from None
    except OSError as problem:
        raise DecodeError(f"the file that {name} names cannot be read: {type(problem).__name__}") from None
