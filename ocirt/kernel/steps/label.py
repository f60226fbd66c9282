"""Writing security attributes (apparmor(7), selinux(8), proc_pid_attr(5)). Loaded only if a plan asks for it."""

from __future__ import annotations

import posix

from ocirt.kernel import constants as k
from ocirt.kernel import mount, resolve
from ocirt.kernel.run import Run
from ocirt.kernel.steps.mount import EMPTY
from ocirt.paths import encode


def write(run: Run, attribute: str, text: str) -> None:
    """Write an attribute of this process through the host's /proc, which is verified; "" takes it back.

    Opened and written in one go: the kernel takes it only with the rights, and in the memory, of the process that opened it.
    """
    del run
    fd = resolve.open_own(attribute)
    try:
        posix.write(fd, encode(text))
    except OSError as err:
        err.filename = "/proc/self/" + attribute
        raise
    finally:
        posix.close(fd)


def set_file(run: Run, slot: str, label: str) -> None:
    """Label the root of a mount that takes no option for it."""
    fd = posix.open(".", posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC, dir_fd=run.fds[slot])
    try:
        posix.setxattr(fd, "security.selinux", encode(label) + b"\0")
    finally:
        posix.close(fd)


def mask(run: Run, label: str) -> None:
    """Make the empty file system that hides directories (`mount.mask`) with a label."""
    data = (*EMPTY, ("context", label))
    run.mask_fd = mount.new_mount("tmpfs", "tmpfs", data, k.MOUNT_ATTR_RDONLY | k.MOUNT_ATTR_NOSUID)
