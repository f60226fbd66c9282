"""A file system whose server does not answer: `python -m tests.support.hungfs DIRECTORY` mounts it, and writes a line.

It has one file, `program`. That it is there is said; an open of it waits until this process is killed, in a sleep that no signal
ends (state D). (linux/fuse.h, version 7.31; fs/fuse/dev.c: what the server has read is waited for.)
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

from tests.support.build import ROOT
from tests.support.isolation import mount, umount

LOOKUP, FORGET, GETATTR, OPEN, INIT, INTERRUPT, BATCH_FORGET = 1, 2, 3, 14, 26, 36, 42
_HEAD = struct.Struct("<IIQQIIII")  # length, opcode, unique, node, uid, gid, pid
_ATTRIBUTES = struct.Struct("<6Q10I")
_INIT = struct.Struct("<IIIIHHIIHHI28x")
_ENOSYS = 38
_ROOT, _FILE = 1, 2
_HOUR = 3600


def _attributes(node: int) -> bytes:
    mode, size = (0o40755, 0) if node == _ROOT else (0o100755, 4096)
    return _ATTRIBUTES.pack(node, size, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def _answer(opcode: int, node: int) -> bytes | None:
    """What is said; None if there is no such operation."""
    if opcode == INIT:
        return _INIT.pack(7, 31, 0, 0, 0, 0, 4096, 1, 1, 0, 0)
    if opcode == LOOKUP:
        return struct.pack("<QQQQII", _FILE, 0, _HOUR, _HOUR, 0, 0) + _attributes(_FILE)
    if opcode == GETATTR:
        return struct.pack("<QII", _HOUR, 0, 0) + _attributes(node)
    return None


def serve(directory: str) -> None:
    """Mount it, and answer for ever."""
    fd = os.open("/dev/fuse", os.O_RDWR)
    mount("hung", directory, "fuse", 0, f"fd={fd},rootmode=40755,user_id=0,group_id=0,allow_other")
    print("mounted", flush=True)
    while True:
        data = os.read(fd, 1 << 17)
        _, opcode, unique, node, *_ = _HEAD.unpack_from(data)
        if opcode in (FORGET, BATCH_FORGET, INTERRUPT, OPEN):
            continue
        said = _answer(opcode, node)
        error = -_ENOSYS if said is None else 0
        said = said or b""
        os.write(fd, struct.pack("<IiQ", 16 + len(said), error, unique) + said)


class HungFileSystem:
    """One that is mounted; `free` lets all who wait for it go."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        command = [sys.executable, "-m", "tests.support.hungfs", str(directory)]
        self._server = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"mounted\n"

    def free(self) -> None:
        """End the server. Nothing if it has ended."""
        self._server.kill()
        self._server.wait()

    def close(self) -> None:
        """Take it away."""
        self.free()
        assert self._server.stdout is not None
        self._server.stdout.close()
        umount(str(self.directory))


if __name__ == "__main__":
    serve(sys.argv[1])
