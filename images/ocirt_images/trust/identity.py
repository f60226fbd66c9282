"""What image a signature has to be for (containers-policy.json(5), "signedIdentity").

An image that was asked for by tag and digest counts as asked for by digest, as the digest decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ocirt_images.errors import Error
from ocirt_images.fields import Json, mapping, text
from ocirt_images.reference import Reference
from ocirt_images.trust import strict

if TYPE_CHECKING:
    from collections.abc import Callable


class Identity(Protocol):
    """A rule."""

    def accepts(self, asked: Reference, signed: str) -> bool:
        """Whether a signature for `signed` will do for the image that was asked for."""


def parse(value: object, pointer: str) -> Identity:
    """A rule from policy.json; None is the default one. Raises Error("invalid") that names `pointer`."""
    if value is None:
        return RepoDigestOrExact()
    found = mapping(value, pointer)
    kind = text(found, "type", pointer)
    make = _KINDS.get(kind)
    if make is None:
        raise Error("invalid", f"{kind[:80]!r} is no identity", subject=f"{pointer}/type", hint=", ".join(_KINDS))
    return make(found, pointer)


@dataclass(frozen=True, slots=True)
class Exact:
    """matchExact: what was asked for, by the same tag or digest."""

    def accepts(self, asked: Reference, signed: str) -> bool:
        """See `Identity`."""
        found = _named(signed)
        return found is not None and _whole(found) and str(found) == str(_asked(asked))


@dataclass(frozen=True, slots=True)
class RepoDigestOrExact:
    """matchRepoDigestOrExact: the same tag; for an image by digest, any of its repository."""

    def accepts(self, asked: Reference, signed: str) -> bool:
        """See `Identity`."""
        found = _named(signed)
        if found is None or not _whole(found):
            return False
        return found.name == asked.name if asked.digest is not None else str(found) == str(asked)


@dataclass(frozen=True, slots=True)
class Repository:
    """matchRepository: any tag of the same repository, or none. What cosign signs names no tag."""

    def accepts(self, asked: Reference, signed: str) -> bool:
        """See `Identity`."""
        found = _named(signed)
        return found is not None and found.name == asked.name


@dataclass(frozen=True, slots=True)
class ExactReference:
    """exactReference: this one, whatever was asked for."""

    wanted: Reference

    def accepts(self, asked: Reference, signed: str) -> bool:
        """See `Identity`."""
        del asked
        return _named(signed) == self.wanted


@dataclass(frozen=True, slots=True)
class ExactRepository:
    """exactRepository: any of this repository, whatever was asked for."""

    wanted: Reference

    def accepts(self, asked: Reference, signed: str) -> bool:
        """See `Identity`."""
        del asked
        found = _named(signed)
        return found is not None and found.name == self.wanted.name


@dataclass(frozen=True, slots=True)
class Remapped:
    """remapIdentity: as matchRepoDigestOrExact, with another beginning of the name."""

    prefix: str
    signed_prefix: str

    def accepts(self, asked: Reference, signed: str) -> bool:
        """See `Identity`."""
        if asked.name != self.prefix and not asked.name.startswith(f"{self.prefix}/"):
            return RepoDigestOrExact().accepts(asked, signed)
        found = _named(f"{self.signed_prefix}{asked.name.removeprefix(self.prefix)}")
        if found is None:
            return False
        return RepoDigestOrExact().accepts(Reference(found.host, found.path, asked.tag, asked.digest), signed)


def _plain(kind: type[Exact | RepoDigestOrExact | Repository]) -> Callable[[Json, str], Identity]:
    def make(value: Json, pointer: str) -> Identity:
        strict.check(value, ("type",), pointer)
        return kind()

    return make


def _exact_reference(value: Json, pointer: str) -> Identity:
    strict.check(value, ("type", "dockerReference"), pointer)
    found = _reference(value, "dockerReference", pointer)
    if not _whole(found):
        hint = "HOST/PATH:TAG, or exactRepository"
        raise Error("invalid", "neither a tag nor a digest", subject=f"{pointer}/dockerReference", hint=hint)
    return ExactReference(found)


def _exact_repository(value: Json, pointer: str) -> Identity:
    strict.check(value, ("type", "dockerRepository"), pointer)
    found = _reference(value, "dockerRepository", pointer)
    if _whole(found):
        raise Error("invalid", "a repository has neither tag nor digest", subject=f"{pointer}/dockerRepository")
    return ExactRepository(found)


def _remap(value: Json, pointer: str) -> Identity:
    strict.check(value, ("type", "prefix", "signedPrefix"), pointer)
    prefixes = []
    for name in ("prefix", "signedPrefix"):
        found = text(value, name, pointer)
        try:
            # A host alone is one, so that a path behind it makes a name.
            good = found.rstrip("/") == found and not _whole(Reference.parse(f"{found}/x", tag=""))
        except Error:
            good = False
        if not good:
            raise Error("invalid", f"{found[:80]!r} is no beginning of names", subject=f"{pointer}/{name}", hint="HOST[/PATH]")
        prefixes.append(found)
    return Remapped(*prefixes)


_KINDS: dict[str, Callable[[Json, str], Identity]] = {
    "matchExact": _plain(Exact),
    "matchRepoDigestOrExact": _plain(RepoDigestOrExact),
    "matchRepository": _plain(Repository),
    "exactReference": _exact_reference,
    "exactRepository": _exact_repository,
    "remapIdentity": _remap,
}


def _reference(value: Json, name: str, pointer: str) -> Reference:
    found = text(value, name, pointer)
    try:
        return Reference.parse(found, short=True, tag="")
    except Error as err:
        raise Error("invalid", err.message, subject=f"{pointer}/{name}", cause=err.cause, hint=err.hint) from None


def _named(signed: str) -> Reference | None:
    """What a signature names: docker.io's names may be short; nothing is added to it."""
    try:
        return Reference.parse(signed, short=True, tag="")
    except Error:
        return None


def _whole(reference: Reference) -> bool:
    """Whether it names an image, and not only a repository."""
    return bool(reference.tag or reference.digest)


def _asked(reference: Reference) -> Reference:
    return reference if reference.digest is None else reference.with_digest(reference.digest)
