"""Room that is kept for when there is none: on a full disk nothing could be removed, as that is written down as well.

    ROOT/reserve/0 ...      files of nothing, also in the store of images, which may lie on another file system

What removes things is tried once more with the reserve given up. It is made again as soon as there is room.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from ocirt_api import status
from ocirt_cri.errors import status_of

T = TypeVar("T")
FOLDER = "reserve"
_FILES = 8  # as many inodes
_SIZE = 128 << 10  # bytes of each
_log = logging.getLogger(__name__)


class Reserve:
    """The reserve below some directories."""

    def __init__(self, directories: Iterable[str] = ()) -> None:
        self._folders = [os.path.join(one, FOLDER) for one in dict.fromkeys(directories)]

    def make(self) -> None:
        """Have it, as far as there is room."""
        for folder in self._folders:
            try:
                os.makedirs(folder, 0o700, exist_ok=True)
                for number in range(_FILES):
                    _fill(os.path.join(folder, str(number)))
            except OSError as err:
                _log.warning("there is no reserve for a disk that is full: %s", err)

    def give_up(self) -> None:
        """Let others have the room. Raises OSError."""
        for folder in self._folders:
            for number in range(_FILES):
                try:
                    os.unlink(os.path.join(folder, str(number)))
                except FileNotFoundError:
                    pass

    async def spend(self, removal: Callable[[], Awaitable[T]]) -> T:
        """Do what frees room; where there is none to do so, once more without the reserve. Raises what `removal` raises."""
        try:
            return await removal()
        except Exception as err:
            if not self._folders or status_of(err) != status.RESOURCE_EXHAUSTED:
                raise
            _log.warning("the reserve is used, as the disk is full: %s", err)
        await asyncio.to_thread(self.give_up)
        try:
            return await removal()
        finally:
            await asyncio.to_thread(self.make)


def _fill(path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if os.fstat(fd).st_blocks * 512 < _SIZE:
            os.posix_fallocate(fd, 0, _SIZE)
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(fd)
