"""A seccomp agent: takes the listeners of containers' filters, and answers what their calls ask (seccomp_unotify(2))."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

_RECEIVE, _SEND, _ADD_FD = 0xC0502100, 0xC0182101, 0x40182103  # SECCOMP_IOCTL_NOTIF_*
_ADD_FD_SEND = 2  # SECCOMP_ADDFD_FLAG_SEND
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE


class Call:
    """A call that waits for an answer: the caller's `pid`, as the agent sees it, its `number` and `arguments`."""

    def __init__(self, listener: int, request: bytes) -> None:
        self._listener = listener
        self._id, self.pid, _, self.number, _, _, *rest = struct.unpack("QIIiIQ6Q", request)
        self.arguments: list[int] = rest

    def _send(self, value: int, error: int, flags: int) -> None:
        fcntl.ioctl(self._listener, _SEND, struct.pack("QqiI", self._id, value, -error, flags))

    def give(self, value: int) -> None:
        """It returns `value`."""
        self._send(value, 0, 0)

    def fail(self, error: int) -> None:
        """It fails."""
        self._send(0, error, 0)

    def go_on(self) -> None:
        """The kernel does what it was asked."""
        self._send(0, 0, _CONTINUE)

    def give_descriptor(self, fd: int) -> None:
        """It returns a copy of the agent's descriptor (Linux 5.14)."""
        fcntl.ioctl(self._listener, _ADD_FD, struct.pack("QIIII", self._id, _ADD_FD_SEND, fd, 0, 0))


class Agent:
    """Listens at `path` from the start on; `states` are what has been said, `calls` what was answered, by `answer`."""

    def __init__(self, path: Path, answer: Callable[[Call], object] = Call.go_on) -> None:
        self.path = path
        self.states: list[dict[str, Any]] = []
        self.calls: list[int] = []
        self.trouble: list[str] = []
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(8)
        path.chmod(0o666)
        self._end, self._ended = os.pipe()
        self._listeners: list[int] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> Agent:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Listen no more; calls that wait for an answer fail with ENOSYS. Raises AssertionError for what was sent wrongly."""
        os.write(self._ended, b"x")
        self._thread.join()
        for fd in (*self._listeners, self._end, self._ended):
            os.close(fd)
        self._socket.close()
        assert kind is not None or not self.trouble, self.trouble

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        poll.register(self._socket, select.POLLIN)
        while True:
            for fd, event in poll.poll():
                if fd == self._end:
                    return
                if fd == self._socket.fileno():
                    if (listener := self._accept()) >= 0:
                        poll.register(listener, select.POLLIN)
                elif event & select.POLLIN:
                    self._serve(fd)
                else:
                    poll.unregister(fd)  # everybody with the filter has ended

    def _accept(self) -> int:
        """Take one message with one descriptor, and then the end."""
        connection, _ = self._socket.accept()
        with connection:
            connection.settimeout(5)
            data, fds, flags, _ = socket.recv_fds(connection, 1 << 16, 8)
            self._listeners += fds
            rest = connection.recv(1)
        if len(fds) != 1 or rest or flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
            self.trouble.append(f"{data!r}, {len(fds)} descriptors, then {rest!r}")
            return -1
        self.states.append(json.loads(data))
        return fds[0]

    def _serve(self, listener: int) -> None:
        request = bytearray(80)
        try:
            fcntl.ioctl(listener, _RECEIVE, request)
            call = Call(listener, bytes(request))
            self.calls.append(call.number)
            self._answer(call)
        except OSError as err:
            if err.errno != errno.ENOENT:  # the caller was killed meanwhile
                self.trouble.append(str(err))
