"""Plans to test with: made for hosts that are described by hand, and questions to ask of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ocirt.cgroups.layout import Layout
from ocirt.cgroups.paths import resolve
from ocirt.cgroups.resctrl import Resctrl
from ocirt.cgroups.units import Manager
from ocirt.cli.spec import default
from ocirt.plan import Host, Request
from ocirt.plan.create import cgroup_paths, plan_create
from ocirt.plan.execute import plan_exec
from ocirt.plan.overlay import Overlay
from ocirt.spec.check import check
from tests.seccomp_profiles import docker_default
from tests.support.bundle import default_config, edited
from tests.unit.spec.documents import buildah, containerd, docker, podman

if TYPE_CHECKING:
    from ocirt.plan import Plan, Step

Spec = dict[str, Any]

BUNDLE = "/bundles/b"
ROOT = "/run/state"
CGROUP = "/sys/fs/cgroup"
WAITER = "/usr/lib/ocirt/kernel/waiter"
CONTROLLERS = ("cpuset", "cpu", "cpuacct", "blkio", "memory", "devices", "freezer", "pids", "hugetlb", "name=systemd")

MAPPING = {"containerID": 0, "hostID": 100000, "size": 65536}
USER: Spec = {"uidMappings": [MAPPING], "gidMappings": [MAPPING]}
ALL_KINDS = ("pid", "network", "ipc", "uts", "mount", "cgroup")


def layout(mode: str = "v2") -> Layout:
    """A cgroup layout as real machines have it: "v1", "hybrid", "v2" or "none"."""
    mounts: dict[str, str] = {}
    if mode in ("v1", "hybrid"):
        mounts = {name: f"{CGROUP}/{name.removeprefix('name=')}" for name in CONTROLLERS}
    if mode == "hybrid":
        mounts[""] = CGROUP + "/unified"
    if mode == "v2":
        mounts[""] = CGROUP
    return Layout(mode, mounts, dict.fromkeys(mounts, "/"))


def host(
    mode: str = "v2",
    *,
    root: bool = True,
    user_namespace: bool = False,
    waiter: str = "",
    rdt: bool = False,
    modules: tuple[str, ...] = (),
    systemd: Manager | None = None,
) -> Host:
    """A machine and a caller; `rdt`: with resctrl."""
    made_up = Host(layout(mode), root, user_namespace, waiter, systemd)
    if rdt:
        made_up.resctrl = Resctrl("/sys/fs/resctrl", frozenset(("L3", "MB", "L3_MON")))
    made_up.modules = modules
    return made_up


def request(**changes: Any) -> Request:
    """What the command line adds; changes by keyword."""
    return Request("c1", BUNDLE, ROOT + "/c1", **{"state_root": ROOT, **changes})


def made(spec: Spec, on: Host | None = None, asked: Request | None = None, paths: dict[str, str] | None = None) -> Plan:
    """The plan that makes the container of `spec`, in the cgroups `paths`, or those that a root has who may make all of them."""
    on, asked = on or host(), asked or request()
    if paths is None and asked.cgroups == "systemd":
        paths = cgroup_paths(spec, on, asked)
    if paths is None:
        path = spec["linux"].get("cgroupsPath")
        there = asked.cgroups != "disabled" and on.layout.mode != "none"
        paths = resolve(path, asked.container_id, on.layout, rootless=False) if there else {}
    return plan_create(copy.deepcopy(spec), on, asked, paths)


def create(on: Host | None = None, asked: Request | None = None, paths: dict[str, str] | None = None, **edits: Any) -> Plan:
    """The plan for the default configuration with edits (see tests.support.bundle.edited), which must be a valid one."""
    spec = edited(default_config(), **edits)
    on = on or host()
    assert [finding for finding in check(copy.deepcopy(spec), not on.root) if finding[3] == "error"] == []
    return made(spec, on, asked, paths)


def spaces(*kinds: str, **joined: str) -> list[Spec]:
    """`linux.namespaces`: new ones by name, and joined ones as keywords with their path."""
    return [{"type": kind} for kind in kinds] + [{"type": kind, "path": path} for kind, path in joined.items()]


def execution(
    on: Host | None = None,
    asked: Request | None = None,
    *,
    kinds: tuple[str, ...] = ALL_KINDS,
    paths: dict[str, str] | None = None,
    seccomp: Spec | None = None,
    kept: Spec | None = None,
    unit: str = "",
    **process: Any,
) -> Plan:
    """The plan that runs one more process in a container with new namespaces `kinds`, and with `kept` in its record."""
    spec = {"process": default_config()["process"] | process, "seccomp": seccomp}
    own = {"": CGROUP + "/c1"}
    cgroup: dict[str, Any] = {"paths": own} | ({"unit": unit, "user": True} if unit else {})
    record = {"pid": 4242, "start_time": 7, "namespaces": dict.fromkeys(kinds, ""), "cgroup": cgroup, **(kept or {})}
    return plan_exec(spec, record, own if paths is None else paths, on or host(), asked or request())


# -- questions -----------------------------------------------------------------------------------------------------------------


def operations(plan: Plan, *sides: str) -> list[str]:
    """The operations in their order, of some sides or of all."""
    return [each[1] for each in plan if not sides or each[0] in sides]


def find(plan: Plan, operation: str, *arguments: Any, side: str = "") -> list[int]:
    """Where an operation stands, with these first arguments."""
    return [
        index
        for index, each in enumerate(plan)
        if each[1] == operation and each[2][: len(arguments)] == arguments and side in ("", each[0])
    ]


def at(plan: Plan, operation: str, *arguments: Any, side: str = "") -> int:
    """Where an operation stands that must be there once."""
    found = find(plan, operation, *arguments, side=side)
    assert len(found) == 1, f"{operation}{arguments} stands {len(found)} times"
    return found[0]


def the(plan: Plan, operation: str, *arguments: Any, side: str = "") -> Step:
    """The one step with an operation."""
    return plan[at(plan, operation, *arguments, side=side)]


def in_order(plan: Plan, *wanted: str) -> None:
    """Fail unless the operations that are in the plan stand in this order: all of one before all of the next."""
    places = [(operation, find(plan, operation)) for operation in wanted]
    there = [(operation, found) for operation, found in places if found]
    for (first, before), (second, after) in zip(there, there[1:], strict=False):
        assert max(before) < min(after), f"{first} stands at {before}, {second} at {after}"


def calls(plan: Plan) -> Iterator[tuple[str, int, str, tuple[Any, ...]]]:
    """Each operation that may come to be called, alternatives too: (side, index, operation, arguments)."""
    for index, (side, operation, arguments, _, errors) in enumerate(plan):
        yield side, index, operation, arguments
        for call in (errors or {}).values():
            if call is not None:
                yield side, index, *call


# -- many plans ----------------------------------------------------------------------------------------------------------------

SECCOMP = docker_default()
HOOK = {"path": "/bin/hook", "args": ["hook", "x"], "env": ["A=b"], "timeout": 2}
HOOKS = {
    kind: [HOOK, {"path": "/bin/other"}]
    for kind in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
}
BIND = {"destination": "/data", "source": "/srv/data", "options": ["rbind", "ro", "rprivate"]}
ID_MAPPED = {"destination": "/mapped", "source": "volume", "options": ["bind", "idmap"]}
OWN_MAPPINGS = {"destination": "/own", "source": "/own", "options": ["rbind", "ridmap"], **USER}
READ_ONLY_TMPFS = {"destination": "/ro", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "tmpcopyup", "size=1m"]}
CGROUP_MOUNT = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "ro"]}
NET_DEVICES = {"eth1": {"name": "eth0"}, "a~b": {}}
LIMITS = {
    "devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}],
    "memory": {"limit": 1 << 26},
    "pids": {"limit": 7},
    "cpu": {"quota": 50000, "period": 100000, "shares": 512, "cpus": "0"},
}
RLIMITS = [
    {"type": "RLIMIT_" + name, "soft": 1 << 20, "hard": 1 << 21}
    for name in ("AS", "NPROC", "NOFILE", "CORE", "DATA", "CPU", "STACK", "FSIZE")
]
NOTIFYING = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "listenerPath": "agent.sock",
    "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
}
DEVICES = [
    {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 1, "gid": 2},
    {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o20666},
    {"path": "/dev/sub/pipe", "type": "p"},
    {"path": "/srv/block", "type": "b", "major": 7, "minor": 0},
]

SCHEDULING: dict[str, Any] = {
    "scheduler": {"policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
    "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 3},
    "execCPUAffinity": {"initial": "0", "final": "1,64"},
}
CLOCKS: Spec = {"timeOffsets": {"monotonic": {"secs": 5}, "boottime": {"secs": -7, "nanosecs": 8}}}
LABELS: dict[str, Any] = {"apparmorProfile": "docker-default", "selinuxLabel": "system_u:system_r:container_t:s0:c1"}


def everything() -> Spec:
    """One configuration with something of every kind."""
    return edited(
        default_config(),
        namespaces=[*ALL_KINDS, "time"],
        add_mounts=[BIND, READ_ONLY_TMPFS, CGROUP_MOUNT],
        resources=LIMITS,
        seccomp=SECCOMP,
        rlimits=RLIMITS,
        devices=DEVICES,
        sysctl={"net.ipv4.ip_forward": "1", "kernel.msgmax": "65536"},
        rootfsPropagation="rshared",
        cgroupsPath="/pods/c1",
        oomScoreAdj=100,
        domainname="example.org",
        hooks=HOOKS,
        cwd="/home/there",
        terminal=True,
        consoleSize={"height": 25, "width": 80},
        user={"uid": 1000, "gid": 1000, "additionalGids": [5], "umask": 63},
        capabilities={
            name: ["CAP_KILL", "CAP_CHOWN"] for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
        },
        root={"path": "rootfs", "readonly": True},
        process=SCHEDULING,
        linux={
            "personality": {"domain": "LINUX32"},
            "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]},
        },
    )


def _rootless(**edits: Any) -> Spec:
    spec = default()
    kept = [entry for entry in spec["linux"]["namespaces"] if entry["type"] != "network"]
    own = [{"containerID": 0, "hostID": 1000, "size": 1}]
    spec["linux"] |= {"namespaces": [*kept, {"type": "user"}], "uidMappings": own, "gidMappings": own}
    return edited(spec, **edits)


SYSTEMD = Manager(252, "", user=False)
USERS_SYSTEMD = Manager(256, "/user.slice/user-1000.slice/user@1000.service", user=True)

Case = tuple[Callable[[], Spec], Host, Request]


def cases() -> dict[str, Case]:
    """Configurations, hosts and requests of all sorts, by a name for the test."""
    base = default_config
    by_path = {kind: f"/proc/7/ns/{kind}" for kind in ("network", "ipc", "uts")}

    def with_edits(**edits: Any) -> Callable[[], Spec]:
        return lambda: edited(base(), **edits)

    user = with_edits(namespaces=spaces("pid", "mount", "user", "uts"), linux=USER)
    return {
        "default": (base, host(), request()),
        "spec": (default, host(), request(console="socket")),
        "run": (base, host("hybrid"), request(waits=False, pipes=True)),
        "run with a terminal": (default, host("v1"), request(waits=False, console="attached")),
        "everything": (everything, host(), request(console="socket", fds=3, listen_fds=2)),
        "everything, v1": (everything, host("v1"), request(console="attached", waits=False)),
        "everything in a user namespace": (
            lambda: edited(everything(), linux=USER, namespaces=[*ALL_KINDS, "user"], add_mounts=[ID_MAPPED, OWN_MAPPINGS]),
            host(),
            request(console="socket"),
        ),
        "confined": (
            with_edits(process=LABELS, linux={"mountLabel": "system_u:object_r:container_file_t:s0"}),
            host(waiter=WAITER, modules=("AppArmor", "SELinux")),
            request(),
        ),
        "waiter": (base, host(waiter=WAITER), request()),
        "waiter, all of it": (
            lambda: edited(everything(), hooks=None, noNewPrivileges=True),
            host("v1", waiter=WAITER),
            request(fds=1),
        ),
        "clocks": (with_edits(namespaces=[*ALL_KINDS, "time"], linux=CLOCKS), host("v1"), request()),
        "clocks, user": (
            with_edits(namespaces=spaces("pid", "mount", "user", "uts", "time"), linux=USER | CLOCKS),
            host(),
            request(),
        ),
        "clocks, joined": (
            with_edits(namespaces=spaces("mount", "user", "time", pid="/proc/7/ns/pid", **by_path), linux=USER | CLOCKS),
            host(),
            request(),
        ),
        "notify": (base, host(), request(notify=True)),
        "baseline": (base, host(), request(baseline=True)),
        "baseline, user": (user, host(), request(baseline=True)),
        "overlay": (base, host(), request(overlay=Overlay(["/l/2", "/l/1"], "/c/upper", "/c/work", volatile=True))),
        "notify, user": (user, host(), request(notify=True, waits=False)),
        "agent": (with_edits(seccomp=NOTIFYING), host(waiter=WAITER), request()),
        "agent, at once": (with_edits(seccomp=NOTIFYING, noNewPrivileges=False), host("v1"), request(waits=False)),
        "no pivot": (base, host(), request(pivot=False)),
        "no mount namespace": (with_edits(namespaces=spaces("pid", "uts")), host("hybrid"), request()),
        "no mount namespace, everything": (
            lambda: edited(everything(), namespaces=[kind for kind in (*ALL_KINDS, "time") if kind != "mount"]),
            host(),
            request(console="socket", notify=True, pivot=False),
        ),
        "no namespace": (
            with_edits(namespaces=[], hostname=None, add_mounts=[BIND, OWN_MAPPINGS], linux={"rootfsPropagation": "rprivate"}),
            host("v1", user_namespace=True),
            request(waits=False, pipes=True),
        ),
        "no keyring": (base, host(), request(keyring=False)),
        "no cgroups": (base, host(), request(cgroups="disabled")),
        "cgroups if they may be made": (base, host(user_namespace=True), request(lenient_cgroups=True)),
        "no hierarchy": (base, host("none"), request()),
        "user": (user, host(), request()),
        "user, nested": (user, host(root=True, user_namespace=True), request()),
        "user beside joined": (
            with_edits(namespaces=spaces("pid", "mount", "user", **by_path), linux=USER, add_mounts=[ID_MAPPED, BIND]),
            host("hybrid"),
            request(),
        ),
        "user beside a joined pid namespace": (
            with_edits(namespaces=spaces("mount", "user", "uts", pid="/proc/7/ns/pid"), linux=USER),
            host(),
            request(),
        ),
        "resctrl": (
            with_edits(linux={"intelRdt": {"closID": "x", "enableMonitoring": True}}),
            host("hybrid", rdt=True),
            request(),
        ),
        "network devices": (with_edits(linux={"netDevices": NET_DEVICES}), host(), request()),
        "network devices, joined": (
            with_edits(namespaces=spaces("pid", "mount", **by_path), linux={"netDevices": NET_DEVICES}, hooks=HOOKS),
            host("v1"),
            request(),
        ),
        "joined": (with_edits(namespaces=spaces("pid", "mount", **by_path)), host(), request()),
        "joined pid namespace": (
            with_edits(namespaces=spaces("mount", "uts", "cgroup", pid="/proc/7/ns/pid")),
            host(),
            request(),
        ),
        "rootless": (_rootless, host(root=False), request(console="socket", lenient_cgroups=True, cgroups="disabled")),
        "rootless, clocks": (
            lambda: _rootless(
                edit=lambda spec: spec["linux"]["namespaces"].append({"type": "time"}), linux=CLOCKS, oomScoreAdj=5
            ),
            host(root=False),
            request(cgroups="disabled", console="socket"),
        ),
        "rootless with an adjustment": (
            lambda: _rootless(oomScoreAdj=100, hooks=HOOKS),
            host("hybrid", root=False),
            request(console="attached", cgroups="disabled", waits=False),
        ),
        "rootless with a network namespace": (
            lambda: _rootless(edit=lambda spec: spec["linux"]["namespaces"].append({"type": "network"})),
            host(root=False),
            request(cgroups="disabled", console="socket"),
        ),
        "systemd": (base, host(systemd=SYSTEMD), request(cgroups="systemd")),
        "systemd, everything": (
            lambda: edited(everything(), cgroupsPath="a-b.slice:pod:c1"),
            host(systemd=SYSTEMD),
            request(console="socket", cgroups="systemd"),
        ),
        "systemd, everything, v1": (
            lambda: edited(everything(), cgroupsPath=":pod:c1"),
            host("hybrid", systemd=SYSTEMD, waiter=WAITER),
            request(cgroups="systemd"),
        ),
        "systemd, user": (user, host(systemd=SYSTEMD), request(cgroups="systemd")),
        "systemd, user beside joined": (
            with_edits(namespaces=spaces("pid", "mount", "user", **by_path), linux=USER),
            host("v1", systemd=SYSTEMD),
            request(cgroups="systemd", waits=False, pipes=True),
        ),
        "systemd, rootless": (
            lambda: _rootless(resources=LIMITS),
            host(root=False, systemd=USERS_SYSTEMD),
            request(cgroups="systemd", lenient_cgroups=True),
        ),
        "podman": (podman, host(), request(console="socket")),
        "docker": (docker, host("hybrid"), request()),
        "docker, v2": (docker, host(), request()),
        "buildah": (buildah, host(), request(waits=False, pipes=True)),
    }


def staged_cases() -> dict[str, Case]:
    """Those in which a user namespace is joined: a stage joins it, and init has nothing to wait for."""

    def joined(*kinds: str, **edits: Any) -> Callable[[], Spec]:
        user = {"type": "user", "path": "/proc/7/ns/user"}
        return lambda: edited(default_config(), namespaces=[*spaces(*kinds), user], **edits)

    return {
        "a joined user namespace": (joined("pid", "mount", "uts"), host(), request()),
        "a joined user namespace, clocks": (joined("pid", "mount", "uts", "time", linux=CLOCKS), host(), request()),
        "a joined user namespace, hooks": (joined("pid", "mount", "uts", hooks=HOOKS, oomScoreAdj=7), host(), request()),
        "rootless in a joined user namespace": (
            joined("pid", "mount", "uts", oomScoreAdj=7, resources={}),
            host(root=False),
            request(cgroups="disabled"),
        ),
        "systemd, a joined user namespace": (joined("pid", "mount"), host(systemd=SYSTEMD), request(cgroups="systemd")),
        "containerd": (containerd, host(), request()),
    }


def executions() -> dict[str, Plan]:
    """Plans of `exec` of all sorts."""
    with_user = (*ALL_KINDS, "user")
    return {
        "default": execution(),
        "seccomp": execution(seccomp=SECCOMP, noNewPrivileges=False),
        "agent": execution(seccomp=NOTIFYING),
        "no pid namespace": execution(kinds=("mount", "uts")),
        "no mount namespace": execution(asked=request(console="socket"), kinds=("pid", "uts")),
        "no namespace": execution(kinds=()),
        "time": execution(kinds=(*ALL_KINDS, "time")),
        "user": execution(kinds=with_user),
        "terminal": execution(asked=request(console="socket", fds=2, listen_fds=1)),
        "scheduling": execution(**SCHEDULING),
        "confined": execution(host(modules=("AppArmor", "SELinux")), **LABELS),
        "pipes": execution(asked=request(pipes=True), oomScoreAdj=5, rlimits=RLIMITS),
        "no cgroup": execution(paths={}),
        "resctrl": execution(kept={"resctrl": {"root": "/r", "group": "/r/c1", "monitor": ""}}),
        "v1": execution(host("v1"), paths={name: f"{CGROUP}/{name}/c1" for name in CONTROLLERS}),
    }


def rootless_executions() -> dict[str, Plan]:
    """Those of a runtime that is not root."""
    kinds = ("pid", "ipc", "uts", "mount", "user")
    nobody = host(root=False)
    return {
        "rootless": execution(nobody, kinds=kinds, paths={}),
        "rootless with a terminal": execution(nobody, request(console="attached"), kinds=kinds, paths={}),
        "rootless with scheduling": execution(nobody, kinds=kinds, paths={}, **SCHEDULING),
        "rootless in a cgroup": execution(nobody, kinds=kinds, oomScoreAdj=9),
        "rootless in a unit": execution(nobody, kinds=kinds, oomScoreAdj=9, unit="runc-c1.scope"),
        "rootless below a unit": execution(nobody, kinds=kinds, unit="runc-c1.scope", paths={"": CGROUP + "/c1/sub"}),
    }
