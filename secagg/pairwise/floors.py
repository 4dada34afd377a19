"""The two floors that every client checks before it goes on, in both models: S in all, t in its neighbourhood.

Without the first, a sparse graph can fall apart into parts whose sums the server reads; without the second, the corrupt
clients of a neighbourhood could rebuild its secrets.
"""

from __future__ import annotations

from secagg.errors import TooFewClients
from secagg.pairwise.messages import Members
from secagg.pairwise.params import RoundParams


def check_floors(params: RoundParams, members: Members, neighbours: int, what: str) -> None:
    """Check both: ``members`` in all, ``neighbours`` of them in this client's neighbourhood.

    Raises:
        TooFewClients: one is missed.
    """
    check_survivors(params, members, what)
    check_neighbours(params, neighbours, what)


def check_survivors(params: RoundParams, members: Members, what: str) -> None:
    """Check the floor S.

    Raises:
        TooFewClients: it is missed.
    """
    if (have := int(members.sum())) < params.minimum_survivors:
        raise TooFewClients(have, params.minimum_survivors, what)


def check_neighbours(params: RoundParams, have: int, what: str) -> None:
    """Check the floor t.

    Raises:
        TooFewClients: it is missed.
    """
    if have < params.threshold:
        raise TooFewClients(have, params.threshold, f"{what} among this client's neighbours")
