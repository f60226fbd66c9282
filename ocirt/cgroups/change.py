"""Changing the limits of a cgroup that is in use: all of them, or none as far as the kernel lets one go back."""

from __future__ import annotations

from ocirt.cgroups.apply import apply
from ocirt.cgroups.files import read, write
from ocirt.errors import Error
from ocirt.paths import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocirt.cgroups.limits import Entry


def change(paths: dict[str, str], entries: Sequence[Entry]) -> None:
    """Write what `limits.writes` gave, as `apply` does. If that fails, put back what the files held. Raises Error."""
    before = [(file, text) for entry in entries if (file := _file(paths, entry)) and (text := _undoing(file, entry)) is not None]
    try:
        apply(paths, entries)
    except Error:
        # Twice, as some can only go back after others.
        for _ in range(2):
            before = [(file, text) for file, text in reversed(before) if not _put(file, text)]
        raise


def _file(paths: dict[str, str], entry: Entry) -> str:
    directory = paths.get(entry[0]) or paths.get("")
    return f"{directory}/{entry[1]}" if directory else ""


def _undoing(file: str, entry: Entry) -> str | None:
    try:
        return undoing(entry[1], entry[2], read(file))
    except OSError:
        return None  # not there, or not to be read: then `apply` says what is wrong


def _put(file: str, text: str) -> bool:
    try:
        write(file, encode(text))
    except OSError:
        return False
    return True


def undoing(file: str, value: str, held: str) -> str | None:
    """What to write into `file` to undo the write of `value`, when it held `held` before; None if that cannot be told.

    A file has one value, or a line for each of some keys (devices, interfaces), each of one value or of parts `name=value`.
    """
    lines = held.strip("\n").split("\n")
    if file == "memory.oom_control":
        return lines[0].removeprefix("oom_kill_disable ")
    key, space, rest = value.partition(" ")
    if file == "cpu.max" or (not space and len(lines) == 1):
        return (lines[0].removeprefix("default ") if file.endswith("weight") else lines[0]) or "\n"
    if not space:
        for line in lines:
            if line.startswith("default "):
                return line.removeprefix("default ")
        # The weight of the cgroup, before the lines of its devices.
        return lines[0] if file.endswith("weight") else None
    names = [part.partition("=")[0] for part in rest.split(" ") if "=" in part]
    for line in lines:
        if line.startswith(key + " "):
            parts = line.split(" ")[1:]
            return " ".join([key, *(part for part in parts if not names or part.partition("=")[0] in names)])
    return " ".join([key, *(f"{name}=max" for name in names)]) if names else f"{key} 0"
