"""An image's configuration: what it runs, and which layers it has (image-spec, config.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.fields import Json, items, mapping, parse, strings, text, texts
from ocirt_images.platforms import Platform

if TYPE_CHECKING:
    from ocirt_images.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What an image says of itself.

    entrypoint, cmd: None where the image says nothing; an empty list says: nothing
    env: `NAME=VALUE`; exposed_ports: `80/tcp`; volumes: paths; stop_signal: a name or number, or ""
    history: as it stands in the image; raw: the whole configuration, for `inspect`
    """

    platform: Platform
    diff_ids: tuple[Digest, ...]
    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    working_dir: str = ""
    stop_signal: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: dict[str, str]
    created: str = ""
    history: tuple[Json, ...] = ()
    raw: Json

    @classmethod
    def read(cls, data: bytes, subject: str) -> ImageConfig:
        """From the bytes of a configuration. Raises Error("invalid") that names the field."""
        value = parse(data, subject)
        rootfs = mapping(value.get("rootfs"), f"{subject}/rootfs")
        if text(rootfs, "type", f"{subject}/rootfs") != "layers":
            raise Error("invalid", "not `layers`", subject=f"{subject}/rootfs/type", cause=repr(rootfs["type"])[:80])
        config = mapping(value.get("config") or {}, f"{subject}/config")
        where = f"{subject}/config"
        return cls(
            platform=Platform.parse(value, subject),
            diff_ids=tuple(
                Digest(one, f"{subject}/rootfs/diff_ids/{number}")
                for number, one in enumerate(texts(rootfs, "diff_ids", f"{subject}/rootfs"))
            ),
            user=text(config, "User", where, ""),
            env=tuple(texts(config, "Env", where)),
            entrypoint=_command(config, "Entrypoint", where),
            cmd=_command(config, "Cmd", where),
            working_dir=text(config, "WorkingDir", where, ""),
            stop_signal=text(config, "StopSignal", where, ""),
            exposed_ports=_names(config, "ExposedPorts", where),
            volumes=_names(config, "Volumes", where),
            labels=strings(config, "Labels", where),
            created=text(value, "created", subject, ""),
            history=tuple(
                mapping(one, f"{subject}/history/{number}") for number, one in enumerate(items(value, "history", subject))
            ),
            raw=value,
        )

    def check_layers(self, manifest: Manifest, subject: str) -> None:
        """Raises Error("invalid") unless there is a DiffID for each of the manifest's layers."""
        if len(self.diff_ids) != len(manifest.layers):
            what = f"{len(self.diff_ids)} entries for {len(manifest.layers)} layers"
            raise Error("invalid", what, subject=f"{subject}/rootfs/diff_ids")

    def check_platform(self, wanted: Platform, subject: str) -> None:
        """Raises Error("unsupported") if it is an image for another operating system."""
        if self.platform.os not in ("", wanted.os):
            hint = f"this machine runs images for {wanted}"
            raise Error("unsupported", f"an image for {self.platform}", subject=subject, hint=hint)


def _command(config: Json, name: str, where: str) -> tuple[str, ...] | None:
    return None if config.get(name) is None else tuple(texts(config, name, where))


def _names(config: Json, name: str, where: str) -> tuple[str, ...]:
    """The keys of a map that Go writes for a set."""
    return tuple(sorted(mapping(config.get(name) or {}, f"{where}/{name}")))
