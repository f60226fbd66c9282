"""The last steps before the container's program: they queue system calls, and `execve` makes them without a pause.

Everything that the calls need stands in buffers by then. Between the filter and execve(2) the interpreter makes no call of its
own: nothing is allocated that malloc would have to ask the kernel for, the garbage collector is off, no lock is taken.
"""

from __future__ import annotations

import gc
import posix
from _struct import pack
from errno import EACCES, EISDIR, ENOENT, ENOTDIR

from ocirt.kernel import ffi, process, resolve
from ocirt.kernel.ffi import NR, CallError, address_of
from ocirt.kernel.run import Run
from ocirt.paths import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SET_MODE_FILTER = 1
_FIRST_FD = 3


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
    for place in path.split(":"):
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
    """Lay out the arguments and the environment."""
    words = list(env)
    if run.home:
        words.append("HOME=" + run.home)
    if listen_fds:
        words = [word for word in words if not word.startswith(("LISTEN_FDS=", "LISTEN_PID="))]
        words += [f"LISTEN_FDS={listen_fds}", f"LISTEN_PID={posix.getpid()}"]
    for strings in (args, words):
        encoded = [encode(word) for word in strings]
        array = process.pointer_array(encoded)
        run.kept += [encoded, array]
        run.tail_buffers.append(array)


def prepare_filter(run: Run) -> None:
    """Lay out struct sock_fprog."""
    program = run.filter.program
    run.filter_pointer = pack("H6xP", len(program) // 8, address_of(program))


def keep_descriptors(run: Run, fds: int) -> None:
    """Hand over the descriptors that the caller asked for, and no other."""
    del run
    for fd in range(_FIRST_FD, _FIRST_FD + fds):
        posix.set_inheritable(fd, True)
    process.close_on_exec_from(_FIRST_FD + fds)


def limit(run: Run, number: int, resource: str, soft: int, hard: int) -> None:
    """Queue prlimit(2)."""
    del resource
    values = pack("QQ", soft, hard)
    run.kept.append(values)
    run.tail.append((run.at, (NR["prlimit64"], 0, number, values, None, 0, 0)))


def filter(run: Run) -> None:  # noqa: A001  (the plan's word)
    """Queue seccomp(2)."""
    run.tail.append((run.at, (NR["seccomp"], _SET_MODE_FILTER, run.filter.flags, run.filter_pointer, 0, 0, 0)))


def set_capabilities(run: Run, effective: int, permitted: int, inheritable: int) -> None:
    """Queue capset(2)."""
    head, data = process.capability_buffers(effective, permitted, inheritable)
    run.kept += [head, data]
    run.tail.append((run.at, (NR["capset"], head, data, 0, 0, 0, 0)))


def execve(run: Run) -> None:
    """Make the queued calls, then execve(2)."""
    for action in run.before_exec:
        action()
    argv, envp = run.tail_buffers
    run.tail.append((run.at, (NR["execve"], run.program, argv, envp, 0, 0, 0)))
    calls = run.tail
    call = ffi.raw_syscall
    gc.disable()
    process.reset_signals()
    for index, arguments in calls:
        if call(*arguments) == -1:
            errno = ffi.get_errno()
            run.at = index
            raise CallError(errno, "execve" if index == calls[-1][0] else "", run.program)
