"""The zygote's loop: a descriptor comes in, a fork takes it. It knows nothing of what the forks do.

One fork is there before it is asked for, and takes the next descriptor itself (a spare): so nobody waits for fork(2), nor for the
copies of pages that a fork makes when it first writes to them. When it has taken one, the next spare is made.

It has two ways to hear of its owner's end: the control socket's end, and a pidfd of the owner (a process that the owner has
forked may hold its end of the socket for longer). It adopts the orphans of its forks and reaps them.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # (typeshed has none; `signal` loads enum)
import _socket
import posix
import select

from ocirt.kernel import constants as k
from ocirt.kernel.ffi import syscall
from ocirt.kernel.process import prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SFD_CLOEXEC = 0o2000000
_SIGSET_SIZE = 8
_SIGINFO_SIZE = 128  # struct signalfd_siginfo
_TAKEN = b"t"
_WORD, _BESIDE = 64, _socket.CMSG_SPACE(4)  # bytes of what comes with a descriptor, and for that


def serve(
    control: int,
    owner: int,
    work: Callable[[int], None],
    refuse: Callable[[int, OSError], None],
    rehearse: Callable[[], None],
) -> None:
    """Fork for each descriptor that comes over `control`, until the other end or the process `owner` (a pidfd) is gone.

    The fork calls `work` with the descriptor and ends; it has neither `control` nor the loop's other descriptors, but `owner`.
    A spare calls `rehearse` while it has nothing to do: whatever makes the beginning of `work` quicker, and nothing else.
    `refuse` is called with the descriptor, here, when there can be no fork. Raises OSError.
    """
    prctl(k.PR_SET_CHILD_SUBREAPER, 1)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, {_signal.SIGCHLD})
    channel = _socket.socket(fileno=control)
    signals = syscall("signalfd4", -1, (1 << (_signal.SIGCHLD - 1)).to_bytes(8, "little"), _SIGSET_SIZE, _SFD_CLOEXEC)
    poll = select.poll()
    for fd in (owner, signals):
        poll.register(fd, select.POLLIN)
    spare: _Spare | None = None
    wanted = True  # not after one that was killed: what kills it might go on
    over = False  # nobody sends any more, but something may have come before
    while True:
        if spare is None and wanted:
            spare = _make_spare(channel, signals, work, rehearse)
            if spare is not None:
                poll.register(spare.fd, select.POLLIN)
        if spare is None:
            poll.register(control, select.POLLIN)
        elif not over:
            poll.register(control, 0)  # what comes is the spare's; that the other end is closed is told all the same
        for fd, _ in poll.poll():
            if fd == owner:
                return
            if fd == signals:
                posix.read(signals, _SIGINFO_SIZE)
                _reap()
            elif spare is not None and fd == spare.fd:
                poll.unregister(fd)
                wanted = spare.is_taken() and not over
                spare = None
            elif spare is not None:
                poll.unregister(control)
                over = True  # the spare sees it too, and ends if nothing is left for it
            elif _take(channel, signals, work, refuse):
                wanted = not over
            else:
                return


class _Spare:
    """A fork that waits for a descriptor: its `pid`, and `fd`, which can be read once it has one, or has ended."""

    __slots__ = ("fd", "pid")

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.fd = fd

    def is_taken(self) -> bool:
        """Whether it has a descriptor. Else it has ended, and is waited for."""
        taken = posix.read(self.fd, 1) == _TAKEN
        posix.close(self.fd)
        if not taken:
            try:
                posix.waitpid(self.pid, 0)
            except ChildProcessError:
                pass  # `_reap` was there
        return taken


def _make_spare(
    channel: _socket.socket, signals: int, work: Callable[[int], None], rehearse: Callable[[], None]
) -> _Spare | None:
    """Fork in advance. None where that cannot be: who asks hears of it."""
    zygote = posix.getpid()
    try:
        told, tell = posix.pipe2(posix.O_CLOEXEC)
    except OSError:
        return None
    try:
        pid = posix.fork()
    except OSError:
        posix.close(told)
        posix.close(tell)
        return None
    if pid == 0:
        try:
            posix.close(told)
            _become_fork(signals)
            request = _wait(channel, zygote, rehearse)
            posix.write(tell, _TAKEN)
            posix.close(tell)
            channel.close()
            work(request)
        finally:
            posix._exit(0)
    posix.close(tell)
    return _Spare(pid, told)


def _wait(channel: _socket.socket, zygote: int, rehearse: Callable[[], None]) -> int:
    """As a spare: wait for a descriptor. Ends the process if there comes none."""
    prctl(k.PR_SET_PDEATHSIG, _signal.SIGKILL)  # without the zygote there would be no other spare
    if posix.getppid() != zygote:
        posix._exit(0)
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    if not poll.poll(0):
        rehearse()
    _, came = _receive(channel)
    if came < 0:
        posix._exit(0)
    prctl(k.PR_SET_PDEATHSIG, 0)
    return came


def _receive(channel: _socket.socket) -> tuple[bytes, int]:
    """What comes, and the descriptor with it, -1 without: b"" when the other side is gone."""
    # By `_socket` and not by ctypes, which makes types for its buffers: a fork would copy seventy pages for that.
    try:
        data, beside, _, _ = channel.recvmsg(_WORD, _BESIDE, _socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return b"", -1  # the other side is gone, and has left something unread
    for level, kind, packed in beside:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            return data, int.from_bytes(packed[:4], "little")
    return data, -1


def _take(channel: _socket.socket, signals: int, work: Callable[[int], None], refuse: Callable[[int, OSError], None]) -> bool:
    """Take a descriptor and make a fork for it. False if nobody is there any more who could send one."""
    data, request = _receive(channel)
    if request < 0:
        return bool(data)  # too many open files: it was dropped, and who sent it sees the end of its socket
    try:
        pid = posix.fork()
    except OSError as err:
        refuse(request, err)
        pid = -1
    if pid == 0:
        try:
            channel.close()
            _become_fork(signals)
            work(request)
        finally:
            posix._exit(0)
    posix.close(request)
    return True


def _become_fork(signals: int) -> None:
    posix.close(signals)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {_signal.SIGCHLD})


def _reap() -> None:
    """Wait for all children that have ended: forks, and what those have left."""
    try:
        while posix.waitpid(-1, posix.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
