"""Broken specs: where the finding points to, what it says, and what it says would be right."""

from __future__ import annotations

from typing import Any

import pytest

from ocirt.cli.spec import default
from ocirt.spec.check import check
from ocirt.spec.process import check_process_document
from ocirt.spec.resources import check_resources_document
from ocirt.spec.shape import MOST
from tests.unit.spec.documents import GONE, changed, user_namespace

Changes = dict[str, Any]

_RLIMIT = {"type": "RLIMIT_CORE", "hard": 1, "soft": 1}
_ERRNO = {"defaultAction": "SCMP_ACT_ERRNO"}
_DEVICE = {"type": "c", "path": "/dev/x", "major": 1, "minor": 3}
_MAPPING = {"containerID": 0, "hostID": 1, "size": 1}


def _rule(**members: Any) -> Changes:
    return {"/linux/resources/devices": [{"allow": True, "type": "c", "access": "rw", **members}]}


def _syscall(**members: Any) -> Changes:
    return {"/linux/seccomp": {**_ERRNO, "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ALLOW", **members}]}}


def _mount(*options: str, **members: Any) -> Changes:
    return {"/mounts": [{"destination": "/m", "source": "/s", "options": list(options), **members}]}


# (changes to the default spec, where the finding points, a word of the message, a word of the hint)
SHAPE: list[tuple[Changes, str, str, str]] = [
    ({"/ociVersion": GONE}, "", 'lacks "ociVersion"', '"1.3.0"'),
    ({"/ociVersion": 1.0}, "/ociVersion", "a number with a fraction", '"1.0"'),
    ({"/ociVersion": None}, "", 'lacks "ociVersion"', '"1.3.0"'),
    ({"/process": []}, "/process", "is an array, but an object", "in braces"),
    ({"/process": "sh"}, "/process", "is a string, but an object", "{…} with terminal"),
    ({"/process/args": "sh -c true"}, "/process/args", "is a string, but an array of strings", '["sh","-c","true"]'),
    ({"/process/args": "sh"}, "/process/args", "is a string", '["sh"]'),
    ({"/process/args": {"0": "sh"}}, "/process/args", "is an object", "an array of strings"),
    ({"/process/args/0": 1}, "/process/args/0", "is an integer, but a string", '"1"'),
    ({"/process/args/0": None}, "/process/args/0", "is null", "take it out"),
    ({"/process/args/0": "a\0b"}, "/process/args/0", "NUL", "\\u0000"),
    ({"/process/env": {"A": "b"}}, "/process/env", "is an object, but an array of strings", "in brackets"),
    ({"/process/cwd": GONE}, "/process", 'lacks "cwd"', '"/"'),
    ({"/process/cwd": ["/"]}, "/process/cwd", "is an array, but a string", '"/"'),
    ({"/process/cwd": "/a\0"}, "/process/cwd", "NUL", "\\u0000"),
    ({"/process/terminal": "true"}, "/process/terminal", "is a string, but a boolean", "without quotes"),
    ({"/process/terminal": 1}, "/process/terminal", "is an integer, but a boolean", "true or false"),
    ({"/process/user": 0}, "/process/user", "is an integer, but an object", "uid, gid"),
    ({"/process/user/uid": "1000"}, "/process/user/uid", "is a string, but an integer", "without quotes: 1000"),
    ({"/process/user/uid": "root"}, "/process/user/uid", "is a string", "0 to 4294967295"),
    ({"/process/user/uid": -1}, "/process/user/uid", "-1 is out of range", "0 to 4294967295"),
    ({"/process/user/gid": 1 << 32}, "/process/user/gid", "4294967296 is out of range", "0 to 4294967295"),
    ({"/process/user/uid": True}, "/process/user/uid", "is a boolean", "an integer"),
    ({"/process/user/uid": 1000.0}, "/process/user/uid", "fraction", "exponent: 1000"),
    ({"/process/user/uid": 0.5}, "/process/user/uid", "fraction", "an integer from 0"),
    ({"/process/user/umask": "022"}, "/process/user/umask", "is a string", "022 is 18"),
    ({"/process/user/additionalGids": 5}, "/process/user/additionalGids", "is an integer", "array of integers"),
    ({"/process/user/additionalGids": ["5"]}, "/process/user/additionalGids/0", "is a string", "without quotes: 5"),
    ({"/process/capabilities": ["CAP_KILL"]}, "/process/capabilities", "is an array, but an object", "braces"),
    ({"/process/capabilities/bounding": "CAP_KILL"}, "/process/capabilities/bounding", "a string", '["CAP_KILL"]'),
    ({"/process/rlimits": _RLIMIT}, "/process/rlimits", "is an object, but an array of objects", "[{…}]"),
    ({"/process/rlimits/0/soft": GONE}, "/process/rlimits/0", 'lacks "soft"', "0 to 18446744073709551615"),
    ({"/process/rlimits/0/hard": -1}, "/process/rlimits/0/hard", "-1 is out of range", "18446744073709551615"),
    ({"/process/consoleSize": {"height": 1}}, "/process/consoleSize", 'lacks "width"', '"width"'),
    ({"/root": "rootfs"}, "/root", "is a string, but an object", "path, readonly"),
    ({"/root/path": GONE}, "/root", 'lacks "path"', "a string"),
    ({"/root/readonly": "yes"}, "/root/readonly", "but a boolean", "true or false"),
    ({"/hostname": 7}, "/hostname", "but a string", '"7"'),
    ({"/mounts": {}}, "/mounts", "is an object, but an array", "[{…}]"),
    ({"/mounts/0": "proc"}, "/mounts/0", "is a string, but an object", "destination"),
    ({"/mounts/2/destination": GONE}, "/mounts/2", 'lacks "destination"', "a string"),
    ({"/mounts/1/options": "nosuid,noexec"}, "/mounts/1/options", "is a string", "in brackets"),
    ({"/mounts/1/options/1": True}, "/mounts/1/options/1", "is a boolean", '"true"'),
    ({"/mounts/1/uidMappings": [{**_MAPPING, "size": "1"}]}, "/mounts/1/uidMappings/0/size", "a string", "quotes: 1"),
    ({"/hooks": {"prestart": {"path": "/x"}}}, "/hooks/prestart", "is an object, but an array", "[{…}]"),
    ({"/hooks": {"poststop": [{"args": []}]}}, "/hooks/poststop/0", 'lacks "path"', "a string"),
    ({"/hooks": {"poststop": [{"path": "/x", "timeout": 0}]}}, "/hooks/poststop/0/timeout", "0 is out of range", "from 1"),
    ({"/annotations": {"a": 1}}, "/annotations/a", "is an integer", '"1"'),
    ({"/annotations": {"a/b~c": True}}, "/annotations/a~1b~0c", "is a boolean", '"true"'),
    ({"/annotations": {"": "x"}}, "/annotations/", "an empty name", "a name"),
    ({"/linux": []}, "/linux", "is an array", "braces"),
    ({"/linux/namespaces": ["pid"]}, "/linux/namespaces/0", "is a string, but an object", "type, path"),
    ({"/linux/namespaces/1/type": "net"}, "/linux/namespaces/1/type", '"net" is not known', "one of pid, network"),
    ({"/linux/namespaces/1/type": "netwrok"}, "/linux/namespaces/1/type", '"netwrok"', 'did you mean "network"'),
    ({"/linux/namespaces/1/type": GONE}, "/linux/namespaces/1", 'lacks "type"', "one of pid"),
    ({"/linux/namespaces/1/path": False}, "/linux/namespaces/1/path", "is a boolean", "in quotes"),
    ({"/linux/uidMappings": [{"containerID": 0, "size": 1}]}, "/linux/uidMappings/0", 'lacks "hostID"', "4294967295"),
    ({"/linux/sysctl": {"net.ipv4.ip_forward": 1}}, "/linux/sysctl/net.ipv4.ip_forward", "is an integer", '"1"'),
    ({"/linux/devices": [{**_DEVICE, "type": "d"}]}, "/linux/devices/0/type", '"d" is not known', "one of c, b, u, p"),
    ({"/linux/devices": [{"type": "c"}]}, "/linux/devices/0", 'lacks "path"', "a string"),
    ({"/linux/rootfsPropagation": "slve"}, "/linux/rootfsPropagation", '"slve"', '"slave"'),
    ({"/linux/rootfsPropagation": "nothing"}, "/linux/rootfsPropagation", '"nothing"', "one of private, rprivate"),
    ({"/linux/maskedPaths": "/proc/acpi"}, "/linux/maskedPaths", "is a string", '["/proc/acpi"]'),
    ({"/linux/resources/memory": {"limit": "64m"}}, "/linux/resources/memory/limit", "is a string", "an integer"),
    ({"/linux/resources/memory": {"limit": 1 << 63}}, "/linux/resources/memory/limit", "out of range", "9223372036854775807"),
    ({"/linux/resources/pids": 10}, "/linux/resources/pids", "is an integer, but an object", "limit"),
    ({"/linux/resources/devices": [{"access": "rwm"}]}, "/linux/resources/devices/0", 'lacks "allow"', "a boolean"),
    ({"/linux/resources/blockIO": {"weight": 1 << 16}}, "/linux/resources/blockIO/weight", "out of range", "65535"),
    ({"/linux/resources/hugepageLimits": [{"limit": 1}]}, "/linux/resources/hugepageLimits/0", 'lacks "pageSize"', "a string"),
    ({"/linux/resources/unified": {"memory.max": 1}}, "/linux/resources/unified/memory.max", "is an integer", '"1"'),
    ({"/linux/seccomp": {}}, "/linux/seccomp", 'lacks "defaultAction"', "SCMP_ACT_KILL"),
    ({"/linux/seccomp": {"defaultAction": "SCMP_ACT_ALOW"}}, "/linux/seccomp/defaultAction", "ALOW", '"SCMP_ACT_ALLOW"'),
    ({"/linux/seccomp": {"defaultAction": "ALLOW"}}, "/linux/seccomp/defaultAction", '"ALLOW"', "SCMP_ACT_ALLOW"),
    ({"/linux/seccomp": {**_ERRNO, "architectures": ["x86"]}}, "/linux/seccomp/architectures/0", '"x86"', "SCMP_ARCH_X86"),
    ({"/linux/seccomp": {**_ERRNO, "flags": ["LOG"]}}, "/linux/seccomp/flags/0", '"LOG"', "SECCOMP_FILTER_FLAG_LOG"),
    (_syscall(names="mkdir"), "/linux/seccomp/syscalls/0/names", "is a string", '["mkdir"]'),
    (
        _syscall(args=[{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]),
        "/linux/seccomp/syscalls/0/args/0/index",
        "6 is out",
        "0 to 5",
    ),
    (_syscall(args=[{"index": 0, "value": 0, "op": "EQ"}]), "/linux/seccomp/syscalls/0/args/0/op", '"EQ"', "SCMP_CMP_EQ"),
    (_syscall(args=[{"index": 0, "op": "SCMP_CMP_EQ"}]), "/linux/seccomp/syscalls/0/args/0", 'lacks "value"', "an integer"),
    ({"/linux/personality": {"domain": "LINUX64"}}, "/linux/personality/domain", "LINUX64", "LINUX"),
    ({"/process/scheduler": {"policy": "FIFO"}}, "/process/scheduler/policy", '"FIFO"', "SCHED_FIFO"),
    ({"/process/ioPriority": {}}, "/process/ioPriority", 'lacks "class"', "IOPRIO_CLASS_BE"),
    ({"/linux/memoryPolicy": {"mode": 1}}, "/linux/memoryPolicy/mode", "is an integer, but a string", "MPOL_BIND"),
    ({"/linux/intelRdt": {"schemata": "L3:0=f"}}, "/linux/intelRdt/schemata", "is a string", '["L3:0=f"]'),
]

MEANING: list[tuple[Changes, str, str, str]] = [
    ({"/linux/timeOffsets": {}}, "/linux/timeOffsets", "without a time namespace", '"time"'),
    (
        {"/linux/namespaces/-": {"type": "time", "path": "/n"}, "/linux/timeOffsets": {"monotonic": {"secs": -1}}},
        "/linux/timeOffsets",
        "that is joined",
        "leave them out",
    ),
    (
        {"/linux/namespaces/-": {"type": "time"}, "/linux/timeOffsets": {"boottime": {"nanosecs": 1_000_000_000}}},
        "/linux/timeOffsets/boottime/nanosecs",
        "out of range",
        "999999999",
    ),
    ({"/ociVersion": ""}, "/ociVersion", "is not a version", "1.3.0"),
    ({"/ociVersion": "1.0"}, "/ociVersion", "is not a version", "1.3.0"),
    ({"/ociVersion": "2.0.0"}, "/ociVersion", "not supported", "1.3.0"),
    ({"/process": GONE}, "", 'lacks "process"', '"args"'),
    ({"/root": GONE}, "", 'lacks "root"', '"rootfs"'),
    ({"/linux": GONE}, "", 'lacks "linux"', "namespaces"),
    ({"/root/path": ""}, "/root/path", "is empty", "rootfs"),
    ({"/process/args": []}, "/process/args", "args must not be empty", "sh"),
    ({"/process/args": GONE}, "/process", "args must not be empty", "sh"),
    ({"/process/args": ["", "x"]}, "/process/args/0", "name of the program is empty", "/bin/sh"),
    ({"/process/cwd": ""}, "/process/cwd", "is empty", '"/"'),
    ({"/process/cwd": "tmp"}, "/process/cwd", '"tmp" is not an absolute path', '"/tmp"'),
    ({"/process/env/0": "PATH"}, "/process/env/0", 'has no "="', '"PATH="'),
    ({"/process/env/0": "=x"}, "/process/env/0", "no name", "NAME=value"),
    ({"/process/env/0": ""}, "/process/env/0", 'has no "="', '"NAME="'),
    ({"/process/oomScoreAdj": 1001}, "/process/oomScoreAdj", "out of range", "-1000 to 1000"),
    ({"/process/user/uid": 4294967295}, "/process/user/uid", "no one", "4294967294"),
    ({"/process/consoleSize": {"height": 1, "width": 65536}}, "/process/consoleSize/width", "out of range", "65535"),
    (
        {"/process/capabilities/permitted/2": "CAP_CHOWN"},
        "/process/capabilities/effective/2",
        "not permitted",
        "/process/capabilities/permitted",
    ),
    ({"/process/rlimits/0/type": "NOFILE"}, "/process/rlimits/0/type", "not a resource limit", '"RLIMIT_NOFILE"'),
    ({"/process/rlimits/0/type": "RLIMIT_NFILE"}, "/process/rlimits/0/type", "RLIMIT_NFILE", '"RLIMIT_NOFILE"'),
    ({"/process/rlimits/0/type": "x"}, "/process/rlimits/0/type", "not a resource limit", "one of RLIMIT_CPU"),
    ({"/process/rlimits/0/soft": 1025}, "/process/rlimits/0/soft", "1025 is above the hard", "1024"),
    ({"/process/rlimits": [_RLIMIT, _RLIMIT]}, "/process/rlimits/1/type", "twice", "/process/rlimits/0"),
    ({"/hostname": "x" * 65}, "/hostname", "65 bytes", "at most 64"),
    ({"/domainname": "ä" * 33}, "/domainname", "66 bytes", "at most 64"),
    ({"/linux/namespaces/3": {"type": "cgroup"}}, "/hostname", "needs a UTS namespace", '{"type": "uts"}'),
    (
        {"/hostname": GONE, "/domainname": "d", "/linux/namespaces/3": {"type": "cgroup"}},
        "/domainname",
        "needs a UTS namespace",
        '{"type": "uts"}',
    ),
    ({"/linux/namespaces/-": {"type": "pid"}}, "/linux/namespaces/5", 'second namespace of the type "pid"', "take one"),
    (
        user_namespace() | {"/linux/namespaces/4": {"type": "cgroup"}},
        "/linux/namespaces",
        "without a mount namespace",
        '{"type": "mount"}',
    ),
    (
        {"/linux/namespaces/4": {"type": "user", "path": "/proc/7/ns/user"}},
        "/linux/namespaces",
        "only root of the host may make them",
        '{"type": "mount"}',
    ),
    ({"/linux/namespaces/0/path": "ns/pid"}, "/linux/namespaces/0/path", "not an absolute path", "/proc/PID/ns/pid"),
    ({"/linux/maskedPaths/0": "proc/acpi"}, "/linux/maskedPaths/0", "not an absolute path", '"/proc/acpi"'),
    ({"/linux/readonlyPaths/4": ""}, "/linux/readonlyPaths/4", "not an absolute path", '"/"'),
    ({"/linux/uidMappings": [_MAPPING]}, "/linux/uidMappings", "without a user namespace", '{"type": "user"}'),
    ({"/linux/gidMappings": [_MAPPING]}, "/linux/gidMappings", "without a user namespace", '{"type": "user"}'),
    ({**user_namespace(), "/linux/uidMappings": []}, "/linux/uidMappings", "needs a mapping of uids", "containerID"),
    ({**user_namespace(), "/linux/gidMappings": []}, "/linux/gidMappings", "needs a mapping of gids", "containerID"),
    ({**user_namespace(), "/linux/uidMappings/0/size": 0}, "/linux/uidMappings/0/size", "maps no ids", "65536"),
    (
        {**user_namespace(), "/linux/uidMappings/0/hostID": 4294967295},
        "/linux/uidMappings/0/size",
        "beyond the last id",
        "smaller hostID",
    ),
    (
        {**user_namespace(), "/linux/uidMappings/0/size": 4294967295},
        "/linux/uidMappings/0/size",
        "beyond the last id",
        "4294867295",
    ),
    (
        {**user_namespace(), "/linux/uidMappings/-": {"containerID": 5, "hostID": 1, "size": 1}},
        "/linux/uidMappings/1/containerID",
        "overlaps",
        "/linux/uidMappings/0",
    ),
    (
        {**user_namespace(), "/linux/gidMappings/-": {"containerID": 70000, "hostID": 100001, "size": 1}},
        "/linux/gidMappings/1/hostID",
        "overlaps",
        "100000 to 165535",
    ),
    ({**user_namespace(), "/linux/uidMappings": [_MAPPING] * 341}, "/linux/uidMappings", "341 entries", "at most 340"),
    (
        {**user_namespace(), "/linux/uidMappings/0/containerID": 1},
        "/linux/uidMappings",
        "uid 0 of the container",
        '"containerID": 0',
    ),
    ({**user_namespace(), "/process/user/uid": 65536}, "/process/user/uid", "uid 65536", "/linux/uidMappings"),
    ({**user_namespace(), "/process/user/gid": 70000}, "/process/user/gid", "gid 70000", "/linux/gidMappings"),
    (
        {**user_namespace(), "/process/user/additionalGids": [0, 70000]},
        "/process/user/additionalGids/1",
        "gid 70000",
        "/linux/gidMappings",
    ),
    ({**user_namespace(5)}, "/mounts/2/options", "gid=5: 5 is not mapped", "take gid=5 out"),
    (_mount("uid=70000", type="tmpfs") | user_namespace(), "/mounts/0/options", "uid=70000", "/linux/uidMappings"),
    (_mount("nosuid", type=""), "/mounts/0/options", "neither a bind mount nor", '"rbind"'),
    (_mount("nosuid", type="bind"), "/mounts/0/options", "neither a bind mount nor", '"rbind"'),
    (_mount("bind", "size=1m"), "/mounts/0/options", "'size=1m'", "leave it out"),
    (_mount("rbind", "nodve"), "/mounts/0/options", "'nodve'", "'nodev'"),
    (_mount("bind", source=""), "/mounts/0/source", "needs a source", "bundle"),
    (_mount("bind", destination=""), "/mounts/0/destination", "is empty", "absolute"),
    (_mount("bind", destination="/proc/sys"), "/mounts/0/destination", "inside /proc", "/proc/uptime"),
    (_mount("bind", destination="//proc/x/../self"), "/mounts/0/destination", "inside /proc", "/proc/uptime"),
    (_mount("bind", destination="a/../proc/1"), "/mounts/0/destination", "inside /proc", "/proc/uptime"),
    (_mount(type="tmpfs", destination="/proc/"), "/mounts/0/type", "/proc cannot be of the type", '"proc"'),
    (_mount("idmap", type="tmpfs") | user_namespace(), "/mounts/0/options", "only a bind mount", '"bind"'),
    (_mount("bind", "idmap"), "/mounts/0/options", "idmap needs mappings", '{"type": "user"}'),
    (_mount("bind", "idmap", uidMappings=[_MAPPING]), "/mounts/0", 'without "gidMappings"', '"gidMappings"'),
    (_mount("bind", gidMappings=[_MAPPING]), "/mounts/0", 'without "uidMappings"', '"uidMappings"'),
    (_mount("rbind", "ridmap"), "/mounts/0/options", "ridmap needs mappings", '"uidMappings" and "gidMappings"'),
    (_mount("bind", uidMappings=[], gidMappings=[_MAPPING]), "/mounts/0/uidMappings", "both uids and gids", "containerID"),
    (_mount("bind", uidMappings=[_MAPPING], gidMappings=[]), "/mounts/0/gidMappings", "both uids and gids", "containerID"),
    (
        _mount("bind", uidMappings=[_MAPPING], gidMappings=[_MAPPING | {"size": 0}]),
        "/mounts/0/gidMappings/0/size",
        "maps no ids",
        "1 or more",
    ),
    (
        _mount("bind", uidMappings=[_MAPPING, _MAPPING], gidMappings=[_MAPPING]),
        "/mounts/0/uidMappings/1/containerID",
        "overlaps",
        "each id once",
    ),
    (_mount(uidMappings=[_MAPPING], gidMappings=[_MAPPING], type="tmpfs"), "/mounts/0/options", "only a bind mount", '"bind"'),
    ({"/linux/intelRdt": {"closID": ".."}}, "/linux/intelRdt/closID", 'invalid intelRdt.ClosID ".."', "without slashes"),
    ({"/linux/intelRdt": {"closID": "a/b"}}, "/linux/intelRdt/closID", 'invalid intelRdt.ClosID "a/b"', "without slashes"),
    ({"/linux/intelRdt": {"closID": "info"}}, "/linux/intelRdt/closID", "invalid intelRdt.ClosID", "without slashes"),
    ({"/linux/intelRdt": {"l3CacheSchema": "L3:0=f\nMB:0=1"}}, "/linux/intelRdt/l3CacheSchema", "more than one line", "schemata"),
    ({"/linux/intelRdt": {"l3CacheSchema": "0=f"}}, "/linux/intelRdt/l3CacheSchema", "does not begin with L3", '"L3:0=…"'),
    ({"/linux/intelRdt": {"memBwSchema": "L3:0=f"}}, "/linux/intelRdt/memBwSchema", "does not begin with MB:", '"MB:0=…"'),
    ({"/linux/intelRdt": {"schemata": ["", "a\n"]}}, "/linux/intelRdt/schemata/1", "more than one line", "one line a schema"),
    ({"/linux/resources/rdma": {"mlx5_0": {}}}, "/linux/resources/rdma/mlx5_0", "limits nothing", '"hcaHandles"'),
    ({"/linux/resources/rdma": {"a b": {"hcaHandles": 1}}}, "/linux/resources/rdma/a b", "not the name of a device", "mlx5_0"),
    (
        {"/linux/resources/network": {"priorities": [{"name": "", "priority": 1}]}},
        "/linux/resources/network/priorities/0/name",
        "not the name of a network device",
        "eth0",
    ),
    (
        {"/linux/namespaces": [{"type": "mount"}], "/hostname": "", "/linux/netDevices": {"eth0": {}}},
        "/linux/netDevices",
        "without a network namespace",
        '{"type": "network"}',
    ),
    ({"/linux/netDevices": {"x" * 16: {}}}, "/linux/netDevices/" + "x" * 16, "16 bytes", "`ip link`"),
    ({"/linux/netDevices": {"a/b": {}}}, "/linux/netDevices/a~1b", 'device name "a/b"', "`ip link`"),
    ({"/linux/netDevices": {"..": {}}}, "/linux/netDevices/..", "it is none", "`ip link`"),
    ({"/linux/netDevices": {"eth%d": {}}}, "/linux/netDevices/eth%d", "a % is in it", "`ip link`"),
    ({"/linux/netDevices": {"eth0": {"name": "ä" * 8}}}, "/linux/netDevices/eth0/name", "16 bytes", '"eth%d"'),
    ({"/linux/netDevices": {"eth0": {"name": "a\tb"}}}, "/linux/netDevices/eth0/name", "a space is in it", '"eth%d"'),
    ({"/linux/netDevices": {"eth0": {"name": "%d%d"}}}, "/linux/netDevices/eth0/name", "not the one %d", '"eth%d"'),
    (
        {"/linux/netDevices": {"eth0": {"name": "eth1"}, "eth1": {}}},
        "/linux/netDevices/eth1",
        "the name of two devices",
        "that of /linux/netDevices/eth0",
    ),
    ({"/hooks": {"prestart": [{"path": "hook"}]}}, "/hooks/prestart/0/path", "not an absolute path", '"/usr/bin/hook"'),
    ({"/hooks": {"poststop": [{"path": "/x", "env": ["A"]}]}}, "/hooks/poststop/0/env/0", '"A"', "NAME=value"),
    ({"/linux/sysctl": {"kernel.core_pattern": "x"}}, "/linux/sysctl/kernel.core_pattern", "whole host", "net.*"),
    ({"/linux/sysctl": {"vm/swappiness": "1"}}, "/linux/sysctl/vm~1swappiness", "whole host", "net.*"),
    ({"/linux/sysctl": {"kernel.hostname": "x"}}, "/linux/sysctl/kernel.hostname", "conflicts", '"hostname"'),
    (
        {"/linux/sysctl": {"net/../kernel/core_pattern": "x"}},
        "/linux/sysctl/net~1..~1kernel~1core_pattern",
        "not the name",
        "one dot",
    ),
    ({"/linux/sysctl": {"net..ipv4": "x"}}, "/linux/sysctl/net..ipv4", "not the name", "one dot"),
    ({"/linux/sysctl": {"net.//.kernel": "x"}}, "/linux/sysctl/net.~1~1.kernel", "not the name", "one dot"),
    ({"/linux/sysctl": {"user.max_uts_namespaces": "1"}}, "/linux/sysctl/user.max_uts_namespaces", "on the host", '"user"'),
    (
        {"/linux/sysctl": {"net.ipv4.ip_forward": "1"}, "/linux/namespaces/1": {"type": "cgroup"}},
        "/linux/sysctl/net.ipv4.ip_forward",
        "on the host",
        '{"type": "network"}',
    ),
    (
        {"/linux/sysctl": {"kernel.sem": "1"}, "/linux/namespaces/2": {"type": "cgroup"}},
        "/linux/sysctl/kernel.sem",
        "on the host",
        '"ipc"',
    ),
    ({"/linux/devices": [{**_DEVICE, "path": "dev/x"}]}, "/linux/devices/0/path", "not an absolute path", '"/dev/x"'),
    ({"/linux/devices": [{"type": "b", "path": "/x", "minor": 0}]}, "/linux/devices/0", 'lacks "major"', '"major"'),
    ({"/linux/devices": [{**_DEVICE, "minor": 1 << 20}]}, "/linux/devices/0/minor", "1048576 is out", "0 to 1048575"),
    ({"/linux/devices": [{**_DEVICE, "major": -1}]}, "/linux/devices/0/major", "-1 is out", "0 to 4095"),
    ({"/linux/devices": [{**_DEVICE, "fileMode": 1 << 16}]}, "/linux/devices/0/fileMode", "out of range", "438"),
    ({"/linux/devices": [_DEVICE, {**_DEVICE, "minor": 5}]}, "/linux/devices/1/path", "twice", "/linux/devices/0"),
    (_rule(type="char"), "/linux/resources/devices/0/type", '"char"', '"c"'),
    (_rule(access=""), "/linux/resources/devices/0/access", "without access", "rwm"),
    (_rule(access="rx"), "/linux/resources/devices/0/access", '"rx"', "rwm"),
    (_rule(major=-2), "/linux/resources/devices/0/major", "-2 is out", "-1 for all"),
    ({"/linux/resources/devices": [{"allow": False}]}, "/linux/resources/devices/0", "without access", '"access"'),
    ({"/linux/resources/memory": {"limit": -2}}, "/linux/resources/memory/limit", "-2 is out", "-1 for no limit"),
    ({"/linux/resources/memory": {"swap": 4096}}, "/linux/resources/memory/swap", "needs one of memory", '"limit"'),
    ({"/linux/resources/memory": {"limit": 8192, "swap": 4096}}, "/linux/resources/memory/swap", "below the memory", "8192"),
    ({"/linux/resources/memory": {"swappiness": 101}}, "/linux/resources/memory/swappiness", "101 is out", "0 to 100"),
    ({"/linux/resources/cpu": {"period": 999}}, "/linux/resources/cpu/period", "999 is out", "1000 to 1000000"),
    ({"/linux/resources/cpu": {"quota": 999}}, "/linux/resources/cpu/quota", "999 is out", "microseconds"),
    ({"/linux/resources/cpu": {"quota": 5000, "burst": 5001}}, "/linux/resources/cpu/burst", "above the quota", "5000"),
    ({"/linux/resources/cpu": {"idle": 2}}, "/linux/resources/cpu/idle", "2 is out", "1 for idle"),
    (
        {"/linux/resources/cpu": {"realtimePeriod": 1, "realtimeRuntime": 2}},
        "/linux/resources/cpu/realtimeRuntime",
        "above",
        "at most",
    ),
    ({"/linux/resources/cpu": {"cpus": "0,x"}}, "/linux/resources/cpu/cpus", '"x" is not a list', '"0-3,8"'),
    ({"/linux/resources/cpu": {"mems": "3-1"}}, "/linux/resources/cpu/mems", '"3-1" is not a list', '"0-3,8"'),
    ({"/linux/resources/cpu": {"cpus": "0,"}}, "/linux/resources/cpu/cpus", "is not a list", '"0-3,8"'),
    ({"/linux/resources/pids": {"limit": -2}}, "/linux/resources/pids/limit", "out of range", "-1 for no limit"),
    ({"/linux/resources/blockIO": {"weight": 9}}, "/linux/resources/blockIO/weight", "9 is out", "10 to 1000"),
    (
        {"/linux/resources/blockIO": {"weightDevice": [{"major": 8, "minor": 0}]}},
        "/linux/resources/blockIO/weightDevice/0",
        "no weight",
        "leafWeight",
    ),
    (
        {"/linux/resources/blockIO": {"throttleReadBpsDevice": [{"major": -1, "minor": 0, "rate": 1}]}},
        "/linux/resources/blockIO/throttleReadBpsDevice/0/major",
        "-1 is out",
        "ls -l",
    ),
    (
        {"/linux/resources/hugepageLimits": [{"pageSize": "2048kB", "limit": 1}]},
        "/linux/resources/hugepageLimits/0/pageSize",
        "2048kB",
        '"2MB"',
    ),
    (
        {"/linux/resources/hugepageLimits": [{"pageSize": "2MB", "limit": 1}] * 2},
        "/linux/resources/hugepageLimits/1/pageSize",
        "twice",
        "/linux/resources/hugepageLimits/0",
    ),
    (
        {"/linux/resources/hugepageLimits": [{"pageSize": "MB", "limit": 1}]},
        "/linux/resources/hugepageLimits/0/pageSize",
        "MB",
        "2MB",
    ),
    (
        {"/linux/resources/unified": {"../memory.max": "1"}},
        "/linux/resources/unified/..~1memory.max",
        "not a file",
        "memory.high",
    ),
    ({"/linux/resources/unified": {"..": "1"}}, "/linux/resources/unified/..", "not a file", "memory.high"),
    ({"/linux/seccomp": {"defaultAction": "SCMP_ACT_NOTIFY"}}, "/linux/seccomp", "listenerPath is not set", "an agent"),
    (_syscall(action="SCMP_ACT_NOTIFY"), "/linux/seccomp", "listenerPath is not set", "another action"),
    ({"/linux/seccomp": {**_ERRNO, "defaultErrnoRet": 4095}}, "/linux/seccomp/defaultErrnoRet", "4095 is out", "4094"),
    (
        {"/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}},
        "/linux/seccomp/defaultErrnoRet",
        "returns no errno",
        "leave it out",
    ),
    (_syscall(errnoRet=1), "/linux/seccomp/syscalls/0/errnoRet", "SCMP_ACT_ALLOW returns no errno", "SCMP_ACT_ERRNO"),
    (_syscall(names=[]), "/linux/seccomp/syscalls/0/names", "is empty", '"mkdir"'),
    (
        {"/linux/seccomp": {**_ERRNO, "listenerMetadata": "x"}},
        "/linux/seccomp/listenerMetadata",
        "without a listener",
        "listenerPath",
    ),
    ({"/linux/timeOffsets": {"boottime": {"secs": 1}}}, "/linux/timeOffsets", "without a time namespace", '"time"'),
]

WARNINGS: list[tuple[Changes, str, str, str]] = [
    ({"/hostnmae": "x"}, "/hostnmae", "not a property", '"hostname"'),
    ({"/mounts/0/option": ["ro"]}, "/mounts/0/option", "not a property", '"options"'),
    ({"/linux/resources/memory": {"swapiness": 1}}, "/linux/resources/memory/swapiness", "not a property", '"swappiness"'),
    ({"/process/capabilities/bound": None}, "/process/capabilities/bound", "not a property", "known here: bounding"),
    ({"/hooks": {"preStart": True}}, "/hooks/preStart", "not a property", '"prestart"'),
    (
        {"/linux/namespaces/-": {"type": "time"}, "/linux/timeOffsets": {"tai": 1}},
        "/linux/timeOffsets/tai",
        "not a property",
        "monotonic",
    ),
    ({"/something/else": {"deep": [None]}}, "/something", "not a property", "known here: ociVersion"),
    ({"/process/rlimits": None}, "/process/rlimits", "is null", "leave it out"),
    ({"/linux/seccomp": None}, "/linux/seccomp", "is null", "leave it out"),
    ({"/annotations": {"a": None}}, "/annotations/a", "is null", "leave it out"),
    ({"/windows": {"layerFolders": ["C:\\x"]}}, "/windows", "no meaning on Linux", "leave it out"),
    ({"/vm": {"kernel": {"path": "/x"}}}, "/vm", "no meaning on Linux", "leave it out"),
    ({"/process/commandLine": "sh"}, "/process/commandLine", "no meaning on Linux", "leave it out"),
    ({"/process/user/username": "root"}, "/process/user/username", "no meaning on Linux", "leave it out"),
    ({"/process/user/umask": 1000}, "/process/user/umask", "beyond 0777", "022 is 18"),
    (
        {"/process/capabilities/bounding/0": "CAP_AUDIT_WRTE"},
        "/process/capabilities/bounding/0",
        "not known",
        '"CAP_AUDIT_WRITE"',
    ),
    ({"/process/capabilities/bounding/0": "KILL"}, "/process/capabilities/bounding/0", "not known", '"CAP_KILL"'),
    ({"/process/capabilities/bounding/0": "?"}, "/process/capabilities/bounding/0", "not known", "capabilities(7)"),
    ({"/process/capabilities/ambient": ["CAP_KILL"]}, "/process/capabilities/ambient", "CAP_KILL", "inheritable"),
    ({"/mounts/3/destination": "dev/shm"}, "/mounts/3/destination", "deprecated", '"/dev/shm"'),
    (_mount("tmpcopyup", type="ext4"), "/mounts/0/options", "tmpfs only", '"tmpfs"'),
    ({"/linux/devices": [{**_DEVICE, "fileMode": 666}]}, "/linux/devices/0/fileMode", "beyond 0777", "0666 is 438"),
    (_rule(type="a", major=1), "/linux/resources/devices/0/major", "allows all devices", '"type": "c"'),
    (
        {"/linux/resources/memory": {"limit": 1, "reservation": 2}},
        "/linux/resources/memory/reservation",
        "above the limit",
        "at most",
    ),
    ({"/linux/resources/memory": {"kernel": 1}}, "/linux/resources/memory/kernel", "ignored", "leave it out"),
    ({"/linux/namespaces/4": {"type": "cgroup"}}, "/linux/namespaces", "CAP_SYS_CHROOT leaves", '{"type": "mount"}'),
    ({"/linux": {}, "/hostname": ""}, "/linux/namespaces", "its mounts in the host's tree", '{"type": "mount"}'),
    (
        user_namespace() | {"/linux/namespaces/-": {"type": "user", "path": "/proc/1/ns/user"}, "/linux/gidMappings": []},
        "/linux/uidMappings",
        "has no effect",
        "leave it out",
    ),
]


def _label(case: tuple[Any, ...]) -> str:
    return f"{case[1] or 'document'} {case[2] if len(case) > 2 else ''}".strip()


@pytest.mark.parametrize(("changes", "pointer", "message", "hint"), SHAPE + MEANING, ids=map(_label, SHAPE + MEANING))
def test_error(changes: Changes, pointer: str, message: str, hint: str) -> None:
    findings = [finding for finding in check(changed(changes)) if finding[3] == "error"]
    assert [finding[0] for finding in findings] == [pointer], findings
    assert message in findings[0][1]
    assert hint in findings[0][2]


@pytest.mark.parametrize(("changes", "pointer", "message", "hint"), WARNINGS, ids=map(_label, WARNINGS))
def test_warning(changes: Changes, pointer: str, message: str, hint: str) -> None:
    findings = check(changed(changes))
    assert [(finding[0], finding[3]) for finding in findings] == [(pointer, "warning")], findings
    assert message in findings[0][1]
    assert hint in findings[0][2]


@pytest.mark.parametrize(
    ("changes", "pointer", "message", "hint"),
    [
        ({}, "/linux/namespaces", "not root needs a user namespace", "--rootless"),
        (user_namespace() | {"/linux/namespaces/4": {"type": "cgroup"}}, "/linux/namespaces", "only root of the host", "mount"),
        ({**user_namespace(), "/process/user/additionalGids": [1]}, "/process/user/additionalGids", "cannot set groups", "leave"),
        (_mount("bind", "idmap") | user_namespace(), "/mounts/0/options", "that is root", "mapping out"),
        (
            {**user_namespace(), "/linux/netDevices": {"eth0": {}}},
            "/linux/netDevices",
            "cannot move network devices",
            "run as root",
        ),
    ],
)
def test_rootless(changes: Changes, pointer: str, message: str, hint: str) -> None:
    findings = check(changed(changes), rootless=True)
    assert [finding[0] for finding in findings] == [pointer]
    assert message in findings[0][1]
    assert hint in findings[0][2]


@pytest.mark.parametrize("document", [None, True, 1, 1.5, "", [], [{}]])
def test_not_an_object(document: Any) -> None:
    for findings in (check(document), check_process_document(document), check_resources_document(document)):
        assert [(finding[0], finding[3]) for finding in findings] == [("", "error")]
        assert "an object is needed" in findings[0][1]


def test_shape_comes_first() -> None:
    """What values mean is not asked while some have the wrong type."""
    findings = check(changed({"/hostname": "x" * 65, "/process/cwd": 1, "/root/readonly": 1}))
    assert [finding[0] for finding in findings] == ["/process/cwd", "/root/readonly"]


def test_findings_end_somewhere() -> None:
    """A document of faults costs no more than a large one: no quadratic time, no list without end."""
    warnings = {f"unknwon{index}": None for index in range(20000)}
    assert len(check(default() | warnings)) == MOST
    spec = default() | warnings
    spec["process"]["args"] = []
    findings = check(spec)
    assert len(findings) == MOST
    assert [finding[0] for finding in findings if finding[3] == "error"] == ["/process/args"]
    spec = changed({"/process/env": ["x"] * 20000})
    assert len(check(spec)) == MOST
    many = {"/process/capabilities/effective": ["CAP_KILL"] * 50000, "/process/capabilities/permitted": ["CAP_CHOWN"] * 50000}
    assert len(check(changed(many))) == MOST
    assert len(check_process_document(changed(many)["process"])) == MOST
    assert len(check_resources_document({"unified": {f"x{index}": 1 for index in range(20000)}})) == MOST


def test_null_counts_as_absent() -> None:
    spec = changed({"/process/rlimits": None, "/mounts/0/options": None, "/hostname": None})
    assert {finding[3] for finding in check(spec)} == {"warning"}
    assert "rlimits" not in spec["process"]
    assert "options" not in spec["mounts"][0]
    assert "hostname" not in spec
    assert check(spec) == []


@pytest.mark.parametrize(
    ("resources", "pointer"),
    [
        ({"memory": {"swap": 1}}, "/memory/swap"),
        ({"devices": [{"allow": True, "access": "q"}]}, "/devices/0/access"),
        ({"cpu": {"shares": -1}}, "/cpu/shares"),
    ],
)
def test_resources_of_update(resources: dict[str, Any], pointer: str) -> None:
    assert [finding[0] for finding in check_resources_document(resources)] == [pointer]


def test_process_of_exec() -> None:
    assert check_process_document({"args": ["sh"], "cwd": "/"}) == []
    assert [finding[0] for finding in check_process_document({"args": ["sh"], "cwd": "x"})] == ["/cwd"]
    assert [finding[0] for finding in check_process_document({"args": ["sh"], "cwd": 1})] == ["/cwd"]
    assert [finding[0] for finding in check_process_document({"cwd": "/"})] == [""]
