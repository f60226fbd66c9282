"""A program that reads its standard input, answers on its standard output, and has to be done by a deadline.

(`subprocess` takes 15 ms to load, which is more than most plugins need.)
"""

from __future__ import annotations

import os
import select
import time
from _signal import SIGKILL, SIGPIPE, SIGXFSZ  # type: ignore[import-not-found]  # `signal` loads enum
from errno import EACCES, ENOENT, ENOEXEC, ETXTBSY

from ocirt_cni.errors import IO_FAILURE, TRY_AGAIN_LATER, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_BLOCK = 1 << 16
LIMIT = 8 << 20  # bytes of output, of each kind
_PAUSE = 0.05  # seconds between two tries to execute a file that is being written
_HINTS = {
    EACCES: "it has to be executable, on a file system that allows it",
    ENOENT: "the interpreter of its first line is not there",
    ENOEXEC: "it is neither a program of this machine nor a script with an interpreter in its first line",
    ETXTBSY: "somebody is writing to it",
}


class Ended:
    """How a program ended. `code`: its exit status, or the negative number of the signal that killed it."""

    __slots__ = ("code", "err", "out")

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code = code
        self.out = out
        self.err = err


def run(program: str, environment: Mapping[str, str], data: bytes, timeout: float) -> Ended:
    """Execute `program` in a process group of its own and wait for its end, at most `timeout` seconds.

    A process that it left behind may keep the output open: that is not waited for. Raises Error(IO_FAILURE) if it cannot be
    executed or says too much, and Error(TRY_AGAIN_LATER) if it takes too long; then its process group is killed.
    """
    deadline = time.monotonic() + timeout
    theirs_in, ours_in = os.pipe()
    ours_out, theirs_out = os.pipe()
    ours_err, theirs_err = os.pipe()
    try:
        try:
            pid = _spawn(program, environment, (theirs_in, theirs_out, theirs_err), deadline)
        finally:
            for fd in (theirs_in, theirs_out, theirs_err):
                os.close(fd)
        talk = _Talk(program, ours_in, ours_out, ours_err, data)
        ours_in = -1
        try:
            talk.until_end(pid, deadline, timeout)
        except BaseException:
            os.killpg(pid, SIGKILL)
            os.waitpid(pid, 0)
            raise
        finally:
            talk.close()
    finally:
        for fd in (ours_in, ours_out, ours_err):
            if fd >= 0:
                os.close(fd)
    _, status = os.waitpid(pid, 0)
    return Ended(os.waitstatus_to_exitcode(status), bytes(talk.out), bytes(talk.err))


def _spawn(program: str, environment: Mapping[str, str], fds: tuple[int, int, int], deadline: float) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(fds)]
    while True:
        try:
            # Python ignores two signals, and a program would inherit that.
            return os.posix_spawn(
                program, [program], environment, file_actions=actions, setpgroup=0, setsigmask=(), setsigdef=(SIGPIPE, SIGXFSZ)
            )
        except OSError as err:
            if err.errno != ETXTBSY or time.monotonic() + _PAUSE > deadline:
                hint = _HINTS.get(err.errno or 0, "")
                cause = err.strerror or ""
                raise Error(IO_FAILURE, "it cannot be executed", subject=program, cause=cause, hint=hint) from None
        time.sleep(_PAUSE)  # it is being installed


class _Talk:
    """Input out and output in, until the program ends."""

    def __init__(self, program: str, into: int, out: int, err: int, data: bytes) -> None:
        self._program = program
        self._into = into
        self._rest = memoryview(data)
        self.out, self.err = bytearray(), bytearray()
        self._found = {out: self.out, err: self.err}
        self._poll = select.poll()
        for fd in (into, out, err):
            os.set_blocking(fd, False)
            self._poll.register(fd, select.POLLOUT if fd == into else select.POLLIN)

    def until_end(self, pid: int, deadline: float, timeout: float) -> None:
        """Raises Error."""
        ended = os.pidfd_open(pid)
        try:
            self._poll.register(ended, select.POLLIN)
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    cause = tail(bytes(self.err))
                    raise Error(TRY_AGAIN_LATER, f"it was not done after {timeout:g} s", subject=self._program, cause=cause)
                ready = {fd for fd, _ in self._poll.poll(left * 1000)}
                if self._into in ready:
                    self._write()
                for fd in ready & self._found.keys():
                    self._read(fd)
                if ended in ready:
                    break
        finally:
            os.close(ended)
        for fd in list(self._found):
            while self._read(fd):
                pass

    def close(self) -> None:
        """Let go of its input."""
        if self._into >= 0:
            os.close(self._into)
            self._into = -1

    def _write(self) -> None:
        try:
            self._rest = self._rest[os.write(self._into, self._rest[:_BLOCK]) :] if self._rest else self._rest
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._rest = self._rest[:0]  # it does not want to know
        if not self._rest:
            self._poll.unregister(self._into)
            self.close()

    def _read(self, fd: int) -> bool:
        """Whether there may be more."""
        try:
            block = os.read(fd, _BLOCK)
        except BlockingIOError:
            return False
        found = self._found[fd]
        found += block
        if not block:
            self._poll.unregister(fd)
            del self._found[fd]
        if len(found) > LIMIT:
            raise Error(IO_FAILURE, f"its output is longer than {LIMIT >> 20} MiB", subject=self._program)
        return bool(block)


def tail(text: bytes, most: int = 600) -> str:
    """The last lines of what a program said, in one."""
    lines = text.decode(errors="replace").strip().splitlines()
    line = " | ".join(part.strip() for part in lines if part.strip())
    return line if len(line) <= most else f"…{line[-most:]}"
