"""The document of a container, and what else is to be made for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.spec import (
    annotation,
    apparmor,
    capabilities,
    cdi,
    cgroups,
    devices,
    hostmounts,
    logs,
    mounts,
    namespaces,
    process,
    resources,
    rlimits,
    seccomp,
    selinux,
    signals,
    user,
    validate,
)

if TYPE_CHECKING:
    from ocirt_cri.spec.inputs import Container, Directory, Host, Json, Lookups, Pod, Settings
    from ocirt_cri.spec.usernamespace import IdMap

VERSION = "1.2.0"  # of the runtime specification: the first that has all that is used here
_ROOT = "rootfs"


@dataclass(frozen=True, slots=True)
class Built:
    """document: the config.json, whose root.path is a word: the root comes by other ways

    directories: to be made on the host first; relabel: paths that get `linux.mountLabel`
    user, stop_signal, mounts, log_path ("" for no log): as the container's status shows them
    ids: the mapping of the user namespace, which the layers of the root need as well
    """

    document: Json
    directories: tuple[Directory, ...]
    relabel: tuple[str, ...]
    user: user.User
    stop_signal: signals.StopSignal
    mounts: tuple[cri.Mount, ...]
    log_path: str
    ids: IdMap | None


def build(pod: Pod, container: Container, host: Host, settings: Settings, lookups: Lookups) -> Built:
    """What a request means. Raises Error for what cannot be meant or done; nothing was made then."""
    config, image = container.config, container.image
    security = config.linux.security_context
    ids = validate.check_container(pod.config, config, host)
    who = user.find(security, image.user, container.image_name, lookups, ids)
    found_devices = devices.devices(config, settings, lookups, who, bound=ids is not None)
    edits = cdi.edits(config, found_devices, lookups, bound=ids is not None)
    if edits.groups:
        who = who.with_groups(edits.groups)
    more = [*found_devices.mounts, *edits.mounts]
    found_mounts = mounts.mounts(pod, container, host, settings, lookups, ids, more)
    labels = selinux.labels(security, pod, host)

    sets = capabilities.sets(security, settings, host)
    hostname = pod.hostname or pod.config.hostname or host.hostname
    running: Json = {
        "terminal": config.tty,
        "user": who.document(),
        "args": process.arguments(config, image),
        "env": _with(process.environment(config, image, hostname), edits.env),
        "cwd": process.directory(config, image),
        "capabilities": sets,
        "rlimits": rlimits.limits(settings.rlimits, host.hard_limits),
        "noNewPrivileges": security.no_new_privs,
        "oomScoreAdj": resources.oom_score_adj(config.linux.resources, host),
    }
    if profile := apparmor.profile(security, settings, host, lookups):
        running["apparmorProfile"] = profile
    limits = resources.resources_of(config.linux.resources, host, pids=settings.pids_limit)
    linux: Json = {
        "namespaces": namespaces.entries(pod, container, lookups),
        "cgroupsPath": cgroups.path(pod.config, pod.id, settings, container.id, "sandbox_config.linux.cgroup_parent"),
        "resources": limits | {"devices": found_devices.rules},
    }
    if nodes := list(found_devices.nodes.values()):
        linux["devices"] = nodes
    if not security.privileged:
        linux["maskedPaths"] = list(security.masked_paths)
        linux["readonlyPaths"] = list(security.readonly_paths)
    if filters := seccomp.section(security, sets["bounding"], settings, host, lookups):
        linux["seccomp"] = filters
    if propagation := hostmounts.root_propagation(config):
        linux["rootfsPropagation"] = propagation
    if edits.rdt:
        linux["intelRdt"] = edits.rdt
    if edits.net_devices:
        linux["netDevices"] = edits.net_devices
    if labels[0]:
        running["selinuxLabel"], linux["mountLabel"] = labels

    document: Json = {
        "ociVersion": VERSION,
        "process": running,
        "root": {"path": _ROOT, "readonly": security.readonly_rootfs},
        "mounts": found_mounts.entries,
        "annotations": annotation.of_container(pod, container, settings),
        "linux": linux,
    }
    if namespaces.has_own_uts(pod):
        document["hostname"] = hostname
    if edits.hooks:
        document["hooks"] = edits.hooks
    return Built(
        document=document,
        directories=tuple(found_mounts.directories),
        relabel=tuple(found_mounts.relabel),
        user=who,
        stop_signal=signals.stop_signal(config, image),
        mounts=tuple(found_mounts.status),
        log_path=logs.path(pod.config, config),
        ids=ids,
    )


def _with(env: list[str], more: list[str]) -> list[str]:
    """`env`, and over it `more`."""
    found = {entry.partition("=")[0]: entry for entry in env}
    found |= {entry.partition("=")[0]: entry for entry in more}
    return list(found.values())
