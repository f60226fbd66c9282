"""Lexical path functions, so that the cold path need not load `os` (0.7 ms of a start of 10)."""

from __future__ import annotations

import posix

ANCHOR = "ocirt:"  # what the names of anchors begin with, see ocirt.kernel.steps.anchor


def encode(path: str) -> bytes:
    """The bytes that the kernel takes for `path`; a lone surrogate stands for a byte that was not UTF-8 (PEP 383)."""
    return path.encode("utf-8", "surrogateescape")


def join(base: str, *parts: str) -> str:
    """Join like `os.path.join`: an absolute part starts anew."""
    for part in parts:
        if part.startswith("/"):
            base = part
        elif not base or base.endswith("/"):
            base += part
        else:
            base += "/" + part
    return base


def clean(path: str) -> str:
    """Remove `.`, empty and, as far as there is a parent, `..` components, without looking at the file system."""
    absolute = path.startswith("/")
    out: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part != "..":
            out.append(part)
        elif out and out[-1] != "..":
            out.pop()
        elif not absolute:
            out.append(part)
    return ("/" if absolute else "") + "/".join(out) or "."


def absolute(path: str) -> str:
    """`path` made absolute against the working directory, then cleaned."""
    return clean(path if path.startswith("/") else posix.getcwd() + "/" + path)


def parent(path: str) -> str:
    """The directory that holds a cleaned path; that of `/` is `/`."""
    head = path.rpartition("/")[0]
    return head or ("/" if path.startswith("/") else ".")


def name(path: str) -> str:
    """The last component of a cleaned path."""
    return path.rpartition("/")[2]


def anchor(directory: str) -> str:
    """What the mount is called that holds the mounts of a container without a mount namespace; `directory`: its state's.

    The kernel takes 255 bytes.
    """
    return ANCHOR + encode(directory)[-240:].decode("utf-8", "surrogateescape")


def exists(path: str) -> bool:
    """Whether something is there; a dangling symlink is not."""
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def make_directories(path: str, mode: int = 0o755) -> None:
    """Make `path` and the parents that it lacks. Raises OSError."""
    try:
        posix.mkdir(path, mode)
    except FileExistsError:
        return
    except FileNotFoundError:
        if parent(path) == path:
            raise
        make_directories(parent(path), 0o755)
        make_directories(path, mode)


def read_bytes(path: str, limit: int = 1 << 20, *, dir_fd: int | None = None) -> bytes:
    """Read a small file, at most `limit` bytes of it. Raises OSError."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=dir_fd)
    try:
        chunks = []
        while limit > 0 and (chunk := posix.read(fd, min(limit, 65536))):
            chunks.append(chunk)
            limit -= len(chunk)
        return b"".join(chunks)
    finally:
        posix.close(fd)


def read_text(path: str, limit: int = 1 << 20) -> str:
    """`read_bytes` as text; bytes that are not UTF-8 become lone surrogates."""
    return read_bytes(path, limit).decode("utf-8", "surrogateescape")


def write_text(path: str, text: str, flags: int = 0, mode: int = 0o644) -> None:
    """Write `text` in one write(2), as kernel files want it. `flags` are added to O_WRONLY. Raises OSError."""
    fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC | flags, mode)
    try:
        posix.write(fd, encode(text))
    finally:
        posix.close(fd)
