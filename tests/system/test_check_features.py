"""`ocirt check` and each property that takes something of the host: it refuses what `create` refuses, at the same place.

Each case is asked of both, with cgroups by files and with `--systemd-cgroup`, where there is no systemd and beside one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ocirt.containers.host import security_modules
from tests.support.bundle import Bundle, Config
from tests.support.isolation import cgroup_mounts, mount, umount
from tests.support.runtime import Runtime
from tests.support.systemd import is_running
from tests.support.systemd_units import SLICE, new, shared, systemd
from tests.support.systemd_units import bundle as shared_bundle
from tests.system.conftest import MakeBundle
from tests.system.test_cgroups import available
from tests.system.test_check import checked
from tests.system.test_idmap import modules, tree
from tests.system.test_namespaces import with_user_namespace
from tests.system.test_netdevices import joining, link, links_in, namespace
from tests.system.test_resources import network_controllers, usable
from tests.system.test_rootless import ONE as ONE_USER
from tests.system.test_rootless import delegated, owned, rootless
from tests.system.test_scheduling import CPUS, need_cpuset, needs_two_cpus

# Fixtures of others.
__all__ = [
    "delegated",
    "link",
    "modules",
    "namespace",
    "network_controllers",
    "new",
    "rootless",
    "shared",
    "shared_bundle",
    "systemd",
    "tree",
]

pytestmark = pytest.mark.ocirt_only("runc has no `check`")

BY_SYSTEMD = ["--systemd-cgroup"]
NO_SYSTEMD = "systemd not running on this host"
ONE = [{"containerID": 0, "hostID": 100_000, "size": 1}]
OTHER = [{"containerID": 5, "hostID": 100_005, "size": 1}]
TWICE = [{"containerID": 0, "hostID": 100_000, "size": 2}, {"containerID": 1, "hostID": 200_000, "size": 1}]
NOTIFY = {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}
NOTE = "org.systemd.property."
RESCTRL = "/sys/fs/resctrl/info"

Case = tuple[Config, str, str]  # edits, JSON pointer, a word of the message


def process(**properties: Any) -> Config:
    return {"process": properties}


def linux(**properties: Any) -> Config:
    return {"linux": properties}


def scheduler(policy: str, **more: Any) -> Config:
    return process(scheduler={"policy": policy, **more})


def mounted(*options: str, source: str = "/proc", **more: Any) -> Config:
    """One more mount; it is /mounts/6."""
    return {"add_mounts": [{"destination": "/m", "source": source, "options": list(options), **more}]}


def timed(offsets: Config) -> Config:
    return {"namespaces": ["pid", "ipc", "uts", "mount", "time"], "linux": {"timeOffsets": offsets}}


def filtered(**section: Any) -> Config:
    return {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", **section}}


# What the document says is wrong, whatever the machine.
DOCUMENT: dict[str, Case] = {
    "real-time without a priority": (scheduler("SCHED_RR"), "/process/scheduler", "needs a priority"),
    "priority of another policy": (scheduler("SCHED_IDLE", priority=1), "/process/scheduler/priority", "no priorities"),
    "nice value": (scheduler("SCHED_BATCH", nice=20), "/process/scheduler/nice", "out of range"),
    "deadline before its runtime": (
        scheduler("SCHED_DEADLINE", runtime=4096, deadline=2048, period=8192),
        "/process/scheduler",
        "within a deadline",
    ),
    "runtime of another policy": (scheduler("SCHED_OTHER", runtime=4096), "/process/scheduler/runtime", "no runtime"),
    "policy": (scheduler("SCHED_FAST"), "/process/scheduler/policy", "SCHED_FAST"),
    "I/O priority": (
        process(ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 8}),
        "/process/ioPriority/priority",
        "out of range",
    ),
    "I/O class": (process(ioPriority={"class": "IOPRIO_CLASS_NONE"}), "/process/ioPriority/class", "IOPRIO_CLASS_NONE"),
    "CPUs of exec": (process(execCPUAffinity={"final": "3-1"}), "/process/execCPUAffinity/final", "ends before"),
    "personality": (linux(personality={"domain": "LINUX64"}), "/linux/personality/domain", "LINUX64"),
    "nodes that are none": (
        linux(memoryPolicy={"mode": "MPOL_BIND", "nodes": "a"}),
        "/linux/memoryPolicy/nodes",
        "not a number",
    ),
    "policy without nodes": (linux(memoryPolicy={"mode": "MPOL_BIND"}), "/linux/memoryPolicy", "at least one node"),
    "nodes of a policy that has none": (
        linux(memoryPolicy={"mode": "MPOL_LOCAL", "nodes": "0"}),
        "/linux/memoryPolicy/nodes",
        "requires 0 nodes",
    ),
    "offsets without a namespace": (linux(timeOffsets={"monotonic": {"secs": 1}}), "/linux/timeOffsets", "time namespace"),
    "offsets of a namespace that is joined": (
        {
            "namespaces": ["mount", {"type": "time", "path": "/proc/self/ns/time"}],
            "hostname": None,
            "linux": {"timeOffsets": {"monotonic": {"secs": 1}}},
        },
        "/linux/timeOffsets",
        "is joined",
    ),
    "nanoseconds": (timed({"boottime": {"nanosecs": 10**9}}), "/linux/timeOffsets/boottime/nanosecs", "out of range"),
    "idmap without mappings": (mounted("bind", "ridmap"), "/mounts/6/options", "ridmap needs mappings"),
    "idmap of a file system": (mounted("idmap", type="tmpfs", source="x"), "/mounts/6/options", "only a bind mount"),
    "half of the mappings": (mounted("bind", uidMappings=ONE), "/mounts/6", '"uidMappings" without "gidMappings"'),
    "an id mapped twice": (
        mounted("bind", uidMappings=TWICE, gidMappings=ONE),
        "/mounts/6/uidMappings/1/containerID",
        "overlaps",
    ),
    "a seccomp agent without a place": (filtered(syscalls=[NOTIFY]), "/linux/seccomp", "listenerPath"),
    "metadata for nobody": (filtered(listenerMetadata="x"), "/linux/seccomp/listenerMetadata", "without a listener"),
    "class of service": (linux(intelRdt={"closID": "a/b"}), "/linux/intelRdt/closID", "invalid"),
    "schema of the cache": (linux(intelRdt={"l3CacheSchema": "MB:0=1"}), "/linux/intelRdt/l3CacheSchema", "L3"),
    "name of a link": (linux(netDevices={"x" * 16: {}}), "/linux/netDevices/" + "x" * 16, "16 bytes"),
    "link in the host's network": (
        {"namespaces": ["mount", "pid", "ipc", "uts"], "linux": {"netDevices": {"lo": {}}}},
        "/linux/netDevices",
        "without a network namespace",
    ),
    "size of a huge page": (
        {"resources": {"hugepageLimits": [{"pageSize": "2XB", "limit": 1}]}},
        "/linux/resources/hugepageLimits/0/pageSize",
        "2XB",
    ),
    "processors": ({"resources": {"cpu": {"cpus": "3-1"}}}, "/linux/resources/cpu/cpus", "not a list of numbers"),
    "memory nodes": ({"resources": {"cpu": {"mems": "x"}}}, "/linux/resources/cpu/mems", "not a list of numbers"),
}

# What this machine does not have.
HOST: dict[str, Case] = {
    "policy that the kernel has not": (scheduler("SCHED_ISO"), "/process/scheduler", "set scheduler"),
    "nodes that are not there": (
        linux(memoryPolicy={"mode": "MPOL_BIND", "nodes": "700-710"}),
        "/linux/memoryPolicy",
        "set memory policy",
    ),
    "a clock before 0": (timed({"monotonic": {"secs": -(10**9)}}), "/linux/timeOffsets", "out of range"),
    "a clock at the end of time": (timed({"boottime": {"secs": 1 << 62}}), "/linux/timeOffsets", "out of range"),
    "a file system without idmap": (
        mounted("bind", "idmap", uidMappings=OTHER, gidMappings=OTHER),
        "/mounts/6/uidMappings",
        "map the ids of",
    ),
    "a source without idmap below it": (
        mounted("rbind", "ridmap", source="/sys", uidMappings=ONE, gidMappings=ONE),
        "/mounts/6/uidMappings",
        "map the ids of",
    ),
    "a seccomp agent that is not there": (
        filtered(listenerPath="/nothing/agent", syscalls=[NOTIFY]),
        "/linux/seccomp/listenerPath",
        "failed to connect",
    ),
    "a seccomp agent that is a file": (
        filtered(listenerPath="/etc/passwd", syscalls=[NOTIFY]),
        "/linux/seccomp/listenerPath",
        "failed to connect",
    ),
    "a link that is not there": (linux(netDevices={"nosuch0": {}}), "/linux/netDevices/nosuch0", "no such device"),
    "loopback": (linux(netDevices={"lo": {}}), "/linux/netDevices/lo", "file exists"),
    "loopback by another name": (linux(netDevices={"lo": {"name": "lo7"}}), "/linux/netDevices/lo", "invalid argument"),
    "RDMA": ({"resources": {"rdma": {"mlx5_0": {"hcaHandles": 1}}}}, "/linux/resources/rdma/mlx5_0", "rdma"),
    "AppArmor": (process(apparmorProfile="ocirt-nothing"), "/process/apparmorProfile", ""),
    "SELinux": (process(selinuxLabel="ocirt:nothing"), "/process/selinuxLabel", ""),
    "label of mounts": (linux(mountLabel="ocirt:nothing"), "/linux/mountLabel", "SELinux"),
    "Intel RDT": (linux(intelRdt={}), "/linux/intelRdt", "Intel RDT is not enabled"),
    "huge pages of a size that is not there": (
        {"resources": {"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}},
        "/linux/resources/hugepageLimits/0",
        "hugetlb",
    ),
}

# What is meant for systemd.
SYSTEMD: dict[str, Case] = {
    "path": ({"cgroupsPath": "/a/b"}, "/linux/cgroupsPath", "slice:prefix:name"),
    "slice": ({"cgroupsPath": "a--b.slice:x:y"}, "/linux/cgroupsPath", "invalid slice name"),
    "unit": ({"cgroupsPath": "system.slice:x:y+z"}, "/linux/cgroupsPath", "no name of a unit"),
    "container in a slice": ({"cgroupsPath": "system.slice::a.slice"}, "/linux/cgroupsPath", "cannot run in the slice"),
    "name of a property": ({"annotations": {NOTE + "Ti": "5"}}, f"/annotations/{NOTE}Ti", "no name of a property"),
    "value of a property": ({"annotations": {NOTE + "KillMode": "'x"}}, f"/annotations/{NOTE}KillMode", "value parse error"),
    "time in seconds": ({"annotations": {NOTE + "TimeoutStopSec": "'x'"}}, f"/annotations/{NOTE}TimeoutStopSec", "not a number"),
    "limit of processes": ({"resources": {"unified": {"pids.max": "many"}}}, "/linux/resources/unified", "unified"),
    "processors": ({"resources": {"unified": {"cpuset.cpus": "3-1"}}}, "/linux/resources/unified", ""),
}

# What this machine has, or should.
GOOD: dict[str, Config] = {
    "scheduler": scheduler("SCHED_BATCH", nice=3),
    "I/O priority": process(ioPriority={"class": "IOPRIO_CLASS_RT", "priority": 7}),
    "CPUs of exec": process(execCPUAffinity={"initial": "0", "final": " 0,"}),
    "personality": linux(personality={"domain": "LINUX32"}),
    "memory policy": linux(memoryPolicy={"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
    "time offsets": timed({"monotonic": {"secs": 5}, "boottime": {"secs": -5}}),
    "a filter": filtered(syscalls=[{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]),
    "no labels": {"process": {"apparmorProfile": "", "selinuxLabel": ""}, "linux": {"mountLabel": ""}},
    "no limits": {"resources": {"rdma": {}, "hugepageLimits": [], "network": {}}},
}


def created(runtime: Runtime, made: Bundle, globals_: Sequence[str] = ()) -> tuple[int, str]:
    """What `create` says of a bundle: its exit code and its message. Nothing may be left of what it refuses."""
    container = runtime.new_id()
    result = runtime.try_create(made, container=container, globals_=globals_)
    if result.rc:
        assert not (runtime.root / container).exists()
    else:
        runtime.delete(container, "--force").ok()
    return result.rc, result.err


def refused_by_both(runtime: Runtime, made: Bundle, pointer: str, word: str, globals_: Sequence[str] = ()) -> None:
    """`check` finds this error alone, with a hint, and `create` dies of it."""
    found = checked(runtime, made, globals_)
    [finding] = [each for each in found if each["severity"] == "error"]
    assert finding["pointer"].startswith(pointer)
    assert word in finding["message"]
    assert finding["hint"]
    code, message = created(runtime, made, globals_)
    assert code == 1
    assert f"{finding['pointer']}: " in message
    assert word in message.replace('\\"', '"')


def taken_by_both(runtime: Runtime, made: Bundle, globals_: Sequence[str] = ()) -> None:
    """`check` finds nothing, and `create` works."""
    assert checked(runtime, made, globals_) == []
    assert created(runtime, made, globals_) == (0, "")


def skip_what_is_there(case: str) -> None:
    """For the few cases that a machine may have after all."""
    if (case == "label of mounts" and "SELinux" in security_modules()) or (case == "Intel RDT" and os.path.exists(RESCTRL)):
        pytest.skip("this machine has it")


@pytest.mark.parametrize("case", DOCUMENT)
def test_what_the_document_gets_wrong(runtime: Runtime, bundle: MakeBundle, case: str) -> None:
    edits, pointer, word = DOCUMENT[case]
    refused_by_both(runtime, bundle(**edits), pointer, word)


@pytest.mark.parametrize("case", HOST)
def test_what_this_machine_does_not_have(runtime: Runtime, bundle: MakeBundle, case: str) -> None:
    edits, pointer, word = HOST[case]
    skip_what_is_there(case)
    refused_by_both(runtime, bundle(**edits), pointer, word)


@pytest.mark.parametrize("case", GOOD)
def test_what_this_machine_has(runtime: Runtime, bundle: MakeBundle, case: str) -> None:
    taken_by_both(runtime, bundle(**GOOD[case]))


# -- cgroups by systemd --------------------------------------------------------------------------------------------------------


@pytest.fixture
def box(new: Callable[..., Runtime]) -> Runtime:
    """The runtime under test, beside a systemd, which it asks for no cgroup unless it is told to."""
    made = new()
    made.manager, made.cgroup_parent = "", None
    return made


@pytest.mark.parametrize("case", HOST | SYSTEMD)
def test_without_systemd(runtime: Runtime, bundle: MakeBundle, case: str) -> None:
    """That is one error, which `create` dies of; the rest is judged as if there were one."""
    if is_running():
        pytest.skip("this machine runs under systemd")
    edits, pointer, word = (HOST | SYSTEMD)[case]
    skip_what_is_there(case)
    made = bundle(cgroupsPath="system.slice:ocirt:x") if "cgroupsPath" not in edits else bundle()
    made.edit(**edits)
    first, second = (each for each in checked(runtime, made, BY_SYSTEMD) if each["severity"] == "error")
    assert (first["pointer"], first["hint"]) == ("", "leave --systemd-cgroup out: cgroupfs")
    assert second["pointer"].startswith(pointer)
    assert word in second["message"]
    code, message = created(runtime, made, BY_SYSTEMD)
    assert code == 1
    assert first["message"] in message
    assert NO_SYSTEMD in message


@pytest.mark.parametrize("case", HOST | SYSTEMD)
def test_beside_systemd(box: Runtime, shared_bundle: MakeBundle, case: str) -> None:
    edits, pointer, word = (HOST | SYSTEMD)[case]
    skip_what_is_there(case)
    refused_by_both(box, shared_bundle(**in_slice(edits)), pointer, word, BY_SYSTEMD)


@pytest.mark.parametrize("case", GOOD)
def test_beside_systemd_what_this_machine_has(box: Runtime, shared_bundle: MakeBundle, case: str) -> None:
    taken_by_both(box, shared_bundle(**in_slice(GOOD[case])), BY_SYSTEMD)


def in_slice(edits: Config) -> Config:
    """With a place for the container, unless it has one."""
    return {"cgroupsPath": f"{SLICE}:check:{os.urandom(4).hex()}", **edits}


def test_what_is_meant_for_systemd_alone(runtime: Runtime, bundle: MakeBundle) -> None:
    """Without the flag annotations are anybody's, and a path is a path."""
    if runtime.manager:
        pytest.skip("systemd makes the cgroups of all containers in this run")
    for case in ("name of a property", "value of a property", "unit"):
        edits = SYSTEMD[case][0]
        taken_by_both(runtime, bundle(**({"cgroupsPath": f"{runtime.cgroup_parent}/a:b:{case[0]}"} | edits)))


def test_a_unit_that_is_taken(box: Runtime, shared_bundle: MakeBundle) -> None:
    """Also by one in another slice, whose cgroup says nothing of it; not any more when that is gone."""
    path = {name: f"{name}:check:taken" for name in (SLICE, "system.slice")}
    first = box.run_detached(shared_bundle(args=["/bin/sleep", "1000"], cgroupsPath=path[SLICE]), globals_=BY_SYSTEMD)
    made = shared_bundle(cgroupsPath=path["system.slice"])
    refused_by_both(box, made, "/linux/cgroupsPath", "unit check-taken.scope exists already", BY_SYSTEMD)
    made.edit(cgroupsPath=path[SLICE])
    [finding] = checked(box, made, BY_SYSTEMD)
    assert (finding["pointer"], finding["severity"]) == ("/linux/cgroupsPath", "error")
    box.delete(first, "--force").ok()
    taken_by_both(box, made, BY_SYSTEMD)


# -- what has to be made for it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_seccomp_agent(runtime: Runtime, bundle: MakeBundle, tmp_path: Path, kind: int) -> None:
    """One that listens, and hears nothing of the looking; one that has ended."""
    made = bundle(**filtered(listenerPath=str(tmp_path / "agent"), syscalls=[NOTIFY]))
    with socket.socket(socket.AF_UNIX, kind) as agent:
        agent.bind(str(tmp_path / "agent"))
        if kind == socket.SOCK_STREAM:
            agent.listen()
        taken_by_both(runtime, made)
        agent.setblocking(False)
        with pytest.raises(BlockingIOError):
            agent.accept() if kind == socket.SOCK_STREAM else agent.recv(1)
    refused_by_both(runtime, made, "/linux/seccomp/listenerPath", "connection refused")


def test_network_devices(runtime: Runtime, bundle: MakeBundle, link: str, namespace: str) -> None:
    """A device that is there; a name that is taken in the namespace that is joined, and one that is not."""
    made = bundle(**linux(netDevices={link: {"name": "lo"}}))
    refused_by_both(runtime, made, f"/linux/netDevices/{link}", "file exists")
    refused_by_both(runtime, joining(made, namespace), f"/linux/netDevices/{link}", "file exists")
    refused_by_both(runtime, joining(made, "/nothing"), "/linux/namespaces/4/path", "no such file")
    refused_by_both(runtime, joining(made, "/proc/self/ns/pid"), "/linux/namespaces/4/path", "another kind")
    made = joining(made.edit(**linux(netDevices={link: {"name": "lo%d"}})), namespace)
    taken_by_both(runtime, made)
    assert "lo0" in links_in(namespace)


@pytest.mark.parametrize("options", [["bind", "idmap"], ["rbind", "ridmap"]])
@pytest.mark.parametrize("own", [True, False])
def test_id_mapped_mounts(runtime: Runtime, bundle: MakeBundle, tree: Path, options: list[str], own: bool) -> None:
    """With the container's mappings and with their own; a file system that cannot, below one that can."""
    maps = {"uidMappings": OTHER, "gidMappings": OTHER} if own else {}
    made = with_user_namespace(bundle(**mounted(*options, source=str(tree), **maps)))
    taken_by_both(runtime, made)
    (tree / "proc").mkdir()
    mount("proc", str(tree / "proc"), "proc", 0)
    try:
        if "ridmap" in options:
            refused_by_both(runtime, made, "/mounts/6/" + ("uidMappings" if own else "options"), "map the ids of")
        else:
            taken_by_both(runtime, made)
    finally:
        umount(str(tree / "proc"))


@pytest.mark.usefixtures("network_controllers")
def test_classes_of_packets(runtime: Runtime, bundle: MakeBundle) -> None:
    taken_by_both(runtime, bundle(resources={"network": {"classID": 1, "priorities": [{"name": "lo", "priority": 5}]}}))


def test_classes_of_packets_without_the_controllers(runtime: Runtime, bundle: MakeBundle) -> None:
    if available("net_cls") or available("net_prio"):
        pytest.skip("this host has them")
    for name, value in (("classID", 1), ("priorities", [{"name": "lo", "priority": 5}])):
        made = bundle(resources={"network": {name: value}})
        if Path("/sys/fs/cgroup/cgroup.controllers").exists():
            [finding] = checked(runtime, made)
            assert (finding["pointer"], finding["severity"]) == (f"/linux/resources/network/{name}", "warning")
            assert created(runtime, made) == (0, "")
        else:
            refused_by_both(runtime, made, f"/linux/resources/network/{name}", "net_")


def test_huge_pages(runtime: Runtime, bundle: MakeBundle) -> None:
    if not usable("hugetlb"):
        pytest.skip("no hugetlb controller in this view")
    taken_by_both(runtime, bundle(resources={"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]}))


def test_real_time(runtime: Runtime, bundle: MakeBundle) -> None:
    """A new cgroup of version 1 may have no share of it (CONFIG_RT_GROUP_SCHED); the caller's may."""
    made = bundle(**scheduler("SCHED_FIFO", priority=1))
    taken_by_both(runtime, made, ["--cgroup-manager", "disabled"])
    if Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists():
        refused_by_both(runtime, made, "/process/scheduler", "set scheduler")


@needs_two_cpus
def test_deadlines_on_a_part_of_the_cpus(runtime: Runtime, bundle: MakeBundle) -> None:
    """A warning: the kernel grants none, but where the part is a partition of cpusets."""
    need_cpuset()
    made = bundle(**scheduler("SCHED_DEADLINE", runtime=42000, deadline=10**6, period=10**6))
    made.edit(resources={"cpu": {"cpus": str(CPUS[0]), "mems": "0"}})
    [finding] = checked(runtime, made)
    assert (finding["pointer"], finding["severity"]) == ("/process/scheduler", "warning")
    code, message = created(runtime, made)
    assert code == 1
    assert "/process/scheduler: set scheduler" in message
    taken_by_both(runtime, made.edit(resources={"cpu": {"cpus": f"0-{CPUS[-1]}", "mems": "0"}}))


def test_cpus_of_exec_that_are_not_there(runtime: Runtime, bundle: MakeBundle) -> None:
    """A warning: `create` has nothing to do with them."""
    made = bundle(**process(execCPUAffinity={"initial": "0,4000", "final": "4000"}))
    [finding] = checked(runtime, made)
    assert (finding["pointer"], finding["severity"]) == ("/process/execCPUAffinity/final", "warning")
    assert created(runtime, made) == (0, "")


# -- a user who is not root ----------------------------------------------------------------------------------------------------

USERS: dict[str, Case] = {
    "real-time": (scheduler("SCHED_RR", priority=1), "/process/scheduler", "operation not permitted"),
    "nice value": (scheduler("SCHED_OTHER", nice=-5), "/process/scheduler", "operation not permitted"),
    "I/O priority": (process(ioPriority={"class": "IOPRIO_CLASS_RT"}), "/process/ioPriority", "operation not permitted"),
    "score": (process(oomScoreAdj=-500), "/process/oomScoreAdj", "permission denied"),
    "clock": (
        {
            "namespaces": ["pid", "ipc", "uts", "mount", "user", "time"],
            "linux": {"timeOffsets": {"monotonic": {"secs": -(10**9)}}},
        },
        "/linux/timeOffsets",
        "out of range",
    ),
    "a network device": (
        {"namespaces": ["pid", "ipc", "uts", "mount", "user", "network"], "linux": {"netDevices": {"eth0": {}}}},
        "/linux/netDevices",
        "a user who is not root",
    ),
    "ids of a mount": (mounted("bind", "idmap"), "/mounts/6/options", "root"),
}


@pytest.mark.parametrize("case", USERS)
def test_what_a_user_may_not(rootless: Runtime, bundle: MakeBundle, case: str) -> None:
    edits, pointer, word = USERS[case]
    refused_by_both(rootless, owned(bundle(), ONE_USER).edit(**edits), pointer, word)


def test_what_a_user_may(rootless: Runtime, bundle: MakeBundle) -> None:
    made = owned(bundle(), ONE_USER, **scheduler("SCHED_BATCH", nice=7)).edit(process={"oomScoreAdj": 700})
    taken_by_both(rootless, made.edit(process={"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 7}}))


def test_device_rules_of_a_user(rootless: Runtime, bundle: MakeBundle, delegated: Path) -> None:
    """Only root may set them, also in a cgroup that is the user's."""
    rule = {"allow": False, "type": "c", "major": 1, "minor": 3, "access": "w"}
    made = owned(bundle(), ONE_USER).edit(resources={"devices": [rule]}, cgroupsPath=f"{delegated}/box")
    rootless.command = ["sh", "-c", f'{entering(delegated)}; exec "$0" "$@"', *rootless.command]
    refused_by_both(rootless, made, "/linux/resources/devices", "operation not permitted")


def entering(group: Path) -> str:
    """A script that goes to the cgroup `own` below `group`, as the kernel wants it of version 2."""
    unified = [place for place in cgroup_mounts() if (place / "cgroup.controllers").exists()]
    return "; ".join(f'echo $$ > "{place}{group}/own/cgroup.procs"' for place in unified) or "true"
