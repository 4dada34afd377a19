"""Ed25519 signatures with a context, so that a signature made for one purpose never passes for another.

What is signed is one byte, the context's length; the context; the message. (This is not the Ed25519ctx variant of
RFC 8032, which few libraries have.)

Source: RFC 8032, section 5.1; SPEC "Signatures".
"""

from __future__ import annotations

import hmac

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from secagg.errors import DecodeError, InputError
from secagg.primitives.randomness import Randomness, draw, system_randomness

KEY_BYTES = 32
SIGNATURE_BYTES = 64
CONTEXT_BYTES_MAX = 255

_SIGN_BIT = 1 << 255
_P = (1 << 255) - 19
_D = -121665 * pow(121666, -1, _P) % _P
_ORDER_8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
# The y coordinates, canonical or not, of all points of low order: a signature under such a key fits many messages.
_LOW_ORDER_Y = frozenset((0, 1, _P - 1, _P, _P + 1, _ORDER_8, _P - _ORDER_8))


class SigningKey:
    """An Ed25519 key pair.

    Args:
        seed: 32 uniform secret bytes, RFC 8032's private key.

    Attributes:
        public: the public key, 32 bytes.

    Raises:
        InputError: ``seed`` has another length.
    """

    __slots__ = ("_private", "public")

    public: bytes

    def __init__(self, seed: bytes) -> None:
        if len(seed) != KEY_BYTES:
            raise InputError(f"a signing key's seed has {KEY_BYTES} bytes, not {len(seed)}")
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._private.public_key().public_bytes_raw()

    @classmethod
    def generate(cls, randomness: Randomness = system_randomness) -> SigningKey:
        """Make a new key pair from 32 bytes of ``randomness``."""
        return cls(draw(randomness, KEY_BYTES))

    @classmethod
    def from_bytes(cls, seed: bytes) -> SigningKey:
        """Restore a key pair from what ``secret_bytes`` returned.

        Raises:
            DecodeError: ``seed`` is not 32 bytes long.
        """
        if len(seed) != KEY_BYTES:
            raise DecodeError(f"a signing key's seed has {KEY_BYTES} bytes, not {len(seed)}")
        return cls(seed)

    def secret_bytes(self) -> bytes:
        """Return the 32-byte seed that the key was made from."""
        return self._private.private_bytes_raw()

    def sign(self, context: bytes, message: bytes) -> bytes:
        """Sign ``message`` for the purpose that ``context`` names (0 to 255 bytes); returns 64 bytes, always the same.

        Raises:
            InputError: ``context`` is too long.
        """
        return self._sign(_in_context(context, message))

    def _sign(self, data: bytes) -> bytes:
        return self._private.sign(data)

    def __eq__(self, other: object) -> bool:
        """Compare the seeds in constant time."""
        if not isinstance(other, SigningKey):
            return NotImplemented
        return hmac.compare_digest(self.secret_bytes(), other.secret_bytes())

    def __hash__(self) -> int:
        return hash(self.public)

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex()})"


def verify(public: bytes, signature: bytes, context: bytes, message: bytes) -> None:
    """Return if the owner of ``public`` signed ``message`` for the purpose ``context``; raise otherwise.

    Args:
        public: 32 bytes.
        signature: 64 bytes.
        context: 0 to 255 bytes, as given to ``SigningKey.sign``.
        message: any length.

    Raises:
        DecodeError: the signature does not fit, has another length or is not in its one valid form (S below the group's
            order), or ``public`` is no point of the curve or one of low order, whose signatures bind nobody.
        InputError: ``context`` is too long.
    """
    _verify(public, signature, _in_context(context, message))


def check_public(public: bytes) -> None:
    """Check that 32 bytes are a public key: a point of the curve in its one encoding, and not of low order.

    A point outside the subgroup of prime order, a usable one plus one of low order, passes: ``verify`` is one equation
    to everybody, so such a key's signatures are judged alike everywhere, and no two messages share one.

    Raises:
        DecodeError: they are none.

    Source: RFC 8032, section 5.1.3.
    """
    y = _checked_y(public)
    # x^2 = u/v, and v is never zero. A quotient is a square where the product is one, by Euler's criterion. (x = 0
    # with the sign bit set, which the RFC refuses too, has low order.)
    u, v = y * y - 1, _D * y * y + 1
    if pow(u * v % _P, (_P - 1) // 2, _P) != 1:
        raise DecodeError("an Ed25519 public key is no point of the curve")


def _checked_y(public: bytes) -> int:
    """Return the y coordinate of a key that may be a point; a ``verify`` finds out for itself whether it is one."""
    if len(public) != KEY_BYTES:
        raise DecodeError(f"an Ed25519 public key has {KEY_BYTES} bytes, not {len(public)}")
    y = int.from_bytes(public, "little") & (_SIGN_BIT - 1)
    if y in _LOW_ORDER_Y:
        raise DecodeError("an Ed25519 public key has low order")
    if y >= _P:
        raise DecodeError("an Ed25519 public key is not encoded canonically")
    return y


def _verify(public: bytes, signature: bytes, data: bytes) -> None:
    _checked_y(public)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        raise DecodeError("a signature does not fit its message, context and public key") from None


def _in_context(context: bytes, message: bytes) -> bytes:
    if len(context) > CONTEXT_BYTES_MAX:
        raise InputError(f"a signature's context has at most {CONTEXT_BYTES_MAX} bytes, not {len(context)}")
    return bytes([len(context)]) + context + message
