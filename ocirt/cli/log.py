"""How a failure goes out: one line as logrus, runc's logger, writes it, so that whoever parses runc's log can parse ours.

Without --log the line goes to standard error. With --log FILE it goes to FILE, and the bare message to standard error: callers
read either. At the default level nothing else is ever written.
"""

from __future__ import annotations

import posix
import time

from ocirt.cli import out
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options

# What logrus' text formatter leaves without quotes, beside letters and digits.
_BARE = frozenset("-._/@^+")
_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", '"': '\\"', "\\": "\\\\"}


def quoted(text: str) -> str:
    """`text` as Go's %q writes it."""
    parts = []
    for char in text:
        code = ord(char)
        if char in _ESCAPES:
            parts.append(_ESCAPES[char])
        elif 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8
            parts.append(f"\\x{code - 0xDC00:02x}")
        elif char.isprintable():
            parts.append(char)
        elif code < 0x80:
            parts.append(f"\\x{code:02x}")
        else:
            parts.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return '"' + "".join(parts) + '"'


def line(log_format: str, level: str, message: str, now: float) -> str:
    """One log line with its newline; `now` in seconds since the epoch."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    if log_format == "json":
        from ocirt.jsonlite import dumps  # noqa: PLC0415

        return dumps({"level": level, "msg": message, "time": stamp}) + "\n"
    bare = message and all(char in _BARE or (char.isascii() and char.isalnum()) for char in message)
    return f'time="{stamp}" level={level} msg={message if bare else quoted(message)}\n'


def write(options: Options, level: str, message: str) -> None:
    """Write a line to the log file, or to standard error. A log that cannot be written loses the line, not the message."""
    text = line(options.log_format, level, message, time.time())
    if not options.log:
        _to_stderr(text)
        return
    try:
        fd = open_file(options.log)
        try:
            out(text, fd)
        finally:
            posix.close(fd)
    except OSError:
        if level != "error":  # an error is written to standard error as well
            _to_stderr(text)


def _to_stderr(text: str) -> None:
    try:
        out(text, 2)
    except OSError:
        pass  # nobody is listening


def error(options: Options, message: str) -> None:
    """Report the failure that ends the command."""
    write(options, "error", message)
    if options.log:
        _to_stderr(message + "\n")


def failure(options: Options, err: Exception) -> int:
    """Report what a verb raised, in runc's words for that verb, and return the exit status: 1, or 255 for exec."""
    text = words(err)
    if options.verb in ("create", "run"):
        text = f"{options.name} {options.verb} failed: {text}"
    elif options.verb == "exec":
        error(options, f"exec failed: {text}")
        return 255
    error(options, text)
    return 1


def words(err: Exception) -> str:
    """What a verb raised: a failure as `describe` has it; what nobody expected with the place where it happened."""
    if isinstance(err, (Error, OSError)):
        return describe(err)
    trace = err.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
    return f"internal error: {describe(err)}{where} (this is a bug in ocirt)"


def begin(options: Options) -> None:
    """Make the log file, as runc does: a bad --log fails before anything is done, and a reader finds a file.

    It is closed again, so that its descriptor is never one of those that --preserve-fds counts. Raises Error("usage").
    """
    try:
        posix.close(open_file(options.log))
    except OSError as err:
        options.log = ""
        raise Error("usage", f"open {describe(err)}") from None


def debug(options: Options, message: str) -> None:
    """Write a line if --debug was given."""
    if options.debug:
        write(options, "debug", message)


def open_file(path: str) -> int:
    """A descriptor that appends to the log file, which is made (0644) where it is missing. Raises OSError."""
    return posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_SYNC | posix.O_CLOEXEC, 0o644)


def describe(err: BaseException) -> str:
    """An exception in the words in which Go programs report it: `open /x: no such file or directory`.

    The kernel's error texts begin with a small letter, as callers search for them.
    """
    if isinstance(err, Error):
        return str(err)
    if not isinstance(err, OSError) or err.errno is None:
        return f"{type(err).__name__}: {err}"
    text = posix.strerror(err.errno)
    text = text[:1].lower() + text[1:]
    call = getattr(err, "call", "")
    where = err.filename
    if isinstance(where, bytes):
        where = where.decode("utf-8", "surrogateescape")
    head = " ".join(str(part) for part in (call, where) if part not in ("", None))
    return f"{head}: {text}" if head else text
