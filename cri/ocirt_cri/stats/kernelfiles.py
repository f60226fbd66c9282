"""Reading the small files by which the kernel tells of a cgroup: whole, once, and only what is wanted is looked for in them."""

from __future__ import annotations

import errno
import os

GONE = (errno.ENOENT, errno.ENODEV, errno.ENOTDIR, errno.ESRCH)
_SILENT = (*GONE, errno.EOPNOTSUPP)  # pressure that is switched off
_NO_LIMIT = 1 << 62  # version 1 writes the largest number of pages there is


def get(directory: str, name: str) -> bytes | None:
    """The whole of a file; None if it is not there, or if there is no directory (""). Raises OSError."""
    if not directory:
        return None
    try:
        fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as err:
        if err.errno in _SILENT:
            return None
        raise
    try:
        text = os.read(fd, 1 << 16)
        while len(text) >= 4096 and (more := os.read(fd, 1 << 16)):
            text += more
        return text
    except OSError as err:
        if err.errno in _SILENT:
            return None
        raise
    finally:
        os.close(fd)


def number(text: bytes | None) -> int | None:
    """The one number of a file; None for `max`."""
    digits = (text or b"").strip()
    return int(digits) if digits.isdigit() else None


def below(limit: int | None) -> int | None:
    """A limit of version 1; None if it is none."""
    return limit if limit is not None and limit < _NO_LIMIT else None


def key(text: bytes | None, name: bytes) -> int | None:
    """The number in the line of a name."""
    if text is None:
        return None
    start = 0 if text.startswith(name + b" ") else text.find(b"\n" + name + b" ") + 1
    if start == 0 and not text.startswith(name + b" "):
        return None
    start += len(name) + 1
    end = text.find(b"\n", start)
    return number(text[start : end if end >= 0 else len(text)])


def keys(text: bytes | None) -> dict[bytes, int]:
    """All lines of a name and a number."""
    found = {}
    for line in (text or b"").split(b"\n"):
        name, _, digits = line.partition(b" ")
        if digits.isdigit():
            found[name] = int(digits)
    return found
