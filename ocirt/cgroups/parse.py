"""What stands in cgroup files, from text. Pure; see kernel, admin-guide/cgroup-v1/, cgroup-v2.rst and accounting/psi.rst.

Lines that are not of the form that is read are left aside, as kernels of vendors have lines of their own; a file of one value
must hold one. Nothing but ValueError is raised, whatever the text.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    # (major, minor, operation or "", value)
    DeviceValue = tuple[int, int, str, int]

UNLIMITED = (1 << 64) - 1  # `max`
_LARGEST_CPU = (1 << 16) - 1


def number(text: str) -> int:
    """The one value of a file: 0 and up; "max" is UNLIMITED. A negative one, which some kernels show by mistake, is 0."""
    text = text.strip()
    if text == "max":
        return UNLIMITED
    return max(0, signed(text))


def signed(text: str) -> int:
    """A whole number of at most twenty digits. Raises ValueError."""
    digits = text.strip()
    bare = digits.removeprefix("-")
    if not (bare.isascii() and bare.isdecimal() and len(bare) <= 20):
        raise ValueError(f"{text[:40]!r} is no number")
    return int(digits)


def flat(text: str) -> dict[str, int]:
    """Lines of `key value`: memory.stat, cpu.stat, memory.events."""
    found = {}
    for line in text.split("\n"):
        key, _, value = line.partition(" ")
        try:
            found[key] = number(value)
        except ValueError:
            continue
    return found


def numbers(text: str) -> list[int]:
    """Values on one line: cpuacct.usage_percpu."""
    return [number(word) for word in text.split()]


def columns(text: str) -> tuple[list[int], list[int]]:
    """cpuacct.usage_all: the columns `user` and `system`, below a line of names."""
    user, system = [], []
    for line in text.split("\n")[1:]:
        words = line.split(" ")
        if len(words) >= 3:
            try:
                pair = number(words[1]), number(words[2])
            except ValueError:
                continue
            user.append(pair[0])
            system.append(pair[1])
    return user, system


def cpu_list(text: str) -> list[int]:
    """A list such as `0-2,4` (cpuset(7), "List format"); empty if there is none. Raises ValueError."""
    found: list[int] = []
    for part in text.strip().split(",") if text.strip() else ():
        first, dash, last = part.partition("-")
        low = number(first)
        high = number(last) if dash else low
        if not low <= high <= _LARGEST_CPU:
            raise ValueError(f"{part[:40]!r} is no range")
        found += range(low, high + 1)
    return found


def device_lines(text: str) -> list[DeviceValue]:
    """Lines of `major:minor [operation] value`: version 1's blkio.* files. The line `Total` is left aside."""
    found = []
    for line in text.split("\n"):
        words = line.replace(":", " ").split()
        if len(words) not in (3, 4):
            continue
        try:
            found.append((number(words[0]), number(words[1]), words[2] if len(words) == 4 else "", number(words[-1])))
        except ValueError:
            continue
    return found


def device_keys(text: str) -> list[tuple[int, int, dict[str, int]]]:
    """Lines of `major:minor key=value …`: version 2's io.stat."""
    found = []
    for line in text.split("\n"):
        words = line.split()
        major, colon, minor = words[0].partition(":") if words else ("", "", "")
        if not colon:
            continue
        values = {}
        try:
            device = number(major), number(minor)
        except ValueError:
            continue
        for word in words[1:]:
            key, _, value = word.partition("=")
            try:
                values[key] = number(value)
            except ValueError:
                continue
        found.append((*device, values))
    return found


def pressure(text: str) -> dict[str, dict[str, float]]:
    """A pressure file: "some" and "full" to avg10, avg60, avg300 (percent) and total (microseconds)."""
    found = {}
    for line in text.split("\n"):
        kind, *words = line.split() or [""]
        if kind not in ("some", "full"):
            continue
        values: dict[str, float] = {"avg10": 0, "avg60": 0, "avg300": 0, "total": 0}
        for word in words:
            key, _, value = word.partition("=")
            if key in values:
                values[key] = number(value) if key == "total" else _percent(value)
        found[kind] = values
    return found


def _percent(text: str) -> float:
    whole, _, fraction = text.partition(".")
    if not (whole + fraction).isascii() or not (whole + fraction).isdecimal() or len(text) > 40:
        raise ValueError(f"{text[:40]!r} is no percentage")
    value = float(text)
    return int(value) if value == int(value) else value
