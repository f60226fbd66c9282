"""What the host's control groups look like: version 1, version 2, or both (cgroups(7), "hybrid").

Found by looking at the usual places under /sys/fs/cgroup, with a handful of stat(2); /proc/self/mountinfo, whose cost grows with
the number of mounts, is read only when nothing is there.
"""

from __future__ import annotations

import posix

from ocirt.paths import read_text

ROOT = "/sys/fs/cgroup"


class Layout:
    """The cgroup hierarchies that can be used.

    `mode`: "v1", "hybrid" (version 1 with a version 2 hierarchy without most controllers beside it), "v2" or "none".
    `mounts`: controller to mount point; "" stands for the unified (version 2) hierarchy, "name=systemd" for systemd's own.
    `own`: controller to this process's cgroup, as /proc/self/cgroup gives it.
    """

    __slots__ = ("mode", "mounts", "own")

    def __init__(self, mode: str, mounts: dict[str, str], own: dict[str, str]) -> None:
        self.mode = mode
        self.mounts = mounts
        self.own = own


def _is_cgroup(directory: str) -> bool:
    try:
        posix.stat(directory + "/cgroup.procs")
    except (OSError, ValueError):  # ValueError: no path at all, with a NUL in it
        return False
    return True


def own_cgroups(text: str) -> list[tuple[list[str], str]]:
    """Read the contents of /proc/PID/cgroup: (controllers of a hierarchy, path) per line; [""] is the unified one."""
    found = []
    for line in text.split("\n"):
        parts = line.split(":", 2)
        if len(parts) == 3:
            found.append((parts[1].split(","), parts[2]))
    return found


def mount_table(text: str) -> list[tuple[list[str], str, str]]:
    """The cgroup mounts in the contents of /proc/PID/mountinfo: (controllers, mount point, root); [""] is version 2."""
    found = []
    for line in text.split("\n"):
        head, separator, tail = line.partition(" - ")
        kind, _, rest = tail.partition(" ")
        if not separator or kind not in ("cgroup", "cgroup2"):
            continue
        fields = head.split(" ")
        if len(fields) < 5:
            continue  # what is shown as mountinfo is none
        options = rest.rpartition(" ")[2].split(",") if kind == "cgroup" else [""]
        found.append((options, _unescape(fields[4]), _unescape(fields[3])))
    return found


def _unescape(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def _wanted(controller: str) -> bool:
    # Of the hierarchies without a controller only systemd's is joined: the others belong to whoever named them.
    return not controller.startswith("name=") or controller == "name=systemd"


def detect(root: str = ROOT, proc: str = "/proc") -> Layout:
    """Look at the host. `root` and `proc` are parameters for tests. Raises OSError when /proc can't be read."""
    lines = own_cgroups(read_text(proc + "/self/cgroup"))
    own = {controller: path for controllers, path in lines for controller in controllers if _wanted(controller)}
    try:
        posix.stat(root + "/cgroup.controllers")
    except OSError:
        pass
    else:
        return Layout("v2", {"": root}, {"": own.get("", "/")})

    mounts: dict[str, str] = {}
    for controllers, _ in lines:
        name = ",".join(controllers)
        if not name:
            continue
        # Co-mounted controllers have a directory with all their names, or at least links with each.
        names = [name.removeprefix("name=")]
        if len(controllers) > 1:
            names += controllers
        for name in names:
            directory = f"{root}/{name}"
            if _is_cgroup(directory):
                for controller in controllers:
                    if _wanted(controller):
                        mounts[controller] = directory
                break
    if _is_cgroup(root + "/unified"):
        mounts[""] = root + "/unified"
    if not mounts:
        for controllers, directory, _ in mount_table(read_text(proc + "/self/mountinfo", 1 << 26)):
            for controller in controllers:
                if controller in own and controller not in mounts and _is_cgroup(directory):
                    mounts[controller] = directory
    if not mounts:
        return Layout("none", mounts, own)
    if "" not in mounts:
        return Layout("v1", mounts, own)
    return Layout("hybrid" if len(mounts) > 1 else "v2", mounts, own)


def own_directory(layout: Layout, controller: str, proc: str = "/proc") -> str:
    """The directory of this process's cgroup in the hierarchy of `controller`.

    In a container without a cgroup namespace, what is mounted is only a part of the hierarchy, and /proc/self/cgroup counts
    from above it: then the mount's root is taken off (or, when it is elsewhere, the mount point is what is left). Raises OSError.
    """
    mount = layout.mounts[controller]
    own = layout.own.get(controller, "/")
    if own == "/":
        return mount
    if _is_cgroup(mount + own):
        return mount + own
    for controllers, directory, root in mount_table(read_text(proc + "/self/mountinfo", 1 << 26)):
        if controller in controllers and directory == mount and (own + "/").startswith(root.rstrip("/") + "/"):
            return mount + own[len(root.rstrip("/")) :]
    return mount
