"""`ocirt check` on a real machine: what it calls an error makes `run` fail, and nothing else does it call one."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.broken.bundles import NO_GROUP
from tests.support.bundle import Bundle
from tests.support.runtime import Result, Runtime
from tests.unit.spec.documents import GONE, get, put
from tests.unit.spec.test_properties import NUMBERS, SCALARS, WORDS, pointers

from .conftest import MakeBundle

pytestmark = pytest.mark.ocirt_only("runc has no `check`")

Findings = list[dict[str, str]]


def checked(runtime: Runtime, bundle: Bundle, globals_: Sequence[str] = ()) -> Findings:
    """What `check` says of a bundle, which has to leave the state root alone."""
    runtime.prepare(bundle, runtime.new_id())
    there = runtime.root.exists()
    result = runtime.call("check", "--json", bundle.path, globals_=globals_)
    findings: Findings = result.json()
    assert result.err == ""
    assert result.rc == (1 if errors(findings) else 0)
    assert runtime.root.exists() == there
    return findings


def errors(findings: Findings) -> list[str]:
    """Where the errors are."""
    return [each["pointer"] for each in findings if each["severity"] == "error"]


def refused(runtime: Runtime, bundle: Bundle) -> Result:
    return runtime.run(bundle).failed(rc=1)


def _ipc(path: str) -> dict[str, Any]:
    return {"namespaces": ["mount", {"type": "ipc", "path": path}], "hostname": None}


# (edits, where the error is, a word of the message)
HOST: dict[str, tuple[dict[str, Any], str, str]] = {
    "root": ({"root": {"path": "nothing"}}, "/root/path", "no such file or directory"),
    "root is a file": ({"root": {"path": "config.json"}}, "/root/path", "not a directory"),
    "namespace": (_ipc("/proc/1/ns/nothing"), "/linux/namespaces/1/path", "no such file"),
    "namespace of another kind": (_ipc("/proc/self/ns/net"), "/linux/namespaces/1/path", "another kind"),
    "no namespace": (_ipc("/dev/null"), "/linux/namespaces/1/path", "is no namespace"),
    "bind source": (
        {"add_mounts": [{"destination": "/x", "source": "/nothing", "options": ["bind"]}]},
        "/mounts/6/source",
        "no such file",
    ),
    "file system": ({"add_mounts": [{"destination": "/x", "type": "nofs"}]}, "/mounts/6", "no such device"),
    "file system's option": (
        {"add_mounts": [{"destination": "/x", "type": "tmpfs", "options": ["sise=1m"]}]},
        "/mounts/6",
        "Unknown parameter 'sise'",
    ),
    "hook": ({"hooks": {"createRuntime": [{"path": "/nothing"}]}}, "/hooks/createRuntime/0", "not there"),
    "hook in the container's namespaces": (
        {"hooks": {"createContainer": [{"path": "/nothing"}]}},
        "/hooks/createContainer/0",
        "not there",
    ),
    "hook without the right": ({"hooks": {"prestart": [{"path": "/etc/passwd"}]}}, "/hooks/prestart/0", "cannot be executed"),
    "hook that is a directory": ({"hooks": {"poststart": [{"path": "/etc"}]}}, "/hooks/poststart/0", "cannot be executed"),
    "sysctl": ({"sysctl": {"net.nothing.here": "1"}}, "/linux/sysctl/net.nothing.here", "no such file"),
    "cgroup": ({"cgroupsPath": "/"}, "/linux/cgroupsPath", NO_GROUP),
    "open files": (
        {"rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1 << 40, "soft": 1}]},
        "/process/rlimits/0",
        "not permitted",
    ),
    "huge pages": (
        {"resources": {"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}},
        "/linux/resources/hugepageLimits/0",
        "hugetlb",
    ),
    "processor": ({"resources": {"cpu": {"cpus": "0-4095"}}}, "/linux/resources/cpu/cpus", ""),
    "seccomp argument": (
        {
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["write"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4095}],
            }
        },
        "/linux/seccomp/syscalls/0/errnoRet",
        "4095",
    ),
    "inheritable": (
        {"capabilities": {"bounding": ["CAP_KILL"], "permitted": [], "inheritable": ["CAP_CHOWN"]}},
        "/process/capabilities",
        "not permitted",
    ),
}


@pytest.mark.parametrize("case", HOST, ids=HOST.keys())
def test_what_this_machine_cannot_do(runtime: Runtime, bundle: MakeBundle, case: str) -> None:
    edits, pointer, word = HOST[case]
    if case in ("huge pages", "processor") and os.environ.get("OCIRT_TEST_VIEW") == "v2":
        pytest.skip("this view has no controllers: every limit is refused alike")
    made = bundle(**edits)
    found = checked(runtime, made)
    [finding] = [each for each in found if each["severity"] == "error"]
    assert finding["pointer"].startswith(pointer)
    assert word in finding["message"]
    assert finding["hint"]
    assert pointer in refused(runtime, made).err


def test_capabilities_that_the_caller_lacks(runtime: Runtime, bundle: MakeBundle) -> None:
    """The test's own process may lack some; one that has all is made to lack one."""
    made = bundle(capabilities={kind: ["CAP_SYS_BOOT"] for kind in ("bounding", "effective", "permitted")})
    own = runtime.command
    runtime.command = ["setpriv", "--bounding-set=-sys_boot", "--inh-caps=-sys_boot", *own]
    try:
        assert errors(checked(runtime, made)) == ["/process/capabilities"]
        assert "/process/capabilities" in refused(runtime, made).err
    finally:
        runtime.command = own
    assert errors(checked(runtime, made)) == []
    runtime.run(made).ok()


def test_a_cgroup_in_use(runtime: Runtime, bundle: MakeBundle) -> None:
    made = bundle(args=["sleep", "60"])
    container = runtime.run_detached(made)
    taken = json.loads((runtime.root / container / "state.json").read_text())["cgroup"]["paths"]
    if not taken:
        pytest.skip("no cgroups to be had")
    made.config["linux"]["cgroupsPath"] = runtime.cgroups_path(container)
    [finding] = [each for each in checked(runtime, made.edit()) if each["severity"] == "error"]
    assert finding["pointer"] == "/linux/cgroupsPath"
    assert "not empty" in finding["message"]
    assert "not empty" in runtime.call("run", "--bundle", made.path, runtime.new_id()).failed(rc=1).err


def test_all_at_once(runtime: Runtime, bundle: MakeBundle) -> None:
    """Faults that `run` would report one after the other."""
    whole: dict[str, Any] = {}
    for case in ("bind source", "hook", "sysctl", "open files"):
        whole |= copy.deepcopy(HOST[case][0])
    made = bundle(**whole)
    assert sorted(errors(checked(runtime, made))) == [
        "/hooks/createRuntime/0/path",
        "/linux/sysctl/net.nothing.here",
        "/mounts/6/source",
        "/process/rlimits/0",
    ]
    text = runtime.call("check", made.path)
    assert text.rc == 1
    assert len([line for line in text.out.splitlines() if line.startswith("error /")]) == 4


def test_a_poststop_hook_and_a_program_that_are_not_there_are_warnings(runtime: Runtime, bundle: MakeBundle) -> None:
    """The one does not make `run` fail, the other may come with a mount."""
    made = bundle(hooks={"poststop": [{"path": "/nothing"}]}, args=["nothing"])
    found = checked(runtime, made)
    assert {each["pointer"] for each in found} == {"/hooks/poststop/0/path", "/process/args/0"}
    assert errors(found) == []


def test_good_bundles(runtime: Runtime, bundle: MakeBundle) -> None:
    made = bundle()
    assert checked(runtime, made) == []
    runtime.run(made).ok()


def _mutable(pointer: str) -> bool:
    # What would make the containers of this test wait, fail by themselves or outlive it is left alone.
    alone = ("/process/args", "/process/terminal", "/linux/cgroupsPath", "/linux/seccomp/defaultAction")
    return bool(pointer) and not pointer.startswith(alone)


# What a document has beside the usual: all of it can be had on this machine.
FEATURES: dict[str, Any] = {
    "/process/scheduler": {"policy": "SCHED_BATCH", "nice": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
    "/process/ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
    "/process/execCPUAffinity": {"initial": "0", "final": "0"},
    "/process/oomScoreAdj": 300,
    "/process/apparmorProfile": "",
    "/process/selinuxLabel": "",
    "/linux/mountLabel": "",
    "/linux/personality": {"domain": "LINUX", "flags": []},
    "/linux/memoryPolicy": {"mode": "MPOL_PREFERRED", "nodes": "0", "flags": []},
    "/linux/namespaces/-": {"type": "time"},
    "/linux/timeOffsets": {"monotonic": {"secs": 3, "nanosecs": 4}, "boottime": {"secs": 5, "nanosecs": 6}},
    "/linux/resources/rdma": {},
    "/linux/resources/hugepageLimits": [],
    "/linux/resources/network": {"priorities": []},
    "/linux/netDevices": {},
    "/linux/seccomp": {
        "defaultAction": "SCMP_ACT_ALLOW",
        "defaultErrnoRet": None,
        "architectures": [],
        "flags": [],
        "listenerPath": "/nothing",
        "listenerMetadata": "x",
        "syscalls": [{"names": ["keyctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": []}],
    },
    "/annotations": {"org.systemd.property.TimeoutStopUSec": "uint64 5000000"},
}
# What it may have, and few machines do; each with something in it to be changed.
ASKED: dict[str, Any] = {
    "/process/scheduler": {"policy": "SCHED_DEADLINE", "runtime": 42000, "deadline": 100_000, "period": 1_000_000},
    "/process/apparmorProfile": "unconfined",
    "/process/selinuxLabel": "system_u:system_r:container_t:s0",
    "/linux/mountLabel": "system_u:object_r:container_file_t:s0",
    "/linux/intelRdt": {"closID": "check", "l3CacheSchema": "", "memBwSchema": "", "schemata": [], "enableMonitoring": True},
    "/linux/memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
    "/linux/netDevices": {"nosuch0": {"name": "eth0"}},
    "/linux/resources/rdma": {"mlx5_0": {"hcaHandles": 2, "hcaObjects": 2}},
    "/linux/resources/hugepageLimits": [{"pageSize": "3MB", "limit": 0}],
    "/linux/resources/network": {"classID": 1, "priorities": [{"name": "lo", "priority": 1}]},
    "/linux/seccomp/syscalls/0/action": "SCMP_ACT_NOTIFY",
    "/mounts/-": {
        "destination": "/m",
        "source": "/proc",
        "options": ["rbind", "ridmap"],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
    },
}


# Words that mean something of the machine, beside those of the specification.
MEANT = ["0", "1", "700", "0-1", "lo", "eth0", "unconfined", "/nothing", "/proc", "check", "getpid", "2MB", "a.slice:b:c"]
ANYTHING = st.one_of(SCALARS, NUMBERS, st.sampled_from(WORDS), st.just([]), st.just({}), st.just(GONE))


def _inside(place: str, value: Any) -> list[str]:
    return [place + inner for inner in pointers(value)]


def _like(value: Any) -> st.SearchStrategy[Any]:
    """Values of the same type, which a checker of shapes lets pass; or anything."""
    if isinstance(value, str):
        return st.one_of(st.sampled_from(MEANT), st.sampled_from(MEANT + WORDS), ANYTHING)
    if isinstance(value, int):
        return st.one_of(st.integers(-20, 20), st.sampled_from([-(10**9), 1 << 40, 1 << 62]), ANYTHING)
    return ANYTHING


def test_mutated_bundles(runtime: Runtime, bundle: MakeBundle) -> None:
    """Of an error `run` dies, at the same place; what `check` calls no error, `run` takes. (OCIRT_TEST_MUTATIONS: how many)"""
    made = bundle()
    usual = [pointer for pointer in pointers(made.config) if _mutable(pointer)]
    for place, value in FEATURES.items():
        put(made.config, place, value)
    base = copy.deepcopy(made.config)
    features = [pointer for place, value in FEATURES.items() for pointer in _inside(place, value) if _mutable(pointer)]
    # One value of those that any document has, one of a feature, or one of a feature that is added.
    places = st.one_of(
        *(st.tuples(st.none(), st.sampled_from(each)) for each in (usual, features)),
        st.sampled_from(list(ASKED)).flatmap(
            lambda asked: st.tuples(st.just(asked), st.sampled_from(_inside(asked, ASKED[asked])))
        ),
    )
    seen = {"both": 0, "neither": 0}

    @settings(
        max_examples=int(os.environ.get("OCIRT_TEST_MUTATIONS", "90")),
        derandomize="OCIRT_TEST_MUTATIONS" not in os.environ,
        database=None,
    )
    @given(places, st.booleans(), st.data())
    def mutate(place: tuple[str | None, str], only_added: bool, data: st.DataObject) -> None:
        asked, pointer = place
        document = copy.deepcopy(base)
        value = None
        if asked:
            put(document, asked, copy.deepcopy(ASKED[asked]))
        if not (asked and only_added):
            pointer = _last(document, pointer)
            value = data.draw(_like(get(document, pointer)))
            put(document, pointer, value)
        made.config = document
        if not isinstance(document.get("linux"), dict):
            document.pop("linux", None)
        container = runtime.new_id()
        runtime.prepare(made, container)
        found: Findings = runtime.call("check", "--json", made.path).json()
        result = runtime.call("run", "--bundle", made.path, container)
        if wrong := errors(found):
            assert result.rc == 1, (asked, pointer, value, found)
            assert any((each or "config.json") in result.err or not each for each in wrong), (result.err, found)
            seen["both"] += 1
        else:
            # The program is the one thing that `check` cannot be sure of.
            assert result.rc == 0 or "executable file not found" in result.err, (asked, pointer, value, result.err)
            seen["neither"] += 1

    mutate()
    assert seen["both"] >= 10
    assert seen["neither"] >= 3


def _last(document: Any, pointer: str) -> str:
    """The pointer with a number for `-`, which stands for the last entry."""
    head, dash, tail = pointer.partition("/-")
    return f"{head}/{len(get(document, head)) - 1}{tail}" if dash else pointer
