"""X25519 key agreement.

Source: RFC 7748, section 6.1, with the check for an all-zero result.
"""

from __future__ import annotations

import hmac

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from secagg.errors import DecodeError, InputError
from secagg.primitives.randomness import Randomness, draw, system_randomness

KEY_BYTES = 32
_BAD_PUBLIC = "an X25519 public key has a wrong length or low order"

_P = (1 << 255) - 19
_ORDER_8 = (
    0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
    0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
)
# The u coordinates of all points of low order on the curve and its twist.
_LOW_ORDER_U = frozenset((0, 1, _P - 1, *_ORDER_8))


class AgreementKey:
    """An X25519 key pair.

    Args:
        secret: 32 uniform secret bytes, not yet clamped.

    Attributes:
        public: the public key, 32 bytes.

    Raises:
        InputError: ``secret`` has another length.
    """

    __slots__ = ("_private", "public")

    public: bytes

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise InputError(f"a secret key has {KEY_BYTES} bytes, not {len(secret)}")
        self._private = X25519PrivateKey.from_private_bytes(secret)
        self.public = self._private.public_key().public_bytes_raw()

    @classmethod
    def generate(cls, randomness: Randomness = system_randomness) -> AgreementKey:
        """Make a new key pair from 32 bytes of ``randomness``."""
        return cls(draw(randomness, KEY_BYTES))

    @classmethod
    def from_bytes(cls, secret: bytes) -> AgreementKey:
        """Restore a key pair from what ``secret_bytes`` returned, after it was stored or rebuilt from shares.

        Raises:
            DecodeError: ``secret`` is not 32 bytes long.
        """
        if len(secret) != KEY_BYTES:
            raise DecodeError(f"a secret key has {KEY_BYTES} bytes, not {len(secret)}")
        return cls(secret)

    def secret_bytes(self) -> bytes:
        """Return the 32 secret bytes that the key was made from."""
        return self._private.private_bytes_raw()

    def exchange(self, peer_public: bytes | X25519PublicKey) -> bytes:
        """Compute the 32-byte secret shared with the owner of ``peer_public``: derive keys from it, it is not one.

        Args:
            peer_public: 32 bytes, or what ``parse_public`` made of them: worth it for a key that is used many times.

        Raises:
            DecodeError: ``peer_public`` is not 32 bytes long, or is a point of low order, so the secret would be zero.
        """
        try:
            if isinstance(peer_public, bytes):
                peer_public = X25519PublicKey.from_public_bytes(peer_public)
            return self._private.exchange(peer_public)
        except ValueError:
            raise DecodeError(_BAD_PUBLIC) from None

    def __eq__(self, other: object) -> bool:
        """Compare the secret bytes in constant time."""
        if not isinstance(other, AgreementKey):
            return NotImplemented
        return hmac.compare_digest(self.secret_bytes(), other.secret_bytes())

    def __hash__(self) -> int:
        return hash(self.public)

    def __repr__(self) -> str:
        return f"AgreementKey(public={self.public.hex()})"


def parse_public(public: bytes) -> X25519PublicKey:
    """Return the key that ``public`` encodes, for ``AgreementKey.exchange``.

    Raises:
        DecodeError: ``public`` is not 32 bytes long.
    """
    try:
        return X25519PublicKey.from_public_bytes(public)
    except ValueError:
        raise DecodeError(_BAD_PUBLIC) from None


def is_canonical(public: bytes) -> bool:
    """Tell whether ``public`` (32 bytes) is the encoding of its point that key generation gives: below 2^255 - 19."""
    return int.from_bytes(public, "little") < _P


def is_low_order(public: bytes) -> bool:
    """Tell whether every exchange with ``public`` (32 bytes) gives zero, so that no honest client can have made it."""
    return int.from_bytes(public, "little") % (1 << 255) % _P in _LOW_ORDER_U
