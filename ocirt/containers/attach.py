"""An attached process: its streams, the signals that are passed on to it, and its end.

A stream that is a pipe, a socket or /dev/null is the container's directly: not a byte of it is copied. Files and terminals of the
caller stay outside: the container gets a pipe (its end can be given to the container's user, and nothing can be done to the file
or the terminal through it), and bytes are moved by splice(2), without coming up into the interpreter where the kernel can.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # (typeshed has none; `signal` loads enum)
import posix
import select
from errno import EINVAL, EIO, EPIPE

from ocirt.kernel import constants as k
from ocirt.kernel.ffi import syscall
from ocirt.kernel.process import prctl
from ocirt.kernel.run import Run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ocirt.containers.console import Lent

_CHUNK = 1 << 16
_S_IFMT = 0o170000
_PASSED = (0o010000, 0o140000)  # S_IFIFO, S_IFSOCK
_SIGINFO_SIZE = 128  # struct signalfd_siginfo
_SFD_CLOEXEC = 0o2000000
_SIGSET_SIZE = 8


class _Copy:
    """One direction of a stream: bytes from `source` to `target`, whichever of them has to be waited for."""

    __slots__ = ("pending", "source", "target")

    MOVED, FULL, ENDED = range(3)

    def __init__(self, source: int, target: int) -> None:
        self.source = source
        self.target = target
        self.pending = b""  # read, and not taken by the target yet

    def move(self) -> int:
        """Move some bytes. FULL: the target takes no more now; ENDED: there are no more, or nobody wants them. Raises OSError."""
        try:
            if not self.pending:
                try:
                    return self.MOVED if posix.splice(self.source, self.target, _CHUNK) else self.ENDED
                except OSError as err:
                    if err.errno != EINVAL:  # neither is a pipe, or the target appends
                        raise
                self.pending = posix.read(self.source, _CHUNK)
                if not self.pending:
                    return self.ENDED
            self.pending = self.pending[posix.write(self.target, self.pending) :]
        except BlockingIOError:
            # Of the target; or of a source that does not block either, and is empty again.
            return self.FULL if self.pending or not _writable(self.target) else self.MOVED
        except OSError as err:
            if err.errno in (EIO, EPIPE):  # a terminal's other side is closed; a reader went away
                return self.ENDED
            raise
        return self.FULL if self.pending else self.MOVED


class Attached:
    """The caller's side of a process: made before the clone, so that no signal is lost; then `wait`."""

    def __init__(self, *, terminal: bool, subreaper: bool) -> None:
        self._terminal = terminal
        self._lent: Lent | None = None
        self._copies: list[_Copy] = []
        self._inner: list[int] = []
        self._watched: dict[int, tuple[Callable[[], bool], bool]] = {}
        # Blocked, not handled: an arriving signal waits until it can be passed on. The child starts with an empty mask again.
        # SIGPIPE is what writing to a closed pipe gives ourselves.
        blocked = set(range(1, 65)) - {_signal.SIGPIPE, 32, 33}
        _signal.pthread_sigmask(_signal.SIG_BLOCK, blocked)
        mask = sum(1 << (number - 1) for number in blocked).to_bytes(_SIGSET_SIZE, "little")
        self._signals = syscall("signalfd4", -1, mask, _SIGSET_SIZE, _SFD_CLOEXEC)
        if subreaper:
            prctl(k.PR_SET_CHILD_SUBREAPER, 1)

    def streams(self, run: Run) -> None:
        """Before the clone: see which streams need a pipe, and give its inner ends to the run."""
        if self._terminal:
            run.on_console = self._take_console
            return
        ends = [-1, -1, -1]
        for fd in range(3):
            status = posix.fstat(fd)
            if status.st_mode & _S_IFMT in _PASSED or status.st_rdev == posix.makedev(1, 3):
                continue
            reader, writer = posix.pipe2(posix.O_CLOEXEC)
            inner, outer = (reader, writer) if fd == 0 else (writer, reader)
            posix.set_blocking(outer, False)
            ends[fd] = inner
            self._inner.append(inner)
            self._copies.append(_Copy(0, outer) if fd == 0 else _Copy(outer, fd))
        run.stdio = (ends[0], ends[1], ends[2])

    def _take_console(self, name: str, master: int) -> None:
        from ocirt.containers.console import Lent  # noqa: PLC0415  (only with a terminal)

        del name
        self._lent = Lent(master)
        posix.set_blocking(master, False)
        # Two numbers for it: each direction waits for something else of the same terminal.
        self._copies = [_Copy(0, master), _Copy(posix.dup(master), 1)]

    def watch(self, fd: int, action: Callable[[], bool], *, at_end: bool = False) -> None:
        """While the process runs, call `action` whenever `fd` can be read, until it returns true or fails.

        `at_end`: also for what came before the process's end, and was not seen.
        """
        self._watched[fd] = action, at_end

    def created(self) -> None:
        """After the clone: the inner ends are init's alone."""
        for fd in self._inner:
            posix.close(fd)
        self._inner.clear()

    def wait(self, pid: int) -> int:
        """Pass on signals and bytes until the process ends; its exit status, 128 + N for signal N. Raises OSError."""
        status = self.wait_status(pid)
        return posix.waitstatus_to_exitcode(status) if posix.WIFEXITED(status) else 128 + posix.WTERMSIG(status)

    def wait_status(self, pid: int) -> int:
        """`wait`, with a status as waitpid(2) gives it."""
        try:
            status = self._loop(pid)
            self._drain()
        finally:
            if self._lent is not None:
                self._lent.restore()
        return status

    def _loop(self, pid: int) -> int:
        poll = select.poll()
        for fd in (self._signals, *self._watched):
            poll.register(fd, select.POLLIN)
        waiting: dict[int, _Copy] = {}  # by the descriptor that is polled for it
        for copy in self._copies:
            _wait_for(poll, waiting, copy.source, copy)
        status = _reap(pid)  # it may have ended before the first signal could tell
        while status is None:
            for fd, _ in poll.poll() if waiting or self._watched else ((self._signals, 0),):
                if fd == self._signals:
                    status = self._on_signal(pid)
                elif fd in self._watched:
                    if status is None and self._done(fd):
                        poll.unregister(fd)
                elif fd in waiting:
                    copy = waiting[fd]
                    outcome = copy.move()
                    wanted = {_Copy.MOVED: copy.source, _Copy.FULL: copy.target}.get(outcome, -1)
                    if wanted != fd:
                        poll.unregister(fd)
                        del waiting[fd]
                        if wanted >= 0:
                            _wait_for(poll, waiting, wanted, copy)
                        else:
                            self._end(copy)
        return status

    def _done(self, fd: int) -> bool:
        try:
            done = self._watched[fd][0]()
        except OSError:
            done = True  # nothing of the process's own
        if done:
            del self._watched[fd]
        return done

    def _end(self, copy: _Copy) -> None:
        """One direction has come to its end: the process sees the end of its input."""
        self._copies.remove(copy)
        if copy.source == 0 and not self._terminal:
            posix.close(copy.target)

    def _on_signal(self, pid: int) -> int | None:
        number = int.from_bytes(posix.read(self._signals, _SIGINFO_SIZE)[:4], "little")
        if number == _signal.SIGCHLD:
            return _reap(pid)
        if number == _signal.SIGWINCH:
            if self._lent is not None:
                self._lent.resize()
        elif number != _signal.SIGURG:
            posix.kill(pid, number)  # our child, and not waited for: the number is still its own
        return None

    def _drain(self) -> None:
        """What the process wrote before its end. Others may hold its streams for longer: they are not waited for."""
        for fd in [fd for fd, (_, at_end) in self._watched.items() if at_end]:
            last = select.poll()
            last.register(fd, select.POLLIN)
            if last.poll(0):
                self._done(fd)
        for copy in self._copies:
            if copy.source == 0:
                continue
            ready, taker = select.poll(), select.poll()
            ready.register(copy.source, select.POLLIN)
            taker.register(copy.target, select.POLLOUT)
            while copy.pending or ready.poll(0):
                outcome = copy.move()
                if outcome == _Copy.ENDED:
                    break
                if outcome == _Copy.FULL:
                    taker.poll()


def _writable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


def _wait_for(poll: select.poll, waiting: dict[int, _Copy], fd: int, copy: _Copy) -> None:
    """Poll for what a copy needs next: bytes at its source, or room at its target."""
    poll.register(fd, select.POLLIN if fd == copy.source else select.POLLOUT)
    waiting[fd] = copy


def _reap(pid: int) -> int | None:
    """Wait for all children that have ended (orphans of the container come to a subreaper); the status of `pid`, if it is one."""
    found = None
    while True:
        try:
            ended, status = posix.waitpid(-1, posix.WNOHANG)
        except ChildProcessError:
            return found
        if not ended:
            return found
        if ended == pid:
            found = status
