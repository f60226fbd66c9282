"""What a request is judged by: the host, the daemon's settings, the pod that is there, and the few things that are looked up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ocirt import apparmor
from ocirt.spec.capabilities import NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ocirt_api.cri.api_pb2 import ContainerConfig, PodSandboxConfig
    from ocirt_images.config import ImageConfig

Json = dict[str, Any]

# docker's fourteen, which containerd gives as well.
CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SYS_CHROOT",
    "CAP_MKNOD",
    "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
)
HANDLERS = ("", "ocirt")  # two names of the one that is always there
SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine.

    cgroup_version: 2 only where all controllers are in the unified hierarchy; controllers: those that may be used
    swap: whether the kernel counts swap of cgroups
    kernel: its version; machine: as uname(2) names it
    recursive_read_only, idmapped_mounts, user_namespaces: whether the kernel has them
    mapped_layers: whether the file system of the images takes part in mounts with mapped ids
    apparmor, selinux, seccomp: whether they are in force
    capabilities: all that a container can have, which may be less than the kernel has
    oom_score_adj: the daemon's own; limited_oom_score_adj: it may give none that is lower
    hard_limits: the highest hard limits that a process can get, by name; those that are not there are not bounded
    hostname: of the machine
    selinux_labels: the labels of a process and of its files where nothing else is said
    """

    cgroup_version: int = 2
    controllers: frozenset[str] = frozenset(("cpu", "cpuset", "hugetlb", "io", "memory", "pids"))
    swap: bool = True
    kernel: tuple[int, int] = (6, 6)
    machine: str = "x86_64"
    recursive_read_only: bool = True
    idmapped_mounts: bool = True
    user_namespaces: bool = True
    mapped_layers: bool = True
    apparmor: bool = False
    selinux: bool = False
    seccomp: bool = True
    capabilities: tuple[str, ...] = NAMES
    oom_score_adj: int = 0
    limited_oom_score_adj: bool = False
    hard_limits: Mapping[str, int] = field(default_factory=dict)
    hostname: str = "localhost"
    selinux_labels: tuple[str, str] = ("system_u:system_r:container_t:s0", "system_u:object_r:container_file_t:s0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The daemon's configuration, as far as it says what containers get.

    handlers: the runtime handlers, "" among them
    cgroup_manager: cgroupfs or systemd; cgroup_parent: of pods that name none, "" for `/ocirt` or `system.slice`
    capabilities: of a container that is not privileged
    seccomp_unset: what a request without a word about seccomp means, unconfined or runtime-default
    apparmor_profile: the name of the runtime's own profile
    pids_limit: tasks of a container, 0 for no limit
    rlimits: of a process, by name, soft and hard, over the baseline of rlimits.py
    make_host_paths: make what a mount names and is not there, as a directory; else refuse
    host_devices: whether a privileged container gets the host's
    device_owner: devices belong to the user of the request
    cgroup_writable: mount cgroups read-write, where the container has a cgroup namespace
    annotations: patterns (`*` at the end) of those of a container that go into config.json; pod_annotations: of those of its pod
    sysctls: of pods that do not say otherwise
    shm_size: bytes of /dev/shm
    """

    handlers: tuple[str, ...] = HANDLERS
    cgroup_manager: str = "cgroupfs"
    cgroup_parent: str = ""
    capabilities: tuple[str, ...] = CAPABILITIES
    seccomp_unset: str = "unconfined"
    apparmor_profile: str = apparmor.NAME
    pids_limit: int = 0
    rlimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    make_host_paths: bool = True
    host_devices: bool = True
    device_owner: bool = False
    cgroup_writable: bool = False
    annotations: tuple[str, ...] = ()
    pod_annotations: tuple[str, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=lambda: dict(SYSCTLS))
    shm_size: int = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod that is there.

    id, config: its own; config is the one that RunPodSandbox was given
    network, ipc, uts, user, pid: paths of its namespaces, "" for those that it has not
    hosts, resolv_conf, hostname_file: files for /etc; shm: what goes to /dev/shm. "": not mounted
    hostname: what the pod is called, from `PodWants`
    labels: SELinux's, of processes and of files, once they were given out
    """

    id: str
    config: PodSandboxConfig
    network: str = ""
    ipc: str = ""
    uts: str = ""
    user: str = ""
    pid: str = ""
    hosts: str = ""
    resolv_conf: str = ""
    hostname_file: str = ""
    shm: str = ""
    hostname: str = ""
    labels: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container that is asked for.

    image_name: as it goes into annotations and errors
    directory: the daemon's own for this container, below which `Built.directories` may be
    volumes: what was made of `wanted_volumes`, by the number of the mount
    """

    id: str
    config: ContainerConfig
    image: ImageConfig
    image_name: str
    directory: str
    volumes: Mapping[int, ImageVolume] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageVolume:
    """An image, or a part of it, that is to be mounted.

    paths: directories, from the topmost layer down, or a single file; of one that had to be mounted, that mount alone
    image_ref: the image's id, for the status
    """

    paths: tuple[str, ...]
    image_ref: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNode:
    """A device of the host. kind: `c` or `b`; mode: the permission bits."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o660
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CdiDocument:
    """A CDI specification. directory: the rank of where it lies, a higher one counts; path: for errors; document: as parsed."""

    directory: int
    path: str
    document: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """A directory that has to be made on the host, with its parents, before the container."""

    path: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0


class Lookups(Protocol):
    """What is looked at, on the host but for `read_image` and `in_image`. All may raise OSError."""

    def resolve(self, path: str) -> str:
        """The absolute path without symlinks. Raises FileNotFoundError."""

    def propagation(self, path: str) -> str:
        """`shared`, `slave` or `private`: how the mount that `path` is on takes part in mounts elsewhere."""

    def devices(self, path: str) -> Sequence[DeviceNode]:
        """The device at a path, or those below a directory, by their paths. Raises ValueError for a file."""

    def read(self, path: str) -> bytes:
        """A profile."""

    def read_image(self, path: str) -> bytes | None:
        """A plain file of the container's image; None if there is none."""

    def in_image(self, path: str) -> bool:
        """Whether the container's image has something there."""

    def pid_namespace(self, container: str) -> str:
        """The path of the pid namespace of a running container of the same pod, "" if there is no such container."""

    def has_apparmor_profile(self, name: str) -> bool:
        """Whether the kernel has a profile loaded."""

    def load_apparmor_profile(self, name: str) -> None:
        """Load the runtime's own profile under this name, unless the kernel has one. Raises Error if that cannot be done."""

    def warn(self, text: str) -> None:
        """Tell whoever looks after the node what a container has to do without."""

    def cdi(self) -> Sequence[CdiDocument]:
        """The CDI specifications of the host."""
