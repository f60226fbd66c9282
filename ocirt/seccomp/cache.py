"""Translated filters, kept under the runtime's root: `<root>/@seccomp/<key>`.

Translating docker's profile takes some milliseconds, and a node starts thousands of containers with the same one. The key is a
hash over everything that the program depends on: the profile, this code's version, the kernel and libseccomp. An entry is used
only if it is a regular file of ours that nobody else can write to, in a directory of which the same holds, and if its contents
name the key and carry their own hash; anything else is translated anew and replaced. The cache is never needed: what goes wrong
with it costs time, not the start.
"""

from __future__ import annotations

import posix
import sys
from _blake2 import blake2b
from marshal import dumps

from ocirt.kernel.ffi import ARCH
from ocirt.seccomp import INSTRUCTION_SIZE, MAX_INSTRUCTIONS, Filter, library_places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DIRECTORY = "@seccomp"  # not a valid container id
FORMAT = 1  # to be raised with every change of what a profile is translated to

_MAGIC = b"ocirt seccomp 1\n"
_HASH = 32
_HEADER = len(_MAGIC) + _HASH + 4 + 4  # magic, key, flags, listener
_LARGEST = _HEADER + MAX_INSTRUCTIONS * INSTRUCTION_SIZE + _HASH
_ENTRIES = 64  # profiles are few; whoever makes more loses them all

_REGULAR = 0o100000  # stat.h: S_IFREG


def load(root: str, section: dict[str, Any], *, pointer: str = "/linux/seccomp") -> Filter:
    """The filter for a profile, from the cache below the state directory `root`, or translated and then put there.

    Raises what ocirt.seccomp.compile.compile_filter raises, with `pointer` as the section's own.
    """
    key = _key(section)
    directory = _open_directory(root + "/" + DIRECTORY)
    try:
        if directory >= 0 and (found := _read(directory, key)):
            return found
        from ocirt.seccomp.compile import compile_filter  # noqa: PLC0415

        made = compile_filter(section, pointer=pointer)
        if directory < 0:
            directory = _make_directory(root + "/" + DIRECTORY)
        if directory >= 0:
            _write(directory, key, made)
        return made
    finally:
        if directory >= 0:
            posix.close(directory)


def _key(section: dict[str, Any]) -> bytes:
    system = posix.uname()
    # marshal's version 2 writes a value in exactly one way, and no two values in the same.
    depends: Any = (FORMAT, section, system.release, system.version, ARCH, sys.maxsize, sys.byteorder, _library())
    return blake2b(dumps(depends, 2), digest_size=_HASH).digest()


def _library() -> tuple[object, ...]:
    """What tells this libseccomp from any other one, without loading it: the files that would be loaded, by path.

    Where it lies elsewhere, it has to be loaded and asked for its version. Raises Error("unsupported") when there is none.
    """
    found: list[tuple[object, ...]] = []
    for place in library_places():
        try:
            status = posix.stat(place)
        except OSError:
            continue
        found.append((place, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    if found:
        return tuple(found)
    from ocirt.seccomp.library import load as load_library  # noqa: PLC0415

    return load_library().version


def _open_directory(path: str) -> int:
    """A descriptor of the cache's directory, or -1 if it is not there or somebody else may write to it."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC)
    except OSError:
        return -1
    status = posix.fstat(fd)
    if status.st_uid == posix.geteuid() and not status.st_mode & 0o022:
        return fd
    posix.close(fd)
    return -1


def _make_directory(path: str) -> int:
    try:
        posix.mkdir(path, 0o700)
    except OSError:
        return -1
    return _open_directory(path)


def _read(directory: int, key: bytes) -> Filter | None:
    """The entry for `key`, if there is one and nothing is wrong with it."""
    try:
        # O_NONBLOCK: a FIFO in its place must not hold us.
        flags = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
        fd = posix.open(key.hex(), flags, dir_fd=directory)
    except OSError:
        return None
    try:
        status = posix.fstat(fd)
        if status.st_mode != _REGULAR | 0o600 or status.st_uid != posix.geteuid() or status.st_size > _LARGEST:
            return None
        data = posix.read(fd, _LARGEST)
    except OSError:
        return None
    finally:
        posix.close(fd)
    return _decode(data, key)


def _encode(made: Filter, key: bytes) -> bytes:
    data = _MAGIC + key + made.flags.to_bytes(4, "little") + made.listener.to_bytes(4, "little") + made.program
    return data + blake2b(data, digest_size=_HASH).digest()


def _decode(data: bytes, key: bytes) -> Filter | None:
    program = data[_HEADER:-_HASH]
    if (
        not data.startswith(_MAGIC + key)
        or not program
        or len(program) % INSTRUCTION_SIZE
        or blake2b(memoryview(data)[:-_HASH], digest_size=_HASH).digest() != data[-_HASH:]
    ):
        return None
    flags = int.from_bytes(data[_HEADER - 8 : _HEADER - 4], "little")
    return Filter(program, flags, bool(int.from_bytes(data[_HEADER - 4 : _HEADER], "little")))


def _write(directory: int, key: bytes, made: Filter) -> None:
    """Put an entry in its place, whole or not at all."""
    name = key.hex()
    temporary = f".{name}.{posix.getpid()}"
    try:
        entries = posix.listdir(directory)
        if len(entries) >= _ENTRIES:
            for entry in entries:
                _unlink(directory, entry)
        _unlink(directory, temporary)  # of a process that had our number and died here
        fd = posix.open(
            temporary,
            posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC,
            0o600,
            dir_fd=directory,
        )
    except OSError:
        return
    try:
        data = _encode(made, key)
        posix.fchmod(fd, 0o600)  # whatever the umask says
        if posix.write(fd, data) == len(data):
            posix.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            return
    except OSError:
        pass
    finally:
        posix.close(fd)
    _unlink(directory, temporary)


def _unlink(directory: int, name: str) -> None:
    try:
        posix.unlink(name, dir_fd=directory)
    except OSError:
        pass
