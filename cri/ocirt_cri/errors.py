"""Errors of the daemon's own, over those of the floors below."""

from __future__ import annotations

import errno

from ocirt.errors import Error
from ocirt_api import status

_USED_UP = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)  # what somebody may free


class DeadlineError(Error):
    """Something took longer than its caller allows: DEADLINE_EXCEEDED, which the table of codes has no word for."""

    status = status.DEADLINE_EXCEEDED

    def __init__(self, message: str, *, subject: str = "", hint: str = "") -> None:
        super().__init__("unavailable", message, subject=subject, hint=hint)


def status_of(err: Exception) -> int:
    """What a caller of gRPC is told: of an Error of any floor; INTERNAL for what is no such error, UNKNOWN for the system's."""
    own = getattr(err, "status", None)
    if isinstance(own, int):
        return own
    code = getattr(err, "code", None)
    if isinstance(code, str):
        return status.of(code)
    if isinstance(err, OSError):
        return status.RESOURCE_EXHAUSTED if err.errno in _USED_UP else status.UNKNOWN
    return status.INTERNAL
