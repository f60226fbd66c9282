"""Where a container's log goes: below its pod's log directory, and nowhere else."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from ocirt_cri.spec.refuse import invalid, shown

if TYPE_CHECKING:
    from ocirt_api.cri.api_pb2 import ContainerConfig, PodSandboxConfig

_LONGEST = 4096


def check_directory(pod: PodSandboxConfig, field: str) -> None:
    """Raises Error for a log directory that is none."""
    directory = pod.log_directory
    if not directory:
        return
    if not directory.startswith("/"):
        raise invalid(field, f"{shown(directory)} is not an absolute path", "such as /var/log/pods/NAMESPACE_NAME_UID")
    _plain(directory, field)


def path(pod: PodSandboxConfig, config: ContainerConfig) -> str:
    """The absolute path of the log, "" if none is wanted. Raises Error for one outside the pod's log directory."""
    field = "config.log_path"
    if not config.log_path:
        return ""
    if not pod.log_directory:
        return ""  # as with the other runtimes: without a directory nothing is logged
    if config.log_path.startswith("/"):
        hint = f"relative to the pod's log_directory, {pod.log_directory}"
        raise invalid(field, f"{shown(config.log_path)} is an absolute path", hint)
    _plain(config.log_path, field)
    found = posixpath.normpath(config.log_path)
    if found == "." or config.log_path.endswith("/"):
        raise invalid(field, f"{shown(config.log_path)} names no file", "such as NAME/0.log")
    return posixpath.join(posixpath.normpath(pod.log_directory), found)


def _plain(given: str, field: str) -> None:
    if ".." in given.split("/"):
        raise invalid(field, f"{shown(given)} leads out of its directory", "a path without `..`")
    if "\0" in given or "\n" in given or len(given) > _LONGEST:
        raise invalid(field, f"{shown(given)} is no path", f"at most {_LONGEST} characters, none of them NUL or a line's end")
