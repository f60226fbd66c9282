"""Waiting for what happens to a container: the next look at its statistics is due, it is out of memory, it has ended."""

from __future__ import annotations

import posix
import select
from errno import ENODEV, ENOENT, ESRCH
from time import monotonic

from ocirt import state
from ocirt.cgroups import parse
from ocirt.cgroups.files import write
from ocirt.errors import Error
from ocirt.paths import exists

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ocirt.state import Record

OOM = "oom"
DUE = "due"
_LONGEST = 86400.0  # seconds for one poll(2), which takes no more than some 24 days


def watch(record: Record, interval: float) -> Iterator[str]:
    """Yield DUE every `interval` seconds, OOM when memory has run out, until init has ended. Raises Error("state"), OSError."""
    try:
        pidfd = posix.pidfd_open(record["pid"])
    except OSError as err:
        if err.errno != ESRCH:
            raise
        pidfd = -1
    try:
        # After opening: now the number cannot become another process's.
        if pidfd < 0 or not state.init_alive(record):
            raise Error("state", f"container with id {record['id']} is not running")
        memory = Memory(record["cgroup"])
        try:
            yield from _loop(pidfd, memory, interval)
        finally:
            memory.close()
    finally:
        if pidfd >= 0:
            posix.close(pidfd)


def _loop(pidfd: int, memory: Memory, interval: float) -> Iterator[str]:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if memory.fd >= 0:
        poll.register(memory.fd, memory.events)
    due = monotonic() + interval
    while True:
        ready = dict(poll.poll(max(0.0, min(due - monotonic(), _LONGEST)) * 1000))
        # First this: it may be what init has ended of.
        if ready and memory.ran_out(last=pidfd in ready):
            yield OOM
        if pidfd in ready:
            return
        now = monotonic()
        if now >= due:
            due = max(due + interval, now)
            yield DUE


class Memory:
    """Tells when a container has run out of memory; `cgroup` is a record's.

    Who waits polls `fd` for `events`; it is -1 where there is nothing to be told. Version 1 counts up an eventfd
    (cgroup-v1/memory.rst, "OOM Control"), also where the OOM killer is disabled and processes wait for memory; and once when the
    cgroup is removed. In version 2 the file memory.events wakes whoever polls it.
    """

    def __init__(self, cgroup: dict[str, Any]) -> None:
        """Raises OSError."""
        self._cgroup = cgroup
        self._directory = ""
        self._kills = 0
        self.fd = -1
        self.events = select.POLLIN
        paths: dict[str, str] = self._cgroup["paths"]
        try:
            if self._cgroup["mode"] != "v2":
                if "memory" in paths:
                    self._directory = paths["memory"]
                    self.fd = _register(self._directory)
            elif "" in paths:
                self.events = select.POLLPRI
                self.fd = posix.open(paths[""] + "/memory.events", posix.O_RDONLY | posix.O_CLOEXEC)
                self._kills = self._counted()
        except OSError as err:
            self.close()
            if err.errno not in (ENOENT, ENODEV):
                raise

    def ran_out(self, *, last: bool) -> bool:
        """Whether it has since the last call. `last`: init is gone, so that its cgroup may be, too. Never waits."""
        if self.fd < 0:
            return False
        if self._directory:
            try:
                count = int.from_bytes(posix.read(self.fd, 8), "little")
            except BlockingIOError:
                return False
            # The removal of the cgroup counts one.
            return count > (0 if exists(self._directory) else 1)
        before = self._kills
        try:
            self._kills = self._counted()
        except OSError as err:
            if err.errno != ENODEV or not last:
                raise
        return self._kills > before

    def _counted(self) -> int:
        # By the same descriptor: poll(2) takes as seen what was read from it.
        text = posix.pread(self.fd, 4096, 0).decode("ascii", "replace")
        return parse.flat(text).get("oom_kill", 0)

    def close(self) -> None:
        """Be told no more."""
        if self.fd >= 0:
            posix.close(self.fd)
        self.fd = -1


def _register(directory: str) -> int:
    """An eventfd that counts a version 1 cgroup's lacks of memory. Raises OSError."""
    fd = posix.eventfd(0, posix.EFD_CLOEXEC | posix.EFD_NONBLOCK)
    try:
        control = posix.open(directory + "/memory.oom_control", posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            write(directory + "/cgroup.event_control", f"{fd} {control}".encode("ascii"))
        finally:
            posix.close(control)
    except OSError:
        posix.close(fd)
        raise
    return fd
