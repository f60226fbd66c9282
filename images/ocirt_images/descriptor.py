"""Descriptors: what points to content (image-spec, descriptor.md)."""

from __future__ import annotations

from dataclasses import dataclass, field

from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.fields import Json, mapping, strings, text, texts
from ocirt_images.platforms import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What points to content: its type, digest and size in bytes, and what else is said of it."""

    media_type: str
    digest: Digest
    size: int
    annotations: dict[str, str] = field(default_factory=dict)
    platform: Platform | None = None
    urls: tuple[str, ...] = ()
    artifact_type: str = ""

    @classmethod
    def parse(cls, value: object, pointer: str) -> Descriptor:
        """A descriptor from JSON. Raises Error("invalid") that names the field below `pointer`, e.g. `sha256:…/layers/3`."""
        found = mapping(value, pointer)
        size = found.get("size")
        if type(size) is not int or not 0 <= size < 1 << 63:
            raise Error("invalid", "not a size in bytes", subject=f"{pointer}/size", cause=repr(size)[:80])
        digest = text(found, "digest", pointer)
        platform = found.get("platform")
        return cls(
            media_type=text(found, "mediaType", pointer),
            digest=Digest(digest, f"{pointer}/digest"),
            size=size,
            annotations=strings(found, "annotations", pointer),
            platform=None if platform is None else Platform.parse(platform, f"{pointer}/platform"),
            urls=tuple(texts(found, "urls", pointer)),
            artifact_type=text(found, "artifactType", pointer, ""),
        )

    def json(self) -> Json:
        """As JSON, without what is empty."""
        value: Json = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.urls:
            value["urls"] = list(self.urls)
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        if self.platform is not None:
            value["platform"] = self.platform.json()
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        return value
