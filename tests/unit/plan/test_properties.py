"""Each property of the specification that is supported, alone: the step, or the part of the record, that it becomes.

The keys are those of docs/spec-coverage.md: `*` is an index, `{}` a name of one's own, `=` stands before a value.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocirt.cli.plan import named
from ocirt.containers import create as creating
from ocirt.containers.create import Creation
from ocirt.errors import Error
from ocirt.seccomp.compile import compile_filter
from ocirt.seccomp.tables import ACTIONS, ARCHITECTURES, FLAGS
from ocirt.spec.check import check
from tests.support.bundle import default_config
from tests.unit.plan.cases import Case, Changes, more
from tests.unit.plan.plans import MAPPING, host, made, request
from tests.unit.seccomp import bpf
from tests.unit.spec.documents import put


def case(operation: str, arguments: Changes, changes: Changes, mode: str = "v2") -> Case:
    """A step."""
    return (changes, operation, arguments, mode)


def limit(changes: Changes, mode: str, *entry: str) -> Case:
    """A limit: controller, file and value are one of the entries that are written."""
    return (changes, "cgroup.limit", {"entries": list(entry)}, mode)


HOOK = {"path": "/bin/hook", "args": ["hook", "x"], "env": ["A=b"], "timeout": 2}
USER = {"/linux/namespaces/-": {"type": "user"}, "/linux/uidMappings": [MAPPING], "/linux/gidMappings": [MAPPING]}
BIND = {"destination": "/data", "source": "/srv/data", "options": ["rbind", "ro", "rprivate"]}
DEVICE = {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 7, "gid": 8}
ALLOW_ALL = {"defaultAction": "SCMP_ACT_ALLOW"}
RLIMIT = {"type": "RLIMIT_CORE", "soft": 1, "hard": 2}
TERMINAL = {"/process/terminal": True, "/process/consoleSize": {"height": 25, "width": 80}}


def _hooks() -> dict[str, Case]:
    found = {}
    for kind in ("prestart", "createRuntime", "createContainer", "startContainer"):
        for name in ("", "/*/path", "/*/args", "/*/env", "/*/timeout"):
            found[f"/hooks/{kind}{name}"] = case("hooks.run", {"kind": kind, "hook": HOOK}, {f"/hooks/{kind}": [HOOK]})
    found["/hooks"] = found["/hooks/prestart"]
    return found


def _capabilities() -> dict[str, Case]:
    every = {f"/process/capabilities/{kind}": ["CAP_CHOWN"] for kind in ("effective", "permitted", "inheritable", "ambient")}
    return {
        "/process/capabilities": case("process.set_capabilities", {"effective": 1, "permitted": 1, "inheritable": 1}, every),
        "/process/capabilities/effective": case("process.set_capabilities", {"effective": 1}, every),
        "/process/capabilities/permitted": case("process.set_capabilities", {"permitted": 1}, every),
        "/process/capabilities/inheritable": case("process.set_capabilities", {"inheritable": 1}, every),
        "/process/capabilities/ambient": case("process.raise_ambient", {"mask": 1}, every),
        "/process/capabilities/bounding": case(
            "process.limit_bounding_set", {"keep": 1 << 5}, {"/process/capabilities/bounding": ["CAP_KILL"]}
        ),
    }


def _namespaces() -> dict[str, Case]:
    flags = {
        "mount": 0x20000,
        "uts": 0x4000000,
        "ipc": 0x8000000,
        "user": 0x10000000,
        "pid": 0x20000000,
        "network": 0x40000000,
        "time": 0x80,
    }
    found = {}
    for kind, flag in flags.items():
        changes: Changes = {"/linux/namespaces": [{"type": "mount"}], "/hostname": ""}
        if kind == "user":
            changes |= USER
        elif kind != "mount":
            changes["/linux/namespaces/-"] = {"type": kind}
        found[f"/linux/namespaces/*/type={kind}"] = case("process.clone", {"flags": flag | flags["mount"]}, changes)
    found["/linux/namespaces/*/type=cgroup"] = case(
        "namespace.unshare", {"kinds": 0x2000000}, {"/linux/namespaces/-": {"type": "cgroup"}}
    )
    found["/linux/namespaces/*/path"] = case(
        "namespace.open", {"path": "/proc/7/ns/ipc", "kind": flags["ipc"]}, {"/linux/namespaces/2/path": "/proc/7/ns/ipc"}
    )
    found["/linux/namespaces"] = found["/linux/namespaces/*/type"] = found["/linux/namespaces/*/type=pid"]
    return found


def _mappings() -> dict[str, Case]:
    lines = [[0, 100000, 65536]]
    whole = case("user.map", {"uids": lines, "gids": lines}, USER)
    return {
        f"/linux/{kind}Mappings{name}": whole
        for kind in ("uid", "gid")
        for name in ("", "/*/containerID", "/*/hostID", "/*/size")
    }


def _propagation() -> dict[str, Case]:
    kinds = {"shared": 1 << 20, "slave": 1 << 19, "private": 1 << 18}
    found = {
        f"/linux/rootfsPropagation={name}": case(
            "mount.propagate_host", {"propagation": flag, "recursive": False}, {"/linux/rootfsPropagation": name}
        )
        for name, flag in kinds.items()
    }
    found["/linux/rootfsPropagation=unbindable"] = case(
        "mount.propagate_root", {"propagation": 1 << 17}, {"/linux/rootfsPropagation": "unbindable"}
    )
    found["/linux/rootfsPropagation"] = found["/linux/rootfsPropagation=shared"]
    return found


def _resources() -> dict[str, Case]:
    place = "/linux/resources"
    memory, cpu, block = place + "/memory", place + "/cpu", place + "/blockIO"
    limited = {memory: {"limit": 1 << 26, "swap": 1 << 27}}
    quota = {cpu: {"quota": 50000, "period": 100000, "burst": 10000}}
    weights = {block: {"weight": 500, "weightDevice": [{"major": 8, "minor": 16, "weight": 300, "leafWeight": 200}]}}
    huge = {place + "/hugepageLimits": [{"pageSize": "2MB", "limit": 4096}]}
    found = {
        memory: limit(limited, "v2", "memory", "memory.max", str(1 << 26)),
        memory + "/limit": limit(limited, "v2", "memory", "memory.max", str(1 << 26)),
        memory + "/swap": limit(limited, "v2", "memory", "memory.swap.max", str(1 << 26)),
        memory + "/reservation": limit({memory: {"reservation": 4096}}, "v2", "memory", "memory.low", "4096"),
        memory + "/swappiness": limit({memory: {"swappiness": 7}}, "v1", "memory", "memory.swappiness", "7"),
        memory + "/disableOOMKiller": limit({memory: {"disableOOMKiller": True}}, "v1", "memory", "memory.oom_control", "1"),
        cpu: limit({cpu: {"shares": 2}}, "v2", "cpu", "cpu.weight", "1"),
        cpu + "/shares": limit({cpu: {"shares": 512}}, "v2", "cpu", "cpu.weight", "59"),
        cpu + "/quota": limit(quota, "v2", "cpu", "cpu.max", "50000 100000"),
        cpu + "/period": limit(quota, "v2", "cpu", "cpu.max", "50000 100000"),
        cpu + "/burst": limit(quota, "v2", "cpu", "cpu.max.burst", "10000"),
        cpu + "/realtimePeriod": limit({cpu: {"realtimePeriod": 9000}}, "v1", "cpu", "cpu.rt_period_us", "9000"),
        cpu + "/realtimeRuntime": limit({cpu: {"realtimeRuntime": 900}}, "v1", "cpu", "cpu.rt_runtime_us", "900"),
        cpu + "/cpus": limit({cpu: {"cpus": "0-1"}}, "v2", "cpuset", "cpuset.cpus", "0-1"),
        cpu + "/mems": limit({cpu: {"mems": "0"}}, "v2", "cpuset", "cpuset.mems", "0"),
        cpu + "/idle": limit({cpu: {"idle": 1}}, "v2", "cpu", "cpu.idle", "1"),
        place + "/pids": limit({place + "/pids": {"limit": 7}}, "v2", "pids", "pids.max", "7"),
        place + "/pids/limit": limit({place + "/pids": {"limit": -1}}, "v2", "pids", "pids.max", "max"),
        block: limit(weights, "v1", "blkio", "blkio.bfq.weight", "500"),
        block + "/weight": limit(weights, "v2", "io", "io.bfq.weight", "500"),
        block + "/leafWeight": limit({block: {"leafWeight": 20}}, "v1", "blkio", "blkio.leaf_weight", "20"),
        block + "/weightDevice": limit(weights, "v1", "blkio", "blkio.bfq.weight_device", "8:16 300"),
        block + "/weightDevice/*/leafWeight": limit(weights, "v1", "blkio", "blkio.leaf_weight_device", "8:16 200"),
        place + "/hugepageLimits": limit(huge, "v2", "hugetlb", "hugetlb.2MB.max", "4096"),
        place + "/unified": limit({place + "/unified": {"memory.high": "4096"}}, "v2", "memory", "memory.high", "4096"),
    }
    for name in ("major", "minor", "weight"):
        found[f"{block}/weightDevice/*/{name}"] = found[block + "/weightDevice"]
    for name in ("pageSize", "limit"):
        found[f"{place}/hugepageLimits/*/{name}"] = found[place + "/hugepageLimits"]
    throttles = {"ReadBps": "read_bps", "WriteBps": "write_bps", "ReadIOPS": "read_iops", "WriteIOPS": "write_iops"}
    for name, file in throttles.items():
        throttle = f"{block}/throttle{name}Device"
        throttled = {throttle: [{"major": 8, "minor": 16, "rate": 1000}]}
        for part in ("", "/*/major", "/*/minor", "/*/rate"):
            found[throttle + part] = limit(throttled, "v1", "blkio", f"blkio.throttle.{file}_device", "8:16 1000")
    rules = {
        place + "/devices": [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "b", "major": 8, "minor": 16, "access": "rm"},
        ]
    }
    for part in ("", "/*/allow", "/*/type", "/*/major", "/*/minor", "/*/access"):
        found[place + "/devices" + part] = case(
            "cgroup.device_rules", {"writes": ["devices.allow", "b 8:16 rm", place + "/devices/1"]}, rules, "v1"
        )
    found[place] = found[place + "/pids"]
    return found


CASES: dict[str, Case] = {
    **_hooks(),
    **_capabilities(),
    **_namespaces(),
    **_mappings(),
    **_propagation(),
    **_resources(),
    "/hostname": case("process.set_host_name", {"name": "box"}, {"/hostname": "box"}),
    "/domainname": case("process.set_domain_name", {"name": "example.org"}, {"/domainname": "example.org"}),
    "/mounts": case("mount.attach", {"target": "/data"}, {"/mounts/-": BIND}),
    "/mounts/*/destination": case("mount.attach", {"target": "/data"}, {"/mounts/-": BIND}),
    "/mounts/*/source": case("mount.clone", {"source": "/srv/data", "recursive": True}, {"/mounts/-": BIND}),
    "/mounts/*/options": case("mount.change", {"slot": "mount/6", "attr_set": 1}, {"/mounts/-": BIND}),
    "/mounts/*/type": case("mount.new", {"kind": "ramfs"}, {"/mounts/-": {"destination": "/x", "type": "ramfs"}}),
    "/root": case("tree.check_root", {"path": "/srv/root"}, {"/root/path": "/srv/root"}),
    "/root/path": case("tree.attach_root", {"path": "/srv/root"}, {"/root/path": "/srv/root"}),
    "/root/readonly": case("mount.change", {"slot": "root", "attr_set": 1}, {"/root/readonly": True}),
    "/process": case("program.prepare", {"args": ["ls", "-l"]}, {"/process/args": ["ls", "-l"]}),
    "/process/args": case("program.find", {"name": "ls"}, {"/process/args": ["ls", "-l"]}),
    "/process/cwd": case("process.chdir", {"path": "/home"}, {"/process/cwd": "/home"}),
    "/process/env": case("program.prepare", {"env": ["A=b"]}, {"/process/env": ["A=b"]}),
    "/process/terminal": case("console.bind", {}, {"/process/terminal": True}),
    "/process/user": case("user.become", {"uid": 5, "gid": 6}, {"/process/user": {"uid": 5, "gid": 6}}),
    "/process/user/uid": case("user.become", {"uid": 5}, {"/process/user": {"uid": 5, "gid": 6}}),
    "/process/user/gid": case("user.become", {"gid": 6}, {"/process/user": {"uid": 5, "gid": 6}}),
    "/process/user/umask": case("process.umask", {"mask": 0o77}, {"/process/user/umask": 0o77}),
    "/process/user/additionalGids": case("user.become", {"groups": [5, 7]}, {"/process/user/additionalGids": [5, 7]}),
    "/process/oomScoreAdj": case("process.set_oom_score", {"score": 100}, {"/process/oomScoreAdj": 100}),
    "/process/noNewPrivileges": case("process.no_new_privileges", {}, {"/process/noNewPrivileges": True}),
    "/linux": case("mount.mask", {"path": "/proc/x"}, {"/linux/maskedPaths": ["/proc/x"]}),
    "/linux/maskedPaths": case("mount.mask", {"path": "/proc/x"}, {"/linux/maskedPaths": ["/proc/x"]}),
    "/linux/readonlyPaths": case("mount.read_only", {"path": "/proc/x"}, {"/linux/readonlyPaths": ["/proc/x"]}),
    "/linux/sysctl": case(
        "tree.sysctl", {"path": "net/ipv4/ip_forward", "value": "1"}, {"/linux/sysctl": {"net.ipv4.ip_forward": "1"}}
    ),
    "/linux/cgroupsPath": case("cgroup.make", {"paths": {"": "/sys/fs/cgroup/pods/x"}}, {"/linux/cgroupsPath": "/pods/x"}),
    "/linux/devices": case("device.make", {"path": "/dev/fuse"}, {"/linux/devices": [DEVICE]}),
    "/linux/devices/*/type": case("device.make", {"path": "/dev/fuse", "kind": "c"}, {"/linux/devices": [DEVICE]}),
    "/linux/devices/*/path": case("device.make", {"path": "/dev/fuse"}, {"/linux/devices": [DEVICE]}),
    "/linux/devices/*/fileMode": case("device.make", {"path": "/dev/fuse", "mode": 0o640}, {"/linux/devices": [DEVICE]}),
    "/linux/devices/*/major": case("device.make", {"path": "/dev/fuse", "major": 10}, {"/linux/devices": [DEVICE]}),
    "/linux/devices/*/minor": case("device.make", {"path": "/dev/fuse", "minor": 229}, {"/linux/devices": [DEVICE]}),
    "/linux/devices/*/uid": case("device.make", {"path": "/dev/fuse", "uid": 7}, {"/linux/devices": [DEVICE]}),
    "/linux/devices/*/gid": case("device.make", {"path": "/dev/fuse", "gid": 8}, {"/linux/devices": [DEVICE]}),
    "/linux/seccomp": case("program.filter", {}, {"/linux/seccomp": ALLOW_ALL}),
    **{
        "/process/consoleSize" + part: case("console.open", {"rows": 25, "columns": 80}, TERMINAL)
        for part in ("", "/height", "/width")
    },
    **{
        "/process/rlimits" + part: case(
            "program.limit", {"resource": "RLIMIT_CORE", "soft": 1, "hard": 2}, {"/process/rlimits": [RLIMIT]}
        )
        for part in ("", "/*/type", "/*/soft", "/*/hard")
    },
    **more(),
}


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _fits(found: dict[str, Any], wanted: Changes) -> bool:
    for name, value in wanted.items():
        if name in ("entries", "writes"):
            if not any(list(entry)[: len(value)] == value for entry in found[name]):
                return False
        elif _plain(found[name]) != value:
            return False
    return True


def configuration(changes: Changes) -> dict[str, Any]:
    """The default configuration with changes, which must be a valid one."""
    config = default_config()
    config["process"]["noNewPrivileges"] = False
    for pointer, value in changes.items():
        put(config, pointer, copy.deepcopy(value))
    assert [finding for finding in check(copy.deepcopy(config)) if finding[3] == "error"] == []
    return config


@pytest.mark.parametrize("entry", CASES)
def test_step(entry: str) -> None:
    """The step is there with the property, and not without it."""
    changes, operation, arguments, mode = CASES[entry]

    def there(config: dict[str, Any], console: str) -> bool:
        plan = made(config, host(mode, rdt=True, modules=("AppArmor", "SELinux")), request(console=console))
        return any(step[1] == operation and _fits(named(operation, step[2]), arguments) for step in plan)

    assert there(configuration(changes), "socket" if changes.get("/process/terminal") else "")
    assert not there(configuration({}), "")


# -- the record ----------------------------------------------------------------------------------------------------------------

RECORDED: dict[str, tuple[Changes, str, Any]] = {
    "/ociVersion": ({"/ociVersion": "1.1.0"}, "spec_version", "1.1.0"),
    "/annotations": ({"/annotations": {"org.example.a": "b"}}, "annotations", {"org.example.a": "b"}),
    **{
        f"/hooks/{kind}{part}": ({f"/hooks/{kind}": [HOOK]}, "hooks", {kind: [HOOK]})
        for kind in ("poststart", "poststop")
        for part in ("", "/*/path", "/*/args", "/*/env", "/*/timeout")
    },
}


@pytest.mark.parametrize("entry", RECORDED)
def test_record(entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What later verbs need goes into the record."""
    changes, name, value = RECORDED[entry]
    monkeypatch.setattr(creating, "look", lambda: host("none"))
    (tmp_path / "config.json").write_text(json.dumps(configuration({"/linux/resources": {}, **changes})))
    asked = request(cgroups="disabled")
    asked.bundle = str(tmp_path)
    Creation(str(tmp_path / "root"), asked).prepare()
    record = json.loads((tmp_path / "root/c1/state.json").read_text())
    assert record[name] == value


# -- filters -------------------------------------------------------------------------------------------------------------------

_GETPPID, _X86_64 = 110, 0xC000003E


def _result(section: dict[str, Any], *arguments: int, number: int = _GETPPID, architecture: int = _X86_64) -> int:
    return bpf.run(compile_filter(section).program, number, architecture, arguments)


def _rule(**members: Any) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getppid"], **members}]}


def _value(action: str) -> int:
    return ACTIONS[action] | (1 if action in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") else 0)


@pytest.mark.parametrize("action", ACTIONS)
def test_default_action(action: str) -> None:
    other = "SCMP_ACT_LOG" if action == "SCMP_ACT_ALLOW" else "SCMP_ACT_ALLOW"
    section = {"defaultAction": action, "syscalls": [{"names": ["fchmodat2"], "action": other}]}
    assert _result(section) == _value(action)


@pytest.mark.parametrize("action", ACTIONS)
def test_action(action: str) -> None:
    section = _rule(action=action) | {"defaultAction": "SCMP_ACT_LOG" if action == "SCMP_ACT_ALLOW" else "SCMP_ACT_ALLOW"}
    assert _result(section) == _value(action)
    assert _result(section, number=39) == ACTIONS[section["defaultAction"]]


def test_errno_values() -> None:
    rule = {"names": ["fchmodat2", "getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 17}
    section = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 18, "syscalls": [rule]}
    assert _result(section) == 0x50000 | 17
    assert _result(section, number=39) == 0x50000 | 18


OPERATORS: dict[str, Callable[[int], bool]] = {
    "SCMP_CMP_NE": lambda seen: seen != 5,
    "SCMP_CMP_LT": lambda seen: seen < 5,
    "SCMP_CMP_LE": lambda seen: seen <= 5,
    "SCMP_CMP_EQ": lambda seen: seen == 5,
    "SCMP_CMP_GE": lambda seen: seen >= 5,
    "SCMP_CMP_GT": lambda seen: seen > 5,
    "SCMP_CMP_MASKED_EQ": lambda seen: seen & 5 == 4,
}


@pytest.mark.parametrize("operator", OPERATORS)
def test_operator(operator: str) -> None:
    """On the argument that `index` names, by all of `value` and `valueTwo`."""
    for index in range(6):
        section = _rule(action="SCMP_ACT_ERRNO", args=[{"index": index, "value": 5, "valueTwo": 4, "op": operator}])
        for seen in (0, 4, 5, 6, 1 << 40 | 5):
            arguments = [0] * 6
            arguments[index] = seen
            wanted = 0x50001 if OPERATORS[operator](seen) else ACTIONS["SCMP_ACT_ALLOW"]
            assert _result(section, *arguments) == wanted, (index, seen)


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name not in ("SCMP_ARCH_X86_64", "SCMP_ARCH_X32")])
def test_architecture(architecture: str) -> None:
    """A call of this architecture is judged if the profile names it, and else kills; or the profile is refused."""
    token = ARCHITECTURES[architecture]
    plain = _rule(action="SCMP_ACT_ERRNO")
    number = 64 if architecture == "SCMP_ARCH_X86" else 1
    assert _result(plain, number=number, architecture=token) in (0, 0x80000000)
    section = plain | {"defaultAction": "SCMP_ACT_LOG", "architectures": [architecture]}
    try:
        judged = _result(section, number=number, architecture=token)
    except Error as err:
        # By a libseccomp that is older than the architecture, or because of its byte order.
        assert err.subject == "/linux/seccomp/architectures/0"
    else:
        assert judged in (ACTIONS["SCMP_ACT_LOG"], 0x50001)


def test_x86_64_and_x32() -> None:
    both = {"defaultAction": "SCMP_ACT_LOG", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"]}
    rule = {"syscalls": [{"names": ["getppid", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}]}
    assert _result(both | rule) == 0x50001
    assert _result(both | rule, number=_GETPPID | 0x40000000) == 0x50001


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if not flag.endswith("TSYNC")])
def test_flag(flag: str) -> None:
    action = "SCMP_ACT_NOTIFY" if "KILLABLE" in flag else "SCMP_ACT_ERRNO"
    assert compile_filter(_rule(action=action) | {"flags": [flag]}).flags & FLAGS[flag]
    assert not compile_filter(_rule(action=action) | {"flags": []}).flags & FLAGS[flag]
