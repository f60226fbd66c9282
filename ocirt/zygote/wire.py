"""What a caller and a fork of the zygote say to each other: messages on a stream socket, without I/O.

A message is a length (four bytes, little endian) and that many bytes of JSON, an object. Descriptors travel beside the first
bytes of a request (SCM_RIGHTS). The caller speaks first; each request has a socket of its own, whose end is the caller's end.

| from the caller | |
|---|---|
| {"do": VERB, …} | the request; `ocirt.zygote.work` has the verbs and their members |
| {"kill": NUMBER} | a signal for the process |

| from the fork | |
|---|---|
| {"at": PID} | it is there; before this nothing was done |
| {"pid": NUMBER} | the process exists (its pid on the host) |
| {"status": NUMBER, "oom": COUNT} | it has ended, as waitpid(2) says it; how often the cgroup ran out of memory |
| {"done": VALUE} | the answer to a request that starts no process |
| {"error": {"code", "message", "subject", "cause", "hint"}} | ocirt.errors.Error |
"""

from __future__ import annotations

from ocirt import jsonlite
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]

_HEAD = 4
LARGEST = 64 << 20  # bytes; config.json may have 32 MiB, and is escaped once more
_PARTS = ("code", "message", "subject", "cause", "hint")


def encode(message: Message) -> bytes:
    """A message as bytes. Raises TypeError for what JSON does not have, Error("invalid") for one that is too large."""
    data = jsonlite.dumps(message).encode()
    if len(data) > LARGEST:
        raise Error("invalid", f"a request of more than {LARGEST >> 20} MiB")
    return len(data).to_bytes(_HEAD, "little") + data


def is_whole(data: bytes) -> bool:
    """Whether bytes are a whole message, for who passes it on unread."""
    return len(data) >= _HEAD and len(data) == _HEAD + int.from_bytes(data[:_HEAD], "little")


def decode(data: bytes) -> Message:
    """A whole message. Raises Error("internal") for what is none."""
    message = jsonlite.loads(data[_HEAD:], "message")
    if not isinstance(message, dict):
        raise Error("internal", "not a message of ocirt's", subject="zygote")
    return message


class Decoder:
    """Bytes in, messages out, however the bytes are cut."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        """Take bytes of the stream."""
        self._data += data

    def next(self) -> Message | None:
        """The next message, None if it is not complete. Raises Error("internal") for what is none."""
        if len(self._data) < _HEAD:
            return None
        size = int.from_bytes(self._data[:_HEAD], "little")
        if size > LARGEST:
            raise Error("internal", "not a message of ocirt's", subject="zygote")
        if len(self._data) < _HEAD + size:
            return None
        message = decode(bytes(self._data[: _HEAD + size]))
        del self._data[: _HEAD + size]
        return message


def from_error(err: Error) -> Message:
    """The message that stands for an Error."""
    return {"error": {part: getattr(err, part) for part in _PARTS}}


def to_error(message: Message) -> Error:
    """The Error that a message stands for."""
    parts = {part: str(message["error"].get(part, "")) for part in _PARTS}
    return Error(parts["code"], parts["message"], subject=parts["subject"], cause=parts["cause"], hint=parts["hint"])
