"""The one exception that callers of this package see.

It has the shape of the runtime's own: what failed (`message`), where (`subject`: a reference, a digest, a path, a layer), why
(`cause`) and what to do about it (`hint`). `code` is one of the words in `CODES`; the command line turns it into an exit status,
the daemon into a gRPC status.
"""

from __future__ import annotations

CODES = frozenset(
    (
        "usage",  # the command line cannot be read
        "invalid",  # a reference, manifest, layer or file does not say something that can be used
        "unsupported",  # valid, but not to be had: by this version, kernel or host
        "not-found",  # no such image, tag, blob
        "exists",  # the name is taken
        "unauthorized",  # the registry wants other credentials, or refuses these
        "untrusted",  # policy.json or a signature forbids it
        "corrupt",  # content is not what its digest or size says
        "unavailable",  # the registry or the network fails; it may be tried again
        "in-use",  # something still needs it
        "cancelled",  # the caller gave up
        "exhausted",  # no space, no descriptors, or a limit of ours
        "kernel",  # a system call failed
        "internal",  # a bug in ocirt
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

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross the pipe from a worker process."""
        return (_rebuild, (self.code, self.message, self.subject, self.cause, self.hint))


def _rebuild(code: str, message: str, subject: str, cause: str, hint: str) -> Error:
    return Error(code, message, subject=subject, cause=cause, hint=hint)
