"""`ocirt bundle`: make a bundle for a root file system that is there already, or from an image."""

from __future__ import annotations

import posix

from ocirt import paths
from ocirt.cli import spec
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cli.options import Options

# What is said of images alone. For a root file system it can be written into config.json.
_OF_IMAGES = ("cwd", "entrypoint", "env", "hostname", "mount", "network", "no-new-privs", "read-only", "size", "user")


def run(options: Options, args: list[str]) -> int:
    """Write the bundle args[1] for args[0] and the command args[2:] (`--` before it is skipped).

    args[0] is a root file system if it is a directory or begins as a path does, else an image. One argument is a bundle that is
    to be mounted again.
    Raises Error("invalid") for a root that is no directory, Error("exists") if there is a bundle, Error("usage"), OSError.
    """
    if len(args) == 1:
        return _mount_again(options, args)
    root, bundle, *command = args
    if command[:1] == ["--"]:
        command = command[1:]
    if _is_directory(root) or root.startswith(("/", "./", "../")) or root in (".", ".."):
        return _of_directory(options, root, bundle, command)
    from ocirt.cli import elsewhere  # noqa: PLC0415  (only for images)

    for flag in ("writable", "rootless"):
        if options.given(flag):
            hint = "an image's root file system is, unless --read-only" if flag == "writable" else "it is made for who calls"
            raise Error("usage", f"--{flag} is for a root file system, and {root} is none", hint=hint)
    return elsewhere.hand_over("images", options, [root, bundle, *command])


def _mount_again(options: Options, args: list[str]) -> int:
    """Mount a bundle of an image that --mount made before, as it is."""
    if not options.get("mount"):
        hint = "one is a bundle, which --mount mounts again"
        raise Error("usage", '"bundle" requires a minimum of 2 argument(s)', hint=hint)
    for flag in ("rootless", "tty", "writable", *_OF_IMAGES):
        if flag != "mount" and options.given(flag):
            raise Error("usage", f"--{flag}: a bundle is mounted again as it is", hint=f"edit {args[0]}/config.json")
    from ocirt.cli import elsewhere  # noqa: PLC0415  (only for images)

    return elsewhere.hand_over("images", options, args)


def _of_directory(options: Options, root: str, bundle: str, command: list[str]) -> int:
    """For a root file system. Without a command it is `sh`.

    That gets a terminal if standard input and output are one now; a command gets one by --tty only.
    """
    for flag in _OF_IMAGES:
        if options.given(flag):
            raise Error("usage", f"--{flag} is for an image, and {root} is a root file system", hint=f"edit {bundle}/config.json")
    if not _is_directory(root):
        raise Error("invalid", "not a directory", subject=root, hint="the first argument is the root file system, or an image")
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
