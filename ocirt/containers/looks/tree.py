"""Looks at the container's tree: sources and ids of mounts, file systems, devices, sysctls, the program."""

from __future__ import annotations

import posix
from errno import ENODEV, ENOENT, EPERM

from ocirt import paths
from ocirt.kernel import mount, resolve
from ocirt.kernel.ffi import CallError
from ocirt.kernel.run import failure, function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.containers.looks import Looks

USER = "looks/user"  # slot of a user namespace like the container's new one
_O_PATH = 0o10000000
# Sysctls of one interface are there only where the interface is.
_INTERFACES = ("conf", "neigh")
_ASKED_LATE = ("devpts",)  # before Linux 6.10


def source(looks: Looks, index: int, slot: str, path: str, recursive: bool) -> None:  # noqa: FBT001
    """The source of a bind mount. One whose ids are to be mapped is cloned, as it can be told of a mount alone."""
    del recursive
    if slot in ("root", "notify"):
        return  # the one is looked at by itself, the other is ours
    if any(step[1] == "idmap.map" and step[2][0] == slot for step in looks.plan):
        looks.do(index)
        return
    try:
        posix.stat(path)
    except PermissionError:
        pass  # init may be allowed what we are not
    except OSError as err:
        looks.fail(index, err.errno or ENOENT, "open_tree")


def id_map(looks: Looks, index: int, slot: str, source: str, user: str, recursive: bool) -> None:  # noqa: FBT001
    """Map the ids of a mount that nobody sees. Without its source or user namespace that has been said."""
    user = user or USER
    if slot not in looks.run.fds or user not in looks.run.fds:
        return
    try:
        function("idmap.map")(looks.run, slot, source, user, recursive)
    except OSError as err:
        said = failure(index, err)
        looks.fail(index, said.errno, said.call, said.detail)


def file_system(looks: Looks, index: int, slot: str, kind: str, source: str, data: Any, *rest: Any) -> None:
    """The type of a file system, and as far as it can be asked its options."""
    del slot, rest
    name = kind.partition(".")[0]
    known = [line.rpartition("\t")[2] for line in paths.read_text("/proc/filesystems").split("\n")]
    if name not in known:
        if not _has_module("fs-" + name):
            looks.fail(index, ENODEV, "fsopen")
        return  # to ask it, the kernel would load it
    # Some look at their options only when they are made, which for these is nothing that anybody sees.
    try:
        posix.close(mount.new_mount(kind, source, data, 0) if kind in _ASKED_LATE else mount.configure(kind, source, data))
    except CallError as err:
        if err.call == "fsconfig" and err.errno != EPERM:  # else we may not ask
            said = failure(index, err)
            looks.fail(index, said.errno, said.call, said.detail)


def _has_module(alias: str) -> bool:
    """Whether the kernel could load a module of this alias (modules.alias, see modprobe(8))."""
    try:
        text = paths.read_text(f"/lib/modules/{posix.uname().release}/modules.alias", 1 << 26)
    except OSError:
        return False
    return f"alias {alias} " in text


def device(looks: Looks, index: int, path: str) -> None:
    """A device that is bound, as it cannot be made."""
    if not paths.exists(path):
        looks.fail(index, ENOENT, "open_tree")


def sysctl(looks: Looks, index: int, path: str, value: str) -> None:
    """A sysctl by its name alone."""
    del value
    if not any(part in _INTERFACES for part in path.split("/")) and not paths.exists("/proc/sys/" + path):
        looks.fail(index, ENOENT, "openat2", "sys/" + path)


def program(looks: Looks, index: int, name: str, path: str) -> None:
    """The program. A warning only: a mount or a hook may bring it."""
    cwd = paths.clean(looks.spec["process"]["cwd"])
    places = [paths.join(cwd, name)] if "/" in name else [paths.join(cwd, place, name) for place in path.split(":") if path]
    try:
        root = posix.open(looks.rootfs, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError:
        return  # said of the root
    try:
        for place in places:
            if any(_below(place, each["destination"]) for each in looks.spec.get("mounts", ())):
                return
            try:
                posix.close(resolve.open_in_root(root, place, _O_PATH))
                return
            except OSError:
                pass
    finally:
        posix.close(root)
    hint = "a path in the container, or a name that one of PATH's directories has"
    looks.say(looks.plan[index][3], f'"{name}" is not in the root file system', hint)


def _below(path: str, destination: str) -> bool:
    place = paths.clean("/" + destination)
    return place == "/" or (paths.clean(path) + "/").startswith(place + "/")
