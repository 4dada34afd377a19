"""Every message is read back as it was written, has exactly the length that its type states, and no other is read."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from secagg import DecodeError
from secagg.pairwise import messages
from secagg.pairwise.messages import FORMATS
from secagg.primitives.shamir import SHARE_BYTES

CLIENTS = 11
MEMBERS = np.arange(CLIENTS) % 3 != 1
FORM = FORMATS["malicious-server"]


def rows(count: int, width: int) -> np.ndarray:
    """Rows that are canonical shares where they begin with one, no two alike."""
    filled = np.arange(count * width, dtype=np.uint8).reshape(count, width)
    filled[:, 7:SHARE_BYTES:8] = 0
    return filled


def roster(neighbours: list[int] | None) -> messages.Roster:
    return messages.Roster(
        ids=np.arange(CLIENTS, dtype=np.uint64) * 3,
        advertised=MEMBERS,
        entries=rows(int(MEMBERS.sum()), FORM.entry_bytes),
        neighbours=None if neighbours is None else np.array(neighbours, dtype=np.uint32),
    )


# Each with what its length follows from, as decode is told it and as body_bytes is
_COHORT: dict[str, Any] = {"clients": CLIENTS}
_ROSTER = _COHORT | {"entry_bytes": FORM.entry_bytes}
_SENT: dict[str, Any] = {"count": 3, "dealt_bytes": FORM.dealt_bytes}
_RELEASED: dict[str, Any] = {"count": 3, "release_bytes": FORM.release_bytes}
_NEIGHBOURS = np.array([0, 1, 5, 9], dtype=np.uint32)
_ADVERTISED = int(MEMBERS.sum())
MESSAGES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "invitation": (messages.Invitation(nonce=bytes(range(32))), {}, {}),
    "advertisement": (
        messages.KeyAdvertisement(
            channel_public=bytes(range(32)), mask_public=bytes(range(32, 64)), seed_commitment=bytes(range(64, 96))
        ),
        {},
        {},
    ),
    "roster": (
        roster(None),
        _ROSTER | {"sparse_neighbours": 0},
        _ROSTER | {"sparse_neighbours": 0, "advertised": _ADVERTISED},
    ),
    "roster of a sparse graph": (
        roster([1, 4, 10]),
        _ROSTER | {"sparse_neighbours": 3},
        _ROSTER | {"sparse_neighbours": 3, "advertised": _ADVERTISED},
    ),
    "encrypted shares": (messages.EncryptedShares(sealed=rows(3, FORM.dealt_bytes)), _SENT, _SENT),
    "relayed shares": (
        messages.RelayedShares(shared=MEMBERS, sealed=rows(3, FORM.dealt_bytes)),
        _COHORT | {"neighbours": _NEIGHBOURS, "dealt_bytes": FORM.dealt_bytes},
        _COHORT | _SENT,
    ),
    "unmask request": (messages.UnmaskRequest(survivors=MEMBERS), _COHORT, _COHORT),
    "unmask shares": (messages.UnmaskShares(shares=rows(3, FORM.release_bytes)), _RELEASED, _RELEASED),
    "consistency": (messages.Consistency(digest=bytes(range(32))), {}, {}),
    "relayed signatures": (
        messages.RelayedSignatures(signed=MEMBERS, signatures=rows(_ADVERTISED, 64)),
        _COHORT,
        _COHORT | {"signed": _ADVERTISED},
    ),
}


@pytest.mark.parametrize(("message", "decoding", "measuring"), MESSAGES.values(), ids=MESSAGES)
def test_a_message_is_read_back_as_it_was_written_and_at_its_own_length_alone(message, decoding, measuring):
    body = message.encode()
    assert len(body) == message.body_bytes(**measuring)
    again = message.decode(memoryview(body), **decoding)
    for field in message.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(again, field), getattr(message, field))
    for other in (body[:-1], body + b"\0", b""):
        with pytest.raises(DecodeError):
            message.decode(memoryview(other), **decoding)


@pytest.mark.parametrize("neighbours", [[1, 10, 4], [4, 1, 10], [1, 4, 4], [1, 4, 11]], ids=str)
def test_neighbours_ascend_and_stand_in_the_roster(neighbours):
    body = memoryview(roster(neighbours).encode())
    with pytest.raises(DecodeError, match="neighbours must ascend"):
        messages.Roster.decode(body, sparse_neighbours=3, **_ROSTER)


@pytest.mark.parametrize("message", ["encrypted shares", "relayed shares", "unmask shares"])
def test_messages_that_hold_secrets_are_not_pickled(message):
    with pytest.raises(TypeError, match="not copied or pickled"):
        pickle.dumps(MESSAGES[message][0])
