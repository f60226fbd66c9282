"""The root of a container without a mount namespace of its own: its mounts are in the runtime's.

All of them hang on one, the anchor: an empty tmpfs that covers the root file system, and is covered by the container's root. Its
source names the container (`ocirt.paths.anchor`), so that whoever finds the container's record finds its mounts, and takes them
away with the anchor. The runtime attaches it, not init: once the runtime has ended, nothing more is attached.
"""

from __future__ import annotations

import posix
from errno import EBUSY, EINVAL

from ocirt.kernel import mount, mountinfo
from ocirt.kernel.ffi import CallError
from ocirt.kernel.run import Run
from ocirt.paths import ANCHOR

_O_PATH = 0o10000000


def check(run: Run, path: str) -> None:
    """See that the root can be covered: it is not the host's own, and no other container of the kind has its root around it."""
    del run
    try:
        fd = posix.open(path, _O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError:
        return  # said by who looks at the root itself
    try:
        own, host = posix.fstat(fd), posix.stat("/")
        if (own.st_dev, own.st_ino) == (host.st_dev, host.st_ino):
            raise CallError(EINVAL, "", "it is the host's own root, which would be covered for all")
        _look_for_others(posix.readlink(f"/proc/self/fd/{fd}"), "")
    finally:
        posix.close(fd)


def attach(run: Run, path: str, source: str) -> None:
    """Mount the anchor, which `source` names, over the root. EBUSY if another container's was attached meanwhile."""
    fd = posix.open(path, _O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    place = posix.readlink(f"/proc/self/fd/{fd}")
    mount.move_mount_to(run.fds["anchor"], fd)
    _look_for_others(place, source)


def _look_for_others(place: str, own: str) -> None:
    """Two roots, one in the other: what takes away one of them would take away the other's mounts."""
    for each in mountinfo.read():
        if each.kind != "tmpfs" or not each.source.startswith(ANCHOR) or each.source == own:
            continue
        if mountinfo.is_below(place, each.point) or mountinfo.is_below(each.point, place):
            who = each.source.removeprefix(ANCHOR)
            raise CallError(EBUSY, "", f"the container of {who} has no mount namespace either, and its root at {each.point}")


def attach_root(run: Run) -> None:
    """Mount the detached copy of the root on the anchor."""
    mount.move_mount(run.fds["root"], run.fds["anchor"])
    run.root_fd = run.fds["root"]
