"""Byte code for an installation that brought none: kept where only its owner can write, instead of compiled at each start.

The launcher's bootstrap comes here when it finds no `__pycache__` beside the package (uv does not compile what it installs).
Compiling takes 5 ms for each 1,000 lines; once kept, a start costs as much as with installed byte code. Byte code is code: a
directory is taken only if it, and each directory above it, can be changed by nobody but us and root.
"""

from __future__ import annotations

import posix
import sys


def keep() -> None:
    """Have the interpreter write byte code to a cache directory, if there is a safe one, and read it from there."""
    for base in _places():
        path = base + "/ocirt/bytecode"
        if _make(path):
            sys.pycache_prefix = path
            sys.dont_write_bytecode = False
            return


def _places() -> list[str]:
    """Cache directories to try: the system's for root, never one that the environment names; then the user's own."""
    places = ["/var/cache"] if posix.geteuid() == 0 else []
    if posix.geteuid() != 0 or _in_user_namespace():
        cache = posix.environ.get(b"XDG_CACHE_HOME", b"") or posix.environ.get(b"HOME", b"") + b"/.cache"
        if cache.startswith(b"/"):
            places.append(cache.decode("utf-8", "surrogateescape"))
    return places


def _in_user_namespace() -> bool:
    try:
        fd = posix.open("/proc/self/uid_map", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return False
    try:
        return posix.read(fd, 100).split() != [b"0", b"0", b"4294967295"]
    finally:
        posix.close(fd)


def _make(path: str) -> bool:
    """Make `path`, and say whether nobody but us and root could change what is in it."""
    names = path.split("/")
    for depth in range(1, len(names) + 1):
        part = "/".join(names[:depth]) or "/"
        try:
            if depth > 1:
                posix.mkdir(part, 0o700)
        except OSError:
            pass  # it is there, or the next look fails
        try:
            status = posix.stat(part, follow_symlinks=False)
        except OSError:
            return False
        sticky_parent = status.st_mode & 0o1000 and depth < len(names)
        if status.st_mode & 0o170000 != 0o040000 or (status.st_mode & 0o022 and not sticky_parent):
            return False
        if status.st_uid not in (0, posix.geteuid()):
            return False
    try:
        return posix.access(path, posix.W_OK)
    except OSError:
        return False
