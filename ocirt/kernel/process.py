"""System calls on the calling process: clone3(2), namespaces, privileges, limits, execve(2). Every function raises CallError."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # (typeshed has none; `signal` loads enum)
from _struct import pack, unpack

from ocirt.kernel import constants as k
from ocirt.kernel.ffi import Buffer, address_of, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SIGCHLD = 17
_CAPABILITY_VERSION_3 = 0x20080522


def clone3(flags: int, cgroup_fd: int = -1) -> int:
    """Make a child, with `flags` CLONE_NEW*; 0 in the child, its pid in the parent. In the cgroup `cgroup_fd` unless -1.

    The caller must be single-threaded: the child inherits the interpreter, held as it is.
    """
    if cgroup_fd >= 0:
        flags |= k.CLONE_INTO_CGROUP
    exit_signal = SIGCHLD
    arguments = pack("11Q", flags, 0, 0, 0, exit_signal, 0, 0, 0, 0, 0, max(cgroup_fd, 0))
    return syscall("clone3", arguments, len(arguments))


def clone3_sibling(flags: int) -> int:
    """`clone3` of a process whose parent is ours (CLONE_PARENT); it ends with the signal that we would end with."""
    arguments = pack("11Q", flags | k.CLONE_PARENT, *[0] * 10)
    return syscall("clone3", arguments, len(arguments))


def close_all_but(kept: Iterable[int], first: int) -> None:
    """Close all descriptors from `first` on but those that are kept (close_range(2))."""
    for fd in sorted(kept):
        if fd > first:
            syscall("close_range", first, fd - 1, 0)
        first = max(first, fd + 1)
    syscall("close_range", first, 0xFFFFFFFF, 0)


def setns(fd: int, flags: int) -> None:
    """Join the namespace `fd`, or of the process behind a pidfd the namespaces in `flags`."""
    syscall("setns", fd, flags)


def unshare(flags: int) -> None:
    """Leave namespaces for new ones."""
    syscall("unshare", flags)


def prctl(option: int, a: int = 0, b: int = 0) -> None:
    """prctl(2) with up to two arguments."""
    syscall("prctl", option, a, b, 0, 0)


def capability_buffers(effective: int, permitted: int, inheritable: int) -> tuple[bytes, bytes]:
    """The two structs that capset(2) takes for three bit masks, for the calling thread."""
    sets = (effective, permitted, inheritable)
    data = pack("6I", *[each & 0xFFFFFFFF for each in sets], *[each >> 32 for each in sets])
    return pack("Ii", _CAPABILITY_VERSION_3, 0), data


def get_capabilities() -> tuple[int, int, int]:
    """What `set_capabilities` takes: effective, permitted and inheritable set."""
    data = Buffer(24)
    syscall("capget", pack("Ii", _CAPABILITY_VERSION_3, 0), data.address)
    words = unpack("6I", data.bytes())
    return words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32


def set_file_owner(uid: int, gid: int) -> None:
    """Act on files as another user, with all capabilities that are permitted (setfsuid(2) takes some from who was root)."""
    syscall("setfsgid", gid)
    syscall("setfsuid", uid)
    _, permitted, inheritable = get_capabilities()
    set_capabilities(permitted, permitted, inheritable)


def set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) of three bit masks."""
    syscall("capset", *capability_buffers(effective, permitted, inheritable))


def raise_ambient(mask: int) -> None:
    """Make the ambient set `mask`."""
    prctl(k.PR_CAP_AMBIENT, k.PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(mask.bit_length()):
        if mask >> number & 1:
            prctl(k.PR_CAP_AMBIENT, k.PR_CAP_AMBIENT_RAISE, number)


def get_rlimit(pid: int, resource: int) -> tuple[int, int]:
    """(soft, hard) of a process, as unsigned 64-bit numbers."""
    buffer = Buffer(16)
    syscall("prlimit64", pid, resource, None, buffer.address)
    data = buffer.bytes()
    return int.from_bytes(data[:8], "little"), int.from_bytes(data[8:], "little")


def set_rlimit(pid: int, resource: int, soft: int, hard: int) -> None:
    """Set the limits of a process."""
    syscall("prlimit64", pid, resource, pack("QQ", soft, hard), None)


def close_on_exec_from(first: int) -> None:
    """Mark all descriptors from `first` on to be closed by execve."""
    syscall("close_range", first, 0xFFFFFFFF, k.CLOSE_RANGE_CLOEXEC)


def pointer_array(strings: list[bytes]) -> bytes:
    """A NULL-terminated array of pointers to `strings`, which must outlive it."""
    return pack(f"{len(strings) + 1}P", *map(address_of, strings), 0)


def fstatfs_type(fd: int) -> int:
    """The magic number of the file system that `fd` is on (linux/magic.h)."""
    buffer = Buffer(120)
    syscall("fstatfs", fd, buffer.address)
    return int.from_bytes(buffer.bytes()[:8], "little")


def reset_signals() -> None:
    """All signals as a program expects them: not blocked, not ignored (Python ignores SIGPIPE and SIGXFSZ)."""
    for number in range(1, 65):
        if _signal.getsignal(number) == _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)
    # The C library keeps two for itself and hides them; some callers (GNU make) ignore these too.
    for number in (32, 33):
        syscall("rt_sigaction", number, bytes(32), 0, 8)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
