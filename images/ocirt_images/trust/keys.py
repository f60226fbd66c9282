"""Public keys of signatures: ECDSA on P-256 and P-384, RSA, Ed25519, as cosign has them, in PEM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from ocirt_images.errors import Error

if TYPE_CHECKING:
    from collections.abc import Callable

_CURVES = (ec.SECP256R1, ec.SECP384R1)
_SHORTEST = 2048  # bits of an RSA key


class Key:
    """A key that verifies."""

    def __init__(self, verify: Callable[[bytes, bytes], None]) -> None:
        self._verify = verify

    @classmethod
    def load(cls, pem: bytes, subject: str) -> Key:
        """A key from PEM. Raises Error("invalid", "unsupported") that names `subject`."""
        try:
            found = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as err:
            raise Error("invalid", "no public key in PEM", subject=subject, cause=str(err).partition("\n")[0][:120]) from None
        match found:
            case ec.EllipticCurvePublicKey() if isinstance(found.curve, _CURVES):
                # Whatever the curve, cosign hashes by SHA-256.
                algorithm = ec.ECDSA(hashes.SHA256())
                return cls(lambda signature, data: found.verify(signature, data, algorithm))
            case rsa.RSAPublicKey() if found.key_size >= _SHORTEST:
                return cls(lambda signature, data: found.verify(signature, data, padding.PKCS1v15(), hashes.SHA256()))
            case ed25519.Ed25519PublicKey():
                return cls(found.verify)
        hint = f"ECDSA on P-256 or P-384, RSA of {_SHORTEST} bits or more, or Ed25519"
        raise Error("unsupported", "a key of another kind", subject=subject, hint=hint)

    def made(self, signature: bytes, data: bytes) -> bool:
        """Whether a signature of `data` was made by this key's owner."""
        try:
            self._verify(signature, data)
        except InvalidSignature:
            return False
        return True
