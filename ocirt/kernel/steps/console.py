"""The container's terminal (pty(7), ioctl_tty(2)): made in its own devpts, its master handed to the parent."""

from __future__ import annotations

import fcntl
import posix
from _struct import pack
from errno import EINVAL

from ocirt.kernel import constants as k
from ocirt.kernel import messages, mount, resolve
from ocirt.kernel.ffi import Buffer, CallError, syscall
from ocirt.kernel.process import fstatfs_type
from ocirt.kernel.run import Run
from ocirt.kernel.steps import sync

_PTMX_INODE = 2


def open(run: Run, rows: int, columns: int) -> None:  # noqa: A001  (the plan's word)
    """Open a pair. The multiplexer is looked at before anything is asked of it (CVE-2025-52565)."""
    path = "/dev/pts/ptmx"
    place = resolve.open_in_root(run.root_fd, path)
    status = posix.fstat(place)
    number = posix.makedev(5, 2)
    magic = fstatfs_type(place)
    if magic != k.DEVPTS_SUPER_MAGIC or status.st_ino != _PTMX_INODE or status.st_rdev != number:
        raise CallError(EINVAL, "fstatfs", path + " is not the multiplexer of a devpts")
    posix.close(place)
    master = resolve.open_in_root(run.root_fd, path, posix.O_RDWR | posix.O_NOCTTY)
    if posix.fstat(master).st_rdev != number:
        raise CallError(EINVAL, "fstat", path + " was exchanged")
    run.fds["console/number"] = _number(master)
    syscall("ioctl", master, k.TIOCSPTLCK, bytes(4))
    slave = syscall("ioctl", master, k.TIOCGPTPEER, posix.O_RDWR | posix.O_NOCTTY | posix.O_CLOEXEC)
    if rows or columns:
        fcntl.ioctl(slave, k.TIOCSWINSZ, pack("4H", rows, columns, 0, 0))
    run.fds["console/master"] = master
    run.fds["console/slave"] = slave


def _number(master: int) -> int:
    buffer = Buffer(4)
    syscall("ioctl", master, k.TIOCGPTN, buffer.address)
    return int.from_bytes(buffer.bytes(), "little")


def bind(run: Run) -> None:
    """Bind the slave to /dev/console, by descriptor."""
    target = resolve.make_file(run.root_fd, "/dev/console", 0o600)
    fd = mount.open_tree("", False, dir_fd=run.fds["console/slave"])
    mount.move_mount(fd, target)
    posix.close(fd)
    posix.close(target)


def send(run: Run) -> None:
    """Hand the master to the parent, and make the slave our controlling terminal and standard streams."""
    messages.send_descriptors(run.sync, b"d/dev/pts/%d" % run.fds.pop("console/number"), run.fds["console/master"])
    posix.close(run.fds.pop("console/master"))
    slave = run.fds["console/slave"]
    fcntl.ioctl(slave, k.TIOCSCTTY, 0)
    for fd in range(3):
        posix.dup2(slave, fd, inheritable=True)
    posix.close(slave)


def receive(run: Run) -> None:
    """Take the master, and give it to whoever is to have it."""
    message, fds = messages.receive_descriptors(run.sync)
    if message[:1] != b"d" or not fds:
        raise sync.explained(run, message)
    run.on_console(message[1:].decode(), fds[0])
