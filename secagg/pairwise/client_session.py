"""A client's side of a pairwise round."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from secagg.errors import InputError, ServerFault
from secagg.pairwise import client_states as states
from secagg.pairwise.client_table import Turn, client_table
from secagg.pairwise.credentials import checked_releases, client_credentials, client_directory
from secagg.pairwise.params import RoundParams
from secagg.pairwise.saved import load_client, save_client
from secagg.session.answers import Answer, BeaconNeeded, InputNeeded
from secagg.session.client import ClientSession, Progress
from secagg.session.context import checked_context
from secagg.session.table import ClientRow, ClientTable, Local
from secagg.snapshot import SavedState
from secagg.wire import Buffer, Header


class PairwiseClientSession(ClientSession):
    """One client in one round of SecAgg or SecAgg+; see ``secagg.ClientSession``, which makes it.

    Its credentials are an ``Identity`` or ``PairwiseCredentials`` in the malicious-server model, and ``None`` or
    ``PairwiseCredentials`` without an identity in the semi-honest one.
    """

    def _join(self, params: RoundParams, client_id: int, context: bytes, credentials: Any) -> states.Idle:
        given = client_credentials(credentials)
        self._party = states.Party(
            params=params,
            client_id=client_id,
            context=checked_context(context, required=params.threat == "malicious-server"),
            directory=client_directory(params, client_id, given.identity),
            earlier=checked_releases(given.earlier),
        )
        self._identity = given.identity
        self._rows = client_table(params)
        return states.Idle()

    def _rejoin(self, saved: Buffer, client_id: int, seal_key: bytes | None, credentials: Any) -> Progress:
        given = client_credentials(credentials)
        party, progress = load_client(saved, seal_key=seal_key)
        if party.client_id != client_id:
            raise InputError(f"the saved session is client {party.client_id}'s, not client {client_id}'s")
        if client_directory(party.params, party.client_id, given.identity) != party.directory:
            raise InputError("the saved session was built with another directory")
        if earlier := checked_releases(given.earlier):
            party = replace(party, earlier=tuple(dict.fromkeys((*party.earlier, *earlier))))
        self._party, self._identity, self._rows = party, given.identity, client_table(party.params)
        return progress

    @property
    def params(self) -> RoundParams:
        """What this client agreed to."""
        return self._party.params

    @property
    def client_id(self) -> int:
        """This client's id."""
        return self._party.client_id

    @property
    def release(self) -> states.Release | None:
        """What this client released shares for, or signed that it would, for its later sessions; None before that."""
        state = self._state
        if isinstance(state, states.Checked):
            survivors = state.ids[state.survivors]
        elif isinstance(state, states.Released):
            survivors = state.survivors
        else:
            return None
        return states.Release(context=self._party.context, survivors=tuple(survivors.tolist()))

    @property
    def _table(self) -> ClientTable:
        return self._rows

    def _turn(self, row: ClientRow, announced: bytes) -> Turn:
        return Turn(
            party=self._party,
            state=self._state,
            identity=self._identity,
            randomness=self._randomness,
            announced=announced,
            reply=row.reply,
        )

    def _check_session(self, header: Header) -> None:
        state = self._state
        if isinstance(state, states.Idle):
            return  # its step compares the round's identifier with the one that it computes
        expected = state.round_id if isinstance(state, states.Advertised) else state.session_id
        if header.session != expected:
            raise ServerFault("the message belongs to another session, or the roster was not the same for everybody")

    def _asks(self, local: Local, state: Any) -> Answer:
        if local is Local.BEACON:
            return BeaconNeeded(state.session_id)
        return InputNeeded(int(state.shared.sum()))

    def _state_of(self, at: Progress, seal_key: bytes | None) -> SavedState:
        return save_client(self._party, at, seal_key=seal_key, randomness=self._randomness)
