"""The plan of a pod's init: a process that does nothing but hold a PID namespace, and can be used for nothing else."""

from __future__ import annotations

from errno import EACCES, EPERM

from ocirt.kernel import constants as k
from ocirt.plan import INIT, PARENT, namespaces, process, step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.plan import Host, Plan

JOINED = ("ipc", "network", "user", "uts")


def plan_podinit(joined: dict[str, str], cgroups: dict[str, str], program: str, score: int, host: Host) -> Plan:
    """The steps that make it, in a new PID and a new mount namespace.

    joined: paths of the pod's other namespaces by type. cgroups: directories that are there, by controller. program: the compiled
    launcher/podinit.c. score: for the OOM killer.
    """
    entries: list[dict[str, str]] = [{"type": "pid"}, {"type": "mount"}]
    entries += [{"type": kind, "path": joined[kind]} for kind in JOINED if kind in joined]
    spaces = namespaces.Namespaces({"namespaces": entries}, host)
    plan = namespaces.open_joined(spaces)
    plan.append(step(PARENT, "podinit.load", program))
    empty = (("size", "4096"), ("nr_inodes", "1"), ("mode", "555"))
    attributes = k.MOUNT_ATTR_RDONLY | k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV | k.MOUNT_ATTR_NOEXEC
    plan.append(step(PARENT, "mount.new", "root", "tmpfs", "pod", empty, attributes))
    if cgroups:
        plan.append(step(PARENT, "cgroup.open", cgroups))
    plan.append(step(PARENT, "sync.open"))
    plan += namespaces.clone(spaces, [])
    if cgroups:
        plan.append(step(INIT, "cgroup.join"))
    plan += process.affinity(INIT)
    plan.append(step(PARENT, "process.set_oom_score", score, errors={EACCES: None, EPERM: None}))
    if "user" in joined:
        plan.append(step(INIT, "user.become_root"))
    plan += [step(INIT, "process.protect"), step(INIT, "process.die_with_parent")]
    plan += namespaces.enter(spaces, by_init=True)
    plan += [
        step(INIT, "process.new_session"),
        step(INIT, "process.join_keyring", "_ses.pod"),
        step(INIT, "mount.propagate_host", k.MS_PRIVATE, True),
        # Over the root of its own mount namespace: see ocirt.plan.overlay. Nothing is looked up by a path from here on.
        step(INIT, "tree.attach_root", "/"),
        step(INIT, "tree.pivot"),
        step(INIT, "process.close_descriptors", 0),
        step(INIT, "process.limit_bounding_set", 0),
        step(INIT, "user.become", 0, 0, (), spaces.has_user or host.user_namespace),
        step(INIT, "process.set_capabilities", 0, 0, 0),
        step(INIT, "process.no_new_privileges"),
        # In this order: told that init is ready, the parent may end before init's next instruction.
        step(INIT, "process.outlive_parent"),
        step(INIT, "sync.tell", "ready"),
        step(PARENT, "sync.expect", "ready"),
        step(PARENT, "state.commit"),
        step(PARENT, "sync.tell", "committed"),
        step(INIT, "sync.leave_parent", "committed"),
        step(INIT, "podinit.execute"),
    ]
    return plan
