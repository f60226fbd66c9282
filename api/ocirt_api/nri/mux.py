"""The one connection between a runtime and a plugin of NRI, cut into channels; without I/O.

Each channel carries ttrpc in both directions: the plugin serves on PLUGIN, the runtime on RUNTIME. A piece has eight bytes of
header (channel, length; big endian). Nothing is said of opening and closing: both sides know the channels.
"""

from __future__ import annotations

from struct import Struct

from ocirt_api.ttrpc.frames import HEADER as TTRPC_HEADER
from ocirt_api.ttrpc.frames import LIMIT, ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PLUGIN, RUNTIME = 1, 2

HEADER = Struct(">II")
LARGEST = TTRPC_HEADER.size + LIMIT  # bytes in one piece: a whole frame of ttrpc
_FIRST = 4096  # bytes of a reader's buffer in Go (bufio)


def split(channel: int, frame: bytes) -> bytes:
    """A frame of ttrpc for a channel, as pieces to be sent.

    The first has no more than what a reader in Go asks for at once (its library fails if a piece is larger), and the rest is one:
    the same library drops a connection on which too many wait to be read.
    """
    parts = [frame[:_FIRST], frame[_FIRST:]] if len(frame) > _FIRST else [frame]
    return b"".join([HEADER.pack(channel, len(part)) + part for part in parts])


class Channels:
    """What each channel gets, out of bytes in whatever pieces these come. It holds less than one header."""

    def __init__(self, channels: Iterable[int] = (PLUGIN, RUNTIME)) -> None:
        self._known = frozenset(channels)
        self._header = b""
        self._channel = 0
        self._left = 0  # bytes that are still to come of this piece

    def receive(self, data: bytes) -> list[tuple[int, bytes]]:
        """(channel, bytes for it), in order. What is for other channels is dropped. Raises ProtocolError."""
        found = []
        at = 0
        while at < len(data):
            if not self._left:
                at = self._begin(data, at)
            else:
                part = data[at : at + self._left]
                at += len(part)
                self._left -= len(part)
                if self._channel in self._known:
                    found.append((self._channel, part))
        return found

    def end(self) -> None:
        """The connection has ended. Raises ProtocolError if that was within a piece."""
        if self._header or self._left:
            raise ProtocolError("the connection ended within a piece of a channel")

    def _begin(self, data: bytes, at: int) -> int:
        """Take what there is of a header. Returns where it ends."""
        taken = data[at : at + HEADER.size - len(self._header)]
        self._header += taken
        if len(self._header) == HEADER.size:
            self._channel, self._left = HEADER.unpack(self._header)
            self._header = b""
            if self._left > LARGEST:
                raise ProtocolError(f"a piece of {self._left} bytes for channel {self._channel}: it has at most {LARGEST}")
        return at + len(taken)
