"""Taking away what somebody has left who is not there any more to do so."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from ocirt.cgroups import control
from ocirt.errors import Error
from ocirt_shim.foreign import ROOT
from ocirt_shim.task.mounts import unmount_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BUNDLE = "bundle"  # in a container's directory

_PATIENCE = 60.0
_BOOT = "import sys; sys.path[:] = {path!r}; from ocirt.cli.main import main; main('ocirt', sys.argv[1:])"


def delete_by_force(runtime: str, container_id: str) -> None:
    """Kill a container whose shim is gone, and remove its record and cgroup; no error if there is none.

    By the command, in a process of its own: it may fork. For a thread. Raises Error.
    """
    record = os.path.join(runtime, container_id)
    if not os.path.isdir(record):
        return
    boot = _BOOT.format(path=[os.path.abspath(one) for one in sys.path if one])
    command = [sys.executable or "/proc/self/exe", "-I", "-S", "-B", "-X", "utf8", "-c", boot]
    command += ["--root", runtime, "delete", "--force", container_id]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise Error("kernel", "could not be removed in time", subject=container_id) from None
    if done.returncode and os.path.isdir(record):
        raise Error("kernel", "could not be removed", subject=container_id, cause=done.stderr.strip()[:400])


def delete_by_command(command: Sequence[str], container_id: str) -> None:
    """The same of a container of another runtime: its program, and its global options. For a thread. Raises Error."""
    words = [*command, "delete", "--force", container_id]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise Error("kernel", f"{command[0]} did not remove it in time", subject=container_id) from None
    except OSError as err:
        hint = "it was made by that one, which has to be there for its removal"
        raise Error("kernel", "cannot be executed", subject=command[0], cause=err.strerror or "", hint=hint) from None
    if done.returncode and "does not exist" not in done.stderr:
        raise Error("kernel", f"{command[0]} could not remove it", subject=container_id, cause=done.stderr.strip()[-400:])


def kill_programs(paths: Mapping[str, str], prefix: str) -> None:
    """Kill all in the cgroups that begin so below a container's, and remove them. For a thread. Raises Error, OSError."""
    for controller, directory in paths.items():
        for entry in os.scandir(directory):
            if entry.name.startswith(prefix):
                cgroup = {"paths": {controller: entry.path}}
                control.kill(cgroup, signal.SIGKILL)
                control.remove(cgroup)


def remove_container(directory: str) -> None:
    """Remove a container's directory, with what is mounted in its bundle by the shim for another runtime. Raises OSError."""
    unmount_all(os.path.join(directory, BUNDLE, ROOT))
    remove_tree(directory)


def remove_tree(path: str) -> None:
    """Remove a directory. It is no error if it is gone. Raises OSError."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
