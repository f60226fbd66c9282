"""`linux.sysctl`: which kernel parameters belong to a namespace, so that a container may have its own. Loaded only if met."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.spec.shape import Finding

_IPC = frozenset(
    (
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shm_rmid_forced",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
    ),
)
_PREFIXES = (("fs.mqueue.", "ipc"), ("net.", "network"), ("user.", "user"))
_SWAP = {ord("."): "/", ord("/"): "."}


def proc_path(name: str) -> str:
    """The path below /proc/sys of a parameter, "" when the name can't be one.

    As in sysctl.d(5): the first separator, dot or slash, is the one between components, and the other is a dot in a name
    (`net/ipv4/conf/eth0.100/rp_filter` = `net.ipv4.conf.eth0/100.rp_filter`).
    """
    dot, slash = name.find("."), name.find("/")
    path = name if slash >= 0 and (dot < 0 or slash < dot) else name.translate(_SWAP)
    # A component `..` would lead out of the part that the namespace owns.
    return "" if any(part in ("", ".", "..") for part in path.split("/")) else path


def check_sysctl(sysctl: dict[str, str], types: dict[str, dict[str, Any]], findings: list[Finding]) -> None:
    """Append the findings; `types` are the namespaces of the container by type.

    Whether a network namespace that is joined is the host's is not to be seen here: the executor looks.
    """
    for given in sysctl:
        pointer = "/linux/sysctl/" + given.replace("~", "~0").replace("/", "~1")
        path = proc_path(given)
        name = path.translate(_SWAP)
        needs = "ipc" if name in _IPC else ""
        if not path:
            hint = 'components with one dot between them, such as "net.ipv4.ip_forward"'
            findings.append((pointer, f'"{given}" is not the name of a kernel parameter', hint, "error"))
            continue
        for prefix, namespace in _PREFIXES:
            if name.startswith(prefix):
                needs = namespace
        if name == "kernel.domainname":
            needs = "uts"
        elif name == "kernel.hostname":
            message = 'conflicts with the property "hostname"'
            findings.append((pointer, message, 'use "hostname" at the top of config.json', "error"))
            continue
        if not needs:
            hint = "of a namespace are only kernel.msg*, .sem, .shm* and .domainname, fs.mqueue.*, net.* and user.*"
            findings.append((pointer, f'"{given}" is the same for the whole host and cannot be set', hint, "error"))
        elif needs not in types:
            message = f'"{given}" would be set on the host: the container has no namespace of its own for it'
            findings.append((pointer, message, f'add {{"type": "{needs}"}} to /linux/namespaces', "error"))
