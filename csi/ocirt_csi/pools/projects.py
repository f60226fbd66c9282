"""The back end of ext4 and xfs with project quotas: a folder for a volume, limited by its project.

A snapshot or a clone is a copy file by file, whose blocks are shared where the file system can do that. It is of one moment only
if nobody writes meanwhile, so it is made of volumes that are not in use.
"""

from __future__ import annotations

import os
import sys
import zlib

from ocirt_csi.errors import Error
from ocirt_csi.kernel import calls, projects, trees
from ocirt_csi.kernel.mounts import Mount
from ocirt_csi.model import PROJECT, Snapshot, Volume
from ocirt_csi.pools import copies
from ocirt_csi.pools.base import DATA, MIB, BackEnd, Options, Origin, Usage

_MODE = 0o755
_NUMBER = "project"  # a file of a place, where only root comes
_FIRST, _COUNT = 1 << 30, 1 << 29  # numbers of our projects, far from what people choose
_ATTEMPTS = 1000


class Projects(BackEnd):
    """Folders of one file system. shares: it lets files share blocks."""

    layout = PROJECT
    least = MIB
    copies_in_use = False

    def __init__(self, root: str, *, shares: bool) -> None:
        self._root = root
        self._origin = Origin(root)
        self._shares = shares

    def charge(self, size: int, fs_type: str) -> int:
        """As it is."""
        return size

    def make(self, place: str, volume: Volume) -> None:
        """A folder that counts for a project of its own, under its limit before anything is in it."""
        data = os.path.join(place, DATA)
        os.mkdir(data, 0o700)
        project = self._free(volume.id)
        sys.audit(calls.AUDIT, "creat")
        with calls.opened(os.path.join(place, _NUMBER), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW) as fd:
            os.write(fd, b"%d\n" % project)
            os.fsync(fd)
        projects.limit(self._root, project, volume.size)
        projects.assign(data, project)
        os.chmod(data, _MODE)

    def copy(self, source: str, place: str, volume: Volume) -> None:
        """The same, with copies of all files."""
        self.make(place, volume)
        copies.copy(source, place)

    def snapshot(self, source: str, place: str) -> None:
        """A folder without a project."""
        os.mkdir(os.path.join(place, DATA), 0o700)
        copies.copy(source, place)

    def grow(self, place: str, volume: Volume) -> None:
        """A larger limit, which counts at once."""
        projects.limit(self._root, self._project(place), volume.target)

    def exclusive(self, place: str) -> int:
        """As its project counts it. Blocks that it shares are counted too: a quota does not tell."""
        try:
            return projects.figures(self._root, self._project(place))[1]
        except FileNotFoundError:
            return 0

    def burden(self, place: str, *, snapshot: bool) -> int:
        """A copy of all files, now or by and by."""
        return self.exclusive(place) if snapshot or self._shares else 0

    def mount(self, place: str, volume: Volume, options: Options) -> int:
        """The folder itself, bound."""
        return self.bind(place, options, "volumes here share")

    def shows(self, place: str, volume: Volume, mount: Mount) -> bool:
        """By its place in the file system."""
        return self._origin.is_of(mount, os.path.join(place, DATA))

    def usage(self, place: str, volume: Volume, point: str) -> Usage:
        """The limit and what counts against it."""
        used = projects.figures(self._root, self._project(place))[1]
        room = os.statvfs(self._root)
        return Usage(volume.size, used, max(0, min(volume.size - used, room.f_bavail * room.f_frsize)))

    def remove(self, place: str) -> None:
        """All files, then the limit: a project without both is free for the next. Last its number, so that no end in between
        leaves a limit behind.
        """
        data = os.path.join(place, DATA)
        if os.path.isdir(data):
            trees.remove(data)
        try:
            projects.limit(self._root, self._project(place), 0)
        except (FileNotFoundError, Error):  # a snapshot's, or what ended before it had one
            pass
        super().remove(place)

    def damage(self, place: str, thing: Volume | Snapshot) -> str:
        """Whether the folder is there, and a volume under its limit."""
        if not os.path.isdir(os.path.join(place, DATA)):
            return "its folder is gone"
        if not isinstance(thing, Volume):
            return ""
        try:
            project = self._project(place)
        except FileNotFoundError:
            return "the number of its project is gone"
        if projects.figures(self._root, project)[0] != thing.size // 512 * 512:
            return "its quota is not its size"
        if projects.of(os.path.join(place, DATA)) != project:
            return "somebody lets its folder count for another project than its own"
        return ""

    def _project(self, place: str) -> int:
        """As it was written down: who uses the folder can have it count for another. Raises FileNotFoundError, Error."""
        path = os.path.join(place, _NUMBER)
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read().strip()
        if not text.isdecimal() or not _FIRST <= int(text) < _FIRST + _COUNT:
            raise Error("corrupt", "is not the number of a project of ours", subject=path, cause=repr(text[:32]))
        return int(text)

    def _free(self, identifier: str) -> int:
        """A number that has neither a limit nor files; where to begin to look is told by the volume's id."""
        start = zlib.crc32(identifier.encode())
        for number in range(_ATTEMPTS):
            project = _FIRST + (start + number) % _COUNT
            if projects.figures(self._root, project) == (0, 0):
                return project
        raise Error("exhausted", "no project is free", subject=self._root)
