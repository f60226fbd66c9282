"""How containerd 2.3 and later start a shim: bootstrap.proto."""

from __future__ import annotations

from ocirt_api.message import ENUM, STRING, Message, enum, int32, mapping, one, repeated, string
from ocirt_api.messages.google import Any


class Extension(Message):
    """Something more, of any type."""

    value: Any | None = one(1, Any)


class BootstrapParams(Message):
    """What a shim reads from its standard input."""

    instance_id: str = string(1)
    namespace: str = string(2)
    log_level: int = enum(3)
    containerd_version: str = string(4)
    containerd_ttrpc_address: str = string(5)
    containerd_grpc_address: str = string(6)
    containerd_binary: str = string(7)
    extensions: list[Extension] = repeated(8, Extension)
    socket_dir: str | None = one(9, STRING)


class BootstrapResult(Message):
    """What a shim prints once it listens."""

    version: int = int32(1)
    address: str = string(2)
    protocol: str = string(3)
    capabilities: list[int] = repeated(4, ENUM)
    metadata: dict[str, str] = mapping(5)
    extensions: list[Extension] = repeated(6, Extension)
