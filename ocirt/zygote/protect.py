"""Execute the interpreter from a file that no container can write to, as the launcher does (CVE-2019-5736; docs/launcher.md).

What enters a container runs the interpreter until its execve, and can be reached from there as /proc/PID/exe. The launcher is a
program beside the command, which an embedding program need not have: so this does the same from inside Python, once a zygote.
"""

from __future__ import annotations

import posix
from errno import EINVAL, ENOSYS, EPERM

from ocirt.errors import Error
from ocirt.kernel import constants as k
from ocirt.kernel import mount, process
from ocirt.kernel.ffi import CallError, syscall
from ocirt.paths import encode, read_bytes, read_text

_MFD_CLOEXEC = 1
_MFD_ALLOW_SEALING = 2
_MFD_EXEC = 16
_F_ADD_SEALS = 1033
_ALL_SEALS = 15
_O_TMPFILE = 0o20000000 | posix.O_DIRECTORY
_PLACES = ("/tmp", "/var/tmp", "/dev/shm")
_LARGEST = 1 << 30


def needed(path: str) -> bool:
    """Whether a container of ours could write to the file: not if it is root's alone and we are not root."""
    if posix.geteuid() == 0:
        return True
    status = posix.stat(path)
    return status.st_uid != 0 or bool(status.st_mode & 0o022)


def execute(path: str, argv: list[str]) -> None:
    """Execute `path` with the present environment; `argv` begins with its name. Does not return. Raises Error, OSError."""
    loader = _origin_loader(path)
    if loader:
        # It finds its libraries beside itself. Its loader, told the program's name, does not look at /proc/self/exe for that.
        argv = [loader, "--argv0", path, path, *argv[1:]]
        path = loader
    words = [encode(word) for word in argv]
    environment = [name + b"=" + value for name, value in posix.environ.items()]
    fd = _clone(path)
    if fd < 0:
        fd = _copy(path)
    syscall("execveat", fd, b"", process.pointer_array(words), process.pointer_array(environment), k.AT_EMPTY_PATH)


def _origin_loader(path: str) -> str:
    """The dynamic loader, if the program has $ORIGIN in its library search path; else ""."""
    data = read_bytes(path, _LARGEST)
    if b"$ORIGIN" not in data and b"${ORIGIN" not in data:
        return ""
    for line in read_text("/proc/self/maps").splitlines():
        name = line.partition("/")[2]
        if name.rpartition("/")[2].startswith(("ld-", "ld.so", "ld64.so")):
            return "/" + name
    return ""


def _clone(path: str) -> int:
    """A read-only mount of the file alone; -1 where mounts may not be cloned. Raises CallError."""
    try:
        fd = mount.open_tree(path, recursive=False)
        mount.mount_setattr(fd, k.MOUNT_ATTR_RDONLY)
    except CallError as err:
        if err.errno not in (EPERM, ENOSYS, EINVAL):
            raise
        return -1
    return fd


def _copy(path: str) -> int:
    """A sealed file in memory with a copy; where those may not be executed (vm.memfd_noexec=2), a file without a name."""
    data = read_bytes(path, _LARGEST)
    for extra in (_MFD_EXEC, 0):  # before Linux 6.3 the first is EINVAL
        try:
            fd = posix.memfd_create("ocirt", _MFD_CLOEXEC | _MFD_ALLOW_SEALING | extra)
        except OSError as err:
            if err.errno == EINVAL:
                continue
            break
        _fill(fd, data)
        syscall("fcntl", fd, _F_ADD_SEALS, _ALL_SEALS)
        return fd
    for place in _PLACES:
        try:
            fd = posix.open(place, _O_TMPFILE | posix.O_EXCL | posix.O_RDWR | posix.O_CLOEXEC, 0o500)
            if not posix.access(f"/proc/self/fd/{fd}", posix.X_OK):
                posix.close(fd)  # mounted noexec
                continue
            _fill(fd, data)
            readable = posix.open(f"/proc/self/fd/{fd}", posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError:
            continue
        posix.close(fd)  # what is open for writing cannot be executed
        return readable
    raise Error("kernel", "cannot copy the interpreter", subject=path, hint="that needs memfd_create, or a /tmp to write to")


def _fill(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[posix.write(fd, view) :]
