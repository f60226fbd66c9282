"""`linux.netDevices`: links of the host that go into the container's network namespace (config-linux.md). Loaded only if met."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.spec.shape import Finding

_POINTER = "/linux/netDevices"
_LONGEST = 15  # bytes: IFNAMSIZ without the NUL


def check_netdevices(
    devices: dict[str, dict[str, Any]], namespaces: dict[str, dict[str, Any]], rootless: bool, findings: list[Finding]
) -> None:
    """Append the findings; `namespaces` are the entries of /linux/namespaces by type."""
    if "network" not in namespaces:
        message = "unable to move network devices without a network namespace"
        findings.append((_POINTER, message, 'add {"type": "network"} to /linux/namespaces', "error"))
    if rootless:
        message = "a user who is not root cannot move network devices"
        findings.append((_POINTER, message, "leave it out, or run as root", "error"))
    taken: dict[str, str] = {}
    for name, device in devices.items():
        place = f"{_POINTER}/{name.replace('~', '~0').replace('/', '~1')}"
        inside = device.get("name") or name
        if fault := _fault(name, template=False):
            hint = "the name of a link, as `ip link` shows it"
            findings.append((place, f'invalid network device name "{name}": {fault}', hint, "error"))
        elif fault := _fault(inside, template=True):
            hint = f'such as "{name[:_LONGEST]}", or with a number that the runtime chooses: "eth%d"'
            findings.append((place + "/name", f'invalid network device name "{inside}": {fault}', hint, "error"))
        elif inside in taken:
            hint = f"another name than that of {taken[inside]}"
            findings.append((place, f'"{inside}" is the name of two devices in the container', hint, "error"))
        elif "%" not in inside:
            taken[inside] = place


def _fault(name: str, *, template: bool) -> str:
    """What the kernel has against a name (net/core/dev.c, dev_valid_name()), or ""."""
    size = len(name.encode("utf-8", "surrogateescape"))
    if size > _LONGEST:
        return f"it has {size} bytes, and {_LONGEST} are possible"
    if name in ("", ".", ".."):
        return "it is none"
    if any(character in "/:" or character.isspace() for character in name):
        return "a slash, a colon or a space is in it"
    if "%" in (name.replace("%d", "", 1) if template else name):
        return "a % is in it" + (" that is not the one %d" if template else "")
    return ""
