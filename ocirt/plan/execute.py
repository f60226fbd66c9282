"""The plan of `exec`: one more process in a container."""

from __future__ import annotations

from errno import EBUSY, ENOSYS

from ocirt.kernel import constants as k
from ocirt.plan import INIT, PARENT, STAGE, process, step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.plan import Errors, Host, Plan, Request

# Joined by one setns(2) on init's pidfd (Linux 5.8). What the container shares with the host is not: that may be forbidden.
_FLAGS = {
    "cgroup": k.CLONE_NEWCGROUP,
    "ipc": k.CLONE_NEWIPC,
    "mount": k.CLONE_NEWNS,
    "network": k.CLONE_NEWNET,
    "time": k.CLONE_NEWTIME,
    "uts": k.CLONE_NEWUTS,
}


def plan_exec(spec: dict[str, Any], record: dict[str, Any], paths: dict[str, str], host: Host, request: Request) -> Plan:
    """The steps that run `spec["process"]` in the container of `record`, in the cgroups `paths`.

    `spec` is {"process", "seccomp", "linux"}: pointers lead into a process.json, or into config.json's process; `linux` is what
    the record keeps of that section.
    """
    run = process.Process(spec["process"])
    seccomp = spec.get("seccomp")
    kinds = record["namespaces"]
    flags = sum(flag for kind, flag in _FLAGS.items() if kind in kinds)
    user = k.CLONE_NEWUSER if "user" in kinds else 0
    pid = k.CLONE_NEWPID if "pid" in kinds else 0
    plan: Plan = [step(PARENT, "process.open_target", record["pid"], record["start_time"])]
    if "mount" not in kinds:
        plan.append(step(PARENT, "process.open_target_root", record["pid"], record["start_time"]))
    if seccomp:
        plan.append(step(PARENT, "program.load_filter", request.state_root, seccomp, at="/linux/seccomp"))
    agent = process.agent(seccomp, request.bundle)
    if agent:
        plan.append(step(PARENT, "listener.check", agent["path"], at="/linux/seccomp/listenerPath"))
    # A user's systemd may move a process where the user may not, out of a login session for example.
    unit = paths and record["cgroup"].get("user") and record["cgroup"]["unit"]
    if paths and not unit:
        plan.append(step(PARENT, "cgroup.open", paths))
    plan.append(step(PARENT, "sync.open"))
    if host.root and pid:
        # It counts for the next child; with root's rights the user namespace need not be joined first.
        plan += [step(PARENT, "process.protect"), step(PARENT, "namespace.join_target", pid)]
    side = INIT if host.root else STAGE
    # A container that has moved its processes to cgroups below its own, and handed on controllers, takes none any more (EBUSY).
    beside: Errors = {EBUSY: ("process.clone_beside", (side, record["pid"]))}
    cloning = [step(PARENT, "process.clone", side, 0, errors=beside if "" in paths and not unit else None)]
    placing = process.affinity(side)
    if run.process.get("execCPUAffinity"):
        from ocirt.plan.scheduling import on_cpus  # noqa: PLC0415  (few ask for it)

        cloning, placing = on_cpus(run, side, cloning, placing)
    plan += cloning
    plan += process.oom_score(run, staged=side == STAGE)
    if unit:
        directory = record["cgroup"]["paths"][""]
        plan.append(step(PARENT, "systemd.attach", unit, directory, paths[""].removeprefix(directory), record["pid"]))
        plan += [step(PARENT, "sync.tell", "grouped"), step(side, "sync.expect", "grouped")]
    elif paths:
        plan.append(step(side, "cgroup.join"))
    plan += process.labels(run, side, host)  # as long as the host's /proc is in sight
    plan += [
        step(side, "process.protect"),
        *placing,
        step(side, "namespace.join_target", flags | user | (pid if side == STAGE else 0)),
    ]
    if side == STAGE:
        plan += [step(STAGE, "process.clone_sibling", INIT, 0), *process.met()]
    if kept := record.get("resctrl"):
        from ocirt.plan import resctrl  # noqa: PLC0415  (only if the container has a group)

        plan += resctrl.join_again(kept)
    if user:
        plan.append(step(INIT, "user.become_root"))
    plan.append(step(INIT, "process.protect"))
    plan.append(step(INIT, "process.die_with_parent"))
    plan.append(step(INIT, "process.new_session"))
    score = (record.get("process") or {}).get("oomScoreAdj", 0)
    own, meanwhile, at_last = process.baseline(run, request, score, user_namespace=bool(user))
    plan += own
    if request.keyring:
        plan.append(step(INIT, "process.join_keyring", "_ses." + request.container_id, errors={ENOSYS: None}))
    if "mount" not in kinds:
        plan.append(step(INIT, "process.change_root", "target/root"))
    plan.append(step(INIT, "process.open_root"))
    if request.console:
        plan += process.console(run, bind=False)
    if request.pipes:
        plan.append(step(INIT, "stdio.take"))
    # Also of what leads to the host only until execve: /proc/self/fd is a way to it for the program and the working directory.
    plan.append(step(INIT, "process.close_descriptors", request.fds))
    inside, outside = process.scheduled(run, spec.get("linux") or {}, host)
    plan += process.identity(run, inside, user_namespace=bool(user) or host.user_namespace, seccomp=bool(seccomp))
    # In this order: told that init is ready, the parent may end before init's next instruction.
    plan += process.limits(run)
    plan += meanwhile
    plan += [step(INIT, "process.outlive_parent"), step(INIT, "sync.tell", "ready"), step(PARENT, "sync.expect", "ready")]
    plan += outside + at_last
    if user and host.root and not request.console:
        plan.append(step(PARENT, "stdio.give", run.uid, at=run.pointer + "/user"))
    plan += [step(PARENT, "state.commit"), step(PARENT, "sync.tell", "committed"), step(INIT, "sync.leave_parent", "committed")]
    plan += process.tail(run, fds=request.fds, listen_fds=request.listen_fds, filtered=bool(seccomp), listener=bool(agent))
    return plan
