"""What confines a worker: a hostile layer that takes it over can write to the layer's own directory, and that is all.

- once for all workers: mount, network and IPC namespaces of their own, with an empty root. What they work on they get as
  descriptors.
- for each layer: a pid namespace, which takes with it whatever a worker has started; landlock on the layer's directory; no
  capability but those that make files; no new privileges.

Without root, or in a user namespace, it is what the kernel allows; `Forks`, `enter` and `confine` say what that was.
"""

from __future__ import annotations

import os
import struct

from ocirt_images.apply import libc

# What restoring owners, modes, devices and file capabilities takes.
_CHOWN, _DAC_OVERRIDE, _FOWNER, _FSETID, _MKNOD, _SETFCAP = 0, 1, 3, 4, 27, 31
KEPT = sum(1 << one for one in (_CHOWN, _DAC_OVERRIDE, _FOWNER, _FSETID, _MKNOD, _SETFCAP))
_LAST = 63  # more capabilities than there are

# LANDLOCK_ACCESS_FS_*: bits in the order of their introduction.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_ALL = sum(1 << bit for bit in range(6, 13))  # char, dir, reg, sock, fifo, block, sym
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_FS_BITS = (0, 13, 14, 15, 15, 16)  # how many of these bits each version knows; from the fifth on all
_NET_ALL = 3  # LANDLOCK_ACCESS_NET_BIND_TCP, CONNECT_TCP
_SCOPE_ALL = 3  # LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, SIGNAL


class Forks:
    """Forks children into pid namespaces of their own, from a process with one thread."""

    def __init__(self) -> None:
        self._own = -1
        try:
            self._own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
            # Whether there is a way back, before leaving: root of a user namespace may not enter the machine's again, and would
            # have all its children in one namespace, whose first one takes the others along.
            libc.setns(self._own, libc.CLONE_NEWPID)
            libc.unshare(libc.CLONE_NEWPID)
            libc.setns(self._own, libc.CLONE_NEWPID)
        except OSError:
            self._forget()
        self.had = ("pids",) if self._own >= 0 else ()

    def fork(self) -> int:
        """fork(2)."""
        if self._own < 0:
            return os.fork()
        libc.unshare(libc.CLONE_NEWPID)
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid:
                libc.setns(self._own, libc.CLONE_NEWPID)
        if not pid:
            self._forget()
        return pid

    def _forget(self) -> None:
        if self._own >= 0:
            os.close(self._own)
            self._own = -1


def enter() -> tuple[str, ...]:
    """Leave the host's mounts, network and IPC, for this process and all that it starts. What could be had.

    Nothing can be imported afterwards.
    """
    try:
        libc.unshare(libc.CLONE_NEWNS | libc.CLONE_NEWNET | libc.CLONE_NEWIPC | libc.CLONE_NEWUTS)
    except OSError:
        return ()
    try:
        _empty_root()
    except OSError:  # a security module's rule
        return ("network", "ipc")
    return ("mounts", "network", "ipc")


def _empty_root() -> None:
    libc.mount(None, b"/", None, libc.MS_REC | libc.MS_PRIVATE)
    flags = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
    # Over any directory that is always there: it is seen in this namespace only, and only until the old root goes.
    libc.mount(b"tmpfs", b"/proc", b"tmpfs", flags, b"size=4k,mode=0555")
    os.chdir("/proc")
    libc.pivot_root(b".", b".")
    libc.umount(b".", libc.MNT_DETACH)
    os.chdir("/")
    libc.mount(None, b"/", None, libc.MS_REMOUNT | libc.MS_RDONLY | flags)


def confine(target: int) -> tuple[str, ...]:
    """Restrict this thread, and those that it starts, to making files beneath the directory `target`. What could be had."""
    done = ["no-new-privileges"]
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    if _landlock(target):
        done.append("landlock")
    if _drop_capabilities():
        done.append("capabilities")
    return tuple(done)


def _landlock(target: int) -> bool:
    version = libc.landlock_version()
    if version < 2:  # the first one forbids hard links from one directory to another
        return False
    handled = (1 << _FS_BITS[min(version, len(_FS_BITS) - 1)]) - 1
    wanted = _WRITE_FILE | _READ_DIR | _REMOVE_DIR | _REMOVE_FILE | _MAKE_ALL | _REFER | _TRUNCATE
    fields = [handled, _NET_ALL if version >= 4 else 0, _SCOPE_ALL if version >= 6 else 0]
    size = 1 if version < 4 else 2 if version < 6 else 3
    try:
        ruleset = libc.landlock_create_ruleset(struct.pack(f"={size}Q", *fields[:size]))
    except OSError:
        return False
    try:
        libc.landlock_allow_beneath(ruleset, wanted & handled, target)
        libc.landlock_restrict_self(ruleset)
    finally:
        os.close(ruleset)
    return True


def _drop_capabilities() -> bool:
    permitted = libc.capget()
    if not permitted:
        return False
    for number in range(_LAST + 1):
        if not KEPT >> number & 1:
            try:
                libc.prctl(libc.PR_CAPBSET_DROP, number)
            except OSError:
                break  # past the last one, or not allowed: then it has nothing to give either
    libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_CLEAR_ALL)
    libc.capset(permitted & KEPT)
    return True
