"""Forks of a job: for what is done in namespaces from which there is no way back."""

from __future__ import annotations

import os
from collections.abc import Callable

from ocirt.errors import Error

_DONE = b"t"
_LONGEST = 1000  # bytes of what a fork says


def run(work: Callable[[], object], what: str) -> None:
    """Do it in a fork. Raises Error("kernel"), which says that it cannot `what`, if it fails there with OSError or ValueError."""
    with Holder(work, what):
        pass


class Holder:
    """A fork that has done `work`, and keeps the namespaces that it is in until the block ends. Its pid is what the block gets.

    Raises Error("kernel") as `run` does, OSError if there can be no fork.
    """

    __slots__ = ("_go", "_pid", "_what", "_work")

    def __init__(self, work: Callable[[], object], what: str) -> None:
        self._work = work
        self._what = what

    def __enter__(self) -> int:
        ready, self._go = os.pipe2(os.O_CLOEXEC)
        said, tell = os.pipe2(os.O_CLOEXEC)
        try:
            self._pid = os.fork()
        except OSError:
            for fd in (ready, self._go, said, tell):
                os.close(fd)
            raise
        if not self._pid:
            os.close(self._go)
            _hold(self._work, ready, tell)
        os.close(ready)
        os.close(tell)
        try:
            word = os.read(said, _LONGEST)
        finally:
            os.close(said)
        if word != _DONE:
            self.__exit__()
            raise Error("kernel", f"cannot {self._what}", cause=word.decode(errors="replace") or "killed")
        return self._pid

    def __exit__(self, *_: object) -> None:
        os.close(self._go)
        os.waitpid(self._pid, 0)


def _hold(work: Callable[[], object], ready: int, tell: int) -> None:
    """Never returns."""
    try:
        try:
            work()
        except (OSError, ValueError) as err:
            from ocirt.cli.log import describe  # noqa: PLC0415  (only for a failure)

            os.write(tell, (describe(err) if isinstance(err, OSError) else str(err)).encode()[:_LONGEST])
        else:
            os.write(tell, _DONE)
            os.read(ready, 1)
    finally:
        os._exit(0)
