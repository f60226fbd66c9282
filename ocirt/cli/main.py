"""The way into the command: global flags, then the verb's module, then `_exit`.

The exit status is runc's: 0, or 1 for a failure (255 if `exec` fails, 3 for an unknown verb), or what the container's process
ended with. The interpreter's shutdown is left out (1 ms): what is to be written has been written by then.
"""

from __future__ import annotations

import posix

from ocirt.cli import options as flags
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# runc has them, ocirt does not yet.
_NOT_YET = ("checkpoint", "events", "restore", "update")


def main(name: str, args: list[str]) -> NoReturn:
    """Run the command that was called `name` with `args`, and exit."""
    import _signal  # type: ignore[import-not-found]  # noqa: PLC0415  (typeshed has none; `signal` loads enum)

    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # no KeyboardInterrupt, here or in a child
    posix._exit(command(flags.Options(name), args))


def command(options: flags.Options, args: list[str]) -> int:
    """Run one command line and return the exit status, with every failure reported."""
    try:
        values, rest = flags.parse(flags.GLOBAL, args, reorder=False)
    except Error as err:
        _help("", options, f"Incorrect Usage. {err}\n\n")
        return _fail(options, str(err), 1)
    if values.get("help") or (not rest and not values.get("version")):
        return _help("", options)
    if values.get("version"):
        from ocirt.cli import version  # noqa: PLC0415

        return version.run(options)
    verb = options.verb = rest[0]
    try:
        options.set_globals(values)
        if options.log:
            _open_log(options)
    except Error as err:
        return _fail(options, str(err), 1)
    try:
        fewest, most, line = flags.VERBS[verb]
    except KeyError:
        return _other(options, rest)
    try:
        values, rest = flags.parse(line, rest[1:], reorder=flags.reorders(verb))
    except Error as err:
        _help(verb, options, f"Incorrect Usage: {err}\n\n")
        return _fail(options, str(err), 1)
    if values.get("help"):
        return _help(verb, options)
    if len(rest) < fewest or len(rest) > most >= 0:
        _help(verb, options, "Incorrect Usage.\n\n")
        word = "exactly" if fewest == most else "a minimum of" if len(rest) < fewest else "a maximum of"
        number = fewest if len(rest) < fewest else most
        return _fail(options, f'{options.name}: "{verb}" requires {word} {number} argument(s)', 1)
    options.set_flags(line, values)
    try:
        status: int = __import__("ocirt.cli." + verb, None, None, ("run",)).run(options, rest)
    except Exception as err:  # noqa: BLE001  (whatever it is, one line goes out)
        return _failed(options, err)
    return status


def _failed(options: flags.Options, err: Exception) -> int:
    """Report what a verb raised, in runc's words for that verb."""
    if isinstance(err, Error):
        text = str(err)
    elif isinstance(err, OSError):
        from ocirt.cli import log  # noqa: PLC0415

        text = log.describe(err)
    else:
        trace = err.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
        text = f"internal error: {type(err).__name__}: {err}{where} (this is a bug in ocirt)"
    if options.verb in ("create", "run"):
        text = f"{options.name} {options.verb} failed: {text}"
    elif options.verb == "exec":
        return _fail(options, f"exec failed: {text}", 255)
    return _fail(options, text, 1)


def _fail(options: flags.Options, text: str, status: int) -> int:
    from ocirt.cli import log  # noqa: PLC0415

    log.error(options, text)
    return status


def _open_log(options: flags.Options) -> None:
    """Make the log file now, as runc does: a bad --log fails before anything is done, and a reader finds a file.

    It is closed again, so that its descriptor is never one of those that --preserve-fds counts.
    """
    from ocirt.cli import log  # noqa: PLC0415

    path = options.log
    try:
        posix.close(log.open_file(path))
    except OSError as err:
        options.log = ""
        raise Error("usage", f"open {log.describe(err)}") from None


def _other(options: flags.Options, rest: list[str]) -> int:
    """What is said to be a verb and has no module: help, what is not there yet, and mistakes."""
    verb = rest[0]
    if verb in ("help", "h"):
        if len(rest) == 1:
            return _help("", options)
        if rest[1] in flags.VERBS:
            return _help(rest[1], options)
        verb = rest[1]
    if verb in _NOT_YET:
        return _fail(options, f"{verb}: not supported yet", 1)
    return _fail(options, f"No help topic for '{verb}'", 3)


def _help(verb: str, options: flags.Options, head: str = "") -> int:
    from ocirt.cli import help as texts  # noqa: PLC0415
    from ocirt.cli import out  # noqa: PLC0415

    out(head + texts.text(verb, options.name))
    return 0
