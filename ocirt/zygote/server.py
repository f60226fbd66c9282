"""The zygote's loop: a descriptor comes in, a fork takes it. It knows nothing of what the forks do.

It has two ways to hear of its owner's end: the control socket's end, and a pidfd of the owner (a process that the owner has
forked may hold its end of the socket for longer). It adopts the orphans of its forks and reaps them.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # (typeshed has none; `signal` loads enum)
import posix
import select

from ocirt.kernel import constants as k
from ocirt.kernel.ffi import syscall
from ocirt.kernel.messages import receive_descriptors
from ocirt.kernel.process import prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SFD_CLOEXEC = 0o2000000
_SIGSET_SIZE = 8
_SIGINFO_SIZE = 128  # struct signalfd_siginfo


def serve(control: int, owner: int, work: Callable[[int], None], refuse: Callable[[int, OSError], None]) -> None:
    """Fork for each descriptor that comes over `control`, until the other end or the process `owner` (a pidfd) is gone.

    The fork calls `work` with the descriptor and ends; it has neither `control` nor the loop's other descriptors, but `owner`.
    `refuse` is called with the descriptor, here, when there can be no fork. Raises OSError.
    """
    prctl(k.PR_SET_CHILD_SUBREAPER, 1)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, {_signal.SIGCHLD})
    signals = syscall("signalfd4", -1, (1 << (_signal.SIGCHLD - 1)).to_bytes(8, "little"), _SIGSET_SIZE, _SFD_CLOEXEC)
    poll = select.poll()
    for fd in (control, owner, signals):
        poll.register(fd, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == owner:
                return
            if fd == signals:
                posix.read(signals, _SIGINFO_SIZE)
                _reap()
                continue
            data, came = receive_descriptors(control)
            if not data:
                return
            if not came:
                continue  # too many open files: it was dropped, and who sent it sees the end of its socket
            request = came[0]
            try:
                pid = posix.fork()
            except OSError as err:
                refuse(request, err)
                pid = -1
            if pid == 0:
                try:
                    posix.close(control)
                    posix.close(signals)
                    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {_signal.SIGCHLD})
                    work(request)
                finally:
                    posix._exit(0)
            posix.close(request)


def _reap() -> None:
    """Wait for all children that have ended: forks, and what those have left."""
    try:
        while posix.waitpid(-1, posix.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
