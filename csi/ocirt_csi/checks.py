"""Fields of requests, checked before anything is done: each error names its field (CSI, "Field Requirements")."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from google.protobuf.json_format import MessageToDict

from ocirt_api.csi import api_pb2 as csi
from ocirt_csi.errors import BusyError, Error, RangeError
from ocirt_csi.uses import Access

_TEXT, _NODE, _PATH, _MAP = 128, 256, 4096, 4096  # bytes
_LARGEST_ID = (1 << 32) - 2
_Mode = csi.VolumeCapability.AccessMode
SINGLE_NODE = (
    _Mode.SINGLE_NODE_WRITER,
    _Mode.SINGLE_NODE_READER_ONLY,
    _Mode.SINGLE_NODE_SINGLE_WRITER,
    _Mode.SINGLE_NODE_MULTI_WRITER,
)


def text(value: str, field: str, most: int = _TEXT) -> str:
    """A string that is there, is not too long, and has nothing in it that no name has."""
    if not value:
        raise Error("invalid", "is missing", subject=field)
    if len(value.encode()) > most:
        raise Error("invalid", f"has more than {most} bytes", subject=field)
    if not value.isprintable():
        raise Error("invalid", "has characters that cannot be printed", subject=field)
    return value


def identifier(value: str, field: str) -> str:
    """The id of something of ours. One that cannot be is as good as one that does not exist, but for its length."""
    return text(value, field)


def node(value: str) -> str:
    """The name of a node."""
    return text(value, "node_id", _NODE)


def path(value: str, field: str) -> str:
    """An absolute path without ways up."""
    if not value:
        raise Error("invalid", "is missing", subject=field)
    if len(value.encode(errors="surrogateescape")) > _PATH or "\0" in value:
        raise Error("invalid", "is no path", subject=field)
    if not value.startswith("/") or ".." in value.split("/"):
        raise Error("invalid", f"{value[:128]!r} is not an absolute path without ..", subject=field)
    found = value.rstrip("/")
    if not found:
        raise Error("invalid", "is the root", subject=field)
    return found


def known_path(value: str, field: str) -> str:
    """A path where something is said to be: any text, for one that is none of ours is not found."""
    return text(value, field, _PATH).rstrip("/") or "/"


def mapping(value: Mapping[str, str], field: str) -> dict[str, str]:
    """A map of strings, of at most 4 KiB in all."""
    found = dict(value)
    if sum(len(name.encode()) + len(one.encode()) for name, one in found.items()) > _MAP:
        raise Error("invalid", f"has more than {_MAP} bytes", subject=field)
    for name, one in found.items():
        if "\0" in name + one:
            raise Error("invalid", "has a NUL", subject=f"{field}: {name[:64]!r}")
    return found


def capacity(value: csi.CapacityRange) -> tuple[int, int]:
    """What is required and the limit, 0 for no bound."""
    required, limit = value.required_bytes, value.limit_bytes
    if required < 0 or limit < 0:
        raise Error("invalid", "is negative", subject="capacity_range")
    if limit and required > limit:
        raise RangeError(f"{required} bytes are required, and the limit is {limit}", subject="capacity_range")
    return required, limit


def capability(value: csi.VolumeCapability, *, read_only: bool = False, field: str = "volume_capability") -> Access:
    """How a volume is to be used."""
    kind = value.WhichOneof("access_type")
    if kind is None:
        raise Error("invalid", "says neither block nor mount", subject=field)
    mode = value.access_mode.mode
    if mode == _Mode.UNKNOWN or mode not in _Mode.Mode.values():
        raise Error("invalid", "has no access mode", subject=field)
    if mode not in SINGLE_NODE:
        hint = "volumes are on one node"
        raise Error("invalid", f"{_Mode.Mode.Name(mode)} cannot be had", subject=f"{field}: access_mode", hint=hint)
    flags = tuple(value.mount.mount_flags)
    if sum(map(len, flags)) > _MAP:
        raise Error("invalid", f"has more than {_MAP} bytes", subject="mount_flags")
    asked = json.dumps([MessageToDict(value), read_only], sort_keys=True)
    group = _group(value.mount.volume_mount_group)
    return Access(kind == "block", value.mount.fs_type, flags, group, mode, read_only, asked)


def capabilities(values: Iterable[csi.VolumeCapability], field: str = "volume_capabilities") -> list[Access]:
    """The same of several, which agree on what the volume is."""
    found = [capability(one, field=f"{field}/{number}") for number, one in enumerate(values)]
    if not found:
        raise Error("invalid", "is missing", subject=field)
    if len({one.block for one in found}) > 1:
        raise Error("invalid", "a volume is a block device or has a file system", subject=field)
    kinds = {one.fs_type for one in found if one.fs_type}
    if len(kinds) > 1:
        raise Error("invalid", f"a volume has one file system, not {' and '.join(sorted(kinds))}", subject=field)
    return found


def page(entries: int, token: str) -> tuple[int, int]:
    """How many entries a list has at most (0: all), and the number behind which it begins."""
    if entries < 0:
        raise Error("invalid", "is negative", subject="max_entries")
    if not token:
        return entries, 0
    if not (token.isascii() and token.isdecimal() and len(token) <= 18):
        raise BusyError("is none of ours", subject="starting_token", hint="begin the list again")
    return entries, int(token)


def _group(value: str) -> int:
    if not value:
        return -1
    if not (value.isascii() and value.isdecimal()) or int(value) > _LARGEST_ID:
        raise Error("invalid", f"{value[:64]!r} is not the number of a group", subject="volume_mount_group")
    return int(value)
