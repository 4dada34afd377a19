"""Encrypting and decrypting on TenSEAL; the only module that loads it. Ciphertexts are arrays of residues on either
side.

A ciphertext is uint64[2, primes, N], each residue below its prime: coefficients for BFV, evaluations for CKKS. Whoever
calls has checked that; TenSEAL never reads bytes that came from anybody else.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secagg import extras
from secagg.errors import DecodeError, SelfTestError
from secagg.he import seal_format
from secagg.he.chains import Chain
from secagg.he.seal_format import Form

Residues = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """What a context is made from.

    Attributes:
        chain: ring and moduli.
        plain_modulus: t for BFV, 0 for CKKS.
        scale: the power of two that CKKS multiplies by, 1.0 for BFV.
    """

    chain: Chain
    plain_modulus: int
    scale: float

    @property
    def exact(self) -> bool:
        """Whether this is BFV."""
        return self.plain_modulus > 0

    @property
    def slots(self) -> int:
        """Values of one ciphertext."""
        return self.chain.degree if self.exact else self.chain.degree // 2


class Encryptor:
    """Encrypts under a public key. Holds no secret.

    Args:
        scheme: what the key is for.
        public_key: uint64[2, primes + 1, N], each residue below its prime.
    """

    def __init__(self, scheme: Scheme, public_key: Residues) -> None:
        self._scheme, model = scheme, _model(scheme)
        blob = seal_format.write_ciphertext(model.key_form, public_key)
        scale = None if scheme.exact else scheme.scale
        tenseal = extras.load("tenseal")

        self._context = tenseal.context_from(
            seal_format.write_public_context(model.parameters, blob, scale), n_threads=1
        )

    def encrypt(self, slots: NDArray[Any]) -> Residues:
        """Encrypt ``scheme.slots`` values: int64 below t for BFV, float64 for CKKS."""
        vector = _vector(self._scheme, self._context, slots.tolist())
        chain = self._scheme.chain
        blob = seal_format.read_vector(vector.serialize())
        return seal_format.read_ciphertext(blob, len(chain.data_bits), chain.degree)[1]


class Decryptor:
    """Holds a secret key, and decrypts under it. Not for release as it is: see ``decryptor`` and ``flooding``."""

    def __init__(self, scheme: Scheme, saved: bytes | None = None) -> None:
        tenseal = extras.load("tenseal")

        self._scheme = scheme
        if saved is None:
            self._context = _fresh_context(scheme)
        else:
            try:
                self._context = tenseal.context_from(saved, n_threads=1)
            except (ValueError, RuntimeError):
                raise DecodeError("the saved key is not one of TenSEAL's") from None
        self._model = _model(scheme)

    def __repr__(self) -> str:
        return "<Decryptor: secrets withheld>"

    def secret_bytes(self) -> bytes:
        """Return the key pair as TenSEAL saves it."""
        return bytes(
            self._context.serialize(
                save_public_key=True, save_secret_key=True, save_galois_keys=False, save_relin_keys=False
            )
        )

    def public_key(self) -> Residues:
        """Return the public key: uint64[2, primes + 1, N]."""
        chain = self._scheme.chain
        saved = self._context.serialize(
            save_public_key=True, save_secret_key=False, save_galois_keys=False, save_relin_keys=False
        )
        return seal_format.read_ciphertext(seal_format.read_context(saved)[1], len(chain.primes), chain.degree)[1]

    def decrypt(self, residues: Residues) -> NDArray[Any]:
        """Decrypt one ciphertext: int64[N] in [0, t) for BFV, float64[N / 2] for CKKS."""
        values = np.array(self._load(residues).decrypt())
        return values % self._scheme.plain_modulus if self._scheme.exact else values

    def noise_budget(self, residues: Residues) -> int:
        """Return how many bits of noise a BFV ciphertext could still take; 0 where it may decrypt wrongly."""
        (ciphertext,) = self._load(residues).ciphertext()
        return int(self._context.data.decryptor().invariant_noise_budget(ciphertext))

    def _load(self, residues: Residues) -> Any:
        tenseal = extras.load("tenseal")

        scale = None if self._scheme.exact else self._scheme.scale
        message = seal_format.write_vector(
            seal_format.write_ciphertext(self._model.data_form, residues), self._scheme.slots, scale
        )
        load = tenseal.bfv_vector_from if self._scheme.exact else tenseal.ckks_vector_from
        return load(self._context, message)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """What TenSEAL's own objects of a scheme look like: parameters, and the forms of its two levels."""

    parameters: bytes
    key_form: Form
    data_form: Form


@functools.lru_cache(maxsize=16)
def _model(scheme: Scheme) -> _Model:
    """Learn the forms from a throw-away key, and check that the library knows them.

    Raises:
        SelfTestError: this TenSEAL makes other primes, or writes other forms, than are known here.
    """
    chain, context = scheme.chain, _fresh_context(scheme)
    saved = context.serialize(
        save_public_key=True, save_secret_key=False, save_galois_keys=False, save_relin_keys=False
    )
    parameters, public_key = seal_format.read_context(saved)
    if seal_format.read_moduli(parameters) != (*chain.primes, scheme.plain_modulus):
        raise SelfTestError("this TenSEAL chooses other primes than are known here")
    key_form, _ = seal_format.read_ciphertext(public_key, len(chain.primes), chain.degree)
    blob = seal_format.read_vector(_vector(scheme, context, [0] * scheme.slots).serialize())
    data_form, residues = seal_format.read_ciphertext(blob, len(chain.data_bits), chain.degree)
    primes = np.array(chain.data_primes, dtype=np.uint64)
    if (residues >= primes[:, None]).any() or data_form.ntt != (not scheme.exact) or data_form.scale != scheme.scale:
        raise SelfTestError("this TenSEAL's ciphertexts are not in the form that is known here")
    return _Model(parameters=parameters, key_form=key_form, data_form=data_form)


def _fresh_context(scheme: Scheme) -> Any:
    tenseal = extras.load("tenseal")

    chain = scheme.chain
    context = tenseal.context(
        tenseal.SCHEME_TYPE.BFV if scheme.exact else tenseal.SCHEME_TYPE.CKKS,
        chain.degree,
        plain_modulus=scheme.plain_modulus or None,
        coeff_mod_bit_sizes=[*chain.data_bits, chain.special_bits],
        n_threads=1,
    )
    if not scheme.exact:
        context.global_scale = scheme.scale
    return context


def _vector(scheme: Scheme, context: Any, values: list[Any]) -> Any:
    tenseal = extras.load("tenseal")

    # The binding itself: the wrapper around it would copy the values twice more
    native = tenseal._ts_cpp
    if scheme.exact:
        return native.BFVVector(context.data, values)
    return native.CKKSVector(context.data, values, scheme.scale)
