"""Who is attached, as the shim has them: a pipe for each output, and a socket to the process that serves the client."""

from __future__ import annotations

import _socket
import posix

from ocirt_shim.flow import Flow, shut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ocirt_shim.loop import Loop

INPUT_ENDED = b"e"  # what that process says; its end says that the client is gone
_WORD = 16


class Attached:
    """One client.

    ways: descriptors to write outputs to, by name; word: of the socket.
    room: called when it can take more again; input_ended: when its standard input is over, if it has any; gone: at its end, once.
    """

    def __init__(
        self,
        loop: Loop,
        ways: Mapping[str, int],
        word: int,
        *,
        room: Callable[[], object],
        input_ended: Callable[[], object],
        gone: Callable[[Attached], object],
    ) -> None:
        self._loop = loop
        self._input_ended = input_ended
        self._gone = gone
        self._word = word
        # Nothing but pipes holds it back: who serves the client has the patience, and the memory.
        self._ways = {name: Flow(loop, fd, writable=room, limit=0) for name, fd in ways.items()}
        posix.set_blocking(word, False)
        loop.add(word, self._hear)

    @property
    def is_full(self) -> bool:
        """Whether the container should wait."""
        return any(way.is_full for way in self._ways.values())

    def write(self, name: str, data: bytes) -> None:
        """What the container wrote."""
        if name in self._ways:
            self._ways[name].write([data])

    def end(self) -> None:
        """The container has ended: the client is to have the rest of it."""
        for way in self._ways.values():
            way.end(lambda _, way=way: self._close(way))  # type: ignore[misc]
        if not self._ways:
            self.close()

    def _close(self, way: Flow) -> None:
        way.close()
        if all(each.fd < 0 for each in self._ways.values()):
            self.close()

    def close(self) -> None:
        """Be done with it."""
        if self._word < 0:
            return
        for way in self._ways.values():
            way.close()
        self._loop.remove(self._word)
        shut(self._word, _socket.SHUT_RDWR)  # a fork that is under way has it, too
        posix.close(self._word)
        self._word = -1
        self._gone(self)

    def _hear(self) -> None:
        try:
            said = posix.read(self._word, _WORD)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        self._input_ended()
        if not said:
            self.close()
