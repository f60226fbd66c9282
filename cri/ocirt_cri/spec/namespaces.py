"""Which namespaces a container joins, has for itself, or has not.

network POD or NODE; ipc POD or NODE; pid all four. The host name's goes with the network, as docker has it: a pod in the node's
network has the node's name. Cgroups are the container's own, unless it is privileged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.spec.refuse import invalid

if TYPE_CHECKING:
    from ocirt_api.cri.api_pb2 import NamespaceOption
    from ocirt_cri.spec.inputs import Container, Json, Lookups, Pod

_POD_FIELD = "sandbox_config.linux.security_context.namespace_options"
FIELD = "config.linux.security_context.namespace_options"
_ALLOWED = {
    "network": (cri.POD, cri.NODE),
    "ipc": (cri.POD, cri.NODE),
    "pid": (cri.POD, cri.CONTAINER, cri.NODE, cri.TARGET),
}


def check_pod(options: NamespaceOption, field: str) -> None:
    """The modes of a pod, each by itself. Raises Error."""
    for name, allowed in _ALLOWED.items():
        _check(options, name, tuple(mode for mode in allowed if mode != cri.TARGET), field)
    if options.target_id:
        raise invalid(field + ".target_id", "a pod has no target", "leave it out")


def check_container(pod: NamespaceOption, container: NamespaceOption) -> None:
    """The modes of a container, and whether they go with its pod's. Raises Error.

    POD means whatever the pod has, the node's included: callers leave a container's modes out. NODE has to be the pod's as well.
    """
    for name, allowed in _ALLOWED.items():
        _check(container, name, allowed, FIELD)
        if getattr(container, name) == cri.NODE and getattr(pod, name) != cri.NODE:
            what = f"NODE, but the pod has {_word(getattr(pod, name))}"
            raise invalid(f"{FIELD}.{name}", what, "POD, or make the pod with NODE as well")
    if container.pid == cri.TARGET and not container.target_id:
        raise invalid(f"{FIELD}.target_id", "mode TARGET without a target", "the id of a container of the same pod")
    if container.pid != cri.TARGET and container.target_id:
        raise invalid(f"{FIELD}.target_id", f"a target in mode {_word(container.pid)}", "leave it out, or set pid to TARGET")


def entries(pod: Pod, container: Container, lookups: Lookups) -> list[Json]:
    """`linux.namespaces`. The request was checked. Raises Error for a target that is not there."""
    security = container.config.linux.security_context
    options = security.namespace_options
    shared = pod.config.linux.security_context.namespace_options
    found: list[Json] = [{"type": "mount"}]
    if pod.user:
        found.append({"type": "user", "path": pod.user})
    if shared.network != cri.NODE:
        found.append(_joined("network", pod.network))
        found.append(_joined("uts", pod.uts) if pod.uts else {"type": "uts"})
    if shared.ipc != cri.NODE:
        found.append(_joined("ipc", pod.ipc))
    if options.pid == cri.TARGET:
        path = lookups.pid_namespace(options.target_id)
        if not path:
            what = f"{options.target_id[:80]!r} is no running container of this pod"
            raise invalid(f"{FIELD}.target_id", what, "`crictl ps --pod POD` lists them")
        found.append({"type": "pid", "path": path})
    elif cri.CONTAINER in (options.pid, shared.pid):
        found.append({"type": "pid"})
    elif shared.pid == cri.POD:
        found.append(_joined("pid", pod.pid))
    if not security.privileged:
        found.append({"type": "cgroup"})
    return found


def has_own_uts(pod: Pod) -> bool:
    """Whether a container's host name is to be set by its document."""
    return not pod.uts and pod.config.linux.security_context.namespace_options.network != cri.NODE


def _joined(kind: str, path: str) -> Json:
    if not path:
        raise invalid(f"{_POD_FIELD}.{kind}", f"the pod has no {kind} namespace that its containers could share", "make it anew")
    return {"type": kind, "path": path}


def _check(options: NamespaceOption, name: str, allowed: tuple[int, ...], field: str) -> None:
    mode = getattr(options, name)
    if mode not in allowed:
        words = " or ".join(_word(one) for one in allowed)
        raise invalid(f"{field}.{name}", f"{_word(mode)} is no mode of it", words)


def _word(mode: int) -> str:
    return cri.NamespaceMode.Name(mode) if mode in cri.NamespaceMode.values() else str(mode)  # type: ignore[arg-type]
