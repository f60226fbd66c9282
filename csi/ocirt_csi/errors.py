"""The one exception that callers of this package see, in the shape that the house gives its errors.

What failed (`message`), where (`subject`: a field of a request, a volume, a path), why (`cause`), what to do about it (`hint`).
`code` is a word of `CODES`, which `ocirt_api.status` turns into a status of gRPC.
"""

from __future__ import annotations

from ocirt_api import status

CODES = frozenset(
    (
        "usage",  # the command line or the configuration cannot be read
        "invalid",  # a field of a request
        "unsupported",  # not to be had: by this back end, kernel or machine
        "not-found",
        "exists",  # and is another
        "exhausted",  # the pool, or something that the kernel has a number of
        "in-use",
        "state",
        "corrupt",  # what is on disk is not what was put there
        "unavailable",  # a pool is away
        "kernel",  # a system call failed
        "internal",  # a bug in ocirt-csi
    ),
)


class Error(Exception):
    """An error for a person: one line, then perhaps a hint."""

    def __init__(self, code: str, message: str, *, subject: str = "", cause: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.subject = subject
        self.cause = cause
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.subject}: {self.message}" if self.subject else self.message
        if self.cause:
            text += f": {self.cause}"
        return f"{text} ({self.hint})" if self.hint else text


class BusyError(Error):
    """Another call is at work on the same thing, or a list's token means nothing: ABORTED (CSI, "Error Scheme")."""

    status = status.ABORTED

    def __init__(self, message: str, *, subject: str = "", hint: str = "") -> None:
        super().__init__("unavailable", message, subject=subject, hint=hint)


class RangeError(Error):
    """A size or an offset that cannot be had: OUT_OF_RANGE."""

    status = status.OUT_OF_RANGE

    def __init__(self, message: str, *, subject: str = "", hint: str = "") -> None:
        super().__init__("invalid", message, subject=subject, hint=hint)


def status_of(err: Exception) -> int:
    """What a caller of gRPC is told: INTERNAL for what is neither an Error nor the system's."""
    own = getattr(err, "status", None)
    if isinstance(own, int):
        return own
    if isinstance(err, Error):
        return status.of(err.code)
    return status.UNKNOWN if isinstance(err, OSError) else status.INTERNAL
