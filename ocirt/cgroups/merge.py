"""What `update` makes of a container's resources: the ones it has, and over them the ones that are asked for. Pure.

A value that is not given stays as it is. Kept is what depends on others: a limit of memory and swap together, a quota and its
period. The rules are runc's, but for this: runc forgets the period, the burst and the like after an update that does not name
them, so that the next one starts from the kernel's default; and it leaves aside what its list does not name (huge pages, rdma,
network, swappiness, the OOM killer), which is applied here.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Resources = dict[str, Any]

# Settings whose values the kernel, or their form in version 2, ties to each other: with one of them, all are written.
_TIED = (
    ("/memory/limit", "/memory/swap"),
    ("/cpu/quota", "/cpu/period", "/cpu/burst"),
    ("/cpu/shares", "/cpu/idle"),
    ("/cpu/realtimeRuntime", "/cpu/realtimePeriod"),
)
# Zero has a meaning of its own here; elsewhere it stands for "not given", as callers written in Go send it.
_ZERO_COUNTS = ("burst", "idle", "swappiness")
# Nothing to keep: obsolete, or about this one update.
_OF_NO_EFFECT = ("kernel", "kernelTCP", "useHierarchy", "checkBeforeUpdate")
# Members of blockIO that are lists of devices.
_DEVICES = (
    "weightDevice",
    "throttleReadBpsDevice",
    "throttleWriteBpsDevice",
    "throttleReadIOPSDevice",
    "throttleWriteIOPSDevice",
)


def merge(old: Resources, request: Resources) -> tuple[Resources, dict[str, str]]:
    """The resources after an update, and the pointers of what the request says: into the result → into the request.

    Both are of the right shape, without members that are null. Neither is changed.
    """
    merged = {name: _copy(value) for name, value in old.items()}
    places: dict[str, str] = {}
    for section in ("memory", "cpu"):
        for name, value in (request.get(section) or {}).items():
            if name in _OF_NO_EFFECT or (value in (0, "") and value is not False and name not in _ZERO_COUNTS):
                continue
            merged.setdefault(section, {})[name] = value
            places[f"/{section}/{name}"] = f"/{section}/{name}"
    _after_memory(merged, request.get("memory") or {})
    cpu = request.get("cpu") or {}
    if cpu.get("idle") is not None and not cpu.get("shares"):
        # An idle group takes no weight, and one that is idle no more has the default's.
        merged["cpu"].pop("shares", None)
    if "limit" in (request.get("pids") or {}):
        merged["pids"] = dict(request["pids"])
        places["/pids/limit"] = "/pids/limit"
    _block(merged, request.get("blockIO") or {}, places)
    _list(merged, "hugepageLimits", request, ("pageSize",), "/hugepageLimits", places)
    network = request.get("network") or {}
    if network.get("classID"):
        merged.setdefault("network", {})["classID"] = network["classID"]
        places["/network/classID"] = "/network/classID"
    if network.get("priorities"):
        _list(merged.setdefault("network", {}), "priorities", network, ("name",), "/network/priorities", places)
    for section in ("rdma", "unified"):
        for name, value in (request.get(section) or {}).items():
            place = f"/{section}/{name.replace('~', '~0').replace('/', '~1')}"
            merged.setdefault(section, {})[name] = value
            places[place] = place
    return merged, places


def _copy(value: Any) -> Any:
    """Deep enough: what `merge` changes are objects and lists of objects."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value


def _after_memory(merged: Resources, request: Resources) -> None:
    """Without a limit of memory there is none of memory and swap together either, unless it is said; 0 is to forget that one."""
    limit = request.get("limit")
    if limit and not request.get("swap") and (limit == -1 or "swap" in request):
        merged["memory"].pop("swap", None)


def _block(merged: Resources, request: Resources, places: dict[str, str]) -> None:
    for name in ("weight", "leafWeight"):
        if request.get(name):
            merged.setdefault("blockIO", {})[name] = request[name]
            places["/blockIO/" + name] = "/blockIO/" + name
    for name in _DEVICES:
        if request.get(name):
            _list(merged.setdefault("blockIO", {}), name, request, ("major", "minor"), "/blockIO/" + name, places)


def _list(into: Resources, name: str, request: Resources, keys: tuple[str, ...], pointer: str, places: dict[str, str]) -> None:
    """Entries of a list: one with the same `keys` is changed, in its place; a new one goes to the end."""
    for index, entry in enumerate(request.get(name) or ()):
        entries = into.setdefault(name, [])
        for place in reversed(range(len(entries))):
            if all(entries[place].get(key) == entry.get(key) for key in keys):
                entries[place] |= entry
                break
        else:
            place = len(entries)
            entries.append(dict(entry))
        places[f"{pointer}/{place}"] = f"{pointer}/{index}"


def source(pointer: str, places: dict[str, str]) -> str | None:
    """Where the request says what the result has at `pointer`, or what that is tied to.

    None: the update has nothing to do with it, and does not write it.
    """
    place = pointer
    while place:
        if place in places:
            return places[place] + pointer[len(place) :]
        place = place.rpartition("/")[0]
    if any(given.startswith(pointer + "/") for given in places):
        return pointer
    for group in _TIED:
        if pointer in group:
            for other in group:
                if other in places:
                    return places[other]
    return None
