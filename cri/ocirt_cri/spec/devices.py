"""Devices: those of a request, and all of the host's for a privileged container.

A container with a user namespace cannot have nodes made; there the host's are bound, which keeps their owners.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ocirt_cri.spec.process import clean
from ocirt_cri.spec.refuse import invalid, shown

if TYPE_CHECKING:
    from ocirt_api.cri.api_pb2 import ContainerConfig
    from ocirt_cri.spec.inputs import DeviceNode, Json, Lookups, Settings
    from ocirt_cri.spec.user import User

MOST = 10000
_EVERYTHING = "rwm"
# Of the container's own /dev, whatever the host has there.
_OWN = ("/dev/console", "/dev/ptmx", "/dev/fd", "/dev/core")
_OWN_BELOW = ("/dev/pts/", "/dev/shm/", "/dev/mqueue/", "/dev/fd/", "/dev/.")


@dataclass(slots=True)
class Devices:
    """nodes: `linux.devices` by path; rules: `linux.resources.devices`; mounts: of nodes that are to be bound."""

    nodes: dict[str, Json] = field(default_factory=dict)
    rules: list[Json] = field(default_factory=list)
    mounts: list[Json] = field(default_factory=list)

    def add(self, node: DeviceNode, place: str, permissions: str, *, bound: bool, owner: tuple[int, int] | None = None) -> None:
        """Give the container a device of the host's at a path."""
        if bound and node.path != place:
            self.mounts.append({"destination": place, "type": "bind", "source": node.path, "options": ["bind", "rprivate"]})
        else:
            uid, gid = owner or (node.uid, node.gid)
            self.nodes[place] = {
                "path": place,
                "type": node.kind,
                "major": node.major,
                "minor": node.minor,
                "fileMode": node.mode,
                "uid": uid,
                "gid": gid,
            }
        self.allow(node, permissions)

    def allow(self, node: DeviceNode, permissions: str) -> None:
        """Let the container use a device."""
        rule = {"allow": True, "type": node.kind, "major": node.major, "minor": node.minor, "access": permissions}
        if rule not in self.rules:
            self.rules.append(rule)


def check(config: ContainerConfig) -> None:
    """All that can be said without looking at a path. Raises Error."""
    if len(config.devices) > MOST:
        raise invalid("config.devices", f"{len(config.devices)} devices", f"{MOST} at most")
    seen: dict[str, int] = {}
    for number, device in enumerate(config.devices):
        place = f"config.devices[{number}]"
        for name, empty in (("host_path", False), ("container_path", True)):
            path = getattr(device, name)
            if (path or not empty) and (not path.startswith("/") or "\0" in path):
                raise invalid(f"{place}.{name}", f"{shown(path)} is not an absolute path", "such as /dev/fuse")
        if device.permissions.strip(_EVERYTHING):
            what = f"{shown(device.permissions)} is no set of permissions"
            raise invalid(place + ".permissions", what, "any of r (read), w (write) and m (mknod)")
        target = clean(device.container_path or device.host_path)
        if target in seen:
            what = f"{shown(target)} is config.devices[{seen[target]}] already"
            raise invalid(place + ".container_path", what, "each path once")
        seen[target] = number


def devices(config: ContainerConfig, settings: Settings, lookups: Lookups, user: User, *, bound: bool) -> Devices:
    """The devices of a request that was checked. `bound`: nodes cannot be made. Raises Error for one that is not there."""
    found = Devices(rules=[{"allow": False, "access": _EVERYTHING}])
    security = config.linux.security_context
    if security.privileged and settings.host_devices:
        for node in _look("/dev", "config.linux.security_context.privileged", lookups):
            if node.path not in _OWN and not node.path.startswith(_OWN_BELOW):
                found.add(node, node.path, _EVERYTHING, bound=bound)
    for number, device in enumerate(config.devices):
        place = f"config.devices[{number}].host_path"
        try:
            path = lookups.resolve(device.host_path)
        except OSError as err:
            raise invalid(place, f"{shown(device.host_path)} cannot be used", cause=err.strerror or str(err)) from None
        target = clean(device.container_path or device.host_path)
        for node in _look(path, place, lookups):
            below = posixpath.relpath(node.path, path)
            owner = None
            if settings.device_owner:
                owner = (user.uid or node.uid, user.gid or node.gid)
            inside = target if below == "." else posixpath.join(target, below)
            found.add(node, inside, device.permissions or _EVERYTHING, bound=bound, owner=owner)
    if security.privileged and settings.host_devices:
        found.rules = [{"allow": True, "access": _EVERYTHING}]
    return found


def _look(path: str, place: str, lookups: Lookups) -> list[DeviceNode]:
    try:
        return list(lookups.devices(path))
    except OSError as err:
        raise invalid(place, f"{shown(path)} cannot be used", cause=err.strerror or str(err)) from None
    except ValueError:
        raise invalid(place, f"{shown(path)} is not a device", "a device, or a directory of devices") from None
