"""Frames of ttrpc: ten bytes (length, stream, type, flags; the numbers big endian), then the data."""

from __future__ import annotations

from struct import Struct

HEADER = Struct(">IIBB")
LIMIT = 4 << 20  # bytes of data in a frame

REQUEST, RESPONSE, DATA = 1, 2, 3
# REMOTE_CLOSED: who sends this sends no more on the stream. REMOTE_OPEN, of a request: data follows.
# NO_DATA: there is no message in this frame; an empty one would look the same.
REMOTE_CLOSED, REMOTE_OPEN, NO_DATA = 1, 2, 4


class ProtocolError(Exception):
    """The peer does not speak ttrpc, or the connection ended within a frame. Nothing more can be read from it."""


class TooLargeError(ValueError):
    """A message does not fit into a frame."""


class Frame:
    """One frame. `data` is None if there were more than LIMIT bytes of it: they are gone, and the stream is of no use."""

    __slots__ = ("data", "flags", "stream", "type")

    def __init__(self, stream: int, kind: int, flags: int, data: bytes | None) -> None:
        self.stream = stream
        self.type = kind
        self.flags = flags
        self.data = data


def encode(stream: int, kind: int, flags: int, data: bytes) -> bytes:
    """The bytes of a frame. Raises TooLargeError."""
    if len(data) > LIMIT:
        raise TooLargeError(f"a message of {len(data)} bytes does not fit into a frame of ttrpc, which has at most {LIMIT}")
    return HEADER.pack(len(data), stream, kind, flags) + data


class FrameReader:
    """Frames out of bytes, in whatever pieces these come. It holds less than one frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._dropped = 0  # bytes that are still to come of a frame that is too large

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole now. Raises ProtocolError."""
        buffer, at, found = self._buffer, 0, []
        buffer += data
        while True:
            if self._dropped:
                drop = min(self._dropped, len(buffer) - at)
                self._dropped -= drop
                at += drop
            if len(buffer) - at < HEADER.size:
                break
            length, stream, kind, flags = HEADER.unpack_from(buffer, at)
            if length >> 24:
                raise ProtocolError("a frame of ttrpc begins with a zero byte, this one does not")
            start = at + HEADER.size
            if length > LIMIT:
                self._dropped, at = length, start
                found.append(Frame(stream, kind, flags, None))
            elif len(buffer) - start < length:
                break
            else:
                at = start + length
                found.append(Frame(stream, kind, flags, bytes(buffer[start:at])))
        del buffer[:at]
        return found

    def end(self) -> None:
        """The connection has ended. Raises ProtocolError if that was within a frame."""
        if self._buffer or self._dropped:
            raise ProtocolError("the connection ended within a frame")
