"""`ocirt spec`: a config.json to start from, the one that `runc spec` writes."""

from __future__ import annotations

import posix

from ocirt import jsonlite, paths
from ocirt.cli.version import SPEC_VERSION
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cli.options import Options

_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def run(options: Options, args: list[str]) -> int:
    """Write config.json into the bundle directory (--bundle, else the working directory).

    Raises Error("exists") if there is one, Error("invalid") if the directory is not there, OSError.
    """
    del args
    bundle: str = options.get("bundle")
    if bundle:
        try:
            posix.chdir(bundle)
        except OSError as err:
            raise Error("invalid", f"chdir {bundle}: {posix.strerror(err.errno or 0).lower()}") from None
    write("config.json", rootless() if options.get("rootless") else default())
    return 0


def write(path: str, spec: dict[str, Any]) -> None:
    """Write a new config.json. Raises Error("exists") rather than overwrite one, OSError."""
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise Error("exists", f"File {paths.name(path)} exists. Remove it first") from None
    data = (jsonlite.dumps(spec, 4) + "\n").encode("utf-8", "surrogateescape")
    try:
        while data:
            data = data[posix.write(fd, data) :]
    finally:
        posix.close(fd)


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    mount: dict[str, Any] = {"destination": destination, "type": kind, "source": source}
    if options:
        mount["options"] = list(options)
    return mount


def default() -> dict[str, Any]:
    """A shell in `rootfs/`, for root: few capabilities, new namespaces but user and cgroup, no device but the usual."""
    return {
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {name: list(_CAPABILITIES) for name in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "runc",
        "mounts": [
            _mount("/proc", "proc", "proc"),
            _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
            _mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
            _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
            _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro"),
            _mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"),
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
        },
    }


def rootless() -> dict[str, Any]:
    """`default` for the user who calls: a user namespace with just this user as its root, and what cannot be had left out."""
    spec = default()
    linux = spec["linux"]
    # A new network namespace would have no way out, and a cgroup may not be ours to limit.
    kept = [item for item in linux["namespaces"] if item["type"] != "network"]
    spec["linux"] = {
        "uidMappings": [{"containerID": 0, "hostID": posix.geteuid(), "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": posix.getegid(), "size": 1}],
        "namespaces": [*kept, {"type": "user"}],
        "maskedPaths": linux["maskedPaths"],
        "readonlyPaths": linux["readonlyPaths"],
    }
    for mount in spec["mounts"]:
        if mount["destination"] == "/dev/pts":
            mount["options"].remove("gid=5")  # that group is not mapped
        elif mount["destination"] == "/sys":
            # sysfs can be mounted by who owns the network namespace only.
            mount |= {"type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]}
    return spec
