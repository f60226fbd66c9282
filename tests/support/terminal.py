"""A terminal to run a command in, and the receiver of a console socket."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.support.runtime import PATIENCE


def set_size(fd: int, rows: int, columns: int) -> None:
    """Set the window size of a terminal."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def get_size(fd: int) -> tuple[int, int]:
    """The window size of a terminal as (rows, columns)."""
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return rows, columns


class Reader:
    """Collects what a pty's master says; end of file and EIO (no slave is open any more) both end it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.output = b""
        self.ended = False

    def _read(self, deadline: float) -> bool:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        if not select.select([self.fd], [], [], left)[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            data = b""
        self.ended = not data
        self.output += data
        return True

    def expect(self, text: str, seconds: float = PATIENCE) -> str:
        """Read until `text` appears and return all output so far. Raises AssertionError."""
        deadline = time.monotonic() + seconds
        while text.encode() not in self.output:
            if self.ended or not self._read(deadline):
                message = f"{text!r} did not appear in {self.output!r}"
                raise AssertionError(message)
        return self.output.decode(errors="replace")

    def read_all(self, seconds: float = PATIENCE) -> str:
        """Read until the other side is closed and return all output. Raises AssertionError when it stays open."""
        deadline = time.monotonic() + seconds
        while not self.ended:
            if not self._read(deadline):
                message = f"the terminal is still open after {seconds} s, it said {self.output!r}"
                raise AssertionError(message)
        return self.output.decode(errors="replace")

    def write(self, text: str) -> None:
        """Type `text`."""
        os.write(self.fd, text.encode())


class Terminal(Reader):
    """A command in a session of its own whose controlling terminal is a new pty (what `script` does)."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        rows: int = 24,
        columns: int = 80,
    ) -> None:
        master, slave = pty.openpty()
        super().__init__(master)
        set_size(master, rows, columns)
        try:
            # setsid by subprocess; a terminal opened by the leader of a session without one becomes its own.
            opener = ["sh", "-c", 'exec "$@" <>"$0" >&0 2>&0', os.ttyname(slave), *command]
            self.process = subprocess.Popen(
                opener,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                cwd=cwd,
                env=env,
            )
            # Closed by us only when the other side holds it: else a read would see EIO before anything was written.
            self._slave = slave
        except BaseException:
            os.close(master)
            os.close(slave)
            raise

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size; the foreground process group gets SIGWINCH."""
        set_size(self.fd, rows, columns)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Read to the end, wait for the command and return its exit code. Raises AssertionError."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                message = f"still running after {seconds} s, it said {self.output!r}"
                raise AssertionError(message)
            self._read(min(deadline, time.monotonic() + 0.05))
        os.close(self._slave)
        self._slave = -1
        with contextlib.suppress(AssertionError):
            self.read_all(2)
        return self.process.returncode

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._slave >= 0:
            os.close(self._slave)
        os.close(self.fd)


class ConsoleSocket:
    """The socket that `--console-socket` names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen(4)
        self._received: list[int] = []

    def receive(self, seconds: float = PATIENCE) -> tuple[str, list[int]]:
        """Take one connection and its first message: (the pty's name, the descriptors that came with it)."""
        self._socket.settimeout(seconds)
        peer, _ = self._socket.accept()
        with peer:
            peer.settimeout(seconds)
            data, fds, _, _ = socket.recv_fds(peer, 4096, 16)
            self._received += fds
            more = peer.recv(4096)
        if more:
            message = f"a second message on the console socket: {more!r}"
            raise AssertionError(message)
        return data.decode(), list(fds)

    def __enter__(self) -> ConsoleSocket:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()
        for fd in self._received:
            os.close(fd)
