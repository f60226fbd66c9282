"""`ocirt-cni plugins`: executables for other runtimes, all of which are names of the launcher."""

from __future__ import annotations

import os
import sys

from ocirt_cni.cli.nearest import nearest
from ocirt_cni.cli.options import Options
from ocirt_cni.cli.output import out, show_json, table
from ocirt_cni.errors import INVALID_ENVIRONMENT, IO_FAILURE, TAKEN, Error
from ocirt_cni.plugins import PLUGINS
from ocirt_cni.runner import execute
from ocirt_cni.runner.operations import PATH

_NAMES = ("ocirt", "ocirt-cni")  # what the launcher is installed as
_MARK = b"from ocirt_cni.main import main"  # in launcher/boot.py, which each launcher holds
_COMPANION = '''\
#!{python}
# home: {home}
"""The plugins beside this file are names of ocirt's launcher, which reads here which Python to start, and where the code is."""
'''


def run(given: Options) -> int:
    """Run one of the verb's own verbs. Raises Error."""
    verb, *rest = given.arguments
    if verb == "list":
        return _list(given, tuple(rest) or given.path or PATH)
    if verb not in ("install", "remove"):
        found = nearest(verb, ("install", "list", "remove"))
        hint = f"did you mean {found}?" if found else "it is list, install or remove"
        raise Error(INVALID_ENVIRONMENT, f"there is no verb {verb!r}", subject="plugins", hint=hint)
    if not rest:
        raise Error(INVALID_ENVIRONMENT, f"plugins {verb} takes a folder", hint="as in /opt/cni/bin")
    folder, *names = rest
    for name in names:
        if name not in PLUGINS:
            found = nearest(name, PLUGINS)
            hint = f"did you mean {found}?" if found else f"there are {', '.join(PLUGINS)}"
            raise Error(INVALID_ENVIRONMENT, f"there is no plugin {name!r}", hint=hint)
    if verb == "install":
        return _install(folder, names or list(PLUGINS), copy=bool(given.get("copy")), force=bool(given.get("force")))
    return _remove(folder, names or list(PLUGINS))


def _install(folder: str, names: list[str], *, copy: bool, force: bool) -> int:
    launcher = execute.launcher()
    if launcher is None:
        raise Error(IO_FAILURE, "the command `ocirt` is not where it is installed", hint="install ocirt, or run make in a clone")
    launcher = os.path.realpath(launcher)
    if not os.path.isdir(folder):
        raise Error(IO_FAILURE, "there is no such folder", subject=folder)
    foreign = [name for name in names if os.path.lexists(f"{folder}/{name}") and not is_ours(f"{folder}/{name}")]
    if foreign and not force:
        hint = "--force replaces them; or name the plugins to install"
        raise Error(TAKEN, f"not ours: {', '.join(foreign)}", subject=folder, hint=hint)
    if copy:
        text = _COMPANION.format(python=sys.executable, home=execute.home_of_code())
        if not is_ours(f"{folder}/ocirt"):  # whose own is there, and will do
            _put(f"{folder}/{execute.COMPANION}", text.encode())
        with open(launcher, "rb") as file:
            content = file.read()
        for name in names:
            _put(f"{folder}/{name}", content)
    else:
        for name in names:
            _link(f"{folder}/{name}", launcher)
    out(f"{len(names)} plugins in {folder} are {'copies of' if copy else 'links to'} {launcher}\n")
    return 0


def _remove(folder: str, names: list[str]) -> int:
    ours = [name for name in names if os.path.lexists(f"{folder}/{name}") and is_ours(f"{folder}/{name}")]
    for name in ours:
        os.unlink(f"{folder}/{name}")
    left = any(os.path.lexists(f"{folder}/{name}") and is_ours(f"{folder}/{name}") for name in PLUGINS)
    companion = f"{folder}/{execute.COMPANION}"
    if not left and _text(companion).find(b"\n# home: ") > 0 and not os.path.lexists(f"{folder}/ocirt"):
        os.unlink(companion)
    out(f"{len(ours)} plugins removed from {folder}\n")
    return 0


def _list(given: Options, path: tuple[str, ...]) -> int:
    found = []
    for name in PLUGINS:
        executable = execute.find(name, path)
        whose = "ours" if executable is None else _whose(executable)
        found.append({"plugin": name, "executable": executable or "", "whose": whose})
    for directory in path:
        for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
            executable = f"{directory}/{name}"
            if name not in PLUGINS and name != execute.COMPANION and execute.find(name, path) == executable:
                found.append({"plugin": name, "executable": executable, "whose": "foreign"})
    if given.get("json"):
        show_json(found)
    else:
        out(table(("PLUGIN", "WHOSE", "EXECUTABLE"), [(one["plugin"], one["whose"], one["executable"]) for one in found]))
    return 0


def _whose(executable: str) -> str:
    if execute.is_launcher(executable):
        return "ours"
    return "another ocirt's" if is_ours(executable) else "foreign"


def is_ours(path: str) -> bool:
    """Whether a file is a launcher, of this release or another, or a link to one that is gone."""
    if os.path.islink(path) and not os.path.exists(path):
        return os.path.basename(os.readlink(path)) in _NAMES
    return _MARK in _text(path)


def _text(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError:
        return b""


def _put(path: str, content: bytes) -> None:
    """A new executable file in the place of what is there, whole or not at all."""
    scratch = f"{path}.new"
    _unlink(scratch)
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755)
    with open(fd, "wb") as file:
        os.fchmod(fd, 0o755)
        file.write(content)
    os.rename(scratch, path)


def _link(path: str, target: str) -> None:
    scratch = f"{path}.new"
    _unlink(scratch)
    os.symlink(target, scratch)
    os.rename(scratch, path)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
