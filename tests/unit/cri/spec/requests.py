"""Requests, and a host that is looked at in no way: what tests begin with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ocirt.errors import Error
from ocirt.spec.check import check
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.spec.build import Built, build
from ocirt_cri.spec.inputs import CdiDocument, Container, DeviceNode, Host, ImageVolume, Pod, Settings
from ocirt_images.config import ImageConfig
from ocirt_images.platforms import Platform

POD_ID = "a" * 64
CONTAINER_ID = "c" * 64
TARGET_ID = "b" * 64
HOST = Host(hostname="node-1")
SETTINGS = Settings()
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001::/home:/bin/sh\nbob:x:1002:1002::/:/bin/sh\n"
GROUP = b"root:x:0:\nalice:x:1001:\naudio:x:29:alice\nmany:x:50000:alice,bob\n"
FUSE = DeviceNode(path="/dev/fuse", kind="c", major=10, minor=229, mode=0o666)
DISK = DeviceNode(path="/dev/sda", kind="b", major=8, minor=0, mode=0o660, gid=6)


@dataclass
class Lookups:
    """Answers from tables.

    links: by path; missing: paths that are not there; broken: those that give EIO, with a `!` not before they are resolved
    trees: devices by path, for directories too
    unloadable: why the runtime's own profile cannot be loaded into `loaded`
    """

    links: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    kinds: dict[str, str] = field(default_factory=dict)
    trees: dict[str, list[DeviceNode]] = field(
        default_factory=lambda: {"/dev/fuse": [FUSE], "/dev/sda": [DISK], "/dev": [FUSE, DISK]}
    )
    profiles: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=lambda: {"/etc/passwd": PASSWD, "/etc/group": GROUP})
    image: tuple[str, ...] = ("/data",)
    targets: dict[str, str] = field(default_factory=lambda: {TARGET_ID: "/proc/77/ns/pid"})
    loaded: tuple[str, ...] = ("ocirt-default", "k8s-strict")
    unloadable: str = ""
    warnings: tuple[str, ...] = ()
    specifications: Sequence[CdiDocument] = ()

    def resolve(self, path: str) -> str:
        if path in self.missing:
            raise FileNotFoundError(2, "No such file or directory", path)
        if path in self.broken:
            raise OSError(5, "Input/output error", path)
        return self.links.get(path, path)

    def propagation(self, path: str) -> str:
        if path + "!" in self.broken:
            raise OSError(5, "Input/output error", path)
        return self.kinds.get(path, "private")

    def devices(self, path: str) -> Sequence[DeviceNode]:
        if path in self.missing:
            raise FileNotFoundError(2, "No such file or directory", path)
        if path + "!" in self.broken:
            raise OSError(5, "Input/output error", path)
        if path not in self.trees:
            raise ValueError(path)
        return self.trees[path]

    def read(self, path: str) -> bytes:
        if path not in self.profiles:
            raise FileNotFoundError(2, "No such file or directory", path)
        return self.profiles[path]

    def read_image(self, path: str) -> bytes | None:
        return self.files.get(path)

    def in_image(self, path: str) -> bool:
        return path in self.image

    def pid_namespace(self, container: str) -> str:
        return self.targets.get(container, "")

    def has_apparmor_profile(self, name: str) -> bool:
        return name in self.loaded

    def load_apparmor_profile(self, name: str) -> None:
        if self.unloadable:
            raise Error("unsupported", "not loaded", cause=self.unloadable, hint="install it")
        self.loaded = (*self.loaded, name)

    def warn(self, text: str) -> None:
        self.warnings = (*self.warnings, text)

    def cdi(self) -> Sequence[CdiDocument]:
        return self.specifications


def image(**changes: Any) -> ImageConfig:
    values: dict[str, Any] = {
        "platform": Platform("linux", "amd64"),
        "diff_ids": (),
        "labels": {},
        "raw": {},
        "cmd": ("sh",),
    }
    return ImageConfig(**values | changes)


def pod_config(**changes: Any) -> cri.PodSandboxConfig:
    """A pod as small as it can be; the keywords are fields, merged into it."""
    config = cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name="web", uid="u-1", namespace="default"), log_directory="/var/log/pods/web"
    )
    config.MergeFrom(cri.PodSandboxConfig(**changes))
    return config


def config(**changes: Any) -> cri.ContainerConfig:
    """A container as small as it can be; the keywords are fields, merged into it."""
    found = cri.ContainerConfig(metadata=cri.ContainerMetadata(name="app"), image=cri.ImageSpec(image="busybox"))
    found.MergeFrom(cri.ContainerConfig(**changes))
    return found


def secure(**changes: Any) -> cri.ContainerConfig:
    """A container with this security context."""
    return config(linux=cri.LinuxContainerConfig(security_context=cri.LinuxContainerSecurityContext(**changes)))


def limited(**changes: Any) -> cri.ContainerConfig:
    """A container with these resources."""
    return config(linux=cri.LinuxContainerConfig(resources=cri.LinuxContainerResources(**changes)))


def secure_pod(**changes: Any) -> cri.PodSandboxConfig:
    """A pod with this security context."""
    return pod_config(linux=cri.LinuxPodSandboxConfig(security_context=cri.LinuxSandboxSecurityContext(**changes)))


def options(**changes: Any) -> cri.NamespaceOption:
    return cri.NamespaceOption(**changes)


def userns(host: int = 100000, length: int = 65536, **changes: Any) -> cri.NamespaceOption:
    """Namespace options with a user namespace."""
    ids = [cri.IDMapping(host_id=host, container_id=0, length=length)]
    return options(userns_options=cri.UserNamespace(mode=cri.POD, uids=ids, gids=ids), **changes)


def pod(given: cri.PodSandboxConfig | None = None, **changes: Any) -> Pod:
    """The pod that was made for a configuration."""
    given = pod_config() if given is None else given
    modes = given.linux.security_context.namespace_options
    values: dict[str, Any] = {
        "id": POD_ID,
        "config": given,
        "network": "" if modes.network == cri.NODE else "/run/netns/pod",
        "ipc": "" if modes.ipc == cri.NODE else "/run/pod/ipc",
        "uts": "" if modes.network == cri.NODE else "/run/pod/uts",
        "pid": "/proc/50/ns/pid" if modes.pid == cri.POD else "",
        "user": "/run/pod/user" if modes.HasField("userns_options") else "",
        "hosts": "/run/pod/hosts",
        "resolv_conf": "/run/pod/resolv.conf",
        "hostname_file": "/run/pod/hostname",
        "shm": "/run/pod/shm",
        "hostname": "web",
    }
    return Pod(**values | changes)


def made(
    given: cri.ContainerConfig | None = None,
    *,
    of: Pod | cri.PodSandboxConfig | None = None,
    image: ImageConfig = image(),  # noqa: B008
    host: Host = HOST,
    settings: Settings = SETTINGS,
    lookups: Lookups | None = None,
    volumes: Mapping[int, ImageVolume] | None = None,
    accepted: bool = True,
) -> Built:
    """What comes of a request; `accepted`: and the runtime finds no fault with it, not even one that it would only warn of."""
    container = Container(
        id=CONTAINER_ID,
        config=config() if given is None else given,
        image=image,
        image_name="docker.io/library/busybox:latest",
        directory=f"/var/lib/ocirt/containers/{CONTAINER_ID}",
        volumes=volumes or {},
    )
    owner = of if isinstance(of, Pod) else pod(of)
    found = build(owner, container, host, settings, lookups or Lookups())
    if accepted:
        assert check(found.document) == []
    return found


def refused(do: Callable[[], object], field: str, *words: str, code: str = "invalid") -> Error:
    """`do` is refused with an error that names the field, has the words, and says what to do."""
    with pytest.raises(Error) as caught:
        do()
    error = caught.value
    assert error.subject == field, str(error)
    assert error.code == code, str(error)
    for word in words:
        assert word in str(error), str(error)
    assert error.hint or error.cause, str(error)
    return error


def with_host(**changes: Any) -> Host:
    return replace(HOST, **changes)


def with_settings(**changes: Any) -> Settings:
    return replace(SETTINGS, **changes)
