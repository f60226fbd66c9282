"""Each property of the specification that is supported, alone: what it changes in the container, as the kernel shows it.

The keys are those of docs/spec-coverage.md: `*` is an index, `{}` a name of one's own, `=` stands before a value.
"""

from __future__ import annotations

import copy
import os
import platform
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocirt.cgroups.layout import Layout, detect
from tests.support.bundle import Bundle
from tests.support.disks import load_modules, shared_by_weight
from tests.support.runtime import Runtime
from tests.system.conftest import MakeBundle
from tests.unit.spec.documents import put

Changes = dict[str, Any]
# changes to the default bundle, a script, a regular expression for the whole of its output
Case = tuple[Changes, str, str]

USER = {
    "/linux/namespaces/-": {"type": "user"},
    "/linux/uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
    "/linux/gidMappings": [{"containerID": 0, "hostID": 200000, "size": 60000}],
}
DEVICE = {"path": "/dev/x", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8}
BIND = {"destination": "/data", "source": "rootfs/etc", "options": ["bind", "ro"]}
STATUS = "grep -E '^{}:' /proc/self/status | tr -d '\\t'"
SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
CAPS = {f"/process/capabilities/{kind}": ["CAP_CHOWN"] for kind in SETS}
RLIMIT = {"/process/rlimits": [{"type": "RLIMIT_CORE", "soft": 4096, "hard": 8192}]}
ROOT_MOUNT = "grep ' / rw' /proc/self/mountinfo | grep -c "
# Numbers without a driver, which no default rule allows; only one of them has a rule, and that for reading.
RULES = {
    "/linux/resources/devices": [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 99, "access": "r"},
    ],
    "/linux/devices": [
        {"path": "/dev/allowed", "type": "c", "major": 1, "minor": 99},
        {"path": "/dev/denied", "type": "c", "major": 1, "minor": 98},
    ],
}
# EPERM is the rule's; a device without a driver says something else.
ALLOWED = (
    "for mode in read:'<' write:'>'; do for name in allowed denied; do "
    "eval \": ${mode#*:}/dev/$name\" 2>&1 | grep -q 'not permitted' && echo ${mode%:*} $name; done; done; true"
)

CASES: dict[str, Case] = {
    "/hostname": ({"/hostname": "box"}, "hostname", "box"),
    "/domainname": ({"/domainname": "example.org"}, "cat /proc/sys/kernel/domainname", "example.org"),
    "/mounts": ({"/mounts/-": BIND}, "ls /data/passwd; grep -c ' /data ' /proc/mounts", "/data/passwd\n1"),
    "/mounts/*/destination": ({"/mounts/-": BIND}, "grep -c ' /data ' /proc/mounts", "1"),
    "/mounts/*/source": ({"/mounts/-": BIND | {"source": "rootfs/home"}, "/process/cwd": "/home/there"}, "ls /data", "there"),
    "/mounts/*/options": ({"/mounts/-": BIND}, "touch /data/x 2>&1", ".*Read-only file system"),
    "/mounts/*/type": (
        {"/mounts/-": {"destination": "/x", "type": "tmpfs"}},
        "grep ' /x ' /proc/mounts | cut -d' ' -f3",
        "tmpfs",
    ),
    "/root/path": ({"/root/path": "./rootfs/../rootfs"}, "ls -d /etc", "/etc"),
    "/root/readonly": ({"/root/readonly": True}, "touch /x 2>&1", ".*Read-only file system"),
    "/process/args": ({}, "echo $0", "/bin/sh"),
    "/process/cwd": ({"/process/cwd": "/usr"}, "pwd", "/usr"),
    "/process/env": ({"/process/env": ["PATH=/bin", "A=b c"]}, "echo $A", "b c"),
    "/process/user/uid": ({"/process/user": {"uid": 5, "gid": 6}}, "id -u", "5"),
    "/process/user/gid": ({"/process/user": {"uid": 5, "gid": 6}}, "id -g", "6"),
    "/process/user/umask": ({"/process/user/umask": 0o77}, "umask", "0077"),
    "/process/user/additionalGids": ({"/process/user/additionalGids": [5, 7]}, STATUS.format("Groups"), "Groups:5 7 "),
    "/process/capabilities/effective": (CAPS, STATUS.format("CapEff"), "CapEff:0*1"),
    "/process/capabilities/permitted": (CAPS, STATUS.format("CapPrm"), "CapPrm:0*1"),
    "/process/capabilities/inheritable": (CAPS, STATUS.format("CapInh"), "CapInh:0*1"),
    "/process/capabilities/ambient": (CAPS, STATUS.format("CapAmb"), "CapAmb:0*1"),
    "/process/capabilities/bounding": (
        {"/process/capabilities": {"bounding": ["CAP_KILL"]}},
        STATUS.format("CapBnd"),
        "CapBnd:0*20",
    ),
    "/process/oomScoreAdj": ({"/process/oomScoreAdj": 100}, "cat /proc/self/oom_score_adj", "100"),
    "/process/noNewPrivileges": ({"/process/noNewPrivileges": True}, STATUS.format("NoNewPrivs"), "NoNewPrivs:1"),
    "/process/rlimits/*/type": (
        RLIMIT,
        "grep 'Max core' /proc/self/limits | tr -s ' '",
        "Max core file size 4096 8192 bytes ?",
    ),
    "/process/rlimits/*/soft": (RLIMIT, "ulimit -S -c", "8"),
    "/process/rlimits/*/hard": (RLIMIT, "ulimit -H -c", "16"),
    "/linux/maskedPaths": ({"/linux/maskedPaths": ["/etc/passwd"]}, "wc -c </etc/passwd", "0"),
    "/linux/readonlyPaths": ({"/linux/readonlyPaths": ["/etc"]}, "touch /etc/x 2>&1", ".*Read-only file system"),
    "/linux/sysctl": ({"/linux/sysctl": {"net.ipv4.ip_forward": "1"}}, "cat /proc/sys/net/ipv4/ip_forward", "1"),
    "/linux/devices/*/type": ({"/linux/devices": [DEVICE]}, "stat -c %F /dev/x", "character special file"),
    "/linux/devices/*/path": ({"/linux/devices": [DEVICE]}, "ls /dev/x", "/dev/x"),
    "/linux/devices/*/fileMode": ({"/linux/devices": [DEVICE]}, "stat -c %a /dev/x", "640"),
    "/linux/devices/*/major": ({"/linux/devices": [DEVICE]}, "stat -c %t /dev/x", "1"),
    "/linux/devices/*/minor": ({"/linux/devices": [DEVICE]}, "stat -c %T /dev/x", "5"),
    "/linux/devices/*/uid": ({"/linux/devices": [DEVICE]}, "stat -c %u /dev/x", "7"),
    "/linux/devices/*/gid": ({"/linux/devices": [DEVICE]}, "stat -c %g /dev/x", "8"),
    "/linux/uidMappings/*/containerID": (USER, "cat /proc/self/uid_map", r"\s+0\s+100000\s+65536"),
    "/linux/gidMappings/*/containerID": (USER, "cat /proc/self/gid_map", r"\s+0\s+200000\s+60000"),
    "/linux/resources/devices/*/allow": (RULES, ALLOWED, "read denied\nwrite allowed\nwrite denied"),
    "/linux/seccomp": ({"/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}, STATUS.format("Seccomp"), "Seccomp:2"),
    "/linux/rootfsPropagation=private": ({"/linux/rootfsPropagation": "private"}, ROOT_MOUNT + "-e shared: -e master:", "0"),
    "/linux/rootfsPropagation=shared": ({"/linux/rootfsPropagation": "shared"}, ROOT_MOUNT + "shared:", "1"),
    "/linux/rootfsPropagation=unbindable": ({"/linux/rootfsPropagation": "unbindable"}, ROOT_MOUNT + "unbindable", "1"),
    **{
        f"/linux/namespaces/*/type={kind}": (changes, f"readlink /proc/self/ns/{file}", "new")
        for kind, file, changes in (
            ("mount", "mnt", {}),
            ("pid", "pid", {}),
            ("network", "net", {}),
            ("uts", "uts", {}),
            ("ipc", "ipc", {}),
            ("user", "user", USER),
            ("cgroup", "cgroup", {"/linux/namespaces/-": {"type": "cgroup"}}),
            ("time", "time", {"/linux/namespaces/-": {"type": "time"}}),
        )
    },
}


def changed(bundle: Bundle, changes: Changes) -> Bundle:
    """The bundle with changes by JSON pointer."""
    for pointer, value in changes.items():
        put(bundle.config, pointer, copy.deepcopy(value))
    return bundle


@pytest.mark.parametrize("entry", CASES)
def test_effect(runtime: Runtime, bundle: MakeBundle, entry: str) -> None:
    changes, script, wanted = CASES[entry]
    file = script.rpartition("/")[2]
    if wanted == "new" and not Path(f"/proc/self/ns/{file}").exists():
        pytest.skip("this kernel has no such namespaces")
    said = runtime.shell(changed(bundle(), changes), script)
    out = said.out.removesuffix("\n")
    if wanted == "new":
        assert re.fullmatch(rf"{file}:\[\d+\]", out), said
        assert out != os.readlink(f"/proc/self/ns/{file}")
    else:
        assert re.fullmatch(wanted, out), (said, wanted)


def test_namespace_by_path(runtime: Runtime, bundle: MakeBundle) -> None:
    made = changed(bundle(), {"/linux/namespaces/2/path": f"/proc/{os.getpid()}/ns/ipc"})
    assert runtime.shell(made, "readlink /proc/self/ns/ipc").ok().out.strip() == os.readlink("/proc/self/ns/ipc")


def test_slave_root(runtime: Runtime, bundle: MakeBundle) -> None:
    """The mounts of the container follow those of the host, where these are shared; never the other way."""
    made = changed(bundle(), {"/linux/rootfsPropagation": "slave"})
    assert runtime.shell(made, ROOT_MOUNT + "shared:").out == "0\n"


# -- limits --------------------------------------------------------------------------------------------------------------------

DISK = next((line.split()[:2] for line in Path("/proc/partitions").read_text().split("\n")[2:] if line.strip()), None)
MAJOR, MINOR = map(int, DISK) if DISK else (0, 0)
MEMORY, CPU, BLOCK = "/linux/resources/memory", "/linux/resources/cpu", "/linux/resources/blockIO"
_SWAP = {MEMORY: {"limit": 64 << 20, "swap": 128 << 20}}
_QUOTA = {CPU: {"quota": 50000, "period": 100000, "burst": 10000}}
_HUGE = {"/linux/resources/hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]}

# changes; controller, file and content of version 1; file and content of version 2 ("" where it has none)
Limit = tuple[Changes, tuple[str, str, str], tuple[str, str]]
LIMITS: dict[str, Limit] = {
    MEMORY + "/limit": (_SWAP, ("memory", "memory.limit_in_bytes", str(64 << 20)), ("memory.max", str(64 << 20))),
    MEMORY + "/swap": (_SWAP, ("memory", "memory.memsw.limit_in_bytes", str(128 << 20)), ("memory.swap.max", str(64 << 20))),
    MEMORY + "/reservation": (
        {MEMORY: {"reservation": 1 << 20}},
        ("memory", "memory.soft_limit_in_bytes", str(1 << 20)),
        ("memory.low", str(1 << 20)),
    ),
    MEMORY + "/swappiness": ({MEMORY: {"swappiness": 7}}, ("memory", "memory.swappiness", "7"), ("", "")),
    MEMORY + "/disableOOMKiller": (
        {MEMORY: {"disableOOMKiller": True}},
        ("memory", "memory.oom_control", "oom_kill_disable 1.*"),
        ("", ""),
    ),
    CPU + "/shares": ({CPU: {"shares": 512}}, ("cpu", "cpu.shares", "512"), ("cpu.weight", "59")),
    CPU + "/quota": (_QUOTA, ("cpu", "cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000")),
    CPU + "/period": (_QUOTA, ("cpu", "cpu.cfs_period_us", "100000"), ("cpu.max", "50000 100000")),
    CPU + "/burst": (_QUOTA, ("cpu", "cpu.cfs_burst_us", "10000"), ("cpu.max.burst", "10000")),
    CPU + "/realtimePeriod": ({CPU: {"realtimePeriod": 900000}}, ("cpu", "cpu.rt_period_us", "900000"), ("", "")),
    CPU + "/realtimeRuntime": ({CPU: {"realtimeRuntime": 0}}, ("cpu", "cpu.rt_runtime_us", "0"), ("", "")),
    CPU + "/cpus": ({CPU: {"cpus": "0"}}, ("cpuset", "cpuset.cpus", "0"), ("cpuset.cpus", "0")),
    CPU + "/mems": ({CPU: {"mems": "0"}}, ("cpuset", "cpuset.mems", "0"), ("cpuset.mems", "0")),
    CPU + "/idle": ({CPU: {"idle": 1}}, ("cpu", "cpu.idle", "1"), ("cpu.idle", "1")),
    "/linux/resources/pids/limit": (
        {"/linux/resources/pids": {"limit": 70}},
        ("pids", "pids.max", "70"),
        ("pids.max", "70"),
    ),
    BLOCK + "/weight": ({BLOCK: {"weight": 500}}, ("blkio", "blkio.bfq.weight", "500"), ("io.bfq.weight", "default 500.*")),
    BLOCK + "/leafWeight": ({BLOCK: {"leafWeight": 20}}, ("blkio", "blkio.leaf_weight", "20"), ("", "")),
    **{
        f"{BLOCK}/throttle{name}Device": (
            {f"{BLOCK}/throttle{name}Device": [{"major": MAJOR, "minor": MINOR, "rate": 1 << 20}]},
            ("blkio", f"blkio.throttle.{file}_device", f"{MAJOR}:{MINOR} {1 << 20}"),
            ("io.max", f"{MAJOR}:{MINOR} .*{key}={1 << 20}.*"),
        )
        for name, file, key in (
            ("ReadBps", "read_bps", "rbps"),
            ("WriteBps", "write_bps", "wbps"),
            ("ReadIOPS", "read_iops", "riops"),
            ("WriteIOPS", "write_iops", "wiops"),
        )
    },
    "/linux/resources/hugepageLimits": (
        _HUGE,
        ("hugetlb", "hugetlb.2MB.limit_in_bytes", str(4 << 20)),
        ("hugetlb.2MB.max", str(4 << 20)),
    ),
    "/linux/resources/unified": (
        # Above what init needs: it would be slowed down, and on a slow machine not come to its end.
        {"/linux/resources/unified": {"memory.high": str(64 << 20)}},
        ("", "", ""),
        ("memory.high", str(64 << 20)),
    ),
}


# Where a kernel of version 2 has no BFQ (the file of which is then not there): file and content.
WITHOUT_BFQ = {BLOCK + "/weight": ("io.weight", "default 4950")}


def hierarchy(layout: Layout, controller: str, file: str) -> Path:
    """The mount point of the hierarchy in which a limit is set. Skips the test where there is none, or has no such file."""
    if layout.mode == "v2":
        if not file:
            pytest.skip("cgroup version 2 has no such setting")
        need = file.partition(".")[0]
        if need not in Path(layout.mounts[""], "cgroup.controllers").read_text().split():
            pytest.skip(f"this view of version 2 has no {need} controller")
        return Path(layout.mounts[""])
    if not file:
        pytest.skip("cgroup version 1 has no such setting")
    if controller not in layout.mounts:
        pytest.skip(f"no {controller} hierarchy on this machine")
    return Path(layout.mounts[controller])


@pytest.mark.parametrize("entry", LIMITS)
def test_limit(runtime: Runtime, bundle: MakeBundle, entry: str) -> None:
    """Read from the cgroup of a created container."""
    changes, (controller, file, value), version_2 = LIMITS[entry]
    layout = detect()
    if layout.mode == "v2":
        file, value = version_2
    mounted = hierarchy(layout, controller, file)
    if "blockIO" in entry and DISK is None:
        pytest.skip("this machine has no disk")
    made = changed(bundle(args=["sleep", "60"]), changes)
    container = runtime.new_id()
    result = runtime.try_create(made, container=container)
    if file in result.err and "no such file" in result.err.lower():
        pytest.skip(f"this kernel has no {file}")
    result.ok()
    place = mounted / runtime.group(container)[1:]
    if layout.mode == "v2" and entry in WITHOUT_BFQ and not (place / file).exists():
        file, value = WITHOUT_BFQ[entry]
    assert re.fullmatch(value, (place / file).read_text().strip(), re.DOTALL)
    runtime.delete(container, "--force").ok()


@pytest.fixture(scope="module")
def weighed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """The number of a disk that is shared by weight."""
    load_modules()
    with shared_by_weight(tmp_path_factory.mktemp("disk")) as number:
        yield number


def test_weight_of_a_device(runtime: Runtime, bundle: MakeBundle, weighed: tuple[int, int]) -> None:
    """As the disk's scheduler has it for the container."""
    layout = detect()
    file = "io.bfq.weight" if layout.mode == "v2" else "blkio.bfq.weight_device"
    mounted = hierarchy(layout, "blkio", file)
    major, minor = weighed
    device = {"major": major, "minor": minor, "weight": 300}
    container = runtime.create(changed(bundle(args=["sleep", "60"]), {BLOCK: {"weightDevice": [device]}}))
    assert f"{major}:{minor} 300" in (mounted / runtime.group(container)[1:] / file).read_text().splitlines()
    runtime.delete(container, "--force").ok()


# -- filters -------------------------------------------------------------------------------------------------------------------

x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="uses x86_64's numbers")
_GETPPID, _GETPGRP, _GETPGID = "110", "111", "121"
_ACTIONS = ("KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG")
_RESULTS = {"ERRNO": 1, "TRACE": 38, "ALLOW": 0, "LOG": 0}


def _probe_call(runtime: Runtime, bundle: Bundle, section: Changes, *words: str) -> int:
    """What a system call of the program comes to: its errno or result, or the signal that it dies of."""
    bundle.edit(args=["/bin/probe", "call", *words], seccomp=section)
    said = runtime.run(bundle)
    if said.rc > 128:
        return said.rc - 128
    told = said.ok().json()
    return int(told["errno"] or told["result"])


@x86_64
@pytest.mark.parametrize("action", _ACTIONS)
def test_action(runtime: Runtime, bundle: MakeBundle, action: str) -> None:
    rule = {"names": ["getppid", "fchmodat2"], "action": "SCMP_ACT_" + action}
    default = "SCMP_ACT_LOG" if action == "ALLOW" else "SCMP_ACT_ALLOW"
    found = _probe_call(runtime, bundle(), {"defaultAction": default, "syscalls": [rule]}, _GETPPID)
    assert found == _RESULTS.get(action, signal.SIGSYS)


# What a static program, and init on its way to it, call.
_NEEDED = [
    *(
        "read",
        "write",
        "open",
        "openat",
        "close",
        "fstat",
        "newfstatat",
        "mmap",
        "munmap",
        "mprotect",
        "brk",
        "exit",
        "exit_group",
    ),
    *("execve", "arch_prctl", "set_tid_address", "set_robust_list", "rseq", "prlimit64", "readlink", "readlinkat", "getrandom"),
    *(
        "ioctl",
        "rt_sigaction",
        "rt_sigprocmask",
        "capset",
        "writev",
        "uname",
        "futex",
        "personality",
        "access",
        "prctl",
        "seccomp",
    ),
    *("close_range", "fcntl", "dup2", "stat", "sysinfo", "fchmodat2"),
]


@x86_64
@pytest.mark.ocirt_only("runc's init makes more calls, and dies of the filter itself")
@pytest.mark.parametrize("action", _ACTIONS)
def test_default_action(runtime: Runtime, bundle: MakeBundle, action: str) -> None:
    rule = {"names": _NEEDED, "action": "SCMP_ACT_LOG" if action == "ALLOW" else "SCMP_ACT_ALLOW"}
    found = _probe_call(runtime, bundle(), {"defaultAction": "SCMP_ACT_" + action, "syscalls": [rule]}, _GETPPID)
    assert found == _RESULTS.get(action, signal.SIGSYS)


@x86_64
def test_errno_values(runtime: Runtime, bundle: MakeBundle) -> None:
    rules = [{"names": _NEEDED, "action": "SCMP_ACT_ALLOW"}, {"names": ["getpgrp"], "action": "SCMP_ACT_ERRNO", "errnoRet": 17}]
    section = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 18, "syscalls": rules}
    assert _probe_call(runtime, bundle(), section, _GETPPID) == 18
    assert _probe_call(runtime, bundle(), section, _GETPGRP) == 17


_OPERATORS: dict[str, tuple[int, int]] = {  # an argument that is met, and one that is not
    "NE": (6, 5),
    "LT": (4, 5),
    "LE": (5, 6),
    "EQ": (5, 4),
    "GE": (5, 4),
    "GT": (6, 5),
    "MASKED_EQ": (4, 5),
}


@x86_64
@pytest.mark.parametrize("operator", _OPERATORS)
def test_operator(runtime: Runtime, bundle: MakeBundle, operator: str) -> None:
    """On the second argument of getpgid(2), which the kernel does not look at."""
    condition = {"index": 1, "value": 5, "valueTwo": 4, "op": "SCMP_CMP_" + operator}
    rule = {"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77, "args": [condition]}
    section = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    met, other = _OPERATORS[operator]
    made = bundle()
    assert _probe_call(runtime, made, section, _GETPGID, "0", str(met)) == 77
    assert _probe_call(runtime, made, section, _GETPGID, "0", str(other)) == 1  # the group of init


@x86_64
@pytest.mark.parametrize("flag", ["TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"])
def test_flag(runtime: Runtime, bundle: MakeBundle, flag: str) -> None:
    """The kernel takes it, and the filter is there."""
    rule = {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}
    section = {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_" + flag], "syscalls": [rule]}
    made = bundle()
    assert _probe_call(runtime, made, section, _GETPPID) == 77
    if flag == "SPEC_ALLOW":
        shown = runtime.shell(made, "grep Speculation_Store_Bypass /proc/self/status", seccomp=section).out
        assert "force mitigated" not in shown


# -- the record and hooks ------------------------------------------------------------------------------------------------------


def test_version_and_annotations(runtime: Runtime, bundle: MakeBundle) -> None:
    """Both are in the state that callers read."""
    container = runtime.create(bundle(ociVersion="1.1.0", annotations={"org.example.a": "b"}, args=["true"]))
    state = runtime.state(container)
    assert state["annotations"] == {"org.example.a": "b"}
    if runtime.is_ocirt:
        assert state["ociVersion"] == "1.1.0"
    runtime.delete(container).ok()


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"])
def test_hook(runtime: Runtime, bundle: MakeBundle, tmp_path: Path, kind: str) -> None:
    """Its program, arguments and environment; and that it is not given more time than it may have."""
    told = tmp_path / "told"
    made = bundle()
    place = "/told" if kind == "startContainer" else str(told)
    script = f'cat >/dev/null; echo "$0 $1 $A" >{place}'
    hook = {"path": "/bin/sh", "args": ["sh", "-c", script, "zero", "one"], "env": ["PATH=/bin:/usr/bin", "A=b"]}
    made.edit(hooks={kind: [hook]}, args=["true"])
    runtime.run(made).ok()
    found = made.rootfs / "told" if kind == "startContainer" else told
    assert found.read_text() == "zero one b\n"
    slow = {"path": "/bin/sleep", "args": ["sleep", "20"], "timeout": 1}
    result = runtime.run(made.edit(hooks={kind: [slow]}), timeout=15)
    assert "timeout" in result.err or kind == "poststop"
    assert (result.rc == 0) == (kind == "poststop")
