"""From `linux.resources` to writes into cgroup files. Pure: knows config.json and the file formats, touches nothing.

The resources of config.json are those of version 1; for version 2 they are converted the way runc does it, as callers and their
tests count on its numbers. Sources: runtime-spec, config-linux.md, "Control groups"; kernel, admin-guide/cgroup-v1/ and
cgroup-v2.rst.

The order is one in which a fresh cgroup takes every value. A cgroup that already has limits may refuse one until another has
changed (memory and memory+swap, period and quota): `control.apply` then tries again after the others.
"""

from __future__ import annotations

from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # controller ("" only for cgroup.* files), file, value, JSON pointer, what a missing file means
    Entry = tuple[str, str, str, str, int]

POINTER = "/linux/resources"

_FILES = "a file of cgroup version 2 that sets a limit, such as memory.high"
_TOO_LITTLE_SWAP = "memory+swap limit should be >= memory limit"
_SHARES = "2 to 262144; 1024 is the usual share"

# The last field of an entry: what to do when the file does not exist.
REQUIRED = 0  # fail
OPTIONAL = 1  # go on
OR_NEXT = 2  # go on with the next entry; if the file does exist, leave the next entry out


def writes(resources: dict[str, Any] | None, mode: str, pointer: str = POINTER) -> list[Entry]:
    """The writes that set `resources` in a cgroup of version 1 (`mode` "v1" or "hybrid") or 2 ("v2"); device rules apart.

    `pointer` is where the resources stand, for errors and traces. Raises Error for values that contradict each other.
    """
    if not resources:
        return []
    unified = resources.get("unified")
    if mode == "v2":
        found = _pids(resources, pointer)
        found += _memory_v2(resources.get("memory") or {}, pointer + "/memory")
        found += _block_v2(resources.get("blockIO") or {}, pointer + "/blockIO")
        found += _cpu_v2(resources.get("cpu") or {}, pointer + "/cpu")
        found += _cpuset(resources, pointer)
        found += _huge_pages(resources, pointer, ".max")
        found += _rdma(resources.get("rdma") or {}, pointer + "/rdma")
        if unified:
            found += _unified(unified, pointer + "/unified")
        return found
    if unified:
        hint = "leave it out; this host takes memory, cpu, pids and the like"
        raise Error("invalid", "cannot use unified on cgroup v1", subject=pointer + "/unified", hint=hint)
    found = _cpuset(resources, pointer)
    found += _memory_v1(resources.get("memory") or {}, pointer + "/memory")
    found += _cpu_v1(resources.get("cpu") or {}, pointer + "/cpu")
    found += _pids(resources, pointer)
    found += _block_v1(resources.get("blockIO") or {}, pointer + "/blockIO")
    found += _huge_pages(resources, pointer, ".limit_in_bytes")
    found += _rdma(resources.get("rdma") or {}, pointer + "/rdma")
    found += _network(resources.get("network") or {}, pointer + "/network")
    return found


def cpu_weight(shares: int) -> int:
    """cpu.weight (1 to 10000) for cpu.shares (2 to 262144), by the quadratic function that maps 1024 to 100; 0 is unset."""
    if shares <= 2:
        return 1 if shares > 0 else 0
    if shares >= 262144:
        return 10000
    import math  # noqa: PLC0415  (only who sets shares pays for it)

    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612.0 - 7.0 / 34.0))


def io_weight(weight: int) -> int:
    """io.weight (1 to 10000) for blkio.weight (10 to 1000), linear; 0 is unset."""
    return 1 + max(weight - 10, 0) * 9999 // 990 if weight else 0


def swap_limit(swap: int, memory: int, pointer: str = POINTER + "/memory/swap") -> int | None:
    """memory.swap.max for config.json's memory+swap: bytes, -1 for "max", None to leave it alone. Raises Error."""
    if swap == 0:
        # Unlimited memory with nothing said about swap has always meant both.
        return -1 if memory == -1 else None
    if swap == -1 or memory == -1:
        return swap
    if memory == 0:
        hint = 'a "limit" beside it: swap counts memory and swap together'
        raise Error("invalid", "unable to set swap limit without memory limit", subject=pointer, hint=hint)
    if swap < memory:
        raise Error("invalid", _TOO_LITTLE_SWAP, subject=pointer, hint=f"at least {memory}, the limit of memory alone")
    return swap - memory


def _limit(section: dict[str, Any], name: str, pointer: str) -> int:
    value: int = section.get(name) or 0
    if value < -1:
        raise Error("invalid", f"{value} is no limit", subject=f"{pointer}/{name}", hint="-1 is unlimited")
    return value


def _pids(resources: dict[str, Any], pointer: str) -> list[Entry]:
    limit = (resources.get("pids") or {}).get("limit")
    if limit is None:
        return []
    # 0 can't be told from "nothing set" by systemd; with 1 no fork succeeds either.
    value = str(limit or 1) if limit >= 0 else "max"
    return [("pids", "pids.max", value, pointer + "/pids/limit", REQUIRED)]


def _memory_v1(memory: dict[str, Any], pointer: str) -> list[Entry]:
    limit, swap = _limit(memory, "limit", pointer), _limit(memory, "swap", pointer)
    reservation = _limit(memory, "reservation", pointer)
    found: list[Entry] = []
    if limit:
        found.append(("memory", "memory.limit_in_bytes", str(limit), pointer + "/limit", REQUIRED))
    if swap:
        if limit > 0 and 0 < swap < limit:
            hint = f"at least {limit}, the limit of memory alone"
            raise Error("invalid", _TOO_LITTLE_SWAP, subject=pointer + "/swap", hint=hint)
        found.append(("memory", "memory.memsw.limit_in_bytes", str(swap), pointer + "/swap", REQUIRED))
    elif limit == -1:
        found.append(("memory", "memory.memsw.limit_in_bytes", "-1", pointer + "/limit", OPTIONAL))
    if limit == -1 or swap == -1:
        found.reverse()  # memory+swap is never below memory
    if reservation:
        found.append(("memory", "memory.soft_limit_in_bytes", str(reservation), pointer + "/reservation", REQUIRED))
    if memory.get("disableOOMKiller"):
        found.append(("memory", "memory.oom_control", "1", pointer + "/disableOOMKiller", REQUIRED))
    swappiness = memory.get("swappiness")
    if swappiness is not None and swappiness not in (-1, (1 << 64) - 1):
        if not 0 <= swappiness <= 100:
            raise Error(
                "invalid",
                f"invalid memory swappiness value: {swappiness} (valid range is 0-100)",
                subject=pointer + "/swappiness",
                hint="0 to 100, or leave it out",
            )
        found.append(("memory", "memory.swappiness", str(swappiness), pointer + "/swappiness", REQUIRED))
    return found


def _memory_v2(memory: dict[str, Any], pointer: str) -> list[Entry]:
    limit, swap = _limit(memory, "limit", pointer), _limit(memory, "swap", pointer)
    reservation = _limit(memory, "reservation", pointer)
    found: list[Entry] = []
    swap_max = swap_limit(swap, limit, pointer + "/swap")
    if swap_max is not None:
        # On a kernel without swap accounting there is nothing to allow in full or to forbid.
        missing = OPTIONAL if swap_max in (-1, 0) else REQUIRED
        found.append(("memory", "memory.swap.max", _or_max(swap_max), pointer + ("/swap" if swap else "/limit"), missing))
    if limit:
        found.append(("memory", "memory.max", _or_max(limit), pointer + "/limit", REQUIRED))
    if reservation:
        found.append(("memory", "memory.low", _or_max(reservation), pointer + "/reservation", REQUIRED))
    return found


def _or_max(value: int) -> str:
    return "max" if value == -1 else str(value)


def _cpu_v1(cpu: dict[str, Any], pointer: str) -> list[Entry]:
    found: list[Entry] = []
    shares = cpu.get("shares")
    if shares:
        # The kernel would clamp in silence.
        if shares > 262144:
            raise Error("invalid", "the maximum allowed cpu-shares is 262144", subject=pointer + "/shares", hint=_SHARES)
        if shares < 2:
            raise Error("invalid", "the minimum allowed cpu-shares is 2", subject=pointer + "/shares", hint=_SHARES)
        found.append(("cpu", "cpu.shares", str(shares), pointer + "/shares", REQUIRED))
    if cpu.get("period"):
        found.append(("cpu", "cpu.cfs_period_us", str(cpu["period"]), pointer + "/period", REQUIRED))
    if cpu.get("quota"):
        found.append(("cpu", "cpu.cfs_quota_us", str(cpu["quota"]), pointer + "/quota", REQUIRED))
    if cpu.get("burst") is not None:
        found.append(("cpu", "cpu.cfs_burst_us", str(cpu["burst"]), pointer + "/burst", OPTIONAL))
    _idle(found, cpu, pointer)
    if cpu.get("realtimePeriod"):
        found.append(("cpu", "cpu.rt_period_us", str(cpu["realtimePeriod"]), pointer + "/realtimePeriod", REQUIRED))
    if cpu.get("realtimeRuntime"):
        found.append(("cpu", "cpu.rt_runtime_us", str(cpu["realtimeRuntime"]), pointer + "/realtimeRuntime", REQUIRED))
    return found


def _cpu_v2(cpu: dict[str, Any], pointer: str) -> list[Entry]:
    found: list[Entry] = []
    if cpu.get("shares"):
        found.append(("cpu", "cpu.weight", str(cpu_weight(cpu["shares"])), pointer + "/shares", REQUIRED))
    quota, period = cpu.get("quota") or 0, cpu.get("period") or 0
    if quota or period:
        value = f"{quota if quota > 0 else 'max'} {period or 100000}"
        found.append(("cpu", "cpu.max", value, pointer + ("/quota" if quota else "/period"), REQUIRED))
    if cpu.get("burst") is not None:
        found.append(("cpu", "cpu.max.burst", str(cpu["burst"]), pointer + "/burst", REQUIRED))
    _idle(found, cpu, pointer)
    return found


def _idle(found: list[Entry], cpu: dict[str, Any], pointer: str) -> None:
    idle = cpu.get("idle")
    if idle is not None:
        # An idle group refuses a weight: leave that state first, enter it last.
        found.insert(len(found) if idle else 0, ("cpu", "cpu.idle", str(idle), pointer + "/idle", REQUIRED))


def _cpuset(resources: dict[str, Any], pointer: str) -> list[Entry]:
    cpu = resources.get("cpu") or {}
    return [
        ("cpuset", "cpuset." + name, cpu[name], f"{pointer}/cpu/{name}", REQUIRED) for name in ("cpus", "mems") if cpu.get(name)
    ]


_THROTTLES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
)


def _block_v1(block: dict[str, Any], pointer: str) -> list[Entry]:
    found: list[Entry] = []
    if block.get("weight"):
        # CFQ's file up to Linux 5.0, BFQ's since.
        found.append(("blkio", "blkio.weight", str(block["weight"]), pointer + "/weight", OR_NEXT))
        found.append(("blkio", "blkio.bfq.weight", str(block["weight"]), pointer + "/weight", REQUIRED))
    if block.get("leafWeight"):
        found.append(("blkio", "blkio.leaf_weight", str(block["leafWeight"]), pointer + "/leafWeight", REQUIRED))
    for index, device in enumerate(block.get("weightDevice") or ()):
        place = f"{pointer}/weightDevice/{index}"
        number = f"{device['major']}:{device['minor']}"
        if device.get("weight"):
            found.append(("blkio", "blkio.weight_device", f"{number} {device['weight']}", place, OR_NEXT))
            found.append(("blkio", "blkio.bfq.weight_device", f"{number} {device['weight']}", place, REQUIRED))
        if device.get("leafWeight"):
            found.append(("blkio", "blkio.leaf_weight_device", f"{number} {device['leafWeight']}", place, REQUIRED))
    for name, file, _ in _THROTTLES:
        for index, device in enumerate(block.get(name) or ()):
            value = f"{device['major']}:{device['minor']} {device.get('rate', 0)}"
            found.append(("blkio", file, value, f"{pointer}/{name}/{index}", REQUIRED))
    return found


def _block_v2(block: dict[str, Any], pointer: str) -> list[Entry]:
    found: list[Entry] = []
    if block.get("weight"):
        found.append(("io", "io.bfq.weight", str(block["weight"]), pointer + "/weight", OR_NEXT))
        found.append(("io", "io.weight", str(io_weight(block["weight"])), pointer + "/weight", REQUIRED))
    for index, device in enumerate(block.get("weightDevice") or ()):
        if device.get("weight"):
            value = f"{device['major']}:{device['minor']} {device['weight']}"
            found.append(("io", "io.bfq.weight", value, f"{pointer}/weightDevice/{index}", OPTIONAL))
    for name, _, key in _THROTTLES:
        for index, device in enumerate(block.get(name) or ()):
            # 0 takes a limit away in version 1 and is refused in version 2.
            value = f"{device['major']}:{device['minor']} {key}={device.get('rate') or 'max'}"
            found.append(("io", "io.max", value, f"{pointer}/{name}/{index}", REQUIRED))
    return found


def _huge_pages(resources: dict[str, Any], pointer: str, suffix: str) -> list[Entry]:
    found: list[Entry] = []
    for index, entry in enumerate(resources.get("hugepageLimits") or ()):
        size, place = entry["pageSize"], f"{pointer}/hugepageLimits/{index}"
        number, unit = size[:-2], size[-2:]
        if unit not in ("KB", "MB", "GB") or not (number.isascii() and number.isdecimal()):
            raise Error("invalid", f"{size!r} is no huge page size", subject=place + "/pageSize", hint="for example 2MB")
        # Reservations are the limit that makes mmap fail and not the first touch kill (Linux 5.7), so they get it too.
        found.append(("hugetlb", f"hugetlb.{size}{suffix}", str(entry["limit"]), place, REQUIRED))
        found.append(("hugetlb", f"hugetlb.{size}.rsvd{suffix}", str(entry["limit"]), place, OPTIONAL))
    return found


def _rdma(devices: dict[str, dict[str, int]], pointer: str) -> list[Entry]:
    """admin-guide/cgroup-v1/rdma.rst; the file is the same in version 2."""
    found: list[Entry] = []
    for device, limits in devices.items():
        place = f"{pointer}/{device.replace('~', '~0').replace('/', '~1')}"
        words = [
            f"{key}={limits[name]}"
            for name, key in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
            if limits.get(name) is not None
        ]
        found.append(("rdma", "rdma.max", " ".join([device, *words]), place, REQUIRED))
    return found


def _network(network: dict[str, Any], pointer: str) -> list[Entry]:
    """admin-guide/cgroup-v1/net_cls.rst and net_prio.rst; version 2 has neither."""
    found: list[Entry] = []
    if network.get("classID"):
        found.append(("net_cls", "net_cls.classid", str(network["classID"]), pointer + "/classID", REQUIRED))
    for index, entry in enumerate(network.get("priorities") or ()):
        value = f"{entry['name']} {entry['priority']}"
        found.append(("net_prio", "net_prio.ifpriomap", value, f"{pointer}/priorities/{index}", REQUIRED))
    return found


# They would not limit the container but move or kill processes behind the runtime's back.
_NOT_SETTINGS = frozenset(("cgroup.procs", "cgroup.threads", "cgroup.kill"))


def _unified(unified: dict[str, str], pointer: str) -> list[Entry]:
    found: list[Entry] = []
    for file, value in unified.items():
        place = pointer + "/" + file.replace("~", "~0").replace("/", "~1")
        if "/" in file:
            raise Error("invalid", f'unified resource "{file}" must be a file name (no slashes)', subject=place, hint=_FILES)
        controller, dot, parameter = file.partition(".")
        if not (controller and dot and parameter):
            message = f'unified resource "{file}" must be in the form CONTROLLER.PARAMETER'
            raise Error("invalid", message, subject=place, hint=_FILES)
        if file in _NOT_SETTINGS:
            raise Error("invalid", f'unified resource "{file}" is no setting', subject=place, hint=_FILES)
        owner = "" if controller == "cgroup" else controller
        # Files with a line per device take one line per write.
        lines = [line for line in value.split("\n") if line] or [""]
        found += [(owner, file, line, place, REQUIRED) for line in lines]
    return found
