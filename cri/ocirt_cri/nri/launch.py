"""Plugins that the daemon starts itself: programs of a directory, and scripts in Python. Each inherits its socket.

A plugin's name is that of its file: two digits, which say when it is asked, and a `-` in front of it (`10-limits.py`).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from ocirt.errors import Error
from ocirt_cri.nri.peer import check_base, check_index

_PATIENCE = 2.0  # seconds between SIGTERM and SIGKILL
_SUFFIX = ".py"
# A script sees the modules that the daemon has; nothing of the environment adds to them.
_BOOT = "import runpy, sys; sys.path[:] = {path!r}; sys.argv[:] = {argv!r}; runpy.run_path({script!r}, run_name='__main__')"


@dataclass(frozen=True, slots=True)
class Launch:
    """A plugin that is to be started. argv: the program; config: what Configure brings it."""

    index: str
    base: str
    argv: tuple[str, ...]
    config: str


def wanted(directory: str, scripts: Sequence[str], config_dir: str) -> tuple[list[Launch], list[Error]]:
    """The programs of a directory, which need not be there, and these scripts; and what is wrong with others."""
    found: list[Launch] = []
    wrong: list[Error] = []
    programs = []
    try:
        programs = [entry.path for entry in sorted(os.scandir(directory), key=lambda entry: entry.name) if _is_program(entry)]
    except FileNotFoundError:
        pass
    except OSError as err:
        wrong.append(Error("kernel", "cannot be read", subject=directory, cause=err.strerror or ""))
    for path, argv in [(path, (path,)) for path in programs] + [(path, _python(path)) for path in scripts]:
        try:
            index, base = parse(os.path.basename(path).removesuffix(_SUFFIX) if argv[0] != path else os.path.basename(path))
            if not os.path.exists(path):
                raise Error("not-found", "there is no such file")
            found.append(Launch(index, base, argv, _config(config_dir, index, base)))
        except Error as err:
            wrong.append(Error(err.code, err.message, subject=path, hint=err.hint, cause=err.cause))
    return found, wrong


def parse(name: str) -> tuple[str, str]:
    """Index and name of a file's name. Raises Error("invalid")."""
    index, dash, base = name.partition("-")
    if not dash:
        raise Error("invalid", f"{name[:80]!r} is no name of a plugin", hint="INDEX-NAME, such as 10-limits")
    check_index(index)
    check_base(base)
    return index, base


def _is_program(entry: os.DirEntry[str]) -> bool:
    return entry.is_file() and bool(entry.stat().st_mode & 0o111)


def _python(path: str) -> tuple[str, ...]:
    modules = [os.path.abspath(one) for one in sys.path if one]
    boot = _BOOT.format(path=modules, argv=[path], script=path)
    return (sys.executable or "/proc/self/exe", "-I", "-S", "-B", "-c", boot)


def _config(directory: str, index: str, base: str) -> str:
    """The plugin's own configuration: INDEX-NAME.conf, or NAME.conf. Raises Error."""
    for name in (f"{index}-{base}.conf", f"{base}.conf"):
        path = os.path.join(directory, name)
        try:
            with open(path, encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as err:
            raise Error("kernel", "cannot be read", subject=path, cause=str(err)) from None
    return ""


def launch(plugin: Launch) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start it: the process, and our end of its socket. For a thread. Raises OSError."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = subprocess.Popen(
                plugin.argv,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # the daemon's log
                start_new_session=True,
                env={
                    "PATH": os.environ.get("PATH", os.defpath),
                    "NRI_PLUGIN_NAME": plugin.base,
                    "NRI_PLUGIN_IDX": plugin.index,
                    "NRI_PLUGIN_SOCKET": str(theirs.fileno()),
                },
            )
    except BaseException:
        ours.close()
        raise
    ours.setblocking(False)
    return process, ours


def end(process: subprocess.Popen[bytes]) -> None:
    """End a plugin's process, whose connection has ended. For a thread."""
    try:
        process.wait(_PATIENCE)  # by itself: it sees that
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
