"""More properties, each alone, for `test_step` of test_properties.py: treatment of processes, labels, clocks, devices, agents."""

from __future__ import annotations

from typing import Any

from tests.unit.plan.plans import MAPPING

Changes = dict[str, Any]
# changes to the default configuration, operation, arguments by name (those that count), cgroup version
Case = tuple[Changes, str, Changes, str]

# sched_setattr(2), include/uapi/linux/sched.h
POLICIES = {"OTHER": 0, "FIFO": 1, "RR": 2, "BATCH": 3, "ISO": 4, "IDLE": 5, "DEADLINE": 6}
SCHEDULER_FLAGS = {
    "RESET_ON_FORK": 0x01,
    "RECLAIM": 0x02,
    "DL_OVERRUN": 0x04,
    "KEEP_POLICY": 0x08,
    "KEEP_PARAMS": 0x10,
    "UTIL_CLAMP_MIN": 0x20,
    "UTIL_CLAMP_MAX": 0x40,
}
DEADLINE: Changes = {"policy": "SCHED_DEADLINE", "runtime": 42000, "deadline": 100_000, "period": 1_000_000}
# ioprio_set(2)
IO_CLASSES = {"RT": 1, "BE": 2, "IDLE": 3}
# set_mempolicy(2), include/uapi/linux/mempolicy.h
MODES = {"DEFAULT": 0, "PREFERRED": 1, "BIND": 2, "INTERLEAVE": 3, "LOCAL": 4, "PREFERRED_MANY": 5, "WEIGHTED_INTERLEAVE": 6}
MODE_FLAGS = {"NUMA_BALANCING": 1 << 13, "RELATIVE_NODES": 1 << 14, "STATIC_NODES": 1 << 15}
RDT = {"closID": "gold", "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20", "schemata": ["L2:0=1"], "enableMonitoring": True}
CLOCKS = {"monotonic": {"secs": 5, "nanosecs": 6}, "boottime": {"secs": -7, "nanosecs": 8}}
MAPPED = {"destination": "/m", "source": "/srv", "options": ["bind"], "uidMappings": [MAPPING], "gidMappings": [MAPPING]}
RDMA_LINE = "mlx hca_handle=3 hca_object=4"
AGENT = {
    "/linux/seccomp": {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": "/run/agent",
        "listenerMetadata": "m",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
    }
}


def _all(section: str, parts: tuple[str, ...], case: Case) -> dict[str, Case]:
    return {section + part: case for part in parts}


def _scheduler() -> dict[str, Case]:
    def asked(section: Changes, **found: int) -> Case:
        return ({"/process/scheduler": section}, "scheduling.set_scheduler", found, "v2")

    place = "/process/scheduler"
    cases = {
        place: asked({"policy": "SCHED_BATCH"}, policy=3),
        place + "/policy": asked({"policy": "SCHED_BATCH"}, policy=3),
        place + "/nice": asked({"policy": "SCHED_OTHER", "nice": -5}, nice=-5),
        place + "/priority": asked({"policy": "SCHED_FIFO", "priority": 9}, priority=9),
        place + "/flags": asked({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}, flags=1),
        place + "/runtime": asked(DEADLINE, runtime=42000),
        place + "/deadline": asked(DEADLINE, deadline=100_000),
        place + "/period": asked(DEADLINE, period=1_000_000),
    }
    for name, number in POLICIES.items():
        section: Changes = DEADLINE if name == "DEADLINE" else {"policy": f"SCHED_{name}"}
        if name in ("FIFO", "RR"):
            section = section | {"priority": 1}
        cases[f"{place}/policy=SCHED_{name}"] = asked(section, policy=number)
    for name, number in SCHEDULER_FLAGS.items():
        cases[f"{place}/flags/*=SCHED_FLAG_{name}"] = asked(DEADLINE | {"flags": [f"SCHED_FLAG_{name}"]}, flags=number)
    return cases


def _io_priority() -> dict[str, Case]:
    place = "/process/ioPriority"
    cases: dict[str, Case] = {}
    for name, number in IO_CLASSES.items():
        section = {"class": f"IOPRIO_CLASS_{name}", "priority": 3}
        cases[f"{place}/class=IOPRIO_CLASS_{name}"] = (
            {place: section},
            "scheduling.set_io_priority",
            {"value": number << 13 | 3},
            "v2",
        )
    return cases | _all(place, ("", "/class", "/priority"), cases[f"{place}/class=IOPRIO_CLASS_BE"])


def _memory_policy() -> dict[str, Case]:
    def asked(section: Changes, **found: Any) -> Case:
        return ({"/linux/memoryPolicy": section}, "scheduling.set_memory_policy", found, "v2")

    place = "/linux/memoryPolicy"
    bound = {"mode": "MPOL_BIND", "nodes": "0,2"}
    cases = _all(place, ("", "/mode", "/nodes"), asked(bound, mode=2, nodes="0500000000000000"))
    for name, number in MODES.items():
        nodes = {} if name in ("DEFAULT", "LOCAL") else {"nodes": "0"}
        cases[f"{place}/mode=MPOL_{name}"] = asked({"mode": f"MPOL_{name}", **nodes}, mode=number)
    for name, number in MODE_FLAGS.items():
        cases[f"{place}/flags/*=MPOL_F_{name}"] = asked(bound | {"flags": [f"MPOL_F_{name}"]}, mode=2 | number)
    return cases | {place + "/flags": cases[place + "/flags/*=MPOL_F_STATIC_NODES"]}


def _labels() -> dict[str, Case]:
    label = "u:r:t:s0"
    return {
        "/process/apparmorProfile": (
            {"/process/apparmorProfile": "box"},
            "label.write",
            {"attribute": "attr/apparmor/exec", "text": "exec box"},
            "v2",
        ),
        "/process/selinuxLabel": (
            {"/process/selinuxLabel": label},
            "label.write",
            {"attribute": "attr/exec", "text": label},
            "v2",
        ),
        "/linux/mountLabel": ({"/linux/mountLabel": label}, "label.mask", {"label": label}, "v2"),
    }


def _clocks() -> dict[str, Case]:
    changes = {"/linux/namespaces/-": {"type": "time"}, "/linux/timeOffsets": CLOCKS}
    case: Case = (changes, "namespace.set_offsets", {"offsets": "monotonic 5 6\nboottime -7 8\n"}, "v2")
    parts = ("", *(f"/{clock}{part}" for clock in ("boottime", "monotonic") for part in ("", "/secs", "/nanosecs")))
    return _all("/linux/timeOffsets", parts, case)


def _devices_of_the_host() -> dict[str, Case]:
    moved: Case = ({"/linux/netDevices": {"eth7": {"name": "eth0"}}}, "netdevice.move", {"name": "eth7", "inside": "eth0"}, "v2")
    grouped: Case = (
        {"/linux/intelRdt": RDT},
        "resctrl.make",
        {
            "group": "/sys/fs/resctrl/gold",
            "monitor": "/sys/fs/resctrl/gold/mon_groups/c1",
            "schemata": "L3:0=f\nMB:0=20\nL2:0=1\n",
        },
        "v2",
    )
    parts = ("", "/closID", "/schemata", "/l3CacheSchema", "/memBwSchema", "/enableMonitoring")
    lines = [[0, 100000, 65536]]
    mapped: Case = ({"/mounts/-": MAPPED}, "idmap.make_namespace", {"uids": lines, "gids": lines}, "v2")
    mapping_parts = ("", "/*/containerID", "/*/hostID", "/*/size")
    return {
        **_all("/linux/netDevices", ("", "/{}/name"), moved),
        **_all("/linux/intelRdt", parts, grouped),
        **_all("/mounts/*/uidMappings", mapping_parts, mapped),
        **_all("/mounts/*/gidMappings", mapping_parts, mapped),
    }


def _limits() -> dict[str, Case]:
    def asked(changes: Changes, *entry: str) -> Case:
        return (changes, "cgroup.limit", {"entries": list(entry)}, "v1")

    network = "/linux/resources/network"
    classes = asked({network: {"classID": 7}}, "net_cls", "net_cls.classid", "7")
    priorities = asked({network: {"priorities": [{"name": "lo", "priority": 3}]}}, "net_prio", "net_prio.ifpriomap", "lo 3")
    rdma = asked({"/linux/resources/rdma": {"mlx": {"hcaHandles": 3, "hcaObjects": 4}}}, "rdma", "rdma.max", RDMA_LINE)
    return {
        network: classes,
        network + "/classID": classes,
        **_all(network + "/priorities", ("", "/*/name", "/*/priority"), priorities),
        **_all("/linux/resources/rdma", ("", "/{}/hcaHandles", "/{}/hcaObjects"), rdma),
    }


def more() -> dict[str, Case]:
    """All of them."""
    personality = {
        f"/linux/personality/domain={name}": (
            {"/linux/personality": {"domain": name, "flags": []}},
            "scheduling.set_personality",
            {"domain": number},
            "v2",
        )
        for name, number in (("LINUX", 0), ("LINUX32", 8))
    }
    return {
        **_scheduler(),
        **_io_priority(),
        **_memory_policy(),
        **_labels(),
        **_clocks(),
        **_devices_of_the_host(),
        **_limits(),
        **personality,
        **_all("/linux/personality", ("", "/domain"), personality["/linux/personality/domain=LINUX32"]),
        **_all("/linux/seccomp", ("/listenerPath", "/listenerMetadata"), (AGENT, "listener.check", {"path": "/run/agent"}, "v2")),
    }
