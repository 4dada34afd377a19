"""Who sent a message to the server: its signature, checked against the pinned identities."""

from __future__ import annotations

from secagg.errors import DecodeError, PeerFault
from secagg.identity import Directory, body_hash
from secagg.pairwise.identifiers import NO_BEACON
from secagg.pairwise.messages import FORMATS, Kind
from secagg.wire import Header


def authenticated(
    directory: Directory | None, client_id: int, header: Header, body: memoryview, *, beacon: bytes = b""
) -> tuple[memoryview, bytes, bytes]:
    """Split a body from the signature behind it, and check that; return the hash that was signed as well.

    Without a directory nothing is signed: the hash and the signature are empty.

    Args:
        directory: the pinned identities.
        client_id: the sender.
        header: the message's header.
        body: what follows it.
        beacon: what else is signed though it does not travel, since the server has its own: ``steps.signed_beacon``.

    Raises:
        PeerFault: there is no signature of the client's.
    """
    if directory is None:
        return body, b"", b""
    form = FORMATS["malicious-server"]
    attached = form.accepted_bytes if header.kind == Kind.MASKED_INPUT else 0
    if len(body) < form.signature_bytes + attached:
        raise PeerFault(client_id, "its message is too short to bear a signature")
    end = len(body) - form.signature_bytes
    hashed, signature = body_hash(body[: end - attached]), bytes(body[end:])
    try:
        directory.check_hashed(
            client_id, header, hashed, signature, attached=bytes(body[end - attached : end]) + beacon
        )
    except DecodeError as problem:
        # A signature does not say what else it would fit
        other = "" if beacon in (b"", NO_BEACON) else ", or it used another beacon than this server"
        raise PeerFault(client_id, f"its message is not authentic{other}: {problem}") from None
    return body[:end], hashed, signature
