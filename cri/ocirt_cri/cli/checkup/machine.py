"""The kernel, its file systems and control groups, and what is left of the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ocirt.cgroups import layout
from ocirt_cri.cli.checkup import BAD, OK, WARNING, Finding
from ocirt_cri.cli.output import size

_LEAST = (5, 12)
_WANTED = ("cpu", "cpuset", "memory", "pids")
_ACCOUNTS = "cpuacct"  # of version 1
_FREE = 10  # percent
_PROC = Path("/proc")

# (since Linux, what lacks before)
_SINCE = (
    ((5, 14), "cgroup.kill: the processes of a cgroup are killed one by one"),
    ((5, 19), "idmapped overlays: pods with user namespaces do not run"),
    ((6, 5), "lowerdir+ of overlays: an image has some 60 layers at most"),
)


def kernel(given: Any) -> Iterator[Finding]:
    """Its version."""
    del given
    release = os.uname().release
    version = tuple(int(part) for part in release.split("-")[0].split(".")[:2])
    if version < _LEAST:
        yield Finding("kernel", BAD, f"{release}", "ocirt needs Linux 5.12 or later")
        return
    lacking = [what for since, what in _SINCE if version < since]
    if lacking:
        yield Finding("kernel", WARNING, f"{release} lacks {'; '.join(lacking)}", "a newer kernel has it")
    else:
        yield Finding("kernel", OK, release)


def cgroups(given: Any) -> Iterator[Finding]:
    """Which hierarchies there are, and the controllers that limits need."""
    del given
    found = layout.detect()
    if found.mode == "none":
        yield Finding("cgroups", BAD, "none is mounted", "mount -t cgroup2 cgroup2 /sys/fs/cgroup")
        return
    if found.mode == "v2":
        have = set(Path(found.mounts[""], "cgroup.controllers").read_text().split())
        wanted = set(_WANTED)
    else:
        have, wanted = set(found.mounts), {*_WANTED, _ACCOUNTS}
    missing = sorted(wanted - have)
    if missing:
        yield Finding(
            "cgroups",
            WARNING,
            f"{found.mode}, without {', '.join(missing)}",
            "limits and statistics of these are refused or empty; the kernel's command line may disable them (cgroup_disable=)",
        )
    else:
        yield Finding("cgroups", OK, f"{found.mode}, with {', '.join(sorted(wanted))}")


def filesystems(given: Any) -> Iterator[Finding]:
    """Those that every pod needs."""
    del given
    known = {line.split()[-1] for line in (_PROC / "filesystems").read_text().splitlines()}
    missing = [name for name in ("overlay", "tmpfs", "proc", "sysfs", "mqueue") if name not in known]
    if missing:
        yield Finding("file systems", BAD, f"the kernel does not know {', '.join(missing)}", f"modprobe {missing[0]}")
    else:
        yield Finding("file systems", OK, "overlay, tmpfs, proc, sysfs, mqueue")


def namespaces(given: Any) -> Iterator[Finding]:
    """All eight; and whether a user namespace may be made."""
    del given
    kinds = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"}
    missing = sorted(kinds - set(os.listdir("/proc/self/ns")))
    if missing:
        yield Finding("namespaces", BAD if set(missing) - {"time", "user"} else WARNING, f"none of kind {', '.join(missing)}")
        return
    most = int((_PROC / "sys/user/max_user_namespaces").read_text())
    if not most:
        hint = "sysctl user.max_user_namespaces=65536"
        yield Finding("namespaces", WARNING, "no user namespace may be made: pods with hostUsers: false do not run", hint)
    else:
        yield Finding("namespaces", OK, "all eight kinds")


def seccomp(given: Any) -> Iterator[Finding]:
    """The library that makes filters, and the kernel's part."""
    del given
    from ocirt.cli.version import libseccomp_version  # noqa: PLC0415

    if not (_PROC / "sys/kernel/seccomp").exists():
        yield Finding("seccomp", WARNING, "not in this kernel", "pods with a profile (RuntimeDefault, too) are refused")
    elif not (version := libseccomp_version()):
        yield Finding("seccomp", BAD, "libseccomp is not installed", "install it (Debian: libseccomp2)")
    else:
        yield Finding("seccomp", OK, f"libseccomp {version}")


def apparmor(given: Any) -> Iterator[Finding]:
    """Whether containers get a profile."""
    del given
    from ocirt import apparmor as own  # noqa: PLC0415
    from ocirt.containers.host import security_modules  # noqa: PLC0415

    if "AppArmor" not in security_modules():
        yield Finding("AppArmor", OK, "not enabled: containers have no profile")
    elif own.is_loaded(own.NAME):
        yield Finding("AppArmor", OK, f"the profile {own.NAME} is loaded")
    elif not own.parser():
        hint = f"install {own.PARSER} (Debian: apparmor)"
        yield Finding("AppArmor", WARNING, f"without {own.PARSER} pods with RuntimeDefault are refused, others unconfined", hint)
    else:
        yield Finding("AppArmor", OK, f"enabled; ocirtd loads the profile {own.NAME}")


def limits(given: Any) -> Iterator[Finding]:
    """What runs out first on a node with many pods."""
    del given
    for name, least, what in (
        ("kernel/pid_max", 1 << 16, "processes"),
        ("fs/inotify/max_user_instances", 1024, "watches of files, which kubelets and programs in pods have"),
        ("fs/inotify/max_user_watches", 1 << 16, "watched files"),
        ("kernel/keys/root_maxkeys", 10_000, "keyrings, of which each container has one"),
    ):
        path = _PROC / "sys" / name
        if not path.exists():
            continue
        value = int(path.read_text())
        dotted = name.replace("/", ".")
        if value < least:
            yield Finding(dotted, WARNING, f"{value} is little for a node: {what}", f"sysctl {dotted}={least}")
        else:
            yield Finding(dotted, OK, str(value))


def disk(given: Any) -> Iterator[Finding]:
    """Space and inodes where images and layers go."""
    del given
    place = Path("/var/lib/ocirt")
    while not place.exists():
        place = place.parent
    found = os.statvfs(place)
    free, inodes = found.f_bavail * found.f_frsize, found.f_favail
    share = 100 * found.f_bavail // max(1, found.f_blocks)
    if share < _FREE or (found.f_files and 100 * inodes // found.f_files < _FREE):
        hint = "ocirt prune --all frees what no container uses"
        yield Finding("disk", WARNING, f"{place}: {size(free)} ({share} %) and {inodes} inodes are free", hint)
    else:
        yield Finding("disk", OK, f"{place}: {size(free)} ({share} %) free")
    if os.access(place, os.W_OK):
        return
    yield Finding("disk", BAD, f"{place} cannot be written to", "is it mounted read-only?")
