"""Block devices by number, and the file system that containers write to."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ocirt.kernel import mountinfo

_SYS = "/sys/dev/block"


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system. device: its name, never empty; size: bytes; inodes, free: 0 where they are not counted."""

    device: str
    major: int
    minor: int
    size: int
    inodes: int
    free: int


class Disks:
    """Remembers names. Threads share it."""

    def __init__(self) -> None:
        self._devices: dict[str, str] = {}
        self._sources: dict[int, str] = {}

    def device(self, number: str) -> str:
        """The device `MAJOR:MINOR`, such as /dev/sda; the number itself if there is none."""
        found = self._devices.get(number)
        if found is None:
            try:
                found = "/dev/" + os.path.basename(os.readlink(f"{_SYS}/{number}"))
            except OSError:
                return number
            self._devices[number] = found
        return found

    def of(self, path: str) -> Disk:
        """The file system that a path is on; within a quota, as far as that tells. Raises OSError."""
        number = os.stat(path).st_dev
        found = os.statvfs(path)
        device = self._sources.get(number)
        if device is None:
            device = self._sources[number] = _source(os.path.realpath(path))
        total = found.f_blocks * found.f_frsize
        return Disk(device, os.major(number), os.minor(number), total, found.f_files, found.f_ffree)


def _source(path: str) -> str:
    """What is mounted where a path is: its device, or the kind of the file system where it has none."""
    found = mountinfo.holding(path)
    if found is None:
        return "none"
    return found.source if found.source not in ("", "none") else found.kind or "none"
