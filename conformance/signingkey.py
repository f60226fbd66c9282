"""A private key in cosign's format, for programs that sign with it (go-tuf, `encrypted`: scrypt, then NaCl's secretbox)."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.poly1305 import Poly1305

_WORDS = struct.Struct("<16I")
_CONSTANT = struct.unpack("<4I", b"expand 32-byte k")
_SCRYPT = {"N": 32768, "r": 8, "p": 1}


def write(key: ec.EllipticCurvePrivateKey, path: Path, passphrase: bytes) -> None:
    """Keep a key in a file."""
    encoding, form = serialization.Encoding.DER, serialization.PrivateFormat.PKCS8
    plain = key.private_bytes(encoding, form, serialization.NoEncryption())
    salt, nonce = os.urandom(32), os.urandom(24)
    secret = hashlib.scrypt(passphrase, salt=salt, n=_SCRYPT["N"], r=_SCRYPT["r"], p=_SCRYPT["p"], maxmem=1 << 26, dklen=32)
    value = {
        "kdf": {"name": "scrypt", "params": _SCRYPT, "salt": _text(salt)},
        "cipher": {"name": "nacl/secretbox", "nonce": _text(nonce)},
        "ciphertext": _text(secretbox(plain, secret, nonce)),
    }
    body = base64.encodebytes(json.dumps(value).encode()).decode()
    kind = "ENCRYPTED COSIGN PRIVATE KEY"
    path.write_text(f"-----BEGIN {kind}-----\n{body}-----END {kind}-----\n")


def secretbox(data: bytes, key: bytes, nonce: bytes) -> bytes:
    """XSalsa20 and Poly1305, as NaCl has them: 16 bytes of authentication, then the encrypted data."""
    inner = _salsa(key, nonce[:16], hashing=True)
    blocks = range(-(-(len(data) + 32) // 64))
    stream = b"".join(_salsa(inner, nonce[16:] + struct.pack("<Q", number)) for number in blocks)
    box = bytes(one ^ other for one, other in zip(data, stream[32:], strict=False))
    return Poly1305.generate_tag(stream[:32], box) + box


def _salsa(key: bytes, rest: bytes, *, hashing: bool = False) -> bytes:
    """A block of Salsa20 for nonce and counter, or the key that HSalsa20 makes of 16 bytes."""
    k, n, c = struct.unpack("<8I", key), struct.unpack("<4I", rest), _CONSTANT
    first = [c[0], *k[:4], c[1], *n, c[2], *k[4:], c[3]]
    x = list(first)
    for _ in range(10):
        for four in ((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)):
            _quarter(x, *four)
        for four in ((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)):
            _quarter(x, *four)
    if hashing:
        return struct.pack("<8I", *(x[number] for number in (0, 5, 10, 15, 6, 7, 8, 9)))
    return _WORDS.pack(*((one + other) & 0xFFFFFFFF for one, other in zip(x, first, strict=True)))


def _quarter(x: list[int], a: int, b: int, c: int, d: int) -> None:
    for to, one, other, bits in ((b, a, d, 7), (c, b, a, 9), (d, c, b, 13), (a, d, c, 18)):
        total = (x[one] + x[other]) & 0xFFFFFFFF
        x[to] ^= ((total << bits) | (total >> (32 - bits))) & 0xFFFFFFFF


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
