"""`delete`: kill what must go, and leave nothing."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # (typeshed has none; `signal` loads enum)
import posix
import select
from errno import EINVAL, ESRCH

from ocirt import state
from ocirt.containers.destroy import destroy
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.state import Record

_SIGKILL = 9
_PATIENCE = 10.0  # seconds that a killed process may take to end


def delete(root: str, container_id: str, *, force: bool) -> list[str]:
    """Delete a container that has stopped or was never started; with `force` any. Returns what its poststop hooks complain of.

    Raises Error("not-found") unless forced, Error("state") for one that runs, Error("kernel") for what would not end.
    """
    try:
        record = _load(root, container_id, force=force)
        if force:
            kill_and_wait(record)  # before waiting for the lock, whose holder may wait for init
        lock = state.lock(record["directory"])
    except Error as err:
        if force and err.code == "not-found":
            return []
        raise
    try:
        record = _load(root, container_id, force=force)
        now = state.status(record)
        if now not in ("stopped", "created") and not force:
            raise Error("state", f"cannot delete container {container_id} that is not stopped: {now}")
        kill_and_wait(record)
        return destroy(record, record["directory"])
    except Error as err:
        if not (force and err.code == "not-found"):
            raise
        return []
    finally:
        posix.close(lock)


def _load(root: str, container_id: str, *, force: bool) -> Record:
    """The record; with `force` what can be used of it, of a directory that has none too."""
    try:
        return state.load(root, container_id)
    except Error as err:
        if not force or err.code not in ("not-found", "state"):
            raise
    return state.salvage(root, container_id)


def kill_and_wait(record: Record) -> None:
    """SIGKILL for init, if it is still the recorded process, and wait for its end. The others are for `destroy`."""
    creator = record["creator"]
    if record["status"] == "creating" and creator.get("pid"):
        _end(creator["pid"], creator.get("start_time"))  # with it goes its init (PR_SET_PDEATHSIG)
    if record["pid"]:
        _end(record["pid"], record["start_time"], record)


def _end(pid: int, start_time: int | None, record: Record | None = None) -> None:
    try:
        fd = posix.pidfd_open(pid)
    except OSError as err:
        if err.errno in (ESRCH, EINVAL):
            return  # EINVAL: the number is still that of a session or group, whose leader is gone (Linux before 6.9)
        raise
    try:
        # Looked at after the open: if it is still the recorded process now, the descriptor means no other.
        if state.process_start_time(pid) != start_time:
            return
        try:
            _signal.pidfd_send_signal(fd, _SIGKILL)
        except ProcessLookupError:
            return
        if record is not None and state.paused(record):
            from ocirt.cgroups import control  # noqa: PLC0415  (only then)

            control.thaw(record["cgroup"])  # the v1 freezer holds back even SIGKILL
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not poll.poll(_PATIENCE * 1000):
            raise Error("kernel", f"process {pid} does not end", hint="it may hang in the kernel; see /proc/PID/stack")
    finally:
        posix.close(fd)
