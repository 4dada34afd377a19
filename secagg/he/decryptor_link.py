"""A decryptor in the server's own process."""

from __future__ import annotations

from secagg.errors import InputError
from secagg.he.decryptor_session import DecryptorSession
from secagg.he.keys import DecryptionKey
from secagg.identity import Directory
from secagg.primitives.signature import SigningKey
from secagg.session.keeping import DEFERRED, UNSET, Keep, SealKey
from secagg.session.party import PartyLink, PartyRound


class DecryptorLink(PartyLink):
    """A decryptor in the server's own process, for tests and for whoever accepts what that means.

    **The key then lies with the server**: whoever controls that process, or its disk, reads every client's vector, and
    the clients' trust in two parties is trust in one. Where the two must be apart, run the decryptor elsewhere and
    derive a link of your own from ``PartyLink``.

    Args:
        key: the secret key. Its own ``keep`` makes its record of releases durable, which bounds them across restarts.
        directory: the clients' identities, exactly the cohort.
        signing_key: the decryptor's own Ed25519 key, which nodes and server pin.
        keep: makes the state of a round's session durable. ``IN_MEMORY`` serves where a round that was cut off is begun
            anew: the key remembers what it released.
        seal_key: 32 bytes that those states are sealed under; None leaves them in the clear, and must be said where
            states are kept.

    Raises:
        InputError: ``keep`` is DEFERRED, for which a link has nobody to wait.
    """

    def __init__(
        self,
        key: DecryptionKey,
        directory: Directory,
        *,
        signing_key: SigningKey,
        keep: Keep,
        seal_key: SealKey = UNSET,
    ) -> None:
        if keep is DEFERRED:
            raise InputError("a link answers at once: pass a keep that returns when the state is durable")
        self._key, self._directory, self._signing_key = key, directory, signing_key
        self._keep, self._seal_key = keep, seal_key

    def __repr__(self) -> str:
        return f"<DecryptorLink to a decryptor in this process: {self._key!r}>"

    @property
    def identity(self) -> bytes:
        """The decryptor's Ed25519 key."""
        return self._signing_key.public

    def begin(self, params: bytes, context: bytes, roster: tuple[int, ...]) -> PartyRound:
        """Open the decryptor's session. What could not be kept of the round before is kept first: the key waits for it.

        Raises:
            InputError: the key is for other parameters, or the directory holds other clients.
            LocalProtocolError: the key's budget is spent, or it is retired.
        """
        if params != self._key.params.encode():
            raise InputError("the decryptor's key is for other parameters than this round's: make one with their plan")
        self._key.settle()
        if roster != tuple(self._directory):
            raise InputError("the decryptor's directory holds other clients than this round's")
        session = DecryptorSession(
            self._key.params,
            self._key,
            self._directory,
            signing_key=self._signing_key,
            context=context,
            keep=self._keep,
            seal_key=self._seal_key,
        )
        return _Round(session)


class _Round(PartyRound):
    def __init__(self, session: DecryptorSession) -> None:
        self._session, self._opening = session, session.opening()

    @property
    def opening(self) -> bytes:
        return self._opening

    def receive(self, client_id: int, payload: bytes) -> None:
        self._session.receive(client_id, payload)

    def answer(self, request: bytes) -> bytes:
        release = self._session.release(request)
        if not isinstance(release, bytes):
            raise InputError("the decryption key defers what it keeps: restore it with a keep that returns when done")
        return release
