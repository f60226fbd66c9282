"""The one exception that callers of this package see: an error of CNI's, in the shape that the house gives its errors.

What failed (`message`), where (`subject`: a pointer into the configuration, a link, a path), why (`cause`), what to do about it
(`hint`). `code` is a number of CNI's (SPEC.md, "Error"), a plugin's own from 100 on.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3  # nothing has to be cleaned up
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
DECODING_FAILURE = 6
INVALID_CONFIG = 7
INVALID_NETNS = 8  # libcni's
TRY_AGAIN_LATER = 11
NOT_AVAILABLE = 50  # STATUS: no ADD can be served
LIMITED_CONNECTIVITY = 51  # STATUS: nor are the attachments that exist whole
INTERNAL = 999  # libcni's
KERNEL = 100  # a request to the kernel failed
EXHAUSTED = 101  # no address, port or number is free
TAKEN = 102  # an address, a port, a link belongs to somebody else
UNSUPPORTED = 103  # this kernel or machine does not have what the configuration asks for
CHECK_FAILED = 104  # CHECK: something is not as ADD made it


class Error(Exception):
    """An error for a person: one line, then perhaps a hint; `document` is what a plugin prints of it."""

    def __init__(self, code: int, message: str, *, subject: str = "", cause: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.subject = subject
        self.cause = cause
        self.hint = hint

    def __str__(self) -> str:
        return f"{self._line} ({self.hint})" if self.hint else self._line

    @property
    def _line(self) -> str:
        text = f"{self.subject}: {self.message}" if self.subject else self.message
        return f"{text}: {self.cause}" if self.cause else text

    def document(self, version: str) -> dict[str, Any]:
        """The object of SPEC.md, "Error", which goes to the standard output."""
        found: dict[str, Any] = {"cniVersion": version, "code": self.code, "msg": self._line}
        if self.hint:
            found["details"] = self.hint
        return found
