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


def main(name: str, args: list[str]) -> NoReturn:
    """Run the command that was called `name` with `args`, and exit."""
    import _signal  # type: ignore[import-not-found]  # noqa: PLC0415  (typeshed has none; `signal` loads enum)
    import gc  # noqa: PLC0415

    gc.disable()  # nothing lives long here, and a walk through all objects copies every page of a child
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # no KeyboardInterrupt, here or in a child
    if _signal.getsignal(_signal.SIGCHLD) == _signal.SIG_IGN:
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # a child's end could not be waited for (wait(2), "NOTES")
    posix._exit(command(flags.Options(name), args))


def command(options: flags.Options, args: list[str]) -> int:
    """Run one command line and return the exit status, with every failure reported."""
    try:
        return _command(options, args)
    except Exception as err:  # noqa: BLE001  (whatever it is, one line goes out)
        from ocirt.cli import log  # noqa: PLC0415

        return log.failure(options, err)


def _command(options: flags.Options, args: list[str]) -> int:
    try:
        values, rest = flags.parse(flags.GLOBAL, args, reorder=False)
    except Error as err:
        return _usage(options, f"Incorrect Usage. {err}", str(err))
    if values.get("version"):
        from ocirt.cli import version  # noqa: PLC0415

        return version.run(options)
    if values.get("help") or not rest:
        return _help(options)
    options.set_globals(values)
    if options.log:
        from ocirt.cli import log  # noqa: PLC0415

        log.begin(options)
    verb = rest[0]
    module = "ocirt.cli." + verb
    reorder = flags.reorders(verb)
    if verb in flags.VERBS:
        fewest, most, line = flags.VERBS[verb]
        if verb == "run" and flags.has_image(rest):
            fewest, most, line = flags.RUN_IMAGE
            reorder = False
    else:
        from ocirt.cli import elsewhere  # noqa: PLC0415

        if verb not in elsewhere.VERBS:
            from ocirt.cli import help as texts  # noqa: PLC0415

            return texts.other(options, rest)
        fewest, most, line = elsewhere.tables(elsewhere.VERBS[verb][0]).VERBS[verb]
        module = "ocirt.cli.elsewhere"
    try:
        values, rest = flags.parse(line, rest[1:], reorder=reorder)
    except Error as err:
        return _usage(options, f"Incorrect Usage: {err}", str(err), verb)
    if values.get("help"):
        return _help(options, verb)
    if len(rest) < fewest or len(rest) > most >= 0:
        word = "exactly" if fewest == most else "a minimum of" if len(rest) < fewest else "a maximum of"
        number = fewest if len(rest) < fewest else most
        return _usage(options, "Incorrect Usage.", f'{options.name}: "{verb}" requires {word} {number} argument(s)', verb)
    options.set_verb(verb, line, values)
    _preload(verb)
    status: int = __import__(module, None, None, ("run",)).run(options, rest)
    return status


def _preload(verb: str) -> None:
    """Have the modules of a verb loaded at once, where an archive of byte code can do that (launcher/loader.py)."""
    import sys  # noqa: PLC0415

    preload = getattr(sys.meta_path[0], "preload", None) if sys.meta_path else None
    if preload is not None:
        preload(verb)


def _help(options: flags.Options, verb: str = "") -> int:
    from ocirt.cli import help as texts  # noqa: PLC0415

    return texts.show(verb, options.name)


def _usage(options: flags.Options, head: str, message: str, verb: str = "") -> int:
    """The verb's help after `head`, and the failure."""
    from ocirt.cli import help as texts  # noqa: PLC0415
    from ocirt.cli import log  # noqa: PLC0415

    texts.show(verb, options.name, head + "\n\n")
    log.error(options, message)
    return 1
