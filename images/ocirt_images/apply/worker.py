"""Workers: layers applied in processes of their own, as futures.

    with Workers(3) as workers:
        applied = workers.apply(Job(source=blob, target=staged, compression="gzip", diff_id=diff_id)).result()
        settle(applied.needs, staged, lowers)

The layer's archive is hostile until its digest is known, and so is a worker that reads it: what comes back from it is JSON, read
with a limit. See `sandbox` for what confines it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ocirt_images.apply import libc
from ocirt_images.apply.job import Applied, Job
from ocirt_images.apply.names import Malformed
from ocirt_images.apply.server import BOOT
from ocirt_images.errors import Error

__all__ = ["Applied", "Job", "Workers"]

_ANSWER = 1 << 28  # bytes of an answer at most: a layer of links to lower layers alone


class Workers:
    """At most `count` layers at a time; more wait. A context manager. Thread-safe.

    No process is there before the first job. `close`, or the end of this process, kills those that work.
    """

    def __init__(self, count: int) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="layer")
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._closed = False

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def apply(self, job: Job) -> Future[Applied]:
        """Apply a layer. The result, or an Error that names the layer; after an error `target` holds anything.

        A future that has not begun can be cancelled; one that has ends by `job.growing.abandon()` or `close`. Raises
        Error("cancelled") after `close`.
        """
        try:
            return self._threads.submit(self._run, job)
        except RuntimeError:
            if not self._closed:
                raise
            raise Error("cancelled", "the workers are closed", subject=job.subject) from None

    def close(self) -> None:
        """Kill what works; jobs that wait are cancelled."""
        with self._lock:
            self._closed = True
            server = self._stop()
        self._threads.shutdown(cancel_futures=True)
        if server is not None:
            server.wait()

    def _run(self, job: Job) -> Applied:
        try:
            return self._talk(job)
        except OSError as err:
            raise _failed(job, err) from err

    def _talk(self, job: Job) -> Applied:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                fds = [theirs.fileno()]
                try:
                    fds.append(os.open(job.source, os.O_RDONLY | os.O_CLOEXEC))
                    fds.append(_open_target(job))
                    size = os.fstat(fds[1]).st_size if job.growing is None else job.growing.size
                    if job.growing is not None:
                        fds.append(job.growing.fileno())
                    server = self._send(fds)
                finally:
                    for fd in fds[1:3]:
                        os.close(fd)
            try:
                ours.sendall(json.dumps({**job.json(), "size": size}).encode() + b"\n")
            except BrokenPipeError:
                pass  # its end is told below
            lines = _receive(ours).split(b"\n")
        return self._result(job, [line for line in lines if line], server)

    def _send(self, fds: list[int]) -> subprocess.Popen[bytes]:
        """Hand a job's descriptors over, to a server that lives."""
        with self._lock:
            for last in (False, True):
                server, control = self._running()
                try:
                    socket.send_fds(control, [b"job"], fds)
                    return server
                except (BrokenPipeError, ConnectionResetError):
                    self._stop()  # it has died since: the next one is new
                    server.wait()
                    if last:
                        raise
        raise AssertionError("not reached")

    def _running(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        if self._closed:
            raise Error("cancelled", "the workers are closed")
        if self._server is not None and self._control is not None:
            return self._server, self._control
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            boot = BOOT.format(path=[os.path.abspath(one) for one in sys.path if one], fd=theirs.fileno())
            command = [sys.executable or "/proc/self/exe", "-I", "-S", "-c", boot]
            self._server = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
            )
        self._control = ours
        return self._server, ours

    def _stop(self) -> subprocess.Popen[bytes] | None:
        if self._control is not None:
            self._control.close()
        server, self._server, self._control = self._server, None, None
        return server

    def _result(self, job: Job, lines: list[bytes], server: subprocess.Popen[bytes]) -> Applied:
        """What a worker's last line says. Raises Error."""
        answer: dict[str, Any] = {}
        try:
            answer = json.loads(lines[-1]) if lines else {}
            if "applied" in answer:
                return Applied.parse(answer["applied"])
            if "error" in answer:
                code, message, subject, cause, hint = (str(one) for one in answer["error"])
                raise Error(code, message, subject=subject or job.subject, cause=cause, hint=hint)
        except (Malformed, ValueError, KeyError, TypeError, AttributeError) as err:
            raise Error("internal", "a worker's answer cannot be read", subject=job.subject, cause=str(err)[:200]) from None
        if self._closed:
            raise Error("cancelled", "the workers were closed", subject=job.subject)
        how = str(answer["died"]) if "died" in answer else _end_of(server)
        hint = "perhaps the kernel ran out of memory" if how == "SIGKILL" else ""
        raise Error("unavailable", f"the worker died of {how}", subject=job.subject, hint=hint)


def _open_target(job: Job) -> int:
    """The target for the worker: as a mount of its own if that can be had, so that there is no way up from it."""
    fd = os.open(job.target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        clone = libc.clone_mount(fd)
    except OSError:  # an ordinary user
        return fd
    os.close(fd)
    try:
        # What open_tree gives is a place, not an open directory.
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=clone)
    finally:
        os.close(clone)


def _receive(sock: socket.socket) -> bytes:
    data = bytearray()
    while len(data) < _ANSWER:
        try:
            more = sock.recv(1 << 18)
        except ConnectionResetError:
            break
        if not more:
            break
        data += more
    return bytes(data)


def _end_of(server: subprocess.Popen[bytes]) -> str:
    try:
        code = server.wait(timeout=10)
    except subprocess.TimeoutExpired:
        return "something unknown"
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _failed(job: Job, err: OSError) -> Error:
    place = f" {os.fsdecode(err.filename)}" if err.filename else ""
    return Error("kernel", f"the layer cannot be given to a worker{place}", subject=job.subject, cause=err.strerror or str(err))
