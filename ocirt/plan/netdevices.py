"""The steps that move network devices into the container. Loaded only if config.json names some."""

from __future__ import annotations

from ocirt.plan import PARENT, step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ocirt.plan import Plan
    from ocirt.plan.namespaces import Namespaces


def _devices(devices: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """(name on the host, name in the container or "", JSON pointer) of each."""
    for name, device in devices.items():
        yield name, device.get("name") or "", "/linux/netDevices/" + name.replace("~", "~0")


def look(devices: dict[str, dict[str, Any]], spaces: Namespaces) -> Plan:
    """Refuse what is not there, or has no place where it goes, before anything is made."""
    slot = "namespace/network" if "network" in spaces.joined else ""
    return [step(PARENT, "netdevice.check", name, inside, slot, at=pointer) for name, inside, pointer in _devices(devices)]


def move(devices: dict[str, dict[str, Any]]) -> Plan:
    """Move them, in the order of config.json.

    A device that is virtual ends with the namespace, and one that is not loses its addresses, also if the container does not come
    to be. So this comes late: after the mounts, which may fail, and before hooks and sysctls, which may be about the devices.
    """
    return [step(PARENT, "netdevice.move", name, inside, at=pointer) for name, inside, pointer in _devices(devices)]
