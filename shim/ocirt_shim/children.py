"""Children of the shim, and who waits for them."""

from __future__ import annotations

import posix

from ocirt_shim.worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ocirt_shim.loop import Loop
    from ocirt_shim.ready import Ready
    from ocirt_shim.worker import Word

    Ended = Callable[[int], object]


class Children:
    """Workers, and what they have started: a program may be reaped before its worker's word is read."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._expected: dict[int, Ended] = {}
        self._unclaimed: dict[int, int] = {}
        self._workers: dict[int, Worker] = {}

    def employ(self, work: Callable[[], Word], hear: Callable[[Word | Exception], object], kept: list[int]) -> int:
        """Have a worker do something; see there. Its pid. Raises OSError."""
        worker = Worker(self._loop, work, hear, kept)
        self._workers[worker.pid] = worker
        return worker.pid

    def pass_on(self, ready: Ready, data: bytes, hear: Callable[[Word | Exception], object], kept: list[int]) -> int:
        """Have one that is ready do it, with these descriptors, which are closed here if it begins. Raises OSError if not."""
        ready.give(data, kept)
        for fd in kept:
            posix.close(fd)
        worker = Worker.of(self._loop, ready, hear)
        self._workers[worker.pid] = worker
        return worker.pid

    def expect(self, pid: int, ended: Ended) -> None:
        """Call `ended` with the status (of waitpid(2)) of a child, once it was reaped."""
        if pid in self._unclaimed:
            ended(self._unclaimed.pop(pid))
        else:
            self._expected[pid] = ended

    def unclaimed(self, pid: int) -> int | None:
        """The status of a child that was reaped before anybody knew of it, once."""
        return self._unclaimed.pop(pid, None)

    def reaped(self, pid: int, status: int) -> None:
        """A child has ended."""
        worker = self._workers.pop(pid, None)
        if worker is not None:
            worker.ended()  # its last word may lie there yet, and says whose the next to be reaped is
            if not self._workers:
                self._unclaimed.clear()
            return
        ended = self._expected.pop(pid, None)
        if ended is not None:
            ended(status)
        elif self._workers:
            self._unclaimed[pid] = status  # perhaps of a worker that has not been heard


def exit_code(status: int) -> int:
    """Of a status as waitpid(2) gives it: 128 + N after signal N."""
    code = posix.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code
