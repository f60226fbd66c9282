"""Writing limits into a container's cgroups, and saying what is wrong when the kernel refuses one."""

from __future__ import annotations

import posix
from errno import EACCES, EBUSY, EINVAL, ENOENT, EPERM

from ocirt.cgroups.files import or_unknown, read, write
from ocirt.cgroups.limits import OR_NEXT, REQUIRED
from ocirt.errors import Error
from ocirt.paths import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocirt.cgroups.limits import Entry


def apply(paths: dict[str, str], entries: Sequence[Entry]) -> None:
    """Write what `limits.writes` gave. Raises Error with the entry's pointer.

    A value that the kernel finds at odds with another that is still to come (EINVAL, EBUSY) is tried again at the end.
    """
    again: list[Entry] = []
    done = False
    for entry in entries:
        if done:
            done = False
            continue
        try:
            done = _set(paths, entry) and entry[4] == OR_NEXT
        except OSError as error:
            if error.errno not in (EINVAL, EBUSY):
                raise explained(paths, entry, error) from error
            done = entry[4] == OR_NEXT
            again.append(entry)
    for entry in again:
        try:
            _set(paths, entry)
        except OSError as error:
            raise explained(paths, entry, error) from error


def _set(paths: dict[str, str], entry: Entry) -> bool:
    controller, file, value, _, missing = entry
    directory = paths.get(controller) or paths.get("")
    try:
        if directory is None or (controller and controller not in paths and len(paths) > 1):
            raise FileNotFoundError(ENOENT, "no such hierarchy")
        write(f"{directory}/{file}", encode(value))
    except FileNotFoundError:
        if missing == REQUIRED:
            raise
        return False
    return True


def explained(paths: dict[str, str], entry: Entry, error: OSError) -> Error:
    """The Error for a write that failed; without a `filename` there was no cgroup to write into."""
    controller, file, value, pointer, _ = entry
    cause = posix.strerror(error.errno or 0)
    if error.errno == ENOENT and error.filename is None:
        message = f"cannot set {controller} limit: container could not join or create cgroup"
        return Error(
            "unsupported", message, subject=pointer, hint=f"the host has no {controller} controller, or it may not be used"
        )
    if error.errno in (ENOENT, EPERM, EACCES) and "" in paths and controller:
        directory = paths[""]
        try:
            have = read(directory + "/cgroup.controllers").split()
        except OSError:
            have = []
        if controller not in have:
            message = f'{file} can\'t be set: controller "{controller}" not available'
            return Error("unsupported", message, subject=pointer, cause=cause, hint=f"{directory} was not given it")
    if error.errno == EBUSY and file == "memory.limit_in_bytes":
        usage = or_unknown(paths["memory"] + "/memory.usage_in_bytes")
        peak = or_unknown(paths["memory"] + "/memory.max_usage_in_bytes")
        return Error(
            "kernel", f"unable to set memory limit to {value} (current usage: {usage}, peak usage: {peak})", subject=pointer
        )
    hint = ""
    if error.errno == ENOENT:
        sizes = "; sizes of huge pages: see /sys/kernel/mm/hugepages" if controller == "hugetlb" else ""
        hint = "this kernel has no such file" + sizes
    return Error("kernel", f"failed to write {value!r} to {error.filename}", subject=pointer, cause=cause, hint=hint)
