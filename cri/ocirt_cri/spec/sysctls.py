"""Kernel parameters of a pod: those that belong to a namespace which is the pod's own, and nobody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt.spec.sysctl import proc_path
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.spec.refuse import invalid, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ocirt_api.cri.api_pb2 import NamespaceOption

_IPC = ("kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.")
_USER_NAMESPACE_LACKS = ("net.ipv4.ping_group_range",)  # its groups are the namespace's, which has not all
_LONGEST = 4096
_SWAP = {ord("."): "/", ord("/"): "."}


def check(given: Mapping[str, str], options: NamespaceOption, field: str) -> dict[str, str]:
    """Path below /proc/sys and value, of parameters as a request has them at `field`. Raises Error."""
    found: dict[str, str] = {}
    for name, value in sorted(given.items()):  # a map of a message has no order
        place = f'{field}["{name[:80]}"]'
        path = proc_path(name)
        if not path or "\0" in name:
            raise invalid(place, f"{shown(name)} is not the name of a kernel parameter", "such as net.ipv4.ip_forward")
        if path in found:
            raise invalid(place, "stands twice, in two spellings", f"one of them: both are /proc/sys/{path}")
        needs = _namespace(path.translate(_SWAP))
        if not needs:
            hint = "of a pod's namespaces are kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.* and net.*"
            raise invalid(place, f"{shown(name)} is the same for the whole host and cannot be set", hint)
        if getattr(options, needs) == cri.NODE:
            hint = f"leave it out, or give the pod a {needs} namespace of its own"
            raise invalid(place, f"{shown(name)} would be set on the host: the pod shares its {needs} namespace", hint)
        if "\0" in value or "\n" in value.strip() or len(value) > _LONGEST:
            raise invalid(place, f"{shown(value)} is no value", "one line")
        found[path] = value
    return found


def of_pod(
    given: Mapping[str, str], defaults: Mapping[str, str], options: NamespaceOption, field: str, *, user_namespace: bool
) -> dict[str, str]:
    """All that is to be set for a pod: the daemon's defaults where they apply, what the request says over them. Raises Error."""
    asked = check(given, options, field)
    found = {}
    for name, value in defaults.items():
        path = proc_path(name)
        needs = _namespace(path.translate(_SWAP))
        if not needs or getattr(options, needs) == cri.NODE or (user_namespace and name in _USER_NAMESPACE_LACKS):
            continue
        found[path] = value
    return found | asked


def _namespace(name: str) -> str:
    """The field of namespace_options that says whose a parameter is, "" for the whole host's."""
    if name.startswith("net."):
        return "network"
    return "ipc" if name.startswith(_IPC) else ""
