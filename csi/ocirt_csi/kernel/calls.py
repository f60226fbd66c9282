"""System calls that Python has no function for, and ioctls.

Each announces itself as the audit event "ocirt_csi.call" with its name before it is made: so a test can end the process at any
of them.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ocirt_csi.errors import Error

AUDIT = "ocirt_csi.call"
# The numbers are the same on every machine since Linux 5.1 (include/uapi/asm-generic/unistd.h).
OPEN_TREE, MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT, FSPICK, MOUNT_SETATTR = 428, 429, 430, 431, 432, 433, 442
PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"  # where programs are looked for
_SAID = 300  # characters of what a program said
_libc = ctypes.CDLL(None, use_errno=True)


def numbered(name: str, number: int, *args: Any) -> int:
    """The system call of that number. Raises OSError with `name` in the place of a path."""
    sys.audit(AUDIT, name)
    return _checked(name, _libc.syscall(ctypes.c_long(number), *(_c(one) for one in args)))


def umount(path: str, flags: int) -> None:
    """umount2(2). Raises OSError."""
    sys.audit(AUDIT, "umount2")
    _checked(path, _libc.umount2(os.fsencode(path), flags))


def ioctl(fd: int, name: str, number: int, argument: bytes | int = 0) -> bytes:
    """ioctl(2) with a structure, which is returned as the kernel left it, or with a number. Raises OSError with its name."""
    sys.audit(AUDIT, name)
    try:
        if isinstance(argument, int):
            fcntl.ioctl(fd, number, argument)
            return b""
        buffer = bytearray(argument)
        fcntl.ioctl(fd, number, buffer)
        return bytes(buffer)
    except OSError as err:
        raise OSError(err.errno, os.strerror(err.errno or 0), name) from None


def allocate(fd: int, start: int, length: int) -> None:
    """Give a part of a file blocks of its own (fallocate(2)). Raises OSError."""
    sys.audit(AUDIT, "fallocate")
    # Not posix_fallocate, which writes zeros where a file system cannot do it.
    _checked("fallocate", _libc.fallocate64(fd, 0, ctypes.c_longlong(start), ctypes.c_longlong(length)))


def is_installed(program: str) -> bool:
    """Whether the system has a program."""
    return shutil.which(program, path=PATH) is not None


def run(words: Sequence[str], *, most: int = 0, keep: int = -1) -> str:
    """What a program of the system's prints, with nothing of our environment. Raises Error if it ends with more than `most`.

    keep: a descriptor that it gets.
    """
    found = shutil.which(words[0], path=PATH)
    if found is None:
        raise Error("unsupported", f"{words[0]} is not installed")
    done = subprocess.run(
        words,
        executable=found,
        env={"PATH": PATH, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        pass_fds=() if keep < 0 else (keep,),
    )
    if done.returncode > most or done.returncode < 0:
        said = (done.stderr.strip() or done.stdout.strip())[-_SAID:]
        raise Error("kernel", f"{words[0]} failed", cause=said or f"exit code {done.returncode}")
    return done.stdout


@contextmanager
def opened(path: str, flags: int) -> Iterator[int]:
    """A descriptor of a path. Raises OSError."""
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _c(value: Any) -> Any:
    if isinstance(value, str):
        return ctypes.c_char_p(os.fsencode(value))
    if isinstance(value, int):
        return ctypes.c_long(value)
    return value


def _checked(subject: str, answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)
    return answer
