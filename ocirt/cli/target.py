"""Which bundle and which container ID the arguments of `create`, `run`, `plan` and `check` mean."""

from __future__ import annotations

import posix

from ocirt import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options


def is_bundle(argument: str) -> bool:
    """Whether a positional argument is a directory instead of an ID: no ID has a slash, or is `.` or `..`."""
    return "/" in argument or argument in (".", "..")


def target(options: Options, args: list[str]) -> tuple[str, str]:
    """The bundle's absolute path and the container's ID.

    `run -b B ID` is runc's form; in `run B/` the argument is the bundle and the ID is made from its name and a random number. The
    ID is not validated here, and the bundle need not exist. `plan` and `check` need no argument: it is a bundle, if given.
    """
    no_id = options.verb in ("plan", "check")
    bundle: str = options.get("bundle")
    argument = args[0] if args else ""
    if not bundle and argument and (is_bundle(argument) or no_id):
        bundle = paths.absolute(argument)
        return bundle, made_up_id(bundle)
    return paths.absolute(bundle or "."), argument or (options.verb if no_id else "")


def made_up_id(bundle: str) -> str:
    """A new container ID that tells where it comes from: `alpine-1f0c22ab`."""
    name = "".join(char if char.isascii() and (char.isalnum() or char in "_.-") else "-" for char in paths.name(bundle))
    return f"{name[:40].strip('-.') or 'container'}-{posix.urandom(4).hex()}"
