"""The process that walks through what containers have written, and takes one percent of a processor for it.

    {"walk": {ID: PATH, …}}                         what there is to walk; each line replaces the one before
    {"id": ID, "size": 4096, "inodes": 1}           and back, each time that one has been walked

PATH: a writable layer's directory, with `fs` in it. Where the file system counts for us (quotas), it is asked instead.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ocirt_cri.spawned import be_killed_first
from ocirt_images.snapshots import tree
from ocirt_images.snapshots.backend import Upper, Usage
from ocirt_images.store import limits

if TYPE_CHECKING:
    from collections.abc import Callable

SHARE = 0.01  # of a processor
ROUND = 10.0  # seconds from one walk of a layer to the next, at least
_SAVED = 0.1  # seconds of the processor that may be saved up while there is nothing to do
_NICE = 19


class Budget:
    """Keeps a process to a share of a processor: `pay` sleeps until what was used has been earned."""

    def __init__(
        self,
        share: float = SHARE,
        *,
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = time.process_time,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._share = share
        self._clock, self._used, self._sleep = clock, used, sleep
        self._at, self._paid = clock(), used()
        self._credit = 0.0

    def pay(self) -> None:
        """Sleep for as long as it takes."""
        now, used = self._clock(), self._used()
        earned = (now - self._at) * self._share
        self._credit = min(_SAVED, self._credit + earned) - (used - self._paid)
        self._at, self._paid = now, used
        if self._credit < 0:
            self._sleep(-self._credit / self._share)


def serve(fd: int) -> None:
    """Walk until the socket ends. Never returns."""
    be_killed_first()
    os.nice(_NICE)
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError:
        pass
    try:
        _Walker(socket.socket(fileno=fd), Budget()).run()
    except ConnectionError:
        pass  # the daemon died
    os._exit(0)


class _Walker:
    def __init__(self, channel: socket.socket, budget: Budget) -> None:
        self._channel = channel
        self._budget = budget
        self._rest = b""
        self._paths: dict[str, str] = {}
        self._next: dict[str, float] = {}  # when each may be walked again

    def run(self) -> None:
        while True:
            name = min(self._paths, key=lambda one: self._next.get(one, 0.0), default=None)
            wait = None if name is None else max(0.0, self._next.get(name, 0.0) - time.monotonic())
            if not self._listen(wait):
                return
            if name is None or wait or name not in self._paths:
                continue
            found = measure(Path(self._paths[name]), self._budget.pay)
            self._next[name] = time.monotonic() + ROUND
            if found is not None:
                self._channel.sendall(json.dumps({"id": name, "size": found.size, "inodes": found.inodes}).encode() + b"\n")
            self._budget.pay()

    def _listen(self, wait: float | None) -> bool:
        """Take what the daemon says within `wait` seconds (None: whenever). False: it is gone."""
        while select.select([self._channel], [], [], wait)[0]:
            data = self._channel.recv(1 << 20)
            if not data:
                return False
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._paths = json.loads(line)["walk"]
                self._next = {name: at for name, at in self._next.items() if name in self._paths}
            wait = 0
            if lines:
                break
        return True


def measure(directory: Path, between: Callable[[], object] | None = None) -> Usage | None:
    """What a writable layer takes; None if it is gone, or cannot be read. An OSError of `between` ends it so."""
    try:
        counted = limits.usage(directory)
        return Usage(*counted) if counted else tree.usage(Upper(directory).fs, between)
    except OSError:
        return None
