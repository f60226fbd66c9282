"""`delete`: what containerd executes when it has lost a shim, or wants to be sure that nothing of a container is left.

Nothing here waits for long: containerd gives it five seconds.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # (typeshed has none; `signal` loads enum)
import posix
import select

from ocirt import paths
from ocirt.containers.delete import delete
from ocirt.errors import Error
from ocirt_api.messages.google import Timestamp
from ocirt_api.messages.task import DeleteResponse
from ocirt_shim import record as notes
from ocirt_shim.task import mounts
from ocirt_shim.task.task import DIRECTORY, remove_notes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_shim.task.bootstrap import Asked

_KILLED = 128 + 9
_PATIENCE = 2000  # milliseconds that a killed shim may take to end


def clean_up(asked: Asked, bundle: str) -> DeleteResponse:
    """Remove the container of a bundle, by force; what is known of its end. All of it may be gone already.

    If its shim has died, so have the lives of the others in its pod: nobody would reap them. They are removed as well.
    Raises Error, OSError for what is left.
    """
    bundle = f"{paths.parent(paths.clean(bundle))}/{asked.id}"
    found = _notes(bundle)
    if found is not None:
        if _held_alone(found, bundle):
            _end_shim(found)
        if not notes.is_alive(found):
            for other in _same_shim(found, bundle):
                _remove(other)
        _remove(bundle)
        _remove_socket(bundle, alive=notes.is_alive(found))
    elif paths.exists(bundle):
        mounts.unmount_all(f"{bundle}/rootfs")
    values = found or {}
    ended = values.get("exited_at") or notes.now()
    status = values["exit_code"] if values.get("exited_at") else _KILLED
    return DeleteResponse(pid=values.get("init") or 0, exit_status=status, exited_at=Timestamp.of(ended))


def _notes(bundle: str) -> dict[str, Any] | None:
    try:
        return notes.load(f"{bundle}/{DIRECTORY}")
    except (Error, OSError):
        return None


def _same_shim(found: dict[str, Any], bundle: str) -> list[str]:
    """The other bundles beside this one whose containers have had the same shim."""
    place = paths.parent(bundle)
    others = [f"{place}/{name}" for name in sorted(posix.listdir(place))]
    same = []
    for other in others:
        said = _notes(other) if other != bundle else None
        if said is not None and all(said.get(key) == found.get(key) for key in ("pid", "start_time", "boot_id")):
            same.append(other)
    return same


def _held_alone(found: dict[str, Any], bundle: str) -> bool:
    """Whether a shim lives, and has this container alone: one that containerd has lost, or it would have asked the shim."""
    return notes.is_alive(found) and not _same_shim(found, bundle)


def _end_shim(found: dict[str, Any]) -> None:
    try:
        fd = posix.pidfd_open(found["pid"])
    except OSError:
        return  # it has just ended
    try:
        # Looked at after the open: if it is still the one that was written down, the descriptor means no other.
        if not notes.is_alive(found):
            return
        _signal.pidfd_send_signal(fd, _signal.SIGKILL)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll(_PATIENCE)
    except ProcessLookupError:
        pass
    finally:
        posix.close(fd)


def _remove(bundle: str) -> None:
    """Remove one container: its processes, cgroups and state, its root's mounts, and what was written down of it."""
    found = _notes(bundle)
    if found is None:
        return
    delete(found["runtime"], found["id"], force=True)
    mounts.unmount_all(f"{bundle}/rootfs")
    remove_notes(f"{bundle}/{DIRECTORY}")


def _remove_socket(bundle: str, *, alive: bool) -> None:
    """The socket of a shim that is gone."""
    if alive:
        return
    try:
        posix.unlink(paths.read_text(f"{bundle}/address").removeprefix("unix://"))
    except FileNotFoundError:
        pass
