"""What policy.json may require of an image (containers-policy.json(5), "Policy Requirements")."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ocirt_images.errors import Error
from ocirt_images.fields import Json, mapping, text, texts
from ocirt_images.trust import strict

if TYPE_CHECKING:
    from ocirt_images.digest import Digest
    from ocirt_images.reference import Reference
    from ocirt_images.registry.client import Registry
    from ocirt_images.trust.identity import Identity
    from ocirt_images.trust.keys import Key

_KEYS = ("keyPath", "keyPaths", "keyData", "keyDatas")
_REKOR = ("rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas")
_SIGN_WITH = "sign it by `cosign sign --new-bundle-format=false --use-signing-config=false --key FILE`"
_SIGNED = ("type", *_KEYS, "fulcio", "pki", *_REKOR, "signedIdentity")


class Requirement(Protocol):
    """One of them; all that are named have to be met."""

    def check(self, asked: Reference, digest: Digest, registry: Registry) -> str:
        """Why an image does not meet it; "" if it does.

        asked: as it was asked for; digest: of what that stands for. Raises what the registry client does.
        """


def parse(value: object, pointer: str) -> Requirement:
    """A requirement from policy.json. Raises Error("invalid") that names `pointer`."""
    found = mapping(value, pointer)
    match text(found, "type", pointer):
        case "insecureAcceptAnything":
            strict.check(found, ("type",), pointer)
            return Anything()
        case "reject":
            strict.check(found, ("type",), pointer)
            return Reject()
        case "sigstoreSigned":
            strict.check(found, _SIGNED, pointer)
            return _signed(found, pointer)
        case "signedBy":
            return Unsupported("it has to be signed by GPG (signedBy), which ocirt does not verify")
        case "signedBaseLayer":
            return Unsupported("its base layer has to be signed (signedBaseLayer), which nobody verifies")
        case kind:
            hint = "insecureAcceptAnything, reject, sigstoreSigned, signedBy"
            raise Error("invalid", f"{kind[:80]!r} is no requirement", subject=f"{pointer}/type", hint=hint)


@dataclass(frozen=True, slots=True)
class Anything:
    """insecureAcceptAnything."""

    def check(self, asked: Reference, digest: Digest, registry: Registry) -> str:
        """See `Requirement`."""
        del asked, digest, registry
        return ""


@dataclass(frozen=True, slots=True)
class Reject:
    """reject."""

    def check(self, asked: Reference, digest: Digest, registry: Registry) -> str:
        """See `Requirement`."""
        del asked, digest, registry
        return "it is rejected"


@dataclass(frozen=True, slots=True)
class Unsupported:
    """What cannot be verified here is not met. It is no error of the file: it may be about images that nobody asks for."""

    reason: str

    def check(self, asked: Reference, digest: Digest, registry: Registry) -> str:
        """See `Requirement`."""
        del asked, digest, registry
        return self.reason


@dataclass(frozen=True, slots=True)
class SigstoreSigned:
    """sigstoreSigned, by one of several keys. paths, pems: where they are to be read, or they themselves."""

    paths: tuple[Path, ...]
    pems: tuple[bytes, ...]
    identity: Identity
    pointer: str

    def check(self, asked: Reference, digest: Digest, registry: Registry) -> str:
        """See `Requirement`."""
        reasons: dict[str, None] = {}
        try:
            keys = self._keys()
            from ocirt_images.trust import sigstore  # noqa: PLC0415  (most machines ask for no signatures)

            for one in sigstore.signatures(registry, asked, digest):
                reason = sigstore.verify(one, keys, asked, digest, self.identity)
                if not reason:
                    return ""
                reasons[reason] = None
        except Error as err:
            if err.code not in ("invalid", "unsupported", "corrupt"):
                raise
            return str(err)
        if not reasons:
            if sigstore.has_bundle(registry, asked, digest):
                return f"it is signed by a bundle, which does not say for which name; {_SIGN_WITH}"
            return f"it is not signed: there is no tag {sigstore.tag(digest)} in its repository"
        return f"no signature of it is accepted: {'; '.join(list(reasons)[:5])}"

    def _keys(self) -> list[Key]:
        """Read anew each time, as keys change. Raises Error that names the file or field."""
        from ocirt_images.trust.keys import Key  # noqa: PLC0415  (cryptography takes long to load)

        found = [Key.load(pem, self.pointer) for pem in self.pems]
        for path in self.paths:
            try:
                found.append(Key.load(path.read_bytes(), str(path)))
            except OSError as err:
                raise Error("invalid", "the key cannot be read", subject=str(path), cause=err.strerror or "") from None
        return found


def _signed(value: Json, pointer: str) -> Requirement:
    from ocirt_images.trust import identity  # noqa: PLC0415  (as above)

    who = identity.parse(value.get("signedIdentity"), f"{pointer}/signedIdentity")
    given = [name for name in (*_KEYS, "fulcio", "pki") if name in value]
    if len(given) != 1:
        named = ", ".join(given) or "none"
        raise Error("invalid", f"one of {', '.join(_KEYS)}, fulcio, pki is wanted", subject=pointer, cause=f"there is {named}")
    if given[0] == "fulcio":
        return Unsupported("it has to be signed by a certificate of Fulcio, which ocirt does not verify")
    if given[0] == "pki":
        return Unsupported("it has to be signed by a certificate (pki), which ocirt does not verify")
    if any(name in value for name in _REKOR):
        return Unsupported("its signature has to be in a log of Rekor, which ocirt does not verify")
    return SigstoreSigned(_paths(value, pointer), _pems(value, pointer), who, pointer)


def _paths(value: Json, pointer: str) -> tuple[Path, ...]:
    found = [text(value, "keyPath", pointer)] if "keyPath" in value else texts(value, "keyPaths", pointer)
    if "keyPaths" in value and not found:
        raise Error("invalid", "no key", subject=f"{pointer}/keyPaths")
    return tuple(Path(one) for one in found)


def _pems(value: Json, pointer: str) -> tuple[bytes, ...]:
    name = "keyDatas" if "keyDatas" in value else "keyData"
    found = texts(value, name, pointer) if name == "keyDatas" else [text(value, name, pointer)] if name in value else []
    if "keyDatas" in value and not found:
        raise Error("invalid", "no key", subject=f"{pointer}/keyDatas")
    try:
        return tuple(base64.b64decode(one, validate=True) for one in found)
    except (binascii.Error, ValueError):
        raise Error("invalid", "not base64", subject=f"{pointer}/{name}") from None
