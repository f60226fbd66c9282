"""Manifests and indexes (image-spec, manifest.md and image-index.md), OCI's and docker's.

They are read from the bytes whose digest was verified, and those bytes are what is kept: a manifest is never written anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ocirt_images import mediatypes, platforms
from ocirt_images.descriptor import Descriptor
from ocirt_images.errors import Error
from ocirt_images.fields import Json, items, parse, strings, text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocirt_images.platforms import Platform

LIMIT = 8 << 20  # bytes of a manifest; registries refuse more than 4 MiB
LAYER_LIMIT = 500  # the lower layers that overlayfs takes (OVL_MAX_STACK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An image, or an artifact that only looks like one."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: dict[str, str] = field(default_factory=dict)

    def check_runnable(self, subject: str) -> None:
        """Raises Error("unsupported") if this is an artifact, which nobody can run, or has layers of unknown types."""
        if self.config.media_type not in mediatypes.CONFIGS:
            kind = self.artifact_type or self.config.media_type
            raise Error("unsupported", f"an artifact of type {kind}, not an image", subject=subject, hint="it has nothing to run")
        for number, layer in enumerate(self.layers):
            if layer.media_type not in mediatypes.LAYERS:
                what = f"a layer of unknown type {layer.media_type[:80]}"
                raise Error("unsupported", what, subject=f"{subject}/layers/{number}")
        if len(self.layers) > LAYER_LIMIT:
            raise Error(
                "unsupported", f"{len(self.layers)} layers", subject=subject, hint=f"overlayfs takes {LAYER_LIMIT} at most"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Manifests, or further indexes, by platform."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: dict[str, str] = field(default_factory=dict)


def choose(entries: Iterable[Descriptor], platform: Platform) -> Descriptor | None:
    """Which entry of an index is for a platform. Those of types that nobody knows are passed over, as image-index.md wants it."""
    known = [one for one in entries if one.media_type in mediatypes.KNOWN]
    number = platforms.choose([one.platform for one in known], platform)
    return None if number is None else known[number]


def offered(entries: Iterable[Descriptor]) -> str:
    """The platforms that there are instead, for a hint; "" for none."""
    known = [one.platform for one in entries if one.media_type in mediatypes.KNOWN and one.platform is not None]
    return ", ".join(sorted({str(one) for one in known if not one.nobody}))


def read(data: bytes, media_type: str, subject: str) -> Manifest | Index:
    """A manifest or index from its bytes.

    `media_type` is what the descriptor or the registry's Content-Type says, or "" if nothing did; a `mediaType` inside must
    agree.
    Raises Error("invalid") that names `subject` and the field, Error("unsupported") for docker's first schema.
    """
    if len(data) > LIMIT:
        raise Error("invalid", f"a manifest of {len(data)} bytes", subject=subject, hint=f"{LIMIT} at most are read")
    value = parse(data, subject)
    media_type = _media_type(value, mediatypes.plain(media_type), subject)
    if media_type in mediatypes.INDEXES:
        if "layers" in value or "config" in value:
            raise Error("invalid", "an index with layers", subject=subject, hint="it must be either an index or a manifest")
        return Index(
            media_type=media_type,
            manifests=_descriptors(value, "manifests", subject),
            subject=_subject(value, subject),
            artifact_type=text(value, "artifactType", subject, ""),
            annotations=strings(value, "annotations", subject),
        )
    if "manifests" in value:
        raise Error("invalid", "a manifest with manifests", subject=subject, hint="it must be either an index or a manifest")
    return Manifest(
        media_type=media_type,
        config=Descriptor.parse(value.get("config"), f"{subject}/config"),
        layers=_descriptors(value, "layers", subject),
        subject=_subject(value, subject),
        artifact_type=text(value, "artifactType", subject, ""),
        annotations=strings(value, "annotations", subject),
    )


def _media_type(value: Json, said: str, subject: str) -> str:
    """The type of a manifest: what it says itself, what was said of it, or what it looks like."""
    own = text(value, "mediaType", subject, "")
    if value.get("schemaVersion") == 1 or said in mediatypes.SCHEMA_1:
        hint = "push it again with a client of this decade"
        raise Error("unsupported", "a manifest of docker's schema 1", subject=subject, hint=hint)
    if own and said in mediatypes.KNOWN and own != said:
        raise Error("invalid", f"it says {own[:80]}, but was announced as {said}", subject=f"{subject}/mediaType")
    if not own and said not in mediatypes.KNOWN:
        # The specification only recommends the field, and a registry may answer with a type of its own.
        own = mediatypes.INDEX if "manifests" in value else mediatypes.MANIFEST
    found = own or said
    if found not in mediatypes.KNOWN:
        raise Error("unsupported", f"a manifest of type {found[:80]}", subject=subject, hint="an OCI or docker image is wanted")
    if value.get("schemaVersion") != 2:
        raise Error("invalid", "not 2", subject=f"{subject}/schemaVersion", cause=repr(value.get("schemaVersion"))[:80])
    return found


def _descriptors(value: Json, name: str, subject: str) -> tuple[Descriptor, ...]:
    found = items(value, name, subject)
    return tuple(Descriptor.parse(one, f"{subject}/{name}/{number}") for number, one in enumerate(found))


def _subject(value: Json, subject: str) -> Descriptor | None:
    found = value.get("subject")
    return None if found is None else Descriptor.parse(found, f"{subject}/subject")
