"""What only a version 2 hierarchy has: controllers handed down, threaded cgroups, events to wait for (kernel, cgroup-v2.rst)."""

from __future__ import annotations

import posix
from errno import ENODEV
from time import monotonic

from ocirt.cgroups.files import read, write
from ocirt.paths import parent


def hand_on(directory: str) -> None:
    """Enable for a version 2 cgroup all controllers that its hierarchy has, from the top down, as far as they may be.

    What stays off shows when a limit is written (there is no such file), so nothing is raised here.
    """
    chain: list[str] = []
    place = parent(directory)
    wanted: set[str] = set()
    while True:
        try:
            wanted = set(read(place + "/cgroup.controllers").split())
        except OSError:
            break  # above the mount point
        chain.insert(0, place)
        place = parent(place)
    for place in chain:
        have = wanted if place == chain[0] else wanted & set(read(place + "/cgroup.controllers").split())
        if missing := have - set(read(place + "/cgroup.subtree_control").split()):
            _enable(place + "/cgroup.subtree_control", sorted(missing))


def _enable(file: str, names: list[str]) -> None:
    try:
        write(file, " ".join("+" + name for name in names).encode("ascii"))
    except OSError:
        for name in names:
            try:
                write(file, b"+" + name.encode("ascii"))
            except OSError:
                pass


def fit_in(directory: str) -> None:
    """Make a new version 2 cgroup threaded where its parent allows nothing else: below processes, without domain controllers."""
    try:
        if read(directory + "/cgroup.type") == "domain invalid\n":
            write(directory + "/cgroup.type", b"threaded")
    except OSError:
        pass  # shows when a process is to join


def wait_event(directory: str, event: str, seconds: float) -> bool:
    """Wait until version 2's cgroup.events holds the line `event`; a cgroup that is gone counts as "populated 0"."""
    import select  # noqa: PLC0415  (only when there is something to wait for)

    end = monotonic() + seconds
    try:
        fd = posix.open(directory + "/cgroup.events", posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return event == "populated 0"
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        while True:
            try:
                text = posix.pread(fd, 4096, 0).decode("ascii")
            except OSError as error:
                if error.errno == ENODEV:
                    return event == "populated 0"
                raise
            if event in text.split("\n"):
                return True
            left = end - monotonic()
            if left <= 0:
                return False
            poll.poll(left * 1000)
    finally:
        posix.close(fd)


def of_process(pid: int, mount: str = "/sys/fs/cgroup") -> str:
    """The version 2 directory that process `pid` is in.

    That is where a process can join a container whose init has moved to a child cgroup and handed on controllers, so that the
    container's own cgroup takes no process any more (EBUSY). Raises OSError.
    """
    for line in read(f"/proc/{pid}/cgroup").split("\n"):
        if line.startswith("0::"):
            return mount + line[3:].rstrip("/")
    raise FileNotFoundError(2, "no version 2 hierarchy")
