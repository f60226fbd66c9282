"""`update`: other limits for a container that exists."""

from __future__ import annotations

import posix

from ocirt import state
from ocirt.cgroups.files import read
from ocirt.cgroups.merge import merge, source
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ocirt.cgroups.limits import Entry
    from ocirt.state import Record


def update(
    root: str, container_id: str, request: dict[str, Any], names: Mapping[str, str], schemata: tuple[str, str] = ("", "")
) -> None:
    """Give the container the resources of `request` (config.json's `linux.resources`, of the right shape), over what it has.

    What is not named stays; device rules are left alone. All of it is done, or nothing. `names` has other names, for errors,
    for pointers into the request; `schemata` are those of Intel RDT for cache and bandwidth, "" for one that stays. Raises
    Error("not-found"), Error("state") if it does not run, and what is wrong with a value.
    """
    lock = state.lock(state.directory(root, container_id))
    try:
        record = state.load(root, container_id)
        if state.status(record) in ("creating", "stopped"):
            raise Error("state", "container not running")
        merged, places = merge(record.get("resources") or {}, request)
        if not places and not any(schemata):
            return
        changed = record | {"resources": merged}
        if any(schemata):
            from ocirt.cgroups import resctrl  # noqa: PLC0415  (few hosts have it)

            changed["resctrl"] = resctrl.after_update(record["resctrl"], *schemata)
        try:
            entries = _entries(merged, places, record, request)
            _check_usage(record, merged, request)
            # Before anything is changed: the disk may be full.
            state.write(record["directory"], changed)
            if any(schemata):
                before = resctrl.set_schemata(changed["resctrl"])
                try:
                    set_limits(record, merged, entries)
                except Error:
                    resctrl.put_back(changed["resctrl"], before)
                    raise
            else:
                set_limits(record, merged, entries)
        except Error as err:
            _name(err, merged, places, names)
            raise
        state.publish(record["directory"])
    finally:
        posix.close(lock)


def _name(err: Error, merged: dict[str, Any], places: dict[str, str], names: Mapping[str, str]) -> None:
    """Let the error name the part of the request that it comes from."""
    pointer = err.subject
    given = source(pointer, places) if pointer[:1] == "/" else None
    if given is None:
        return
    if pointer == "/cpu/shares" and merged["cpu"].get("idle"):
        err.hint = "an idle container has no weight: make it idle no more"
    if pointer not in places and given in places.values():
        err.message = f"the container's {pointer[1:].replace('/', '.')}: {err.message}"
    err.subject = names.get(given, given)


def set_limits(record: Record, merged: dict[str, Any], entries: list[Entry]) -> None:
    """Change the container's cgroups, all or nothing: the one place where a manager beside the kernel's files has a say.

    `merged` are all resources that the container is to have, `entries` the writes for what changes. Raises Error.
    """
    if record["cgroup"].get("unit"):
        from ocirt.cgroups import units  # noqa: PLC0415  (only with systemd)

        units.change(record, merged, entries)
        return
    from ocirt.cgroups.change import change  # noqa: PLC0415

    change(record["cgroup"]["paths"], entries)


def _entries(merged: dict[str, Any], places: dict[str, str], record: Record, request: dict[str, Any]) -> list[Entry]:
    """The writes for what is asked for, and what is tied to that. Raises Error for a value that cannot be."""
    from ocirt.cgroups.limits import REQUIRED, writes  # noqa: PLC0415
    from ocirt.spec.load import refuse  # noqa: PLC0415
    from ocirt.spec.resources import check_resources_document  # noqa: PLC0415

    refuse(check_resources_document(merged), "resources")
    mode = record["cgroup"]["mode"]
    if mode != "v2" and request.get("unified"):
        raise Error("invalid", "invalid configuration: cannot use unified on cgroup v1", subject="/unified")
    entries = [entry for entry in writes(merged, mode, "") if source(entry[3], places) is not None]
    had = (record.get("resources") or {}).get("memory") or {}
    if mode != "v2" and had.get("disableOOMKiller") and merged["memory"].get("disableOOMKiller") is False:
        entries.append(("memory", "memory.oom_control", "0", "/memory/disableOOMKiller", REQUIRED))
    return entries


def _check_usage(record: Record, merged: dict[str, Any], request: dict[str, Any]) -> None:
    """`checkBeforeUpdate`: refuse limits below what is in use, which version 2 would enforce by killing (version 1 refuses)."""
    if not (request.get("memory") or {}).get("checkBeforeUpdate") or record["cgroup"]["mode"] != "v2":
        return
    try:
        usage = int(read(record["cgroup"]["paths"][""] + "/memory.current"))
    except (KeyError, OSError, ValueError):
        return  # nothing to compare with
    for name, words in (("swap", "memory+swap limit"), ("limit", "memory limit")):
        value = (merged.get("memory") or {}).get(name) or 0
        if 0 < value <= usage:
            raise Error("state", f"rejecting {words} {value} <= usage {usage}", subject="/memory/" + name)
