"""What a round is about: the caller's context, which every party gives and nobody sends. Source: SPEC "Identifiers"."""

from __future__ import annotations

from secagg.errors import DecodeError, InputError
from secagg.primitives.kdf import Label, digest


def context_digest(context: bytes) -> bytes:
    """Return the 32 bytes that stand for the caller's context (the model that the round trains, say)."""
    return digest(Label.CONTEXT, context)


def checked_context(context: bytes, *, required: bool) -> bytes:
    """Return the ``context_digest`` of what a caller passes.

    Args:
        context: what the round is about.
        required: whether an empty one is refused: against a malicious server and in homomorphic sums, where nothing
            else keeps clients from being led to train different models.

    Raises:
        InputError: it is not bytes, or empty where it is required.
    """
    if not isinstance(context, bytes):
        raise InputError(f"context must be bytes, got {type(context).__name__}")
    if required and not context:
        raise InputError(
            "context is empty: pass a hash of the model, or at least the round's name; nothing else keeps a server "
            "from sending each client another model"
        )
    return context_digest(context)


def check_saved_context(context: bytes, *, required: bool) -> None:
    """Check the ``context_digest`` of a saved state as ``checked_context`` checks the context.

    Raises:
        DecodeError: it is that of an empty context where one is required.
    """
    if required and context == context_digest(b""):
        raise DecodeError("the saved session has an empty context, which its model does not allow")
