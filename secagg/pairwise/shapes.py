"""Whether a saved session's arrays have the shapes that its parameters give them, checked before any of them is used.

A state in the clear has a checksum against damage, none against whoever writes states. What is altered there must still
not run past an array's end, nor be worked with at a size of its writer's choice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from secagg.encoding.ring import lane_dtype
from secagg.errors import DecodeError
from secagg.pairwise import client_states, server_states
from secagg.pairwise.graph import CompleteGraph, HararyGraph
from secagg.pairwise.identifiers import CHANNEL_KEY_BYTES
from secagg.pairwise.messages import ADVERTISEMENT_BYTES, DIGEST_BYTES, FORMATS, PUBLIC_BYTES, Roster
from secagg.pairwise.params import RoundParams
from secagg.wire import ID_BYTES

_MEMBERS = ("received", "shared", "survivors", "asked", "advertised", "answered")
_OF_32_BYTES = ("round_id", "session_id", "nonce", "ring_seed", "context", "channel_secret", "mask_secret", "seed")
_OF_32_BYTES_OR_NONE = ("directory", "beacon", "accepted")


def check_server_shapes(current: server_states.Round, state: server_states.ServerState) -> None:
    """Check a server's saved fields against its parameters.

    Raises:
        DecodeError: an array, a graph or a digest is of another size.
    """
    params, form = current.params, FORMATS[current.params.threat]
    n, k, values = params.clients, params.neighbours, (params.dimension + 1,)
    shapes: dict[str, tuple[tuple[int, ...], ...]] = dict.fromkeys(_MEMBERS, ((n,),))
    shapes |= {"accumulator": (values,), "words": (values,), "entries": ((n, form.entry_bytes),)}
    relayed = isinstance(state, server_states.CollectingUnmask) and params.threat == "semi-honest"
    shapes |= {"sealed": ((0, 0, 0) if relayed else (n, k, form.dealt_bytes),), "held": ((n, k, form.release_bytes),)}
    _expect(current.ids.shape == (n,) and _ascends(current.ids))
    _check_digests(current)
    fields = _fields(state)
    _check_arrays(fields, shapes)
    for name in ("accumulator", "words"):
        _expect(name not in fields or fields[name].dtype == lane_dtype(params.ring_bits))
    for name in ("shared", "survivors", "asked"):
        _expect(name not in fields or fields[name].any())
    if "roster" in fields:
        _check_roster(params, fields["roster"], form.entry_bytes)
        _check_digests(fields["session"], beacon=False)
        _check_signed(params, fields["signed"])
        awaited = isinstance(state, server_states.CollectingShares) and params.threat == "malicious-server"
        _expect(
            (fields["graph"] is None and awaited and params.graph == "harary") or _is_graph(params, fields["graph"])
        )


def check_client_shapes(party: client_states.Party, state: client_states.ClientState) -> None:
    """Check a client's saved fields against its parameters.

    Raises:
        DecodeError: an array, a position or a secret is of another size.
    """
    params, form = party.params, FORMATS[party.params.threat]
    n = params.clients
    fields = _fields(state)
    _check_digests(party)
    _check_digests(state)
    if isinstance(state, client_states.Released):
        _expect(state.survivors.ndim == 1 and state.survivors.size <= n)
        return
    _expect("position" not in fields or 0 <= fields["position"] < n)
    _expect("advertisement" not in fields or len(fields["advertisement"]) == ADVERTISEMENT_BYTES)
    shapes: dict[str, tuple[tuple[int, ...], ...]] = dict.fromkeys((*_MEMBERS, "ids"), ((n,),))
    if "roster" in fields:
        _check_roster(params, fields["roster"], form.entry_bytes)
    if "neighbours" in fields:
        row = fields["neighbours"]
        _expect(row.ndim == 1 and _ascends(row) and (row < n).all() and not (row == fields["position"]).any())
        shapes["shares"] = ((len(row), 2, form.release_bytes),)
        for name, size in (("opening_keys", CHANNEL_KEY_BYTES), ("mask_publics", PUBLIC_BYTES)):
            _expect(name not in fields or len(fields[name]) == size * len(row))
    _check_arrays(fields, shapes)


def _fields(state: Any) -> dict[str, Any]:
    """Return a state's fields, and those of what it nests, by name."""
    fields = {one.name: getattr(state, one.name) for one in dataclasses.fields(state)}
    for nested in ("session", "place"):
        if nested in fields:
            fields |= _fields(fields[nested])
    return fields


def _expect(fits: Any) -> None:
    if not fits:
        raise DecodeError("a saved state's fields are not of the sizes that its parameters give them")


def _ascends(values: NDArray[Any]) -> bool:
    return bool((values[1:] > values[:-1]).all())


def _check_arrays(fields: Mapping[str, Any], shapes: Mapping[str, tuple[tuple[int, ...], ...]]) -> None:
    for name, value in fields.items():
        _expect(name not in shapes or value.shape in shapes[name])


def _check_digests(holder: Any, *, beacon: bool = True) -> None:
    """Check what has 32 bytes, or none where it is of the other model; a server's ``beacon`` is its caller's own."""
    for name in _OF_32_BYTES:
        _expect(not hasattr(holder, name) or len(getattr(holder, name)) == ID_BYTES)
    for name in _OF_32_BYTES_OR_NONE:
        if hasattr(holder, name) and (beacon or name != "beacon"):
            _expect(len(getattr(holder, name)) in (0, DIGEST_BYTES))


def _check_roster(params: RoundParams, roster: Roster, entry_bytes: int) -> None:
    n = params.clients
    _expect(roster.ids.shape == roster.advertised.shape == (n,) and _ascends(roster.ids))
    _expect(roster.entries.shape == (int(roster.advertised.sum()), entry_bytes))
    row = roster.neighbours
    _expect(row is None or (row.shape == (params.neighbours,) and _ascends(row) and (row < n).all()))


def _check_signed(params: RoundParams, signed: server_states.Signed) -> None:
    empty = server_states.Signed.empty(params)
    for one in dataclasses.fields(signed):
        _expect(getattr(signed, one.name).shape == getattr(empty, one.name).shape)


def _is_graph(params: RoundParams, graph: object) -> bool:
    n, k = params.clients, params.neighbours
    if isinstance(graph, CompleteGraph):
        return params.graph == "complete" and graph.clients == n
    if not isinstance(graph, HararyGraph) or params.graph != "harary":
        return False
    shaped = graph.rows.shape == graph.reverse.shape == (n, k)
    return shaped and bool((graph.rows < n).all() and (graph.reverse < k).all())
