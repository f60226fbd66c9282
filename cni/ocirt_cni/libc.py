"""The calls of the C library that Python 3.11 does not have."""

from __future__ import annotations

import os
from ctypes import CDLL, get_errno

_libc = CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000  # linux/sched.h


def setns(fd: int) -> None:
    """Move this thread into a network namespace: setns(2). Raises OSError."""
    if _libc.setns(fd, CLONE_NEWNET) < 0:
        number = get_errno()
        raise OSError(number, os.strerror(number))
