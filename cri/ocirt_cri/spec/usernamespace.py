"""User namespaces of pods: exactly one mapping of users and one of groups, which begins with id 0 (KEP-127)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.spec.refuse import invalid, unsupported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocirt_api.cri.api_pb2 import IDMapping, NamespaceOption, UserNamespace
    from ocirt_cri.spec.inputs import Host, Json

_LAST = 1 << 32


@dataclass(frozen=True, slots=True)
class IdMap:
    """Ids 0 to length - 1 of the container are users from `uid`, groups from `gid` on, on the host."""

    uid: int
    gid: int
    length: int

    def documents(self) -> tuple[list[Json], list[Json]]:
        """As uidMappings and gidMappings of a document."""
        return tuple([{"containerID": 0, "hostID": host, "size": self.length}] for host in (self.uid, self.gid))  # type: ignore[return-value]


def mapping(options: NamespaceOption, field: str) -> IdMap | None:
    """The mapping of namespace_options that stand at `field`; None for the host's user namespace. Raises Error."""
    if not options.HasField("userns_options"):
        return None
    wanted = options.userns_options
    place = field + ".userns_options"
    if wanted.mode == cri.NODE:
        if wanted.uids or wanted.gids:
            raise invalid(place, "mappings for the host's user namespace", "leave them out, or set the mode to POD")
        return None
    if wanted.mode != cri.POD:
        raise invalid(place + ".mode", f"{_mode(wanted)} is none of a user namespace", "POD or NODE")
    uid, uids = _single(wanted.uids, place + ".uids")
    gid, gids = _single(wanted.gids, place + ".gids")
    if uids != gids:
        raise invalid(place + ".gids", f"{gids} groups for {uids} users", "mappings of the same length")
    return IdMap(uid, gid, uids)


def check(options: NamespaceOption, field: str, host: Host) -> IdMap | None:
    """The mapping of a pod to be made. Raises Error, also where this host has no user namespaces for pods."""
    found = mapping(options, field)
    if found is None:
        return None
    for there, what in (
        (host.user_namespaces, "user namespaces"),
        (host.idmapped_mounts, "mounts with mapped ids"),
        (host.mapped_layers, "mapped ids in the file system of image_root"),
    ):
        if not there:
            raise unsupported(field + ".userns_options", f"this host has no {what}", "hostUsers: true")
    for name in ("pid", "ipc"):
        # Neither procfs nor mqueue can be mounted for a namespace that another user namespace owns.
        if getattr(options, name) == cri.NODE:
            raise invalid(f"{field}.{name}", f"the host's {name} namespace in a user namespace", "POD, or no user namespace")
    return found


def check_same(pod: NamespaceOption, container: NamespaceOption, field: str) -> IdMap | None:
    """The pod's mapping, which a container of it must have as well. Raises Error."""
    wanted = mapping(container, field)
    found = mapping(pod, "sandbox_config.linux.security_context.namespace_options")
    if wanted != found:
        raise invalid(field + ".userns_options", f"{_shown(wanted)}, but the pod has {_shown(found)}", "what the pod was given")
    return found


def _single(ranges: Sequence[IDMapping], field: str) -> tuple[int, int]:
    if len(ranges) != 1:
        raise invalid(field, f"{len(ranges)} mappings", "exactly one")
    one = ranges[0]
    if one.container_id != 0:
        raise invalid(field + "[0].container_id", f"the first id is {one.container_id}", "0: root has to be mapped")
    if one.length == 0:
        raise invalid(field + "[0].length", "maps no ids", "such as 65536")
    if one.host_id + one.length >= _LAST:
        raise invalid(field + "[0].length", f"goes beyond the last id, {_LAST - 2}", "a smaller host_id or length")
    if one.host_id == 0:
        raise invalid(field + "[0].host_id", "root of the host would be root of the container", "an id above 0, such as 65536")
    return one.host_id, one.length


def _mode(wanted: UserNamespace) -> str:
    return cri.NamespaceMode.Name(wanted.mode) if wanted.mode in cri.NamespaceMode.values() else str(wanted.mode)


def _shown(ids: IdMap | None) -> str:
    if ids is None:
        return "the host's user namespace"
    return f"a user namespace of {ids.length} ids from {ids.uid} (groups: {ids.gid}) on"
