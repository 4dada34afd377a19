"""Sessions as bytes, and the checks that bytes pass before a session is built from them."""

from __future__ import annotations

from typing import Any

from secagg import snapshot
from secagg.encoding.fixed_point import FixedPoint
from secagg.errors import DecodeError
from secagg.pairwise import client_states, server_states
from secagg.pairwise.graph import CompleteGraph, HararyGraph
from secagg.pairwise.messages import Kind, Roster
from secagg.pairwise.params import RoundParams
from secagg.pairwise.shapes import check_client_shapes, check_server_shapes
from secagg.primitives.randomness import Randomness
from secagg.session.client import Progress
from secagg.session.context import check_saved_context
from secagg.snapshot import SavedState
from secagg.wire import ID_BYTES, SERVER, Buffer

ServerFields = tuple[server_states.Round, server_states.ServerState]

_SHARED = (RoundParams, FixedPoint, Roster)
_CLIENT = (
    client_states.Party,
    client_states.Release,
    client_states.Place,
    client_states.Idle,
    client_states.Advertised,
    client_states.Fixed,
    client_states.Shared,
    client_states.Ready,
    client_states.Masked,
    client_states.Checked,
    client_states.Released,
)
_SERVER = (
    CompleteGraph,
    HararyGraph,
    server_states.Round,
    server_states.Session,
    server_states.Signed,
    server_states.CollectingKeys,
    server_states.CollectingShares,
    server_states.CollectingInputs,
    server_states.CollectingConsistency,
    server_states.CollectingUnmask,
    server_states.Finished,
    server_states.Aborted,
)
_CLIENT_TYPES = snapshot.known_types(*_SHARED, *_CLIENT)
_SERVER_TYPES = snapshot.known_types(*_SHARED, *_SERVER)
_CLIENT_PURPOSE, _SERVER_PURPOSE = b"pairwise/client", b"pairwise/server"


def save_client(
    party: client_states.Party, progress: Progress, *, seal_key: bytes | None, randomness: Randomness
) -> SavedState:
    """Write a client session's fields."""
    named = {Kind(kind).name: answer for kind, answer in progress.answers.items()}
    return snapshot.save(
        (party, progress.state, named, progress.clipped),
        known=_CLIENT_TYPES,
        purpose=_CLIENT_PURPOSE,
        seal_key=seal_key,
        randomness=randomness,
    )


def load_client(saved: Buffer, *, seal_key: bytes | None) -> tuple[client_states.Party, Progress]:
    """Read what ``save_client`` wrote.

    Raises:
        DecodeError: the bytes are damaged, of another version or side, or sealed under another key.
    """
    loaded: Any = snapshot.load(saved, known=_CLIENT_TYPES, purpose=_CLIENT_PURPOSE, seal_key=seal_key)
    if not isinstance(loaded, tuple) or len(loaded) != 4 or not isinstance(loaded[2], dict):
        raise DecodeError("a saved state's fields are not a client session's")
    party, state, named, clipped = loaded
    fits = isinstance(party, client_states.Party) and isinstance(state, client_states.ClientState)
    fits = fits and isinstance(clipped, float | None)
    fits = fits and all(name in Kind.__members__ and _is_answer(answer) for name, answer in named.items())
    if not fits or not 0 <= party.client_id < SERVER or len(party.context) != ID_BYTES:
        raise DecodeError("a saved state's fields are not a client session's")
    check_saved_context(party.context, required=party.params.threat == "malicious-server")
    check_client_shapes(party, state)
    answers: dict[int, tuple[bytes, bytes | None]] = {Kind[name]: answer for name, answer in named.items()}
    return party, Progress(state=state, answers=answers, clipped=clipped)


def _is_answer(answer: object) -> bool:
    if not isinstance(answer, tuple) or len(answer) != 2:
        return False
    return isinstance(answer[0], bytes) and isinstance(answer[1], bytes | None)


def save_server(fields: ServerFields, *, seal_key: bytes | None, randomness: Randomness) -> SavedState:
    """Write a server session's fields."""
    return snapshot.save(fields, known=_SERVER_TYPES, purpose=_SERVER_PURPOSE, seal_key=seal_key, randomness=randomness)


def load_server(saved: Buffer, *, seal_key: bytes | None) -> ServerFields:
    """Read what ``save_server`` wrote.

    Raises:
        DecodeError: the bytes are damaged, of another version or side, or sealed under another key.
    """
    loaded: Any = snapshot.load(saved, known=_SERVER_TYPES, purpose=_SERVER_PURPOSE, seal_key=seal_key)
    if not isinstance(loaded, tuple) or len(loaded) != 2:
        raise DecodeError("a saved state's fields are not a server session's")
    current, state = loaded
    if not isinstance(current, server_states.Round) or not isinstance(state, server_states.ServerState):
        raise DecodeError("a saved state's fields are not a server session's")
    check_saved_context(current.context, required=current.params.threat == "malicious-server")
    check_server_shapes(current, state)
    return current, state
