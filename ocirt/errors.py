"""The one exception that callers of ocirt see.

An `Error` says what failed (`message`), where (`subject`: a container, a JSON pointer, a path), why (`cause`) and what to do
about it (`hint`). `code` is one of the words in `CODES`; the command line turns it into an exit status, the daemon into a gRPC
status.
"""

from __future__ import annotations

CODES = frozenset(
    (
        "usage",  # the command line cannot be read
        "invalid",  # config.json, process.json or resources do not say something that can be done
        "unsupported",  # valid, but not to be had: by this version, kernel or host
        "not-found",  # no such container
        "exists",  # a container of that name exists
        "state",  # the container is in the wrong state for this operation
        "kernel",  # a system call failed
        "internal",  # a bug in ocirt
    ),
)


class Error(Exception):
    """An error for a person: one line, then perhaps a hint."""

    __slots__ = ("cause", "code", "hint", "message", "subject")

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
