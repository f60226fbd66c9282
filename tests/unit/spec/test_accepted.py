"""What must pass: the specs of the usual callers, and the values at the edge of what is allowed."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ocirt.cgroups.limits import writes
from ocirt.cli import spec as written
from ocirt.spec.check import check
from ocirt.spec.load import read_spec
from ocirt.spec.process import check_process_document
from tests.unit.spec.documents import CALLERS, GONE, buildah, changed, containerd, podman, user_namespace


def errors(spec: dict[str, Any], rootless: bool = False) -> list[tuple[str, str, str, str]]:
    return [finding for finding in check(spec, rootless) if finding[3] == "error"]


@pytest.mark.parametrize("caller", CALLERS)
def test_callers(caller: Callable[[], dict[str, Any]]) -> None:
    spec = caller()
    before = copy.deepcopy(spec)
    assert errors(spec) == []
    assert spec == before


def test_warnings_for_callers() -> None:
    """Nothing is said of what podman sends; of the others only what is really of no effect."""
    assert check(podman()) == []
    assert [finding[0] for finding in check(buildah())] == ["/process/capabilities/ambient"]
    assert [finding[0] for finding in check(containerd())] == ["/linux/uidMappings", "/linux/gidMappings"]


@pytest.mark.parametrize("caller", CALLERS)
def test_processes_of_callers(caller: Callable[[], dict[str, Any]]) -> None:
    assert [finding for finding in check_process_document(caller()["process"]) if finding[3] == "error"] == []


def test_what_is_written_by_us() -> None:
    assert check(written.default()) == []
    assert check(written.rootless(), rootless=True) == []


def recent_runc() -> str:
    """A runc of 1.2 or later, "" if there is none: older ones write what was found to be wrong since."""
    for name in ("runc-new", "runc"):
        if path := shutil.which(name):
            said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
            if tuple(map(int, said.split()[2].split("+")[0].split("-")[0].split(".")[:2])) >= (1, 2):
                return path
    return ""


@pytest.mark.skipif(not recent_runc(), reason="no runc of 1.2 or later on this machine")
@pytest.mark.parametrize("flags", [[], ["--rootless"]])
def test_what_is_written_by_runc(tmp_path: Path, flags: list[str]) -> None:
    runc = recent_runc()
    subprocess.run([runc, "spec", *flags], cwd=tmp_path, check=True, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)})
    spec = read_spec(str(tmp_path), rootless=bool(flags))
    assert spec == json.loads((tmp_path / "config.json").read_text())
    assert check(spec, rootless=bool(flags)) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"/ociVersion": "1.0.0-rc1"},
        {"/ociVersion": "1.3.0+dev"},
        {"/process/user": GONE},
        {"/process/capabilities": GONE},
        {"/process/capabilities": {}},
        {"/process/env": []},
        {"/process/oomScoreAdj": -1000},
        {"/process/oomScoreAdj": 1000},
        {"/process/rlimits/0/soft": 0},
        {"/process/rlimits": []},
        {"/process/execCPUAffinity": {}},
        {"/process/selinuxLabel": "", "/process/apparmorProfile": "", "/linux/mountLabel": ""},
        {"/process/terminal": False, "/process/consoleSize": {"height": 0, "width": 65535}},
        {"/root/path": "/absolute"},
        {"/hostname": "", "/linux/namespaces": [{"type": "mount"}]},
        {"/hostname": "x" * 64},
        {"/domainname": "ä" * 32},
        {"/hooks": {}},
        {"/hooks": {"poststop": [{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 1}], "prestart": []}},
        {"/annotations": {"a": "", "com.example.key/with~signs": "x"}},
        {"/mounts": []},
        {"/mounts": GONE},
        {"/mounts/-": {"destination": "/proc/uptime", "source": "/var/lib/lxcfs/proc/uptime", "options": ["bind"]}},
        {"/mounts/-": {"destination": "/proc//./meminfo", "source": "m", "options": ["bind", "ro"]}},
        {"/mounts/-": {"destination": "/processes", "type": "tmpfs"}},
        {"/mounts/-": {"destination": "/a/proc/x", "type": "tmpfs"}},
        {"/mounts/0": {"destination": "/proc", "type": "none", "source": "/proc", "options": ["rbind"]}},
        {"/mounts/-": {"destination": "/m", "options": ["remount", "ro"]}},
        {"/mounts/-": {"destination": "/m", "source": "/m", "options": ["bind", "idmap"]}, **user_namespace()},
        {"/mounts/-": {"destination": "/m", "source": "/m", "options": ["rbind", "ridmap"]}, **user_namespace()},
        {
            "/mounts/-": {
                "destination": "/m",
                "source": "/m",
                "options": ["bind"],
                "uidMappings": [{"containerID": 0, "hostID": 7, "size": 1}],
                "gidMappings": [{"containerID": 5, "hostID": 7, "size": 9}],
            }
        },
        {**user_namespace(), "/process/user": {"uid": 65535, "gid": 65535, "additionalGids": [1]}},
        {**user_namespace(), "/linux/uidMappings/-": {"containerID": 65536, "hostID": 99999, "size": 1}},
        {**user_namespace(), "/linux/uidMappings/0/size": 4294967295 - 100000},
        {"/linux/namespaces/-": {"type": "user", "path": "/proc/1/ns/user"}},
        {"/linux/namespaces/-": {"type": "time"}, "/linux/timeOffsets": {}},
        {"/linux/namespaces/-": {"type": "cgroup", "path": ""}},
        {"/linux/rootfsPropagation": ""},
        {"/linux/rootfsPropagation": "runbindable"},
        {"/linux/maskedPaths": [], "/linux/readonlyPaths": []},
        {
            "/linux/sysctl": {
                "kernel.shm_rmid_forced": "1",
                "fs.mqueue.msg_max": "1",
                "kernel.domainname": "x",
                "net/core/somaxconn": "1",
            }
        },
        {"/linux/sysctl": {"user.max_net_namespaces": "1"}, **user_namespace()},
        {"/linux/devices": [{"type": "p", "path": "/dev/pipe"}, {"type": "u", "path": "/x", "major": 4095, "minor": 1048575}]},
        {"/linux/devices": [{"type": "c", "path": "/dev/null", "major": 1, "minor": 3, "fileMode": 438}] * 2},
        {"/linux/resources": {}},
        {"/linux/resources": GONE},
        {"/linux/resources/devices": []},
        {"/linux/resources/pids": {}},
        {"/linux/resources/pids": {"limit": -1}},
        {"/linux/resources/memory": {"limit": -1, "swap": -1, "reservation": 0, "swappiness": 100}},
        {"/linux/resources/memory": {"limit": 4096, "swap": 4096}},
        {
            "/linux/resources/cpu": {
                "quota": -1,
                "period": 1000,
                "shares": 2,
                "burst": 0,
                "idle": 1,
                "cpus": "0-3:2/4,7\n",
                "mems": " ",
            }
        },
        {"/linux/resources/cpu": {"quota": 1000, "burst": 1000, "realtimePeriod": 10, "realtimeRuntime": 10}},
        {
            "/linux/resources/blockIO": {
                "weight": 10,
                "leafWeight": 1000,
                "weightDevice": [{"major": 8, "minor": 0, "leafWeight": 10}],
            }
        },
        {"/linux/resources/rdma": {}, "/linux/resources/network": {"classID": 0, "priorities": []}},
        {
            "/linux/resources/rdma": {"mlx5_0": {"hcaHandles": 0}, "rxe0": {"hcaObjects": 4294967295}},
            "/linux/resources/network": {"classID": 4294967295, "priorities": [{"name": "eth0", "priority": 0}]},
        },
        {"/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}},
        {"/linux/seccomp": {"defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 65535, "flags": [], "listenerPath": ""}},
        {"/linux/seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4094, "architectures": ["SCMP_ARCH_X86_64"]}},
        {"/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "unused"}},
        {"/linux/seccomp": {"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/run/s", "listenerMetadata": "x"}},
        {
            "/linux/seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO",
                "listenerPath": "s",
                "syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}],
            }
        },
        {"/linux/intelRdt": {}},
        {"/linux/intelRdt": {"closID": "/", "l3CacheSchema": "", "memBwSchema": "", "schemata": [], "enableMonitoring": True}},
        {"/linux/intelRdt": {"closID": "x", "l3CacheSchema": "L3CODE:0=f", "memBwSchema": "MB:0=1", "schemata": ["L2:0=1", "X"]}},
        {"/linux/netDevices": {}},
        {"/linux/netDevices": {"eth0": {}, "eth1": {"name": ""}, "x" * 15: {"name": "eth%d"}, "a": {"name": "eth%d"}}},
        {"/linux/netDevices": {"eth0": {"name": "eth1"}, "eth1": {"name": "eth0"}}},
    ],
)
def test_allowed(changes: dict[str, Any]) -> None:
    assert check(changed(changes)) == []


@pytest.mark.parametrize("name", ["useHierarchy", "checkBeforeUpdate"])
def test_of_no_effect(name: str) -> None:
    """Taken, as callers send them, and nothing is written for them."""
    spec = changed({"/linux/resources/memory": {name: True}})
    assert check(spec) == []
    for mode in ("v1", "v2"):
        assert writes(spec["linux"]["resources"], mode) == []


@pytest.mark.parametrize("name", ["windows", "solaris", "vm", "zos", "freebsd"])
def test_other_platforms(name: str) -> None:
    [finding] = check(changed({f"/{name}": {"anything": 1}}))
    assert (finding[0], finding[3]) == (f"/{name}", "warning")
    assert "no meaning on Linux" in finding[1]
