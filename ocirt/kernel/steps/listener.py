"""Handing over the listener of a filter (SCMP_ACT_NOTIFY), which seccomp(2) gives to init alone, to whoever started init.

Between the filter and execve(2) init makes no call at all, not even to send a message: the filter may deny it, or have it wait
for an answer that nobody can give yet. So a second process, made before the filter, sends in init's place. It shares init's table
of descriptors and one page of memory, and has no filter. Init writes into the page which descriptor it has got, and stands still
until something below 0 is there: whoever took the listener writes that, when the agent has it and the second process is gone, so
that init's program finds no child that it knows nothing of. If he is gone before that, the second process tells init to end.

Where the waiter stands in for init (launcher/waiter.c), that does all this.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # (typeshed has none; `signal` loads enum)
import posix
from _struct import pack
from errno import EPROTOTYPE
from time import sleep

from ocirt.kernel import constants as k
from ocirt.kernel import messages, process, unixsocket
from ocirt.kernel.ffi import Long, syscall
from ocirt.kernel.run import Run, failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SOCKET = "listener"  # in the container's directory, where `start` takes the listener
GO_ON = pack("q", -1)
GIVE_UP = pack("q", -2)

_GIVE_UP = -2
_MFD_CLOEXEC = 1
_PROT_READ_WRITE = 3
_MAP_SHARED = 1
_MAP_FIXED_NOREPLACE = 0x100000
_CELL = 0x10000000  # waiter.c: CELL
_SA_NOCLDWAIT = 2
# Of rt_sigaction(2): what has ended needs nobody to wait for it. execve(2) forgets this.
_LEFT_ALONE = (_signal.SIGCHLD, pack("4Q", 0, _SA_NOCLDWAIT, 0, 0), 0, 8)
_PAUSE = 0.0001  # seconds between two looks


def check(run: Run, path: str) -> None:
    """Make sure that somebody has a socket there, before anything is made. Raises CallError."""
    del run
    try:
        # A stream's socket refuses datagrams, if it is anybody's: the agent hears nothing of this.
        posix.close(unixsocket.connect(path, unixsocket.DATAGRAM))
    except OSError as err:
        if err.errno != EPROTOTYPE:
            err.filename = path
            raise


def listen(run: Run, directory: str) -> None:
    """Make the socket at which `start` takes the listener; init inherits it."""
    run.fds["listener"] = unixsocket.listen(f"{directory}/{SOCKET}", unixsocket.SEQPACKET)


def offer(run: Run, later: bool) -> None:  # noqa: FBT001
    """Make the page and the process that sends the listener, if the filter has one; `later`: it is for the waiter to do."""
    if not run.filter.listener:
        return  # no rule that notifies is about a call of this machine
    if later:
        _leave(run)
        return
    cell = Long.from_address(syscall("mmap", 0, len(GO_ON), _PROT_READ_WRITE, _MAP_SHARED, _make_page(run), 0))
    syscall("rt_sigaction", *_LEFT_ALONE)
    init = posix.getpid()
    if process.clone3(k.CLONE_FILES) == 0:
        try:
            _send(run, cell, init)
        except OSError as err:
            run._tell(failure(run.at, err))
            cell.value = _GIVE_UP
        finally:
            posix._exit(0)
    run.listener = cell


def _make_page(run: Run) -> int:
    """A file in memory with a number in it, 0."""
    page = run.fds["listener/page"] = posix.memfd_create("ocirt-listener", _MFD_CLOEXEC)
    posix.ftruncate(page, len(GO_ON))
    return page


def _leave(run: Run) -> None:
    """Write down the same for the waiter, whose child is then the second process."""
    at = run.at
    mapped = (_CELL, len(GO_ON), _PROT_READ_WRITE, _MAP_SHARED | _MAP_FIXED_NOREPLACE, _make_page(run), 0)
    sharing = (k.CLONE_FILES | _signal.SIGCHLD,)
    run.offering = [(at, "mmap", mapped), (at, "rt_sigaction", _LEFT_ALONE), (at, "clone", sharing)]

    def instead() -> None:
        run.at = at
        offer(run, later=False)

    run.before_exec.append(instead)  # only where the waiter cannot be executed


def _send(run: Run, cell: Any, init: int) -> None:
    process.prctl(k.PR_SET_PDEATHSIG, _signal.SIGKILL)
    while cell.value == 0:
        if posix.getppid() != init:
            return
        sleep(_PAUSE)
    way = run.sync if run.sync >= 0 else unixsocket.accept(run.fds["listener"])
    messages.send_descriptors(way, b"l", cell.value, run.fds["listener/page"], posix.pidfd_open(posix.getpid()))
    if not messages.receive(way):
        cell.value = _GIVE_UP
