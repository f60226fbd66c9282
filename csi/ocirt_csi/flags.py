"""Mount flags of a capability: what they are to the mount, and to its file system. One that we do not know is refused."""

from __future__ import annotations

from collections.abc import Iterable

from ocirt_csi.errors import Error
from ocirt_csi.kernel import mounts

_ATTRIBUTES = {
    "nosuid": mounts.NO_SUID,
    "nodev": mounts.NO_DEV,
    "noexec": mounts.NO_EXEC,
    "noatime": mounts.NO_ATIME,
    "strictatime": mounts.STRICT_ATIME,
    "nodiratime": mounts.NO_DIRATIME,
}
_DEFAULTS = ("rw", "suid", "dev", "exec", "relatime", "defaults")
_WORDS = {
    "btrfs": ("discard", "nodiscard", "compress", "commit", "ssd", "nossd"),
    "ext4": ("discard", "nodiscard", "lazytime", "commit", "data", "dioread_nolock", "barrier", "nobarrier", "errors"),
    "xfs": ("discard", "nodiscard", "lazytime", "inode64", "largeio", "logbufs", "logbsize"),
}


def read(flags: Iterable[str], fs_type: str) -> tuple[int, bool, tuple[str, ...]]:
    """Attributes of the mount, whether it cannot be written, and words for the file system. Raises Error("invalid")."""
    attributes, read_only, words = 0, False, []
    for flag in flags:
        if flag in _ATTRIBUTES:
            attributes |= _ATTRIBUTES[flag]
        elif flag == "ro":
            read_only = True
        elif flag in _DEFAULTS:
            continue
        elif flag.partition("=")[0] in _WORDS.get(fs_type, ()) and "," not in flag:
            words.append(flag)
        else:
            where = f"volumes with {fs_type}" if fs_type else "this volume"
            raise Error("invalid", f"{flag[:64]!r} is not a mount flag of {where}", subject="mount_flags")
    return attributes, read_only, tuple(words)
