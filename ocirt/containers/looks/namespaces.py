"""Looks at namespaces: which can be made, the mappings of users, clocks, and what goes into the network."""

from __future__ import annotations

import posix
from errno import EEXIST, EINVAL, ENOENT

from ocirt import paths
from ocirt.containers.looks import trial
from ocirt.containers.looks.tree import USER
from ocirt.kernel.ffi import CallError
from ocirt.kernel.run import failure, function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.containers.looks import Looks

_FILES = {"network": "net", "mount": "mnt"}
_LOOPBACK = "lo"  # every network namespace has its own


def kinds(looks: Looks) -> None:
    """Whether there are namespaces of the types that are to be made, and may be some."""
    for index, entry in enumerate(looks.spec["linux"].get("namespaces", ())):
        if entry.get("path"):
            continue
        pointer, kind = f"/linux/namespaces/{index}", entry["type"]
        file = _FILES.get(kind, kind)
        if not paths.exists("/proc/self/ns/" + file):
            looks.say(pointer, f"this kernel has no {kind} namespaces", "take it out", "error")
        elif _none_allowed(file):
            where = f"/proc/sys/user/max_{file}_namespaces"
            looks.say(pointer, f"{where} is 0: none can be made", f"raise it, by `sysctl` or in {where}", "error")


def _none_allowed(file: str) -> bool:
    try:
        return paths.read_text(f"/proc/sys/user/max_{file}_namespaces").strip() == "0"
    except OSError:
        return False


def mappings(looks: Looks, index: int, uids: Any, gids: Any, root: bool) -> None:  # noqa: FBT001
    """The mappings of a new user namespace: tried out by root, else whether the programs are there that write them."""
    if root:
        _like_the_container_s(looks, index, uids, gids)
        return
    search = posix.environ.get(b"PATH", b"/usr/local/bin:/usr/bin:/bin").decode("utf-8", "surrogateescape").split(":")
    for kind, lines, own in (("uid", uids, posix.geteuid()), ("gid", gids, posix.getegid())):
        program = f"new{kind}map"
        if len(lines) == 1 and lines[0][1:] == (own, 1):
            continue
        if not any(posix.access(paths.join(place, program), posix.X_OK) for place in search):
            looks.fail(index, ENOENT, "", f"{program} is needed for more than one id; install uidmap")
            return


def _like_the_container_s(looks: Looks, index: int, uids: Any, gids: Any) -> None:
    try:
        function("idmap.make_namespace")(looks.run, USER, uids, gids)
    except OSError as err:
        if not isinstance(err, CallError):  # else there can be no such namespace, which is said of it
            said = failure(index, err)
            looks.fail(index, said.errno, said.call, said.detail)


def offsets(looks: Looks, index: int, text: str) -> None:
    """Set the clocks of a time namespace that nobody will be in. That there can be none is said of the namespace."""
    del text
    if not paths.exists("/proc/self/ns/time"):
        return
    steps = [looks.plan[each] for each in (looks.find("namespace.open_offsets"), looks.find("namespace.unshare"), index)]
    said = trial.attempt(steps)
    if said is not None and steps[said.index][1] != "namespace.unshare":
        looks.fail(index, said.errno, said.call, said.detail)


def device(looks: Looks, index: int, name: str, inside: str, slot: str) -> None:
    """A network device, and its name in the namespace that is joined. Without that namespace it has been said."""
    del name, inside
    if not slot or slot in looks.run.fds:
        looks.do(index)


def device_on_its_way(looks: Looks, index: int, name: str, inside: str) -> None:
    """The one that no namespace lets go, and whose name is taken in a new one."""
    joined = any(entry["type"] == "network" and entry.get("path") for entry in looks.spec["linux"].get("namespaces", ()))
    if (inside or name) == _LOOPBACK and not joined:
        looks.fail(index, EEXIST, "netlink")
    elif name == _LOOPBACK:
        looks.fail(index, EINVAL, "netlink")
