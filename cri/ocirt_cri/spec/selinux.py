"""SELinux: the labels of a container's process and of its files.

What a request leaves out comes from the pod's labels. Where SELinux is not in force, nothing is labelled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt_cri.spec.refuse import invalid, shown

if TYPE_CHECKING:
    from ocirt_api.cri.api_pb2 import LinuxContainerSecurityContext, SELinuxOption
    from ocirt_cri.spec.inputs import Host, Pod

FIELD = "config.linux.security_context.selinux_options"
_PARTS = ("user", "role", "type", "level")
_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_OF_LEVELS = _CHARACTERS | frozenset(":,")
_PRIVILEGED = "spc_t"


def check(options: SELinuxOption, field: str) -> None:
    """Raises Error for what can be no part of a label."""
    for name in _PARTS:
        value = getattr(options, name)
        if not (_OF_LEVELS if name == "level" else _CHARACTERS).issuperset(value):
            hint = "such as s0:c1,c2" if name == "level" else "letters, digits and any of _.-"
            raise invalid(f"{field}.{name}", f"{shown(value)} is no {name} of a label", hint)


def labels(security: LinuxContainerSecurityContext, pod: Pod, host: Host) -> tuple[str, str]:
    """`process.selinuxLabel` and `linux.mountLabel`, "" for none."""
    if not host.selinux:
        return "", ""
    process, files = (pod.labels[number] or host.selinux_labels[number] for number in (0, 1))
    given = security.selinux_options
    if security.privileged and not given.type:
        process = _with(process, 2, _PRIVILEGED)
    for number, name in enumerate(_PARTS):
        if value := getattr(given, name):
            process = _with(process, number, value)
    if given.level:
        files = _with(files, 3, given.level)
    return process, files


def _with(label: str, number: int, value: str) -> str:
    parts = label.split(":", 3)
    parts[number] = value
    return ":".join(parts)
