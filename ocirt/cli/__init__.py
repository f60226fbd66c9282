"""The `ocirt` command: runc's verbs and flags, and some of our own.

Most of what a short verb (`state`, `kill`) costs is the interpreter's start, so nothing is loaded that the verb at hand does not
need: `main` reads the flags, `options` holds their tables, `log` and `help` are loaded by a failure or a question only.
"""

from __future__ import annotations

import posix


def out(text: str, fd: int = 1) -> None:
    """Write all of `text` to standard output (or `fd`).

    A reader that went away ends the process as SIGPIPE would have (status 141). Raises OSError.
    """
    data = text.encode("utf-8", "surrogateescape")
    while data:
        try:
            data = data[posix.write(fd, data) :]
        except BrokenPipeError:
            posix._exit(141)
        except BlockingIOError:  # the caller's descriptor is non-blocking
            import select  # noqa: PLC0415

            select.select((), (fd,), ())
