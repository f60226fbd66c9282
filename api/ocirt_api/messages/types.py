"""Types that several of containerd's services use: mount.proto, process.proto, runtimeinfo.proto."""

from __future__ import annotations

from ocirt_api.message import STRING, Message, mapping, one, repeated, string, uint32
from ocirt_api.messages.google import Any

# The status of a process.
UNKNOWN, CREATED, RUNNING, STOPPED, PAUSED, PAUSING = range(6)


class Mount(Message):
    """A mount, as mount(8) would make it."""

    type: str = string(1)
    source: str = string(2)
    target: str = string(3)
    options: list[str] = repeated(4, STRING)


class RuntimeRequest(Message):
    """What `-info` of the shim reads."""

    runtime_path: str = string(1)
    options: Any | None = one(2, Any)


class RuntimeVersion(Message):
    """A version of the runtime, and the commit that it was built from."""

    version: str = string(1)
    revision: str = string(2)


class RuntimeInfo(Message):
    """What `-info` of the shim prints."""

    name: str = string(1)
    version: RuntimeVersion | None = one(2, RuntimeVersion)
    options: Any | None = one(3, Any)
    features: Any | None = one(4, Any)
    annotations: dict[str, str] = mapping(5)


class MountCapabilities(Message):
    """What a shim mounts itself: an extension of `BootstrapResult`."""

    TYPE_URL = "containerd.types.MountCapabilities"

    types: list[str] = repeated(1, STRING)
    transforms: list[str] = repeated(2, STRING)


class ProcessInfo(Message):
    """A process of a container; `info` is a `ProcessDetails`."""

    pid: int = uint32(1)
    info: Any | None = one(2, Any)
