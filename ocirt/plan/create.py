"""The plan of a container: from config.json to its program."""

from __future__ import annotations

from ocirt.cgroups.paths import resolve, writable
from ocirt.errors import Error
from ocirt.plan import INIT, PARENT, START, cgroup, namespaces, process, rootfs, step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.plan import Host, Plan, Request

HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def cgroup_paths(spec: dict[str, Any], host: Host, request: Request) -> dict[str, str]:
    """The container's cgroup directories by controller. Raises Error."""
    if request.cgroups == "disabled" or host.layout.mode == "none":
        return {}
    if request.cgroups == "systemd":
        from ocirt.plan import systemd  # noqa: PLC0415  (only then)

        return systemd.paths(spec, host, request)
    found = resolve(spec["linux"].get("cgroupsPath"), request.container_id, host.layout, request.lenient_cgroups)
    if request.lenient_cgroups:
        usable = writable(found)
        # Half a set of cgroups is of no use without limits, and in the way of a later cleaning up.
        return usable if len(usable) == len(found) or cgroup.wanted(spec["linux"].get("resources") or {}) else {}
    return found


def plan_create(spec: dict[str, Any], host: Host, request: Request, paths: dict[str, str]) -> Plan:
    """The steps for a validated `spec`; `paths` are its cgroups, from `cgroup_paths`.

    Raises Error with the JSON pointer of what cannot be had.
    """
    linux, hooks = spec["linux"], spec.get("hooks") or {}
    spaces = namespaces.Namespaces(linux, host)
    tree = rootfs.Tree(spec, spaces, host, request)
    run = process.Process(spec["process"])
    if request.notify:
        run.set_variable("NOTIFY_SOCKET", rootfs.NOTIFY + "/notify.sock")
    seccomp = linux.get("seccomp")
    agent = process.agent(seccomp, request.bundle)
    groups: Any = cgroup
    if request.cgroups == "systemd":
        from ocirt.plan import systemd as groups  # noqa: PLC0415  (only then)
    entries = groups.entries_of(spec, host)
    # The parent may do it later than init comes to its hooks, without root may not do it, and in a user namespace not come back.
    by_init = not host.root or host.user_namespace or bool(hooks.get("createContainer"))
    waiter = request.waits and bool(host.waiter) and not hooks.get("startContainer")
    waiter = waiter and process.can_wait_outside(run, filtered=bool(seccomp))
    if spaces.has_mount and not request.pivot and (linux.get("rootfsPropagation") or "").endswith("private"):
        raise Error("invalid", "a private root needs pivot_root", subject="/linux/rootfsPropagation", hint="leave --no-pivot out")

    if linux.get("mountLabel"):
        from ocirt.plan import label  # noqa: PLC0415  (only with SELinux)

        label.need(host, "SELinux", "/linux/mountLabel")

    plan = namespaces.open_joined(spaces)
    plan += rootfs.sources(tree, spaces, host)
    net_devices = linux.get("netDevices")
    if net_devices:
        from ocirt.plan import netdevices  # noqa: PLC0415  (only if there are some)

        plan += netdevices.look(net_devices, spaces)
    if seccomp:
        plan.append(step(PARENT, "program.load_filter", request.state_root, seccomp, at="/linux/seccomp"))
    if agent:
        plan.append(step(PARENT, "listener.check", agent["path"], at="/linux/seccomp/listenerPath"))
    plan += groups.before(spec, paths, entries, host, request)
    if "intelRdt" in linux:
        from ocirt.plan import resctrl  # noqa: PLC0415  (only if the section is there)

        plan += resctrl.make(linux["intelRdt"], host, request.container_id)
    if request.waits:
        plan.append(step(PARENT, "barrier.make", request.directory))
        if agent:
            plan.append(step(PARENT, "listener.listen", request.directory, at="/linux/seccomp/listenerPath"))
        if waiter:
            plan.append(step(PARENT, "waiter.load", host.waiter))
    plan += rootfs.anchor(tree)
    plan.append(step(PARENT, "sync.open"))
    plan += namespaces.clone(spaces, process.oom_score(run, staged=spaces.staged))
    plan += groups.enter(spec, paths, entries, host, request)
    if "intelRdt" in linux:
        plan += resctrl.join(linux["intelRdt"], host, request.container_id)
    plan += process.affinity(INIT)
    plan += namespaces.maps(spaces, linux, host)
    plan += namespaces.meanwhile(spaces, by_init=by_init)
    plan += process.limits(run)
    own, meanwhile, at_last = process.baseline(run, request, user_namespace=spaces.has_user)
    plan += meanwhile
    plan.append(step(PARENT, "state.prepare"))
    plan += [step(INIT, "process.protect"), step(INIT, "process.die_with_parent")]
    plan += namespaces.enter(spaces, by_init=by_init)
    plan.append(step(INIT, "process.new_session"))
    plan += own
    plan += process.keyring(run, request)
    if id_maps := rootfs.id_maps(tree, spaces):
        plan += id_maps
        plan += [step(PARENT, "sync.tell", "id-mapped"), step(INIT, "sync.expect", "id-mapped")]

    plan += rootfs.root(tree)
    plan += rootfs.mounts(tree, spaces, paths, host)
    plan += rootfs.notify(tree, spaces)
    plan += rootfs.devices(tree, spaces, host)
    if hooks.get("prestart") or hooks.get("createRuntime") or net_devices:
        plan += [step(INIT, "sync.tell", "mounted"), step(PARENT, "sync.expect", "mounted")]
        if net_devices:
            plan += netdevices.move(net_devices)
        plan += _hooks(hooks, "prestart", PARENT, "creating")
        plan += _hooks(hooks, "createRuntime", PARENT, "creating")
        plan += [step(PARENT, "sync.tell", "hooked"), step(INIT, "sync.expect", "hooked")]
    plan += _hooks(hooks, "createContainer", INIT, "creating")
    for name, operation in (("hostname", "process.set_host_name"), ("domainname", "process.set_domain_name")):
        if spec.get(name):
            plan.append(step(INIT, operation, spec[name], at="/" + name))
    if request.console:
        plan += process.console(run, bind=True)
    plan += rootfs.finish(tree)
    if request.pipes:
        plan.append(step(INIT, "stdio.take"))
    plan += process.labels(run, INIT, host)
    plan += rootfs.enter(tree, request)
    plan.append(step(INIT, "process.close_descriptors", request.fds))
    inside, outside = process.scheduled(run, linux, host)
    plan += process.identity(run, inside, user_namespace=spaces.has_user or host.user_namespace, seccomp=bool(seccomp))

    # In this order: told that init is ready, the parent may end before init's next instruction.
    plan += [step(INIT, "process.outlive_parent"), step(INIT, "sync.tell", "ready"), step(PARENT, "sync.expect", "ready")]
    plan += groups.after(spec, paths, entries, host, request)
    plan += outside + at_last
    if spaces.has_user and host.root and not request.console:
        plan.append(step(PARENT, "stdio.give", run.uid, at=run.pointer + "/user"))
    plan += [step(PARENT, "state.commit"), step(PARENT, "sync.tell", "committed"), step(INIT, "sync.leave_parent", "committed")]
    if request.waits and not waiter:
        plan.append(step(START, "barrier.wait"))
    plan += _hooks(hooks, "startContainer", START, "created")
    plan += process.tail(
        run,
        fds=request.fds,
        listen_fds=request.listen_fds,
        filtered=bool(seccomp),
        listener=bool(agent),
        waiter=waiter,
    )
    return plan


def _hooks(hooks: dict[str, Any], kind: str, side: str, status: str) -> Plan:
    return [
        step(side, "hooks.run", kind, index, hook, status, at=f"/hooks/{kind}/{index}")
        for index, hook in enumerate(hooks.get(kind) or ())
    ]
