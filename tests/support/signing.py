"""Signs images as cosign does, with keys that are made here."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from ocirt_images import mediatypes
from tests.support import images

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
KINDS = ("P-256", "P-384", "RSA", "Ed25519")


class Signer:
    """A key of one of KINDS."""

    def __init__(self, kind: str = "P-256") -> None:
        self._key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
        match kind:
            case "P-256":
                self._key = ec.generate_private_key(ec.SECP256R1())
            case "P-384":
                self._key = ec.generate_private_key(ec.SECP384R1())
            case "RSA":
                self._key = rsa.generate_private_key(65537, 2048)
            case _:
                self._key = ed25519.Ed25519PrivateKey.generate()

    @property
    def pem(self) -> bytes:
        """The public half."""
        return self._key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def sign(self, data: bytes) -> bytes:
        match self._key:
            case ec.EllipticCurvePrivateKey():
                return self._key.sign(data, ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPrivateKey():
                return self._key.sign(data, padding.PKCS1v15(), hashes.SHA256())
            case _:
                return self._key.sign(data)


def payload(digest: str, reference: str, **more: Any) -> bytes:
    """What is signed."""
    critical = {
        "identity": {"docker-reference": reference},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    return json.dumps({"critical": critical, "optional": None, **more}).encode()


@dataclass(frozen=True)
class Signature:
    """A payload, and its signature as the annotation has it."""

    payload: bytes
    text: str


def signature(signer: Signer, data: bytes) -> Signature:
    return Signature(data, base64.b64encode(signer.sign(data)).decode())


def manifest(*signatures: Signature) -> images.Image:
    """What the tag `sha256-HEX.sig` stands for."""
    config = images.encode({"rootfs": {"type": "layers", "diff_ids": []}})
    layers = [
        {
            "mediaType": PAYLOAD,
            "digest": images.digest(one.payload),
            "size": len(one.payload),
            "annotations": {ANNOTATION: one.text},
        }
        for one in signatures
    ]
    value = {
        "schemaVersion": 2,
        "mediaType": mediatypes.MANIFEST,
        "config": {"mediaType": mediatypes.CONFIG, "digest": images.digest(config), "size": len(config)},
        "layers": layers,
    }
    data = images.encode(value)
    blobs = {images.digest(one.payload): one.payload for one in signatures} | {images.digest(config): config}
    return images.Image(data, mediatypes.MANIFEST, blobs, {images.digest(data): (mediatypes.MANIFEST, data)})
