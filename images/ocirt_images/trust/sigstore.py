"""Signatures as cosign keeps them: in the image's repository, under a tag made of the image's digest.

The tag names a manifest whose layers are payloads ("simple signing" JSON), each with its signature as an annotation (cosign,
specs/SIGNATURE_SPEC.md). Nothing of it is trusted before a signature is verified.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocirt_images import manifest as manifests
from ocirt_images.errors import Error
from ocirt_images.fields import mapping, text
from ocirt_images.reference import Reference
from ocirt_images.trust import strict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocirt_images.descriptor import Descriptor
    from ocirt_images.digest import Digest
    from ocirt_images.registry.client import Registry
    from ocirt_images.trust.identity import Identity
    from ocirt_images.trust.keys import Key

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
BUNDLE = "application/vnd.dev.sigstore.bundle."  # what artifact types of bundles begin with
EMPTY = "application/vnd.oci.empty.v1+json"
_REFERRERS = 16  # that are looked at
_TYPE = "cosign container image signature"
_LARGEST = 4 << 20  # bytes of a payload
_MOST = 128  # signatures of an image that are looked at
_TAG = 128  # characters of a tag, at most


@dataclass(frozen=True, slots=True)
class Signature:
    """One that is still to be verified. text: base64."""

    payload: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Signed:
    """What a payload says, once its signature is verified."""

    digest: str
    reference: str


def tag(digest: Digest) -> str:
    """The tag for an image's signatures."""
    return f"{digest.algorithm}-{digest.encoded}.sig"


def signatures(registry: Registry, reference: Reference, digest: Digest) -> Iterator[Signature]:
    """The signatures of an image, fetched one by one; none if its tag is not there.

    Raises what the registry client does, but for Error("not-found"); Error("invalid") for a tag of something else.
    """
    if len(tag(digest)) > _TAG:
        return  # a sha512 makes no tag
    where = Reference(reference.host, reference.path, tag(digest))
    try:
        data = registry.resolve(where).data
    except Error as err:
        if err.code == "not-found":
            return
        raise
    found = manifests.read(data, "", str(where))
    if not isinstance(found, manifests.Manifest):
        raise Error("invalid", "an index, where signatures are wanted", subject=str(where))
    for layer in [one for one in found.layers if one.media_type == PAYLOAD][:_MOST]:
        if layer.size <= _LARGEST:
            yield Signature(_read(registry, where, layer), layer.annotations.get(ANNOTATION, ""))


def has_bundle(registry: Registry, reference: Reference, digest: Digest) -> bool:
    """Whether a manifest that refers to the image is a bundle of sigstore's, as cosign 3 makes them. For an error's text."""
    try:
        return any(_is_bundle(registry, reference, one) for one in registry.referrers(reference, digest)[:_REFERRERS])
    except Error:
        return False


def _is_bundle(registry: Registry, reference: Reference, one: Descriptor) -> bool:
    if one.artifact_type.startswith(BUNDLE):
        return True
    if one.artifact_type not in ("", EMPTY):
        return False
    # Where the registry keeps no list of referrers, cosign (2.6) enters the type of the empty config.
    where = Reference(reference.host, reference.path, "", one.digest)
    found = manifests.read(registry.resolve(where).data, one.media_type, str(where))
    return found.artifact_type.startswith(BUNDLE)


def _read(registry: Registry, reference: Reference, blob: Descriptor) -> bytes:
    with registry.blob(reference, blob) as body:
        return b"".join(iter(body.read, b""))


def verify(signature: Signature, keys: list[Key], asked: Reference, digest: Digest, identity: Identity) -> str:
    """What is wrong with a signature; "" if it is by one of the keys and for this image."""
    try:
        raw = base64.b64decode(signature.text, validate=True)
    except (binascii.Error, ValueError):
        return "its signature is not base64"
    if not raw or not any(key.made(raw, signature.payload) for key in keys):
        return "it is not by a key that is trusted"
    try:
        said = read(signature.payload)
    except Error as err:
        return f"its payload cannot be read: {err}"
    if said.digest != digest:
        return f"it is for another image, {said.digest[:80]}"
    if not identity.accepts(asked, said.reference):
        return f"it is for {said.reference[:255]!r}"
    return ""


def read(payload: bytes) -> Signed:
    """What a payload says. Raises Error("invalid")."""
    value = strict.parse(payload, "payload")
    strict.check(value, ("critical", "optional"), "payload")
    critical = mapping(value.get("critical"), "/critical")
    strict.check(critical, ("type", "image", "identity"), "/critical")
    if (kind := text(critical, "type", "/critical")) != _TYPE:
        raise Error("invalid", f"of type {kind[:80]!r}", subject="/critical/type")
    image, identity = (mapping(critical.get(name), f"/critical/{name}") for name in ("image", "identity"))
    strict.check(image, ("docker-manifest-digest",), "/critical/image")
    strict.check(identity, ("docker-reference",), "/critical/identity")
    return Signed(
        text(image, "docker-manifest-digest", "/critical/image"),
        text(identity, "docker-reference", "/critical/identity"),
    )
