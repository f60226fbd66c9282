"""Pods and containers as plugins see them. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ocirt_api.cri import api_pb2 as cri
from ocirt_api.nri import api_pb2 as nri
from ocirt_cri.nri import resources

if TYPE_CHECKING:
    from ocirt_cri.model import Container, Sandbox
    from ocirt_cri.spec.inputs import Json

_HOOKS = (
    ("prestart", "prestart"),
    ("createRuntime", "create_runtime"),
    ("createContainer", "create_container"),
    ("startContainer", "start_container"),
    ("poststart", "poststart"),
    ("poststop", "poststop"),
)
_STATES = {
    cri.CONTAINER_CREATED: nri.CONTAINER_CREATED,
    cri.CONTAINER_RUNNING: nri.CONTAINER_RUNNING,
    cri.CONTAINER_EXITED: nri.CONTAINER_STOPPED,
}
_PROFILES = {
    cri.SecurityProfile.RuntimeDefault: nri.SecurityProfile.RUNTIME_DEFAULT,
    cri.SecurityProfile.Unconfined: nri.SecurityProfile.UNCONFINED,
    cri.SecurityProfile.Localhost: nri.SecurityProfile.LOCALHOST,
}


def pod(sandbox: Sandbox, cgroup_parent: str) -> nri.PodSandbox:
    """A pod. `cgroup_parent`: that of its containers, in the form of config.json's `cgroupsPath`."""
    config = sandbox.config
    found = nri.PodSandbox(
        id=sandbox.id,
        name=config.metadata.name,
        uid=config.metadata.uid,
        namespace=config.metadata.namespace,
        labels=config.labels,
        annotations=config.annotations,
        runtime_handler=sandbox.status.runtime_handler,
        pid=_init(sandbox),
    )
    network = sandbox.status.network
    found.ips.extend(ip for ip in (network.ip, *(one.ip for one in network.additional_ips)) if ip)
    linux = found.linux
    linux.cgroup_parent = config.linux.cgroup_parent
    linux.cgroups_path = cgroup_parent
    linux.pod_overhead.CopyFrom(resources.of_cri(config.linux.overhead))
    linux.pod_resources.CopyFrom(resources.of_cri(config.linux.resources))
    for kind, path in sorted(sandbox.namespaces.items()):
        if not sandbox.stopped:  # they are gone then
            linux.namespaces.add(type=kind, path=path)
    return found


def _init(sandbox: Sandbox) -> int:
    """The process that holds a shared PID namespace; a pod has none otherwise."""
    pid = sandbox.namespaces.get("pid", "").removeprefix("/proc/").partition("/")[0]
    return int(pid) if pid.isdecimal() and not sandbox.stopped else 0


def container(there: Container, document: Json) -> nri.Container:
    """A container that is to be made, or was, by a document: what of it does not change. `filled` says the rest."""
    running, linux = document["process"], document["linux"]
    found = nri.Container(
        id=there.id,
        pod_sandbox_id=there.pod_id,
        name=there.config.metadata.name,
        labels=there.config.labels,
        annotations={**document.get("annotations", {}), **there.config.annotations},
        args=[_text(one) for one in running["args"]],
        env=[_text(one) for one in running.get("env", ())],
        user=nri.User(
            uid=running["user"]["uid"], gid=running["user"]["gid"], additional_gids=running["user"].get("additionalGids", ())
        ),
    )
    for one in document.get("mounts", ()):
        found.mounts.add(
            destination=one["destination"], type=one.get("type", ""), source=one.get("source", ""), options=one.get("options", ())
        )
    for key, name in _HOOKS:
        getattr(found.hooks, name).extend(_hook(one) for one in (document.get("hooks") or {}).get(key, ()))
    for one in running.get("rlimits", ()):
        found.rlimits.add(type=one["type"], hard=one["hard"], soft=one["soft"])
    found.CDI_devices.extend(nri.CDIDevice(name=one.name) for one in there.config.CDI_devices)
    status = there.status
    found.image.name = status.image.image
    found.image.digest = status.image_ref.partition("@")[2]
    found.image.config_digest = status.image_id
    _linux(found.linux, running, linux)
    security = there.config.linux.security_context
    if security.HasField("seccomp"):
        found.linux.seccomp_profile.profile_type = _PROFILES[security.seccomp.profile_type]
        found.linux.seccomp_profile.localhost_ref = security.seccomp.localhost_ref
    return found


def _linux(found: nri.LinuxContainer, running: Json, linux: Json) -> None:
    for one in linux.get("namespaces", ()):
        found.namespaces.add(type=one["type"], path=one.get("path", ""))
    for one in linux.get("devices", ()):
        device = found.devices.add(path=one["path"], type=one["type"], major=one.get("major", 0), minor=one.get("minor", 0))
        for key, name in (("fileMode", "file_mode"), ("uid", "uid"), ("gid", "gid")):
            if one.get(key) is not None:
                getattr(device, name).value = one[key]
    found.resources.CopyFrom(resources.of_document(linux.get("resources", {})))
    if running.get("oomScoreAdj") is not None:
        found.oom_score_adj.value = running["oomScoreAdj"]
    found.cgroups_path = linux.get("cgroupsPath", "")
    for key, value in linux.get("sysctl", {}).items():
        found.sysctl[key] = value
    for key, value in linux.get("netDevices", {}).items():
        found.net_devices[key].name = value.get("name", "")
    if filters := linux.get("seccomp"):
        found.seccomp_policy.CopyFrom(_seccomp(filters))
    if rdt := linux.get("intelRdt"):
        if rdt.get("closID"):
            found.rdt.clos_id.value = rdt["closID"]
        if rdt.get("schemata"):
            found.rdt.schemata.value.extend(rdt["schemata"])


def _seccomp(given: Json) -> nri.LinuxSeccomp:
    found = nri.LinuxSeccomp(
        default_action=given["defaultAction"],
        architectures=given.get("architectures", ()),
        flags=given.get("flags", ()),
        listener_path=given.get("listenerPath", ""),
        listener_metadata=given.get("listenerMetadata", ""),
    )
    if given.get("defaultErrnoRet") is not None:
        found.default_errno.value = given["defaultErrnoRet"]
    for one in given.get("syscalls", ()):
        call = found.syscalls.add(names=one["names"], action=one["action"])
        if one.get("errnoRet") is not None:
            call.errno_ret.value = one["errnoRet"]
        for arg in one.get("args", ()):
            call.args.add(index=arg["index"], value=arg["value"], value_two=arg.get("valueTwo", 0), op=arg["op"])
    return found


def filled(there: Container, found: nri.Container) -> nri.Container:
    """The same message with what changes: state, times, the end, limits."""
    status = there.status
    found.state = _STATES.get(status.state, nri.CONTAINER_UNKNOWN)
    found.pid = there.pid
    found.created_at, found.started_at, found.finished_at = status.created_at, status.started_at, status.finished_at
    found.exit_code, found.status_reason, found.status_message = status.exit_code, status.reason, status.message
    if status.resources.HasField("linux"):
        current = resources.of_cri(status.resources.linux)
        for section in ("memory", "cpu"):
            for field, value in getattr(current, section).ListFields():
                into: Any = getattr(found.linux.resources, section)
                if field.message_type is None:
                    setattr(into, field.name, value)
                else:
                    getattr(into, field.name).CopyFrom(value)
    return found


def _hook(one: Mapping[str, Any]) -> nri.Hook:
    found = nri.Hook(path=one["path"], args=one.get("args", ()), env=one.get("env", ()))
    if one.get("timeout") is not None:
        found.timeout.value = one["timeout"]
    return found


def _text(value: str) -> str:
    """Text that a message can hold: bytes of a request that are no UTF-8 are lone surrogates in a document."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
