"""Verbs of the command that another floor has: `pull` and its sisters are those of `ocirt_images`.

The runtime imports no other floor, and nothing here is loaded for one of its own verbs. A floor is found by its name when one of
its verbs is typed. It brings two modules: `ocirt_FLOOR.cli.tables`, with its verbs in the shape of `options.VERBS` and
`help.VERBS`, so that flags, help, completion and manual are the same for all; and `ocirt_FLOOR.cli.main`.
"""

from __future__ import annotations

import sys

import ocirt
from ocirt import paths
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cli.options import Options

# verb: (floor, summary), for a list of all verbs that loads no floor
VERBS: dict[str, tuple[str, str]] = {
    "doctor": ("cri", "say what of this machine keeps pods from running"),
    "fsck": ("images", "look for damage in the store of images, and repair it"),
    "history": ("images", "show how an image came to be"),
    "images": ("images", "list images"),
    "inspect": ("images", "show all that is known of images, as JSON"),
    "load": ("images", "take images from an archive, a directory or containerd"),
    "login": ("images", "keep a name and a password for a registry"),
    "logout": ("images", "forget them"),
    "logs": ("cri", "show what a container of a pod has written"),
    "pods": ("cri", "list pods, with what they use"),
    "prune": ("images", "free what nothing needs any more"),
    "pull": ("images", "fetch images from a registry"),
    "push": ("images", "send an image to a registry"),
    "rmi": ("images", "remove images"),
    "save": ("images", "write images into an archive or a directory"),
    "tag": ("images", "give an image further names"),
}
# What a floor stands on, beside the runtime; in a clone each has a folder of its own.
_BELOW = {"cri": ("cni", "images", "shim", "api"), "csi": ("api",), "shim": ("api",)}
# command: (floor, what its `main` gets beside the arguments)
_COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {"ocirtd": ("cri", ()), "ocirt-csi": ("csi", (ocirt.__version__,))}
_INTERRUPTED = 130  # 128 + SIGINT, as a shell has it


def tables(floor: str) -> Any:
    """The module with a floor's verbs, flags and texts. Raises Error("unsupported") if the floor was not installed."""
    _reach(floor)
    try:
        return __import__(f"ocirt_{floor}.cli.tables", None, None, ("VERBS",))
    except ModuleNotFoundError as err:
        if err.name != f"ocirt_{floor}":
            raise
        hint = f"pip install 'ocirt[{floor}]', or a whole clone"
        raise Error("unsupported", f"the part of ocirt that deals with {floor} is not installed", hint=hint) from None


def flags() -> dict[str, tuple[int, int, str]]:
    """What `options.VERBS` says, of the verbs of the floors that are installed."""
    return {verb: line for one in _installed() for verb, line in one.VERBS.items()}


def texts() -> dict[str, tuple[str, str, str, dict[str, str]]]:
    """What `help.VERBS` says, of the verbs of the floors that are installed."""
    return {verb: (VERBS[verb][1], *text) for one in _installed() for verb, text in one.TEXTS.items()}


def kinds() -> tuple[dict[str, Any], dict[str, Any]]:
    """What `values` says of flags and of arguments, for the verbs of the floors that are installed."""
    found: tuple[dict[str, Any], dict[str, Any]] = {}, {}
    for one in _installed():
        found[0].update(one.VALUES)
        found[1].update(one.ARGUMENTS)
    return found


def _installed() -> list[Any]:
    found = []
    for floor in sorted({floor for floor, _ in VERBS.values()}):
        try:
            found.append(tables(floor))
        except Error:  # a copy of the runtime alone
            continue
    return found


def run(options: Options, args: list[str]) -> int:
    """Run a verb of a floor, whose flags `options` has, and return the exit status, with every failure reported."""
    return hand_over(VERBS[options.verb][0], options, args)


def hand_over(floor: str, options: Options, args: list[str]) -> int:
    """Have a floor's `main(options, args)` do what was asked for.

    It runs as an ordinary program does: with garbage collection, and Ctrl-C is a KeyboardInterrupt.
    """
    import _signal  # type: ignore[import-not-found]  # noqa: PLC0415  (typeshed has none)
    import gc  # noqa: PLC0415

    from ocirt.cli import nudge  # noqa: PLC0415

    _reach(floor)
    gc.enable()
    if _signal.getsignal(_signal.SIGINT) is _signal.SIG_DFL:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    options.settled = nudge.start
    try:
        main = __import__(f"ocirt_{floor}.cli.main", None, None, ("main",)).main
        status: int = main(options, args)
    except KeyboardInterrupt:
        _say(options, "cancelled; run it again to go on")
        return _INTERRUPTED
    except Exception as err:  # noqa: BLE001  (whatever it is, one line goes out)
        from ocirt.cli import log  # noqa: PLC0415

        _say(options, log.words(_ours(floor, err)))
        return 1
    return status


def daemon(name: str, args: list[str]) -> None:
    """Where the launcher hands over for `ocirtd` and `ocirt-csi`. Does not return."""
    import gc  # noqa: PLC0415

    floor, more = _COMMANDS[name]
    gc.enable()
    sys.exit(_program(name, floor, "main")(args, *more))


def shim(name: str, args: list[str]) -> None:
    """Where the launcher hands over for `containerd-shim-ocirt-v2`. Does not return."""
    _program(name, "shim", "task.main")(name, args)


def _program(name: str, floor: str, module: str) -> Any:
    """What a floor has for a command of its own, `name`: ends the process if that was not installed."""
    _reach(floor)
    try:
        return __import__(f"ocirt_{floor}.{module}", None, None, ("main",)).main
    except ModuleNotFoundError as err:
        sys.exit(f"{name}: {_ours(floor, err)}")


def call(floor: str, module: str, function: str, *arguments: Any) -> Any:
    """What a function of `ocirt_FLOOR.cli.MODULE` returns, for a verb of the runtime that needs one.

    Raises Error (also for the floor's own errors, and if it was not installed), and what else the function raises.
    """
    _reach(floor)
    try:
        return getattr(__import__(f"ocirt_{floor}.cli.{module}", None, None, (function,)), function)(*arguments)
    except Exception as err:
        ours = _ours(floor, err)
        if ours is err:
            raise
        raise ours from None


def _ours(floor: str, err: Exception) -> Exception:
    """A floor's own error, or a library that is missing, as an error of the runtime's."""
    errors = sys.modules.get(f"ocirt_{floor}.errors")
    if errors is not None and isinstance(err, errors.Error):
        code = "usage" if err.code == "usage" else "unsupported"
        return Error(code, err.message, subject=err.subject, cause=err.cause, hint=err.hint)
    if not isinstance(err, ModuleNotFoundError) or (err.name or "").startswith("ocirt"):
        return err
    clone = paths.exists(f"{_home()}/{floor}/ocirt_{floor}")
    hint = f"make {floor}" if clone else f"pip install 'ocirt[{floor}]', into a virtual environment"
    return Error("unsupported", f"the library {(err.name or '?').partition('.')[0]} is not installed", hint=hint)


def _say(options: Options, text: str) -> None:
    """One line for a person; where a log or its format was chosen, what callers of the runtime read."""
    from ocirt.cli import log, out  # noqa: PLC0415

    if options.log or options.log_format != "text":
        log.error(options, text)
    else:
        # What a registry says is a stranger's: nothing of it may move the cursor or begin a line.
        plain = "".join(char if char.isprintable() else log.quoted(char)[1:-1] for char in text)
        out(f"{options.name}: {plain}\n", 2)


def _reach(floor: str) -> None:
    """Let Python find a floor and its libraries: behind the standard library, and nowhere but where ocirt itself lies.

    An installed floor lies beside the runtime. In a clone it has a folder of its own, and its libraries are in build/libraries,
    or, of an editable install, in the environment of the command.
    """
    home = _home()
    found = [home]
    if paths.exists(f"{home}/{floor}/ocirt_{floor}"):
        # The launcher's directory is the first word that it passes to Python (boot.py).
        command = sys.argv[1] if len(sys.argv) > 1 and sys.argv[0] == "-c" else ""
        version = "python{}.{}".format(*sys.version_info[:2])
        environment = f"{paths.parent(paths.clean(command))}/lib/{version}/site-packages"
        found += [f"{home}/{one}" for one in (floor, *_BELOW.get(floor, ()))]
        found.append(f"{home}/build/libraries")
        if command.startswith("/") and paths.exists(environment):
            found.append(environment)
    sys.path += [place for place in found if place not in sys.path]


def _home() -> str:
    """The folder that holds the package `ocirt`."""
    return paths.parent(ocirt.__path__[0])
