"""Plugins as executables: where they are, whose they are, and one call of one (SPEC.md, sections 2 and 4)."""

from __future__ import annotations

import posix
import sys

import ocirt_cni
from ocirt_cni import files, jsonio, plugins, versions
from ocirt_cni.call import VERSION, Call
from ocirt_cni.errors import DECODING_FAILURE, INTERNAL, INVALID_CONFIG, IO_FAILURE, Error
from ocirt_cni.results import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_cni.runner.process import Ended

TIMEOUT = 90.0  # seconds: longer than a DHCP server, a cloud's API or a daemon that is restarted may take
COMPANION = "ocirt-python"  # beside each launcher; launcher/build.py
_UNKNOWN_COMMAND = "unknown CNI_COMMAND: VERSION"  # what plugins of 0.1.0 say to it
_answers: dict[tuple[object, ...], bool] = {}


def find(name: str, path: tuple[str, ...]) -> str | None:
    """The executable of a plugin: the first of that name in the directories of CNI_PATH. Raises Error(INVALID_CONFIG)."""
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise Error(INVALID_CONFIG, f"{name!r} is not the name of a plugin", subject="/type")
    for directory in path:
        found = f"{directory}/{name}"
        if files.is_file(found) and posix.access(found, posix.X_OK):
            return found
    return None


def is_ours(name: str, path: tuple[str, ...]) -> bool:
    """Whether a call of this plugin is done in this process. Raises Error(INVALID_CONFIG) for what is no name.

    It is if CNI_PATH has no executable of that name; or if that is a name of the launcher that belongs to this code, or a copy
    of it that leads to this code. What somebody put in its place is executed, like an ocirt of another release.
    """
    found = find(name, path)
    if name not in plugins.PLUGINS:
        return False
    return found is None or is_launcher(found)


def is_launcher(path: str) -> bool:
    """Whether an executable is the launcher that belongs to this code, by whatever name, or a copy that leads to this code."""
    ours = launcher()
    if ours is None:
        return False
    try:
        it, own = posix.stat(path), posix.stat(ours)
        if (it.st_dev, it.st_ino) == (own.st_dev, own.st_ino):
            return True
        if it.st_size != own.st_size:
            return False
        key = (path, it.st_dev, it.st_ino, it.st_size, it.st_mtime_ns, it.st_ctime_ns, own.st_ino, own.st_ctime_ns)
        if key not in _answers:
            _answers[key] = _content(path) == _content(ours) and _leads_here(path, ours)
        return _answers[key]
    except OSError:
        return False


def launcher() -> str | None:
    """The file of the launcher that belongs to this code: the one that started this process, or the one installed with it."""
    if len(sys.argv) > 1 and sys.argv[0] == "-c" and sys.argv[1].endswith("/") and files.exists(sys.argv[1] + COMPANION):
        places = [sys.argv[1] + name for name in ("ocirt", *sys.argv[3:4])]  # launcher/boot.py; the second in a folder of copies
    else:
        from os.path import normpath  # noqa: PLC0415  (not in an executable, which costs a millisecond)

        home = home_of_code()
        places = [f"{home}/build/ocirt", f"{home}/bin/ocirt", normpath(f"{home}/../../../bin/ocirt")]
    return next((place for place in places if files.is_file(place)), None)


def home_of_code() -> str:
    """The folder that holds the package `ocirt`: this one's, or in a clone the clone."""
    from os.path import dirname, realpath  # noqa: PLC0415  (few calls come here)

    folder = dirname(realpath(ocirt_cni.__path__[0]))  # modules from an archive have no __file__
    return folder if files.is_directory(f"{folder}/ocirt") else dirname(folder)


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _leads_here(path: str, ours: str) -> bool:
    """Whether a copy of the launcher starts this code: it lies beside ours, or the file beside it says where the code is."""
    from os.path import dirname, realpath  # noqa: PLC0415  (few calls come here)

    folder = dirname(realpath(path))
    if folder == dirname(realpath(ours)):
        return True
    text = _content(f"{folder}/{COMPANION}").decode(errors="replace")
    return f"# home: {home_of_code()}" in text.splitlines()


def execute(name: str, call: Call, timeout: float = TIMEOUT) -> Result | None:
    """Execute a foreign plugin: with ADD its result. What it says on its standard error goes to ours, or into the error.

    Raises Error: the plugin's own, or one that says how it ended.
    """
    program = _program(name, call.path)
    variables = {
        "CNI_COMMAND": call.command,
        "CNI_CONTAINERID": call.container,
        "CNI_NETNS": call.netns,
        "CNI_IFNAME": call.ifname,
        "CNI_ARGS": ";".join(f"{key}={value}" for key, value in call.args.items()),
        "CNI_PATH": ":".join(call.path),
    }
    ended = _run(program, variables, jsonio.dumps(call.conf).encode(), timeout)
    if ended.code:
        raise _failure(program, ended)
    if ended.err:
        posix.write(2, ended.err)
    if call.command != "ADD":
        return None
    try:
        if ended.out.strip() == b"null":  # which libcni takes for an empty one
            return Result()
        document = jsonio.load_object(ended.out, f"{program}: its result")
        return Result.parse(document, "", call.version)
    except Error as err:
        subject = err.subject if err.subject.startswith(program) else f"{program}: {err.subject}"
        raise Error(DECODING_FAILURE, err.message, subject=subject, cause=_also(ended.err)) from None


def supported(name: str, path: tuple[str, ...], timeout: float = TIMEOUT) -> tuple[str, ...]:
    """The versions that a plugin says it supports (SPEC.md, "VERSION"). Raises Error."""
    if is_ours(name, path):
        return versions.SUPPORTED
    program = _program(name, path)
    # Plugins of old want them with every command.
    variables = {"CNI_COMMAND": VERSION, "CNI_NETNS": "dummy", "CNI_IFNAME": "dummy", "CNI_PATH": ":".join(path) or "dummy"}
    ended = _run(program, variables, jsonio.dumps({"cniVersion": versions.CURRENT}).encode(), timeout)
    if ended.code:
        err = _failure(program, ended)
        if err.message == _UNKNOWN_COMMAND:
            return (versions.DEFAULT,)
        raise err
    answer = jsonio.load_object(ended.out, f"{program}: its answer to VERSION")
    found = answer.get("supportedVersions")
    if found is None and answer.get("cniVersion"):
        found = ["0.1.0"] if answer["cniVersion"] == "0.1.0" else ["0.1.0", "0.2.0"]
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise Error(DECODING_FAILURE, "supportedVersions is not a list of versions", subject=program)
    return tuple(found)


def _program(name: str, path: tuple[str, ...]) -> str:
    found = find(name, path)
    if found is None:
        hint = f"CNI_PATH is {':'.join(path)}; install the plugin there" if path else "set CNI_PATH, as in /opt/cni/bin"
        raise Error(INVALID_CONFIG, f"there is no plugin {name!r}", subject="/type", hint=hint)
    return found


def _run(program: str, variables: dict[str, str], data: bytes, timeout: float) -> Ended:
    from os import environ  # noqa: PLC0415  (a chain of our own plugins needs none of it)

    from ocirt_cni.runner import process  # noqa: PLC0415

    return process.run(program, environ | variables, data, timeout)


def _failure(program: str, ended: Ended) -> Error:
    """The error that a plugin printed, or what can be said without one."""
    how = f"exit status {ended.code}" if ended.code > 0 else f"killed by signal {-ended.code}"
    if not ended.out.strip():
        return Error(IO_FAILURE, f"it failed without saying why ({how})", subject=program, cause=_also(ended.err))
    try:
        found: dict[str, Any] = jsonio.load_object(ended.out, "")
    except Error:
        text = _also(ended.out)
        return Error(IO_FAILURE, f"it failed ({how}), and what it printed is no error of CNI's", subject=program, cause=text)
    code, message, details = found.get("code"), found.get("msg"), found.get("details")
    return Error(
        code if type(code) is int and code > 0 else INTERNAL,
        message if isinstance(message, str) and message else f"it failed ({how})",
        cause=_also(ended.err),
        hint=details if isinstance(details, str) else "",
    )


def _also(text: bytes) -> str:
    from ocirt_cni.runner import process  # noqa: PLC0415  (loaded by then)

    return process.tail(text)
