"""Killing a process before each change that it makes to a store.

A child process makes a store's changes through `Changes`, each of whose methods is one change. Here a child is forked in which
those methods count, and end it by SIGKILL before the Nth. A change that was begun and torn (a write of which a part is there)
is one more point: the child writes half and dies.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ocirt_images.store.changes import Changes

METHODS = [name for name in vars(Changes) if not name.startswith("_")]


class Counted:
    """Puts a count before each change of this process; kills it before the one that is to be its last."""

    def __init__(self, last: int) -> None:
        self.done = 0
        self.last = last
        for name in METHODS:
            setattr(Changes, name, self._wrapped(name, getattr(Changes, name)))

    def _wrapped(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self.done += 1
            if self.done == self.last:
                if name == "write_at":
                    changes, descriptor, data, offset, path = arguments
                    method(changes, descriptor, memoryview(data).cast("B")[: memoryview(data).nbytes // 2], offset, path)
                os.kill(os.getpid(), signal.SIGKILL)
            return method(*arguments, **named)

        return counted


def forked(action: Callable[[], object], *, last: int = -1) -> tuple[int, int]:
    """Runs an action in a child that is killed before its change number `last`. Its wait status, and how many changes it made.

    Other threads of this process must be idle: a child has none of them.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        status = 70
        try:
            os.close(reading)
            counted = Counted(last)
            action()
            os.write(writing, str(counted.done).encode())
            status = 0
        except BaseException:  # noqa: BLE001 -- nothing of a child may return into the tests of its parent
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    return os.waitpid(pid, 0)[1], int(said or b"0")


def points(prepare: Callable[[], object], action: Callable[[], object]) -> Iterator[int]:
    """For each change that an action makes: prepares, kills the action before it, and yields its number."""
    prepare()
    status, count = forked(action)
    assert status == 0, f"the action fails by itself: {status}"
    assert count > 0
    for last in range(1, count + 1):
        prepare()
        status, _ = forked(action, last=last)
        assert os.WIFSIGNALED(status), f"it was not killed before change {last} of {count}: {status}"
        assert os.WTERMSIG(status) == signal.SIGKILL
        yield last
