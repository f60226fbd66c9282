"""Taking away what somebody has left who is not there any more to do so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from ocirt.errors import Error

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


def remove_tree(path: str) -> None:
    """Remove a directory. It is no error if it is gone. Raises OSError."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
