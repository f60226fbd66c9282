"""Locks. A state's: one driver has it for good, or one command at a time for a moment. A pool's: one state at a time has it."""

from __future__ import annotations

import fcntl
import os
import struct
import time

from ocirt_csi.errors import Error

_NAME = "lock"
_COMMAND = "command"
_PATIENCE = 60.0  # seconds that a command gets
_MOMENT = 5.0  # seconds that a command with another state gets, and what a driver that was killed had started
_PAUSE = 0.05
_ALL = struct.Struct("hhqqi4x")  # struct flock: the whole file


def take(state: str, *, serves: bool) -> int:
    """A descriptor that holds the lock; what a command has is waited for. Raises Error("in-use") naming a driver, OSError."""
    fd = os.open(os.path.join(state, _NAME), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _ALL.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
            break
        except BlockingIOError:
            owner = os.pread(fd, 64, 0).decode(errors="replace").split()
            if (len(owner) == 2 and owner[1] != _COMMAND) or time.monotonic() > deadline:
                os.close(fd)
                text = f"another ocirt-csi has this state (pid {owner[0] if owner else 'unknown'})"
                raise Error("in-use", text, subject=state) from None
            time.sleep(_PAUSE)
    os.truncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()} {'driver' if serves else _COMMAND}\n".encode(), 0)
    return fd


def take_pool(root: str, *, patient: bool = True) -> int:
    """A descriptor that keeps drivers with another state from a pool. patient: waits a moment. Raises Error("in-use"), OSError.

    It is of the folder itself, so that nothing has to be made in it, and goes along where the pool is mounted elsewhere.
    """
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline = time.monotonic() + (_MOMENT if patient else 0)
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                hint = "a pool belongs to one state: stop that one, or give this one another folder"
                raise Error("in-use", "another ocirt-csi with another state has this pool", subject=root, hint=hint) from None
            time.sleep(_PAUSE)
        except BaseException:
            os.close(fd)
            raise


def driver_runs(state: str) -> bool:
    """Whether a driver has the lock. It is only asked for, so that nobody is kept from it."""
    try:
        fd = os.open(os.path.join(state, _NAME), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _ALL.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        return _ALL.unpack(answer)[0] != fcntl.F_UNLCK and os.pread(fd, 64, 0).strip().endswith(b"driver")
    finally:
        os.close(fd)
