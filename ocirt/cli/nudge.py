"""Ctrl-C for a program that waits for its threads.

Python only notes a signal when it comes, and runs its handler between two steps of the main thread. A main thread that waits
for a lock wakes up for a signal that comes meanwhile, but not for one that came between its last step and the wait, nor for one
that the kernel gave to another thread: such a Ctrl-C would be heard when the wait is over. So a thread hears of each signal
that was noted (by signal.set_wakeup_fd), and interrupts the main thread once more, by a signal that does nothing.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # (typeshed has none; `signal` loads enum)
import _thread
import posix
from time import sleep

_QUIET = _signal.SIGURG  # which nobody waits for, and which is ignored where there is no handler
_PAUSE = 0.02  # seconds in which the main thread mostly hears of it by itself


def start() -> None:
    """From the main thread, once, when it may have company: who has threads can enter no user namespace.

    Changes the handler of SIGURG, unless there is one.
    """
    if _signal.getsignal(_QUIET) not in (_signal.SIG_DFL, _signal.SIG_IGN):
        return
    told, tell = posix.pipe2(posix.O_CLOEXEC)
    posix.set_blocking(tell, False)
    _signal.signal(_QUIET, _nothing)
    _signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    _thread.start_new_thread(_listen, (told, _thread.get_ident()))


def _listen(told: int, main: int) -> None:
    while True:
        noted = posix.read(told, 64)
        if not noted:
            return
        if any(number != _QUIET for number in noted):
            sleep(_PAUSE)
            _signal.pthread_kill(main, _QUIET)


def _nothing(number: int, frame: object) -> None:
    del number, frame
