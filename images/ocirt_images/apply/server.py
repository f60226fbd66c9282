"""The process that workers come from: it has everything imported, owns the sandbox, and forks a child for each layer.

So a layer that takes over its worker meets no other layer's, and a job costs no interpreter's start. It talks to
`worker.Workers`:

- over the control socket come jobs, one packet each, which carries descriptors: of the job's own socket, the source, the target
  and perhaps a Growing's counter. When the control socket ends, everything ends.
- over the job's socket come the job's JSON, and back one line of JSON: `{"applied": {…}}`, `{"error": [code, message, …]}`, or
  what the server says of a child that could not speak: `{"died": "SIGKILL"}`.

The process is single-threaded, so that it can fork; it is started by exec, because its parent is not.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import resource
import select
import signal
import socket
from dataclasses import replace

from ocirt_images.apply import libc, sandbox
from ocirt_images.apply.needs import Json
from ocirt_images.apply.unpack import Files, unpack
from ocirt_images.errors import Error

BOOT = "import sys; sys.path[:] = {path!r}; from ocirt_images.apply.server import serve; serve({fd})"
ORDER = 1 << 16  # bytes of a job at most
_NEEDED_FILES = 1024  # descriptors: a tree's own, and one for each level when a deep directory is removed


def serve(fd: int) -> None:
    """Serve jobs until the control socket ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal's Ctrl-C is for who holds the control socket
    _raise_file_limit()
    _preload()
    forks = sandbox.Forks()
    confined = (*sandbox.enter(), *forks.had)
    os.dup2(1, 2)  # what goes wrong from here on is told in answers, and a layer has nothing to say to a terminal
    gc.collect()
    gc.freeze()
    control = socket.socket(fileno=fd)
    children: dict[int, tuple[int, socket.socket]] = {}  # pidfd: pid, the job's socket
    own = os.pidfd_open(os.getpid())
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready != control.fileno():
                poll.unregister(ready)
                _reap(ready, *children.pop(ready))
                continue
            data, fds, _, _ = socket.recv_fds(control, 64, 4)
            if not data:
                for pid, _ in children.values():
                    os.kill(pid, signal.SIGKILL)
                for pid, _ in children.values():
                    os.waitpid(pid, 0)  # who waits for our end may then remove what they wrote
                os._exit(0)
            pid, job = _start(forks, own, fds, control, children, confined)
            child = os.pidfd_open(pid)
            children[child] = (pid, job)
            poll.register(child, select.POLLIN)


def _start(
    forks: sandbox.Forks,
    own: int,
    fds: list[int],
    control: socket.socket,
    children: dict[int, tuple[int, socket.socket]],
    confined: tuple[str, ...],
) -> tuple[int, socket.socket]:
    job = socket.socket(fileno=fds[0])
    pid = forks.fork()
    if pid == 0:
        try:
            _die_with(own)
            control.close()
            for child, (_, other) in children.items():
                os.close(child)
                other.close()
            _work(job, fds[1:], confined)
        finally:
            os._exit(1)
    for fd in fds[1:]:
        os.close(fd)
    return pid, job


def _die_with(server: int) -> None:
    """Be killed when the server ends; `server`: its pidfd. It may have ended already, before that could be asked for.

    In a pid namespace of its own, a child does not see its parent's pid change.
    """
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if select.select([server], [], [], 0)[0]:
        os._exit(1)
    os.close(server)


def _reap(pidfd: int, pid: int, job: socket.socket) -> None:
    """A child has ended. One that was killed cannot say so itself."""
    _, status = os.waitpid(pid, 0)
    os.close(pidfd)
    with job:
        if status:
            code = os.waitstatus_to_exitcode(status)
            how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            try:
                # On a line of its own: the child may have died while it wrote.
                job.sendall(b"\n" + json.dumps({"died": how}).encode() + b"\n")
            except OSError:
                pass  # nobody waits for it any more


def _work(job: socket.socket, fds: list[int], confined: tuple[str, ...]) -> None:
    """Do a job, in the child; never returns."""
    try:
        order = json.loads(_order(job))
        source, target = fds[:2]
        files = Files(source, target, order["size"], fds[2] if len(fds) > 2 else -1)
        confined += sandbox.confine(target)
        answer: Json = {"applied": replace(unpack(order, files), sandbox=confined).json()}
    except Error as err:
        answer = {"error": [err.code, err.message, err.subject, err.cause, err.hint]}
    except Exception as err:  # noqa: BLE001  (it is told to who waits for it)
        answer = {"error": ["internal", "the worker failed", "", f"{type(err).__name__}: {err}", ""]}
    job.sendall(json.dumps(answer).encode() + b"\n")
    os._exit(0)


def _order(job: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        more = job.recv(ORDER)
        if not more:
            raise EOFError("a job without an end")
        data += more
    return data


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _NEEDED_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(_NEEDED_FILES, hard), hard))


def _preload() -> None:
    """Use once what loads something at its first use: there are no files to load from later."""
    hashlib.sha256().update(b"")
    hashlib.sha512().update(b"")
    "".encode("ascii", "backslashreplace").decode("utf-8", "surrogateescape")
