"""`linux.resources`, apart from devices: what cgroups can take (config-linux.md, cgroups(7)). Loaded only if met.

Zero counts as not given wherever the kernel has no use for it: callers written in Go send it so.
"""

from __future__ import annotations

from ocirt.spec.shape import RESOURCES, Findings, TooManyError, walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.spec.shape import Finding

_THROTTLES = ("throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice", "throttleWriteIOPSDevice")


def check_resources_document(resources: Any) -> list[Finding]:
    """The findings on resources by themselves, as `update` leaves them. Removes members that are null."""
    findings = Findings()
    try:
        walk(resources, RESOURCES, "", findings)
        if not any(finding[3] == "error" for finding in findings):
            check_resources(resources, "", findings)
            for index, rule in enumerate(resources.get("devices", ())):
                from ocirt.spec.devices import check_rule  # noqa: PLC0415  (only if the section is there)

                check_rule(rule, f"/devices/{index}", findings)
    except TooManyError:
        pass  # enough is known
    return findings


def check_resources(resources: dict[str, Any], pointer: str, findings: list[Finding]) -> None:
    """Append the findings on resources of the right shape."""
    if memory := resources.get("memory"):
        _memory(memory, pointer + "/memory", findings)
    if cpu := resources.get("cpu"):
        _cpu(cpu, pointer + "/cpu", findings)
    if block := resources.get("blockIO"):
        _block(block, pointer + "/blockIO", findings)
    if resources.get("pids", {}).get("limit", 0) < -1:
        findings.append((pointer + "/pids/limit", "is out of range", "the number of tasks, -1 for no limit", "error"))
    if pages := resources.get("hugepageLimits"):
        _huge_pages(pages, pointer + "/hugepageLimits", findings)
    for name in resources.get("unified", ()):
        _unified(name, pointer + "/unified", findings)
    for name, limits in resources.get("rdma", {}).items():
        _rdma(name, limits, f"{pointer}/rdma/{name.replace('~', '~0').replace('/', '~1')}", findings)
    for index, entry in enumerate(resources.get("network", {}).get("priorities", ())):
        _priority(entry["name"], f"{pointer}/network/priorities/{index}/name", findings)


def _memory(memory: dict[str, Any], pointer: str, findings: list[Finding]) -> None:
    for name in ("limit", "reservation", "swap"):
        if memory.get(name, 0) < -1:
            findings.append((f"{pointer}/{name}", f"{memory[name]} is out of range", "bytes, -1 for no limit", "error"))
            return
    limit, swap, reservation = memory.get("limit", 0), memory.get("swap", 0), memory.get("reservation", 0)
    if swap > 0:
        if limit <= 0:
            hint = 'swap is the limit of memory and swap together: set "limit" too, at most as large'
            findings.append((pointer + "/swap", "a limit of swap needs one of memory", hint, "error"))
        elif swap < limit:
            message = f"{swap} is below the memory limit, which it includes"
            findings.append((pointer + "/swap", message, f"{limit} for no swap, more for some, -1 for no limit", "error"))
    if 0 < limit < reservation:
        message = f"{reservation} is above the limit and never takes effect"
        findings.append((pointer + "/reservation", message, f"at most the limit, {limit}", "warning"))
    if memory.get("swappiness", 0) > 100:
        findings.append((pointer + "/swappiness", f"{memory['swappiness']} is out of range", "0 to 100", "error"))
    for name in ("kernel", "kernelTCP"):
        if memory.get(name):
            findings.append((f"{pointer}/{name}", "is ignored: kernels have no such limit any more", "leave it out", "warning"))


def _cpu(cpu: dict[str, Any], pointer: str, findings: list[Finding]) -> None:
    period, quota, burst = cpu.get("period", 0), cpu.get("quota", 0), cpu.get("burst", 0)
    if period and not 1000 <= period <= 1000000:
        findings.append((pointer + "/period", f"{period} is out of range", "1000 to 1000000 microseconds", "error"))
    if quota < -1 or 0 < quota < 1000:
        hint = "1000 microseconds or more, -1 for no limit"
        findings.append((pointer + "/quota", f"{quota} is out of range", hint, "error"))
    elif quota > 0 and burst > quota:
        findings.append((pointer + "/burst", f"{burst} is above the quota", f"at most {quota} microseconds", "error"))
    if cpu.get("idle", 0) not in (0, 1):
        findings.append((pointer + "/idle", f"{cpu['idle']} is out of range", "1 for idle, 0 for not", "error"))
    if 0 < cpu.get("realtimePeriod", 0) < cpu.get("realtimeRuntime", 0):
        hint = f"at most realtimePeriod, {cpu['realtimePeriod']} microseconds"
        findings.append((pointer + "/realtimeRuntime", f"{cpu['realtimeRuntime']} is above the period", hint, "error"))
    for name in ("cpus", "mems"):
        if fault := _not_a_list(cpu.get(name, "")):
            findings.append((f"{pointer}/{name}", f"{fault} is not a list of numbers", 'such as "0-3,8"', "error"))


def _not_a_list(text: str) -> str:
    """The first part of `text` that is not a number or a range (cpuset(7), "List format"), quoted, or ""."""
    if not text.strip():
        return ""
    for part in text.strip().split(","):
        first, dash, rest = part.partition("-")
        last, colon, stride = rest.partition(":")
        numbers = [first, *([last] if dash else []), *(stride.split("/", 1) if colon else [])]
        digits = [number.strip() for number in numbers]
        if not all(number.isascii() and number.isdecimal() and len(number) < 10 for number in digits):
            return f'"{part}"'
        if dash and int(digits[0]) > int(digits[1]):
            return f'"{part}"'
    return ""


def _block(block: dict[str, Any], pointer: str, findings: list[Finding]) -> None:
    places = [(block, pointer)]
    for index, entry in enumerate(block.get("weightDevice", ())):
        places.append((entry, f"{pointer}/weightDevice/{index}"))
        if not entry.get("weight") and not entry.get("leafWeight"):
            hint = '"weight", "leafWeight" or both: 10 to 1000'
            findings.append((f"{pointer}/weightDevice/{index}", "gives the device no weight", hint, "error"))
    for entry, place in places:
        for name in ("weight", "leafWeight"):
            if entry.get(name) and not 10 <= entry[name] <= 1000:
                findings.append((f"{place}/{name}", f"{entry[name]} is out of range", "10 to 1000, 0 for the default", "error"))
    for name in _THROTTLES:
        places += [(entry, f"{pointer}/{name}/{index}") for index, entry in enumerate(block.get(name, ()))]
    for entry, place in places[1:]:
        for name in ("major", "minor"):
            if not 0 <= entry[name] < 1 << 32:
                hint = "the number that `ls -l` shows for the device"
                findings.append((f"{place}/{name}", f"{entry[name]} is out of range", hint, "error"))


def _huge_pages(pages: list[dict[str, Any]], pointer: str, findings: list[Finding]) -> None:
    seen: dict[str, int] = {}
    for index, entry in enumerate(pages):
        size = entry["pageSize"]
        digits, unit = size[:-2], size[-2:]
        if unit not in ("KB", "MB", "GB") or not (digits.isascii() and digits.isdecimal()) or digits[0] == "0":
            hint = 'a number and KB, MB or GB, such as "2MB": the names of /sys/fs/cgroup/hugetlb.*'
            findings.append((f"{pointer}/{index}/pageSize", f'"{size}" is not the size of a page', hint, "error"))
        elif size in seen:
            hint = f"keep this one or {pointer}/{seen[size]}"
            findings.append((f"{pointer}/{index}/pageSize", f'"{size}" is given twice', hint, "error"))
        seen.setdefault(size, index)


def _rdma(name: str, limits: dict[str, int], pointer: str, findings: list[Finding]) -> None:
    # The kernel takes the line apart at blanks.
    if not name or name.split() != [name]:
        hint = "the name of an RDMA device, such as mlx5_0: see /sys/class/infiniband"
        findings.append((pointer, f'"{name}" is not the name of a device', hint, "error"))
    elif not limits:
        findings.append((pointer, "limits nothing", '"hcaHandles", "hcaObjects" or both', "error"))


def _priority(name: str, pointer: str, findings: list[Finding]) -> None:
    if not name or name.split() != [name]:
        findings.append((pointer, f'"{name}" is not the name of a network device', "such as eth0", "error"))


def _unified(name: str, pointer: str, findings: list[Finding]) -> None:
    # A slash would lead out of the container's cgroup.
    if "/" in name or "." not in name.strip("."):
        place = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
        findings.append((place, f'"{name}" is not a file of a cgroup', 'a name without slashes, such as "memory.high"', "error"))
