"""The command line of `ocirt-cni`: global flags, then the verb's module.

The exit status is 0, or 1 for a failure, as with cnitool; 3 for an unknown verb, as with ocirt. A failure is one line on the
standard error.
"""

from __future__ import annotations

import os

from ocirt_cni.cli import options
from ocirt_cni.errors import INVALID_ENVIRONMENT, Error

_UNKNOWN_VERB = 3
_INTERRUPTED = 130


def main(args: list[str]) -> int:
    """Run a verb; the exit status."""
    try:
        return _run(args)
    except Error as err:
        return _fail(str(err))
    except BrokenPipeError:
        return 1  # whoever reads has seen enough
    except OSError as err:
        return _fail(f"{err.filename}: {err.strerror}" if err.filename else str(err.strerror))
    except KeyboardInterrupt:
        return _INTERRUPTED


def _run(args: list[str]) -> int:
    verb = next((arg for arg in _without_values(args) if not arg.startswith("-")), "")
    if verb == "help":
        args = [arg for arg in args if arg != "help"]
        verb = next((arg for arg in args if not arg.startswith("-")), "")
        args = ["--help", *args]
    if verb and verb not in options.VERBS:
        return _unknown(verb)
    if verb in options.RAW:
        return _call(options.Options(verb, args[args.index(verb) + 1 :], {}))
    flags = options.VERBS[verb][4] if verb else ""
    values, rest = options.parse(f"{options.GLOBAL} {flags}", args)
    if values.get("version"):
        from ocirt_cni.cli import help as texts  # noqa: PLC0415

        return texts.version()
    if values.get("help") or not verb:
        from ocirt_cni.cli import help as texts  # noqa: PLC0415

        return texts.show(verb)
    rest.remove(verb)
    _, arguments, fewest, most, _, _ = options.VERBS[verb]
    if len(rest) < fewest or len(rest) > most >= 0:
        raise Error(INVALID_ENVIRONMENT, f"{verb} takes {arguments or 'no arguments'}", hint=f"see ocirt-cni {verb} --help")
    return _call(options.Options(verb, rest, values))


def _call(given: options.Options) -> int:
    """Have the verb's module do it."""
    status: int = __import__("ocirt_cni.cli." + _module(given.verb), None, None, ("run",)).run(given)
    return status


def _module(verb: str) -> str:
    """The name of a verb's module: `del` cannot be one."""
    return "delete" if verb == "del" else verb.replace("-", "_")


def _without_values(args: list[str]) -> list[str]:
    """The arguments up to `--`, without the values of global flags, which may stand before the verb."""
    known = options.words(options.GLOBAL)
    found, skip = [], False
    for arg in args:
        if arg == "--":
            break
        if not skip:
            found.append(arg)
        name = arg.lstrip("-")
        skip = not skip and arg.startswith("-") and name in known and known[name][1] != ""
    return found


def _unknown(verb: str) -> int:
    from ocirt_cni.cli.nearest import nearest  # noqa: PLC0415  (of no use without a mistake)

    found = nearest(verb, options.VERBS)
    _fail(f"there is no verb {verb!r} ({f'did you mean {found}?' if found else 'see ocirt-cni --help'})")
    return _UNKNOWN_VERB


def _fail(message: str) -> int:
    line = message.replace("\n", " | ")
    os.write(2, f"ocirt-cni: {line}\n".encode(errors="backslashreplace"))
    return 1
