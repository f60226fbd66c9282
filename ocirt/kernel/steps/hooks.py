"""Running a hook (runtime-spec, config.md, "POSIX-platform Hooks"): the state on stdin, its own environment, a limit of time."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # (typeshed has none; `signal` loads enum)
import posix
import select

from ocirt.kernel import process
from ocirt.kernel.process import reset_signals
from ocirt.kernel.run import Run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MFD_CLOEXEC = 1
_LONGEST = (1 << 31) // 1000 - 1  # seconds that poll(2) can wait, which is 24 days
_MOST_OUTPUT = 2048  # bytes of what a hook said, for the error


class HookError(OSError):
    """A hook failed: the text is `filename`, as for every OSError that crosses from init to the parent."""

    def __init__(self, text: str) -> None:
        super().__init__(0, "", text)


def run(run: Run, kind: str, index: int, hook: dict[str, Any], status: str) -> None:
    """Run one hook to its end, with `status` in the state that it reads. Raises HookError."""
    pid = run.pid or posix.getpid()
    execute(hook, run.hook_state(status, pid), f"error running {kind} hook #{index}")


def execute(hook: dict[str, Any], state: bytes, what: str) -> None:
    """Run one hook to its end. Raises HookError, whose text begins with `what`."""
    try:
        _execute(hook, state, what)
    except HookError:
        raise
    except OSError as err:  # there is no process to be had, or no descriptor
        raise HookError(f"{what}: {hook['path']}: {_words(err.errno)}") from err


def _execute(hook: dict[str, Any], state: bytes, what: str) -> None:
    reader, writer = posix.pipe2(posix.O_CLOEXEC)
    said = _output()
    try:
        pid = _spawn(hook, reader, said, what)
        posix.close(reader)
        reader = -1
        try:
            posix.write(writer, state)  # a state is small enough for a pipe
        except BrokenPipeError:
            pass  # it does not want to know
        posix.close(writer)
        writer = -1
        _wait(pid, hook.get("timeout"), what, said)
    finally:
        for fd in (reader, writer, said):
            if fd >= 0:
                posix.close(fd)


def _spawn(hook: dict[str, Any], stdin: int, output: int, what: str) -> int:
    """A child that executes the hook with nothing of ours: posix_spawn(3) would leave two signals of the C library ignored."""
    path = hook["path"]
    args, env = hook.get("args") or [path], {}
    for entry in hook.get("env") or ():
        name, _, value = entry.partition("=")
        env[name] = value
    failed, failure = posix.pipe2(posix.O_CLOEXEC)
    try:
        pid = process.clone3(0)
    except OSError:
        posix.close(failure)
        posix.close(failed)
        raise
    if pid == 0:
        try:
            for fd, own in ((0, stdin), (1, output), (2, output)):
                posix.dup2(own, fd, inheritable=True)
            reset_signals()
            posix.execve(path, args, env)
        except OSError as err:
            posix.write(failure, b"%d" % (err.errno or 0))
        finally:
            posix._exit(127)
    posix.close(failure)
    errno = posix.read(failed, 16)
    posix.close(failed)
    if errno:
        posix.waitpid(pid, 0)
        raise HookError(f"{what}: {path}: {_words(int(errno))}")
    return pid


def _words(errno: int | None) -> str:
    text = posix.strerror(errno or 0)
    return text[:1].lower() + text[1:]


def _output() -> int:
    """A file in memory for what a hook says: a daemon that it leaves behind must not keep us waiting for the end of a pipe."""
    try:
        return posix.memfd_create("hook", _MFD_CLOEXEC)
    except OSError:
        return posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)


def _wait(pid: int, timeout: int | None, what: str, said: int) -> None:
    if timeout:
        poll = select.poll()
        fd = posix.pidfd_open(pid)
        poll.register(fd, select.POLLIN)
        ended = poll.poll(timeout * 1000 if timeout <= _LONGEST else None)
        posix.close(fd)
        if not ended:
            posix.kill(pid, _signal.SIGKILL)
            posix.waitpid(pid, 0)
            raise HookError(f"{what}: hook ran past timeout of {timeout}s")
    code = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    if code:
        text = posix.pread(said, _MOST_OUTPUT, 0).decode("utf-8", "replace").strip()
        word = f"exit status {code}" if code > 0 else f"signal {-code}"
        raise HookError(f"{what}: {word}" + (f", output: {text}" if text else ""))
