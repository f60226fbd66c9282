"""Checkpoints: a container's processes written into files, and read from them, by CRIU."""

from __future__ import annotations

from ocirt import paths
from ocirt.errors import Error
from ocirt_api.messages.options import CheckpointOptions
from ocirt_api.wire import DecodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.containers.restore import Restoration
    from ocirt.plan import Request
    from ocirt_api.messages.google import Any as Wrapped
    from ocirt_api.messages.options import Options


def options_of(value: Wrapped | None) -> CheckpointOptions:
    """How to checkpoint. Raises Error("invalid")."""
    if value is None or not value.type_url:
        return CheckpointOptions()
    try:
        return value.read(CheckpointOptions)
    except DecodeError as err:
        raise Error("invalid", str(err), subject="options") from None


def flags(path: str, asked: CheckpointOptions, work: str = "") -> dict[str, Any]:
    """The flags of `ocirt checkpoint` that say the same. Raises Error for what cannot be had."""
    for kind in asked.empty_namespaces:
        if kind != "network":
            raise Error("unsupported", f"a {kind} namespace cannot be left empty", subject="empty_namespaces")
    images = path or asked.image_path
    if not images.startswith("/"):
        raise Error("invalid", "an absolute path is expected", subject="path")
    return {
        "image-path": images,
        "work-path": asked.work_path or work,
        "parent-path": asked.parent_path,
        "leave-running": not asked.exit,
        "tcp-established": asked.open_tcp,
        "ext-unix-sk": asked.external_unix_sockets,
        "shell-job": asked.terminal,
        "file-locks": asked.file_locks,
        "manage-cgroups-mode": asked.cgroups_mode,
    }


def write(runtime: str, container: str, given: dict[str, Any]) -> list[str]:
    """In a worker: checkpoint a container; what was wrong with deleting it afterwards. Raises Error, OSError."""
    from ocirt.containers.checkpoint import checkpoint  # noqa: PLC0415  (seldom)

    paths.make_directories(given["image-path"], 0o700)
    return checkpoint(runtime, container, given)


def restoration(runtime: str, request: Request, images: str, options: Options) -> Restoration:
    """In a worker: a container that comes out of a checkpoint. Raises Error, OSError."""
    from ocirt.containers.restore import Restoration  # noqa: PLC0415  (seldom)

    found = Restoration(runtime, request)
    found.set_flags({"image-path": images, "work-path": options.criu_work_path, "manage-cgroups-mode": ""})
    return found
