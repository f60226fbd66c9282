"""What systemd is told about a container's cgroup: names, and resources as properties of a unit. Pure.

`cgroupsPath` is then `slice:prefix:name`, and the container a scope `prefix-name.scope` in that slice, as for runc, whose choice
of properties this follows, too. Sources: systemd.resource-control(5), systemd.slice(5), org.freedesktop.systemd1(5).

A property is (name, D-Bus signature, value), see ocirt.cgroups.dbus.
"""

from __future__ import annotations

from ocirt.cgroups import limits
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cgroups.devices import Rule
    from ocirt.cgroups.layout import Layout

    Property = tuple[str, str, Any]

POINTER = "/linux/cgroupsPath"
ANNOTATION = "org.systemd.property."
INFINITY = (1 << 64) - 1
_PERIOD = 100000  # microseconds; the kernel's, if config.json has none
_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@")
_LONGEST_NAME = 255
# The version 1 hierarchies in which systemd makes and removes cgroups itself.
_ITS_OWN = frozenset(("", "name=systemd", "cpu", "cpuacct", "blkio", "memory", "devices", "pids"))
# systemd versions: scopes have OOMPolicy, CPUWeight can be idle.
_OOM_POLICY = 253
_IDLE = 252


# -- names ---------------------------------------------------------------------------------------------------------------------


class Unit:
    """`name` of the container's unit, and the `slice` that holds it; `user`: whether a user's systemd has them."""

    __slots__ = ("name", "slice", "title", "user")

    def __init__(self, name: str, slice_: str, title: str, *, user: bool) -> None:
        self.name = name
        self.slice = slice_
        self.title = title
        self.user = user


def unit_of(cgroups_path: str | None, container_id: str, *, user: bool) -> Unit:
    """The unit that `slice:prefix:name` names; without it `runc-ID.scope` in system.slice or user.slice.

    A name that ends in `.slice` stands for itself. Raises Error for what systemd would not take, and for a slice, as systemd lets
    no process into one.
    """
    slice_, prefix, name = "", "runc", container_id
    if cgroups_path:
        parts = cgroups_path.split(":")
        if len(parts) != 3:
            raise Error(
                "invalid",
                f'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "{cgroups_path}" instead',
                subject=POINTER,
                hint="for example system.slice:ocirt:" + container_id,
            )
        slice_, prefix, name = parts
    unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope"
    slice_ = slice_ or ("user.slice" if user else "system.slice")
    expand(slice_)
    if not _CHARACTERS.issuperset(unit) or len(unit) > _LONGEST_NAME:
        raise Error(
            "invalid",
            f"{unit} is no name of a unit",
            subject=POINTER,
            hint="letters, digits and any of :-_.\\@ make one, of at most 255",
        )
    if unit.endswith(".slice"):
        raise Error(
            "invalid", f"a container cannot run in the slice {unit}", subject=POINTER, hint="systemd lets processes into scopes"
        )
    return Unit(unit, slice_, name, user=user)


def expand(name: str) -> str:
    """The path of a slice's cgroup below the manager's: `a-b.slice` is /a.slice/a-b.slice, `-.slice` is "". Raises Error."""
    stem = name.removesuffix(".slice")
    if name == "-.slice":
        return ""
    parts = stem.split("-")
    if stem == name or "" in parts or "/" in name or not _CHARACTERS.issuperset(name) or len(name) > _LONGEST_NAME:
        raise Error("invalid", f"invalid slice name: {name}", subject=POINTER, hint="for example system.slice, or a-b.slice")
    path = ""
    for end in range(1, len(parts) + 1):
        path += "/" + "-".join(parts[:end]) + ".slice"
    return path


def directories(unit: Unit, layout: Layout, control_group: str) -> dict[str, str]:
    """Controller to directory, for every mounted hierarchy; `control_group` is the manager's own cgroup."""
    inner = f"{control_group.rstrip('/')}{expand(unit.slice)}/{unit.name}"
    return {controller: mount + inner for controller, mount in layout.mounts.items()}


def to_remove(paths: dict[str, str], missing: list[str]) -> list[str]:
    """Of the directories that are `missing` before, those that are the container's: slices belong to systemd."""
    ours = {directory for controller, directory in paths.items() if controller not in _ITS_OWN}
    return [
        place
        for place in missing
        if place in paths.values() or any((directory + "/").startswith(place + "/") for directory in ours)
    ]


# -- properties ----------------------------------------------------------------------------------------------------------------


def describing(unit: Unit, mode: str, annotations: dict[str, str]) -> list[Property]:
    """The properties of a scope that have nothing to do with resources; those that annotations ask for last. Raises Error."""
    block = "IOAccounting" if mode == "v2" else "BlockIOAccounting"
    return [
        ("Description", "s", "ocirt container " + unit.title),
        ("Slice", "s", unit.slice),
        ("Delegate", "b", True),
        # A cgroup that joins a hierarchy later would leave its processes behind.
        ("MemoryAccounting", "b", True),
        ("CPUAccounting", "b", True),
        (block, "b", True),
        ("TasksAccounting", "b", True),
        ("DefaultDependencies", "b", False),
        # A scope that failed is not kept for anybody to look at: its name is free at once.
        ("CollectMode", "s", "inactive-or-failed"),
        *annotated(annotations),
    ]


def annotated(annotations: dict[str, str]) -> list[Property]:
    """The properties in annotations `org.systemd.property.NAME`; seconds (`…Sec`) become microseconds. Raises Error."""
    found: list[Property] = []
    for key, text in annotations.items():
        if not key.startswith(ANNOTATION):
            continue
        from ocirt.cgroups import variant  # noqa: PLC0415  (few have any)

        name = key.removeprefix(ANNOTATION)
        place = "/annotations/" + key.replace("~", "~0").replace("/", "~1")
        if len(name) < 3 or not (name.isascii() and name.isalpha()):
            raise Error("invalid", f"{name!r} is no name of a property", subject=place, hint="three letters or more")
        try:
            signature, value = variant.read(text)
            if name.endswith("Sec") and name[:-3] and name[-4].islower():
                if signature not in tuple("ynqiuxtd"):
                    raise ValueError("not a number")
                microseconds = int(value * 1000000)
                if not 0 <= microseconds <= INFINITY:
                    raise ValueError("out of range")
                name, signature, value = name[:-3] + "USec", "t", microseconds
        except (ValueError, OverflowError) as error:
            hint = "in GVariant's text format: 5, uint64 5, true, 'text', ['a.service']"
            raise Error("invalid", f"value parse error: {text}", subject=place, cause=str(error), hint=hint) from None
        found.append((name, signature, value))
    return found


def resources(section: dict[str, Any], mode: str, version: int) -> tuple[list[Property], list[Property]]:
    """`linux.resources` as properties: what counts from the start on, and the processor's share and quota. Raises Error.

    What systemd has no property for, and what its `version` does not know, is left to the files.
    """
    cpu = section.get("cpu") or {}
    now = _memory(section.get("memory") or {}, mode)
    limit = (section.get("pids") or {}).get("limit")
    if limit is not None:
        now.append(("TasksMax", "t", INFINITY if limit < 0 else limit or 1))
    for name, file in (("AllowedCPUs", "cpus"), ("AllowedMemoryNodes", "mems")):
        if cpu.get(file):
            now.append((name, "ay", _bits(cpu[file], f"{limits.POINTER}/cpu/{file}")))
    now += _block(section.get("blockIO") or {}, mode)
    if mode != "v2":
        later: list[Property] = [("CPUShares", "t", cpu["shares"])] if cpu.get("shares") else []
        return now, later + _quota(cpu.get("quota") or 0, cpu.get("period") or 0)
    later = []
    if cpu.get("idle") == 1 and version >= _IDLE:
        later.append(("CPUWeight", "t", 0))
    elif cpu.get("shares"):
        later.append(("CPUWeight", "t", limits.cpu_weight(cpu["shares"])))
    later += _quota(cpu.get("quota") or 0, cpu.get("period") or 0)
    for file, value in (section.get("unified") or {}).items():
        pointer = limits.POINTER + "/unified/" + file.replace("~", "~0").replace("/", "~1")
        try:
            properties = _unified(file, value.strip(), section["unified"], version)
        except ValueError:
            message = f'unified resource "{file}" value invalid: "{value}"'
            raise Error("invalid", message, subject=pointer, hint="what that file takes, see cgroup-v2.rst") from None
        (later if file.startswith("cpu.") else now).extend(properties)
    return now, later


def _infinite(value: int) -> int:
    return INFINITY if value == -1 else value


def _memory(memory: dict[str, Any], mode: str) -> list[Property]:
    limit, swap, low = (memory.get(name) or 0 for name in ("limit", "swap", "reservation"))
    found: list[Property] = []
    if limit:
        found.append(("MemoryMax" if mode == "v2" else "MemoryLimit", "t", _infinite(limit)))
    if mode == "v2":
        if low:
            found.append(("MemoryLow", "t", _infinite(low)))
        swap_max = limits.swap_limit(swap, limit)
        if swap_max is not None:
            # Also 0, which runc leaves out: systemd would write its own "max" over it.
            found.append(("MemorySwapMax", "t", _infinite(swap_max)))
    return found


def rounded_quota(quota: int, period: int) -> tuple[int, int]:
    """(microseconds of processor time a second, quota) for a quota in microseconds a period.

    systemd counts in whole percent of a processor. So both are rounded up: a cgroup below may set the quota that it was promised.
    """
    period = period or _PERIOD
    per_second = quota * 1000000 // period
    if per_second % 10000:
        per_second = (per_second // 10000 + 1) * 10000
        quota = per_second * period // 1000000
    return per_second, quota


def rounded(section: dict[str, Any]) -> dict[str, Any]:
    """`linux.resources` with the quota that systemd sets, so that the files say the same."""
    cpu = section.get("cpu") or {}
    quota = cpu.get("quota") or 0
    if quota <= 0:
        return section
    return section | {"cpu": cpu | {"quota": rounded_quota(quota, cpu.get("period") or 0)[1]}}


def _quota(quota: int, period: int) -> list[Property]:
    found: list[Property] = [("CPUQuotaPeriodUSec", "t", period)] if period else []
    if quota or period:
        found.append(("CPUQuotaPerSecUSec", "t", rounded_quota(quota, period)[0] if quota > 0 else INFINITY))
    return found


def _bits(text: str, pointer: str) -> bytes:
    """A list of processors or memory nodes, "0-2,7", as a mask with the lowest first. Raises Error."""
    mask = 0
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first and not dash:
            continue
        last = last if dash else first
        if not (first.isascii() and first.isdecimal() and last.isascii() and last.isdecimal()) or len(first + last) > 10:
            raise Error("invalid", f"{text!r} is no list of numbers", subject=pointer, hint="for example 0-2,7")
        if int(first) > int(last):
            raise Error("invalid", f"invalid range: {part.strip()}", subject=pointer, hint="for example 0-2,7")
        mask |= (1 << int(last) + 1) - (1 << int(first))
    if not mask:
        raise Error("invalid", "empty value", subject=pointer, hint="for example 0-2,7")
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


_THROTTLES = (
    ("throttleReadBpsDevice", "IOReadBandwidthMax"),
    ("throttleWriteBpsDevice", "IOWriteBandwidthMax"),
    ("throttleReadIOPSDevice", "IOReadIOPSMax"),
    ("throttleWriteIOPSDevice", "IOWriteIOPSMax"),
)


def _block(block: dict[str, Any], mode: str) -> list[Property]:
    weight = block.get("weight")
    if mode != "v2":
        return [("BlockIOWeight", "t", weight)] if weight else []
    # What systemd is not told of, it writes its defaults over.
    found: list[Property] = [("IOWeight", "t", limits.io_weight(weight))] if weight else []
    for name, property_ in _THROTTLES:
        rates = [
            (f"/dev/block/{device['major']}:{device['minor']}", device["rate"])
            for device in block.get(name) or ()
            if device.get("rate")
        ]
        if rates:
            found.append((property_, "a(st)", rates))
    return found


_UNIFIED = {
    "io.weight": "IOWeight",
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.max": "MemoryMax",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
    "cpu.weight": "CPUWeight",
}
_UNIFIED_SETS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}


def _unified(file: str, value: str, all_of_it: dict[str, str], version: int) -> list[Property]:
    """The properties for one file of version 2, if there are any. Raises ValueError, Error."""
    idle = all_of_it.get("cpu.idle", "").strip() == "1" and version >= _IDLE
    if file == "cpu.idle":
        return [("CPUWeight", "t", 0)] if idle else []
    if file == "cpu.max":
        quota, *period = value.split()
        if len(period) > 1:
            raise ValueError
        return _quota(0 if quota == "max" else _natural(quota), _natural(period[0]) if period else _PERIOD)
    if file == "memory.oom.group":
        policy = {"0": "continue", "1": "kill"}.get(value)
        return [("OOMPolicy", "s", policy)] if policy and version >= _OOM_POLICY else []
    if file in _UNIFIED_SETS:
        return [(_UNIFIED_SETS[file], "ay", _bits(value, f"{limits.POINTER}/unified/{file}"))]
    if file not in _UNIFIED or (file == "cpu.weight" and idle):
        return []
    if file == "io.weight":
        value = value.removeprefix("default ").strip()
        if not value.isdecimal():
            return []  # of one device
    number = INFINITY if value == "max" else _natural(value)
    return [(_UNIFIED[file], "t", number or 1 if file == "pids.max" else number)]


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > INFINITY:
        raise ValueError
    return int(text)


EVERYTHING: list[Property] = [("DeviceAllow", "a(ss)", []), ("DevicePolicy", "s", "auto")]


def device_rules(found: list[Rule]) -> list[Property]:
    """Device rules as DevicePolicy and DeviceAllow, as far as systemd can have them: it knows lists of what is allowed only.

    The whole of them is set beside systemd, later. Rules that make a hole in an allowed range are none for systemd.
    """
    from ocirt.cgroups import devices  # noqa: PLC0415

    (file, _, _), *exceptions = devices.writes(found)
    if file == "devices.allow" and not exceptions:
        return list(EVERYTHING)
    allowed = []
    for _, value, _ in exceptions if file == "devices.deny" else ():
        kind, numbers, access = value.split(" ")
        major, minor = numbers.split(":")
        kind = "char" if kind == "c" else "block"
        if major == "*" != minor:
            continue  # systemd has no words for it
        place = f"/dev/{kind}/{numbers}" if minor != "*" else f"{kind}-{major}"
        allowed.append((place, access))
    # The empty list first: it takes away what a unit that is there already allows.
    strict: list[Property] = [("DeviceAllow", "a(ss)", []), ("DevicePolicy", "s", "strict")]
    return [*strict, ("DeviceAllow", "a(ss)", allowed)] if allowed else strict
