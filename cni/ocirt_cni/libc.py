"""The call of the C library that Python 3.11 does not have."""

from __future__ import annotations

import posix
import sys

CLONE_NEWNET = 0x40000000  # linux/sched.h

if sys.version_info < (3, 12):
    from _ctypes import FUNCFLAG_CDECL, FUNCFLAG_USE_ERRNO, CFuncPtr, _SimpleCData, dlopen, dlsym, get_errno

    class _Int(_SimpleCData):  # type: ignore[type-arg]
        _type_ = "i"

    class _Function(CFuncPtr):
        """A function as ctypes.CDLL makes it. To load ctypes costs an executable 3 ms, and this half of one."""

        _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
        _restype_ = _Int

    _setns = _Function(dlsym(dlopen(None, 0), "setns"))  # type: ignore[arg-type]


def setns(fd: int) -> None:
    """Move this thread into a network namespace: setns(2). Raises OSError."""
    if sys.version_info >= (3, 12):
        posix.setns(fd, CLONE_NEWNET)
    elif _setns(fd, CLONE_NEWNET) < 0:
        number = get_errno()
        raise OSError(number, posix.strerror(number))
