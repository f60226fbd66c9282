"""Loop devices (include/uapi/linux/loop.h). Each carries its owner's mark in its name, so that it is found after any end."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import threading

from ocirt_csi.errors import Error
from ocirt_csi.kernel import calls

_CONFIGURE, _CLEAR, _GET_STATUS, _SET_CAPACITY, _GET_FREE = 0x4C0A, 0x4C01, 0x4C05, 0x4C07, 0x4C82
_GET_SIZE = 0x80081272  # BLKGETSIZE64
_READ_ONLY, _DIRECT = 1, 16
_INFO = struct.Struct("=5Q4I64s64s32s2Q")  # struct loop_info64
_LONGEST = 63  # bytes of a mark
_ATTEMPTS = 64
_MAJOR = 7


class Marked:
    """Devices whose marks nobody but this process gives away: they are looked for once, and not among all devices each time."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._lock = threading.Lock()
        self._known: dict[str, str] | None = None

    def find(self, mark: str) -> str | None:
        """The device with a mark. Raises OSError."""
        known = self._all()
        device = known.get(mark)
        if device is not None and mark_of(device) != mark:  # somebody took it away
            del known[mark]
            device = None
        return device

    def attach(self, path: str, mark: str, *, read_only: bool = False) -> str:
        """The device of a file, as `attach` has it. One mark is asked for once at a time. Raises Error, OSError."""
        device = self.find(mark) or attach(path, mark, read_only=read_only)
        self._all()[mark] = device
        return device

    def _all(self) -> dict[str, str]:
        with self._lock:
            if self._known is None:
                self._known = all_marked(self._prefix)
            return self._known


def attach(path: str, mark: str, *, read_only: bool = False) -> str:
    """The device of a file that has none with this mark, e.g. "/dev/loop3". Raises Error, OSError."""
    flags = _DIRECT | (_READ_ONLY if read_only else 0)
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, _name(mark), b"", b"", 0, 0)
    with calls.opened(path, os.O_RDONLY if read_only else os.O_RDWR) as backing:
        config = struct.pack("=2I", backing, 0) + info + bytes(64)
        for _ in range(_ATTEMPTS):
            device = _free()
            try:
                with calls.opened(device, os.O_RDONLY if read_only else os.O_RDWR) as fd:
                    calls.ioctl(fd, "LOOP_CONFIGURE", _CONFIGURE, config)
                    return device
            except OSError as err:
                if err.errno != errno.EBUSY:  # somebody was quicker
                    raise
    raise Error("exhausted", "no loop device could be had", hint="others take them as fast as they are made")


def find(mark: str) -> str | None:
    """The device with a mark."""
    return all_marked(mark).get(mark)


def all_marked(prefix: str) -> dict[str, str]:
    """Devices by their marks, of those that begin so."""
    found = {}
    for name in os.listdir("/sys/block"):
        if not name.startswith("loop") or not os.path.exists(f"/sys/block/{name}/loop"):
            continue
        mark = mark_of(f"/dev/{name}")
        if mark.startswith(prefix):
            found[mark] = f"/dev/{name}"
    return found


def mark_of(device: str) -> str:
    """The mark of a device; "" for one that has none, or is gone."""
    try:
        with calls.opened(device, os.O_RDONLY) as fd:
            answer = calls.ioctl(fd, "LOOP_GET_STATUS64", _GET_STATUS, bytes(_INFO.size))
    except OSError:
        return ""
    return str(_INFO.unpack(answer)[9].rstrip(b"\0").decode(errors="replace"))


def detach(device: str) -> None:
    """Let go of the file; while somebody holds the device the kernel waits with it. Raises OSError."""
    with calls.opened(device, os.O_RDONLY) as fd:
        try:
            calls.ioctl(fd, "LOOP_CLR_FD", _CLEAR)
        except OSError as err:
            if err.errno != errno.ENXIO:
                raise


def resize(device: str) -> None:
    """Give the device the size that its file has now. Raises OSError."""
    with calls.opened(device, os.O_RDONLY) as fd:
        calls.ioctl(fd, "LOOP_SET_CAPACITY", _SET_CAPACITY)


def size(device: str) -> int:
    """Bytes of a block device. Raises OSError."""
    with calls.opened(device, os.O_RDONLY) as fd:
        (found,) = struct.unpack("=Q", calls.ioctl(fd, "BLKGETSIZE64", _GET_SIZE, bytes(8)))
    return int(found)


def flush(device: str) -> None:
    """Write what the device's own cache holds into its file. Raises OSError."""
    with calls.opened(device, os.O_RDONLY) as fd:
        os.fsync(fd)


def _free() -> str:

    try:
        with calls.opened("/dev/loop-control", os.O_RDWR) as control:
            number = fcntl.ioctl(control, _GET_FREE)
    except OSError as err:
        if err.errno == errno.ENOENT:
            raise Error("unsupported", "this machine has no loop devices", subject="/dev/loop-control") from None
        raise Error("exhausted", "no loop device could be had", cause=err.strerror or "") from None
    device = f"/dev/loop{number}"
    if not os.path.exists(device):  # a /dev that the kernel does not fill
        try:
            os.mknod(device, 0o600 | stat.S_IFBLK, os.makedev(_MAJOR, number))
        except FileExistsError:
            pass
    return device


def _name(mark: str) -> bytes:
    name = mark.encode()
    assert len(name) <= _LONGEST, mark
    return name
