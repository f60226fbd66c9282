"""The mounts of a process, as /proc/PID/mountinfo lists them (proc_pid_mountinfo(5))."""

from __future__ import annotations

from ocirt.paths import read_bytes

_LIMIT = 1 << 26  # bytes; a mount has some 150
_OWN = "/proc/self/mountinfo"


class Mount:
    """One line: `id`, that of the `parent`, on which it is mounted, the mount `point`, the file system's `kind`, the `source`."""

    __slots__ = ("id", "kind", "parent", "point", "source")

    def __init__(self, line: bytes) -> None:
        fields = line.split(b" ")
        end = fields.index(b"-", 6)  # behind optional fields, of which there may be none
        self.id = int(fields[0])
        self.parent = int(fields[1])
        self.point = _text(fields[4])
        self.kind = _text(fields[end + 1])
        self.source = _text(fields[end + 2])


def read(path: str = _OWN) -> list[Mount]:
    """Mounts that can be reached from the root of the process. Raises OSError."""
    return [Mount(line) for line in read_bytes(path, _LIMIT).split(b"\n") if line]


def id_of(fd: int) -> int:
    """The id of the mount on which an open file is (proc_pid_fdinfo(5)). Raises OSError."""
    for line in read_bytes(f"/proc/self/fdinfo/{fd}").split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"mnt_id":
            return int(value)
    return -1


def is_below(path: str, directory: str) -> bool:
    """Whether `path` is `directory`, or in it; both are absolute and clean."""
    return (path.rstrip("/") + "/").startswith(directory.rstrip("/") + "/")


def holding(path: str) -> Mount | None:
    """The mount that an absolute, clean path is on: the deepest, and of several at one point the last. Raises OSError."""
    found = None
    for one in read():
        if is_below(path, one.point) and (found is None or len(one.point) >= len(found.point)):
            found = one
    return found


def _text(field: bytes) -> str:
    """A field without its octal escapes: a backslash and 040 are a space."""
    first, *rest = field.split(b"\\")
    return (first + b"".join([bytes([int(part[:3], 8)]) + part[3:] for part in rest])).decode("utf-8", "surrogateescape")
