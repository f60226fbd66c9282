"""The machine, as `spec` wants to know it (`Host` of spec/inputs.py), by looking once."""

from __future__ import annotations

import os
import resource

from ocirt.cgroups.layout import Layout, detect, own_directory
from ocirt.containers.host import security_modules
from ocirt.kernel import mountinfo
from ocirt.spec.capabilities import NAMES
from ocirt.spec.rlimits import NUMBERS
from ocirt_cri.spec.inputs import Host

# Mounts with mapped ids: of layers below an overlay since 5.19. Whole trees of mounts read-only: mount_setattr(2), since 5.12.
_MAPS_LOWERS = (5, 19)
# File systems that take part in them later than others, or never (FS_ALLOW_IDMAP).
_NEVER = (1 << 30, 0)
_MAPS = {"tmpfs": (6, 3), **dict.fromkeys(("9p", "cifs", "nfs", "nfs4", "overlay", "ramfs"), _NEVER)}
_SETS_ATTRIBUTES = (5, 12)
_CAP_SYS_RESOURCE = "CAP_SYS_RESOURCE"
_NOFILE, _OPEN_FILES = "RLIMIT_NOFILE", "/proc/sys/fs/nr_open"
_SECCOMP = "/proc/sys/kernel/seccomp/actions_avail"
_USER_NAMESPACES = "/proc/sys/user/max_user_namespaces"


def look(images: str = "/") -> Host:
    """What this machine has, for this process and images that lie at a path. Raises OSError without a /proc."""
    layout = detect()
    name = os.uname()
    kernel = version(name.release)
    status = _fields(_read("/proc/self/status"))
    modules = security_modules()
    limited = _CAP_SYS_RESOURCE not in capabilities(status.get("CapEff", "0"))
    return Host(
        cgroup_version=2 if layout.mode == "v2" else 1,
        controllers=controllers(layout),
        swap=counts_swap(layout),
        kernel=kernel,
        machine=name.machine,
        recursive_read_only=kernel >= _SETS_ATTRIBUTES,
        idmapped_mounts=kernel >= _MAPS_LOWERS,
        user_namespaces=os.path.exists("/proc/self/ns/user") and _number(_USER_NAMESPACES) > 0,
        mapped_layers=kernel >= _MAPS.get(file_system(images), _MAPS_LOWERS),
        apparmor="AppArmor" in modules,
        selinux="SELinux" in modules,
        seccomp=os.path.exists(_SECCOMP),
        capabilities=capabilities(status.get("CapBnd", "0")),
        oom_score_adj=_number("/proc/self/oom_score_adj"),
        limited_oom_score_adj=limited,
        hard_limits=hard_limits(limited=limited),
        hostname=name.nodename,
    )


def file_system(path: str) -> str:
    """The type of the file system that a path is in; "" if nothing tells. Raises OSError."""
    found = mountinfo.holding(os.path.realpath(path))
    return found.kind if found is not None else ""


def version(release: str) -> tuple[int, int]:
    """The kernel's version by its release, such as "6.1.0-18-amd64"; (0, 0) for what cannot be read."""
    digits = ["".join(char for char in part if char.isdecimal()) for part in release.split("-", maxsplit=1)[0].split(".")[:2]]
    return (int(digits[0]), int(digits[1])) if len(digits) == 2 and all(digits) else (0, 0)


def capabilities(mask: str) -> tuple[str, ...]:
    """The capabilities of a mask in hexadecimal, as /proc/PID/status has it."""
    bits = int(mask, 16)
    return tuple(name for number, name in enumerate(NAMES) if bits >> number & 1)


def hard_limits(*, limited: bool) -> dict[str, int]:
    """The highest hard limits that a process can get: of files the kernel's, all others only if we may not raise our own."""
    found = {}
    if limited:
        for name, number in NUMBERS.items():
            hard = resource.getrlimit(number)[1]
            if hard != resource.RLIM_INFINITY:
                found[name] = hard
    if most := _number(_OPEN_FILES):
        found[_NOFILE] = min(most, found.get(_NOFILE, most))
    return found


def controllers(layout: Layout) -> frozenset[str]:
    """The cgroup controllers that may be used, version 1's blkio as io."""
    if layout.mode == "v2":
        found = set(_read(own_directory(layout, "") + "/cgroup.controllers").split())
    else:
        found = {name for name in layout.mounts if name and "=" not in name}
    return frozenset("io" if name == "blkio" else name for name in found)


def counts_swap(layout: Layout) -> bool:
    """Whether swap of cgroups is limited. In version 2 the root has no such file: one of its children shows it."""
    if layout.mode != "v2":
        return "memory" in layout.mounts and os.path.exists(layout.mounts["memory"] + "/memory.memsw.limit_in_bytes")
    own = own_directory(layout, "")
    if os.path.exists(own + "/memory.swap.max"):
        return True
    with os.scandir(layout.mounts[""]) as entries:
        below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    with_memory = [path for path in below if os.path.exists(path + "/memory.max")]
    # With nothing to look at: as the kernel has it unless it is told otherwise.
    return any(os.path.exists(path + "/memory.swap.max") for path in with_memory) or not with_memory


def _fields(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _number(path: str) -> int:
    try:
        return int(_read(path))
    except (OSError, ValueError):
        return 0
