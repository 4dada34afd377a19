"""A client's last steps: what it checks and signs before it releases one share of each neighbour, once.

Source: CCS 2017 figure 4, rounds 3 and 4; the consistency check over global sets is explained in SPEC "Consistency".
"""

from __future__ import annotations

import numpy as np

from secagg.cohort import MIN_HONEST_SURVIVORS
from secagg.errors import DecodeError, LocalProtocolError, ServerFault, TooFewClients
from secagg.identity import Directory
from secagg.pairwise.client_states import Checked, Masked, Party, Released
from secagg.pairwise.floors import check_floors
from secagg.pairwise.identifiers import consistency_digest
from secagg.pairwise.messages import (
    MASK_KEY_SHARE,
    SEED_SHARE,
    Consistency,
    Kind,
    Members,
    RelayedSignatures,
    UnmaskRequest,
    UnmaskShares,
)
from secagg.wire import Header


def check_survivor_set(party: Party, state: Masked, request: UnmaskRequest) -> None:
    """Check the survivor set against everything that this client knows; a release or a signature comes after it.

    Raises:
        ServerFault: U3 misses this client, or holds one that never shared keys.
        TooFewClients: U3 is below S in all, or below t in the neighbourhood, or it differs from the survivors of an
            earlier release for the same context by so few that the two sums would tell about one of them.
    """
    survivors = request.survivors
    if not survivors[state.position] or (survivors & ~state.shared).any():
        raise ServerFault("the set of survivors misses this client or holds one that never shared keys")
    check_floors(party.params, survivors, int(survivors[state.neighbours].sum()), "survivors")
    _check_differences(party, set(state.ids[survivors].tolist()))


def _check_differences(party: Party, survivors: set[int]) -> None:
    """Refuse a second sum over nearly the same clients: of those that make the difference, A may be corrupt."""
    need = party.params.corrupt_count + MIN_HONEST_SURVIVORS
    for release in party.earlier:
        have = len(survivors.symmetric_difference(release.survivors))
        if release.context == party.context and 0 < have < need:
            raise TooFewClients(have, need, "clients that tell this sum from an earlier one of the same context")


def check_consistency(party: Party, state: Masked, request: UnmaskRequest) -> tuple[Checked, Consistency]:
    """Vouch for the survivor set towards all others, so that no two of them can be shown different ones.

    Raises:
        ServerFault, TooFewClients: as for ``check_survivor_set``.
    """
    check_survivor_set(party, state, request)
    checked = Checked(place=state.place, shared=state.shared, survivors=request.survivors, shares=state.shares)
    return checked, Consistency(digest=consistency_digest(state.session_id, state.shared, request.survivors))


def unmask(party: Party, state: Masked, request: UnmaskRequest) -> tuple[Released, UnmaskShares]:
    """Release, of each neighbour, the seed's share if its input is in the sum and the mask key's share otherwise.

    Raises:
        ServerFault, TooFewClients: as for ``check_survivor_set``.
    """
    check_survivor_set(party, state, request)
    return _release(state, request.survivors)


def unmask_consistent(
    party: Party, state: Checked, relayed: RelayedSignatures, directory: Directory | None
) -> tuple[Released, UnmaskShares]:
    """Release as ``unmask`` does, once a quorum of the cohort has signed the very sets that this client signed.

    Signatures of neighbours alone would not do: a server that shows two arcs of a sparse graph two sets U2 keeps each
    neighbourhood in agreement but for the seams.

    Raises:
        ServerFault: U4 misses this client or holds one that is not a survivor, or a signature does not fit.
        TooFewClients: fewer than the quorum signed.
        LocalProtocolError: there is no directory.
    """
    if directory is None:
        raise LocalProtocolError("signatures are checked against a directory, and this client pins none")
    signed = relayed.signed
    if not signed[state.position] or (signed & ~state.survivors).any():
        raise ServerFault("the set of clients that signed misses this one or holds one that did not survive")
    if (have := int(signed.sum())) < party.params.quorum:
        raise TooFewClients(have, party.params.quorum, "clients that signed the survivor set")
    ids = list(directory)
    body = consistency_digest(state.session_id, state.shared, state.survivors)
    signers = [(ids[position], row) for row, position in enumerate(np.flatnonzero(signed).tolist())]
    others = [(client_id, row) for client_id, row in signers if client_id != party.client_id]
    for client_id, row in others[: party.params.quorum - 1]:
        header = Header(kind=Kind.CONSISTENCY, sender=client_id, session=state.session_id)
        try:
            directory.check(client_id, header, body, relayed.signatures[row].tobytes())
        except DecodeError:
            raise ServerFault(
                f"client {client_id}'s relayed signature is not of the survivor set that this client was shown"
            ) from None
    return _release(state, state.survivors)


def _release(state: Masked | Checked, survivors: Members) -> tuple[Released, UnmaskShares]:
    kinds = np.where(survivors[state.neighbours], SEED_SHARE, MASK_KEY_SHARE)
    message = UnmaskShares(shares=state.shares[np.arange(len(kinds)), kinds])
    return Released(session_id=state.session_id, survivors=state.ids[survivors]), message
