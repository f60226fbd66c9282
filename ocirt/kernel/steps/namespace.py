"""Joining and leaving namespaces (setns(2), unshare(2), ioctl_nsfs(2))."""

from __future__ import annotations

import posix
from _struct import pack
from errno import EINVAL

from ocirt.kernel import constants as k
from ocirt.kernel import process, resolve
from ocirt.kernel.ffi import CallError, syscall
from ocirt.kernel.run import Run
from ocirt.paths import encode

_AF_INET = 2
_SOCK_DGRAM = 2
_SOCK_CLOEXEC = 0o2000000


def open(run: Run, slot: str, path: str, kind: int) -> None:  # noqa: A001  (the plan's word)
    """Open a namespace by path; EINVAL if it is not of that kind."""
    # Not blocking: somebody's FIFO at this path must not hold us.
    fd = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    run.fds[slot] = fd
    try:
        found = syscall("ioctl", fd, k.NS_GET_NSTYPE)
    except CallError:
        raise CallError(EINVAL, "ioctl", f"{path} is no namespace") from None
    if found != kind:
        raise CallError(EINVAL, "ioctl", f"{path} is a namespace of another kind")
    if kind == k.CLONE_NEWNS and posix.fstat(fd).st_ino == posix.stat("/proc/self/ns/mnt").st_ino:
        # By pivot_root(2) all of its processes would get the container's root.
        raise CallError(EINVAL, "", f"{path} is the runtime's own mount namespace: leave the entry out to run in it")


def join(run: Run, slot: str, kind: int) -> None:
    """Join the namespace of a slot."""
    process.setns(run.fds[slot], kind)


def postpone(run: Run, slot: str, kind: int) -> None:
    """Join it later, with the rights that the user namespace gives."""
    run.postponed.append((slot, kind))


def join_postponed(run: Run) -> None:
    """Join what was not allowed before the user namespace was joined."""
    for slot, kind in run.postponed:
        process.setns(run.fds[slot], kind)


def join_target(run: Run, kinds: int) -> None:
    """Join the namespaces of the process behind the slot `target`."""
    process.setns(run.fds["target"], kinds)


def open_offsets(run: Run) -> None:
    """Open the offsets of our children's time namespace, as long as we may: not once others cannot look into us."""
    run.fds["offsets"] = resolve.open_own("timens_offsets")


def set_offsets(run: Run, offsets: str) -> None:
    """Set the clocks of the new time namespace that our children will be in (time_namespaces(7))."""
    fd = run.fds.pop("offsets")
    try:
        posix.write(fd, encode(offsets))
    finally:
        posix.close(fd)


def return_pid(run: Run) -> None:
    """Make children of the runtime's own pid namespace again."""
    del run
    _join_path("/proc/self/ns/pid", k.CLONE_NEWPID)


def _join_path(path: str, kind: int) -> None:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        process.setns(fd, kind)
    finally:
        posix.close(fd)


def unshare(run: Run, kinds: int) -> None:
    """Leave namespaces for new ones."""
    del run
    process.unshare(kinds)


def loopback_up_of_init(run: Run) -> None:
    """Bring up `lo` in init's network namespace, and come back."""
    own = posix.open("/proc/self/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        _join_path(f"/proc/{run.pid}/ns/net", k.CLONE_NEWNET)
        try:
            loopback_up(run)
        finally:
            process.setns(own, k.CLONE_NEWNET)
    finally:
        posix.close(own)


def loopback_up(run: Run) -> None:
    """Bring up `lo` (netdevice(7), SIOCSIFFLAGS)."""
    del run
    fd = syscall("socket", _AF_INET, _SOCK_DGRAM | _SOCK_CLOEXEC, 0)
    try:
        syscall("ioctl", fd, k.SIOCSIFFLAGS, pack("16sH22x", b"lo", k.IFF_UP))
    finally:
        posix.close(fd)
