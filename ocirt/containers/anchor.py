"""The mounts of a container without a mount namespace: what its record says of them, and how they are taken away.

They hang on one mount in the host's tree, which is found again by its source: ocirt.kernel.steps.anchor.
"""

from __future__ import annotations

import posix

from ocirt import paths, state
from ocirt.errors import Error
from ocirt.kernel import mount, mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.kernel.mountinfo import Mount
    from ocirt.state import Record

_O_PATH = 0o10000000
_NAMESPACE = "/proc/self/ns/mnt"
_MOST = 1000  # mounts over the anchor; two are ours


def section(rootfs: str) -> dict[str, str]:
    """The record's section "anchor": where the anchor is going to be, and in which mount namespace. Raises OSError."""
    try:
        fd = posix.open(rootfs, _O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError:
        place = rootfs  # a step of the plan will say so
    else:
        place = posix.readlink(f"/proc/self/fd/{fd}")
        posix.close(fd)
    return {"path": place, "namespace": posix.readlink(_NAMESPACE)}


def remove(record: Record, directory: str) -> None:
    """Detach the anchor of a container, if there is one, and all that hangs on it.

    `directory`: the container's. Raises Error("state") where another mount namespace has it, Error("kernel") where something else
    is mounted over it, OSError.
    """
    kept = record["anchor"]
    if record["boot_id"] not in ("", state.boot_id()):
        return
    source = paths.anchor(directory)
    if kept["namespace"] not in ("", posix.readlink(_NAMESPACE)):
        _must_be_gone(kept["namespace"], source)
        return
    first = None
    for _ in range(_MOST):
        found = _find(source, kept["path"], mountinfo.read())
        if found is None or (first is not None and found.id != first):
            return  # the rest are copies of it, which somebody else has made
        first = found.id
        _detach_uppermost(found)
    raise Error(
        "kernel", "is mounted over again and again", subject=kept["path"], hint="see who does it, by /proc/self/mountinfo"
    )


def _find(source: str, path: str, mounts: list[Mount]) -> Mount | None:
    """The anchor of that name: the one at `path` (a directory above may have been renamed), no copy by a bind mount."""
    found = [each for each in mounts if each.source == source and each.kind == "tmpfs"]
    return min(found, key=lambda each: (each.point != path, len(each.point)), default=None)


def _detach_uppermost(anchor: Mount) -> None:
    """Detach what is mounted at the anchor's place last: first the container's root, with all below it, then the anchor."""
    fd = posix.open(anchor.point, _O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        uppermost = mountinfo.id_of(fd)
        mounts = {each.id: each for each in mountinfo.read()}
        below = mounts.get(uppermost)
        while below is not None and below.id != anchor.id and below.point == anchor.point:
            below = mounts.get(below.parent)
        if below is None or below.id != anchor.id:
            hint = "another mount covers it: unmount that first, see /proc/self/mountinfo"
            raise Error("kernel", "the container's mounts cannot be reached", subject=anchor.point, hint=hint)
        mount.detach(fd)
    finally:
        posix.close(fd)


def _must_be_gone(namespace: str, source: str) -> None:
    """Raise Error if a process lives in a mount namespace where the anchor is. What nobody is in, is gone with all its mounts."""
    for name in posix.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            if posix.readlink(f"/proc/{name}/ns/mnt") != namespace:
                continue
            there = any(each.source == source for each in mountinfo.read(f"/proc/{name}/mountinfo"))
        except OSError:
            continue  # it has ended, or may not be looked at
        if there:
            raise Error(
                "state",
                f"the container's mounts are in another mount namespace, that of process {name}",
                hint=f"delete it from there: nsenter --mount=/proc/{name}/ns/mnt …",
            )
