"""Which boot of the machine this is: what an earlier one leased is nobody's."""

from __future__ import annotations

import time

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def identity() -> str:
    """A name of this boot that no other has (random(4)). "" where it cannot be read: then nothing is said about boots."""
    try:
        with open(_BOOT_ID, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def began() -> float:
    """When the machine booted, in seconds since 1970, by the clock as it is now."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
