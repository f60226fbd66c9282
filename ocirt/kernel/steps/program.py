"""The last steps before the container's program: they queue system calls, and `execve` makes them without a pause.

Everything that the calls need stands in buffers by then. Between the filter and execve(2) the interpreter makes no call of its
own: nothing is allocated that malloc would have to ask the kernel for, the garbage collector is off, no lock is taken.
"""

from __future__ import annotations

import gc
import posix
from _struct import pack
from errno import EACCES, EISDIR, ENOENT, ENOTDIR

from ocirt.kernel import process, resolve
from ocirt.kernel.ffi import NR, CallError, address_of, get_errno, raw_syscall
from ocirt.kernel.run import Run
from ocirt.paths import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SET_MODE_FILTER = 1
_FIRST_FD = 3
_GO_ON, _GIVE_UP = -1, -2  # steps/listener.py
_PATIENCE = 1 << 28  # looks at a number: some ten seconds


class SockFilter(bytes):
    """An array of struct sock_filter, to be passed as struct sock_fprog."""

    __slots__ = ()


def load_filter(run: Run, root: str, section: dict[str, Any]) -> None:
    """Have the filter ready: from the cache below the state root, or translated now."""
    from ocirt.seccomp import cache  # noqa: PLC0415  (the parent's, and only with a profile)

    run.filter = cache.load(root, section)


def find(run: Run, name: str, path: str) -> None:
    """Find the program as execvp(3) would, with the user's rights, in the container's PATH."""
    if "/" in name:
        _check(name)
        run.program = encode(name)
        return
    # Without a PATH nothing is found, as for Go's LookPath; an empty part of one is the working directory.
    for place in path.split(":") if path else ():
        candidate = f"{place or '.'}/{name}"
        try:
            _check(candidate)
        except OSError:
            continue
        run.program = encode(candidate)
        return
    raise CallError(ENOENT, "", name)


def _check(path: str) -> None:
    try:
        status = posix.stat(path)
    except OSError as err:
        raise CallError(err.errno or ENOTDIR, "stat", path) from None
    if status.st_mode & resolve.S_IFMT == resolve.S_IFDIR:
        raise CallError(EISDIR, "", path)
    if not posix.access(path, posix.X_OK, effective_ids=True):
        raise CallError(EACCES, "", path)


def prepare(run: Run, args: tuple[str, ...], env: tuple[str, ...], listen_fds: int) -> None:
    """Have the arguments and the environment ready."""
    words = list(env)
    if run.home:
        words.append("HOME=" + run.home)
    if listen_fds:
        words = [word for word in words if not word.startswith(("LISTEN_FDS=", "LISTEN_PID="))]
        words += [f"LISTEN_FDS={listen_fds}", f"LISTEN_PID={posix.getpid()}"]
    run.strings = ([encode(word) for word in args], [encode(word) for word in words])


def keep_descriptors(run: Run, fds: int) -> None:
    """Hand over the descriptors that the caller asked for, and no other."""
    del run
    for fd in range(_FIRST_FD, _FIRST_FD + fds):
        posix.set_inheritable(fd, True)
    process.close_on_exec_from(_FIRST_FD + fds)


def limit(run: Run, number: int, resource: str, soft: int, hard: int) -> None:
    """Queue prlimit(2)."""
    del resource
    _queue(run, "prlimit64", 0, number, pack("QQ", soft, hard), 0)


def filter(run: Run) -> None:  # noqa: A001  (the plan's word)
    """Queue seccomp(2)."""
    _queue(run, "seccomp", _SET_MODE_FILTER, run.filter.flags, SockFilter(run.filter.program))


def set_capabilities(run: Run, effective: int, permitted: int, inheritable: int) -> None:
    """Queue capset(2)."""
    _queue(run, "capset", *process.capability_buffers(effective, permitted, inheritable))


def execve(run: Run) -> None:
    """Queue execve(2), and make all queued calls."""
    queue_execve(run)
    for action in run.before_exec:
        action()
    kept: list[Any] = []  # what the calls point to
    calls = [(index, (NR[call], *[_laid_out(word, kept) for word in words])) for index, call, words in run.tail]
    gc.disable()
    process.reset_signals()
    for index, words in calls:
        result = raw_syscall(*words)
        if result == -1:
            errno = get_errno()
            run.at = index
            raise CallError(errno, "", run.program if index == calls[-1][0] else None)
        if result and run.listener is not None:  # of seccomp(2): see steps/listener.py. No call from here on, either
            run.listener.value = result
            for _ in range(_PATIENCE):
                if run.listener.value < 0:
                    break
            if run.listener.value != _GO_ON:
                run.listener.value = _GIVE_UP
                posix._exit(1)


def queue_execve(run: Run) -> None:
    """Queue the last call."""
    _queue(run, "execve", run.program, *run.strings)


def _queue(run: Run, call: str, *words: Any) -> None:
    """Queue a call of up to six words: a number, a buffer, texts for a NULL-terminated array of pointers, or a SockFilter."""
    run.tail.append((run.at, call, (*words, *[0] * (6 - len(words)))))


def _laid_out(word: Any, kept: list[Any]) -> int | bytes:
    """A word of a call as the system call takes it; memory that it points to is appended to `kept`."""
    if isinstance(word, list):
        array = process.pointer_array(word)
    elif isinstance(word, SockFilter):
        array = pack("H6xP", len(word) // 8, address_of(word))
    else:
        return word  # type: ignore[no-any-return]
    kept += [word, array]
    return array
