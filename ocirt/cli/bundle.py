"""`ocirt bundle`: make a bundle for a root file system that is there already."""

from __future__ import annotations

import posix

from ocirt import paths
from ocirt.cli import spec
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options


def run(options: Options, args: list[str]) -> int:
    """Write args[1]/config.json, for the root file system args[0] and the command args[2:] (`--` before it is skipped).

    Without a command it is `sh`, which gets a terminal if standard input and output are one now; a command gets one by --tty
    only. Raises Error("invalid") if the root file system is no directory, Error("exists") if there is a config.json, OSError.
    """
    root, bundle, *command = args
    if command[:1] == ["--"]:
        command = command[1:]
    if not _is_directory(root):
        raise Error("invalid", "not a directory", subject=root, hint="the first argument is the root file system")
    for_user = options.get("rootless") if options.given("rootless") else posix.geteuid() != 0
    config = spec.rootless() if for_user else spec.default()
    process = config["process"]
    process["terminal"] = not command and posix.isatty(0) and posix.isatty(1)
    if options.given("tty"):
        process["terminal"] = options.get("tty")
    if command:
        process["args"] = command
    config["root"] = {"path": paths.absolute(root), "readonly": not options.get("writable")}
    config["hostname"] = "ocirt"
    paths.make_directories(paths.absolute(bundle))
    spec.write(paths.join(bundle, "config.json"), config)
    return 0


def _is_directory(path: str) -> bool:
    try:
        return posix.stat(path).st_mode & 0o170000 == 0o040000
    except OSError:
        return False
