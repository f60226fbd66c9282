"""Children of a shim, and who waits for them."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # (typeshed has none; `signal` loads enum)
import posix

from ocirt.cgroups import control
from ocirt.kernel import constants as k
from ocirt.kernel.ffi import syscall
from ocirt.kernel.process import prctl
from ocirt_shim.worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ocirt_shim.loop import Loop
    from ocirt_shim.ready import Ready
    from ocirt_shim.worker import Word

    Ended = Callable[[int], object]


_SIGKILL = 9
_SFD_CLOEXEC, _SFD_NONBLOCK = 0o2000000, 0o4000
_SIGSET_SIZE = 8
_SIGINFO_SIZE = 128  # struct signalfd_siginfo
_IGNORED = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM, _signal.SIGPIPE)


def become(name: bytes) -> None:
    """Make this process, a fork, one that holds others. Raises OSError."""
    posix.setsid()
    syscall("prctl", k.PR_SET_NAME, name)
    prctl(k.PR_SET_CHILD_SUBREAPER, 1)
    for number in _IGNORED:
        _signal.signal(number, _signal.SIG_IGN)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, {_signal.SIGCHLD})


def watch(loop: Loop, ended: Callable[[], object]) -> int:
    """Have `ended` called when children may have; the descriptor that tells. SIGCHLD is to be blocked. Raises OSError."""
    mask = (1 << (_signal.SIGCHLD - 1)).to_bytes(_SIGSET_SIZE, "little")
    signals: int = syscall("signalfd4", -1, mask, _SIGSET_SIZE, _SFD_CLOEXEC | _SFD_NONBLOCK)

    def come() -> None:
        try:
            posix.read(signals, _SIGINFO_SIZE)
        except BlockingIOError:
            pass
        ended()

    loop.add(signals, come)
    return signals


def next_ended() -> int:
    """The pid of a child that has ended, and is not reaped; 0 if there is none."""
    try:
        found = posix.waitid(posix.P_ALL, 0, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT)
    except ChildProcessError:
        return 0
    return 0 if found is None else found.si_pid


def _is_child(pid: int) -> bool:
    try:
        posix.waitid(posix.P_PID, pid, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT)
    except ChildProcessError:
        return False
    return True


class Children:
    """Workers, and what they have started: a program may be reaped before its worker's word is read.

    common: workers have no descriptors but these and those that they are given; None: all.
    """

    def __init__(self, loop: Loop, common: Sequence[int] | None = None) -> None:
        self._loop = loop
        self._common = common
        self._expected: dict[int, Ended] = {}
        self._unclaimed: dict[int, int] = {}
        self._workers: dict[int, Worker] = {}
        self._unheard = 0  # workers whose word is not there yet; who else has its pipe may hold that back beyond the worker's end

    def employ(self, work: Callable[[], Word], hear: Callable[[Word | Exception], object], kept: list[int]) -> int:
        """Have a worker do something; see there. Its pid. Raises OSError."""
        return self._wait_for(Worker(self._loop, work, self._heard(hear), kept, self._common))

    def _heard(self, hear: Callable[[Word | Exception], object]) -> Callable[[Word | Exception], None]:
        def heard(word: Word | Exception) -> None:
            try:
                hear(word)
            finally:
                self._unheard -= 1
                if not self._unheard:
                    self._unclaimed.clear()

        return heard

    def _wait_for(self, worker: Worker) -> int:
        self._unheard += 1
        self._workers[worker.pid] = worker
        return worker.pid

    def kill(self, cgroup: dict[str, Any], answer: Callable[[], object], fail: Callable[[Exception], object]) -> None:
        """SIGKILL for all of a cgroup. Raises Error, OSError if it cannot be begun.

        In version 1 they are frozen for that, and what hangs in the kernel holds up freezer and killer for as long as they wait.
        """
        if "" in cgroup["paths"]:
            control.kill(cgroup, _SIGKILL)
            answer()
            return

        def work() -> Word:
            control.kill(cgroup, _SIGKILL)
            return {}

        self.employ(work, lambda word: fail(word) if isinstance(word, Exception) else answer(), [])

    def pass_on(self, ready: Ready, data: bytes, hear: Callable[[Word | Exception], object], kept: list[int]) -> int:
        """Have one that is ready do it, with these descriptors, which are closed here if it begins. Raises OSError if not."""
        ready.give(data, kept)
        for fd in kept:
            posix.close(fd)
        return self._wait_for(Worker.of(self._loop, ready, self._heard(hear)))

    def expect(self, pid: int, ended: Ended) -> None:
        """Call `ended` with the status (of waitpid(2)) of a child, once it was reaped."""
        status = self.unclaimed(pid)
        if status is not None:
            ended(status)
        else:
            self._expected[pid] = ended

    def unclaimed(self, pid: int) -> int | None:
        """The status of a child that was reaped before anybody knew of it, once."""
        status = self._unclaimed.pop(pid, None)
        if status is not None and _is_child(pid):
            return None  # that was of somebody else, who had the number before
        return status

    def reap(self) -> None:
        """All that have ended."""
        while pid := next_ended():
            self.reaped(*posix.waitpid(pid, 0))

    def reaped(self, pid: int, status: int) -> None:
        """A child has ended."""
        worker = self._workers.pop(pid, None)
        if worker is not None:
            worker.ended()  # its last word may lie there yet, and says whose the next to be reaped is
            return
        ended = self._expected.pop(pid, None)
        if ended is not None:
            ended(status)
        elif self._unheard:
            self._unclaimed[pid] = status  # perhaps of a worker that has not been heard


def exit_code(status: int) -> int:
    """Of a status as waitpid(2) gives it: 128 + N after signal N."""
    code = posix.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code
