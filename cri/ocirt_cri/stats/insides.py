"""What the processes of a container have: descriptors, sockets, threads, and the first one's limit of open files (proc(5)).

To count sockets each descriptor has to be looked at, which is dear where there are many: a look counts a hundred times as long as
it took, so that no more than a hundredth of a processor goes into it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocirt_cri.stats import cgroups
from ocirt_cri.stats.kernelfiles import get

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_LEAST = 1.0  # seconds that a look counts
_TIMES = 100
_FILES = b"Max open files"


@dataclass(frozen=True, slots=True)
class Inside:
    """Sums over all processes. files: the soft limit of init, None if there is no init, or no limit."""

    processes: int
    threads: int
    descriptors: int
    sockets: int
    files: int | None


class Insides:
    """Remembers what was found for a while. For one thread at a time."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._known: dict[str, tuple[float, Inside]] = {}  # until when

    def look(self, identifier: str, cgroup: Mapping[str, str], pid: int) -> Inside:
        """Of a container. pid: of its init, 0 if there is none. Raises OSError."""
        begun = time.monotonic()
        known = self._known.get(identifier)
        if known is not None and begun < known[0]:
            return known[1]
        found = look(self._proc, cgroups.processes(cgroup), pid)
        now = time.monotonic()
        self._known[identifier] = (now + max(_LEAST, _TIMES * (now - begun)), found)
        return found

    def keep(self, identifiers: Collection[str]) -> None:
        """Forget all others."""
        self._known = {name: known for name, known in self._known.items() if name in identifiers}


def look(proc: str, pids: list[int], init: int) -> Inside:
    """Of these processes; one that has ended meanwhile has nothing."""
    threads = descriptors = sockets = 0
    for pid in pids:
        try:
            threads += os.stat(f"{proc}/{pid}/task").st_nlink - 2
            here = os.open(f"{proc}/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            names = os.listdir(here)
            descriptors += len(names)
            sockets += sum(_is_socket(here, name) for name in names)
        except OSError:
            continue
        finally:
            os.close(here)
    return Inside(len(pids), threads, descriptors, sockets, open_files(get(f"{proc}/{init}", "limits")) if init else None)


def _is_socket(directory: int, name: str) -> bool:
    try:
        return os.readlink(name, dir_fd=directory).startswith("socket:")
    except OSError:
        return False  # closed meanwhile


def open_files(limits: bytes | None) -> int | None:
    """The soft limit of open files in /proc/PID/limits."""
    for line in (limits or b"").split(b"\n"):
        if line.startswith(_FILES):
            soft = line[len(_FILES) :].split()[:1]
            return int(soft[0]) if soft and soft[0].isdigit() else None
    return None
