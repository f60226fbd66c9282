"""A container's document, as the plugins want it: a ContainerAdjustment applied to a config.json. No I/O but by `lookups`.

The order is that of containerd/nri's own generator, where one thing touches what another has set. What an adjustment does not
name stays as the request made it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ocirt_api.cri import api_pb2 as cri
from ocirt_api.nri import api_pb2 as nri
from ocirt_cri.nri import adjustlinux
from ocirt_cri.nri.removal import bare, is_removal
from ocirt_cri.spec import cdi, cdinames, devices
from ocirt_cri.spec.process import clean
from ocirt_cri.spec.refuse import invalid, shown

if TYPE_CHECKING:
    from ocirt_cri.spec.inputs import Host, Json, Lookups

FIELD = "NRI adjustment"
_HOOKS = (
    ("prestart", "prestart"),
    ("poststart", "poststart"),
    ("poststop", "poststop"),
    ("create_runtime", "createRuntime"),
    ("create_container", "createContainer"),
    ("start_container", "startContainer"),
)
_PROPAGATION = ("rprivate", "rshared", "rslave")
_WANTS = {"rshared": ("shared",), "rslave": ("shared", "slave")}


def adjusted(document: Json, adjust: nri.ContainerAdjustment, host: Host, lookups: Lookups) -> Json:
    """The document with the adjustment in it; the one that was given stays as it is. Raises Error for what cannot be done."""
    found = copy.deepcopy(document)
    running = found["process"]
    _texts(found.setdefault("annotations", {}), adjust.annotations)
    running["env"] = _env(running.get("env", []), adjust.env)
    if adjust.args:
        running["args"] = list(adjust.args)
    for name, key in _HOOKS:
        for one in getattr(adjust.hooks, name):
            found.setdefault("hooks", {}).setdefault(key, []).append(_hook(one))
    if adjust.CDI_devices:
        _cdi(found, [one.name for one in adjust.CDI_devices], lookups)
    adjustlinux.adjust(found, adjust.linux, host)
    if adjust.mounts:
        _mounts(found, adjust.mounts, lookups)
    for limit in adjust.rlimits:
        kept = [one for one in running.get("rlimits", []) if one["type"] != limit.type]
        running["rlimits"] = [*kept, {"type": limit.type, "soft": limit.soft, "hard": limit.hard}]
    return found


def _texts(there: dict[str, str], given: Any) -> None:
    for name in sorted(given):  # the marked ones first
        if is_removal(name):
            there.pop(bare(name), None)
        else:
            there[name] = given[name]


def _env(env: list[str], given: Iterable[nri.KeyValue]) -> list[str]:
    """Variables that are set anew keep their place, others are appended."""
    found = {entry.partition("=")[0]: entry for entry in env}
    for one in given:
        if is_removal(one.key):
            found.pop(bare(one.key), None)
        elif not one.key or "=" in one.key:
            raise invalid(f"{FIELD}: env", f"{shown(one.key)} is no name of a variable", "without =")
        else:
            found[one.key] = f"{one.key}={one.value}"
    return list(found.values())


def _hook(one: nri.Hook) -> Json:
    found: Json = {"path": one.path}
    found |= {key: list(value) for key, value in (("args", one.args), ("env", one.env)) if value}
    if one.HasField("timeout"):
        found["timeout"] = one.timeout.value
    return found


def _cdi(document: Json, names: list[str], lookups: Lookups) -> None:
    """Devices by name, as if the request had named them."""
    for name in names:
        cdinames.check(name, f"{FIELD}: CDI_devices")
    linux, running = document["linux"], document["process"]
    bound = any(one["type"] == "user" for one in linux.get("namespaces", ()))
    asked = cri.ContainerConfig(CDI_devices=[cri.CDIDevice(name=name) for name in names])
    found = devices.Devices()
    edits = cdi.edits(asked, found, lookups, bound=bound)
    running["env"] = _env(
        running["env"], [nri.KeyValue(key=one.partition("=")[0], value=one.partition("=")[2]) for one in edits.env]
    )
    if edits.groups:
        groups = running["user"].setdefault("additionalGids", [])
        groups += [gid for gid in edits.groups if gid not in groups]
    for key, hooks in edits.hooks.items():
        document.setdefault("hooks", {}).setdefault(key, []).extend(hooks)
    if edits.rdt:
        linux["intelRdt"] = linux.get("intelRdt", {}) | edits.rdt
    if edits.net_devices:
        linux["netDevices"] = linux.get("netDevices", {}) | edits.net_devices
    for node in found.nodes.values():
        adjustlinux.put_device(linux, node)
    rules = linux.setdefault("resources", {}).setdefault("devices", [])
    rules += [rule for rule in found.rules if rule not in rules]
    for mount in [*found.mounts, *edits.mounts]:
        _put_mount(document, mount)
    _sort(document)


def _mounts(document: Json, given: Iterable[nri.Mount], lookups: Lookups) -> None:
    for one in given:
        destination = bare(one.destination) if is_removal(one.destination) else one.destination
        if not destination.startswith("/"):
            raise invalid(f"{FIELD}: mounts", f"{shown(destination)} is not an absolute path", "such as /data")
        destination = clean(destination)
        if is_removal(one.destination):
            document["mounts"] = [there for there in document["mounts"] if there["destination"] != destination]
            continue
        mount = {"destination": destination, "type": one.type, "source": one.source, "options": list(one.options)}
        _propagates(document, mount, lookups)
        _put_mount(document, mount)
    _sort(document)


def _put_mount(document: Json, mount: Json) -> None:
    kept = [there for there in document.setdefault("mounts", []) if there["destination"] != mount["destination"]]
    document["mounts"] = [*kept, mount]


def _sort(document: Json) -> None:
    document["mounts"].sort(key=lambda mount: mount["destination"].count("/"))


def _propagates(document: Json, mount: Json, lookups: Lookups) -> None:
    """A mount that takes part in others needs a source and a root that do."""
    kind = next((word for word in reversed(mount["options"]) if word in _PROPAGATION), "")
    if kind not in _WANTS:
        return
    place = f"{FIELD}: mounts[{mount['destination']}]"
    try:
        found = lookups.propagation(mount["source"])
    except OSError as err:
        raise invalid(place, f"{shown(mount['source'])} cannot be used", cause=err.strerror or str(err)) from None
    if found not in _WANTS[kind]:
        raise invalid(place, f"{shown(mount['source'])} is on a {found} mount, and cannot be {kind}", "mount --make-rshared")
    root = document["linux"].get("rootfsPropagation", "")
    if kind == "rshared" or root not in ("rshared", "rslave"):
        document["linux"]["rootfsPropagation"] = kind
