"""The shape of config.json: which properties there are, of which type, and a walk that holds a document against it.

Everything about shape lives in these tables (runtime-spec 1.3, schema/*.json); what values mean together is said elsewhere.
A shape is

- `str` or `bool`;
- a `range`: an integer within it;
- a tuple of strings: one of these;
- a list of one shape: an array of it;
- a dict: an object. Key `None` holds the required names; the key `...` the shape of all names that are not listed;
- a string: the module of ocirt.spec that has it in its table `SHAPES`, loaded only when the property is there;
- `...`: known, but of no use on Linux.

A property that is null counts as absent, as for Go's decoder, on which the other runtimes are built. One that is unknown must
not be an error (config.md, "Extensibility"), but is most likely a slip: a warning.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # (JSON pointer, message, hint, "error" or "warning")
    Finding = tuple[str, str, str, str]

U16 = range(1 << 16)
U32 = range(1 << 32)
U64 = range(1 << 64)
I32 = range(-(1 << 31), 1 << 31)
I64 = range(-(1 << 63), 1 << 63)
COUNT = range(1, 1 << 63)

_STRINGS = [str]
_MAPPINGS = [{None: ("containerID", "hostID", "size"), "containerID": U32, "hostID": U32, "size": U32}]
_HOOKS = [{None: ("path",), "path": str, "args": _STRINGS, "env": _STRINGS, "timeout": COUNT}]
_THROTTLE = [{None: ("major", "minor"), "major": I64, "minor": I64, "rate": U64}]

PROCESS: dict[Any, Any] = {
    None: ("cwd",),
    "terminal": bool,
    "consoleSize": {None: ("height", "width"), "height": U64, "width": U64},
    "user": {"uid": U32, "gid": U32, "umask": U32, "additionalGids": [U32], "username": ...},
    "args": _STRINGS,
    "commandLine": ...,
    "env": _STRINGS,
    "cwd": str,
    "capabilities": {
        "bounding": _STRINGS,
        "effective": _STRINGS,
        "inheritable": _STRINGS,
        "permitted": _STRINGS,
        "ambient": _STRINGS,
    },
    "rlimits": [{None: ("type", "hard", "soft"), "type": str, "hard": U64, "soft": U64}],
    "noNewPrivileges": bool,
    "apparmorProfile": str,
    "oomScoreAdj": I64,
    "selinuxLabel": str,
    "scheduler": "scheduling",
    "ioPriority": "scheduling",
    "execCPUAffinity": "scheduling",
}

RESOURCES: dict[Any, Any] = {
    "devices": [{None: ("allow",), "allow": bool, "type": str, "major": I64, "minor": I64, "access": str}],
    "memory": {
        "limit": I64,
        "reservation": I64,
        "swap": I64,
        "kernel": I64,
        "kernelTCP": I64,
        "swappiness": U64,
        "disableOOMKiller": bool,
        "useHierarchy": bool,
        "checkBeforeUpdate": bool,
    },
    "cpu": {
        "shares": U64,
        "quota": I64,
        "burst": U64,
        "period": U64,
        "realtimeRuntime": I64,
        "realtimePeriod": U64,
        "cpus": str,
        "mems": str,
        "idle": I64,
    },
    "pids": {"limit": I64},
    "blockIO": {
        "weight": U16,
        "leafWeight": U16,
        "weightDevice": [{None: ("major", "minor"), "major": I64, "minor": I64, "weight": U16, "leafWeight": U16}],
        "throttleReadBpsDevice": _THROTTLE,
        "throttleWriteBpsDevice": _THROTTLE,
        "throttleReadIOPSDevice": _THROTTLE,
        "throttleWriteIOPSDevice": _THROTTLE,
    },
    "hugepageLimits": [{None: ("pageSize", "limit"), "pageSize": str, "limit": U64}],
    "network": {"classID": U32, "priorities": [{None: ("name", "priority"), "name": str, "priority": U32}]},
    "rdma": {...: {"hcaHandles": U32, "hcaObjects": U32}},
    "unified": {...: str},
}

_LINUX = {
    "uidMappings": _MAPPINGS,
    "gidMappings": _MAPPINGS,
    "sysctl": {...: str},
    "resources": RESOURCES,
    "cgroupsPath": str,
    "namespaces": [
        {None: ("type",), "type": ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"), "path": str},
    ],
    "devices": [
        {
            None: ("type", "path"),
            "type": ("c", "b", "u", "p"),
            "path": str,
            "major": I64,
            "minor": I64,
            "fileMode": U32,
            "uid": U32,
            "gid": U32,
        },
    ],
    "netDevices": {...: {"name": str}},
    "seccomp": "seccomp",
    "rootfsPropagation": ("private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable", ""),
    "maskedPaths": _STRINGS,
    "readonlyPaths": _STRINGS,
    "mountLabel": str,
    "intelRdt": "intelrdt",
    "memoryPolicy": "scheduling",
    "personality": "scheduling",
    "timeOffsets": {"monotonic": {"secs": I64, "nanosecs": U32}, "boottime": {"secs": I64, "nanosecs": U32}},
}

SPEC: dict[Any, Any] = {
    None: ("ociVersion",),
    "ociVersion": str,
    "process": PROCESS,
    "root": {None: ("path",), "path": str, "readonly": bool},
    "hostname": str,
    "domainname": str,
    "mounts": [
        {
            None: ("destination",),
            "destination": str,
            "type": str,
            "source": str,
            "options": _STRINGS,
            "uidMappings": _MAPPINGS,
            "gidMappings": _MAPPINGS,
        },
    ],
    "hooks": {
        "prestart": _HOOKS,
        "createRuntime": _HOOKS,
        "createContainer": _HOOKS,
        "startContainer": _HOOKS,
        "poststart": _HOOKS,
        "poststop": _HOOKS,
    },
    "annotations": {...: str},
    "linux": _LINUX,
    "solaris": ...,
    "windows": ...,
    "vm": ...,
    "zos": ...,
    "freebsd": ...,
}


MOST = 1000  # findings on one document: beyond that they are of use to nobody, and cost time and memory


class TooManyError(Exception):
    """There are more than MOST findings, and another error."""


class Findings(list):  # type: ignore[type-arg]
    """A list of findings that ends at MOST: no warning goes in any more, and an error ends the judging."""

    def append(self, finding: Any) -> None:
        """Append one where there is room. Raises TooManyError."""
        if len(self) < MOST:
            super().append(finding)
        elif finding[3] == "error":
            self[-1] = finding  # there was no room for it, but nobody may run this
            raise TooManyError


def walk(value: Any, shape: Any, pointer: str, findings: list[Finding]) -> None:
    """Hold `value` against `shape` and append what is wrong. Removes members that are null from the objects that it knows.

    It is iterative where documents are wide and recurses only as deep as the tables are, whatever the document holds.
    """
    kind = shape.__class__
    if kind is dict:
        if value.__class__ is dict:
            _walk_object(value, shape, pointer, findings)
            return
    elif kind is list:
        if value.__class__ is list:
            _walk_array(value, shape[0], pointer, findings)
            return
    elif kind is range:
        # bool is a subclass of int, and true is no number.
        if value.__class__ is int and value in shape:
            return
    elif kind is type:
        if value.__class__ is shape and (shape is bool or "\0" not in value):
            return
    elif value.__class__ is str and value in shape:
        return
    from ocirt.spec.explain import mismatch  # noqa: PLC0415  (only for an error)

    findings.append(mismatch(value, shape, pointer))


def _walk_object(value: dict[str, Any], shape: dict[Any, Any], pointer: str, findings: list[Finding]) -> None:
    nulls = None
    for name, item in value.items():
        want = shape.get(name)
        if want is str and item.__class__ is str and "\0" not in item:
            continue  # the most frequent case by far
        if want is None:
            want = shape.get(...)
            if want is None or not name or "\0" in name:
                if len(findings) >= MOST and ... not in shape:
                    continue
                from ocirt.spec.explain import unknown  # noqa: PLC0415

                findings.append(unknown(name, shape, pointer))
                continue
            below = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
        else:
            below = f"{pointer}/{name}"
        if item is None:
            findings.append((below, "is null, which counts as absent", "leave it out", "warning"))
            if nulls is None:
                nulls = []
            nulls.append(name)
        elif want is ...:
            findings.append((below, "has no meaning on Linux and is ignored", "leave it out", "warning"))
        else:
            walk(item, _load(want, name) if want.__class__ is str else want, below, findings)
    if nulls:
        for name in nulls:
            del value[name]
    required = shape.get(None)
    if required:
        for name in required:
            if name not in value:
                from ocirt.spec.explain import missing  # noqa: PLC0415

                findings.append(missing(name, shape, pointer))


def _walk_array(value: list[Any], want: Any, pointer: str, findings: list[Finding]) -> None:
    if want is str:
        for item in value:
            if item.__class__ is not str or "\0" in item:
                break
        else:
            return
    index = 0
    for item in value:
        walk(item, want, f"{pointer}/{index}", findings)
        index += 1  # noqa: SIM113  (enumerate makes a tuple each)


def _load(module: str, name: str) -> Any:
    return __import__("ocirt.spec." + module, None, None, ("SHAPES",)).SHAPES[name]
