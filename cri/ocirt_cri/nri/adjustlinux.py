"""The part of an adjustment that is about Linux: devices, limits, scheduling, seccomp, namespaces, sysctls. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ocirt_api.nri import api_pb2 as nri
from ocirt_cri.nri import resources
from ocirt_cri.nri.removal import bare, is_removal
from ocirt_cri.spec.refuse import unsupported

if TYPE_CHECKING:
    from ocirt_cri.spec.inputs import Host, Json


def adjust(document: Json, given: nri.LinuxContainerAdjustment, host: Host) -> None:
    """Change the document, which is the caller's own. Raises Error("unsupported")."""
    running, linux = document["process"], document["linux"]
    for device in given.devices:
        _device(linux, device)
    if given.cgroups_path:
        linux["cgroupsPath"] = given.cgroups_path
    if given.HasField("oom_score_adj"):
        value = given.oom_score_adj.value
        running["oomScoreAdj"] = max(value, host.oom_score_adj) if host.limited_oom_score_adj else value
    if given.HasField("io_priority"):
        _set(running, "ioPriority", _io_priority(given.io_priority))
    if given.HasField("scheduler"):
        _set(running, "scheduler", _scheduler(given.scheduler))
    if given.HasField("seccomp_policy"):
        linux["seccomp"] = _seccomp(given.seccomp_policy)
    for namespace in given.namespaces:
        _namespace(linux, namespace)
    _entries(linux, "sysctl", given.sysctl, str)
    _entries(linux, "netDevices", given.net_devices, lambda one: {"name": one.name} if one.name else {})
    if given.HasField("memory_policy"):
        linux["memoryPolicy"] = _memory_policy(given.memory_policy)
    if given.HasField("resources"):
        _resources(linux, given.resources, host)
    if given.HasField("rdt"):
        _rdt(linux, given.rdt)


def put_device(linux: Json, node: Json) -> None:
    """A node of `linux.devices`, in the place of one at the same path."""
    kept = [there for there in linux.get("devices", []) if there["path"] != node["path"]]
    linux["devices"] = [*kept, node]


def _device(linux: Json, given: nri.LinuxDevice) -> None:
    if is_removal(given.path):
        linux["devices"] = [there for there in linux.get("devices", []) if there["path"] != bare(given.path)]
        return
    node: Json = {"path": given.path, "type": given.type, "major": given.major, "minor": given.minor}
    for name, key in (("file_mode", "fileMode"), ("uid", "uid"), ("gid", "gid")):
        if given.HasField(name):  # type: ignore[arg-type]
            node[key] = getattr(given, name).value
    put_device(linux, node)
    # As containerd/nri has it: of a character device no more nodes can be made.
    access = "rwm" if given.type == "b" else "rw"
    rule = {"allow": True, "type": given.type, "major": given.major, "minor": given.minor, "access": access}
    linux.setdefault("resources", {}).setdefault("devices", []).append(rule)


def _io_priority(given: nri.LinuxIOPriority) -> Json:
    if getattr(given, "class") == nri.IOPRIO_CLASS_NONE:
        return {}
    return {"class": nri.IOPrioClass.Name(getattr(given, "class")), "priority": given.priority}


def _scheduler(given: nri.LinuxScheduler) -> Json:
    if given.policy == nri.SCHED_NONE:
        return {}
    found: Json = {"policy": nri.LinuxSchedulerPolicy.Name(given.policy)}
    found |= {name: value for name in ("nice", "priority", "runtime", "deadline", "period") if (value := getattr(given, name))}
    if given.flags:
        found["flags"] = [nri.LinuxSchedulerFlag.Name(flag) for flag in given.flags]
    return found


def _memory_policy(given: nri.LinuxMemoryPolicy) -> Json:
    found: Json = {"mode": nri.MpolMode.Name(given.mode)}
    if given.nodes:
        found["nodes"] = given.nodes
    if given.flags:
        found["flags"] = [nri.MpolFlag.Name(flag) for flag in given.flags]
    return found


def _seccomp(given: nri.LinuxSeccomp) -> Json:
    found: Json = {"defaultAction": given.default_action}
    if given.HasField("default_errno"):
        found["defaultErrnoRet"] = given.default_errno.value
    for key, values in (("architectures", given.architectures), ("flags", given.flags)):
        if values:
            found[key] = list(values)
    if given.listener_path:
        found["listenerPath"] = given.listener_path
    if given.listener_metadata:
        found["listenerMetadata"] = given.listener_metadata
    if given.syscalls:
        found["syscalls"] = [_syscall(one) for one in given.syscalls]
    return found


def _syscall(given: nri.LinuxSyscall) -> Json:
    found: Json = {"names": list(given.names), "action": given.action}
    if given.HasField("errno_ret"):
        found["errnoRet"] = given.errno_ret.value
    if given.args:
        found["args"] = [{"index": one.index, "value": one.value, "valueTwo": one.value_two, "op": one.op} for one in given.args]
    return found


def _namespace(linux: Json, given: nri.LinuxNamespace) -> None:
    kept = [there for there in linux.get("namespaces", []) if there["type"] != bare(given.type)]
    if not is_removal(given.type):
        kept.append({"type": given.type, "path": given.path} if given.path else {"type": given.type})
    linux["namespaces"] = kept


def _entries(linux: Json, key: str, given: Any, value: Any) -> None:
    """Entries of a map: the marked ones first."""
    if not given:
        return
    there = dict(linux.get(key, {}))
    for name in sorted(given):
        if is_removal(name):
            there.pop(bare(name), None)
        else:
            there[name] = value(given[name])
    _set(linux, key, there)


def _set(there: Json, key: str, value: Json) -> None:
    """An empty section is none."""
    if value:
        there[key] = value
    else:
        there.pop(key, None)


def _resources(linux: Json, given: nri.LinuxResources, host: Host) -> None:
    found = linux["resources"] = resources.laid_over(linux.get("resources", {}), given, host)
    if given.HasField("blockio_class"):
        if given.blockio_class.value:
            hint = "limits of block devices by unified (io.max), where cgroups are of version 2"
            raise unsupported("NRI adjustment: blockio_class", "ocirtd has no classes of block I/O", hint)
        found.pop("blockIO", None)
    if given.HasField("rdt_class"):
        _set(linux, "intelRdt", {"closID": given.rdt_class.value} if given.rdt_class.value else {})


def _rdt(linux: Json, given: nri.LinuxRdt) -> None:
    found = {} if given.remove else dict(linux.get("intelRdt", {}))
    if given.HasField("clos_id"):
        found["closID"] = given.clos_id.value
    if given.HasField("schemata"):
        found["schemata"] = list(given.schemata.value)
    if given.HasField("enable_monitoring"):
        found["enableMonitoring"] = given.enable_monitoring.value
    _set(linux, "intelRdt", found)
