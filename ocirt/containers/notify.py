"""sd_notify(3) out of a container: what the caller's NOTIFY_SOCKET stands for, as runc has it.

The container gets a socket of ours at /run/notify. Of all that comes there the first READY=1 is passed on, followed by MAINPID=
and by the barrier of sd_notify_barrier(3): the manager must have read it before we end, or it does not know whom it is from.
Whoever lets the program go on (`run`, or `start` after `create`) waits for that, or for the program's end.
"""

from __future__ import annotations

import posix
import select
from errno import EADDRINUSE, ENOENT

from ocirt import state
from ocirt.containers.start import start
from ocirt.errors import Error
from ocirt.kernel import messages, unixsocket

_PATIENCE = 30_000  # milliseconds for the barrier: not every manager knows it
_LARGEST = 4096


def make_directory(directory: str) -> None:
    """Make what will be mounted, in the container's directory. Raises OSError."""
    path = directory + "/notify"
    posix.mkdir(path, 0o755)
    posix.chmod(path, 0o755)  # whatever our umask is: the container's user must come through


class Notify:
    """Our end of the container's socket, bound in the container's directory. Raises OSError."""

    def __init__(self, directory: str) -> None:
        path = directory + "/notify/notify.sock"
        self.fd = unixsocket.bind(path, unixsocket.DATAGRAM)
        posix.chmod(path, 0o777)

    def forward(self, pid: int, *, wait: bool = False) -> bool:
        """Read one message; whether it was the one that the manager was waiting for. `wait`: until that has read it.

        Raises OSError.
        """
        for line in posix.read(self.fd, _LARGEST).split(b"\n"):
            if line.startswith(b"READY="):
                self._tell(line, pid, wait=wait)
                return True
        return False

    def _tell(self, line: bytes, pid: int, *, wait: bool) -> None:
        name = posix.environ[b"NOTIFY_SOCKET"].decode("utf-8", "surrogateescape")
        manager = unixsocket.connect(name, unixsocket.DATAGRAM)
        try:
            posix.write(manager, line + b"\n")
            posix.write(manager, b"MAINPID=%d\n" % pid)
            reader, writer = posix.pipe2(posix.O_CLOEXEC)
            messages.send_descriptors(manager, b"BARRIER=1", writer)
            posix.close(writer)
            if wait:
                poll = select.poll()
                poll.register(reader, select.POLLIN)
                poll.poll(_PATIENCE)
            posix.close(reader)
        finally:
            posix.close(manager)

    def wait(self, pid: int) -> None:
        """Wait until process `pid` has said that it is ready, or has ended. Raises OSError."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        try:
            poll.register(posix.pidfd_open(pid), select.POLLIN)
            patience = None
        except ProcessLookupError:
            patience = 0  # it has ended, and been waited for; what it said is here all the same
        while ready := poll.poll(patience):
            if ready[0][0] != self.fd or self.forward(pid, wait=True):
                return


def start_and_wait(root: str, container_id: str) -> None:
    """`start`, and wait for the program's word. Raises Error as `start` does, and for a manager that cannot be reached."""
    record = state.load(root, container_id)
    notify = None
    try:
        notify = Notify(record["directory"])
    except OSError as err:
        # Created without: nobody in there can say anything. Or started already, as `start` will say.
        if err.errno not in (ENOENT, EADDRINUSE):
            raise
    start(root, container_id)
    if notify is not None:
        try:
            notify.wait(record["pid"])
        except OSError as err:
            name = posix.environ[b"NOTIFY_SOCKET"].decode("utf-8", "surrogateescape")
            raise Error("kernel", f"NOTIFY_SOCKET {name}", cause=posix.strerror(err.errno or 0).lower()) from None
