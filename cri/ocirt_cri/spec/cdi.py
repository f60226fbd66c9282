"""Devices by name: the edits that CDI specifications make to a container (Container Device Interface, SPEC.md 0.3 to 1.1).

A specification is `{"cdiVersion", "kind": "VENDOR/CLASS", "devices": [{"name", "containerEdits"}], "containerEdits"}`. The
edits of a specification itself are made once, before those of the first of its devices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ocirt_cri.spec import cdinames
from ocirt_cri.spec.inputs import DeviceNode
from ocirt_cri.spec.process import clean
from ocirt_cri.spec.refuse import invalid, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocirt_api.cri.api_pb2 import ContainerConfig
    from ocirt_cri.spec.devices import Devices
    from ocirt_cri.spec.inputs import CdiDocument, Json, Lookups

_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_RDT = {
    "closID": "closID",
    "l3CacheSchema": "l3CacheSchema",
    "memBwSchema": "memBwSchema",
    "schemata": "schemata",
    "enableMonitoring": "enableMonitoring",
}
_PLACES = "`/etc/cdi` and `/var/run/cdi` are searched"


@dataclass(slots=True)
class Edits:
    """What is to be changed, apart from devices: `env` and `mounts` of the document, `hooks`, groups, sections of `linux`."""

    env: list[str] = field(default_factory=list)
    mounts: list[Json] = field(default_factory=list)
    hooks: dict[str, list[Json]] = field(default_factory=dict)
    groups: list[int] = field(default_factory=list)
    rdt: Json = field(default_factory=dict)
    net_devices: dict[str, Json] = field(default_factory=dict)


def edits(config: ContainerConfig, devices: Devices, lookups: Lookups, *, bound: bool) -> Edits:
    """The edits of all devices that a request names; their nodes go to `devices`. Raises Error for one that there is not."""
    found = Edits()
    names = cdinames.requested(config)
    if not names:
        return found
    documents = lookups.cdi()
    seen: list[CdiDocument] = []
    for name, place in names.items():
        document, device = _find(name, place, documents)
        for number, part in enumerate((document.document, device)):
            if number == 0 and document in seen:
                continue
            wanted = part.get("containerEdits") or {}
            try:
                _apply(wanted, found, devices, lookups, bound=bound)
            except OSError as err:
                cause = f"{err.filename or ''}: {err.strerror or err}".removeprefix(": ")
                raise invalid(place, f"{shown(name)} of {document.path} cannot be used", cause=cause) from None
            except (AttributeError, KeyError, TypeError, ValueError) as err:
                what = f"{shown(name)}: {document.path} is not as the specification of CDI wants it"
                raise invalid(place, what, cause=f"{type(err).__name__}: {err}"[:200]) from None
        seen.append(document)
    return found


def _find(name: str, place: str, documents: Sequence[CdiDocument]) -> tuple[CdiDocument, dict[str, Any]]:
    """The device of the specification that counts: of those that have it, the one in the directory of the highest rank."""
    kind, _, wanted = name.partition("=")
    found: list[tuple[CdiDocument, dict[str, Any]]] = []
    for one in documents:
        if not isinstance(one.document, dict) or one.document.get("kind") != kind:
            continue
        for device in one.document.get("devices") or ():
            if isinstance(device, dict) and device.get("name") == wanted:
                found.append((one, device))
    if not found:
        kinds = sorted({str(one.document.get("kind")) for one in documents if isinstance(one.document, dict)})
        there = f"there are devices of {', '.join(kinds[:8])}" if kinds else "there are none at all"
        unread = [one.path for one in documents if not isinstance(one.document, dict)]
        if unread:
            there += f", and {', '.join(unread[:4])} cannot be read"
        raise invalid(place, f"no CDI device {shown(name)}", f"{there}; {_PLACES}")
    rank = max(one.directory for one, _ in found)
    best = [pair for pair in found if pair[0].directory == rank]
    if len(best) > 1:
        where = " and ".join(one.path for one, _ in best)
        raise invalid(place, f"{shown(name)} is in {where}", "in one of them, or in one of a directory that counts for more")
    return best[0]


def _apply(wanted: dict[str, Any], found: Edits, devices: Devices, lookups: Lookups, *, bound: bool) -> None:
    for entry in wanted.get("env") or ():
        name, equals, _ = entry.partition("=")
        if not name or not equals or "\0" in entry:
            raise ValueError(f"env: {entry!r}")
        found.env.append(entry)
    for one in wanted.get("deviceNodes") or ():
        _node(one, devices, lookups, bound=bound)
    for one in wanted.get("mounts") or ():
        options = list(one.get("options") or ())
        kind = one.get("type") or "bind"
        if kind in ("bind", "none", "rbind") and not {"bind", "rbind"} & set(options):
            options.insert(0, "rbind")
        found.mounts.append(
            {"destination": _absolute(one["containerPath"]), "type": kind, "source": one["hostPath"], "options": options}
        )
    for one in wanted.get("hooks") or ():
        if one["hookName"] not in _HOOKS:
            raise ValueError(f"hookName: {one['hookName']!r}")
        hook: Json = {"path": _absolute(one["path"])}
        hook |= {key: one[key] for key in ("args", "env", "timeout") if one.get(key)}
        found.hooks.setdefault(one["hookName"], []).append(hook)
    for gid in wanted.get("additionalGIDs", wanted.get("additionalGids")) or ():
        if not 0 <= gid < (1 << 32) - 1:
            raise ValueError(f"additionalGIDs: {gid}")
        if gid:
            found.groups.append(gid)
    for key, value in (wanted.get("intelRdt") or {}).items():
        if key in _RDT:
            found.rdt[_RDT[key]] = value
    for one in wanted.get("netDevices") or ():
        found.net_devices[one["hostInterfaceName"]] = {"name": one["name"]}


def _node(one: dict[str, Any], devices: Devices, lookups: Lookups, *, bound: bool) -> None:
    """A device node. What the specification does not say of it is as the host has it."""
    path = _absolute(one["path"])
    host = one.get("hostPath") or path
    if one.get("type") and "major" in one and "minor" in one and not bound:
        kind = "c" if one["type"] == "u" else one["type"]
        there = DeviceNode(path=host, kind=kind, major=one["major"], minor=one["minor"], mode=0o666)
    else:
        (there,) = lookups.devices(lookups.resolve(host))
    mode = one.get("fileMode")
    uid, gid = one.get("uid"), one.get("gid")
    node = DeviceNode(
        path=there.path,
        kind=there.kind,
        major=there.major,
        minor=there.minor,
        mode=there.mode if mode is None else mode & 0o777,
        uid=there.uid if uid is None else uid,
        gid=there.gid if gid is None else gid,
    )
    permissions = one.get("permissions") or "rwm"
    if permissions.strip("rwm"):
        raise ValueError(f"permissions: {permissions!r}")
    devices.add(node, path, permissions, bound=bound)


def _absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"{path!r} is not an absolute path")
    return clean(path)
