"""Adjustments applied to a config.json, thing by thing."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given

from ocirt.errors import Error
from ocirt.spec.check import check
from ocirt_api.nri import api_pb2 as nri
from ocirt_cri.nri import adjust
from ocirt_cri.spec.inputs import CdiDocument, Host
from tests.unit.cri.nri.messages import adjustments, document
from tests.unit.cri.spec.requests import HOST, Lookups, secure, secure_pod, userns, with_host
from tests.unit.cri.spec.requests import made as built
from tests.unit.cri.spec.requests import pod as a_pod

DOCUMENT = document()


def adjusted(given: dict[str, Any], host: Host = HOST, **lookups: Any) -> dict[str, Any]:
    """The document with an adjustment, in protobuf's JSON. The runtime finds no fault with it."""
    found = adjust.adjusted(DOCUMENT, json_format.ParseDict(given, nri.ContainerAdjustment()), host, Lookups(**lookups))
    assert check(found) == []
    return found


def value(number: int | str) -> dict[str, int | str]:
    return {"value": number}


@given(wanted=adjustments())
def test_the_document_that_was_given_stays(wanted: nri.ContainerAdjustment) -> None:
    before = copy.deepcopy(DOCUMENT)
    found = adjust.adjusted(DOCUMENT, wanted, HOST, Lookups())
    assert before == DOCUMENT
    json.dumps(found)


def test_nothing_changes_nothing() -> None:
    assert adjusted({}) == DOCUMENT


def test_annotations_and_environment() -> None:
    found = adjusted(
        {
            "annotations": {"a": "1", "-io.kubernetes.cri.sandbox-name": ""},
            "env": [{"key": "-HOSTNAME"}, {"key": "NEW", "value": "a=b"}, {"key": "PATH", "value": "/x"}],
        }
    )
    assert found["annotations"]["a"] == "1"
    assert "io.kubernetes.cri.sandbox-name" not in found["annotations"]
    names = [entry.partition("=")[0] for entry in DOCUMENT["process"]["env"] if not entry.startswith("HOSTNAME=")]
    assert [entry.partition("=")[0] for entry in found["process"]["env"]] == [*names, "NEW"]
    assert {"PATH=/x", "NEW=a=b"} <= set(found["process"]["env"])


@pytest.mark.parametrize("name", ["", "A=B"])
def test_a_variable_without_a_name(name: str) -> None:
    with pytest.raises(Error, match="is no name of a variable"):
        adjusted({"env": [{"key": name, "value": "x"}]})


def test_arguments_and_hooks() -> None:
    hook = {"path": "/bin/hook", "args": ["hook", "x"], "env": ["A=1"], "timeout": value(3)}
    kinds = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
    found = adjusted({"args": ["other", "program"], "hooks": {kind: [hook] for kind in kinds}})
    assert found["process"]["args"] == ["other", "program"]
    expected = [{"path": "/bin/hook", "args": ["hook", "x"], "env": ["A=1"], "timeout": 3}]
    assert found["hooks"] == dict.fromkeys(kinds, expected)


def test_mounts_are_sorted_and_replace_others() -> None:
    found = adjusted(
        {
            "mounts": [
                {"destination": "/z/deep", "type": "bind", "source": "/a", "options": ["bind", "ro"]},
                {"destination": "/z/", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "-/dev/mqueue"},
                {"destination": "/proc", "type": "bind", "source": "/p", "options": ["rbind"]},
            ]
        }
    )
    places = [mount["destination"] for mount in found["mounts"]]
    assert places == sorted(places, key=lambda place: place.count("/"))
    assert places.count("/proc") == 1
    assert "/dev/mqueue" not in places
    assert places.index("/z") < places.index("/z/deep")
    assert next(mount for mount in found["mounts"] if mount["destination"] == "/proc")["source"] == "/p"


def test_a_mount_that_is_not_absolute() -> None:
    with pytest.raises(Error, match="'a/b' is not an absolute path"):
        adjusted({"mounts": [{"destination": "a/b"}]})


@pytest.mark.parametrize(
    ("option", "kind", "root"),
    [
        ("rshared", "shared", "rshared"),
        ("rslave", "shared", "rslave"),
        ("rslave", "slave", "rslave"),
        ("rprivate", "private", ""),
    ],
)
def test_propagation(option: str, kind: str, root: str) -> None:
    mount = {"destination": "/m", "type": "bind", "source": "/s", "options": ["rbind", option]}
    assert adjusted({"mounts": [mount]}, kinds={"/s": kind})["linux"].get("rootfsPropagation", "") == root


@pytest.mark.parametrize(("option", "kind"), [("rshared", "slave"), ("rshared", "private"), ("rslave", "private")])
def test_propagation_that_the_source_does_not_have(option: str, kind: str) -> None:
    mount = {"destination": "/m", "type": "bind", "source": "/s", "options": ["rbind", option]}
    with pytest.raises(Error, match=f"is on a {kind} mount, and cannot be {option}"):
        adjusted({"mounts": [mount]}, kinds={"/s": kind})
    with pytest.raises(Error, match="'/s' cannot be used"):
        adjusted({"mounts": [mount]}, broken=("/s!",))


def test_rlimits_replace_others() -> None:
    found = adjusted({"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 6}]})["process"]["rlimits"]
    assert [one for one in found if one["type"] == "RLIMIT_NOFILE"] == [{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 6}]
    assert len(found) == len(DOCUMENT["process"]["rlimits"])


def test_devices() -> None:
    given = {"path": "/dev/x", "type": "c", "major": 1, "minor": 3}
    found = adjusted({"linux": {"devices": [given]}})["linux"]
    assert found["devices"] == [given]
    assert found["resources"]["devices"][-1] == {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"}
    more = {**given, "fileMode": value(0o440), "uid": value(5), "gid": value(0)}
    found = adjusted({"linux": {"devices": [given, {"path": "-/dev/x"}, more]}})["linux"]
    assert found["devices"] == [{**given, "fileMode": 0o440, "uid": 5, "gid": 0}]
    found = adjusted({"linux": {"devices": [{**given, "type": "b"}]}})["linux"]
    assert found["resources"]["devices"][-1]["access"] == "rwm"


CDI = CdiDocument(
    directory=0,
    path="/etc/cdi/x.json",
    document={
        "cdiVersion": "0.6.0",
        "kind": "v.com/gpu",
        "devices": [
            {
                "name": "0",
                "containerEdits": {
                    "env": ["GPU=0"],
                    "deviceNodes": [{"path": "/dev/fuse"}],
                    "mounts": [{"hostPath": "/lib/v", "containerPath": "/lib/v", "options": ["ro"]}],
                    "hooks": [{"hookName": "createContainer", "path": "/bin/hook"}],
                    "additionalGIDs": [44],
                    "intelRdt": {"closID": "gold"},
                    "netDevices": [{"hostInterfaceName": "eth7", "name": "lan"}],
                },
            }
        ],
    },
)


def test_cdi_devices() -> None:
    found = adjusted({"CDIDevices": [{"name": "v.com/gpu=0"}]}, specifications=[CDI])
    linux, running = found["linux"], found["process"]
    assert "GPU=0" in running["env"]
    assert linux["devices"][-1]["path"] == "/dev/fuse"
    assert linux["resources"]["devices"][-1]["minor"] == 229
    assert "/lib/v" in [mount["destination"] for mount in found["mounts"]]
    assert found["hooks"] == {"createContainer": [{"path": "/bin/hook"}]}
    assert 44 in running["user"]["additionalGids"]
    assert (linux["intelRdt"], linux["netDevices"]) == ({"closID": "gold"}, {"eth7": {"name": "lan"}})
    with pytest.raises(Error, match="no CDI device 'v.com/gpu=1'"):
        adjusted({"CDIDevices": [{"name": "v.com/gpu=1"}]}, specifications=[CDI])
    with pytest.raises(Error, match="is no name of a CDI device"):
        adjusted({"CDIDevices": [{"name": "gpu"}]}, specifications=[CDI])


def test_cdi_devices_are_bound_in_a_user_namespace() -> None:
    given = built(secure(namespace_options=userns()), of=a_pod(secure_pod(namespace_options=userns()))).document
    moved = copy.deepcopy(CDI.document)
    moved["devices"][0]["containerEdits"] = {"deviceNodes": [{"path": "/dev/there", "hostPath": "/dev/fuse"}]}
    there = CdiDocument(directory=0, path="", document=moved)
    wanted = nri.ContainerAdjustment(CDI_devices=[nri.CDIDevice(name="v.com/gpu=0")])
    found = adjust.adjusted(given, wanted, HOST, Lookups(specifications=[there]))
    [mount] = [mount for mount in found["mounts"] if mount["destination"] == "/dev/there"]
    assert mount["source"] == "/dev/fuse"


def test_scheduling_and_scores() -> None:
    found = adjusted(
        {
            "linux": {
                "oomScoreAdj": value(-5),
                "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 3},
                "scheduler": {"policy": "SCHED_BATCH", "nice": 5},
                "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
                "cgroupsPath": "/elsewhere",
            }
        }
    )
    running, linux = found["process"], found["linux"]
    assert (running["oomScoreAdj"], linux["cgroupsPath"]) == (-5, "/elsewhere")
    assert running["ioPriority"] == {"class": "IOPRIO_CLASS_BE", "priority": 3}
    assert running["scheduler"] == {"policy": "SCHED_BATCH", "nice": 5}
    assert linux["memoryPolicy"] == {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}
    deadline = {"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3, "flags": ["SCHED_FLAG_RECLAIM"]}
    deadline |= {name: number * 1_000_000 for name, number in (("runtime", 1), ("deadline", 2), ("period", 3))}
    assert adjusted({"linux": {"scheduler": deadline}})["process"]["scheduler"] == deadline
    nothing = adjusted({"linux": {"ioPriority": {}, "scheduler": {}}})
    assert nothing == DOCUMENT


def test_a_score_that_the_daemon_may_not_give() -> None:
    host = with_host(limited_oom_score_adj=True, oom_score_adj=100)
    assert adjusted({"linux": {"oomScoreAdj": value(-5)}}, host)["process"]["oomScoreAdj"] == 100


def test_seccomp() -> None:
    call: dict[str, Any] = {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": value(7)}
    call["args"] = [{"index": 1, "value": 2, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]
    policy = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [call],
    }
    found = adjusted({"linux": {"seccompPolicy": policy}})["linux"]["seccomp"]
    assert found == {**policy, "syscalls": [{**call, "errnoRet": 7}]}
    errno = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrno": value(38),
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}],
    }
    assert adjusted({"linux": {"seccompPolicy": errno}})["linux"]["seccomp"]["defaultErrnoRet"] == 38


def test_namespaces_sysctls_and_links() -> None:
    found = adjusted(
        {
            "linux": {
                "namespaces": [{"type": "uts", "path": "/run/uts"}, {"type": "-cgroup"}, {"type": "time"}],
                "sysctl": {"net.core.somaxconn": "7"},
                "netDevices": {"eth7": {"name": "lan"}, "eth8": {}},
            }
        }
    )["linux"]
    spaces = {one["type"]: one.get("path") for one in found["namespaces"]}
    assert (spaces["uts"], spaces["time"], "cgroup" in spaces) == ("/run/uts", None, False)
    assert found["sysctl"] == {"net.core.somaxconn": "7"}
    assert found["netDevices"] == {"eth7": {"name": "lan"}, "eth8": {}}
    assert "sysctl" not in adjusted({"linux": {"sysctl": {"-a.b": ""}}})["linux"]


def test_rdt() -> None:
    assert adjusted({"linux": {"resources": {"rdtClass": value("gold")}}})["linux"]["intelRdt"] == {"closID": "gold"}
    assert "intelRdt" not in adjusted({"linux": {"resources": {"rdtClass": value("")}}})["linux"]
    wanted = {"closId": value("a"), "schemata": {"value": ["L3:0=f"]}, "enableMonitoring": {"value": True}}
    found = adjusted({"linux": {"rdt": wanted, "resources": {"rdtClass": value("gold")}}})["linux"]["intelRdt"]
    assert found == {"closID": "a", "schemata": ["L3:0=f"], "enableMonitoring": True}
    removed = adjusted({"linux": {"rdt": {"remove": True}, "resources": {"rdtClass": value("gold")}}})
    assert "intelRdt" not in removed["linux"]


def test_limits() -> None:
    given = {
        "memory": {"limit": value(1 << 30), "reservation": value(5), "swappiness": value(0)},
        "cpu": {"shares": value(7), "quota": value(-1), "cpus": "0"},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4}],
        "unified": {"memory.high": "max"},
        "pids": {"limit": 9},
        "devices": [{"allow": True, "type": "c", "major": value(5), "access": "r"}, {"allow": False}],
    }
    found = adjusted({"linux": {"resources": given}})["linux"]["resources"]
    assert found["memory"] == {"limit": 1 << 30, "swap": 1 << 30, "reservation": 5, "swappiness": 0}
    assert found["cpu"] == {"shares": 7, "quota": -1, "cpus": "0"}
    assert found["hugepageLimits"] == [{"pageSize": "2MB", "limit": 4}]
    assert (found["unified"], found["pids"]) == ({"memory.high": "max"}, {"limit": 9})
    assert found["devices"][-2:] == [
        {"allow": True, "type": "c", "major": 5, "access": "r"},
        {"allow": False, "access": "rwm"},
    ]
    poor = with_host(swap=False, controllers=frozenset(("cpu", "memory")))
    found = adjusted({"linux": {"resources": given}}, poor)["linux"]["resources"]
    assert "swap" not in found["memory"]
    assert not {"hugepageLimits", "pids"} & set(found)


def test_classes_of_block_io_are_refused() -> None:
    with pytest.raises(Error, match="no classes of block I/O") as refused:
        adjusted({"linux": {"resources": {"blockioClass": value("slow")}}})
    assert refused.value.code == "unsupported"
    assert adjusted({"linux": {"resources": {"blockioClass": value("")}}}) == DOCUMENT
