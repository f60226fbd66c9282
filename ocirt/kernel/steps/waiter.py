"""Handing a created container over to a small program that waits for `start` (launcher/waiter.c).

What the tail of a start has queued is written into a file in memory: the calls, and the buffers that they point to, at the
addresses where the program will map it. Then that program takes init's place. Where it cannot be executed, init waits as it is.
"""

from __future__ import annotations

import posix
from _struct import pack

from ocirt.kernel import constants as k
from ocirt.kernel import process
from ocirt.kernel.ffi import NR, syscall
from ocirt.kernel.run import Run
from ocirt.kernel.steps import barrier, program
from ocirt.paths import read_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BASE = 0x20000000  # waiter.c: BASE
_HEAD = 48  # struct program without its calls
_CALL = 64  # struct queued
_MFD_CLOEXEC = 1
_MFD_ALLOW_SEALING = 2
_MFD_EXEC = 16
_F_ADD_SEALS = 1033
_ALL_SEALS = 15
_EINVAL = 22


def load(run: Run, path: str) -> None:
    """Have the program in a sealed file that no container can write to, where one may be executed."""
    try:
        run.fds["waiter"] = sealed(path, "ocirt-init")
    except PermissionError:
        pass


def sealed(path: str, name: str, mode: int = 0) -> int:
    """A copy of a program in memory that can be executed and not be changed; with `mode`, if any. Raises OSError."""
    flags = _MFD_CLOEXEC | _MFD_ALLOW_SEALING
    try:
        fd = posix.memfd_create(name, flags | _MFD_EXEC)
    except OSError as err:
        if err.errno != _EINVAL:
            raise
        fd = posix.memfd_create(name, flags)  # before Linux 6.3
    posix.write(fd, read_bytes(path))
    if mode:
        posix.fchmod(fd, mode)
    syscall("fcntl", fd, _F_ADD_SEALS, _ALL_SEALS)
    return fd


def hand_over(run: Run, fds: int, capabilities: tuple[int, int, int]) -> None:
    """Write down the calls, and execute the waiter; `capabilities` are set again, as an execve(2) of root's resets them."""
    fd = run.fds.get("waiter", -1)
    if fd >= 0:
        program.queue_execve(run)
        handed = [run.start_fd, run.fds["barrier/started"], run.phase_fd]
        if run.offering:
            handed += [run.fds["listener"], run.fds["listener/page"]]
        calls = [
            (run.at, "prctl", (k.PR_SET_DUMPABLE, 0)),
            (run.at, "prctl", (k.PR_SET_NAME, b"ocirt-init")),
            (run.at, "capset", process.capability_buffers(*capabilities)),
            (run.at, "read", (run.start_fd, bytes(8), 1)),
            *run.offering,
            (run.at, "pwrite64", (run.phase_fd, b"\1\0\0\0", 4, 0)),
            (run.at, "close_range", (3 + fds, 0xFFFFFFFF, k.CLOSE_RANGE_CLOEXEC)),
            *run.tail,
        ]
        run.tail.pop()
        data = posix.memfd_create("ocirt-calls", _MFD_CLOEXEC)
        posix.write(data, image(calls, *handed[1:]))
        arguments = [b"ocirt-init", b"%d" % data]
        for each in (data, *handed):
            posix.set_inheritable(each, True)
        process.reset_signals()
        try:
            syscall("execveat", fd, b"", process.pointer_array(arguments), process.pointer_array([]), k.AT_EMPTY_PATH)
        except OSError:
            for each in (data, *handed):
                posix.set_inheritable(each, False)
    barrier.wait(run)
    program.execve(run)


def image(calls: list[tuple[int, str, tuple[Any, ...]]], report: int, phase: int, listener: int = -1, page: int = -1) -> bytes:
    """struct program of waiter.c and, behind its calls, what they point to."""
    blob = bytearray()
    start = _BASE + _HEAD + _CALL * len(calls)

    def place(data: bytes) -> int:
        """The address at which `data`, and a NUL behind it, will be."""
        blob.extend(bytes(-len(blob) % 16))
        address = start + len(blob)
        blob.extend(data + b"\0")
        return address

    out = bytearray()
    for index, call, words in calls:
        placed = []
        for word in words:
            if isinstance(word, list):
                placed.append(place(pack(f"{len(word) + 1}Q", *map(place, word), 0)))
            elif isinstance(word, program.SockFilter):
                placed.append(place(pack("H6xQ", len(word) // 8, place(word))))
            else:
                placed.append(place(word) if isinstance(word, bytes) else word)
        out += pack("8q", NR[call], *placed, *[0] * (6 - len(placed)), index)
    return pack("6q", _HEAD + len(out) + len(blob), len(calls), report, phase, listener, page) + out + blob
