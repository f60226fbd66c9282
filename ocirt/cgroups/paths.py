"""Which cgroup directories a container gets (runtime-spec, config-linux.md, "Cgroups Path").

A mapping from controller to absolute directory; "" stands for the unified hierarchy. Nothing is made here.
"""

from __future__ import annotations

import posix

from ocirt.cgroups.layout import own_directory
from ocirt.errors import Error
from ocirt.paths import clean, join, parent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cgroups.layout import Layout

POINTER = "/linux/cgroupsPath"


def resolve(cgroups_path: str | None, container_id: str, layout: Layout, rootless: bool) -> dict[str, str]:
    """Controller to directory, for every mounted hierarchy.

    An absolute path counts from each mount point. A relative one counts from this process's own cgroup; in version 2 from the
    parent of that, as a cgroup that holds processes can't give controllers to children. `..` never leads out. Without a path
    the cgroup is `/ocirt-ID` for root, `ocirt-ID` below its own cgroup for anybody else. Raises Error for a path that names no
    cgroup below a root.
    """
    if cgroups_path:
        inner = clean("/" + cgroups_path)
        relative = not cgroups_path.startswith("/")
    else:
        inner = "/ocirt-" + container_id
        relative = rootless
    if inner == "/":
        # The root holds the host's processes; freezing or killing them is not what anybody means.
        raise Error("invalid", "names no cgroup below the root", subject=POINTER, hint="for example /ocirt-" + container_id)
    found = {}
    for controller, mount in layout.mounts.items():
        base = mount
        if relative:
            base = own_directory(layout, controller)
            if layout.mode == "v2" and base != mount:
                base = parent(base)
        found[controller] = base + inner
    return found


def below(paths: dict[str, str], sub: str, controller: str | None = None) -> dict[str, str]:
    """`paths` with the sub-cgroup `sub` in one hierarchy, or in all (`exec --cgroup [CONTROLLER:]PATH`).

    Raises Error when there is no such hierarchy, or the path leads out of the container's cgroup.
    """
    if controller is not None and controller not in paths:
        raise Error("invalid", "unknown controller", subject=controller)
    found = dict(paths)
    for name in paths if controller is None else (controller,):
        directory = clean(join(paths[name], sub.lstrip("/") or "."))
        if directory != paths[name] and not directory.startswith(paths[name] + "/"):
            raise Error("invalid", "bad sub cgroup path", subject=sub)
        found[name] = directory
    return found


def writable(paths: dict[str, str]) -> dict[str, str]:
    """The part of `paths` that this process may make: what a rootless container without limits can go on with.

    Looks only (faccessat(2) on the deepest directory that is there); `control.create` may still fail.
    """
    found = {}
    for controller, directory in paths.items():
        place = directory
        while True:
            try:
                posix.stat(place)
            except FileNotFoundError:
                if place == "/":
                    break
                place = parent(place)
                continue
            except OSError:
                break
            if posix.access(place, posix.W_OK | posix.X_OK, effective_ids=True):
                found[controller] = directory
            break
    return found
