"""A worker that was forked before there is work for it, and has rehearsed that: whoever asks for a container waits for neither.

A fork copies each page at its first write, and a plan writes to several hundred: that takes longer than the plan. What it is to
do comes over a socket, with descriptors; its word goes back over a pipe, as that of any worker. It ends with its maker.
"""

from __future__ import annotations

import posix

from ocirt import spans
from ocirt.kernel import messages
from ocirt.kernel.messages import receive_descriptors, send_descriptors
from ocirt.kernel.process import close_all_but
from ocirt_shim.worker import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ocirt_shim.worker import Word

_LENGTH = 8  # bytes
_CHUNK = 1 << 16  # of one message


class Ready:
    """The worker: `pid`; `told`, the pipe with its word. Raises OSError if there can be none."""

    __slots__ = ("_way", "pid", "told")

    def __init__(
        self, work: Callable[[bytes, Sequence[int]], Word], rehearse: Callable[[], object], common: Sequence[int] = ()
    ) -> None:
        """work: what it will do, with the bytes and the descriptors that come; of its maker's it has only those in common."""
        self._way, theirs = messages.socket_pair()
        try:
            self.told, tell = posix.pipe2(posix.O_CLOEXEC)
        except OSError:
            posix.close(self._way)
            posix.close(theirs)
            raise
        try:
            self.pid = posix.fork()
            if not self.pid:
                try:
                    close_all_but((theirs, tell, *common, *spans.descriptors()), 3)
                    rehearse()
                    data, fds = _receive(theirs)
                    posix.close(theirs)
                    run(lambda: work(data, fds), tell)
                finally:
                    posix._exit(0)
        except OSError:
            posix.close(self._way)
            posix.close(self.told)
            raise
        finally:
            posix.close(theirs)
            posix.close(tell)

    def give(self, data: bytes, fds: Sequence[int]) -> None:
        """Have it begin. Raises OSError if it is gone, or cannot; then it does nothing."""
        try:
            send_descriptors(self._way, len(data).to_bytes(_LENGTH, "little"), *fds)
            for at in range(0, len(data), _CHUNK):
                posix.write(self._way, data[at : at + _CHUNK])
        except BaseException:
            posix.close(self.told)
            raise
        finally:
            posix.close(self._way)

    def dismiss(self) -> None:
        """There is no work for it: it ends."""
        posix.close(self._way)
        posix.close(self.told)


def _receive(way: int) -> tuple[bytes, tuple[int, ...]]:
    """What `give` gives. Ends the process if nobody does."""
    head, fds = receive_descriptors(way)
    left = int.from_bytes(head, "little")
    found = b""
    while len(found) < left:
        more = posix.read(way, _CHUNK)
        if not more:
            posix._exit(0)
        found += more
    if not head:
        posix._exit(0)
    return found, fds
