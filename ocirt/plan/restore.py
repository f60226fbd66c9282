"""The plan of a restore, up to a CRIU that waits for what is asked of it. The container's processes are CRIU's work."""

from __future__ import annotations

from ocirt.errors import Error
from ocirt.kernel import constants as k
from ocirt.plan import INIT, PARENT, cgroup, namespaces, rootfs, step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.plan import Host, Plan, Request

# Of a mount's steps those that make its target, and what lies below it visible.
_TARGETS = ("mount.clone", "mount.new", "mount.attach")


def plan_restore(spec: dict[str, Any], host: Host, request: Request, paths: dict[str, str]) -> Plan:
    """The steps for a validated `spec`; `paths` are its cgroups. Raises Error with the JSON pointer of what cannot be had.

    CRIU mounts, but makes no targets. So a child mounts all once, in a mount namespace that goes with it: what is missing of the
    targets is made by the same steps as for a new container.

    CRIU is started in the container's cgroups, where what it restores then stays. A scope of systemd's is made around it.
    """
    linux = spec["linux"]
    spaces = namespaces.Namespaces(linux, host)
    if not spaces.has_mount:
        message = "a container without a mount namespace cannot be restored: its mounts are the host's"
        raise Error("unsupported", message, subject="/linux/namespaces", hint='add {"type": "mount"}')
    tree = rootfs.Tree(spec, spaces, host, request)
    groups: Any = cgroup
    if request.cgroups == "systemd":
        from ocirt.plan import systemd as groups  # noqa: PLC0415  (only then)
    entries = groups.entries_of(spec, host)
    plan = namespaces.open_joined(spaces)
    plan += rootfs.sources(tree, spaces, host)
    plan.append(step(PARENT, "sync.open"))
    plan.append(step(PARENT, "process.clone", INIT, k.CLONE_NEWNS, at="/root/path"))
    plan.append(step(INIT, "process.die_with_parent"))
    plan += rootfs.root(tree)
    plan += _targets(rootfs.mounts(tree, spaces, paths, host))
    plan += [step(INIT, "sync.tell", "mounted"), step(PARENT, "sync.expect", "mounted")]
    plan += groups.before(spec, paths, entries, host, request)
    plan.append(step(PARENT, "criu.start"))
    if request.cgroups == "systemd":
        plan += groups.hand_over(spec, paths, entries, host, request)
    plan += groups.after(spec, paths, entries, host, request)
    return plan


def _targets(mounts: Plan) -> Plan:
    """Cgroups are left out: their mounts need no target, and the container has no cgroups yet."""
    slots = {arguments[0] for _, operation, arguments, _, _ in mounts if operation == "mount.cgroup"}
    return [each for each in mounts if each[1] in _TARGETS and each[2][0] not in slots]
