"""The place where system tests run.

The process of the tests moves into mount, network, UTS and IPC namespaces of its own: nobody else's mounts, links, firewall
rules and host names are seen there, so everything that changes was changed by a test. Process ids, users and the cgroup tree stay
the host's. It becomes the subreaper of all that the tests start, as every caller of a runtime is; so what a test leaves running
is among its descendants, whatever it was detached from.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWNET = 0x00020000, 0x04000000, 0x08000000, 0x40000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 1, 0x20, 0x1000, 0x4000, 1 << 18, 1 << 20
PR_SET_CHILD_SUBREAPER = 36
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int = 0) -> None:
    """setns(2). Raises OSError."""
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """mount(2). Raises OSError."""
    arguments = [text.encode() for text in (source, target, kind)]
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), data.encode() or None), f"mount {target}")


def umount(target: str, flags: int = 2) -> None:
    """umount2(2), with MNT_DETACH unless told otherwise. Raises OSError."""
    _check(_libc.umount2(os.fsencode(target), flags), f"umount {target}")


def pivot_root() -> None:
    """Make the working directory, which has to be a mount, the root, and let go of the old one. Raises OSError."""
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    umount(".")


def become_subreaper() -> None:
    """Adopt the orphans among the descendants of this process."""
    _check(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def loopback_up() -> None:
    """Bring `lo` up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = bytearray(struct.pack("16sH22x", b"lo", 0))
        fcntl.ioctl(control, SIOCGIFFLAGS, request)
        flags = struct.unpack_from("H", request, 16)[0]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | IFF_UP))


def cgroup_mounts() -> list[Path]:
    """The mount point of each cgroup hierarchy, from /proc/self/mountinfo."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] in ("cgroup", "cgroup2"):
            target = fields[4].encode().decode("unicode_escape")
            if os.path.ismount(target):
                found.setdefault(fields[2], Path(target))
    return sorted(found.values())


def remove_tree(path: Path) -> None:
    """Remove a directory of bundles. What a runtime left mounted below it is detached first: it may be the host's own files."""
    below = [target for target in mount_targets() if target == path or path in target.parents]
    for target in reversed(below):
        umount(str(target))
    still = [target for target in mount_targets() if target == path or path in target.parents]
    if still:
        message = f"still mounted: {still}"
        raise OSError(message)
    shutil.rmtree(path)


def mount_targets() -> list[Path]:
    """Where something is mounted, in the order of mounting."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [Path(line.split()[4].encode().decode("unicode_escape")) for line in lines]


class Isolation:
    """The namespaces and cgroups of one session of tests."""

    def __init__(self, view: str = "", *, by_systemd: bool = False) -> None:
        """Enter it. `view`: "v2" shows cgroup2 alone at /sys/fs/cgroup (on a v1 host without its controllers).

        `by_systemd`: containers go to a slice of the session's own, `slice`, which systemd would leave behind otherwise.
        """
        self.token = f"t{secrets.token_hex(4)}"
        self.host_network = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        become_subreaper()
        unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET)
        mount("none", "/", "none", MS_REC | MS_PRIVATE)
        self.own_network = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        loopback_up()
        if view == "v2" and not Path("/sys/fs/cgroup/cgroup.controllers").exists():
            unified = Path("/sys/fs/cgroup/unified")
            if unified in cgroup_mounts():
                mount(str(unified), "/sys/fs/cgroup", "none", MS_BIND)  # a new one would give the machine's its own options
            else:
                mount("cgroup2", "/sys/fs/cgroup", "cgroup2", 0)
        # Below this name in every hierarchy lives what the tests make. Made here, as a runtime would otherwise leave it.
        self.cgroup_parent = f"/ocirt-test-{self.token}"
        self.slice = f"{self.token}.slice" if by_systemd else ""
        if self.slice:
            subprocess.run(["systemctl", "start", self.slice], check=True)
        self._cgroups = [mount_point / self.cgroup_parent[1:] for mount_point in cgroup_mounts()]
        for path in self._cgroups:
            path.mkdir()
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (path / name).exists() and (path.parent / "cgroup.sane_behavior").exists():
                    (path / name).write_text((path.parent / name).read_text())

    @contextmanager
    def on_host_network(self) -> Iterator[None]:
        """The machine's own network, for as long as the context lasts; then that which the thread came from."""
        back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(self.host_network, CLONE_NEWNET)
            try:
                yield
            finally:
                setns(back, CLONE_NEWNET)
        finally:
            os.close(back)

    def leave(self) -> None:
        """Remove the cgroups, with what others left in ours. The namespaces go with the process."""
        if self.slice:
            subprocess.run(["systemctl", "stop", self.slice], check=True)
        for path in self._cgroups:
            for directory, _, _ in os.walk(path, topdown=False):
                os.rmdir(directory)
