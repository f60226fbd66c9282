"""All findings on a config.json at once, for `check`. What starts a container stops at the first error and does without."""

from __future__ import annotations

from ocirt.spec.check import check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.spec.shape import Finding

# Sections that can be left out while the rest is judged: nothing else is said to be wrong because they are not there.
_APART = (
    *(("process", name) for name in ("consoleSize", "user", "env", "capabilities", "rlimits", "terminal", "noNewPrivileges")),
    *(("process", name) for name in ("apparmorProfile", "oomScoreAdj", "selinuxLabel", "scheduler", "ioPriority")),
    ("process", "execCPUAffinity"),
    *(("linux", "resources", name) for name in ("devices", "memory", "cpu", "pids", "blockIO", "hugepageLimits", "network")),
    *(("linux", "resources", name) for name in ("rdma", "unified")),
    *(("linux", name) for name in ("uidMappings", "gidMappings", "sysctl", "resources", "cgroupsPath", "devices", "netDevices")),
    *(("linux", name) for name in ("seccomp", "rootfsPropagation", "maskedPaths", "readonlyPaths", "mountLabel", "intelRdt")),
    *(("linux", name) for name in ("memoryPolicy", "personality", "timeOffsets")),
    *(("root", "readonly"), ("hostname",), ("domainname",), ("mounts",), ("hooks",), ("annotations",)),
)


def check_whole(spec: Any, rootless: bool = False) -> list[Finding]:
    """The findings of `check`, and those on what the sections mean whose shape is right. Changes `spec`."""
    findings = check(spec, rootless)
    broken = [finding[0] for finding in findings if finding[3] == "error"]
    if not broken or not isinstance(spec, dict):
        return findings
    taken = set()
    for pointer in broken:
        section = _section(pointer)
        if section and take_out(spec, section):
            taken.add("/" + "/".join(section))
    again = check(spec, rootless) if taken else []
    known = set(findings)
    return [
        *findings,
        *(each for each in again if each not in known and not any(_related(each[0], pointer) for pointer in taken)),
    ]


def _section(pointer: str) -> tuple[str, ...]:
    tokens = tuple(pointer.split("/")[1:])
    for size in (3, 2, 1):
        if tokens[:size] in _APART:
            return tokens[:size]
    return ()


def take_out(spec: dict[str, Any], section: tuple[str, ...]) -> bool:
    """Remove a section; whether it was there."""
    place: Any = spec
    for name in section[:-1]:
        place = place.get(name) if isinstance(place, dict) else None
    if not isinstance(place, dict):
        return False
    return place.pop(section[-1], place) is not place


def _related(pointer: str, section: str) -> bool:
    """Whether a finding is about a section that was taken out, or about what that stood in."""
    return (pointer + "/").startswith(section + "/") or (section + "/").startswith(pointer + "/")
