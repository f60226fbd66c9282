"""Specs to test with: small changes by JSON pointer, and what callers of a runtime send."""

from __future__ import annotations

import copy
from typing import Any

from ocirt.cli.spec import default
from tests.seccomp_profiles import docker_default

GONE = object()  # as a new value: take the member out


def put(document: Any, pointer: str, value: Any) -> None:
    """Set, append ("-" as the last token, as in JSON Patch) or take out what `pointer` names; objects on the way are made."""
    *way, last = [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]
    for token in way:
        document = document[int(token)] if isinstance(document, list) else document.setdefault(token, {})
    if value is GONE:
        del document[int(last) if isinstance(document, list) else last]
    elif isinstance(document, list):
        if last == "-":
            document.append(value)
        else:
            document[int(last)] = value
    else:
        document[last] = value


def get(document: Any, pointer: str) -> Any:
    """What `pointer` names. Raises LookupError if there is no such thing."""
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        document = document[int(name)] if isinstance(document, list) else document[name]
    return document


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """The spec that `ocirt spec` writes, with changes."""
    spec = default()
    for pointer, value in changes.items():
        put(spec, pointer, value if value is GONE else copy.deepcopy(value))
    return spec


def user_namespace(size: int = 65536) -> dict[str, Any]:
    """Changes that give a user namespace."""
    mapping = {"containerID": 0, "hostID": 100000, "size": size}
    return {"/linux/namespaces/-": {"type": "user"}, "/linux/uidMappings": [mapping], "/linux/gidMappings": [dict(mapping)]}


_DOCKER_CAPABILITIES = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
]
_MASKED = ["/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"]
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", "EMPTY=", "A=b=c"]


def _sets(names: list[str], *sets: str) -> dict[str, list[str]]:
    return {kind: list(names) for kind in sets}


def _bind(source: str, destination: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": source, "options": ["bind", *options]}


def _file_systems() -> list[dict[str, Any]]:
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
    ]


def podman() -> dict[str, Any]:
    """podman run with limits, a device, a volume and a tmpfs: type bits in fileMode, propagation on file systems."""
    data = "/var/lib/containers/storage/overlay-containers/0123/userdata"
    return {
        "ociVersion": "1.0.2-dev",
        "process": {
            "terminal": True,
            "user": {"uid": 1000, "gid": 1000, "umask": 18, "additionalGids": [5, 1000]},
            "args": ["sleep", "1"],
            "env": list(_ENVIRONMENT),
            "cwd": "/",
            "capabilities": _sets(_DOCKER_CAPABILITIES[:4], "bounding", "effective", "permitted"),
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "hard": 200, "soft": 100},
                {"type": "RLIMIT_NPROC", "hard": 18446744073709551615, "soft": 32768},
            ],
            "oomScoreAdj": 100,
        },
        "root": {"path": "/var/lib/containers/storage/overlay/0123/merged"},
        "hostname": "0123456789ab",
        "mounts": [
            {"destination": "/data", "type": "bind", "source": "/srv", "options": ["ro", "rprivate", "rbind"]},
            {
                "destination": "/x",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["rw", "rprivate", "nosuid", "nodev", "tmpcopyup"],
            },
            *_file_systems(),
            _bind(data + "/hosts", "/etc/hosts", "rprivate"),
            _bind(data + "/shm", "/dev/shm", "rprivate", "nosuid", "noexec", "nodev"),
            _bind(data + "/.containerenv", "/run/.containerenv", "rprivate"),
            {
                "destination": "/sys/fs/cgroup",
                "type": "cgroup",
                "source": "cgroup",
                "options": ["rprivate", "nosuid", "noexec", "nodev", "relatime", "ro"],
            },
        ],
        "annotations": {"io.container.manager": "libpod", "io.podman.annotations.autoremove": "TRUE", "run.oci.keep": ""},
        "linux": {
            "sysctl": {"net.ipv4.ping_group_range": "0 0", "net.ipv4.ip_forward": "1"},
            "resources": {
                "devices": [
                    {"allow": False, "access": "rwm"},
                    {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
                ],
                "memory": {"limit": 67108864, "swap": 134217728, "reservation": 33554432, "swappiness": 10},
                "cpu": {"quota": 50000, "period": 100000, "cpus": "0", "mems": "0-1,3"},
                "pids": {"limit": 50},
                "blockIO": {"weight": 100, "throttleReadBpsDevice": [{"major": 254, "minor": 0, "rate": 1048576}]},
            },
            "cgroupsPath": "machine.slice:libpod:0123456789ab",
            "namespaces": [
                {"type": "pid"},
                {"type": "network", "path": "/run/netns/netns-1234"},
                {"type": "ipc"},
                {"type": "uts"},
                {"type": "mount"},
                {"type": "cgroup"},
            ],
            "devices": [
                {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 8630, "uid": 0, "gid": 0},
            ],
            "seccomp": {**copy.deepcopy(docker_default()), "defaultErrnoRet": 38},
            "rootfsPropagation": "rslave",
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
        },
    }


def docker() -> dict[str, Any]:
    """docker run: a prestart hook for the network, zeros for what is not set, an init of its own bound in."""
    containers = "/var/lib/docker/containers/0123"
    return {
        "ociVersion": "1.2.1",
        "process": {
            "terminal": True,
            "consoleSize": {"height": 50, "width": 132},
            "user": {"uid": 0, "gid": 0, "additionalGids": [0, 10]},
            "args": ["/sbin/docker-init", "--", "sh"],
            "env": list(_ENVIRONMENT),
            "cwd": "/",
            "capabilities": _sets(_DOCKER_CAPABILITIES, "bounding", "effective", "permitted"),
            "apparmorProfile": "",
            "oomScoreAdj": 0,
        },
        "root": {"path": "/var/lib/docker/overlay2/0123/merged"},
        "hostname": "0123456789ab",
        "mounts": [
            *_file_systems(),
            {
                "destination": "/sys/fs/cgroup",
                "type": "cgroup",
                "source": "cgroup",
                "options": ["ro", "nosuid", "noexec", "nodev"],
            },
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"],
            },
            {
                "destination": "/etc/resolv.conf",
                "type": "bind",
                "source": containers + "/resolv.conf",
                "options": ["rbind", "rprivate"],
            },
            _bind("/usr/bin/docker-init", "/sbin/docker-init", "ro"),
        ],
        "hooks": {
            "prestart": [
                {
                    "path": "/proc/812/exe",
                    "args": ["libnetwork-setkey", "-exec-root=/var/run/docker", "0123", "4567"],
                },
            ],
        },
        "linux": {
            "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0", "net/ipv4/conf/eth0.100/rp_filter": "1"},
            "resources": {
                "devices": [
                    {"allow": False, "access": "rwm"},
                    {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
                    {"allow": True, "type": "c", "major": 136, "minor": -1, "access": "rwm"},
                    {"allow": True, "type": "b", "access": "m"},
                ],
                "memory": {"disableOOMKiller": False, "swap": -1},
                "cpu": {"shares": 0, "quota": 0, "period": 0},
                "pids": {"limit": 0},
                "blockIO": {"weight": 0},
                "network": {},
                "hugepageLimits": [],
            },
            "cgroupsPath": "/docker/0123",
            "namespaces": [
                {"type": "mount"},
                {"type": "network"},
                {"type": "uts"},
                {"type": "pid"},
                {"type": "ipc"},
                {"type": "cgroup", "path": ""},
            ],
            "seccomp": copy.deepcopy(docker_default()),
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
            "mountLabel": "",
        },
    }


def containerd() -> dict[str, Any]:
    """containerd's CRI, a container of a pod with a user namespace: namespaces by path, and the mappings all the same."""
    mappings = [{"containerID": 0, "hostID": 131072, "size": 65536}]
    return {
        "ociVersion": "1.3.0",
        "process": {
            "user": {"uid": 65535, "gid": 65535, "additionalGids": [65535]},
            "args": ["/pause"],
            "env": list(_ENVIRONMENT),
            "cwd": "/",
            "capabilities": _sets(_DOCKER_CAPABILITIES, "bounding", "effective", "permitted"),
            "noNewPrivileges": True,
            "oomScoreAdj": -998,
        },
        "root": {"path": "rootfs", "readonly": True},
        "mounts": [
            *_file_systems(),
            {
                "destination": "/sys/fs/cgroup",
                "type": "cgroup",
                "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "rw"],
            },
            {
                "destination": "/var/run/secrets/kubernetes.io/serviceaccount",
                "type": "bind",
                "source": "/var/lib/kubelet/pods/1/volumes/token",
                "options": ["rbind", "rprivate", "rro"],
            },
            {
                "destination": "/dev/termination-log",
                "source": "/var/lib/kubelet/pods/1/log",
                "options": ["rbind", "rslave", "rw"],
            },
        ],
        "annotations": {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "0123"},
        "linux": {
            "uidMappings": mappings,
            "gidMappings": copy.deepcopy(mappings),
            "resources": {
                "devices": [{"allow": False, "access": "rwm"}],
                "memory": {"limit": 268435456},
                "cpu": {"shares": 512, "quota": 100000, "period": 100000},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 0}, {"pageSize": "1GB", "limit": 0}],
                "unified": {"memory.oom.group": "1", "memory.swap.max": "0"},
            },
            "cgroupsPath": "kubepods-burstable-pod1.slice:cri-containerd:0123",
            "namespaces": [
                {"type": "pid"},
                {"type": "ipc", "path": "/proc/4242/ns/ipc"},
                {"type": "uts", "path": "/proc/4242/ns/uts"},
                {"type": "mount"},
                {"type": "network", "path": "/proc/4242/ns/net"},
                {"type": "user", "path": "/proc/4242/ns/user"},
                {"type": "cgroup"},
            ],
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
        },
    }


def buildah() -> dict[str, Any]:
    """A RUN of buildah: ambient capabilities without inheritable ones, a relative source, propagation before the type."""
    return {
        "ociVersion": "1.0.2-dev",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sh", "-c", "true"],
            "env": list(_ENVIRONMENT),
            "cwd": "/",
            "capabilities": _sets(_DOCKER_CAPABILITIES, "bounding", "effective", "permitted", "ambient"),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1048576, "soft": 1048576}],
        },
        "root": {"path": "/var/tmp/buildah1/mnt/rootfs"},
        "hostname": "buildah-container",
        "mounts": [
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "/dev",
                "options": ["private", "strictatime", "mode=755", "size=65536k"],
            },
            {"destination": "/proc", "type": "proc", "source": "/proc", "options": ["private", "nodev", "noexec", "nosuid"]},
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "pts",
                "options": ["private", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            },
            {
                "destination": "/sys",
                "type": "bind",
                "source": "/sys",
                "options": ["rbind", "private", "nodev", "noexec", "nosuid", "ro"],
            },
            {
                "destination": "/cache",
                "type": "overlay",
                "source": "overlay",
                "options": ["lowerdir=/a,upperdir=/b,workdir=/c", "private"],
            },
            _bind("hosts", "/etc/hosts", "rprivate"),
        ],
        "linux": {
            "resources": {},
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "devices": [{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 438}],
        },
    }


CALLERS = (podman, docker, containerd, buildah)
