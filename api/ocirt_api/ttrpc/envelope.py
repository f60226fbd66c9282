"""What the frames of ttrpc carry: envelope.proto, status.proto."""

from __future__ import annotations

from ocirt_api.message import Message, data, int32, int64, one, repeated, string
from ocirt_api.messages.google import Any


class KeyValue(Message):
    """A piece of metadata. A key may stand several times."""

    key: str = string(1)
    value: str = string(2)


class Request(Message):
    """The begin of a call."""

    service: str = string(1)
    method: str = string(2)
    payload: bytes = data(3)
    timeout_nano: int = int64(4)
    metadata: list[KeyValue] = repeated(5, KeyValue)


class Status(Message):
    """How a call ended: a code of `ocirt_api.status`, and a text."""

    code: int = int32(1)
    message: str = string(2)
    details: list[Any] = repeated(3, Any)


class Response(Message):
    """The end of a call; without a status it was a success."""

    status: Status | None = one(1, Status)
    payload: bytes = data(2)
