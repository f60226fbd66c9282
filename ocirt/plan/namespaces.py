"""Which namespaces are made, which joined, by whom, and in which order (namespaces(7), user_namespaces(7)).

One clone3(2) makes init with all of its new namespaces: the kernel makes the user namespace first, so that the others belong to
it. The cgroup namespace comes later, by unshare(2), as its root is the cgroup that the caller is in. What is joined is joined by
init, but for

- the pid namespace, which counts for children only: the parent joins it for its next child, and goes back;
- a user namespace that is joined, or that is new beside others that are joined: then a stage joins and clones init, as what was
  made before belongs to the host's user namespace and cannot be entered from inside the new one;
- the pid namespace, if the runtime is in a user namespace itself: its own pid namespace may be the host's, to which it could not
  go back, so a stage joins here as well.

The clocks of a new time namespace can be set only before there is a process in it, and by unshare(2) none comes into it but
children (on newer kernels than 6.1 also who executes a program). So with offsets, too, there is a stage: it makes the namespace,
sets them, and clones init.
"""

from __future__ import annotations

from errno import EPERM

from ocirt.kernel import constants as k
from ocirt.plan import INIT, PARENT, STAGE, id_lines, step
from ocirt.plan.process import met

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.plan import Host, Plan

FLAGS: dict[str, int] = {
    "pid": k.CLONE_NEWPID,
    "network": k.CLONE_NEWNET,
    "ipc": k.CLONE_NEWIPC,
    "uts": k.CLONE_NEWUTS,
    "mount": k.CLONE_NEWNS,
    "user": k.CLONE_NEWUSER,
    "cgroup": k.CLONE_NEWCGROUP,
    "time": k.CLONE_NEWTIME,
}
# The mount namespace last: with it the paths of the others change their meaning.
_ORDER = ("network", "ipc", "uts", "time", "cgroup", "pid", "mount")


class Namespaces:
    """The entries of `linux.namespaces`: `new` and `joined` (type to path), `pointers` by type; and how init comes into them.

    offsets: what is written for the clocks of a new time namespace, or "". staged: a stage clones init, and has joined
    everything before, or nothing (`joins_inside`): then init joins with the rights that its user namespace gives.
    """

    __slots__ = ("joined", "joins_inside", "new", "offsets", "pointers", "staged")

    def __init__(self, linux: dict[str, Any], host: Host) -> None:
        self.new: set[str] = set()
        self.joined: dict[str, str] = {}
        self.pointers: dict[str, str] = {}
        for index, entry in enumerate(linux.get("namespaces", ())):
            kind = entry["type"]
            self.pointers[kind] = f"/linux/namespaces/{index}"
            if entry.get("path"):
                self.joined[kind] = entry["path"]
            else:
                self.new.add(kind)
        others = self.joined.keys() - {"pid"}
        self.staged = (
            "user" in others
            or ("user" in self.new and bool(others) and host.root)
            or ("pid" in self.joined and host.user_namespace)
        )
        self.offsets = _offsets(linux["timeOffsets"]) if "timeOffsets" in linux else ""
        self.joins_inside = not self.staged
        if self.offsets and not self.staged:
            self.staged = True
            self.joins_inside = "user" in self.new and not host.root

    @property
    def has_user(self) -> bool:
        """Whether the container has a user namespace that is not the runtime's."""
        return "user" in self.new or "user" in self.joined

    @property
    def has_mount(self) -> bool:
        """Whether the container has a mount namespace that is not the runtime's."""
        return "mount" in self.new or "mount" in self.joined

    @property
    def clone_flags(self) -> int:
        """CLONE_NEW* for the clone of init."""
        flags = 0
        for kind in self.new:
            flags |= FLAGS[kind]
        if self.offsets:
            flags &= ~self.unshared
        return flags & ~k.CLONE_NEWCGROUP

    @property
    def unshared(self) -> int:
        """CLONE_NEW* of what a stage makes before it clones init: the time namespace with its offsets, and who owns it."""
        return k.CLONE_NEWTIME | (k.CLONE_NEWUSER if "user" in self.new else 0)


def _offsets(section: dict[str, Any]) -> str:
    """`timeOffsets` as /proc/PID/timens_offsets takes them, "" if there is nothing to set."""
    lines = [
        f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}\n"
        for clock, offset in section.items()
        if clock in ("monotonic", "boottime") and (offset.get("secs") or offset.get("nanosecs"))
    ]
    return "".join(lines)


def open_joined(spaces: Namespaces) -> Plan:
    """Open what is to be joined, before anything is made."""
    plan = []
    for kind, path in spaces.joined.items():
        pointer = spaces.pointers[kind] + "/path"
        plan.append(step(PARENT, "namespace.open", "namespace/" + kind, path, FLAGS[kind], at=pointer))
    return plan


def _join(side: str, spaces: Namespaces, kind: str) -> Any:
    return step(side, "namespace.join", "namespace/" + kind, FLAGS[kind], at=spaces.pointers[kind] + "/path")


def clone(spaces: Namespaces, score: Plan) -> Plan:
    """The parent's and the stage's steps that end with a new init, with the steps `score` for whichever process comes first."""
    flags = spaces.clone_flags
    if not spaces.staged:
        if "pid" not in spaces.joined:
            return [step(PARENT, "process.clone", INIT, flags, at="/linux/namespaces"), *score]
        return [
            step(PARENT, "process.protect"),  # the child that is cloned next can be seen from inside
            _join(PARENT, spaces, "pid"),
            step(PARENT, "process.clone", INIT, flags, at="/linux/namespaces"),
            step(PARENT, "namespace.return_pid"),
            *score,
        ]
    plan = [
        step(PARENT, "process.clone", STAGE, 0, at="/linux/namespaces"),
        *score,
    ]
    if spaces.offsets:
        plan.append(step(STAGE, "namespace.open_offsets", at="/linux/timeOffsets"))
    joins = [
        _join(STAGE, spaces, kind) for kind in _ORDER if kind in spaces.joined and (kind == "pid" or not spaces.joins_inside)
    ]
    if joins or "user" in spaces.joined:
        plan.append(step(STAGE, "process.protect"))
    if "user" in spaces.joined:
        # With the host's rights where these are needed, else with those that the user namespace gives.
        for side, operation, arguments, pointer, _ in joins:
            plan.append(step(side, operation, *arguments, at=pointer, errors={EPERM: ("namespace.postpone", arguments)}))
        plan += [
            _join(STAGE, spaces, "user"),
            step(STAGE, "user.become_root", at=spaces.pointers["user"]),
            step(STAGE, "namespace.join_postponed"),
        ]
    else:
        plan += joins
    if spaces.offsets:
        plan += [
            step(STAGE, "namespace.unshare", spaces.unshared, at=spaces.pointers["time"]),
            step(STAGE, "namespace.set_offsets", spaces.offsets, at="/linux/timeOffsets"),
        ]
    plan += [
        step(STAGE, "process.clone_sibling", INIT, flags, at="/linux/namespaces"),
        *met(),
    ]
    return plan


def enter(spaces: Namespaces, *, by_init: bool) -> Plan:
    """Init's first steps in namespaces, once it is in its cgroup; `by_init`: it brings up `lo` itself."""
    plan: Plan = []
    if spaces.joins_inside:
        plan += [_join(INIT, spaces, kind) for kind in _ORDER if kind in spaces.joined and kind != "pid"]
    if "cgroup" in spaces.new:
        plan.append(step(INIT, "namespace.unshare", k.CLONE_NEWCGROUP, at=spaces.pointers["cgroup"]))
    if "network" in spaces.new and by_init:
        plan.append(step(INIT, "namespace.loopback_up", at=spaces.pointers["network"]))
    return plan


def meanwhile(spaces: Namespaces, *, by_init: bool) -> Plan:
    """What the parent does for init's namespaces while init is at work: the kernel's lock on links may be held for long."""
    if "network" not in spaces.new or by_init:
        return []
    return [step(PARENT, "namespace.loopback_up_of_init", at=spaces.pointers["network"])]


def maps(spaces: Namespaces, linux: dict[str, Any], host: Host) -> Plan:
    """Write the id mappings of a new user namespace, and become its root."""
    if "user" not in spaces.new:
        if "user" in spaces.joined:
            return [step(INIT, "user.become_root", at=spaces.pointers["user"])]
        return []
    uids, gids = id_lines(linux.get("uidMappings", ())), id_lines(linux.get("gidMappings", ()))
    return [
        step(PARENT, "user.map", uids, gids, host.root, at="/linux/uidMappings"),
        step(PARENT, "sync.tell", "mapped"),
        step(INIT, "sync.expect", "mapped"),
        step(INIT, "user.become_root", at=spaces.pointers["user"]),
    ]
