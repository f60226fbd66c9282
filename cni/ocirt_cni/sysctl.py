"""The sysctls of the network, below /proc/sys/net: those of the network namespace that the thread is in."""

from __future__ import annotations

import posix
from errno import ENOENT

from ocirt_cni.errors import INVALID_CONFIG, KERNEL, UNSUPPORTED, Error

_ROOT = "/proc/sys"
_LONGEST = 1 << 16  # bytes of a value


def path_of(name: str) -> str:
    """Where a sysctl is: `name` has slashes, or dots, and then slashes for dots within a part (sysctl(8)).

    Raises Error(INVALID_CONFIG) for a name that leads out.
    """
    dot, slash = name.find("."), name.find("/")
    if dot >= 0 and (slash < 0 or dot < slash):
        name = name.translate({ord("."): "/", ord("/"): "."})
    parts = name.split("/")
    if not all(parts) or ".." in parts or "." in parts:
        raise Error(INVALID_CONFIG, f"{name!r} is not the name of a sysctl")
    return f"{_ROOT}/{name}"


def read(name: str) -> str | None:
    """The value; None if this kernel has no such sysctl. Raises Error(KERNEL)."""
    try:
        fd = posix.open(path_of(name), posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            return posix.read(fd, _LONGEST).decode(errors="replace").rstrip("\n")
        finally:
            posix.close(fd)
    except OSError as err:
        if err.errno == ENOENT:
            return None
        raise Error(KERNEL, "the sysctl cannot be read", subject=name, cause=err.strerror or "") from None


def write(name: str, value: str, *, optional: bool = False) -> None:
    """Set it, unless it has the value already: /proc/sys is often read-only, and then a right value will do.

    `optional`: a kernel without it will do. Raises Error(KERNEL) or Error(UNSUPPORTED).
    """
    current = read(name)
    if current == value or (current is None and optional):
        return
    if current is None:
        raise Error(UNSUPPORTED, "this kernel has no such sysctl", subject=name)
    try:
        fd = posix.open(path_of(name), posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            posix.write(fd, value.encode())
        finally:
            posix.close(fd)
    except OSError as err:
        raise Error(KERNEL, f"the sysctl cannot be set to {value!r}", subject=name, cause=err.strerror or "") from None
