"""Which tests show that a property of the specification, or one of its values, does what it says.

docs/spec-coverage.md is made of this: `python -m tests.coverage_table > docs/spec-coverage.md`. Keys are as `Schema.entries` of
tests/support/schema.py lists them: `*` is an index, `{}` a name of one's own, `=` stands before a value. A cell is the id of a
test, or `not: ` and the reason why there is none.
"""

from __future__ import annotations

import sys

PLAN = "tests/unit/plan/test_properties.py::"
EFFECT = "tests/system/test_properties.py::"
BROKEN = "tests/unit/spec/test_broken.py::"
ACCEPTED = "tests/unit/spec/test_accepted.py::"
FILESYSTEM = "tests/system/test_filesystem.py::"
PROCESS = "tests/system/test_process.py::"
NAMESPACES = "tests/system/test_namespaces.py::"
FILTER = "tests/system/test_seccomp_filter.py::"
SCHEDULING = "tests/system/test_scheduling.py::"
AFFINITY = SCHEDULING + "test_affinity_of_exec"
IDMAP = "tests/system/test_idmap.py::test_mappings_of_its_own"
UNIT = "tests/unit/"

Row = tuple[str, str]

OTHER_PLATFORM = "not: for another platform; a warning says that it is ignored, see the test beside"
NO_LIMIT = "not: kernels have no such limit any more; a warning says that it is ignored, see the test beside"
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
HOOK_PARTS = ("", "/*/path", "/*/args", "/*/env", "/*/timeout")
MAPPING_PARTS = ("", "/*/containerID", "/*/hostID", "/*/size")
ACTIONS = ("KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG")
RESOURCES = "/linux/resources"
BLOCK = RESOURCES + "/blockIO"
THROTTLES = tuple(f"throttle{name}Device" for name in ("ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS"))


def step(entry: str) -> str:
    """The plan test of an entry."""
    return f"{PLAN}test_step[{entry}]"


def effect(entry: str) -> str:
    """The test of what an entry does."""
    return f"{EFFECT}test_effect[{entry}]"


def limited(entry: str) -> str:
    """The test of a limit."""
    return f"{EFFECT}test_limit[{entry}]"


def _own() -> dict[str, Row]:
    """Entries with a step and an effect of their own."""
    names = (
        *("/hostname", "/domainname", "/mounts", "/mounts/*/destination", "/mounts/*/source", "/mounts/*/options"),
        *("/mounts/*/type", "/root/path", "/root/readonly", "/process/args", "/process/cwd", "/process/env"),
        *("/process/user/uid", "/process/user/gid", "/process/user/umask", "/process/user/additionalGids"),
        *(f"/process/capabilities/{kind}" for kind in ("bounding", "permitted", "effective", "inheritable", "ambient")),
        *("/process/oomScoreAdj", "/process/noNewPrivileges"),
        *(f"/process/rlimits/*/{part}" for part in ("type", "soft", "hard")),
        *("/linux/maskedPaths", "/linux/readonlyPaths", "/linux/sysctl", "/linux/seccomp"),
        *(f"/linux/devices/*/{part}" for part in ("type", "path", "fileMode", "major", "minor", "uid", "gid")),
        *(f"/linux/namespaces/*/type={kind}" for kind in ("mount", "pid", "network", "uts", "ipc", "user", "cgroup", "time")),
        *(f"/linux/rootfsPropagation={name}" for name in ("private", "shared", "unbindable")),
    )
    return {name: (step(name), effect(name)) for name in names}


def _process() -> dict[str, Row]:
    rows: dict[str, Row] = {
        "/process": (step("/process"), effect("/process/args")),
        "/process/terminal": (step("/process/terminal"), "tests/system/test_stdio.py::test_terminal"),
        "/process/user": (step("/process/user"), PROCESS + "test_identity"),
        "/process/capabilities": (step("/process/capabilities"), PROCESS + "test_capabilities"),
        "/process/rlimits": (step("/process/rlimits"), PROCESS + "test_rlimits"),
        "/process/commandLine": (BROKEN + "test_warning[/process/commandLine no meaning on Linux]", OTHER_PLATFORM),
        "/process/user/username": (BROKEN + "test_warning[/process/user/username no meaning on Linux]", OTHER_PLATFORM),
    }
    for part in ("", "/height", "/width"):
        entry = "/process/consoleSize" + part
        rows[entry] = (step(entry), "tests/system/test_stdio.py::test_console_size")
    return rows


def _treatment() -> dict[str, Row]:
    """How the kernel treats processes, and who confines them."""
    rows: dict[str, Row] = {}
    scheduler = "/process/scheduler"
    asked = {
        **dict.fromkeys(("", "/policy", "/nice", "/policy=SCHED_BATCH"), f"{SCHEDULING}test_scheduler[asked0-found0]"),
        "/policy=SCHED_OTHER": f"{SCHEDULING}test_scheduler[asked1-found1]",
        "/policy=SCHED_IDLE": f"{SCHEDULING}test_scheduler[asked2-found2]",
        **dict.fromkeys(
            ("/runtime", "/deadline", "/period", "/policy=SCHED_DEADLINE"), f"{SCHEDULING}test_scheduler[asked3-found3]"
        ),
        **dict.fromkeys(
            ("/flags", "/flags/*=SCHED_FLAG_RESET_ON_FORK", "/policy=SCHED_FIFO"), f"{SCHEDULING}test_real_time[asked0-found0]"
        ),
        **dict.fromkeys(("/priority", "/policy=SCHED_RR"), f"{SCHEDULING}test_real_time[asked1-found1]"),
        "/policy=SCHED_ISO": "not: the number is reserved; no kernel has the policy, and each says so (EINVAL)",
        **{
            f"/flags/*=SCHED_FLAG_{name}": "not: has no effect that a test could see from outside; the kernel takes the number"
            for name in ("RECLAIM", "DL_OVERRUN", "KEEP_POLICY", "KEEP_PARAMS", "UTIL_CLAMP_MIN", "UTIL_CLAMP_MAX")
        },
    }
    rows |= {scheduler + part: (step(scheduler + part), shown) for part, shown in asked.items()}
    place = "/process/ioPriority"
    for part in ("", "/class", "/priority", "/class=IOPRIO_CLASS_BE"):
        rows[place + part] = (step(place + part), f"{SCHEDULING}test_io_priority[asked0-found0]")
    for name, number in (("RT", 1), ("IDLE", 2)):
        entry = f"{place}/class=IOPRIO_CLASS_{name}"
        rows[entry] = (step(entry), f"{SCHEDULING}test_io_priority[asked{number}-found{number}]")
    for part in ("", "/initial", "/final"):
        rows["/process/execCPUAffinity" + part] = (UNIT + "plan/test_scheduling.py::test_affinity[True-init]", AFFINITY)
    place = "/linux/memoryPolicy"
    policies = {
        "/mode=MPOL_INTERLEAVE": "policy0-interleave:0",
        **dict.fromkeys(
            ("", "/mode", "/nodes", "/flags", "/mode=MPOL_BIND", "/flags/*=MPOL_F_STATIC_NODES"), "policy1-bind=static:0"
        ),
        "/flags/*=MPOL_F_RELATIVE_NODES": "policy2-prefer=relative:0",
        "/mode=MPOL_PREFERRED_MANY": "policy3-prefer (many):0",
        "/mode=MPOL_PREFERRED": "policy4-local",
        "/mode=MPOL_LOCAL": "policy5-local",
        "/mode=MPOL_DEFAULT": "policy6-default",
    }
    for part, shown in policies.items():
        rows[place + part] = (step(place + part), f"{SCHEDULING}test_memory_policy[{shown}]")
    for part in ("/mode=MPOL_WEIGHTED_INTERLEAVE", "/flags/*=MPOL_F_NUMA_BALANCING"):
        rows[place + part] = (step(place + part), "not: shows only on a machine with several memory nodes; the tests have one")
    for part, shown in {
        "": "LINUX32-8",
        "/domain": "LINUX32-8",
        "/domain=LINUX32": "LINUX32-8",
        "/domain=LINUX": "LINUX-0",
    }.items():
        rows["/linux/personality" + part] = (step("/linux/personality" + part), f"{SCHEDULING}test_personality[{shown}]")
    rows["/linux/personality/flags"] = (
        UNIT + "spec/test_scheduling.py::test_flags_of_a_personality_are_ignored",
        "not: the specification knows no flags; what stands there is ignored, see the test beside",
    )
    rows["/process/apparmorProfile"] = (step("/process/apparmorProfile"), "tests/system/test_label.py::test_a_profile")
    for entry in ("/process/selinuxLabel", "/linux/mountLabel"):
        rows[entry] = (step(entry), "not: no kernel that the tests run on has SELinux enabled")
    return rows


def _from_the_host() -> dict[str, Row]:
    """Clocks, devices, groups, id mappings of mounts."""
    rows: dict[str, Row] = {}
    for part in ("", *(f"/{clock}{part}" for clock in ("boottime", "monotonic") for part in ("", "/secs", "/nanosecs"))):
        rows["/linux/timeOffsets" + part] = (step("/linux/timeOffsets" + part), "tests/system/test_time.py::test_offsets")
    for part in ("", "/{}/name"):
        shown = "tests/system/test_netdevices.py::test_it_brings_what_it_has[eth7-False]"
        rows["/linux/netDevices" + part] = (step("/linux/netDevices" + part), shown)
    for part in ("", "/closID", "/schemata", "/l3CacheSchema", "/memBwSchema", "/enableMonitoring"):
        shown = "test_a_group_with_a_name_and_schemata" if part == "/closID" else "test_a_group_of_its_own[False]"
        rows["/linux/intelRdt" + part] = (step("/linux/intelRdt" + part), f"tests/system/test_resctrl.py::{shown}")
    for kind in ("uid", "gid"):
        for part in MAPPING_PARTS:
            entry = f"/mounts/*/{kind}Mappings{part}"
            rows[entry] = (step(entry), IDMAP)
    network = RESOURCES + "/network"
    for part in ("", "/classID", "/priorities", "/priorities/*/name", "/priorities/*/priority"):
        shown = "tests/system/test_resources.py::test_class_and_priorities_of_packets"
        rows[network + part] = (step(network + part), shown)
    for part in ("", "/{}/hcaHandles", "/{}/hcaObjects"):
        rows[RESOURCES + "/rdma" + part] = (step(RESOURCES + "/rdma" + part), "tests/system/test_resources.py::test_rdma")
    return rows


def _resources() -> dict[str, Row]:
    rows: dict[str, Row] = {}
    own = {
        "memory": ("limit", "reservation", "swap", "swappiness", "disableOOMKiller"),
        "cpu": ("cpus", "mems", "period", "quota", "burst", "realtimePeriod", "realtimeRuntime", "shares", "idle"),
        "pids": ("limit",),
        "blockIO": ("weight", "leafWeight", *THROTTLES),
    }
    for section, parts in own.items():
        for part in parts:
            entry = f"{RESOURCES}/{section}/{part}"
            rows[entry] = (step(entry), limited(entry))
    for section, by in (("memory", "limit"), ("cpu", "shares"), ("pids", "limit"), ("blockIO", "weight")):
        rows[f"{RESOURCES}/{section}"] = (step(f"{RESOURCES}/{section}"), limited(f"{RESOURCES}/{section}/{by}"))
    rows[RESOURCES] = (step(RESOURCES), limited(f"{RESOURCES}/pids/limit"))
    for name in THROTTLES:
        for part in ("major", "minor", "rate"):
            rows[f"{BLOCK}/{name}/*/{part}"] = (step(f"{BLOCK}/{name}/*/{part}"), limited(f"{BLOCK}/{name}"))
    for part in ("", "/*/major", "/*/minor", "/*/weight"):
        entry = f"{BLOCK}/weightDevice{part}"
        rows[entry] = (step(entry), EFFECT + "test_weight_of_a_device")
    entry = f"{BLOCK}/weightDevice/*/leafWeight"
    rows[entry] = (step(entry), "not: blkio.leaf_weight_device went with CFQ in Linux 5.0")
    for part in ("", "/*/pageSize", "/*/limit"):
        entry = f"{RESOURCES}/hugepageLimits{part}"
        rows[entry] = (step(entry), limited(RESOURCES + "/hugepageLimits"))
    rows[RESOURCES + "/unified"] = (step(RESOURCES + "/unified"), limited(RESOURCES + "/unified"))
    for part in ("", "/*/allow", "/*/type", "/*/major", "/*/minor", "/*/access"):
        rows[f"{RESOURCES}/devices{part}"] = (step(f"{RESOURCES}/devices{part}"), effect(RESOURCES + "/devices/*/allow"))
    for name in ("kernel", "kernelTCP"):
        rows[f"{RESOURCES}/memory/{name}"] = (BROKEN + "test_warning[/linux/resources/memory/kernel ignored]", NO_LIMIT)
    rows[RESOURCES + "/memory/useHierarchy"] = (
        ACCEPTED + "test_of_no_effect[useHierarchy]",
        "not: kernels since 5.11 have no other way; runc ignores it too",
    )
    rows[RESOURCES + "/memory/checkBeforeUpdate"] = (
        ACCEPTED + "test_of_no_effect[checkBeforeUpdate]",
        "not: says what an update does, not how a container starts",
    )
    return rows


def _seccomp() -> dict[str, Row]:
    place, rule = "/linux/seccomp", "/linux/seccomp/syscalls/*"
    acted = (f"{PLAN}test_action[SCMP_ACT_ERRNO]", f"{EFFECT}test_action[ERRNO]")
    masked = (f"{PLAN}test_operator[SCMP_CMP_MASKED_EQ]", f"{EFFECT}test_operator[MASKED_EQ]")
    rows: dict[str, Row] = {
        place + "/defaultAction": (f"{PLAN}test_default_action[SCMP_ACT_ERRNO]", f"{EFFECT}test_default_action[ERRNO]"),
        place + "/defaultErrnoRet": (PLAN + "test_errno_values", EFFECT + "test_errno_values"),
        place + "/flags": (f"{PLAN}test_flag[SECCOMP_FILTER_FLAG_LOG]", f"{EFFECT}test_flag[LOG]"),
        place + "/architectures": (f"{PLAN}test_architecture[SCMP_ARCH_X86]", FILTER + "test_32_bit_calls"),
        place + "/syscalls": acted,
        rule + "/names": acted,
        rule + "/action": acted,
        rule + "/errnoRet": (PLAN + "test_errno_values", EFFECT + "test_errno_values"),
        rule + "/args": masked,
        **{f"{rule}/args/*/{part}": masked for part in ("index", "value", "valueTwo", "op")},
    }
    for name in ACTIONS:
        action = f"SCMP_ACT_{name}"
        rows[f"{place}/defaultAction={action}"] = (f"{PLAN}test_default_action[{action}]", f"{EFFECT}test_default_action[{name}]")
        rows[f"{rule}/action={action}"] = (f"{PLAN}test_action[{action}]", f"{EFFECT}test_action[{name}]")
    agent = "tests/system/test_seccomp_agent.py::"
    rows[place + "/listenerPath"] = (step(place + "/listenerPath"), agent + "test_create_start_and_exec")
    rows[place + "/listenerMetadata"] = (step(place + "/listenerMetadata"), agent + "test_create_start_and_exec")
    rows[place + "/defaultAction=SCMP_ACT_NOTIFY"] = (
        f"{PLAN}test_default_action[SCMP_ACT_NOTIFY]",
        agent + "test_any_call_may_be_notified[run]",
    )
    rows[rule + "/action=SCMP_ACT_NOTIFY"] = (f"{PLAN}test_action[SCMP_ACT_NOTIFY]", FILTER + "test_a_supervisor_answers")
    for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"):
        operator = f"SCMP_CMP_{name}"
        rows[f"{rule}/args/*/op={operator}"] = (f"{PLAN}test_operator[{operator}]", f"{EFFECT}test_operator[{name}]")
    for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"):
        flag = f"SECCOMP_FILTER_FLAG_{name}"
        # TSYNC: there is one thread only, nothing to synchronize.
        plan = "tests/unit/seccomp/test_compile.py::test_flags" if name == "TSYNC" else f"{PLAN}test_flag[{flag}]"
        rows[f"{place}/flags/*={flag}"] = (plan, f"{EFFECT}test_flag[{name}]")
    foreign = (
        *("ARM", "AARCH64", "LOONGARCH64", "M68K", "MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64", "MIPSEL64N32"),
        *("PPC", "PPC64", "PPC64LE", "S390", "S390X", "SH", "SHEB", "PARISC", "PARISC64", "RISCV64"),
    )
    for name in foreign:
        rows[f"{place}/architectures/*=SCMP_ARCH_{name}"] = (
            f"{PLAN}test_architecture[SCMP_ARCH_{name}]",
            "not: a call of another processor's cannot be made on the machines that the tests run on",
        )
    rows[place + "/architectures/*=SCMP_ARCH_X86"] = (f"{PLAN}test_architecture[SCMP_ARCH_X86]", FILTER + "test_32_bit_calls")
    rows[place + "/architectures/*=SCMP_ARCH_X86_64"] = (PLAN + "test_x86_64_and_x32", FILTER + "test_32_bit_calls")
    rows[place + "/architectures/*=SCMP_ARCH_X32"] = (PLAN + "test_x86_64_and_x32", FILTER + "test_x32_calls")
    return rows


def table() -> dict[str, Row]:
    """All rows: entry to (plan or unit test, test of the effect)."""
    rows: dict[str, Row] = {
        "/ociVersion": (f"{PLAN}test_record[/ociVersion]", EFFECT + "test_version_and_annotations"),
        "/annotations": (f"{PLAN}test_record[/annotations]", EFFECT + "test_version_and_annotations"),
        "/hooks": (step("/hooks"), "tests/system/test_hooks.py::test_all_six"),
        "/root": (step("/root"), effect("/root/path")),
        "/linux": (step("/linux"), effect("/linux/maskedPaths")),
        "/linux/devices": (step("/linux/devices"), FILESYSTEM + "test_more_devices"),
        "/linux/namespaces": (step("/linux/namespaces"), "tests/system/test_anchor.py::test_no_namespace_at_all"),
        "/linux/namespaces/*/type": (step("/linux/namespaces/*/type"), NAMESPACES + "test_new_namespaces"),
        "/linux/namespaces/*/path": (step("/linux/namespaces/*/path"), EFFECT + "test_namespace_by_path"),
        "/linux/cgroupsPath": (step("/linux/cgroupsPath"), "tests/system/test_cgroups.py::test_cgroups_path"),
        "/linux/rootfsPropagation": (step("/linux/rootfsPropagation"), FILESYSTEM + "test_root_propagation"),
        "/linux/rootfsPropagation=slave": (step("/linux/rootfsPropagation=slave"), EFFECT + "test_slave_root"),
    }
    for kind in HOOKS:
        for part in HOOK_PARTS:
            entry = f"/hooks/{kind}{part}"
            plan = f"{PLAN}test_record[{entry}]" if kind in ("poststart", "poststop") else step(entry)
            rows[entry] = (plan, f"{EFFECT}test_hook[{kind}]")
    for kind in ("uid", "gid"):
        for part in MAPPING_PARTS:
            entry = f"/linux/{kind}Mappings{part}"
            rows[entry] = (step(entry), effect(f"/linux/{kind}Mappings/*/containerID"))
    for name in ("windows", "solaris", "vm", "zos", "freebsd"):
        rows["/" + name] = (f"{ACCEPTED}test_other_platforms[{name}]", OTHER_PLATFORM)
    return rows | _own() | _process() | _resources() | _seccomp() | _treatment() | _from_the_host()


def document() -> str:
    """docs/spec-coverage.md."""
    rows = table()
    there = sum(not shown.startswith("not: ") for _, shown in rows.values())
    lines = [
        "# Coverage of the specification",
        "",
        "Every property of the JSON schema of runtime-spec 1.3.0, and every value of its enumerations: the test that shows what",
        "ocirt plans for it, and the test that shows what it does in a container, or why there is none. `*` is an index, `{}` a",
        "name of one's own, `=` stands before a value. This page is made from `tests/coverage_table.py`; tests compare it with",
        "the schema, and with the tests that there are.",
        "",
        f"{len(rows)} entries, {there} with a test of their effect.",
        "",
        "| entry | plan | effect |",
        "|---|---|---|",
    ]
    for entry in sorted(rows, key=lambda entry: entry.replace("=", "/=")):
        plan, shown = (_cell(cell) for cell in rows[entry])
        lines.append(f"| `{entry}` | {plan} | {shown} |")
    return "\n".join(lines) + "\n"


def _cell(cell: str) -> str:
    if cell.startswith("not: "):
        return cell.removeprefix("not: ")
    file, _, test = cell.partition("::")
    return f"`{file.removeprefix('tests/').removesuffix('.py')}` `{test}`"


if __name__ == "__main__":
    sys.stdout.write(document())
