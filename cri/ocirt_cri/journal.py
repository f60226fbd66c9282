"""The journal of what ocirtd must not forget: waiting for the disk. Imports nothing that the network helper has no need of."""

from __future__ import annotations

import os


def sync(path: str) -> None:
    """Wait until everything in a journal is on disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)
