"""The root of the container, and the way into it."""

from __future__ import annotations

import posix
from errno import EINVAL, ENOTCONN, ENOTDIR, EXDEV

from ocirt.kernel import constants as k
from ocirt.kernel import mount, mountinfo, resolve
from ocirt.kernel.ffi import CallError
from ocirt.kernel.run import Run
from ocirt.paths import encode

_O_PATH = 0o10000000


def check_root(run: Run, path: str) -> None:
    """See that the root is a directory, before anything is made."""
    del run
    try:
        if posix.stat(path).st_mode & resolve.S_IFMT != resolve.S_IFDIR:
            raise CallError(ENOTDIR, "stat", path)
    except PermissionError:
        pass  # init may be allowed what we are not


def check_mounted(run: Run, path: str) -> None:
    """See that something is mounted at the root: what an empty directory there would run is nobody's wish."""
    del run
    try:
        if posix.stat(path).st_dev == posix.stat(path + "/..").st_dev:
            raise CallError(ENOTCONN, "", path)
    except PermissionError:
        pass


def attach_root(run: Run, path: str) -> None:
    """Make the detached copy of the root a mount of init's namespace, on top of what it was made from."""
    fd = run.fds["root"]
    target = posix.open(path, _O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    mount.move_mount(fd, target)
    posix.close(target)
    run.root_fd = fd


def make_parent_private(run: Run, path: str) -> None:
    """Keep what is attached at the root from propagating to the host, where the host's tree stays shared."""
    del run
    fd = posix.open(path, _O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    number = mountinfo.id_of(fd)
    posix.close(fd)
    points = [each.point for each in mountinfo.read() if each.id == number]
    if not points:
        raise CallError(EINVAL, "", f"{path} lies on a mount that is not below the runtime's root")
    mount.mount_setattr(k.AT_FDCWD, 0, 0, k.MS_PRIVATE, path=encode(points[0]))


def make_directory(run: Run, path: str) -> None:
    """Make a directory of the container, such as its working directory, where it is missing."""
    try:
        posix.close(resolve.make_directory(run.root_fd, path))
    except OSError as err:
        err.filename = path
        raise


def sysctl(run: Run, path: str, value: str) -> None:
    """Write a file below the host's /proc/sys: what it means is said by init's own namespaces.

    The host's /proc is still in sight, so no image can have put anything in its place; that it is a procfs is verified.
    """
    if "proc" not in run.fds:
        run.fds["proc"] = resolve.open_proc()
    try:
        fd = _open_sysctl(run.fds["proc"], "sys/" + path)
    except CallError as err:
        if err.errno != EXDEV:
            raise
        if "sysctls" not in run.fds:
            run.fds["sysctls"] = _mounted_sysctls(run.fds["proc"])
        fd = _open_sysctl(run.fds["sysctls"], path)
    try:
        posix.write(fd, encode(value))
    except OSError as err:
        err.filename = "/proc/sys/" + path
        raise
    finally:
        posix.close(fd)


def _open_sysctl(beneath: int, path: str) -> int:
    return resolve.open_in_root(beneath, path, posix.O_WRONLY, 0, k.RESOLVE_BENEATH | k.RESOLVE_NO_XDEV | k.RESOLVE_NO_SYMLINKS)


def _mounted_sysctls(proc: int) -> int:
    """The directory `sys`, where that is a mount of its own, as in a container: of the same procfs, and no other part of it."""
    fd = resolve.open_in_root(proc, "sys", _O_PATH | posix.O_DIRECTORY, 0, k.RESOLVE_BENEATH | k.RESOLVE_NO_SYMLINKS)
    try:
        if posix.fstat(fd).st_dev != posix.fstat(proc).st_dev:
            raise CallError(EXDEV, "openat2", "/proc/sys is of another file system")
        posix.close(resolve.open_in_root(fd, "kernel/ostype", _O_PATH, 0, k.RESOLVE_BENEATH | k.RESOLVE_NO_SYMLINKS))
    except BaseException:
        posix.close(fd)
        raise
    return fd


def pivot(run: Run) -> None:
    """pivot_root(2), after which nothing of the host's tree is left."""
    posix.fchdir(run.root_fd)
    mount.pivot_root_here()


def move_root(run: Run) -> None:
    """For a root in a ramdisk, which pivot_root(2) refuses: move the tree over `/`, and chroot(2)."""
    posix.fchdir(run.root_fd)
    target = posix.open("/", _O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    mount.move_mount(run.root_fd, target)
    posix.close(target)
    posix.chroot(".")
    posix.chdir("/")
